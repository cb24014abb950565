//! `preflight`: will it work in this cluster? Each caveat of the original chart's documentation as a check.
//!
//! Nothing is changed; whether an address can be a Service's is found out with a dry run. What cannot be read is said, not guessed.

mod platform;
mod releases;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::checks::{self, Check, Verdict};
use super::nodes::Nodes;
use super::{audit, shorten};
use crate::cluster::kube_dns::{Discovered, KubeDnsSource};
use crate::cluster::read::{ReadError, ask, get, list};
use crate::family::{self, Family};
use crate::names::{ENABLED, INJECTION_LABEL};
use crate::settings::InjectionSettings;

/// What is planned.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address that the Service `node-local-upstream` is to have; None: the API server chooses.
    pub upstream_ip: Option<IpAddr>,
    /// Injection as it will be.
    pub settings: InjectionSettings,
    /// Where the cluster's DNS is looked for.
    pub source: KubeDnsSource,
    /// Where the chart is to be installed.
    pub namespace: String,
    /// An older Helm release to look at; None: every release of the original chart.
    pub release: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order in which things are installed.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether nothing stands in the way.
    pub fn is_passed(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Problem)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        checks::write(f, &self.checks)
    }
}

/// The oldest version that serves `admissionregistration.k8s.io/v1` alone, which is what the chart writes.
const MINOR_MIN: u32 = 22;

/// The first version with MutatingAdmissionPolicy v1, on by default.
const MINOR_POLICY: u32 = 36;

/// Looks at the cluster. An error means that not even its version can be read.
pub async fn run(client: &Client, options: &Options) -> Result<Report, ReadError> {
    let version = ask("the API server's version", client.apiserver_version()).await?;
    let minor = minor(&version.minor);
    let services: Result<Vec<Service>, _> =
        list(&Api::all(client.clone()), "Services", &ListParams::default()).await;
    let found = match &services {
        Ok(all) => {
            let here = |s: &&Service| s.namespace().as_deref() == Some(&*options.source.namespace);
            options.source.choose(all.iter().filter(here))
        }
        Err(_) => Discovered::default(),
    };
    let mut checks = vec![version_check(&version.git_version, minor)];
    match &services {
        Ok(all) => {
            checks.push(audit::kube_dns_check(&found, &options.source));
            checks.push(upstream::check(client, options, all, &found).await);
        }
        Err(error) => checks.push(Check::unknown("cluster DNS", error)),
    }
    let mut families: BTreeSet<Family> = found.addresses.iter().map(Family::of).collect();
    match Nodes::read(client).await {
        Ok(nodes) => {
            families.extend(&nodes.pod_families);
            checks.extend(node_local_check(&options.settings.node_local, &families));
            checks.extend(node_checks(client, &nodes, &options.namespace).await);
            checks.push(platform::private_zone(client, &nodes, &options.source.namespace).await);
        }
        Err(error) => {
            checks.extend(node_local_check(&options.settings.node_local, &families));
            checks.push(Check::unknown("nodes", &error));
        }
    }
    checks.extend(platform::terway(client, &options.settings.node_local).await);
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let labelled = match list(&namespaces, "namespaces", &ListParams::default()).await {
        Ok(all) => {
            let asks = |n: &PartialObjectMeta<Namespace>| {
                n.labels().get(INJECTION_LABEL).is_some_and(|v| v == ENABLED)
            };
            let labelled: Vec<String> = all.iter().filter(|n| asks(n)).map(ResourceExt::name_any).collect();
            checks.push(system_namespaces(&options.settings, &labelled));
            labelled
        }
        Err(error) => {
            checks.push(Check::unknown("system namespaces", &error));
            Vec::new()
        }
    };
    checks.extend(releases::checks(client, options, &found.addresses, &labelled, minor).await);
    Ok(Report { checks })
}

/// `36` and `36+`.
fn minor(text: &str) -> u32 {
    text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}

