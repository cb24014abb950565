//! What was known at one moment: the settings, kube-dns' addresses, the namespaces. Immutable; whoever learns something new
//! builds another and swaps it in, and a request sees one from its beginning to its end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::names;
use crate::settings::InjectionSettings;

/// What the decision takes besides the Pod and its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    settings: Arc<InjectionSettings>,
    kube_dns: Vec<IpAddr>,
    fingerprint: String,
}

impl Config {
    /// Settings that were [checked](InjectionSettings::checked), and kube-dns' ClusterIPs, primary family first. None means
    /// that they are not known (yet).
    pub fn new(settings: Arc<InjectionSettings>, kube_dns: Vec<IpAddr>) -> Self {
        let fingerprint = fingerprint(&settings, &kube_dns);
        Self { settings, kube_dns, fingerprint }
    }

    /// What the operator chose.
    pub fn settings(&self) -> &Arc<InjectionSettings> {
        &self.settings
    }

    /// kube-dns' ClusterIPs, primary family first.
    pub fn kube_dns(&self) -> &[IpAddr] {
        &self.kube_dns
    }

    /// Eight hexadecimal digits that are the same for what injects the same: in Pods' annotations, the audit log, a metric.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Over what ends up in Pods: a Pod with another fingerprint than the server's was injected under another configuration.
fn fingerprint(settings: &InjectionSettings, kube_dns: &[IpAddr]) -> String {
    let text = format!(
        "{:?} {:?} {} {:?} {} {} {} {:?}",
        settings.node_local,
        if settings.include_kube_dns { kube_dns } else { &[] },
        settings.cluster_domain,
        settings.dual_stack,
        settings.ndots,
        settings.attempts,
        settings.timeout_s,
        settings.extra_searches,
    );
    format!("{:08x}", crate::rollout::mix(text.bytes()) >> 32)
}

/// What the decision needs of a namespace: the labels and annotations that can matter, and no others, since a cluster has
/// thousands of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    labels: Vec<(Box<str>, Box<str>)>,
    annotations: Vec<(Box<str>, Box<str>)>,
}

impl NamespaceFacts {
    /// Keeps what matters of a namespace's metadata.
    pub fn new<'a>(
        settings: &InjectionSettings,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let own = |(key, value): (&str, &str)| (Box::from(key), Box::from(value));
        let steers = |key: &str| key == names::INJECTION_LABEL || settings.is_namespace_virtual_node_key(key);
        Self {
            labels: labels.into_iter().filter(|(key, _)| steers(key)).map(own).collect(),
            annotations: annotations
                .into_iter()
                .filter(|(key, _)| key.starts_with(names::ANNOTATION_PREFIX))
                .map(own)
                .collect(),
        }
    }

    /// The labels that can matter.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The annotations that can matter: those under [`names::ANNOTATION_PREFIX`].
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        self.annotations.iter().map(|(key, value)| (&**key, &**value))
    }

    /// One label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// One annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations().find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

/// The namespaces as far as they are known.
#[derive(Clone, Debug)]
pub enum Namespaces {
    /// Nobody watches them (`--no-kube`, or the first list is not in yet): that a request came at all means that the API server's
    /// selector let it through.
    Selected,
    /// Watched. One that is not in here is new, or the watch lags.
    Watched(HashMap<String, Arc<NamespaceFacts>>),
}

/// One namespace, as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub enum NamespaceView<'a> {
    /// Its labels are not known; the API server's selector found them good.
    Selected,
    /// Its labels are known.
    Known(&'a NamespaceFacts),
}

/// Everything that answering a review needs, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// For the decision.
    pub config: Arc<Config>,
    /// The namespaces.
    pub namespaces: Arc<Namespaces>,
}

impl Snapshot {
    /// Without a cluster: fixed addresses of kube-dns, namespaces as the API server selected them.
    pub fn alone(settings: InjectionSettings, kube_dns: Vec<IpAddr>) -> Self {
        Self {
            config: Arc::new(Config::new(Arc::new(settings), kube_dns)),
            namespaces: Arc::new(Namespaces::Selected),
        }
    }
}
