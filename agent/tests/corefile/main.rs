//! The Corefile front end from outside: text in, configuration or diagnostics out.
//!
//! The tables `f_cache`, `k_forward` and `m_plugins` are CoreDNS' own configuration tests, row by row. Where nodens does not
//! have an option yet, its row holds with the named refusal added, and the value is read all the same.

mod arbitrary;
mod f_cache;
mod files;
mod k_forward;
mod m_plugins;
mod snapshots;
mod syntax;

use std::collections::HashMap;
use std::io;

use nodens_agent::corefile::config::ServerBlock;
use nodens_agent::corefile::{Corefile, Diagnostic, LoadOptions, Source, examine};

/// A file system and an environment made of text.
#[derive(Default)]
struct Texts {
    files: HashMap<String, Vec<u8>>,
    environment: HashMap<String, String>,
}

impl Texts {
    fn corefile(text: impl AsRef<[u8]>) -> Self {
        Self::default().file("Corefile", text)
    }

    fn file(mut self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.into(), text.as_ref().to_vec());
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    fn examine(&self) -> (Corefile, Vec<Diagnostic>) {
        examine("Corefile", self, &LoadOptions::default())
    }

    /// The messages of all errors.
    fn errors(&self) -> Vec<String> {
        messages(&self.examine().1, true)
    }

    /// The configuration; any error fails the test.
    fn good(&self) -> Corefile {
        let (corefile, diagnostics) = self.examine();
        assert_eq!(messages(&diagnostics, true), [""; 0]);
        corefile
    }
}

impl Source for Texts {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let prefix = if directory == "." { String::new() } else { format!("{directory}/") };
        let below = self.files.keys().filter_map(|path| path.strip_prefix(&prefix));
        Ok(below.map(|rest| rest.split('/').next().unwrap_or(rest).to_owned()).collect())
    }

    fn env(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }
}

fn messages(diagnostics: &[Diagnostic], errors: bool) -> Vec<String> {
    diagnostics.iter().filter(|d| d.is_error() == errors).map(|d| d.message.clone()).collect()
}

/// A server block around some lines.
fn block(lines: &str) -> Texts {
    Texts::corefile(format!(".:53 {{\n{lines}\n}}\n"))
}

/// Reads the lines of one server block. `refused` are the options that nodens refuses by name as not there yet; anything
/// else that is refused fails the test.
fn reads(lines: &str, refused: &[&str]) -> ServerBlock {
    let (corefile, diagnostics) = block(lines).examine();
    let mut errors = messages(&diagnostics, true);
    for option in refused {
        let expected = format!("{option} is not in nodens yet");
        let at = errors.iter().position(|message| *message == expected);
        assert!(at.is_some(), "{lines}: no refusal of {option} in {errors:?}");
        errors.remove(at.unwrap());
    }
    assert_eq!(errors, [""; 0], "{lines}");
    corefile.blocks.into_iter().next().expect("one block")
}

/// Checks that the lines of a server block are refused, for another reason than that an option is not there yet: `because`
/// stands in the message.
fn refuses(lines: &str, because: &str) {
    let mut errors = block(lines).errors();
    errors.retain(|message| !message.ends_with("is not in nodens yet"));
    assert!(errors.iter().any(|message| message.contains(because)), "{lines}: {because:?} not in {errors:?}");
}
