//! Where the Pods are in a document: a Pod itself, the template of whatever makes Pods, and both within a List.

use serde_json::{Value, json};

use super::Node;

/// A document that makes Pods.
#[derive(Clone, Debug)]
pub struct Workload<'a> {
    /// As `kubectl` takes it: `pod`, `deployment`.
    pub kind: String,
    /// Its name, or the beginning of a generated one.
    pub name: String,
    /// The namespace that the document names.
    pub namespace: Option<String>,
    /// The Pod or the template: the node that has `metadata` and `spec`.
    pub pod: &'a Node,
    /// Where the Pod is within its object, as a JSON pointer: nothing, or `/spec/template`.
    pub pod_path: String,
    /// Where the object is within the document: nothing, or its place in a List.
    pub object_path: String,
}

impl Workload<'_> {
    /// The Pod that it makes, as the API server would send it.
    pub fn pod_json(&self) -> Value {
        let mut pod = self.pod.to_json();
        // A template may leave out its metadata; a Pod has some.
        if pod.get("metadata").is_none_or(Value::is_null) {
            pod["metadata"] = json!({});
        }
        pod
    }
}

/// All of them in a document.
pub fn workloads(document: &Node) -> Vec<Workload<'_>> {
    let mut found = Vec::new();
    collect(document, String::new(), &mut found);
    found
}

fn collect<'a>(object: &'a Node, object_path: String, found: &mut Vec<Workload<'a>>) {
    let text = |path: &[&str]| object.at(path).and_then(Node::text).map(str::to_owned);
    let kind = text(&["kind"]).unwrap_or_default();
    if kind == "List" || kind.ends_with("List") {
        if let Some(super::Content::Sequence(items)) = object.get("items").map(|items| &items.content) {
            for (place, item) in items.iter().enumerate() {
                collect(item, format!("{object_path}/items/{place}"), found);
            }
        }
        return;
    }
    let path: &[&str] = match kind.as_str() {
        "Pod" => &[],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        "PodTemplate" => &["template"],
        // Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, and what others have made in their likeness.
        _ => &["spec", "template"],
    };
    let Some(pod) = object.at(path) else { return };
    // Other kinds have templates too: it is one of Pods if it has containers.
    if pod.at(&["spec", "containers"]).is_none() && kind != "Pod" {
        return;
    }
    found.push(Workload {
        kind: kind.to_ascii_lowercase(),
        name: text(&["metadata", "name"]).or_else(|| text(&["metadata", "generateName"])).unwrap_or_default(),
        namespace: text(&["metadata", "namespace"]),
        pod,
        pod_path: path.iter().map(|key| format!("/{key}")).collect(),
        object_path,
    });
}
