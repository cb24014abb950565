//! An explanation for a terminal, and for machines.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Explanation, Verdict};
use crate::reason::Reason;

/// For a terminal: the rows, what stops, what to do, what the Pod gets.
pub fn render_text(explanation: &Explanation<'_>) -> String {
    let Explanation { subject, steps, reason, report_only, dns, notes } = explanation;
    let mut text = String::new();
    let outcome = match reason {
        Reason::Injected if *report_only => "would be injected, but the server only reports",
        Reason::Injected => "is injected",
        _ => "is left alone",
    };
    let name = if subject.name.is_empty() { "(unnamed)" } else { &subject.name };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{} {}/{name} {outcome}: {reason}", subject.kind, subject.namespace);
    let _ = writeln!(text, "  {}\n", reason.meaning());
    for step in steps {
        let sign = match step.verdict {
            Verdict::Passes => "ok   ",
            Verdict::Stops => "STOPS",
            Verdict::WouldStop => "also ",
        };
        let _ = writeln!(text, "  {:>2} {sign} {}", step.row, step.wants);
        if let (Some(reason), Some(remedy)) = (step.reason, &step.remedy) {
            let _ = writeln!(text, "           {reason}: {remedy}");
        }
    }
    if let Some(dns) = dns {
        let _ = writeln!(text, "\n  dnsPolicy: None");
        for line in crate::inject::dns_config_lines(dns) {
            let _ = writeln!(text, "  {line}");
        }
    }
    for note in notes {
        let _ = writeln!(text, "\n  note: {note}");
    }
    text
}

/// For machines: one JSON object.
pub fn render_json(explanation: &Explanation<'_>) -> Value {
    let Explanation { subject, steps, reason, report_only, dns, notes } = explanation;
    json!({
        "kind": subject.kind,
        "namespace": subject.namespace,
        "name": subject.name,
        "injected": *reason == Reason::Injected && !report_only,
        "reason": reason.as_str(),
        "meaning": reason.meaning(),
        "reportOnly": report_only,
        "steps": as_json(steps),
        "dnsConfig": dns.as_ref().map(as_json),
        "notes": notes,
    })
}

fn as_json(value: &impl Serialize) -> Value {
    // Types of our own with string keys, which always have a JSON form.
    serde_json::to_value(value).unwrap_or_default()
}
