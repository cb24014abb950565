//! Objects that several tests put into the mock API server, and waiting for what they cause.

use std::fmt::Debug;
use std::time::Duration;

use serde_json::{Value, json};

/// How long a test waits for something that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The path of a Service in kube-system.
pub(crate) fn service_path(name: &str) -> String {
    format!("/api/v1/namespaces/kube-system/services/{name}")
}

/// A Service of kube-system that offers DNS and carries the label of cluster DNS.
pub(crate) fn service(name: &str, cluster_ips: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "ClusterIP", "clusterIP": cluster_ips.first(), "clusterIPs": cluster_ips,
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]},
    })
}

/// The path of a namespace.
pub(crate) fn namespace_path(name: &str) -> String {
    format!("/api/v1/namespaces/{name}")
}

/// A namespace with these labels.
pub(crate) fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// Asks until the answer is the wanted one.
pub(crate) async fn eventually<T: PartialEq + Debug>(what: &str, wanted: T, mut ask: impl FnMut() -> T) {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let seen = ask();
        if seen == wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{what}: {seen:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
