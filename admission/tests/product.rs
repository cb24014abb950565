//! The whole product of the table's conditions against the oracle: every combination of what the rows look at, so that the order of the rows is
//! proven and not only each row. Which of several spellings a condition takes (three label keys, four ways to say Windows) turns with the
//! combination's number.
//!
//! The product has 1.8 million members: a test run takes every 211th (a number that shares no factor with any row's number of values),
//! `NODENS_TEST_LONG=1` all. Beside it goes the whole product of rows 12 to 17 for Pods that pass the others, in many variants.

mod support;

use std::sync::mpsc;

use nodens_admission::reason::Reason;
use serde_json::{Value, json};
use support::{Oracle, Surroundings, patch_of, python, response, written};

/// Takes digits off a number, least first.
struct Digits(usize);

impl Digits {
    fn next<T: Clone>(&mut self, values: &[T]) -> T {
        let value = values[self.0 % values.len()].clone();
        self.0 /= values.len();
        value
    }
}

const POLICIES: [&str; 5] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None", "Anything"];

/// Rows 1 (2), 3-4 (2 each), 5 (3), 6-11 (2 each), 12 (5 x 2), 13-16 (5 x 3 x 2), 17 (2).
const PRODUCT: usize = 2 * 2 * 2 * 3 * 2 * 2 * 2 * 2 * 2 * 2 * (5 * 2) * (5 * 3 * 2) * 2 * 2;

/// The members that pass rows 1 to 11: the product of rows 12 to 17.
const INNER: usize = (5 * 2) * (5 * 3 * 2) * 2;

