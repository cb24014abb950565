//! A check that did not hold.

use std::fmt;

/// Which check, and what was wrong.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Failure {
    /// The group and the rule, such as `answers/ttl`.
    pub check: &'static str,
    /// What was seen and what should have been.
    pub text: String,
    /// When, in nanoseconds of the world's time; the world fills it in.
    pub at: u64,
    /// After how many events; the world fills it in.
    pub event: u64,
}

/// Whether a check held.
pub type Checked<T = ()> = Result<T, Box<Failure>>;

/// A check that did not hold.
pub fn fail<T>(check: &'static str, text: impl Into<String>) -> Checked<T> {
    Err(Box::new(Failure { check, text: text.into(), at: 0, event: 0 }))
}

/// `text` is made only if `holds` is false.
#[inline]
pub fn ensure(holds: bool, check: &'static str, text: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { fail(check, text()) }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.text)
    }
}
