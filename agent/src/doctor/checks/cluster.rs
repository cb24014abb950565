//! Who else is at work on packets: kube-proxy in one of its modes, and the network plug-in.

use std::net::IpAddr;

use super::super::facts::Facts;
use super::super::finding::Finding;
use super::Severity::{Fail, Info, Ok, Warn};
use super::of_services;

/// The chain that every kube-proxy in iptables mode has, and its table in nftables mode.
const CHAIN_OF_IPTABLES: &str = "KUBE-SERVICES";
const TABLE_OF_NFTABLES: &str = "kube-proxy";

/// Terway's list of destinations that go to the host and not past it.
const TERWAY_LIST: &str = "host_stack_cidrs";

pub(super) fn kube_proxy(facts: &Facts) -> Finding {
    let taken: Vec<_> =
        facts.addresses.iter().filter(|ip| facts.ipvs.contains(ip)).map(IpAddr::to_string).collect();
    if !taken.is_empty() {
        return Finding::new("kube-proxy", Fail, format!("mode ipvs, and {} is a Service's address", taken.join(", ")))
            .advise("IPVS has that address on kube-ipvs0 and takes its packets first: use 169.254.20.10 alone, with injected Pods");
    }
    let has_chain =
        |text: &str| facts.chains.iter().flatten().any(|chain| chain.split(' ').any(|word| word == text));
    let mode = if facts.links.iter().any(|link| link == "kube-ipvs0") {
        "ipvs"
    } else if has_chain(TABLE_OF_NFTABLES) {
        "nftables"
    } else if has_chain(CHAIN_OF_IPTABLES) {
        "iptables, on nf_tables"
    } else if facts.legacy_tables.iter().any(|table| table == "nat") {
        "iptables, the older one, if it is there at all: its chains are not looked into"
    } else if facts.chains.is_none() {
        return Finding::new("kube-proxy", Info, "its mode cannot be seen without CAP_NET_ADMIN");
    } else {
        return Finding::new(
            "kube-proxy",
            Info,
            "no trace of it: something else forwards Services, or nothing does",
        );
    };
    Finding::new("kube-proxy", Ok, format!("mode {mode}"))
}

pub(super) fn network(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, text) in facts.cni.iter().filter(|(_, text)| text.to_ascii_lowercase().contains("terway")) {
        findings.push(terway(facts, file, text));
    }
    if facts.links.iter().any(|link| link == "cilium_host") {
        findings.push(cilium(facts));
    }
    if findings.is_empty() {
        findings.push(Finding::new(
            "network",
            Ok,
            "no network plug-in that is known to lead packets past the node",
        ));
    }
    findings
}

fn terway(facts: &Facts, file: &str, text: &str) -> Finding {
    let is_past = text.to_ascii_lowercase().contains("ipvlan");
    let missing: Vec<_> = facts.addresses.iter().filter(|ip| ip.is_ipv4() && !lists(text, **ip)).collect();
    if missing.is_empty() {
        return Finding::new(
            "network",
            Ok,
            format!("Terway ({file}) leads Pods to {} on the host", TERWAY_LIST),
        );
    }
    let wanted: Vec<_> = missing.iter().map(|ip| format!("\"{ip}/32\"")).collect();
    let found = format!("Terway ({file}) does not have {} in {TERWAY_LIST}", wanted.join(", "));
    let advice = format!(
        "in `kubectl -n kube-system edit configmap eni-config`, in 10-terway.conf, write\n  \"{TERWAY_LIST}\": [{}]\nthen restart \
         terway-eniip; Pods that there are keep the old list until they are made anew (Terway 1.0.10.301 or later)",
        wanted.join(", ")
    );
    match is_past {
        true => {
            Finding::new("network", Fail, format!("{found}: in IPvlan mode Pods' queries go past the host"))
                .advise(advice)
        }
        false => {
            Finding::new("network", Info, format!("{found}; only its IPvlan mode needs that")).advise(advice)
        }
    }
}

/// Whether a prefix in Terway's list holds this address.
fn lists(text: &str, address: IpAddr) -> bool {
    let list = text.split_once(TERWAY_LIST).and_then(|(_, rest)| rest.split_once('[')?.1.split_once(']'));
    let Some((list, _)) = list else { return false };
    let holds = |entry: &str| {
        let (prefix, length) = entry.split_once('/').unwrap_or((entry, "32"));
        match (prefix.parse(), length.parse::<u32>(), address) {
            (
                std::result::Result::Ok(IpAddr::V4(prefix)),
                std::result::Result::Ok(length @ 0..=32),
                IpAddr::V4(address),
            ) => {
                let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
                u32::from(prefix) & mask == u32::from(address) & mask
            }
            _ => false,
        }
    };
    list.split(',').any(|entry| holds(entry.trim().trim_matches('"')))
}

fn cilium(facts: &Facts) -> Finding {
    let services = of_services(facts);
    if services.is_empty() {
        return Finding::new("network", Info, "Cilium is here; link-local addresses pass it");
    }
    let found =
        format!("Cilium is here, and translates {} before any packet rule sees it", services.join(", "));
    Finding::new("network", Warn, found).advise(
        "have Pods ask 169.254.20.10 (injection), or write a CiliumLocalRedirectPolicy for kube-dns; then leave that address out of \
         -localip",
    )
}
