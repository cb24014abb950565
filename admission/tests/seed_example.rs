//! The example of the ack-node-local-dns README, byte for byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nodens_admission::reason::Reason;
use nodens_admission::review::{self, Action};
use nodens_admission::settings::{InjectionSettings, Marker};
use nodens_admission::snapshot::Snapshot;

const REVIEW: &str = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{
    "uid":"705ab4f5-6393-11e8-b7cc-42010a800002","operation":"CREATE","namespace":"default",
    "resource":{"group":"","version":"v1","resource":"pods"},
    "object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"alpine","namespace":"default"},
    "spec":{"containers":[{"name":"alpine","image":"alpine"}],"dnsPolicy":"ClusterFirst"}}}}"#;

/// The README's fields, in the order in which `kubectl` prints them.
const PATCH: &str = concat!(
    r#"[{"op":"add","path":"/spec/dnsPolicy","value":"None"},"#,
    r#"{"op":"add","path":"/spec/dnsConfig","value":{"nameservers":["169.254.20.10","172.21.0.10"],"#,
    r#""options":[{"name":"ndots","value":"3"},{"name":"attempts","value":"2"},{"name":"timeout","value":"1"}],"#,
    r#""searches":["default.svc.cluster.local","svc.cluster.local","cluster.local"]}}]"#,
);

#[test]
fn the_seeds_example_gives_the_seeds_result() {
    let settings = InjectionSettings { marker: Marker::None, ..InjectionSettings::default() };
    let snapshot = Snapshot::alone(settings, vec!["172.21.0.10".parse().expect("an address")]);
    let answered = review::answer(REVIEW.as_bytes(), &snapshot);
    let outcome = answered.outcome.expect("a review");
    assert_eq!((answered.status, outcome.action, outcome.reason), (200, Action::Injected, Reason::Injected));
    let body: serde_json::Value = serde_json::from_slice(&answered.body).expect("JSON");
    assert_eq!(body["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(body["response"]["allowed"], true);
    assert_eq!(body["response"]["patchType"], "JSONPatch");
    let patch = STANDARD.decode(body["response"]["patch"].as_str().expect("a patch")).expect("base64");
    assert_eq!(String::from_utf8(patch).expect("text"), PATCH);
}
