//! Command-line flags: `--name value`, `--name=value` and `--name` alone, each known by name or refused.
//!
//! A subcommand takes what it knows and then calls [`Args::finish`], which names the first flag that nobody took.

use std::fmt::Display;
use std::str::FromStr;

/// The arguments that are not taken yet.
#[derive(Debug)]
pub struct Args(Vec<String>);

impl Args {
    /// Of these words, the program and the subcommand left out.
    pub fn new(words: impl IntoIterator<Item = String>) -> Self {
        Args(words.into_iter().collect())
    }

    /// Takes a flag without a value: whether it is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|word| word == name);
        found.map(|at| self.0.remove(at)).is_some()
    }

    /// Takes a flag's value.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for the person at the terminal.
    pub fn value<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(at) = self.0.iter().position(|word| word.split('=').next() == Some(name)) else {
            return Ok(None);
        };
        let word = self.0.remove(at);
        let text = match word.split_once('=') {
            Some((_, value)) => value.to_string(),
            None if at < self.0.len() => self.0.remove(at),
            None => return Err(format!("{name} needs a value")),
        };
        text.parse().map(Some).map_err(|why| format!("{name} {text}: {why}"))
    }

    /// Takes a flag's value, or the default.
    ///
    /// # Errors
    ///
    /// As [`value`](Self::value).
    pub fn value_or<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> Result<T, String> {
        Ok(self.value(name)?.unwrap_or(default))
    }

    /// Everything after `--`.
    pub fn rest(&mut self) -> Vec<String> {
        let Some(at) = self.0.iter().position(|word| word == "--") else { return vec![] };
        let rest = self.0.split_off(at + 1);
        self.0.pop();
        rest
    }

    /// Nothing may be left.
    ///
    /// # Errors
    ///
    /// The first word that nobody took.
    pub fn finish(self) -> Result<(), String> {
        self.0.first().map_or(Ok(()), |word| Err(format!("{word} is not known here; --help lists the flags")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Args {
        Args::new(text.split(' ').filter(|word| !word.is_empty()).map(str::to_string))
    }

    #[test]
    fn both_spellings_and_defaults() {
        let mut given = args("--rate 500 --seconds=2.5 --json -- unbound -d --json");
        assert_eq!(given.rest(), ["unbound", "-d", "--json"]);
        assert_eq!(given.value("--rate"), Ok(Some(500u64)));
        assert_eq!(given.value_or("--seconds", 1.0), Ok(2.5));
        assert_eq!(given.value_or("--sockets", 32u32), Ok(32));
        assert!(given.flag("--json") && !given.flag("--json"));
        assert_eq!(given.finish(), Ok(()));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(args("--rate many").value::<u64>("--rate").unwrap_err().starts_with("--rate many: "));
        assert_eq!(args("--rate").value::<u64>("--rate"), Err("--rate needs a value".to_string()));
        assert!(args("--rte 5").finish().unwrap_err().starts_with("--rte is not known"));
    }
}
