//! What a check found, and how findings are shown.

use std::fmt::Write;

/// Exit code if the worst finding is a warning. 1 and 2 mean what they mean elsewhere: it could not be done, it was not
/// understood.
pub const EXIT_WARN: u8 = 3;
/// Exit code if something fails.
pub const EXIT_FAIL: u8 = 4;

/// How bad it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Info,
    /// Works, but not as well as it could, or not always.
    Warn,
    /// DNS of this node does not work, or will not.
    Fail,
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Fail => "fail",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The check's name, as in `docs/doctor.md`.
    pub(super) check: &'static str,
    pub(super) severity: Severity,
    /// What was found.
    pub(super) found: String,
    /// What to do; lines.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn new(check: &'static str, severity: Severity, found: impl Into<String>) -> Finding {
        Finding { check, severity, found: found.into(), advice: None }
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Finding {
        self.advice = Some(advice.into());
        self
    }
}

fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

/// 0, or how bad the worst of them is.
pub(super) fn exit_code(findings: &[Finding]) -> u8 {
    match worst(findings) {
        Severity::Ok | Severity::Info => 0,
        Severity::Warn => EXIT_WARN,
        Severity::Fail => EXIT_FAIL,
    }
}

/// A line for each, advice below it, and how many there are of the bad ones.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { check, severity, found, advice } in findings {
        let _ = writeln!(out, "{:<5} {check:<12} {found}", severity.word());
        for line in advice.iter().flat_map(|advice| advice.lines()) {
            let _ = writeln!(out, "{:<5} {:<12} > {line}", "", "");
        }
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let _ = writeln!(out, "\n{} failed, {} warned", count(Severity::Fail), count(Severity::Warn));
    out
}

/// `{"worst": "…", "findings": [{"check", "severity", "found", "advice"}]}`; `advice` is null if there is none.
pub(super) fn json(findings: &[Finding]) -> String {
    let one = |finding: &Finding| {
        let advice = finding.advice.as_ref().map_or_else(|| "null".to_owned(), |advice| quoted(advice));
        format!(
            "{{\"check\":{},\"severity\":{},\"found\":{},\"advice\":{advice}}}",
            quoted(finding.check),
            quoted(finding.severity.word()),
            quoted(&finding.found)
        )
    };
    let all: Vec<_> = findings.iter().map(one).collect();
    format!("{{\"worst\":{},\"findings\":[\n{}\n]}}\n", quoted(worst(findings).word()), all.join(",\n"))
}

/// A string of JSON (RFC 8259 §7).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> [Finding; 3] {
        [
            Finding::new("a", Severity::Ok, "good"),
            Finding::new("b", Severity::Warn, "a \"word\"\u{1}").advise("one\ntwo"),
            Finding::new("c", Severity::Info, "known"),
        ]
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst() {
        let of =
            |severity| exit_code(&[Finding::new("a", severity, ""), Finding::new("b", Severity::Ok, "")]);
        let all = [Severity::Ok, Severity::Info, Severity::Warn, Severity::Fail].map(of);
        assert_eq!(all, [0, 0, EXIT_WARN, EXIT_FAIL]);
        assert_eq!(exit_code(&[]), 0);
    }

    #[test]
    fn text_and_json_say_the_same() {
        let text = text(&three());
        assert!(text.starts_with("ok    a            good\nwarn  b            a \"word\"\u{1}\n"), "{text}");
        assert!(text.contains("                   > one\n                   > two\n"), "{text}");
        assert!(text.ends_with("\n0 failed, 1 warned\n"), "{text}");
        let json = json(&three());
        assert_eq!(
            json,
            "{\"worst\":\"warn\",\"findings\":[\n\
             {\"check\":\"a\",\"severity\":\"ok\",\"found\":\"good\",\"advice\":null},\n\
             {\"check\":\"b\",\"severity\":\"warn\",\"found\":\"a \\\"word\\\"\\u0001\",\"advice\":\"one\\ntwo\"},\n\
             {\"check\":\"c\",\"severity\":\"info\",\"found\":\"known\",\"advice\":null}\n]}\n"
        );
    }
}
