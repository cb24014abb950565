//! Why a Pod is injected or left alone: the decision table walked to its end, as data. Each row with what it asks, how it came out for this
//! Pod, and what to type if the outcome should be another. For `explain` on the command line; the decision itself is [`decide`]'s.

mod remedy;
mod render;

use serde::Serialize;

pub use remedy::Subject;
pub use render::{render_json, render_text};

use crate::decide::{self, Decision, DnsSettings, Input, ROWS};
use crate::reason::Reason;

/// How one row came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The Pod passes.
    Passes,
    /// The first row that stops: it decides.
    Stops,
    /// It would stop too, were it not for an earlier one.
    WouldStop,
}

/// One row.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// In the decision table.
    pub row: u8,
    /// What has to hold, for people.
    pub wants: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// Why it stops.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "reason_name")]
    pub reason: Option<Reason>,
    /// What to do if another outcome is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The whole walk.
#[derive(Clone, Debug)]
pub struct Explanation<'a> {
    /// What it is about.
    pub subject: Subject,
    /// Every row from 1 to 17.
    pub steps: Vec<Step>,
    /// The outcome.
    pub reason: Reason,
    /// The server only reports, so even an injected Pod stays as it is.
    pub report_only: bool,
    /// What the Pod gets, if it is injected.
    pub dns: Option<DnsSettings<'a>>,
    /// Annotations that were not heeded, limits that were broken, what could not be looked at.
    pub notes: Vec<String>,
}

/// Walks the table.
pub fn walk<'a>(subject: Subject, input: &Input<'a>) -> Explanation<'a> {
    let (dns, reason) = match decide::decide(input) {
        Decision::Inject(dns) => (Some(dns), Reason::Injected),
        Decision::Skip(reason) => (None, reason),
    };
    let mut decided = false;
    let mut steps = Vec::with_capacity(ROWS.len() + 1);
    for row in &ROWS {
        let stops = (row.stops)(input);
        let verdict = match stops {
            None => Verdict::Passes,
            Some(_) if decided => Verdict::WouldStop,
            Some(_) => Verdict::Stops,
        };
        decided |= stops.is_some();
        let remedy = stops.map(|reason| subject.remedy(reason, input));
        steps.push(Step { row: row.number, wants: row.wants, verdict, reason: stops, remedy });
        if row.number == 1 {
            // Whoever asks has read the Pod already.
            let wants = "the object can be read as a Pod";
            steps.push(Step { row: 2, wants, verdict: Verdict::Passes, reason: None, remedy: None });
        }
    }
    let mut notes: Vec<String> = input.ignored.iter().map(ToString::to_string).collect();
    if let Err(broken) = input.dns_settings() {
        notes.push(format!("dnsConfig: {broken}"));
    }
    if dns.as_ref().is_some_and(|dns| dns.nameservers_cut > 0) {
        notes.push("not all of the Pod's own nameservers find a place: three are allowed".into());
    }
    Explanation { subject, steps, reason, report_only: input.config.settings().report_only, dns, notes }
}

fn reason_name<S: serde::Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.map(Reason::as_str).serialize(serializer)
}
