//! `inject` and `explain` without a cluster: the binary as a person runs it, and edits to manifests of every layout.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use nodens_admission::inject::inject;
use nodens_admission::manifest;
use nodens_admission::reason::Reason;
use nodens_admission::settings::InjectionSettings;
use nodens_admission::snapshot::Config;
use proptest::prelude::*;
use serde_json::{Value, json};

fn config() -> Config {
    Config::new(Arc::new(InjectionSettings::default()), vec![[172, 21, 0, 10].into()])
}

fn meaning(text: &str) -> Vec<Value> {
    manifest::read(text)
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
        .iter()
        .map(manifest::Node::to_json)
        .collect()
}

/// Injects, and checks that nothing but the DNS fields changed. The new text.
fn injected(text: &str) -> String {
    let (edited, reports) =
        inject(text, &config(), "default").unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert!(reports.iter().all(|report| report.reason == Reason::Injected), "{reports:?}\n{text}");
    let (before, mut after) = (meaning(text), meaning(&edited));
    let documents = manifest::read(text).expect("read before");
    for (document, after) in documents.iter().zip(&mut after) {
        for workload in manifest::workloads(document) {
            let spec = format!("{}{}/spec", workload.object_path, workload.pod_path);
            let spec = after.pointer_mut(&spec).and_then(Value::as_object_mut).expect("a spec");
            assert_eq!(spec.remove("dnsPolicy"), Some(json!("None")), "{edited}");
            assert_eq!(spec.remove("dnsConfig").expect("set")["nameservers"][0], "169.254.20.10", "{edited}");
        }
    }
    let mut stripped = before;
    for (document, before) in documents.iter().zip(&mut stripped) {
        for workload in manifest::workloads(document) {
            let spec = format!("{}{}/spec", workload.object_path, workload.pod_path);
            let spec = before.pointer_mut(&spec).and_then(Value::as_object_mut).expect("a spec");
            spec.remove("dnsPolicy");
            spec.remove("dnsConfig");
        }
    }
    assert_eq!(stripped, after, "{edited}");
    edited
}

const DNS: &str = "      dnsConfig:
        nameservers:
        - 169.254.20.10
        - 172.21.0.10
        options:
        - name: ndots
          value: \"3\"
        - name: attempts
          value: \"2\"
        - name: timeout
          value: \"1\"
        searches:
        - shop.svc.cluster.local
        - svc.cluster.local
        - cluster.local
      dnsPolicy: None
";

#[test]
fn a_deployment_gets_the_fields_and_keeps_every_other_byte() {
    let head = "# The shop.\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web   # kept\n  namespace: shop\n\
                spec:\n  replicas: 2\n  template:\n    metadata:\n      labels: {app: web}\n    spec:\n";
    let tail = "      # The only one.\n      containers:\n      - name: web\n        image: 'web'\n        command: [\"sh\", \"-c\"]\n";
    let edited = injected(&format!("{head}{tail}"));
    assert_eq!(edited, format!("{head}{DNS}{tail}"));
}

