//! Pods, as users and controllers create them.

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

/// A Pod with one container; `spec` is added to it.
pub(crate) fn pod(metadata: Value, spec: Value) -> Value {
    let mut all = json!({"containers": [{"name": "main", "image": "alpine"}]});
    for (key, value) in spec.as_object().expect("an object") {
        all[key] = value.clone();
    }
    json!({"metadata": metadata, "spec": all})
}

/// The plainest one.
pub(crate) fn plain(name: &str) -> Value {
    pod(json!({"name": name}), json!({}))
}

/// Creates one; what the API server stored, or what it said.
pub(crate) async fn try_create(
    client: &Client,
    namespace: &str,
    pod: Value,
    dry_run: bool,
) -> kube::Result<Value> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod: Pod = serde_json::from_value(pod).expect("a Pod");
    let created = pods.create(&PostParams { dry_run, ..Default::default() }, &pod).await?;
    Ok(serde_json::to_value(created).expect("JSON"))
}

/// Creates one that must be accepted.
pub(crate) async fn create(client: &Client, namespace: &str, pod: Value) -> Value {
    try_create(client, namespace, pod, false).await.expect("the API server takes it")
}

/// The nameservers that a stored Pod has of its own.
pub(crate) fn nameservers(pod: &Value) -> Vec<&str> {
    let list = pod["spec"]["dnsConfig"]["nameservers"].as_array();
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether it asks the node-local address.
pub(crate) fn is_injected(pod: &Value) -> bool {
    nameservers(pod).contains(&"169.254.20.10")
}
