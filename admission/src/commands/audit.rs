//! `audit`: what injection does in this cluster now. Agents beside nodes; per namespace who asks for it, who has it, who has not and why, who
//! has an address that is no longer right, and who cannot reach the node-local address because of a NetworkPolicy.
//!
//! Pods are judged with the server's own decision, as if they were created now; so "restart" means that a Pod would be injected but
//! predates the label, and a reason is the one that the server would give.

mod report;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};

pub use report::{NamespaceRow, Report, State};

use super::checks::Check;
use super::network_policies::{Policies, Reach};
use super::nodes::{Agents, Nodes};
use super::pods::{self, Origin, Stored};
use super::{injectors, shorten};
use crate::cluster::kube_dns::{Discovered, KubeDnsSource};
use crate::cluster::namespaces::facts;
use crate::cluster::read::{ReadError, list};
use crate::decide::{Decision, Input, Request, decide};
use crate::names::{ENABLED, INJECTION_LABEL, STATUS_ANNOTATION};
use crate::reason::Reason;
use crate::settings::InjectionSettings;
use crate::snapshot::{Config, NamespaceFacts, NamespaceView};

/// How to judge.
#[derive(Clone, Debug)]
pub struct Options {
    /// As the server has them.
    pub settings: Arc<InjectionSettings>,
    /// Where the cluster's DNS is looked for.
    pub source: KubeDnsSource,
    /// Fixed addresses of the cluster's DNS; empty: look.
    pub kube_dns: Vec<IpAddr>,
}

/// What is kept while the Pods pass by.
struct Audit<'a> {
    config: Config,
    policies: HashMap<String, Policies>,
    namespaces: HashMap<String, Arc<NamespaceFacts>>,
    rows: BTreeMap<String, NamespaceRow>,
    agents: Agents,
    settings: &'a InjectionSettings,
}

/// Looks through the cluster.
pub async fn run(client: &Client, options: &Options) -> Result<Report, ReadError> {
    let found = if options.kube_dns.is_empty() {
        let services: Api<Service> = Api::namespaced(client.clone(), &options.source.namespace);
        let services = list(&services, "Services", &ListParams::default()).await?;
        options.source.choose(&services)
    } else {
        Discovered { service: Some("fixed by flag".into()), addresses: options.kube_dns.clone() }
    };
    let settings = &*options.settings;
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let namespaces = list(&namespaces, "namespaces", &ListParams::default()).await?;
    let mut audit = Audit {
        config: Config::new(Arc::clone(&options.settings), found.addresses.clone()),
        policies: HashMap::new(),
        namespaces: namespaces.iter().map(|n| (n.name_any(), Arc::new(facts(settings, n)))).collect(),
        rows: BTreeMap::new(),
        agents: Agents::default(),
        settings,
    };
    for (name, facts) in &audit.namespaces {
        audit
            .rows
            .insert(name.clone(), NamespaceRow { state: state(settings, name, facts), ..Default::default() });
    }
    let policies: Api<NetworkPolicy> = Api::all(client.clone());
    let policies = list(&policies, "NetworkPolicies", &ListParams::default()).await;
    let policies_unknown = policies.as_ref().err().map(|error| Check::unknown("network policies", error));
    for policy in policies.unwrap_or_default() {
        audit.policies.entry(policy.namespace().unwrap_or_default()).or_default().add(policy);
    }
    let unreadable = pods::each(client, None, |pod| audit.pod(pod)).await?;
    let mut checks = vec![kube_dns_check(&found, &options.source)];
    checks.push(webhook_check(client).await);
    checks.push(match Nodes::read(client).await {
        Ok(nodes) => agents_check(&audit.agents, &nodes),
        Err(error) => Check::unknown("agents", &error),
    });
    checks.extend(policies_unknown);
    let Audit { rows, .. } = audit;
    checks.extend(rows_checks(&rows, &settings.node_local));
    if unreadable > 0 {
        checks.push(Check::warning(
            "Pods",
            format!("{unreadable} Pods could not be read and are not counted"),
            "look at them with `kubectl get pods -A -o json`; report it if they are well-formed",
        ));
    }
    Ok(Report { checks, namespaces: rows })
}

