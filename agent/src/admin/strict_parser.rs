//! A strict reader of the text exposition format, for tests: what it takes, Prometheus takes.
//!
//! It refuses what real parsers forgive: a metric in two pieces, a series twice, a sample before its TYPE, unknown
//! escapes, histograms that are not cumulative. It shares no code with the writer.

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

/// Everything that was exposed.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// Family name to type.
    pub(crate) families: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Parsed {
    /// The value of exactly this series.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// How many series have this sample name.
    pub(crate) fn series(&self, name: &str) -> usize {
        self.samples.keys().filter(|(n, _)| n == name).count()
    }
}

/// Reads the whole text or says which line is wrong.
pub(crate) fn parse(text: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut current: Option<(String, String)> = None;
    let mut helped = BTreeSet::new();
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| Err(format!("line {}: {what}: {line}", number + 1));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, help)) = rest.split_once(' ') else { return wrong("HELP without text") };
            if help.is_empty() || !helped.insert(name.to_owned()) {
                return wrong("empty or repeated HELP");
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return wrong("TYPE without a type") };
            if !["counter", "gauge", "histogram"].contains(&kind) || !helped.contains(name) {
                return wrong("unknown type, or no HELP before it");
            }
            if parsed.families.insert(name.to_owned(), kind.to_owned()).is_some() {
                return wrong("a metric in two pieces");
            }
            current = Some((name.to_owned(), kind.to_owned()));
            continue;
        }
        let (name, labels, value) = match sample(line) {
            Ok(parts) => parts,
            Err(what) => return wrong(&what),
        };
        let Some((family, kind)) = &current else { return wrong("a sample before any TYPE") };
        let suffix = name.strip_prefix(family.as_str()).unwrap_or("?");
        let belongs = match kind.as_str() {
            "histogram" => {
                ["_sum", "_count"].contains(&suffix) || suffix == "_bucket" && labels.contains_key("le")
            }
            _ => suffix.is_empty() && !labels.contains_key("le"),
        };
        if !belongs {
            return wrong("not a sample of the metric above it");
        }
        if kind == "counter" && (value < 0.0 || !family.ends_with("_total")) {
            return wrong("a counter must not be negative and ends in _total");
        }
        if parsed.samples.insert((name, labels), value).is_some() {
            return wrong("a series twice");
        }
    }
    histograms(&parsed)?;
    Ok(parsed)
}

fn sample(line: &str) -> Result<(String, Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("not a metric name".to_owned());
    }
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            if !is_name(label, false) {
                return Err(format!("not a label name: {label}"));
            }
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("label {label} twice"));
            }
            if let Some(after) = after.strip_prefix(',') {
                rest = after;
                continue;
            }
            rest = after.strip_prefix('}').ok_or("labels without an end")?;
            break;
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no blank before the value")?;
    let value: f64 = value.parse().map_err(|_| "not a number")?;
    Ok((name.to_owned(), labels, value))
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                _ => return Err("unknown escape".to_owned()),
            },
            _ => value.push(c),
        }
    }
    Err("a label value without an end".to_owned())
}

fn is_name(text: &str, colon: bool) -> bool {
    let first = text.bytes().next();
    first.is_some_and(|b| !b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':'))
}

fn histograms(parsed: &Parsed) -> Result<(), String> {
    for (family, _) in parsed.families.iter().filter(|(_, kind)| *kind == "histogram") {
        let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &parsed.samples {
            if *name == format!("{family}_bucket") {
                let mut labels = labels.clone();
                let le = labels.remove("le").ok_or("no le")?.parse().map_err(|_| "le is no number")?;
                series.entry(labels).or_default().push((le, *value));
            }
        }
        for (labels, mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            let count = parsed.samples.get(&(format!("{family}_count"), labels.clone()));
            let sum = parsed.samples.get(&(format!("{family}_sum"), labels));
            let last = buckets.last().filter(|(le, _)| le.is_infinite()).map(|(_, value)| value);
            let cumulative = buckets.is_sorted_by(|a, b| a.1 <= b.1);
            if !cumulative || last.is_none() || last != count || sum.is_none() {
                return Err(format!("{family}: not a whole histogram"));
            }
        }
    }
    Ok(())
}

#[test]
fn the_parser_refuses_what_is_not_well_formed() {
    let head = "# HELP a_total x\n# TYPE a_total counter\n";
    assert!(parse(&format!("{head}a_total 1\n")).is_ok());
    for body in [
        "a_total 1",
        "a_total{b=\"c} 1\n",
        "a_total{b=\"\\x\"} 1\n",
        "a_total -1\n",
        "a_total 1\na_total 1\n",
        "b 1\n",
        "a_total{1=\"c\"} 1\n",
        "a_total x\n",
        "# TYPE a_total counter\n",
    ] {
        assert!(parse(&format!("{head}{body}")).is_err(), "{body}");
    }
    let head = "# HELP h x\n# TYPE h histogram\n";
    assert!(
        parse(&format!("{head}h_bucket{{le=\"1\"}} 2\nh_bucket{{le=\"+Inf\"}} 1\nh_sum 1\nh_count 1\n"))
            .is_err()
    );
    assert!(parse(&format!("{head}h_bucket{{le=\"1\"}} 1\nh_sum 1\nh_count 1\n")).is_err());
}