/// One member: the line that the oracle reads.
fn member(number: usize, variant: usize) -> Value {
    let mut turn = Digits((number * 64 + variant).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3);
    let digits = &mut Digits(number);
    let two = [false, true];
    let mut request = json!({
        "uid": "u", "operation": "CREATE", "namespace": "shop",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
    });
    let mut settings =
        json!({"exemptNamespaces": ["own"], "virtualNodeKeys": ["alibabacloud.com/acs"], "marker": "none"});
    let mut namespace = json!({});
    let mut metadata = json!({"name": "web"});
    let mut spec = json!({"containers": []});

    // 17: owners with and without a UID.
    settings["rolloutPercent"] = json!(digits.next(&[100, turn.next(&[0, 37])]));
    if turn.next(&two) {
        let uid = format!("uid-{}", number % 97);
        metadata["ownerReferences"] =
            json!([{"kind": "Node", "uid": "other"}, {"kind": "ReplicaSet", "uid": uid, "controller": true}]);
    }
    // 14, with an override that makes it pointless.
    let kube_dns = digits.next(&[json!(["172.21.0.10"]), json!([])]);
    // 15, 13, 16
    settings["merge"] = json!(digits.next(&["merge", "skip", "overwrite"]));
    let own = match digits.next(&[0, 1, 2, 3, 4]) {
        0 => turn.next(&[Value::Null, json!({}), json!({"options": []})]),
        1 => {
            json!({"nameservers": ["10.1.1.1", "172.21.0.10"], "searches": ["Shop.svc.cluster.local".to_lowercase(), "corp.example."],
            "options": [{"name": "use-vc"}, {"name": "attempts", "value": "4"}], "future": {"a": [1, null]}})
        }
        2 => json!({"nameservers": [turn.next(&["169.254.20.10", "::ffff:169.254.20.10"])]}),
        3 => turn.next(&[
            json!({"nameservers": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]}),
            json!({"nameservers": ["one"]}),
            json!({"searches": ["UPPER.example"]}),
            json!({"options": [{"value": "1"}]}),
        ]),
        _ => {
            let searches: Vec<String> = (0..turn.next(&[29, 30])).map(|i| format!("s{i}.example")).collect();
            json!({"searches": searches})
        }
    };
    spec["dnsConfig"] = own;
    // 12
    let host_network = digits.next(&two);
    spec["dnsPolicy"] = json!(digits.next(&POLICIES));
    if host_network || turn.next(&two) {
        spec["hostNetwork"] = json!(host_network);
    }
    settings["hostNetPolicyWithoutHostNetwork"] = json!(turn.next(&two));
    let mut annotations = json!({"note": "x"});
    let mut labels = json!({"app": "web"});
    let affinity = |part: &str, key: &str, value: &str| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
            {part: [{"key": key, "operator": "In", "values": ["other", value]}]}]}}})
    };
    // 11
    if digits.next(&two) {
        spec["tolerations"] =
            json!([{"operator": "Exists"}, {"key": "virtual-kubelet.io/provider", "operator": "Exists"}]);
        settings["softPlacement"] = json!(turn.next(&["skip", "skip", "inject"]));
    } else {
        spec["tolerations"] = turn.next(&[json!([{"operator": "Exists"}]), Value::Null]);
    }
    // 10, without the affinity, which row 9 uses too
    if digits.next(&two) {
        match turn.next(&[0, 1, 2, 3]) {
            0 => spec["nodeName"] = json!("virtual-kubelet-1"),
            1 => spec["nodeSelector"] = json!({"type": "virtual-kubelet"}),
            2 => spec["affinity"] = affinity("matchFields", "metadata.name", "virtual-kubelet-2"),
            _ => annotations["alibabacloud.com/burst-resource"] = json!(turn.next(&["eci", "eci_only"])),
        }
    } else if turn.next(&two) {
        annotations["alibabacloud.com/burst-resource"] = json!("ecs");
    }
    // 9
    if digits.next(&two) {
        match turn.next(&[0, 1, 2]) {
            0 => spec["os"] = json!({"name": "windows"}),
            1 if spec.get("nodeSelector").is_none() => {
                spec["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
            }
            _ => spec["affinity"] = affinity("matchExpressions", "beta.kubernetes.io/os", "windows"),
        }
    } else {
        spec["os"] = turn.next(&[Value::Null, json!({"name": "linux"})]);
    }
    // 8, 7, 6
    if digits.next(&two) {
        annotations["kubernetes.io/config.mirror"] = json!("");
    }
    if digits.next(&two) {
        labels[turn.next(&["eci", "alibabacloud.com/eci", "alibabacloud.com/acs"])] =
            json!(turn.next(&["", "false"]));
    }
    match digits.next(&two) {
        true => labels["node-local-dns-injection"] = json!("disabled"),
        false => labels["node-local-dns-injection"] = json!(turn.next(&["enabled", "injected"])),
    }
    // 5, 4, 3
    namespace["labels"] = json!({});
    match digits.next(&[0, 1, 2]) {
        0 => namespace["labels"]["node-local-dns-injection"] = json!("enabled"),
        1 => {}
        _ => {
            let value = turn.next(&["disabled", "Enabled", "true", ""]);
            namespace["labels"]["node-local-dns-injection"] = json!(value);
        }
    }
    settings["defaultEnabled"] = json!(turn.next(&[false, false, true]));
    settings["podOptIn"] = json!(turn.next(&[false, false, true]));
    if digits.next(&two) {
        let keys = ["eci", "alibabacloud.com/eci", "virtual-node-affinity-injection", "alibabacloud.com/acs"];
        namespace["labels"][turn.next(&keys)] = json!("x");
    }
    if digits.next(&two) {
        request["namespace"] = json!(turn.next(&["kube-system", "kube-public", "own"]));
    }
    // 1
    if digits.next(&two) {
        match turn.next(&[0, 1, 2, 3]) {
            0 => request["operation"] = json!("UPDATE"),
            1 => request["subResource"] = json!("resize"),
            2 => request["resource"]["group"] = json!("apps"),
            _ => request["namespace"] = Value::Null,
        }
    }
    // 2 has no Pod to combine with.
    annotate(&mut annotations, &mut namespace, &mut turn);
    metadata["annotations"] = annotations;
    metadata["labels"] = labels;
    request["object"] = json!({"kind": "Pod", "metadata": metadata, "spec": spec});
    let namespace = if turn.next(&[true, true, true, false]) { namespace } else { Value::Null };
    json!({"settings": settings, "kubeDns": kube_dns, "namespace": namespace,
        "review": {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}})
}

/// Overrides, good and bad, on both.
fn annotate(pod: &mut Value, namespace: &mut Value, turn: &mut Digits) {
    for (key, values) in [
        ("ndots", ["", "0", "15", "16", "-1", "five"]),
        ("attempts", ["", "1", "5", "6", "0", " 3 "]),
        ("timeout", ["", "1", "30", "31", "0", "+1"]),
        ("searches", ["", "a.example", "a.example,,B.example. ", "a b", "a,b,c,d,e,f,g", "."]),
        ("single-nameserver", ["", "true", "false", "yes", "True", " true"]),
    ] {
        for place in [&mut *pod, &mut namespace["annotations"]] {
            let value = if turn.next(&[true, false, false]) { turn.next(&values) } else { "" };
            if !value.is_empty() {
                place[format!("node-local-dns/{key}")] = json!(value);
            }
        }
    }
    match turn.next(&["", "0", "50", "100", "101", "all"]) {
        "" => {}
        percent => namespace["annotations"]["node-local-dns/rollout"] = json!(percent),
    }
    if namespace["annotations"].is_null() {
        namespace["annotations"] = json!({});
    }
}

