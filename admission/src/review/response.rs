//! The response to a review as the API server reads it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{Answered, Outcome};
use crate::reason::Reason;

/// Bytes of a warning at most, as Kubernetes asks of webhooks; `kubectl` shows it in one line. (API servers cut at 256.)
pub const WARNING_MAX: usize = 120;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewOut<'a> {
    api_version: &'a str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    audit_annotations: AuditAnnotations<'a>,
}

#[derive(Serialize)]
struct AuditAnnotations<'a> {
    decision: &'static str,
    reason: &'static str,
    config: &'a str,
}

/// Renders the response. It never denies.
pub(super) fn respond(
    api_version: &str,
    uid: &str,
    fingerprint: &str,
    mut outcome: Outcome,
    patch: Option<Vec<u8>>,
) -> Answered {
    outcome.patch_bytes = patch.as_ref().map_or(0, Vec::len);
    let out = ReviewOut {
        api_version,
        kind: "AdmissionReview",
        response: Response {
            uid,
            allowed: true,
            patch_type: patch.is_some().then_some("JSONPatch"),
            patch: patch.map(|patch| STANDARD.encode(patch)),
            warnings: warnings(&outcome),
            audit_annotations: AuditAnnotations {
                decision: outcome.action.as_str(),
                reason: outcome.reason.as_str(),
                config: fingerprint,
            },
        },
    };
    // Strings and booleans: this cannot fail, and an empty body would be taken for a failure of ours, which Ignore covers.
    let body = serde_json::to_vec(&out).unwrap_or_default();
    Answered { status: 200, body, outcome: Ok(outcome), recheck_namespace: None }
}

/// What the person at `kubectl` should know: why a Pod of a namespace that asks for injection is left alone although nobody declined
/// it, and which annotations were not heeded. Controllers get warnings too and drop them.
fn warnings(outcome: &Outcome) -> Vec<String> {
    let left_alone = matches!(
        outcome.reason,
        Reason::VirtualNodePlacement
            | Reason::VirtualNodePossible
            | Reason::UserDnsConfig
            | Reason::LimitsExceeded
    );
    let Outcome { reason, .. } = outcome;
    let table = left_alone.then(|| format!("no node-local DNS ({reason}): {}", reason.meaning()));
    let notes = outcome.notes.iter().filter(|note| left_alone || note.starts_with("annotation "));
    table.into_iter().chain(notes.cloned()).map(|line| cut(line, WARNING_MAX)).collect()
}

fn cut(mut line: String, max: usize) -> String {
    if line.len() > max {
        let end = (0..=max).rev().find(|&end| line.is_char_boundary(end)).unwrap_or(0);
        line.truncate(end);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::Action;

    fn outcome(reason: Reason) -> Outcome {
        Outcome {
            action: Action::Skipped,
            reason,
            dry_run: false,
            uid: String::new(),
            namespace: String::new(),
            pod: String::new(),
            owner: None,
            patch_bytes: 0,
            names_other_namespace: false,
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_warning_names_the_reason_and_fits() {
        let mut warned = Vec::new();
        for reason in Reason::ALL {
            let Some(warning) = warnings(&outcome(reason)).into_iter().next() else { continue };
            assert!(warning.contains(reason.as_str()), "{warning}");
            assert!(warning.ends_with(reason.meaning()), "cut: {warning}");
            warned.push(reason.row());
        }
        assert_eq!(warned, [10, 11, 15, 16].map(Some));
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(cut("aé".repeat(2), 2), "a");
        assert_eq!(cut("aé".repeat(2), 3), "aé");
        assert_eq!(cut("abc".into(), 3), "abc");
    }
}
