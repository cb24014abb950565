//! Durations as Go writes them, and sizes as Kubernetes does.
//!
//! `500ms`, `1h20m`, `1.5s`, `-2s` and a bare `0`; the units are ns, us (or µs), ms, s, m, h. What Go refuses is refused: a
//! number without a unit above all, which people get wrong most.

use std::time::Duration;

use super::diagnostic::quote;

/// Units and their length in nanoseconds. Both spellings of the micro sign are in use.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Suffixes of sizes and their factors: powers of 1000 as SI has them, of 1024 with an `i`.
const SIZES: [(&str, u64); 12] = [
    ("", 1),
    ("k", 1_000),
    ("K", 1_000),
    ("Ki", 1 << 10),
    ("KiB", 1 << 10),
    ("M", 1_000_000),
    ("MB", 1_000_000),
    ("Mi", 1 << 20),
    ("MiB", 1 << 20),
    ("G", 1_000_000_000),
    ("Gi", 1 << 30),
    ("GiB", 1 << 30),
];

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DurationError {
    /// A number and nothing behind it.
    NoUnit(String),
    /// A number and something that is no unit.
    UnknownUnit(String),
    /// Longer than 292 years, Go's limit.
    TooLong,
    /// No number where one must stand.
    NotADuration,
}

impl DurationError {
    /// What to say, and what would be right.
    pub(crate) fn explain(&self) -> (String, String) {
        let spelling = "durations look like `500ms`, `30s` or `1h20m`".to_owned();
        match self {
            Self::NoUnit(number) => (
                "has no unit".into(),
                format!("write {} for seconds; only `0` needs no unit", quote(&format!("{number}s"))),
            ),
            Self::UnknownUnit(unit) => (
                format!("has the unknown unit {}", quote(unit)),
                "the units are ns, us, ms, s, m and h".into(),
            ),
            Self::TooLong => ("is too long".into(), "the longest duration is about 292 years".into()),
            Self::NotADuration => ("is not a duration".into(), spelling),
        }
    }
}

/// Reads a duration as Go's `time.ParseDuration` does. Nanoseconds, possibly negative.
pub(crate) fn parse_go_duration(text: &str) -> Result<i64, DurationError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(DurationError::NotADuration);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, next) = split_while(after, |c| !c.is_ascii_digit() && c != '.');
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(DurationError::NotADuration);
        }
        if unit.is_empty() {
            return Err(DurationError::NoUnit(number.to_owned()));
        }
        let Some(&(_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(DurationError::UnknownUnit(unit.to_owned()));
        };
        let whole: i128 =
            if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
        total =
            whole.checked_mul(scale).and_then(|ns| total.checked_add(ns)).ok_or(DurationError::TooLong)?;
        // Digits below a nanosecond cannot count; an hour has 13 digits above it.
        let digits = &fraction[..fraction.len().min(16)];
        if !digits.is_empty() {
            let numerator: i128 = digits.parse().map_err(|_| DurationError::NotADuration)?;
            total += numerator * scale / 10_i128.pow(u32::try_from(digits.len()).unwrap_or(0));
        }
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| DurationError::TooLong)
}

/// Writes a duration as Go prints it: `1h20m0s`, `2s`, `500ms`.
pub(crate) fn show(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 {
        return match nanos {
            0 => "0s".into(),
            n if n < 1_000 => format!("{n}ns"),
            n if n < 1_000_000 => format!("{}µs", f64::from(n) / 1e3),
            n => format!("{}ms", f64::from(n) / 1e6),
        };
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut rest = (seconds % 60).to_string();
    if nanos > 0 {
        rest.push_str(format!(".{nanos:09}").trim_end_matches('0'));
    }
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, m) => format!("{m}m{rest}s"),
        (h, m) => format!("{h}h{m}m{rest}s"),
    }
}

/// Reads a size in bytes: `33554432`, `32Mi`, `32MiB`, `32M`. None if it is no size or does not fit.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, suffix) = split_while(text, |c| c.is_ascii_digit());
    let &(_, factor) = SIZES.iter().find(|(name, _)| *name == suffix)?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        const MS: i64 = 1_000_000;
        for (text, ns) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("500ms", 500 * MS),
            ("2s", 2_000 * MS),
            ("1h20m", 4_800_000 * MS),
            ("1.5s", 1_500 * MS),
            (".5s", 500 * MS),
            ("1.s", 1_000 * MS),
            ("-20m", -1_200_000 * MS),
            ("+1s", 1_000 * MS),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("3μs", 3_000),
            ("1m1m", 120_000 * MS),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("4294967295s", 4_294_967_295_000 * MS),
        ] {
            assert_eq!(parse_go_duration(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_with_the_reason() {
        for (text, error) in [
            ("", DurationError::NotADuration),
            ("-", DurationError::NotADuration),
            ("s", DurationError::NotADuration),
            (".s", DurationError::NotADuration),
            ("1.2.3s", DurationError::NotADuration),
            ("aa", DurationError::NotADuration),
            ("--1s", DurationError::NotADuration),
            ("20", DurationError::NoUnit("20".into())),
            ("1h20", DurationError::NoUnit("20".into())),
            ("1d", DurationError::UnknownUnit("d".into())),
            ("1s ", DurationError::UnknownUnit("s ".into())),
            ("1000000h1000000h1000000h", DurationError::TooLong),
            ("99999999999999999999999999999999999999999s", DurationError::TooLong),
        ] {
            assert_eq!(parse_go_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_as_go_shows_them() {
        for (ms, text) in
            [(0, "0s"), (500, "500ms"), (1_500, "1.5s"), (90_000, "1m30s"), (4_800_000, "1h20m0s")]
        {
            assert_eq!(show(Duration::from_millis(ms)), text);
        }
        assert_eq!(show(Duration::from_nanos(1_500)), "1.5µs");
    }

    #[test]
    fn sizes_have_kubernetes_suffixes() {
        for (text, bytes) in [
            ("33554432", Some(32 << 20)),
            ("32Mi", Some(32 << 20)),
            ("32MiB", Some(32 << 20)),
            ("32M", Some(32_000_000)),
            ("1Gi", Some(1 << 30)),
            ("64Ki", Some(65_536)),
            ("Mi", None),
            ("", None),
            ("32mi", None),
            ("-1", None),
            ("1.5Mi", None),
            ("99999999999Gi", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
