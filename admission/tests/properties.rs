//! What holds for every Pod and every request, however strange: the patch applies, the API server would take the result, a second look leaves it
//! alone, nothing but DNS changes, nobody is ever denied, nothing panics.

mod support;

use std::net::IpAddr;

use nodens_admission::review::{self, Answered};
use nodens_admission::settings::{DualStack, InjectionSettings, Marker, MergeMode};
use nodens_admission::snapshot::Snapshot;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use support::{patch_of, response, written};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        40 => "[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?(\\.[a-z]{1,6}){0,3}",
        1 => "[a-z]{1,63}(\\.[a-z]{50,63}){0,3}",
        1 => select(vec!["", ".", "UPPER.example", "_srv._tcp.example", "dot.example.", "-bad", "a..b"]).prop_map(String::from),
    ]
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => any::<[u8; 4]>().prop_map(|bytes| IpAddr::from(bytes).to_string()),
        10 => any::<[u8; 16]>().prop_map(|bytes| IpAddr::from(bytes).to_string()),
        1 => select(vec!["", "dns", "10.0.0.010", "fe80::1%eth0", "::ffff:10.0.0.1", "169.254.20.10"]).prop_map(String::from),
    ]
}

fn dns_config() -> impl Strategy<Value = Value> {
    let option = prop_oneof![
        select(vec!["ndots", "attempts", "timeout", "use-vc", "edns0", ""])
            .prop_map(|name| json!({"name": name})),
        ("[a-z-]{1,9}", "[0-9]{1,2}", any::<u32>())
            .prop_map(|(name, value, extra)| json!({"name": name, "value": value, "later": extra})),
    ];
    let lists = (
        prop_oneof![5 => prop::collection::vec(address(), 0..4), 1 => prop::collection::vec(address(), 4..6)],
        prop_oneof![9 => prop::collection::vec(name(), 0..6), 1 => prop::collection::vec(name(), 25..40)],
        prop::collection::vec(option, 0..5),
        prop::option::of(anything()),
    );
    lists.prop_map(|(nameservers, searches, options, later)| {
        let mut config = json!({"nameservers": nameservers, "searches": searches, "options": options});
        if let Some(later) = later {
            config["laterField"] = later;
        }
        config
    })
}

/// Any JSON, a few levels deep.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Eighths: serde_json, which compares here, does not read every float back to the same bits.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(field(), inner, 0..5)
                .prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

/// Field names, those that are looked at among them.
fn field() -> impl Strategy<Value = String> {
    let known = [
        "metadata",
        "spec",
        "labels",
        "annotations",
        "dnsConfig",
        "dnsPolicy",
        "nameservers",
        "options",
        "searches",
        "name",
        "hostNetwork",
        "affinity",
        "tolerations",
        "ownerReferences",
        "request",
        "object",
        "kind",
        "apiVersion",
        "uid",
    ];
    prop_oneof![select(known.to_vec()).prop_map(String::from), "[a-zA-Z/~\"\\\\]{1,8}"]
}

/// A Pod that is likely to be injected, with members that nobody looks at.
fn pod() -> impl Strategy<Value = Value> {
    let metadata = (
        prop::option::of(prop::collection::btree_map("[a-z./-]{1,12}", ".{0,8}", 0..4)),
        prop::option::of(prop::collection::btree_map("[a-z./-]{1,12}", ".{0,8}", 0..4)),
        prop::option::of(select(vec!["enabled", "injected", "x"])),
        prop::collection::btree_map("x[a-zA-Z]{1,8}", anything(), 0..3),
    );
    let spec = (
        prop::option::weighted(0.7, dns_config()),
        select(vec!["ClusterFirst", "ClusterFirst", "ClusterFirst", "", "ClusterFirstWithHostNet", "None"]),
        prop::option::of(any::<bool>()),
        prop::collection::btree_map("x[a-zA-Z]{1,8}", anything(), 0..3),
    );
    (metadata, spec).prop_map(|((labels, annotations, mark, more), (dns, policy, host, others))| {
        let mut labels = labels.map(|labels| json!(labels));
        if let (Some(labels), Some(mark)) = (&mut labels, mark) {
            labels["node-local-dns-injection"] = json!(mark);
        }
        let mut metadata = json!({"name": "web", "labels": labels, "annotations": annotations});
        let mut spec = json!({"containers": [{"name": "c"}], "dnsPolicy": policy, "hostNetwork": host, "dnsConfig": dns});
        metadata.as_object_mut().expect("an object").extend(more);
        spec.as_object_mut().expect("an object").extend(others);
        json!({"kind": "Pod", "metadata": metadata, "spec": spec})
    })
}

