//! What an operator can choose about injection. Everything the decision needs that is the same for every Pod, checked once at
//! start; no clock, no cluster.

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;

use crate::names;
use crate::validate;

/// Bounds of `ndots`: the resolver cuts larger values to 15 (resolv.conf(5)).
pub const NDOTS_MAX: u32 = 15;

/// Bounds of `attempts`: the resolver cuts larger values to 5 (resolv.conf(5)); 0 would mean never to ask.
pub const ATTEMPTS: (u32, u32) = (1, 5);

/// Bounds of `timeout` in seconds: the resolver cuts larger values to 30 (resolv.conf(5)).
pub const TIMEOUT_S: (u32, u32) = (1, 30);

/// What happens to a Pod that brings a `dnsConfig` of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MergeMode {
    /// It is kept and ours added, as the kubelet merges: its options win, its nameservers and searches follow ours.
    #[default]
    Merge,
    /// The Pod is left alone.
    Skip,
    /// It is replaced, as the original server does.
    Overwrite,
}

/// What happens to a Pod that may, but need not, land on a virtual node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoftPlacement {
    /// It is left alone: on a virtual node it could not reach the node-local address.
    #[default]
    Skip,
    /// It is injected like any other.
    Inject,
}

/// Which of two address families' entries take the three places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DualStack {
    /// The first node-local address, then kube-dns in both families: the backup in both.
    #[default]
    BothBackups,
    /// The node-local address of both families, then kube-dns once.
    BothLocals,
}

/// What tells an injected Pod from one with a hand-written `dnsConfig`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Marker {
    /// Nothing: the Pod gets the two DNS fields and no more.
    None,
    /// The annotation [`names::STATUS_ANNOTATION`].
    #[default]
    Annotation,
    /// The annotation, and the label `node-local-dns-injection=injected` where the Pod has no such label.
    AnnotationAndLabel,
}

/// Everything an operator can choose about injection.
///
/// [`Default`] is what the ack-node-local-dns chart configures. Call [`checked`](Self::checked) after changing anything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InjectionSettings {
    /// Where the node-local DNS listens: one address, or one per family with the primary first.
    pub node_local: Vec<IpAddr>,
    /// Put kube-dns behind the node-local address, and inject nobody while its address is unknown.
    pub include_kube_dns: bool,
    /// The cluster's domain; made lower-case and freed of its trailing dot by [`checked`](Self::checked).
    pub cluster_domain: String,
    /// `options ndots`.
    pub ndots: u32,
    /// `options attempts`.
    pub attempts: u32,
    /// `options timeout`, in seconds.
    pub timeout_s: u32,
    /// Search domains behind the cluster's. With `dnsPolicy: None` the node's own are gone; they can be named here.
    pub extra_searches: Vec<String>,
    /// What happens to a Pod's own `dnsConfig`.
    pub merge: MergeMode,
    /// Namespaces exempt besides [`names::ALWAYS_EXEMPT`]: the release's own, and the operator's choice.
    pub exempt_namespaces: Vec<String>,
    /// Further label keys, besides [`names::POD_VIRTUAL_NODE_KEYS`] and [`names::NAMESPACE_VIRTUAL_NODE_KEYS`], that mean virtual
    /// nodes.
    pub virtual_node_keys: Vec<String>,
    /// What happens to a Pod that may land on a virtual node.
    pub soft_placement: SoftPlacement,
    /// Inject `ClusterFirstWithHostNet` without host network too: the kubelet treats it as cluster DNS.
    pub host_net_policy_without_host_network: bool,
    /// Two families' shares of the three places.
    pub dual_stack: DualStack,
    /// How injected Pods are marked.
    pub marker: Marker,
    /// A namespace without the label counts as enabled; `disabled` on it still declines.
    pub default_enabled: bool,
    /// A Pod labelled `enabled` is injected in any namespace that is not exempt.
    pub pod_opt_in: bool,
    /// Decide, count and annotate the audit log, but change no Pod.
    pub report_only: bool,
    /// The share of owners whose Pods are injected, 0 to 100.
    pub rollout_percent: u8,
}

