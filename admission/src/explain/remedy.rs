//! What to type so that the outcome is another: the table's general remedy, made particular where the names are known.

use crate::decide::Input;
use crate::names::{INJECTION_LABEL, ROLLOUT_ANNOTATION};
use crate::pod::Pairs;
use crate::reason::Reason;
use crate::snapshot::NamespaceView;

/// What is being explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// As `kubectl` takes it: `pod`, `deployment`, `cronjob`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name; empty for a Pod in general.
    pub name: String,
    /// Where its Pod is within it, as a JSON pointer: nothing, or `/spec/template`.
    pub pod_path: String,
}

impl Subject {
    /// A workload or Pod.
    pub fn new(kind: &str, namespace: &str, name: &str, pod_path: &str) -> Self {
        let own = str::to_owned;
        Self { kind: own(kind), namespace: own(namespace), name: own(name), pod_path: own(pod_path) }
    }

    /// What to do if this reason should not be the outcome.
    pub(super) fn remedy(&self, reason: Reason, input: &Input<'_>) -> String {
        let namespace = &self.namespace;
        match reason {
            Reason::NamespaceNotEnabled => {
                format!("kubectl label namespace {namespace} {INJECTION_LABEL}=enabled --overwrite")
            }
            Reason::NamespaceVirtualNode => {
                let NamespaceView::Known(facts) = input.namespace else {
                    return reason.remedy().replace("NAMESPACE", namespace);
                };
                let settings = input.config.settings();
                let keys = facts.labels().filter(|(key, _)| settings.is_namespace_virtual_node_key(key));
                let keys: Vec<String> = keys.map(|(key, _)| format!("{key}-")).collect();
                format!("kubectl label namespace {namespace} {}", keys.join(" "))
            }
            Reason::PodOptOut => self.without_labels(&[INJECTION_LABEL]),
            Reason::PodVirtualNode => {
                let settings = input.config.settings();
                let labels = input.pod.metadata.labels.iter().flat_map(Pairs::iter);
                let keys: Vec<&str> =
                    labels.map(|(key, _)| key).filter(|key| settings.is_pod_virtual_node_key(key)).collect();
                self.without_labels(&keys)
            }
            Reason::Rollout => {
                format!("kubectl annotate namespace {namespace} {ROLLOUT_ANNOTATION}=100 --overwrite")
            }
            _ => reason.remedy().replace("NAMESPACE", namespace),
        }
    }

    /// A Pod's labels count when it is created, so for a Pod there is no command: it has to be made anew.
    fn without_labels(&self, keys: &[&str]) -> String {
        if self.name.is_empty() || self.pod_path.is_empty() {
            return format!("create the Pod without the label {}", keys.join(", "));
        }
        let path = |key: &&str| {
            format!(
                r#"{{"op":"remove","path":"{}/metadata/labels/{}"}}"#,
                self.pod_path,
                key.replace('~', "~0").replace('/', "~1")
            )
        };
        let operations: Vec<String> = keys.iter().map(path).collect();
        format!(
            "kubectl -n {} patch {} {} --type=json -p '[{}]'",
            self.namespace,
            self.kind,
            self.name,
            operations.join(",")
        )
    }
}
