//! Flags as Go's libraries spell them, since that is what the original server takes: `--flag value`, `--flag=value`, one dash as good
//! as two, a switch is `--flag` or `--flag=false`, and `-v4` is `-v 4`. A flag that is given twice has its last value, unless it collects.
//!
//! A command describes its flags in a table, from which the parser and the help text are made. Nothing here starts or reads anything.

use std::fmt;

/// Widest line of the help text: what a terminal and a log viewer both show.
const WIDTH: usize = 100;

/// Column where explanations begin.
const INDENT: usize = 38;

type Set<T> = Box<dyn Fn(&mut T, &str) -> Result<(), String>>;

/// One flag of a command whose options are a `T`.
pub struct Flag<T> {
    /// All spellings; the first is the one shown.
    names: &'static [&'static str],
    /// What stands for the value in the help; None for a switch.
    metavar: Option<&'static str>,
    /// Heading in the help.
    group: &'static str,
    help: &'static str,
    default: String,
    set: Set<T>,
}

impl<T: 'static> Flag<T> {
    /// A flag with a value. The error of `set` says what would be right.
    pub fn value(
        names: &'static [&'static str],
        metavar: &'static str,
        help: &'static str,
        set: impl Fn(&mut T, &str) -> Result<(), String> + 'static,
    ) -> Self {
        Self { names, metavar: Some(metavar), group: "", help, default: String::new(), set: Box::new(set) }
    }

    /// A switch.
    pub fn switch(
        names: &'static [&'static str],
        help: &'static str,
        set: impl Fn(&mut T, bool) + 'static,
    ) -> Self {
        let set = move |options: &mut T, text: &str| {
            set(options, go_bool(text).ok_or("write `true` or `false`")?);
            Ok(())
        };
        Self { names, metavar: None, group: "", help, default: String::new(), set: Box::new(set) }
    }

    /// Its default, for the help.
    #[must_use]
    pub fn default(mut self, default: impl fmt::Display) -> Self {
        self.default = default.to_string();
        self
    }

    /// The same flag for options that hold a `T`, so that commands can share flags.
    pub fn within<U: 'static>(self, part: fn(&mut U) -> &mut T) -> Flag<U> {
        let Self { names, metavar, group, help, default, set } = self;
        let set = Box::new(move |options: &mut U, text: &str| set(part(options), text));
        Flag { names, metavar, group, help, default, set }
    }
}

/// Flags under one heading of the help.
pub fn group<T>(heading: &'static str, flags: Vec<Flag<T>>) -> Vec<Flag<T>> {
    flags.into_iter().map(|flag| Flag { group: heading, ..flag }).collect()
}

/// A command line that cannot be understood: what is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl UsageError {
    /// Both sentences.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nodens-admission: {}\nhelp: {}", self.message, self.help)
    }
}

impl std::error::Error for UsageError {}

/// Reads the words behind a command into `options`; what is no flag comes back, in order.
pub fn parse<T>(flags: &[Flag<T>], words: &[String], options: &mut T) -> Result<Vec<String>, UsageError> {
    let mut rest = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.extend(words.cloned());
            break;
        }
        if word.len() < 2 || !word.starts_with('-') {
            rest.push(word.clone());
            continue;
        }
        let body = word.strip_prefix("--").unwrap_or(&word[1..]);
        let (name, given) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let find = |name: &str| flags.iter().find(|flag| flag.names.contains(&name));
        let (flag, name, given) = match find(name) {
            Some(flag) => (flag, name, given),
            // `-v4`
            None => match body.split_at_checked(1) {
                Some((letter, value)) if !word.starts_with("--") && given.is_none() => match find(letter) {
                    Some(flag) if flag.metavar.is_some() => (flag, letter, Some(value)),
                    _ => return Err(unknown(flags, name)),
                },
                _ => return Err(unknown(flags, name)),
            },
        };
        let value = match (given, flag.metavar) {
            (Some(value), _) => value,
            (None, None) => "true",
            (None, Some(metavar)) => words.next().ok_or_else(|| {
                UsageError::new(format!("`--{name}` needs a value"), format!("write `--{name} {metavar}`"))
            })?,
        };
        (flag.set)(options, value)
            .map_err(|help| UsageError::new(format!("`{value}` is not a value for `--{name}`"), help))?;
    }
    Ok(rest)
}