impl Default for InjectionSettings {
    fn default() -> Self {
        Self {
            node_local: vec![names::NODE_LOCAL_ADDRESS],
            include_kube_dns: true,
            cluster_domain: "cluster.local".into(),
            ndots: 3,
            attempts: 2,
            timeout_s: 1,
            extra_searches: Vec::new(),
            merge: MergeMode::default(),
            exempt_namespaces: Vec::new(),
            virtual_node_keys: Vec::new(),
            soft_placement: SoftPlacement::default(),
            host_net_policy_without_host_network: false,
            dual_stack: DualStack::default(),
            marker: Marker::default(),
            default_enabled: false,
            pod_opt_in: false,
            report_only: false,
            rollout_percent: 100,
        }
    }
}

/// Settings that cannot be used: which one, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The setting, in words that fit behind "the".
    pub setting: &'static str,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} cannot be used: {}", self.setting, self.problem)
    }
}

impl std::error::Error for SettingsError {}

impl InjectionSettings {
    /// The same, with names in their canonical form, or what is wrong with them.
    pub fn checked(mut self) -> Result<Self, SettingsError> {
        let refuse = |setting, problem: String| Err(SettingsError { setting, problem });
        let mut families = self.node_local.iter().map(IpAddr::is_ipv4);
        match (families.next(), families.next(), families.next()) {
            (Some(_), None, _) => {}
            (Some(first), Some(second), None) if first != second => {}
            _ => return refuse("node-local address", "give one, or one per address family".into()),
        }
        for address in &self.node_local {
            if address.is_unspecified() || address.is_multicast() {
                return refuse(
                    "node-local address",
                    format!("{address} is no address that a server can have"),
                );
            }
            if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
                return refuse(
                    "node-local address",
                    format!(
                        "{address} is link-local and would need a zone, which a Pod cannot name; use one from fd00::/8"
                    ),
                );
            }
        }
        self.cluster_domain = self.cluster_domain.trim_end_matches('.').to_ascii_lowercase();
        if !validate::is_dns1123_subdomain(&self.cluster_domain) {
            return refuse(
                "cluster domain",
                format!("{:?} is no DNS name like cluster.local", self.cluster_domain),
            );
        }
        if self.ndots > NDOTS_MAX {
            return refuse(
                "ndots",
                format!("{} is above {NDOTS_MAX}, the most that a resolver heeds", self.ndots),
            );
        }
        let (attempts, timeout) = (self.attempts, self.timeout_s);
        if attempts < ATTEMPTS.0 || attempts > ATTEMPTS.1 {
            return refuse("attempts", format!("{attempts} is not from {} to {}", ATTEMPTS.0, ATTEMPTS.1));
        }
        if timeout < TIMEOUT_S.0 || timeout > TIMEOUT_S.1 {
            return refuse(
                "timeout",
                format!("{timeout} s is not from {} to {} s", TIMEOUT_S.0, TIMEOUT_S.1),
            );
        }
        for search in &mut self.extra_searches {
            *search = search.trim_end_matches('.').to_ascii_lowercase();
            if !validate::is_dns1123_subdomain(search) {
                return refuse("extra search domain", format!("{search:?} is no DNS name like example.com"));
            }
        }
        for key in &self.virtual_node_keys {
            if key.is_empty() {
                return refuse("virtual node label key", "it is empty".into());
            }
        }
        if self.rollout_percent > 100 {
            return refuse("rollout percentage", format!("{} is above 100", self.rollout_percent));
        }
        Ok(self)
    }

    /// Whether nobody in this namespace is ever injected.
    pub fn is_exempt(&self, namespace: &str) -> bool {
        names::ALWAYS_EXEMPT.contains(&namespace)
            || self.exempt_namespaces.iter().any(|exempt| exempt == namespace)
    }

    /// Whether a Pod's label with this key means virtual nodes.
    pub fn is_pod_virtual_node_key(&self, key: &str) -> bool {
        names::POD_VIRTUAL_NODE_KEYS.contains(&key) || self.virtual_node_keys.iter().any(|extra| extra == key)
    }

    /// Whether a namespace's label with this key means virtual nodes.
    pub fn is_namespace_virtual_node_key(&self, key: &str) -> bool {
        names::NAMESPACE_VIRTUAL_NODE_KEYS.contains(&key)
            || self.virtual_node_keys.iter().any(|extra| extra == key)
    }
}
