//! The lines of a scenario, one after the other, and the words and numbers on them. Every mistake is told with its line.

use super::Fault;
use std::net::IpAddr;

/// What is left to read.
pub(super) struct Lines<'a> {
    pub(super) file: &'a str,
    /// With their numbers.
    pub(super) lines: &'a [(usize, &'a str)],
    /// The number of the line read last.
    pub(super) line: usize,
}

impl<'a> Lines<'a> {
    /// The next line that says something; `missing` is what the file lacks if there is none.
    pub(super) fn next(&mut self, missing: &str) -> Result<&'a str, Fault> {
        while let Some(((number, line), rest)) = self.lines.split_first() {
            self.lines = rest;
            self.line = *number;
            if !line.is_empty() && !line.starts_with(';') {
                return Ok(line);
            }
        }
        self.fault(format!("the file ends before {missing}"))
    }

    pub(super) fn skip_to(&mut self, number: usize) {
        self.lines = self.lines.get(number - self.line..).unwrap_or_default();
        self.line = number;
    }

    pub(super) fn label(
        &self,
        label: Option<(&str, &str)>,
        wanted: &str,
        known: &[&'static str],
    ) -> Result<Option<String>, Fault> {
        match label {
            None => Ok(None),
            Some((word, reason)) if word == wanted && known.contains(&reason) => Ok(Some(reason.to_owned())),
            Some((word, _)) if word != wanted => self.fault(format!("{word} does not belong to this event")),
            Some((_, reason)) => {
                self.fault(format!("'{reason}' is no reason; there are {}", known.join(", ")))
            }
        }
    }

    pub(super) fn number<T: std::str::FromStr>(&self, word: Option<&str>, what: &str) -> Result<T, Fault> {
        let word = word.unwrap_or_default();
        word.parse().or_else(|_| self.fault(format!("'{word}' is not {what}")))
    }

    pub(super) fn address(&self, word: Option<&str>) -> Result<IpAddr, Fault> {
        self.number(word, "an IP address")
    }

    pub(super) fn hex(&self, digits: &str) -> Result<Vec<u8>, Fault> {
        let nibbles: Option<Vec<u32>> = digits.chars().map(|c| c.to_digit(16)).collect();
        match nibbles {
            Some(nibbles) if nibbles.len() % 2 == 0 => {
                Ok(nibbles.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
            }
            _ => self.fault(format!("'{digits}' is not bytes in hexadecimal")),
        }
    }

    pub(super) fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { file: self.file.to_owned(), line: self.line, message: message.into() })
    }
}