#[test]
fn every_layout_is_edited_or_refused() {
    for text in [
        // Fields that are there already, first, in the middle, last, alone.
        "kind: Pod\nspec:\n  dnsPolicy: ClusterFirst\n  containers: []\n",
        "kind: Pod\nspec:\n  containers: []\n  dnsConfig:\n    options:\n    - name: use-vc\n  nodeName: a\n",
        "kind: Pod\nspec:\n  containers: []\n  dnsPolicy: ClusterFirst # as ever\n  dnsConfig: {options: [{name: use-vc}]}",
        "kind: Pod\nspec:\n  dnsConfig:\n  dnsPolicy: ClusterFirst\n",
        "kind: Pod\nspec:\n  dnsPolicy:\n  containers: []\n",
        "kind: Pod\nspec:\n  dnsConfig:\n    searches: [a.example]\n\n\n# end\n---\nkind: Service\n",
        "kind: Pod\r\nspec:\r\n  dnsPolicy: ClusterFirst\r\n  containers: []\r\n",
        "kind: Pod\nspec:\n  dnsPolicy: >-\n    ClusterFirst\n  containers: []\n",
        "kind: Pod\nspec:\n  dnsPolicy: |-\n    ClusterFirst\n",
        "{\"kind\": \"Pod\", \"spec\": {}}",
        "{\"kind\": \"Pod\", \"spec\": {\"dnsPolicy\": \"ClusterFirst\"}}",
        "{\"kind\": \"Pod\", \"spec\": {\"dnsConfig\": {}, \"dnsPolicy\": \"ClusterFirst\"}}",
        "{\"kind\": \"Pod\", \"spec\": {\"dnsConfig\": {}, \"a\": [1], \"dnsPolicy\": \"ClusterFirst\"}}",
        "{\"kind\": \"Pod\", \"spec\": {\"a\": 1, \"dnsConfig\": {}, \"dnsPolicy\": \"ClusterFirst\", \"b\": 2}}",
        "{\n  \"kind\": \"Pod\",\n  \"spec\": {\n    \"a\": 1,\n    \"dnsPolicy\": \"ClusterFirst\"\n  }\n}\n",
        "kind: Pod\nspec: {containers: [], dnsPolicy: ClusterFirst}\n",
        "kind: Pod\nspec: { # why\n  containers: []}\n",
        "kind: Pod\nspec: &s\n  containers: []\nmore: *s\n",
        "kind: List\nitems:\n- kind: Pod\n  spec:\n    containers: []\n- kind: Pod\n  spec: {}\n",
        "kind: Pod\nspec: {\"a\": \"\u{e9}\u{1f980}\", dnsPolicy: ClusterFirst}\n# \u{1f980}\n---\nkind: Pod\nspec:\n  b: \"\u{1f980}\"\n",
    ] {
        let more = text.contains("more: *s");
        match inject(text, &config(), "default") {
            // What an alias stands for would change with it: refused.
            Err(error) => assert!(more && error.problem.contains("safely"), "{error}\n{text}"),
            Ok(_) => {
                let edited = injected(text);
                assert!(!more, "{edited}");
                assert!(
                    !text.starts_with('{') || serde_json::from_str::<Value>(&edited).is_ok(),
                    "JSON stays JSON: {edited}"
                );
                let crlf = |text: &str| {
                    (
                        text.matches("\r\n").count() > 0,
                        text.matches('\n').count() == text.matches("\r\n").count(),
                    )
                };
                assert_eq!(crlf(text), crlf(&edited), "{edited:?}");
                // A second time there is nothing to do.
                let (again, reports) = inject(&edited, &config(), "default").expect("good");
                assert_eq!(again, edited);
                assert!(reports.iter().all(|report| report.reason == Reason::DnsPolicyNone));
            }
        }
    }
}

#[test]
fn the_users_dns_config_is_merged_in_block_style() {
    let text = "kind: Pod\nmetadata: {name: a}\nspec:\n  dnsConfig:\n    options:\n    - {name: \"on\", value: \"1\"}\n    - name: x\n      later: [1]\n    searches: [\"0.example\"]\n    future: {a: b}\n";
    let edited = injected(text);
    let dns = &meaning(&edited)[0]["spec"]["dnsConfig"];
    assert_eq!(dns["options"][0], json!({"name": "on", "value": "1"}));
    assert_eq!(dns["options"][1], json!({"name": "x", "later": [1]}));
    assert_eq!(dns["searches"][3], "0.example");
    assert_eq!(dns["future"], json!({"a": "b"}));
}

#[test]
fn namespaces_of_the_manifest_count() {
    let text = "kind: Namespace\nmetadata:\n  name: shop\n---\nkind: Pod\nmetadata: {namespace: shop}\nspec: {}\n---\n\
                kind: Pod\nmetadata: {labels: {node-local-dns-injection: disabled}}\nspec: {}\n";
    let (edited, reports) = inject(text, &config(), "default").expect("good");
    assert_eq!(edited, text);
    let reasons: Vec<Reason> = reports.iter().map(|report| report.reason).collect();
    assert_eq!(reasons, [Reason::NamespaceNotEnabled, Reason::PodOptOut]);
}

