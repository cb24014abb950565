use super::*;
use serde_json::json;

fn one(text: &str) -> Value {
    let documents = read(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(documents.len(), 1, "{text}");
    documents[0].to_json()
}

#[test]
fn scalars_mean_what_kubectl_takes_them_for() {
    for (text, meaning) in [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("~", json!(null)),
        ("", json!(null)),
        ("3", json!(3)),
        ("-3", json!(-3)),
        ("1.5", json!(1.5)),
        ("\"3\"", json!("3")),
        ("'yes'", json!("yes")),
        ("!!str 3", json!("3")),
        ("169.254.20.10", json!("169.254.20.10")),
        ("1.2.3", json!("1.2.3")),
        ("None", json!("None")),
        ("100m", json!("100m")),
        ("|\n  a\n  b", json!("a\nb\n")),
    ] {
        assert_eq!(one(&format!("a: {text}\n"))["a"], meaning, "{text}");
    }
}

#[test]
fn anchors_aliases_and_merge_keys_are_followed() {
    let text = "base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nlist: [*b]\n";
    assert_eq!(
        one(text),
        json!({"base": {"x": 1, "y": 2}, "use": {"x": 1, "y": 3}, "list": [{"x": 1, "y": 2}]})
    );
}

#[test]
fn bombs_and_oddities_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let problem = |text: &str| read(text).expect_err(text).problem;
    assert!(problem(&bomb).contains("aliases stand for too much"));
    assert!(problem(&format!("a: {}{}", "[".repeat(120), "]".repeat(120))).contains("nested too deeply"));
    assert!(read(&"[".repeat(100_000)).is_err());
    assert!(problem("? [a]\n: b\n").contains("a key that is no scalar"));
    assert!(read("a: [1\nb: 2\n").is_err_and(|error| error.line >= 1));
    assert!(read("a: *nothing\n").is_err());
    assert!(read("a: &a [*a]\n").is_err());
}

#[test]
fn empty_documents_are_none() {
    assert_eq!(read("---\n# nothing\n---\na: 1\n---\n").expect("good").len(), 1);
    assert_eq!(read("").expect("good").len(), 0);
}

#[test]
fn pods_are_found_wherever_they_are_made() {
    let text = "\
kind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {template: {spec: {containers: []}}}\n---
kind: CronJob\nmetadata: {name: tick}\nspec: {jobTemplate: {spec: {template: {spec: {containers: []}}}}}\n---
kind: Service\nspec: {clusterIP: None}\n---
kind: Certificate\nspec: {template: {spec: {secret: x}}}\n---
kind: List\nitems:\n- {kind: Pod, metadata: {generateName: one-}, spec: {}}\n- {kind: ConfigMap}\n- {kind: Rollout, metadata: {name: r}, spec: {template: {spec: {containers: []}}}}\n";
    let documents = read(text).expect("good");
    let found: Vec<_> = documents.iter().flat_map(workloads).collect();
    let found: Vec<_> = found
        .iter()
        .map(|w| {
            (
                w.kind.as_str(),
                w.name.as_str(),
                w.namespace.as_deref(),
                w.pod_path.as_str(),
                w.object_path.as_str(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("deployment", "web", Some("shop"), "/spec/template", ""),
            ("cronjob", "tick", None, "/spec/jobTemplate/spec/template", ""),
            ("pod", "one-", None, "", "/items/0"),
            ("rollout", "r", None, "/spec/template", "/items/2"),
        ]
    );
}
