//! The commands, as an operator types them, against a cluster that is real.

use std::process::{Command, Output};

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::admission::{Admission, Install};
use crate::cluster::Cluster;
use crate::pods::{create, plain};

/// Types a command; its exit code, and what it printed as data.
async fn run(cluster: &Cluster, words: &[&str]) -> (Option<i32>, Value) {
    let output = typed(cluster, words, true).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let data = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{words:?}: {why}: {text}{said}"));
    (output.status.code(), data)
}

async fn typed(cluster: &Cluster, words: &[&str], json: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodens-admission"));
    command.args(words).arg(format!("--kubeconfig={}", cluster.kubeconfig(true, None)));
    if json {
        command.arg("--json");
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.expect("no panic").expect("the program starts")
}

/// The verdict on one check of a report.
fn verdict<'a>(report: &'a Value, check: &str) -> &'a str {
    let checks = report["checks"].as_array().expect("checks");
    let found = checks.iter().find(|c| c["check"] == check).unwrap_or_else(|| panic!("no {check}: {report}"));
    found["verdict"].as_str().expect("a verdict")
}

pub(crate) async fn the_commands_tell_the_truth_about_the_cluster(cluster: &Cluster) {
    let client = &cluster.client;
    // Every address of the range of Services, of others, and none.
    for (address, code, wanted) in [
        ("10.96.0.20", 0, "ok"),
        ("10.96.200.1", 0, "note"),
        ("10.96.0.10", 1, "problem"),
        ("10.96.0.1", 1, "problem"),
        ("10.97.0.1", 1, "problem"),
        ("fd00::1", 1, "problem"),
    ] {
        let (exit, report) = run(cluster, &["preflight", "--upstream-ip", address]).await;
        assert_eq!((verdict(&report, "upstream IP"), exit), (wanted, Some(code)), "{address}: {report}");
        assert_eq!(verdict(&report, "cluster DNS"), "ok");
    }
    let services: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    let left = services.list(&Default::default()).await.expect("a list").items;
    assert!(
        !left.iter().any(|s| s.metadata.name.as_deref().is_some_and(|n| n.contains("preflight"))),
        "a dry run"
    );

    let admission = Admission::install(cluster, Install::named("operator")).await;
    let nodes: Api<Node> = Api::all(client.clone());
    cluster
        .create(
            nodes.clone(),
            json!({"metadata": {"name": "node-1", "labels": {"kubernetes.io/os": "linux"}}}),
        )
        .await;
    cluster.namespace("operator", json!({"scenario": "operator"})).await;
    create(client, "operator", plain("before-the-label")).await;
    cluster.label("operator", json!({"node-local-dns-injection": "enabled"})).await;
    admission.injected_from_now_on(client, "operator").await;
    let policy =
        json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}});
    cluster.create::<NetworkPolicy>(Api::namespaced(client.clone(), "operator"), policy).await;
    let (exit, report) = run(cluster, &["audit"]).await;
    assert_eq!(exit, Some(0));
    let row = &report["namespaces"]["operator"];
    assert_eq!(row["state"], "enabled", "{report}");
    assert!(row["restart"].as_u64().is_some_and(|count| count >= 1), "{row}");
    assert!(row["injected"].as_u64().is_some_and(|count| count >= 1), "{row}");
    assert_eq!(row["blocked_by"]["deny"], "UDP and TCP", "{row}");
    assert_eq!(verdict(&report, "injection"), "ok");
    assert_eq!(verdict(&report, "agents"), "problem", "there is a node and no agent");
    let (_, listed) = run(cluster, &["list-injected", "-n", "operator"]).await;
    let pods = listed["pods"].as_array().expect("a list");
    assert_eq!(Some(pods.len() as u64), row["injected"].as_u64());
    assert!(
        pods.iter().all(|pod| pod["origin"] == "injected" && pod["nameservers"][1] == "10.96.0.10"),
        "{listed}"
    );
    let table = typed(cluster, &["audit"], false).await;
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(table.contains("NAMESPACE") && table.contains("NetworkPolicy operator/deny isolates"), "{table}");
    // Moved: what was injected before is stale.
    cluster.kube_dns("10.96.7.8").await;
    let (_, report) = run(cluster, &["audit"]).await;
    assert_eq!(verdict(&report, "stale addresses"), "problem", "{report}");
    cluster.kube_dns("10.96.0.10").await;
    nodes.delete("node-1", &DeleteParams::default()).await.expect("deleted");
    admission.remove().await;
}

pub(crate) async fn uninstall_stops_injection_and_names_who_depends(cluster: &Cluster) {
    // The only one, by the label of its selector.
    let admission = Admission::install(cluster, Install::named("ending-all")).await;
    cluster
        .namespace("ending-all", json!({"node-local-dns-injection": "enabled", "scenario": "ending-all"}))
        .await;
    admission.injected_from_now_on(&cluster.client, "ending-all").await;
    let (exit, report) = run(cluster, &["uninstall", "--dry-run"]).await;
    assert_eq!((exit, report["step"].as_str()), (Some(0), Some("dry-run")));
    assert!(admission.configurations().get_opt("ending-all").await.expect("an answer").is_some());
    let (exit, report) = run(cluster, &["uninstall"]).await;
    assert_eq!((exit, report["step"].as_str()), (Some(1), Some("pods-depend")), "{report}");
    assert!(
        report["dependents"].as_object().is_some_and(|d| d.keys().any(|k| k.starts_with("ending-all/Pod/"))),
        "{report}"
    );
    assert!(admission.configurations().get_opt("ending-all").await.expect("an answer").is_none());
    let (exit, report) = run(cluster, &["uninstall", "--force"]).await;
    assert_eq!((exit, report["step"].as_str()), (Some(0), Some("clear")), "{report}");
}