/// What the server says to a member, in the oracle's words.
fn judged(line: &Value) -> Value {
    let mut surroundings = line.clone();
    let review =
        surroundings.as_object_mut().expect("an object").remove("review").expect("a review").to_string();
    let answered = Surroundings::read(&surroundings.to_string()).answer(review.as_bytes());
    let response = response(&answered);
    let patch = patch_of(&response);
    let dns = patch.as_ref().and_then(|patch| written(patch, "/spec/dnsConfig"));
    assert_eq!(dns.is_some(), response["auditAnnotations"]["decision"] == "inject");
    json!({"reason": response["auditAnnotations"]["reason"], "dnsConfig": dns})
}

#[test]
fn the_product_of_all_rows_is_decided_as_the_oracle_says() {
    let Some(python) = python() else { return };
    let long = std::env::var_os("NODENS_TEST_LONG").is_some();
    let step = if long { 1 } else { 211 };
    let outer = (0..PRODUCT).step_by(step).map(|number| (number, 0));
    // Where nearly everything is left alone, few Pods would have their dnsConfig compared.
    let inner =
        (0..INNER).flat_map(|number| (1..=if long { 256 } else { 16 }).map(move |variant| (number, variant)));
    let (made, lines) = mpsc::channel();
    let cases = outer.chain(inner).map(move |(number, variant)| {
        let line = member(number, variant);
        let text = line.to_string();
        made.send((number, variant, line)).expect("the judge waits");
        text
    });
    let mut seen = vec![0_u32; Reason::ALL.len()];
    let started = std::time::Instant::now();
    Oracle::start(python).ask(cases, |_, verdict| {
        let (number, variant, line) = lines.recv().expect("sent before the oracle saw it");
        let ours = judged(&line);
        assert_eq!(ours, verdict, "member {number}, variant {variant}: {line}");
        let reason = ours["reason"].as_str().and_then(Reason::parse).expect("a reason");
        seen[reason.index()] += 1;
    });
    for reason in Reason::ALL {
        let expected = !matches!(reason, Reason::Undecodable | Reason::PatchUnproven);
        assert_eq!(seen[reason.index()] > 0, expected, "{reason}: {} members", seen[reason.index()]);
    }
    let injected = seen[Reason::Injected.index()];
    assert!(injected > 250, "only {injected} had a dnsConfig to compare");
    nodens_testkit::note(&format!(
        "the decision table: {} cases agree with the oracle, {injected} of them injected, in {:.0} s; the product has {PRODUCT}",
        seen.iter().sum::<u32>(),
        started.elapsed().as_secs_f32(),
    ));
}

#[test]
fn what_is_no_pod_is_undecodable_to_both() {
    let Some(python) = python() else { return };
    let broken = [
        Value::Null,
        json!("pod"),
        json!([]),
        json!({}),
        json!({"metadata": {}}),
        json!({"spec": {}}),
        json!({"metadata": null, "spec": {}}),
        json!({"metadata": {}, "spec": null}),
        json!({"metadata": {"labels": ["a"]}, "spec": {}}),
        json!({"metadata": {"labels": {"a": 1}}, "spec": {}}),
        json!({"metadata": {"annotations": "a"}, "spec": {}}),
        json!({"metadata": {"ownerReferences": {}}, "spec": {}}),
        json!({"metadata": {}, "spec": {"hostNetwork": "true"}}),
        json!({"metadata": {}, "spec": {"dnsPolicy": 1}}),
        json!({"metadata": {}, "spec": {"dnsConfig": []}}),
        json!({"metadata": {}, "spec": {"dnsConfig": {"nameservers": "10.0.0.1"}}}),
        json!({"metadata": {}, "spec": {"dnsConfig": {"nameservers": [null]}}}),
        json!({"metadata": {}, "spec": {"dnsConfig": {"options": [[]]}}}),
        json!({"metadata": {}, "spec": {"dnsConfig": {"options": [{"name": 1}]}}}),
    ];
    let lines: Vec<Value> = broken
        .iter()
        .map(|object| {
            let mut line = member(0, 0);
            line["review"]["request"]["object"] = object.clone();
            line
        })
        .collect();
    assert_ne!(judged(&member(0, 0))["reason"], "undecodable");
    Oracle::start(python).ask(
        lines.iter().map(Value::to_string).collect::<Vec<_>>().into_iter(),
        |place, verdict| {
            assert_eq!(verdict["reason"], "undecodable", "{}", broken[place]);
            assert_eq!(judged(&lines[place])["reason"], "undecodable", "{}", broken[place]);
        },
    );
}
