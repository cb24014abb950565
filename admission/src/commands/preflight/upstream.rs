//! `env.upstream_ip`: within the range of Services, taken by nobody, and unlikely to be handed out to somebody else.
//!
//! Whether the range holds it only the API server knows: it is asked with a dry run. That a Service has it already a dry run does not tell (the
//! allocation itself is left out), so the Services are looked through.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::Options;
use crate::cluster::kube_dns::{Discovered, cluster_ips};
use crate::cluster::read::{ask, list};
use crate::commands::checks::Check;
use crate::commands::cidr;

const CHECK: &str = "upstream IP";

pub(super) async fn check(
    client: &Client,
    options: &Options,
    services: &[Service],
    found: &Discovered,
) -> Check {
    let ours = services.iter().find(|s| {
        s.name_any() == options.source.upstream_service
            && s.namespace().as_deref() == Some(&*options.namespace)
    });
    let Some(wanted) = options.upstream_ip else {
        return match ours.map(cluster_ips).filter(|ips| !ips.is_empty()) {
            Some(ips) => Check::ok(CHECK, format!("{} has {}", options.source.upstream_service, ips[0])),
            None => Check::note(CHECK, "not given: the API server will choose one"),
        };
    };
    if found.addresses.contains(&wanted) {
        let remedy = "choose another address of the range of Services: the agents would ask themselves through kube-dns' own";
        return Check::problem(CHECK, format!("{wanted} is the address of the cluster's DNS itself"), remedy);
    }
    if let Some(holder) = services.iter().find(|service| cluster_ips(service).contains(&wanted)) {
        let name = format!("{}/{}", holder.namespace().unwrap_or_default(), holder.name_any());
        if ours.is_some_and(|ours| ours.uid() == holder.uid()) {
            return Check::ok(CHECK, format!("{name} has {wanted} already"));
        }
        return Check::problem(CHECK, format!("{wanted} belongs to Service {name}"), "choose another one");
    }
    if let Some(ips) = ours.map(cluster_ips).filter(|ips| !ips.is_empty()) {
        let seen = format!(
            "{} has {} and cannot be given {wanted}: a ClusterIP never changes",
            options.source.upstream_service, ips[0]
        );
        return Check::problem(
            CHECK,
            seen,
            format!("keep {}, or delete that Service when no agent runs", ips[0]),
        );
    }
    let api: Api<Service> = Api::namespaced(client.clone(), &options.namespace);
    let dry_run = PostParams { dry_run: true, field_manager: None };
    let tried = ask("whether the address can be a Service's", api.create(&dry_run, &probe(wanted))).await;
    match tried {
        Ok(_) => band(client, wanted).await,
        // The API server refuses the address, not us.
        Err(error) if matches!(error.code, Some(400 | 422)) => Check::problem(
            CHECK,
            error.to_string(),
            "choose a free address of the range of Services, near its beginning",
        ),
        Err(error) => Check::unknown(CHECK, &error),
    }
}

/// A Service that is never stored.
fn probe(address: IpAddr) -> Service {
    let probe = json!({
        "metadata": {"generateName": "node-local-upstream-preflight-"},
        "spec": {"clusterIP": address.to_string(), "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]},
    });
    // Written above; an empty Service would only make the dry run fail.
    serde_json::from_value(probe).unwrap_or_default()
}

async fn band(client: &Client, wanted: IpAddr) -> Check {
    let ranges: Api<ServiceCIDR> = Api::all(client.clone());
    let ranges = list(&ranges, "ServiceCIDRs", &ListParams::default()).await.unwrap_or_default();
    let ranges: Vec<String> =
        ranges.into_iter().filter_map(|range| range.spec).flat_map(|s| s.cidrs.unwrap_or_default()).collect();
    let holding = ranges.iter().find(|range| cidr::holds(range, wanted));
    match holding {
        Some(range) if !cidr::is_in_static_band(range, wanted) => Check::note(
            CHECK,
            format!(
                "{wanted} is free, but in the part of {range} that is handed out to new Services: install soon, or choose one near the beginning"
            ),
        ),
        Some(range) => {
            Check::ok(CHECK, format!("{wanted} is free, in the part of {range} kept for fixed addresses"))
        }
        None => Check::ok(CHECK, format!("{wanted} is free")),
    }
}
