//! The golden cases: `tests/cases/NAME/{config,review,expect}.json`, written by hand from the decision table. Each is judged twice: by the
//! server, and by the oracle in Python.

mod support;

use nodens_admission::reason::Reason;
use serde_json::{Value, json};
use support::{Case, Oracle, patch_of, python, response, written};

#[test]
fn every_golden_case_is_answered_as_written() {
    let mut failed = Vec::new();
    for case in Case::all() {
        let surroundings = case.surroundings();
        let answered = surroundings.answer(case.review.as_bytes());
        let review: Value = serde_json::from_str(&case.review).expect("JSON");
        let body: Value = serde_json::from_slice(&answered.body).expect("JSON");
        let response = response(&answered);
        let fingerprint = surroundings.snapshot().config.fingerprint().to_owned();
        let expect = case.expect.to_string();
        let expect =
            expect.replace("VERSION", env!("CARGO_PKG_VERSION")).replace("FINGERPRINT", &fingerprint);
        let expect: Value = serde_json::from_str(&expect).expect("JSON");
        let patch = patch_of(&response);
        assert_eq!(response.get("patchType").is_some(), patch.is_some(), "{}", case.name);
        assert_eq!(response["auditAnnotations"]["config"], fingerprint, "{}", case.name);
        assert_eq!(
            (&body["apiVersion"], &body["kind"], &response["uid"], &response["allowed"]),
            (&review["apiVersion"], &json!("AdmissionReview"), &review["request"]["uid"], &json!(true)),
            "{}",
            case.name
        );
        let got = json!({
            "decision": response["auditAnnotations"]["decision"],
            "reason": response["auditAnnotations"]["reason"],
            "patch": patch,
            "warnings": response.get("warnings").cloned().unwrap_or(json!([])),
        });
        if got != expect || answered.status != 200 {
            failed.push(format!("{} ({})\n  got  {got}\n  want {expect}", case.name, surroundings.about));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_reason_of_the_table_has_a_golden_case() {
    let cases = Case::all();
    let reasons: Vec<&str> = cases.iter().filter_map(|case| case.expect["reason"].as_str()).collect();
    for reason in Reason::ALL {
        // No input is known that makes the server distrust its own patch.
        let expected = reason != Reason::PatchUnproven;
        assert_eq!(reasons.contains(&reason.as_str()), expected, "{reason}");
    }
    for case in &cases {
        let row = case.name.strip_prefix("row-").and_then(|rest| rest.split('-').next());
        let Some(row) = row.map(|row| row.parse::<u8>().expect("row-NN-…")) else { continue };
        let reason = case.expect["reason"].as_str().and_then(Reason::parse).expect("a reason");
        assert!(
            reason == Reason::Injected || reason.row() == Some(row),
            "{} is about another row",
            case.name
        );
    }
}

#[test]
fn the_oracle_agrees_with_every_golden_case() {
    let Some(python) = python() else { return };
    let cases = Case::all();
    let lines = cases.iter().map(|case| {
        let mut line: Value = serde_json::from_str(&case.config).expect("JSON");
        line["review"] = serde_json::from_str(&case.review).expect("JSON");
        line.to_string()
    });
    Oracle::start(python).ask(lines.collect::<Vec<_>>().into_iter(), |number, verdict| {
        let Case { name, expect, .. } = &cases[number];
        assert_eq!(verdict["reason"], expect["reason"], "{name}");
        if let Some(dns) = expect.get("patch").and_then(|patch| written(patch, "/spec/dnsConfig")) {
            assert_eq!(&verdict["dnsConfig"], dns, "{name}");
        }
    });
}