#[test]
fn what_is_no_pod_is_named_with_its_line() {
    let error = inject(
        "kind: Service\n---\nkind: Pod\nmetadata: {}\nspec:\n  hostNetwork: \"yes\"\n",
        &config(),
        "default",
    )
    .expect_err("a string is no boolean");
    assert_eq!(error.line, 3);
    assert!(
        error.problem.contains("no Pod") && error.problem.ends_with("near the field hostNetwork"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_manifests_are_refused_or_kept(damage in prop::collection::vec((any::<prop::sample::Index>(), select_char()), 1..5)) {
        let mut text: Vec<char> = SAMPLE.chars().collect();
        for (place, char) in damage {
            let place = place.index(text.len());
            text[place] = char;
        }
        let text: String = text.into_iter().collect();
        let Ok((edited, reports)) = inject(&text, &config(), "default") else { return Ok(()) };
        if reports.iter().all(|report| report.reason == Reason::Injected) {
            prop_assert_eq!(injected(&text), edited);
        }
    }
}

const SAMPLE: &str = "kind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    metadata:\n      labels: &l\n        app: web\n    spec:\n      dnsPolicy: ClusterFirst\n      containers:\n      - name: a # x\n        args: [\"-c\", 'y']\n      dnsConfig:\n        options:\n        - name: edns0\n---\n{\"kind\": \"Pod\", \"spec\": {\"dnsPolicy\": \"ClusterFirst\", \"containers\": []}}\n";

fn select_char() -> impl Strategy<Value = char> {
    prop::sample::select(" \n\t:-#&*[]{},\"'|>?!%~a\u{e9}".chars().collect::<Vec<_>>())
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nodens-admission"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // It may refuse its arguments and end without reading.
    drop(child.stdin.take().expect("piped").write_all(input.as_bytes()));
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

const OPTED_OUT: &str = "kind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  template:\n    metadata:\n      labels: {node-local-dns-injection: disabled}\n    spec:\n      hostNetwork: true\n      containers: []\n";

#[test]
fn inject_prints_documents_and_says_what_became_of_them() {
    let output = run(
        &["inject", "-f", "-", "--kube-dns-ip", "172.21.0.10", "-n", "shop"],
        "kind: Pod\nmetadata: {name: a}\nspec:\n  containers: []\n",
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        meaning(&text(&output.stdout))[0]["spec"]["dnsConfig"]["searches"][0],
        "shop.svc.cluster.local"
    );
    assert_eq!(text(&output.stderr), "pod shop/a: injected\n");
    let output = run(&["inject", "-f", "-", "--kube-dns-ip", "172.21.0.10"], OPTED_OUT);
    assert_eq!(text(&output.stdout), OPTED_OUT);
    assert!(
        text(&output.stderr).starts_with("deployment shop/web: pod-opt-out; remove the label"),
        "{output:?}"
    );
}

#[test]
fn explain_walks_the_whole_table() {
    let output = run(&["explain", "-f", "-", "--kube-dns-ip=172.21.0.10"], OPTED_OUT);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.starts_with("deployment shop/web is left alone: pod-opt-out\n"), "{said}");
    assert!(said.contains("   6 STOPS the Pod is not labelled"), "{said}");
    assert!(said.contains(
        r#"pod-opt-out: kubectl -n shop patch deployment web --type=json -p '[{"op":"remove","path":"/spec/template/metadata/labels/node-local-dns-injection"}]'"#
    ), "{said}");
    assert!(
        said.contains("  12 also  dnsPolicy is") && said.contains("set dnsPolicy: ClusterFirstWithHostNet"),
        "{said}"
    );
    assert!(said.contains("  17 ok    the rollout"), "{said}");
    let output = run(&["explain", "--json", "-f", "-", "--kube-dns-ip=172.21.0.10"], OPTED_OUT);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&said[0]["reason"], &said[0]["injected"]), (&json!("pod-opt-out"), &json!(false)));
    let rows: Vec<u64> =
        said[0]["steps"].as_array().expect("rows").iter().filter_map(|s| s["row"].as_u64()).collect();
    assert_eq!(rows, (1..=17).collect::<Vec<_>>());
}

#[test]
fn what_is_missing_is_asked_for() {
    for (arguments, wanted) in [
        (&["inject", "-f", "-"][..], "--kube-dns-ip"),
        (&["inject"], "-f FILE"),
        (&["explain"], "-f FILE"),
        (&["explain", "-f", "-", "extra"], "-f FILE"),
    ] {
        let output = run(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(wanted), "{arguments:?}: {output:?}");
    }
    for name in ["/nonexistent/pod.yaml", "/"] {
        let output = run(&["inject", "-f", name, "--kube-dns-ip=172.21.0.10"], "");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).starts_with(&format!("nodens-admission: {name}: ")), "{output:?}");
    }
}

#[test]
fn policy_prints_a_list_to_apply() {
    let output = run(&["policy", "--kube-dns-ip=172.21.0.10", "--parameters-namespace=dns"], "");
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let kinds: Vec<&str> =
        list["items"].as_array().expect("a list").iter().filter_map(|item| item["kind"].as_str()).collect();
    assert_eq!(kinds, ["ConfigMap", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"]);
    assert_eq!(list["items"][2]["spec"]["paramRef"]["namespace"], "dns");
    let output = run(&["policy", "--kube-dns-ip=172.21.0.10", "--report-only"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("report-only"), "{output:?}");
}
