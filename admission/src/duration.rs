//! Spans of time as Go writes them: `3s`, `1m30s`, `250ms`, `1.5h`. Flags and the API server's `?timeout=` use them.

use std::time::Duration;

const UNITS: [(&str, f64); 7] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Longest span: a century, so that sums of two stay far from every limit.
const SECONDS_MAX: f64 = 100.0 * 365.25 * 86400.0;

/// Reads one; None if it is none, is negative or is longer than a century.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        rest = &rest[letters..];
        seconds += number * factor;
    }
    (!text.is_empty() && seconds <= SECONDS_MAX).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("3s", 3000),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("10s0ms", 10_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "3", "s", "3 s", "-3s", "3sec", "1..5s", "3s4", "1e9h", "99999999999999999999h", "é", "."]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
