//! Events: for those who wonder, once, and never for a dry run.

use std::time::Duration;

use nodens_admission::cluster::Events;
use nodens_admission::reason::Reason;
use nodens_admission::review::{Action, Outcome, Owner};
use prometheus_client::metrics::counter::Counter;
use serde_json::Value;

use crate::fixtures::eventually;
use crate::mock_api::{MockApi, Mode};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

fn outcome(reason: Reason, owner_uid: &str) -> Outcome {
    Outcome {
        action: Action::Skipped,
        reason,
        dry_run: false,
        uid: "of-the-request".into(),
        namespace: "shop".into(),
        pod: "web-*".into(),
        owner: Some(Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "web-5d".into(),
            uid: owner_uid.into(),
        }),
        patch_bytes: 0,
        names_other_namespace: false,
        notes: vec!["dnsConfig: 4 nameservers".into()],
    }
}

async fn written(api: &MockApi, wanted: usize) -> Vec<Value> {
    eventually("events", wanted, || api.list(EVENTS).len()).await;
    api.list(EVENTS)
}

#[tokio::test]
async fn an_event_is_about_the_owner_and_comes_once() {
    let api = MockApi::start().await;
    let lost = Counter::default();
    let events = Events::start(api.client(), Some("admission-0".into()), lost.clone());
    for _ in 0..50 {
        events.offer(&outcome(Reason::LimitsExceeded, "a"));
    }
    events.offer(&outcome(Reason::UserDnsConfig, "a"));
    events.offer(&outcome(Reason::LimitsExceeded, "b"));
    let all = written(&api, 3).await;
    let first = &all[0];
    assert_eq!(first["regarding"]["kind"], "ReplicaSet");
    assert_eq!(first["regarding"]["name"], "web-5d");
    assert_eq!(first["reason"], "NodeLocalDnsLimitsExceeded");
    assert_eq!(first["type"], "Warning");
    assert_eq!(first["reportingInstance"], "admission-0");
    let notes: Vec<_> = all.iter().map(|event| event["note"].as_str().expect("a note")).collect();
    for reason in [Reason::LimitsExceeded, Reason::UserDnsConfig] {
        assert!(
            notes.iter().any(|note| note.contains(reason.as_str()) && note.contains(reason.remedy())),
            "{notes:?}"
        );
    }
    assert!(notes[0].contains("4 nameservers"), "{notes:?}");
    assert_eq!(lost.get(), 0);
}

#[tokio::test]
async fn no_event_for_dry_runs_for_what_users_chose_or_without_an_owner() {
    let api = MockApi::start().await;
    let lost = Counter::default();
    let events = Events::start(api.client(), None, lost.clone());
    events.offer(&Outcome { dry_run: true, ..outcome(Reason::LimitsExceeded, "dry") });
    events.offer(&Outcome { owner: None, ..outcome(Reason::LimitsExceeded, "bare") });
    for reason in [Reason::PodOptOut, Reason::Injected, Reason::NamespaceNotEnabled, Reason::DnsPolicyNone] {
        events.offer(&outcome(reason, "chosen"));
    }
    // The last one is written, so the others were not held back by something else.
    events.offer(&outcome(Reason::VirtualNodePossible, "asked"));
    let all = written(&api, 1).await;
    assert_eq!(all[0]["regarding"]["uid"], "asked");
}

#[tokio::test]
async fn f23_events_wait_for_nobody_and_are_lost_when_the_api_server_is() {
    let api = MockApi::start().await;
    api.mode(Mode::Silent);
    let lost = Counter::default();
    let events = Events::start(api.client(), None, lost.clone());
    let begun = std::time::Instant::now();
    for n in 0..10_000 {
        events.offer(&outcome(Reason::LimitsExceeded, &n.to_string()));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(lost.get() > 9_000, "{}", lost.get());
}

#[tokio::test]
async fn an_event_that_failed_is_tried_with_the_next_outcome() {
    let api = MockApi::start().await;
    let lost = Counter::default();
    let events = Events::start(api.client(), None, lost.clone());
    api.fail_next("POST", 403);
    events.offer(&outcome(Reason::LimitsExceeded, "a"));
    eventually("the failure is counted", 1, || lost.get()).await;
    events.offer(&outcome(Reason::LimitsExceeded, "a"));
    written(&api, 1).await;
}