fn settings() -> impl Strategy<Value = (InjectionSettings, Vec<IpAddr>)> {
    let kube_dns = select(vec![
        vec!["172.21.0.10"],
        vec!["172.21.0.10", "fd00::a"],
        vec!["fd00::a"],
        vec!["169.254.20.10"],
        vec![],
    ]);
    let choices = (
        select(vec![MergeMode::Merge, MergeMode::Merge, MergeMode::Overwrite, MergeMode::Skip]),
        select(vec![Marker::None, Marker::Annotation, Marker::AnnotationAndLabel]),
        select(vec![DualStack::BothBackups, DualStack::BothLocals]),
        any::<bool>(),
        any::<bool>(),
    );
    (kube_dns, choices).prop_map(|(kube_dns, (merge, marker, dual_stack, include_kube_dns, two))| {
        let local = if two { vec!["169.254.20.10", "fd00::53"] } else { vec!["169.254.20.10"] };
        let addresses = |list: Vec<&str>| list.iter().map(|text| text.parse().expect("an address")).collect();
        let settings = InjectionSettings {
            merge,
            marker,
            dual_stack,
            include_kube_dns,
            node_local: addresses(local),
            ..Default::default()
        };
        (settings.checked().expect("usable"), addresses(kube_dns))
    })
}

fn review_of(pod: &str) -> String {
    format!(
        "{{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\",\"request\":{{\"uid\":\"u\",\"operation\":\"CREATE\",\
         \"namespace\":\"shop\",\"resource\":{{\"group\":\"\",\"version\":\"v1\",\"resource\":\"pods\"}},\"object\":{pod}}}}}"
    )
}

/// What no answer may break, whatever was asked.
fn assert_harmless(answered: &Answered) {
    match answered.status {
        200 => {
            let response = response(answered);
            assert_eq!(response["allowed"], true);
            let outcome = answered.outcome.as_ref().expect("decided");
            assert_eq!(response["auditAnnotations"]["reason"], outcome.reason.as_str());
            assert_ne!(outcome.reason.as_str(), "patch-unproven", "{:?}", outcome.notes);
            for warning in response.get("warnings").and_then(Value::as_array).into_iter().flatten() {
                assert!(warning.as_str().is_some_and(|text| text.len() <= 120), "{warning}");
            }
        }
        status => {
            assert_eq!(status, 400);
            assert!(answered.outcome.is_err());
        }
    }
}

/// `validatePodDNSConfig`, once more, over plain JSON.
fn assert_the_api_takes(spec: &Value) {
    let list = |field: &str| spec["dnsConfig"][field].as_array().cloned().unwrap_or_default();
    let texts = |field: &str| -> Vec<String> {
        list(field).iter().map(|text| text.as_str().expect("text").to_owned()).collect()
    };
    let (nameservers, searches) = (texts("nameservers"), texts("searches"));
    assert!((1..=3).contains(&nameservers.len()), "{nameservers:?}");
    assert!(nameservers.iter().all(|text| text.parse::<IpAddr>().is_ok()), "{nameservers:?}");
    assert!(searches.len() <= 32 && searches.join(" ").len() <= 2048, "{searches:?}");
    for search in &searches {
        let bare = search.strip_suffix('.').unwrap_or(search);
        let label = |label: &str| {
            label.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_'))
                && label.chars().next().is_some_and(|c| c != '-')
                && label.chars().last().is_some_and(|c| c != '-')
        };
        assert!(search == "." || bare.len() <= 253 && bare.split('.').all(label), "{search:?}");
    }
    assert!(
        list("options").iter().all(|option| option["name"].as_str().is_some_and(|name| !name.is_empty()))
    );
}