impl Audit<'_> {
    fn pod(&mut self, pod: &Stored<'_>) {
        self.agents.note(pod);
        if !pod.is_live {
            return;
        }
        let name = pod.namespace();
        let asks = pod.asks(&self.settings.node_local);
        let is_marked = pod.pod.metadata.annotation(STATUS_ANNOTATION).is_some();
        let is_stale = self.is_stale(pod, asks, is_marked);
        let row = self.rows.entry(name.to_owned()).or_default();
        row.pods += 1;
        let mut will_ask = asks;
        if asks {
            match pod.origin() {
                Origin::Injected => row.injected += 1,
                Origin::Unmarked => row.unmarked += 1,
            }
        } else if !is_marked {
            let request = Request::pod_create(name);
            let unknown = NamespaceFacts::default();
            let facts = self.namespaces.get(name).map_or(&unknown, |facts| facts);
            let input = Input::new(&request, &pod.pod, NamespaceView::Known(facts), &self.config);
            match decide(&input) {
                Decision::Inject(_) => {
                    row.restart += 1;
                    will_ask = true;
                }
                // What holds for the whole namespace is said once, in its state.
                Decision::Skip(
                    Reason::NamespaceNotEnabled | Reason::NamespaceExempt | Reason::NamespaceVirtualNode,
                ) => {}
                Decision::Skip(reason) => *row.skipped.entry(reason.as_str()).or_default() += 1,
            }
        }
        if is_stale {
            row.stale += 1;
            row.stale_pods.push(pod.name().to_owned());
        }
        // A Pod on the host's network is no Pod to policies.
        if will_ask && pod.pod.spec.host_network != Some(true) {
            self.reach(pod);
        }
    }

    /// Injected with an address that is not right any more: of the node-local DNS, or of the backup.
    fn is_stale(&self, pod: &Stored<'_>, asks: bool, is_marked: bool) -> bool {
        if !asks {
            return is_marked;
        }
        let known = self.config.kube_dns();
        let mut others = pod.nameservers();
        others.retain(|address| !self.settings.node_local.contains(address));
        self.settings.include_kube_dns
            && !known.is_empty()
            && !others.is_empty()
            && !others.iter().any(|address| known.contains(address))
    }

    fn reach(&mut self, pod: &Stored<'_>) {
        let name = pod.namespace();
        let Some(policies) = self.policies.get(name) else { return };
        let labels = pod.pod.metadata.labels.as_ref();
        for address in &self.settings.node_local {
            if let Reach::Blocked { protocols, policies } = policies.reach(labels, *address) {
                let row = self.rows.entry(name.to_owned()).or_default();
                row.blocked += 1;
                for policy in policies {
                    row.blocked_by.insert(policy, protocols);
                }
                return;
            }
        }
    }
}

fn state(settings: &InjectionSettings, name: &str, facts: &NamespaceFacts) -> State {
    let label = facts.label(INJECTION_LABEL);
    if settings.is_exempt(name) {
        return if label == Some(ENABLED) { State::ExemptThoughLabelled } else { State::Exempt };
    }
    if facts.labels().any(|(key, _)| settings.is_namespace_virtual_node_key(key)) {
        return State::VirtualNodes;
    }
    match label {
        Some(ENABLED) => State::Enabled,
        None if settings.default_enabled => State::Enabled,
        _ => State::NotEnabled,
    }
}

pub(super) fn kube_dns_check(found: &Discovered, source: &KubeDnsSource) -> Check {
    let list = |all: &[IpAddr]| all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    match &found.service {
        Some(service) => Check::ok("cluster DNS", format!("{service} at {}", list(&found.addresses))),
        None => Check::problem(
            "cluster DNS",
            format!("no Service {}/{} with a ClusterIP", source.namespace, source.name),
            "give the server its address with --kube-dns-ip; without the backup nameserver nobody is injected",
        ),
    }
}