fn version_check(version: &str, minor: u32) -> Check {
    const CHECK: &str = "Kubernetes";
    match minor {
        0..MINOR_MIN => Check::problem(
            CHECK,
            format!("{version} does not have all that the chart uses"),
            format!("upgrade the cluster to 1.{MINOR_MIN} or later"),
        ),
        MINOR_POLICY.. => Check::ok(
            CHECK,
            format!("{version}; policies can inject without a webhook (controller.mode=policy)"),
        ),
        _ => Check::ok(CHECK, version),
    }
}

/// Whether Pods have the families that the node-local addresses are of. `families` are those of the cluster's DNS and of the nodes'
/// ranges for Pods; none known, nothing said.
fn node_local_check(node_local: &[IpAddr], families: &BTreeSet<Family>) -> Option<Check> {
    const CHECK: &str = "node-local address";
    if families.is_empty() {
        return None;
    }
    let seen = family::list(families.iter().copied());
    let foreign = node_local.iter().find(|address| !families.contains(&Family::of(address)));
    let all = node_local.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    Some(match foreign {
        None => Check::ok(CHECK, format!("{all}; this cluster has {seen}")),
        Some(address) => Check::problem(
            CHECK,
            format!("{address} is {}, and this cluster has {seen} alone", Family::of(address)),
            match Family::of(address) {
                Family::Ipv4 => {
                    "choose an address from fd00::/8 for agents and admission server (--nameserver)"
                }
                Family::Ipv6 => {
                    "choose an IPv4 address, 169.254.20.10 as a rule, for agents and admission server (--nameserver)"
                }
            },
        ),
    })
}

fn system_namespaces(settings: &InjectionSettings, labelled: &[String]) -> Check {
    const CHECK: &str = "system namespaces";
    let in_vain: Vec<String> = labelled.iter().filter(|name| settings.is_exempt(name)).cloned().collect();
    if in_vain.is_empty() {
        return Check::ok(CHECK, "none asks for injection");
    }
    Check::warning(
        CHECK,
        format!("{} asks for injection, which is never done there", shorten(&in_vain)),
        format!("kubectl label namespace {} {INJECTION_LABEL}-", in_vain.join(" ")),
    )
}

async fn node_checks(client: &Client, nodes: &Nodes, namespace: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    if nodes.virtual_nodes > 0 {
        checks.push(Check::warning(
            "virtual nodes",
            format!("{} virtual nodes run no DaemonSet, so no node-local DNS", nodes.virtual_nodes),
            format!("label the templates of workloads that scale out to them {INJECTION_LABEL}=disabled"),
        ));
    }
    if nodes.windows > 0 {
        checks.push(Check::note("Windows nodes", format!("{} nodes are left out", nodes.windows)));
    }
    let mut by_taint: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for (name, taints) in &nodes.eligible {
        for taint in taints {
            by_taint.entry(taint).or_default().push(name.clone());
        }
    }
    if by_taint.is_empty() {
        checks.push(Check::ok(
            "taints",
            format!("none keeps the agent off the {} nodes", nodes.eligible.len()),
        ));
        return checks;
    }
    let agents: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let agents = get(&agents, "DaemonSet node-local-dns", "node-local-dns").await.ok().flatten();
    let tolerates_all = agents.and_then(|set| set.spec?.template.spec?.tolerations).is_some_and(|all| {
        all.iter()
            .any(|t| t.key.as_deref().unwrap_or("").is_empty() && t.operator.as_deref() == Some("Exists"))
    });
    let seen = by_taint.iter().map(|(taint, names)| format!("{taint} on {}", shorten(names)));
    let seen = seen.collect::<Vec<_>>().join("; ");
    checks.push(if tolerates_all {
        Check::ok("taints", format!("the agent tolerates all: {seen}"))
    } else {
        Check::warning(
            "taints",
            seen,
            "let the DaemonSet tolerate them; injected Pods on nodes without an agent wait for a timeout",
        )
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions_are_read_with_what_clouds_put_behind() {
        assert_eq!((minor("36"), minor("30+"), minor(""), minor("x")), (36, 30, 0, 0));
        assert_eq!(version_check("v1.21.5", 21).verdict, Verdict::Problem);
        assert_eq!(version_check("v1.22.0", 22).verdict, Verdict::Ok);
        assert!(version_check("v1.36.2", 36).seen.contains("policies"));
    }
}
