//! Nodes: on which the agent is to run, and on which it does.

use std::collections::{BTreeMap, BTreeSet};

use kube::Client;
use serde::Deserialize;

use super::cidr;
use super::pods::Stored;
use crate::cluster::read::{ReadError, each_raw};
use crate::family::Family;
use crate::names::{OS_LABELS, VIRTUAL_NODE_LABEL, VIRTUAL_NODE_PREFIX};
use crate::pod::{Pairs, Text};

/// The label of the agents' Pods.
pub const AGENT_LABEL: (&str, &str) = ("k8s-app", "node-local-dns");

/// The taint that the agent has always tolerated.
const TOLERATED_TAINT: &str = "CriticalAddonsOnly";

/// The nodes of a cluster, by what the agent can do there.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// Where the agent belongs: taints that keep Pods off (`key=value:effect`), by name.
    pub eligible: BTreeMap<String, Vec<String>>,
    /// Virtual nodes, which run no DaemonSets.
    pub virtual_nodes: usize,
    /// Windows nodes.
    pub windows: usize,
    /// Whether this is an Alibaba Cloud cluster, whose own services have limits.
    pub is_alibaba_cloud: bool,
    /// Of the addresses that Pods on them get, as far as nodes tell.
    pub pod_families: BTreeSet<Family>,
}

#[derive(Deserialize)]
struct Node<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Option<Spec<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, default)]
    labels: Option<Pairs<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default)]
    taints: Option<Vec<Taint<'a>>>,
    #[serde(borrow, default, rename = "providerID")]
    provider_id: Option<Text<'a>>,
    #[serde(borrow, default, rename = "podCIDRs")]
    pod_cidrs: Option<Vec<Text<'a>>>,
}

#[derive(Deserialize)]
struct Taint<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow, default)]
    value: Option<Text<'a>>,
    #[serde(borrow)]
    effect: Text<'a>,
}

impl Nodes {
    /// Reads them all.
    pub async fn read(client: &Client) -> Result<Nodes, ReadError> {
        let mut nodes = Nodes::default();
        each_raw(client, "Nodes", "/api/v1/nodes", |text| {
            if let Ok(node) = serde_json::from_str(text) {
                nodes.add(&node);
            }
        })
        .await?;
        Ok(nodes)
    }

    fn add(&mut self, node: &Node<'_>) {
        let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let (virtual_key, virtual_value) = VIRTUAL_NODE_LABEL;
        if label(virtual_key) == Some(virtual_value) || node.metadata.name.starts_with(VIRTUAL_NODE_PREFIX) {
            self.virtual_nodes += 1;
            return;
        }
        if OS_LABELS.iter().any(|key| label(key) == Some("windows")) {
            self.windows += 1;
            return;
        }
        let spec = node.spec.as_ref();
        // `cn-hangzhou.i-bp1…`: a region and an ECS instance.
        let provider = spec.and_then(|spec| spec.provider_id.as_deref()).unwrap_or_default();
        self.is_alibaba_cloud |= provider.split_once(".i-").is_some_and(|(region, _)| region.contains('-'));
        let ranges = spec.and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
        self.pod_families.extend(ranges.iter().filter_map(|range| cidr::family(range)));
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        // DaemonSets' Pods tolerate what the node life-cycle puts on nodes.
        let keeps_off = |taint: &&Taint<'_>| {
            &*taint.effect != "PreferNoSchedule"
                && &*taint.key != TOLERATED_TAINT
                && !taint.key.starts_with("node.kubernetes.io/")
        };
        let text = |taint: &Taint<'_>| {
            let value = taint.value.as_deref().map_or(String::new(), |value| format!("={value}"));
            format!("{}{value}:{}", &*taint.key, &*taint.effect)
        };
        let taints = taints.iter().filter(keeps_off).map(text).collect();
        self.eligible.insert(node.metadata.name.to_string(), taints);
    }
}

/// Where agents are ready.
#[derive(Clone, Debug, Default)]
pub struct Agents {
    ready: BTreeSet<String>,
    not_ready: BTreeSet<String>,
}

impl Agents {
    /// Takes note of a Pod, if it is an agent.
    pub fn note(&mut self, pod: &Stored<'_>) {
        let (key, value) = AGENT_LABEL;
        let metadata = &pod.pod.metadata;
        let is_agent = metadata.label(key) == Some(value)
            && metadata.owner().is_some_and(|owner| owner.kind.as_deref() == Some("DaemonSet"));
        if let Some(node) = pod.pod.spec.node_name.as_deref().filter(|_| is_agent) {
            let place = if pod.is_ready { &mut self.ready } else { &mut self.not_ready };
            place.insert(node.to_owned());
        }
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.not_ready.is_empty()
    }

    /// How many eligible nodes have one that is ready.
    pub fn ready(&self, nodes: &Nodes) -> usize {
        nodes.eligible.keys().filter(|name| self.ready.contains(*name)).count()
    }

    /// Eligible nodes without one that is ready, each with the likely cause.
    pub fn missing(&self, nodes: &Nodes) -> Vec<String> {
        let missing = nodes.eligible.iter().filter(|(name, _)| !self.ready.contains(*name));
        let why = |(name, taints): (&String, &Vec<String>)| {
            if self.not_ready.contains(name) {
                format!("{name} (its agent is not ready)")
            } else if taints.is_empty() {
                format!("{name} (no agent)")
            } else {
                format!("{name} (no agent; taints {})", taints.join(", "))
            }
        };
        missing.map(why).collect()
    }
}