async fn webhook_check(client: &Client) -> Check {
    const CHECK: &str = "injection";
    let all = match injectors::find(client).await {
        Ok(all) => all,
        Err(error) => return Check::unknown(CHECK, &error),
    };
    if all.is_empty() {
        let seen =
            format!("no webhook configuration or policy selects by {INJECTION_LABEL}: nobody is injected");
        return Check::warning(CHECK, seen, "install the chart, or set controller.enabled=true");
    }
    let names: Vec<_> = all.iter().map(|injector| format!("{} {}", injector.kind, injector.name)).collect();
    let webhooks = injectors::webhook_configurations(client).await.unwrap_or_default();
    let untrusted = webhooks.iter().flat_map(|w| w.webhooks.iter().flatten()).find(|webhook| {
        let config = &webhook.client_config;
        config.service.is_some() && config.ca_bundle.as_ref().is_none_or(|bundle| bundle.0.is_empty())
    });
    match untrusted {
        Some(webhook) => Check::problem(
            CHECK,
            format!("webhook {} has no caBundle: the API server cannot call it", webhook.name),
            "look at the admission server's log; it writes the caBundle once it runs",
        ),
        None => Check::ok(CHECK, names.join(", ")),
    }
}

fn agents_check(agents: &Agents, nodes: &Nodes) -> Check {
    const CHECK: &str = "agents";
    let (ready, eligible) = (agents.ready(nodes), nodes.eligible.len());
    let missing = agents.missing(nodes);
    if missing.is_empty() {
        return Check::ok(CHECK, format!("ready on all {eligible} eligible nodes"));
    }
    if agents.is_empty() {
        let seen = format!("none on {eligible} eligible nodes: injected Pods fall back to cluster DNS");
        return Check::problem(CHECK, seen, "install the DaemonSet node-local-dns");
    }
    Check::problem(
        CHECK,
        format!("ready on {ready} of {eligible} eligible nodes; missing on {}", shorten(&missing)),
        "look at the Pods labelled k8s-app=node-local-dns on these nodes; for tainted ones add a toleration to the DaemonSet",
    )
}

fn rows_checks(rows: &BTreeMap<String, NamespaceRow>, node_local: &[IpAddr]) -> Vec<Check> {
    let total = |count: fn(&NamespaceRow) -> usize| rows.values().map(count).sum::<usize>();
    let with = |wanted: fn(&NamespaceRow) -> bool| -> Vec<String> {
        rows.iter().filter(|(_, row)| wanted(row)).map(|(name, _)| name.clone()).collect()
    };
    let mut checks = Vec::new();
    let stale = total(|row| row.stale);
    if stale > 0 {
        checks.push(Check::problem(
            "stale addresses",
            format!(
                "{stale} Pods hold an address that is no longer right, in {}",
                shorten(&with(|row| row.stale > 0))
            ),
            "restart the workloads: `kubectl -n NAMESPACE rollout restart deployment`",
        ));
    }
    let blocked = total(|row| row.blocked);
    if blocked > 0 {
        let width = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let blocks: Vec<String> =
            node_local.iter().map(|address| format!("{address}/{}", width(address))).collect();
        checks.push(Check::problem(
            "network policies",
            format!("{blocked} Pods may not reach the node-local address, in {}", shorten(&with(|row| row.blocked > 0))),
            format!(
                "allow egress to ipBlock {} (the node-local address), ports 53/UDP and 53/TCP, in the policies named below",
                blocks.join(" and ")
            ),
        ));
    }
    let restart = total(|row| row.restart);
    if restart > 0 {
        checks.push(Check::note(
            "older Pods",
            format!("{restart} Pods are older than the label and would be injected if they were created now"),
        ));
    }
    let labelled = with(|row| row.state == State::ExemptThoughLabelled);
    if !labelled.is_empty() {
        checks.push(Check::warning(
            "system namespaces",
            format!("{} asks for injection, which is never done there", shorten(&labelled)),
            format!("kubectl label namespace {} {INJECTION_LABEL}-", labelled.join(" ")),
        ));
    }
    checks
}
