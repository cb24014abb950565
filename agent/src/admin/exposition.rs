//! Prometheus' text exposition format, version 0.0.4: the writer.
//!
//! One [`Family`] per metric, all its series together under one HELP and TYPE; a family without series leaves no trace.
//! Label values are escaped here and nowhere else, so whatever a zone is called the text stays parseable.
//! It knows nothing about DNS.

use std::fmt::{Display, Write};

/// What `/metrics` answers as its type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label names and values of one series.
pub type LabelSet<'a> = &'a [(&'a str, &'a str)];

/// The types of metrics that we have.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Kind {
    /// Only grows (until the process starts anew).
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

/// The text while it is being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// The next metric. Each name once.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &'static str) -> Family<'_> {
        Family { text: &mut self.text, kind, name, help, open: false }
    }

    /// A counter of one series without labels.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(Kind::Counter, name, help).sample(&[], value);
    }

    /// A gauge of one series without labels.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Display) {
        self.family(Kind::Gauge, name, help).sample(&[], value);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// One metric and its series.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    kind: Kind,
    name: &'static str,
    help: &'static str,
    open: bool,
}

impl Family<'_> {
    /// A series of a counter or gauge.
    pub fn sample(&mut self, labels: LabelSet<'_>, value: impl Display) {
        self.header();
        self.line("", labels, None, value);
    }

    /// A series of a histogram. `buckets` are counts per bucket, not cumulative, one more than `bounds`; bounds and sum are
    /// integers in a unit of which `per_unit` make one of the exported unit (1e6 for microseconds and seconds).
    pub fn histogram(
        &mut self,
        labels: LabelSet<'_>,
        bounds: &[u64],
        buckets: &[u64],
        sum: u64,
        per_unit: f64,
    ) {
        self.header();
        let mut count = 0;
        for (i, in_bucket) in buckets.iter().enumerate() {
            count += in_bucket;
            match bounds.get(i) {
                Some(bound) => {
                    let le = (*bound as f64 / per_unit).to_string();
                    self.line("_bucket", labels, Some(&le), count);
                }
                None => self.line("_bucket", labels, Some("+Inf"), count),
            }
        }
        self.line("_sum", labels, None, sum as f64 / per_unit);
        self.line("_count", labels, None, count);
    }

    fn header(&mut self) {
        if std::mem::replace(&mut self.open, true) {
            return;
        }
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let (name, help) = (self.name, self.help);
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, suffix: &str, labels: LabelSet<'_>, le: Option<&str>, value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let all = labels.iter().copied().chain(le.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (name, label) in all {
            self.text.push(separator);
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(self.text, label);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn push_escaped(text: &mut String, label: &str) {
    for c in label.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            _ => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::strict_parser::parse;
    use super::*;

    #[test]
    fn s22_labels_survive_a_strict_parser() {
        let odd = "a\"b\\c\nd}e,f=\u{1b}[31mß";
        let mut out = Exposition::default();
        out.family(Kind::Gauge, "x", "Something.").sample(&[("l", odd), ("view", "")], 1.5);
        let parsed = parse(&out.finish()).expect("well-formed");
        assert_eq!(parsed.value("x", &[("l", odd), ("view", "")]), Some(1.5));
    }

    #[test]
    fn histograms_are_cumulative_and_end_with_inf_sum_and_count() {
        let mut out = Exposition::default();
        let mut family = out.family(Kind::Histogram, "h_seconds", "Durations.");
        family.histogram(&[("a", "b")], &[250, 500], &[3, 0, 2], 12_345, 1e6);
        assert_eq!(
            out.finish(),
            "# HELP h_seconds Durations.\n# TYPE h_seconds histogram\n\
             h_seconds_bucket{a=\"b\",le=\"0.00025\"} 3\nh_seconds_bucket{a=\"b\",le=\"0.0005\"} 3\n\
             h_seconds_bucket{a=\"b\",le=\"+Inf\"} 5\nh_seconds_sum{a=\"b\"} 0.012345\nh_seconds_count{a=\"b\"} 5\n"
        );
    }

    #[test]
    fn a_family_without_series_leaves_no_trace() {
        let mut out = Exposition::default();
        out.family(Kind::Counter, "x_total", "Nothing.");
        assert_eq!(out.finish(), "");
    }
}
