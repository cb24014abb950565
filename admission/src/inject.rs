//! Injection without a cluster: manifests in, the same manifests out with the DNS fields in every Pod template that would be injected.
//! For static Pods, for clusters without webhooks, for CI.
//!
//! Only the two fields' lines change; comments, order and quoting of all others stay as they are. An edit is checked before it is
//! believed: the new text is read again and has to mean exactly what was intended. There is no mark: what stands in a manifest is the
//! author's own.

mod edit;
mod yaml;

use serde_json::{Value, json};

use crate::decide::{self, Decision, Input, Request};
use crate::manifest::{self, ManifestError, Node, Workload};
use crate::pod::Pod;
use crate::reason::Reason;
use crate::settings::InjectionSettings;
use crate::snapshot::{Config, NamespaceFacts, NamespaceView};

pub use yaml::dns_config_lines;

/// What became of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// As in `deployment`.
    pub kind: String,
    /// Where it will live.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: Reason,
}

/// A namespace without a name of its own gets this, as in `kubectl`.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Injects into all documents of a text. The new text, and what became of each workload.
pub fn inject(text: &str, config: &Config, namespace: &str) -> Result<(String, Vec<Report>), ManifestError> {
    let documents = manifest::read(text)?;
    let namespaces = Namespaces::of(&documents, config.settings());
    let mut expected: Vec<Value> = documents.iter().map(Node::to_json).collect();
    let mut edits = Vec::new();
    let mut reports = Vec::new();
    for (document, expected) in documents.iter().zip(&mut expected) {
        for workload in manifest::workloads(document) {
            let namespace = workload.namespace.clone().unwrap_or_else(|| namespace.to_owned());
            let reason = with_input(&workload, &namespace, &namespaces, config, |input| {
                let dns = match decide::decide(input) {
                    Decision::Inject(dns) => dns,
                    Decision::Skip(reason) => return Ok(reason),
                };
                let Some(spec) = workload.pod.get("spec") else { return Ok(Reason::Undecodable) };
                edits.extend(edit::edits(text, spec, &dns)?);
                let pointer = format!("{}{}/spec", workload.object_path, workload.pod_path);
                if let Some(spec) = expected.pointer_mut(&pointer) {
                    spec["dnsPolicy"] = json!("None");
                    spec["dnsConfig"] = json!(dns);
                }
                Ok(Reason::Injected)
            })?;
            reports.push(Report { kind: workload.kind, namespace, name: workload.name, reason });
        }
    }
    let edited = edit::apply(text, edits);
    let lines: Vec<usize> = documents.iter().map(|document| document.line).collect();
    prove(expected, &lines, &edited).map(|()| (edited, reports))
}

/// Decides about a workload of a manifest as the webhook would about its Pod, and hands the input on.
pub fn with_input<T>(
    workload: &Workload<'_>,
    namespace: &str,
    namespaces: &Namespaces,
    config: &Config,
    then: impl FnOnce(&Input<'_>) -> Result<T, ManifestError>,
) -> Result<T, ManifestError> {
    let json = workload.pod_json().to_string();
    let pod = Pod::read(&json).map_err(|error| ManifestError {
        line: workload.pod.line,
        problem: format!("{} {} is no Pod: {error}", workload.kind, workload.name),
    })?;
    let request = Request::pod_create(namespace);
    then(&Input::new(&request, &pod, namespaces.view(namespace), config))
}

/// The namespaces that stand in the manifest itself; others count as selected, since nobody is there to ask.
#[derive(Debug, Default)]
pub struct Namespaces(Vec<(String, NamespaceFacts)>);

impl Namespaces {
    /// Those among these documents.
    pub fn of(documents: &[Node], settings: &InjectionSettings) -> Self {
        let is_namespace = |document: &&Node| document.get("kind").and_then(Node::text) == Some("Namespace");
        let read = |document: &Node| {
            let name = document.at(&["metadata", "name"])?.text()?.to_owned();
            let pairs =
                |field: &str| document.at(&["metadata", field]).map(Node::entries).unwrap_or_default();
            let texts =
                |field: &'static str| pairs(field).iter().filter_map(|(k, v)| Some((k.text()?, v.text()?)));
            Some((name, NamespaceFacts::new(settings, texts("labels"), texts("annotations"))))
        };
        Self(documents.iter().filter(is_namespace).filter_map(read).collect())
    }

    /// One of them.
    pub fn view(&self, name: &str) -> NamespaceView<'_> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, facts)) => NamespaceView::Known(facts),
            None => NamespaceView::Selected,
        }
    }
}

/// Reads the new text: it has to mean what the old one did, but for the specs that were to change.
fn prove(mut expected: Vec<Value>, lines: &[usize], edited: &str) -> Result<(), ManifestError> {
    let unsafe_edit = |line: usize| ManifestError {
        line,
        problem: "this layout cannot be edited safely; write the Pod's spec in plain block style".into(),
    };
    let after = manifest::read(edited).map_err(|error| unsafe_edit(error.line))?;
    expected.resize(after.len().max(expected.len()), Value::Null);
    for (index, expected) in expected.iter().enumerate() {
        if after.get(index).map(Node::to_json).as_ref() != Some(expected) {
            return Err(unsafe_edit(lines.get(index).copied().unwrap_or(1)));
        }
    }
    Ok(())
}
