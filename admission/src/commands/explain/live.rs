//! `explain` for what is in a cluster: the object and its namespace are fetched as the API server has them and walked like a manifest, with
//! the settings of the server that runs there. Behind the walk, what only a cluster can tell: whether anything injects at all, and
//! whether the Pod has what it asks for already.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::super::access::AccessOptions;
use super::super::operator::judged_with;
use super::super::pods::Stored;
use super::super::{injectors, serve::InjectionOptions};
use crate::cluster::read::{ReadError, ask, list};
use crate::flags::UsageError;
use crate::names::INJECTION_LABEL;

/// What can be asked about.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Resource {
    /// Every way in which `kubectl` takes it; the first is shown.
    words: &'static [&'static str],
    /// Up to the namespace.
    prefix: &'static str,
    /// The plural.
    plural: &'static str,
}

const RESOURCES: [Resource; 8] = [
    Resource { words: &["pod", "pods", "po"], prefix: "/api/v1", plural: "pods" },
    Resource {
        words: &["deployment", "deployments", "deploy"],
        prefix: "/apis/apps/v1",
        plural: "deployments",
    },
    Resource { words: &["replicaset", "replicasets", "rs"], prefix: "/apis/apps/v1", plural: "replicasets" },
    Resource {
        words: &["statefulset", "statefulsets", "sts"],
        prefix: "/apis/apps/v1",
        plural: "statefulsets",
    },
    Resource { words: &["daemonset", "daemonsets", "ds"], prefix: "/apis/apps/v1", plural: "daemonsets" },
    Resource { words: &["job", "jobs"], prefix: "/apis/batch/v1", plural: "jobs" },
    Resource { words: &["cronjob", "cronjobs", "cj"], prefix: "/apis/batch/v1", plural: "cronjobs" },
    Resource { words: &["namespace", "namespaces", "ns"], prefix: "/api/v1", plural: "namespaces" },
];

/// One object of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    resource: Resource,
    namespace: String,
    name: String,
}

impl Target {
    /// From `pod NAME`, `pod/NAME`, `ns NAME` and so on.
    pub(super) fn parse(words: &[String], namespace: &str) -> Result<Self, UsageError> {
        let usage = |message: String| {
            let shown = RESOURCES.map(|resource| resource.words[0]).join(", ");
            UsageError::new(
                message,
                format!("write a kind and a name, as in `explain deployment web -n shop`; kinds: {shown}"),
            )
        };
        let (kind, name) = match words {
            [one] => one.split_once('/').ok_or_else(|| usage(format!("`{one}` is no kind with a name")))?,
            [kind, name] => (kind.as_str(), name.as_str()),
            _ => return Err(usage("too many names; one can be explained at a time".into())),
        };
        let found = RESOURCES.into_iter().find(|resource| resource.words.contains(&kind));
        let resource = found.ok_or_else(|| usage(format!("`{kind}` is no kind that makes Pods")))?;
        // They become parts of a path.
        let is_name = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        };
        let namespace = if resource.plural == "namespaces" { name } else { namespace };
        for text in [name, namespace] {
            if !is_name(text) {
                return Err(usage(format!("`{text}` is no name of an object")));
            }
        }
        Ok(Self { resource, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    fn path(&self) -> String {
        let Self { resource: Resource { prefix, plural, .. }, namespace, name } = self;
        format!("{prefix}/namespaces/{namespace}/{plural}/{name}")
    }

    fn describe(&self) -> String {
        format!("{} {}/{}", self.resource.words[0], self.namespace, self.name)
    }
}

/// What was fetched, to be walked.
pub(super) struct Live {
    /// The namespace and the object, as documents.
    pub(super) documents: String,
    /// Settings and addresses as the server has them.
    pub(super) injection: InjectionOptions,
    /// What only the cluster can tell.
    pub(super) notes: Vec<String>,
}

/// Fetches it.
pub(super) async fn fetch(
    client: &Client,
    target: &Target,
    typed: InjectionOptions,
    access: &AccessOptions,
) -> Result<Live, ReadError> {
    let mut injection = judged_with(client, typed, &access.namespace).await;
    if injection.settings.include_kube_dns && injection.kube_dns.is_empty() {
        let services: Api<Service> = Api::namespaced(client.clone(), &access.source.namespace);
        let services = list(&services, "Services", &ListParams::default()).await?;
        injection.kube_dns = access.source.choose(&services).addresses;
    }
    let namespace = get(
        client,
        &format!("namespace {}", target.namespace),
        &format!("/api/v1/namespaces/{}", target.namespace),
    )
    .await?;
    let object = if target.resource.plural == "namespaces" {
        plain_pod(&target.namespace).to_string()
    } else {
        get(client, &target.describe(), &target.path()).await?
    };
    let mut notes = Vec::new();
    if target.resource.plural == "namespaces" {
        notes.push("this is what happens to a Pod without anything special; workloads can differ".to_owned());
    }
    if target.resource.plural == "pods" {
        notes.extend(already(&object, &injection.settings.node_local));
    }
    if injectors::find(client).await.is_ok_and(|all| all.is_empty()) {
        notes.push(format!(
            "no webhook configuration or policy in this cluster selects by {INJECTION_LABEL}: whatever the walk says, nobody is injected"
        ));
    }
    Ok(Live { documents: format!("{namespace}\n---\n{object}\n"), injection, notes })
}

async fn get(client: &Client, what: &str, path: &str) -> Result<String, ReadError> {
    // Names were checked: this is a good path.
    let request = hyper::Request::get(path).body(Vec::new()).unwrap_or_default();
    ask(what, client.request_text(request)).await
}

/// A Pod that is there cannot be injected any more, only recreated.
fn already(pod: &str, node_local: &[IpAddr]) -> Option<String> {
    let stored = Stored::read(pod)?;
    Some(if stored.asks(node_local) {
        format!(
            "this Pod asks the node-local address already ({}); the walk is that of a copy of it",
            stored.origin().as_str()
        )
    } else {
        "this Pod does not ask the node-local address, and never will: injection happens at creation only; if the walk ends well, recreate it".into()
    })
}

fn plain_pod(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "any", "namespace": namespace},
        "spec": {"dnsPolicy": "ClusterFirst", "containers": [{"name": "any", "image": "any"}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Target, UsageError> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Target::parse(&words, "shop")
    }

    #[test]
    fn kinds_are_taken_as_kubectl_takes_them() {
        for (line, path) in [
            ("pod web-1", "/api/v1/namespaces/shop/pods/web-1"),
            ("deploy/web", "/apis/apps/v1/namespaces/shop/deployments/web"),
            ("sts db", "/apis/apps/v1/namespaces/shop/statefulsets/db"),
            ("cj/night", "/apis/batch/v1/namespaces/shop/cronjobs/night"),
        ] {
            assert_eq!(parse(line).expect(line).path(), path);
        }
        assert_eq!(parse("ns other").expect("good").namespace, "other");
        for line in ["web", "thing web", "pod a b", "pod ../secrets/x", "pod A", "pod/"] {
            assert!(parse(line).is_err_and(|error| error.help.contains("explain deployment web")), "{line}");
        }
    }
}
