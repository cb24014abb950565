//! Objects that several tests put into the mock API server, and waiting for what they cause.

use std::fmt::Debug;
use std::time::Duration;

use serde_json::{Value, json};

use crate::mock_api::MockApi;

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

/// Puts a running Pod, with these labels and this spec; `owner` is `Kind/name`.
pub(crate) fn put_pod(api: &MockApi, namespace: &str, name: &str, owner: &str, labels: Value, spec: Value) {
    let (kind, owner) = owner.split_once('/').unwrap_or(("", ""));
    let owners = match kind {
        "" => json!([]),
        _ => {
            json!([{"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": owner, "controller": true}])
        }
    };
    let is_marked = spec["dnsConfig"]["searches"].is_array();
    let annotations = if is_marked { json!({"node-local-dns/status": "0.1.0 00000000"}) } else { json!({}) };
    api.put(
        &format!("/api/v1/namespaces/{namespace}/pods/{name}"),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations,
                "ownerReferences": owners},
            "spec": spec,
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }),
    );
}

/// The spec of a Pod that was injected when kube-dns had this address.
pub(crate) fn injected(kube_dns: &str) -> Value {
    json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["169.254.20.10", kube_dns], "searches": ["cluster.local"]}})
}

/// Puts a node with these labels and taints.
pub(crate) fn put_node(api: &MockApi, name: &str, labels: Value, spec: Value) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec});
    api.put(&format!("/api/v1/nodes/{name}"), node);
}

/// Puts a webhook configuration as the chart writes it.
pub(crate) fn put_webhook(api: &MockApi, name: &str, ca_bundle: &str) {
    api.put(
        &format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}"),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": name},
            "webhooks": [{
                "name": "inject.node-local-dns", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"caBundle": ca_bundle,
                    "service": {"namespace": "kube-system", "name": "node-local-dns-admission-controller", "path": "/inject"}},
                "namespaceSelector": {"matchLabels": {"node-local-dns-injection": "enabled"}},
            }],
        }),
    );
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
