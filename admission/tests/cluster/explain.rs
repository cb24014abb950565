//! `explain` for objects of a cluster, as it is typed.

use std::process::Output;

use serde_json::{Value, json};

use crate::fixtures::{injected, namespace, namespace_path, put_pod, put_webhook, service, service_path};
use crate::mock_api::MockApi;

async fn cluster() -> MockApi {
    let api = MockApi::start().await;
    api.put(&service_path("kube-dns"), service("kube-dns", &["10.96.0.10"]));
    put_webhook(&api, "node-local-dns-admission-controller", "Q0E=");
    api.put(&namespace_path("shop"), namespace("shop", json!({"node-local-dns-injection": "enabled"})));
    api.put(&namespace_path("quiet"), namespace("quiet", json!({})));
    api
}

async fn typed(api: &MockApi, words: &[&str]) -> Output {
    let file = format!("nodens-explain-{}-{:p}", std::process::id(), words);
    let path = std::env::temp_dir().join(file);
    std::fs::write(&path, api.kubeconfig()).expect("a temporary file");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nodens-admission"));
    command.arg("explain").args(words).arg("--kubeconfig").arg(&path);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    std::fs::remove_file(&path).expect("it was there");
    output.expect("the program starts")
}

async fn explained(api: &MockApi, words: &[&str]) -> Value {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let output = typed(api, &words).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).expect("JSON")[0].clone()
}

#[tokio::test]
async fn a_deployment_is_explained_with_its_namespace_and_the_clusters_dns() {
    let api = cluster().await;
    api.put(
        "/apis/apps/v1/namespaces/shop/deployments/web",
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [], "dnsPolicy": "ClusterFirst"}}}}),
    );
    let found = explained(&api, &["deploy", "web", "-n", "shop"]).await;
    assert_eq!(found["reason"], "injected", "{found}");
    assert!(found.to_string().contains("10.96.0.10"), "{found}");
    // The same in a namespace that does not ask.
    let mut other = api.get("/apis/apps/v1/namespaces/shop/deployments/web").expect("it is there");
    other["metadata"]["namespace"] = json!("quiet");
    api.put("/apis/apps/v1/namespaces/quiet/deployments/web", other);
    let text = typed(&api, &["deploy/web", "-n", "quiet"]).await;
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(text.contains("namespace-not-enabled"), "{text}");
    assert!(text.contains("kubectl label namespace quiet node-local-dns-injection=enabled"), "{text}");
}

#[tokio::test]
async fn a_pod_that_is_there_is_told_from_a_new_one() {
    let api = cluster().await;
    put_pod(&api, "shop", "new-style", "ReplicaSet/web", json!({}), injected("10.96.0.10"));
    put_pod(
        &api,
        "shop",
        "before-the-label",
        "ReplicaSet/web",
        json!({}),
        json!({"dnsPolicy": "ClusterFirst"}),
    );
    for (name, reason, note) in [
        ("new-style", "dns-policy-none", "asks the node-local address already (injected)"),
        ("before-the-label", "injected", "recreate it"),
    ] {
        let path = format!("/api/v1/namespaces/shop/pods/{name}");
        let mut pod = api.get(&path).expect("it is there");
        pod["kind"] = json!("Pod");
        api.put(&path, pod);
        let found = explained(&api, &["pod", name, "-n", "shop"]).await;
        assert_eq!(found["reason"], reason, "{found}");
        assert!(found["notes"].to_string().contains(note), "{found}");
    }
}

#[tokio::test]
async fn a_namespace_is_explained_and_a_cluster_without_an_injector_told() {
    let api = cluster().await;
    let found = explained(&api, &["ns", "shop"]).await;
    assert_eq!(found["reason"], "injected", "{found}");
    assert!(!found["notes"].to_string().contains("nobody is injected"), "{found}");
    api.delete("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/node-local-dns-admission-controller");
    api.delete(&service_path("kube-dns"));
    let found = explained(&api, &["ns", "shop"]).await;
    assert_eq!(found["reason"], "upstream-unknown", "{found}");
    assert!(found["notes"].to_string().contains("nobody is injected"), "{found}");
    assert_eq!(explained(&api, &["ns", "shop", "--kube-dns-ip=10.9.9.9"]).await["reason"], "injected");
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_said() {
    let api = cluster().await;
    let missing = typed(&api, &["pod", "nobody", "-n", "shop"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("pod shop/nobody"), "{missing:?}");
    let wrong = typed(&api, &["thing", "web"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("kinds: pod, deployment"), "{wrong:?}");
}
