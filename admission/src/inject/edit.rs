//! The places of a text that change, and the text that stands there afterwards.
//!
//! In block style the fields are lines: old ones are cut, new ones go before the spec's first line. In flow style (JSON too) they are members
//! between commas. Whether it came out right is judged by reading it again ([`inject`](super::inject())), so what is not foreseen
//! here ends in an error and not in a broken manifest.

use std::ops::Range;

use super::yaml::dns_config_lines;
use crate::decide::DnsSettings;
use crate::manifest::{Content, ManifestError, Node};

/// A piece of text in the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    range: Range<usize>,
    text: String,
}

/// What has to change in a Pod's spec.
pub(super) fn edits(text: &str, spec: &Node, dns: &DnsSettings<'_>) -> Result<Vec<Edit>, ManifestError> {
    match &spec.content {
        Content::Mapping { flow: true, entries } => Ok(flow_edits(text, spec, entries, dns)),
        Content::Mapping { flow: false, entries } => block_edits(text, entries, dns)
            .ok_or_else(|| refused(spec.line, "the spec's first key does not stand on a line of its own")),
        _ => Err(refused(spec.line, "the spec is no mapping")),
    }
}

fn refused(line: usize, problem: &str) -> ManifestError {
    ManifestError { line, problem: problem.to_owned() }
}

/// Carries edits out. Equal ones count once: two aliases may lead to one place.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    edits.dedup();
    let mut result = String::with_capacity(text.len() + 512);
    let mut done = 0;
    for edit in edits {
        // None overlap; if some did, the proof would find the difference.
        result += text.get(done..edit.range.start).unwrap_or_default();
        result += &edit.text;
        done = edit.range.end.max(done);
    }
    result += text.get(done..).unwrap_or_default();
    result
}

fn is_ours(key: &Node) -> bool {
    matches!(key.text(), Some("dnsPolicy" | "dnsConfig"))
}

fn block_edits(text: &str, entries: &[(Node, Node)], dns: &DnsSettings<'_>) -> Option<Vec<Edit>> {
    let line_start = |at: usize| text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let first = entries.first()?.0.range.start;
    let start = line_start(first);
    let indent = &text[start..first];
    if !indent.bytes().all(|byte| byte == b' ') {
        return None;
    }
    let newline = match text[first..].split_once('\n') {
        Some((line, _)) if line.ends_with('\r') => "\r\n",
        _ => "\n",
    };
    let mut lines = dns_config_lines(dns);
    lines.push("dnsPolicy: None".into());
    // Comments above a key are the key's, and stay with it.
    let comment = |line: &&str| line.trim_start().starts_with('#');
    let above: usize = text[..start].split_inclusive('\n').rev().take_while(comment).map(str::len).sum();
    let start = start - above;
    let inserted = lines.iter().map(|line| format!("{indent}{line}{newline}")).collect();
    let mut edits = vec![Edit { range: start..start, text: inserted }];
    for (key, value) in entries.iter().filter(|(key, _)| is_ours(key)) {
        let end = value.range.end.max(key.range.end);
        let end = text[end..].find('\n').map_or(text.len(), |newline| end + newline + 1);
        edits.push(Edit { range: line_start(key.range.start)..end, text: String::new() });
    }
    Some(edits)
}

fn flow_edits(text: &str, spec: &Node, entries: &[(Node, Node)], dns: &DnsSettings<'_>) -> Vec<Edit> {
    let open = spec.range.start + 1;
    let first = entries.first().map_or(open, |(key, _)| key.range.start);
    // The layout of the first member, if it is only layout.
    let space = text.get(open..first).filter(|space| space.trim().is_empty()).unwrap_or_default();
    let between = if space.is_empty() { " " } else { space };
    let kept = entries.iter().any(|(key, _)| !is_ours(key));
    // A spec's JSON form has string keys only.
    let config = serde_json::to_string(dns).unwrap_or_default();
    let inserted = format!(
        r#"{space}"dnsPolicy": "None",{between}"dnsConfig": {config}{}"#,
        if kept { "," } else { "" }
    );
    let mut edits = vec![Edit { range: open..open, text: inserted }];
    let leading = entries.iter().take_while(|(key, _)| is_ours(key)).count();
    if leading > 0 {
        let end = match entries.get(leading) {
            Some((next, _)) => next.range.start,
            None => entries[leading - 1].1.range.end,
        };
        edits.push(Edit { range: first..end, text: String::new() });
    }
    for pair in entries.windows(2).skip(leading.saturating_sub(1)) {
        let [(_, before), (key, value)] = pair else { continue };
        if is_ours(key) && leading < entries.len() {
            edits.push(Edit { range: before.range.end..value.range.end, text: String::new() });
        }
    }
    edits
}
