//! Which Service is the cluster's DNS, and at which addresses.
//!
//! By name first (`kube-system/kube-dns`). Where that has no address of its own (absent, headless, ExternalName), a Service
//! labelled `k8s-app=kube-dns` that offers port 53. The chart's own `node-local-upstream` carries that label too and must never be
//! taken: it leads to the same Pods, but it goes away with the chart, and Pods would keep its address as their backup.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::follow::Keeper;
use super::notice::{Notice, Notify};
use super::progress::Progress;
use crate::snapshot::{Config, Snapshot};

/// The port of DNS (RFC 1035 §4.2).
const DNS_PORT: i32 = 53;

/// Where to look for the cluster's DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeDnsSource {
    /// The namespace that is watched.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// The label, key and value, that it carries under another name.
    pub label: (String, String),
    /// The Service through which the agents reach the cluster's DNS; never a candidate.
    pub upstream_service: String,
}

impl Default for KubeDnsSource {
    fn default() -> Self {
        Self {
            namespace: "kube-system".into(),
            name: "kube-dns".into(),
            label: ("k8s-app".into(), "kube-dns".into()),
            upstream_service: "node-local-upstream".into(),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// `namespace/name`; None: nothing with an address.
    pub service: Option<String>,
    /// Its ClusterIPs, primary family first.
    pub addresses: Vec<IpAddr>,
}

impl KubeDnsSource {
    /// Picks among the Services of the namespace. Deterministic: of several labelled ones the oldest, then the first by name.
    pub fn choose<'a>(&self, services: impl IntoIterator<Item = &'a Service>) -> Discovered {
        let mut best: Option<(Rank, Discovered)> = None;
        for service in services {
            let Some(rank) = self.rank(service) else { continue };
            let addresses = cluster_ips(service);
            if addresses.is_empty() || best.as_ref().is_some_and(|(chosen, _)| *chosen <= rank) {
                continue;
            }
            let name = format!("{}/{}", self.namespace, service.name_any());
            best = Some((rank, Discovered { service: Some(name), addresses }));
        }
        best.map(|(_, found)| found).unwrap_or_default()
    }

    /// None: no candidate. The smallest is the best.
    fn rank(&self, service: &Service) -> Option<Rank> {
        let name = service.name_any();
        if name == self.upstream_service {
            return None;
        }
        let is_named = name == self.name;
        let (key, value) = &self.label;
        let is_labelled = service.labels().get(key).is_some_and(|v| v == value);
        let is_candidate = is_named || (is_labelled && offers_dns(service));
        if !is_candidate {
            return None;
        }
        let created = service.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second());
        Some((!is_named, created, name))
    }
}

/// Not the wanted name, age, name.
type Rank = (bool, i64, String);

fn offers_dns(service: &Service) -> bool {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    ports.iter().any(|port| port.port == DNS_PORT)
}

/// The ClusterIPs of a Service: none for a headless one (`None`), and none for an ExternalName, which is a CNAME and has no
/// address to put into a Pod.
pub fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in all.filter_map(|text| text.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Keeps the snapshot's addresses in step with the Services of one namespace.
pub(super) struct KubeDnsKeeper {
    source: KubeDnsSource,
    services: BTreeMap<String, Service>,
    known: Option<Discovered>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    progress: Arc<Progress>,
    notify: Notify,
}

impl KubeDnsKeeper {
    pub(super) fn new(
        source: KubeDnsSource,
        snapshot: Arc<ArcSwap<Snapshot>>,
        progress: Arc<Progress>,
        notify: Notify,
    ) -> Self {
        Self { source, services: BTreeMap::new(), known: None, snapshot, progress, notify }
    }
}

impl Keeper<Service> for KubeDnsKeeper {
    fn replace(&mut self, objects: Vec<Service>) {
        self.services = objects.into_iter().map(|service| (service.name_any(), service)).collect();
    }

    fn put(&mut self, service: Service) {
        self.services.insert(service.name_any(), service);
    }

    fn remove(&mut self, service: Service) {
        self.services.remove(&service.name_any());
    }

    fn publish(&mut self) {
        let found = self.source.choose(self.services.values());
        if self.known.as_ref() == Some(&found) {
            return;
        }
        let old = self.snapshot.load().config.kube_dns().to_vec();
        self.snapshot.rcu(|snapshot| Snapshot {
            config: Arc::new(Config::new(Arc::clone(snapshot.config.settings()), found.addresses.clone())),
            namespaces: Arc::clone(&snapshot.namespaces),
        });
        self.progress.set_kube_dns(!found.addresses.is_empty());
        if old != found.addresses || self.known.is_none() {
            let (service, new) = (found.service.clone(), found.addresses.clone());
            (self.notify)(Notice::KubeDnsChanged { service, old, new });
        }
        self.known = Some(found);
    }
}