/// The same JSON with every object's members in another order.
fn shuffled(value: &Value, seed: u64) -> String {
    match value {
        Value::Object(map) => {
            let mut members: Vec<(&String, &Value)> = map.iter().collect();
            let weight = |key: &str| {
                key.bytes()
                    .fold(seed | 1, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            };
            members.sort_by_key(|(key, _)| weight(key));
            let member =
                |(key, value): &(&String, &Value)| format!("{} :\n{}", json!(key), shuffled(value, seed));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(" , "))
        }
        Value::Array(list) => {
            format!("[{}]", list.iter().map(|value| shuffled(value, seed)).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_patched_pod_is_valid_and_final_and_otherwise_the_same((settings, kube_dns) in settings(), pod in pod()) {
        let overwrite = settings.merge == MergeMode::Overwrite;
        let snapshot = Snapshot::alone(settings, kube_dns);
        let answered = review::answer(review_of(&pod.to_string()).as_bytes(), &snapshot);
        assert_harmless(&answered);
        let Some(patch) = patch_of(&response(&answered)) else { return Ok(()) };
        let mut after = pod.clone();
        let operations: json_patch::Patch = serde_json::from_value(patch).expect("RFC 6902");
        json_patch::patch(&mut after, &operations).expect("it applies");
        prop_assert_eq!(&after["spec"]["dnsPolicy"], "None");
        assert_the_api_takes(&after["spec"]);
        // A second look leaves it alone.
        let again = review::answer(review_of(&after.to_string()).as_bytes(), &snapshot);
        assert_harmless(&again);
        prop_assert!(patch_of(&response(&again)).is_none());
        // All other members are as they were.
        let (before, later) = (&pod["spec"], &after["spec"]);
        for (key, value) in before.as_object().expect("an object") {
            if key != "dnsPolicy" && key != "dnsConfig" {
                prop_assert_eq!(value, &later[key]);
            }
        }
        // An overwritten dnsConfig is gone with all its fields, as the operator asked.
        let kept = if overwrite { &Value::Null } else { &before["dnsConfig"]["laterField"] };
        prop_assert_eq!(kept, &later["dnsConfig"]["laterField"]);
        for (key, value) in pod["metadata"].as_object().expect("an object") {
            match value {
                Value::Object(map) => for (entry, text) in map {
                    prop_assert!(entry == "node-local-dns/status" || text == &after["metadata"][key][entry], "{}", entry);
                },
                Value::Null => {}
                other => prop_assert_eq!(other, &after["metadata"][key]),
            }
        }
    }

    #[test]
    fn the_order_of_fields_decides_nothing((settings, kube_dns) in settings(), pod in pod(), seed in any::<u64>()) {
        let snapshot = Snapshot::alone(settings, kube_dns);
        let one = review::answer(review_of(&pod.to_string()).as_bytes(), &snapshot);
        let other = review::answer(review_of(&shuffled(&pod, seed)).as_bytes(), &snapshot);
        prop_assert_eq!(&response(&one)["auditAnnotations"], &response(&other)["auditAnnotations"]);
        prop_assert_eq!(patch_of(&response(&one)), patch_of(&response(&other)));
    }

    #[test]
    fn any_object_is_allowed(object in anything()) {
        let snapshot = Snapshot::alone(InjectionSettings::default(), vec![IpAddr::from([172, 21, 0, 10])]);
        let answered = review::answer(review_of(&object.to_string()).as_bytes(), &snapshot);
        prop_assert_eq!(answered.status, 200);
        assert_harmless(&answered);
    }

    #[test]
    fn any_json_is_answered(body in anything()) {
        assert_harmless(&review::answer(body.to_string().as_bytes(), &Snapshot::alone(InjectionSettings::default(), vec![])));
    }

    #[test]
    fn any_damage_to_a_review_is_answered(pod in pod(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let snapshot = Snapshot::alone(InjectionSettings::default(), vec![IpAddr::from([172, 21, 0, 10])]);
        let mut body = review_of(&pod.to_string()).into_bytes();
        for (place, byte) in damage {
            let place = place.index(body.len());
            body[place] = byte;
        }
        let answered = review::answer(&body, &snapshot);
        assert_harmless(&answered);
        // Where a Pod can still be read, its patch must still fit it.
        let (Some(patch), Ok(review)) = (patch_of(&response_or_null(&answered)), serde_json::from_slice::<Value>(&body)) else { return Ok(()) };
        let mut after = review["request"]["object"].clone();
        let operations: json_patch::Patch = serde_json::from_value(patch).expect("RFC 6902");
        json_patch::patch(&mut after, &operations).expect("it applies");
        assert_the_api_takes(&after["spec"]);
    }
}

fn response_or_null(answered: &Answered) -> Value {
    if answered.status == 200 { response(answered) } else { Value::Null }
}

#[test]
fn what_is_not_known_is_kept_byte_for_byte() {
    // Numbers that a parser would round, escapes that it would undo, spaces that it would drop.
    let kept = [
        r#"{ "a" : 1.50, "b":1e400,"c":"\u0041" }"#,
        r#"{"name":"edns0","n":0.10}"#,
        r#"{ "name":"x" , "value":"1"}"#,
    ];
    let pod = format!(
        r#"{{"metadata":{{}},"spec":{{"dnsConfig":{{"later":{},"options":[{},{}]}}}}}}"#,
        kept[0], kept[1], kept[2]
    );
    let snapshot = Snapshot::alone(InjectionSettings::default(), vec![IpAddr::from([172, 21, 0, 10])]);
    let answered = review::answer(review_of(&pod).as_bytes(), &snapshot);
    let encoded = response(&answered)["patch"].as_str().expect("a patch").to_owned();
    let patch = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).expect("base64");
    let patch = String::from_utf8(patch).expect("text");
    for bytes in kept {
        assert!(patch.contains(bytes), "{bytes} in {patch}");
    }
}

#[test]
fn deep_json_is_answered_and_does_not_recurse() {
    let snapshot = Snapshot::alone(InjectionSettings::default(), vec![IpAddr::from([172, 21, 0, 10])]);
    for depth in [1_000, 1_000_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let unseen = format!(r#"{{"metadata":{{}},"spec":{{"deep":{deep}}}}}"#);
        let answered = review::answer(review_of(&unseen).as_bytes(), &snapshot);
        assert_eq!(
            answered.outcome.expect("decided").reason.as_str(),
            "injected",
            "depth {depth} where nobody looks"
        );
        for pod in
            [deep.clone(), format!(r#"{{"metadata":{{}},"spec":{{"dnsConfig":{{"searches":{deep}}}}}}}"#)]
        {
            let answered = review::answer(review_of(&pod).as_bytes(), &snapshot);
            assert_eq!(answered.outcome.expect("decided").reason.as_str(), "undecodable", "depth {depth}");
        }
        assert_eq!(review::answer(deep.as_bytes(), &snapshot).status, 400);
    }
}

#[test]
fn a_dns_config_is_written_for_most_generated_pods() {
    // The properties above are worth something only if patches come up.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut patched, mut merged) = (0, 0);
    for _ in 0..300 {
        let tree = (settings(), pod()).new_tree(&mut runner).expect("a tree");
        let ((settings, kube_dns), pod) = proptest::strategy::ValueTree::current(&tree);
        let answered =
            review::answer(review_of(&pod.to_string()).as_bytes(), &Snapshot::alone(settings, kube_dns));
        let patch = patch_of(&response(&answered));
        patched += usize::from(patch.is_some());
        merged += usize::from(patch.is_some_and(|p| {
            written(&p, "/spec/dnsConfig")
                .is_some_and(|dns| dns["options"].as_array().is_some_and(|o| o.len() > 3))
        }));
    }
    assert!(patched > 60 && merged > 15, "{patched} patched, {merged} with the user's options");
}
