//! What a command found out, one line each: what was looked at, how it is, and what to do about it.

use std::fmt;

use serde::Serialize;

use super::table::Table;

/// How it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Good to know; nothing to do.
    Note,
    /// Could not be looked at, or will bite somebody later.
    Warning,
    /// Does not work like this.
    Problem,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Warning => "WARNING",
            Verdict::Problem => "PROBLEM",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: a short name that stays the same.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do; empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Check {
    /// As it should be.
    pub fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, seen: seen.into(), remedy: String::new() }
    }

    /// Good to know.
    pub fn note(check: &'static str, seen: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::ok(check, seen) }
    }

    /// Will bite somebody.
    pub fn warning(check: &'static str, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, remedy: remedy.into(), ..Self::ok(check, seen) }
    }

    /// Does not work.
    pub fn problem(check: &'static str, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, remedy: remedy.into(), ..Self::ok(check, seen) }
    }

    /// Could not be looked at.
    pub fn unknown(check: &'static str, error: &impl fmt::Display) -> Self {
        Self { verdict: Verdict::Warning, ..Self::ok(check, format!("not looked at: {error}")) }
    }
}

/// A column of checks, with the remedies of those that need one behind it.
pub fn write(f: &mut fmt::Formatter<'_>, checks: &[Check]) -> fmt::Result {
    let mut table = Table::new(&["CHECK", "RESULT", "SEEN"]);
    for check in checks {
        table.row([check.check.into(), check.verdict.as_str().into(), check.seen.clone()]);
    }
    write!(f, "{table}")?;
    let mut remedies = checks.iter().filter(|check| !check.remedy.is_empty()).peekable();
    if remedies.peek().is_some() {
        f.write_str("\nWhat to do:\n")?;
    }
    remedies.try_for_each(|check| writeln!(f, "  {}: {}", check.check, check.remedy))
}