fn unknown<T>(flags: &[Flag<T>], name: &str) -> UsageError {
    let known = flags.iter().flat_map(|flag| flag.names).copied();
    let help = match nearest(name, known) {
        Some(near) => format!("did you mean `--{near}`?"),
        None => "`nodens-admission help` lists the commands, and `--help` behind one its flags".into(),
    };
    UsageError::new(format!("unknown flag `--{name}`"), help)
}

/// The known word that was probably meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (distance(word, known), known)).min()?;
    // More than a third of the word wrong is another word.
    (near.0 <= word.chars().count() / 3).then_some(near.1)
}

/// Characters to insert, delete or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The spellings Go's `strconv.ParseBool` takes.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The flags, explained.
pub fn help<T>(flags: &[Flag<T>]) -> String {
    let mut text = String::new();
    let mut heading = "";
    for flag in flags {
        if flag.group != heading {
            heading = flag.group;
            text += &format!("\n{heading}:\n");
        }
        let names: Vec<String> = flag
            .names
            .iter()
            .map(|name| format!("{}{name}", if name.len() == 1 { "-" } else { "--" }))
            .collect();
        let head = match flag.metavar {
            Some(metavar) => format!("{} {metavar}", names.join(", ")),
            None => names.join(", "),
        };
        let default =
            if flag.default.is_empty() { String::new() } else { format!(" (default {})", flag.default) };
        entry(&mut text, &head, &format!("{}{default}", flag.help));
    }
    text
}

/// One line, or several: the head, and its explanation in a column of its own.
pub fn entry(text: &mut String, head: &str, help: &str) {
    let mut line = format!("  {head}");
    if line.chars().count() + 2 > INDENT {
        *text += &line;
        text.push('\n');
        line.clear();
    }
    let pad = |line: &mut String| *line += &" ".repeat(INDENT - line.chars().count());
    pad(&mut line);
    for word in help.split_whitespace() {
        let column = line.chars().count();
        if column > INDENT && column + 1 + word.chars().count() > WIDTH {
            *text += &line;
            text.push('\n');
            line.clear();
            pad(&mut line);
        } else if column > INDENT {
            line.push(' ');
        }
        line += word;
    }
    *text += &line;
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq)]
    struct Options {
        on: bool,
        level: u8,
        names: Vec<String>,
    }

    fn flags() -> Vec<Flag<Options>> {
        vec![
            Flag::switch(&["on"], "turns it on", |options: &mut Options, on| options.on = on),
            Flag::value(&["v", "level"], "N", "how much", |options: &mut Options, text| {
                options.level = text.parse().map_err(|_| "write a number")?;
                Ok(())
            }),
            Flag::value(&["name"], "NAME", "a name, several times", |options: &mut Options, text| {
                options.names.push(text.into());
                Ok(())
            }),
        ]
    }

    fn read(line: &str) -> Result<(Options, Vec<String>), UsageError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut options = Options::default();
        let rest = parse(&flags(), &words, &mut options)?;
        Ok((options, rest))
    }

    #[test]
    fn every_spelling_of_go_is_read() {
        for line in ["--on -v=4", "-on --v 4", "--on=true -v4", "--on=1 --level=4", "-v 3 --on=f --on -v 4"] {
            let (options, rest) = read(line).expect(line);
            assert_eq!((options.on, options.level, rest.len()), (true, 4, 0), "{line}");
        }
        let (options, rest) = read("--name a 2>&1 --name=b -- --on").expect("good");
        assert_eq!((options.names, rest), (vec!["a".into(), "b".into()], vec!["2>&1".into(), "--on".into()]));
        assert!(!options.on);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        let help = |line: &str| read(line).expect_err(line).help;
        assert_eq!(help("--nam x"), "did you mean `--name`?");
        assert_eq!(help("--on=maybe"), "write `true` or `false`");
        assert_eq!(help("-v"), "write `--v N`");
        assert_eq!(help("-vx"), "write a number");
        assert!(help("--é").contains("lists the commands"));
        assert!(help("-é4").contains("lists the commands"));
    }

    #[test]
    fn help_fits_its_width_and_has_every_flag() {
        let flags = group("Things", flags());
        let text = help(&flags);
        assert!(text.starts_with("\nThings:\n  --on"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("-v, --level N"));
    }
}
