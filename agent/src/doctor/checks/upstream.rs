//! Whom the agent asks: the upstreams of the Corefile over UDP and TCP, what stands behind them, and circles.

use std::net::{IpAddr, SocketAddr};

use super::super::facts::{Asked, Facts, Upstream};
use super::super::finding::Finding;
use super::Severity::{Fail, Info, Ok, Warn};

/// What CoreDNS needs so that it asks over UDP whatever it was asked over. The agent asks CoreDNS over TCP, CoreDNS
/// passes that on, and some resolvers of clouds (PrivateZone in part of its regions) take no TCP.
const PREFER_UDP: &str = "\
change CoreDNS' Corefile, `kubectl -n kube-system edit configmap coredns`, from
  forward . /etc/resolv.conf
to
  forward . /etc/resolv.conf {
    prefer_udp
  }
and other `forward` lines in the same way; CoreDNS takes it within a minute if it has `reload`";

pub(super) fn upstreams(facts: &Facts) -> Vec<Finding> {
    facts.upstreams.iter().map(upstream).collect()
}

fn upstream(upstream: &Upstream) -> Finding {
    let Upstream { address, over_tcp, domain, udp, tcp } = upstream;
    let both = format!("{address}, asked about {domain}: UDP {}, TCP {}", said(udp), said(tcp));
    let finding = |severity| Finding::new("upstream", severity, &both);
    // The transport that is used matters more.
    let if_used_tcp = if *over_tcp { Fail } else { Warn };
    let if_used_udp = if *over_tcp { Warn } else { Fail };
    match (is_good(udp), is_good(tcp)) {
        (true, true) => finding(Ok),
        (true, false) if matches!(tcp, Asked::Unreachable(_)) => finding(if_used_tcp).advise(
            "it takes no connection: open port 53 over TCP in its Service, in NetworkPolicies and security groups. Until then write \
             `prefer_udp` instead of `force_tcp` into the agent's Corefile; answers too long for UDP fail either way",
        ),
        (true, false) => finding(if_used_tcp).advise(format!(
            "it takes TCP, and what stands behind it does not. If it is CoreDNS, {PREFER_UDP}"
        )),
        (false, true) => finding(if_used_udp).advise(
            "datagrams get lost on the way: look for NetworkPolicies, security groups and a full connection tracking table \
             (`dmesg | grep conntrack`); until then write `force_tcp` into the agent's Corefile",
        ),
        (false, false) if answers(udp) || answers(tcp) => finding(Warn).advise(
            "it answers, but knows nothing of this domain or cannot ask whoever does: look at its log and at its own upstreams",
        ),
        (false, false) => finding(Fail).advise(
            "nobody answers there: is it the address of the Service node-local-upstream or kube-dns, and has that Service endpoints \
             (`kubectl -n kube-system get endpointslices`)?",
        ),
    }
}

fn is_good(asked: &Asked) -> bool {
    matches!(asked, Asked::Answer { is_good: true, .. })
}

fn answers(asked: &Asked) -> bool {
    matches!(asked, Asked::Answer { .. })
}

fn said(asked: &Asked) -> String {
    match asked {
        Asked::Answer { code, took, .. } => format!("{code} in {} ms", took.as_millis()),
        Asked::Silent => "silent".to_owned(),
        Asked::Unreachable(why) => why.clone(),
    }
}

/// Upstreams that are this node's own DNS. Longer circles are found by the agent (`loop` in the Corefile), which sees
/// its own question come back.
pub(super) fn circle(facts: &Facts) -> Vec<Finding> {
    let is_us = |upstream: &&Upstream| {
        upstream.address.port() == facts.dns_port && facts.addresses.contains(&upstream.address.ip())
    };
    let circles: Vec<_> = facts.upstreams.iter().filter(is_us).map(|upstream| upstream.address).collect();
    match circles.first() {
        None => vec![Finding::new("loop", Ok, "no upstream is this node's own DNS")],
        Some(address) => vec![round(*address, "is an upstream in the Corefile and the agent itself")],
    }
}

fn round(address: SocketAddr, what: &str) -> Finding {
    Finding::new("loop", Fail, format!("{address} {what}: each query would go round in a circle"))
        .advise("name the cluster's DNS, or the network's resolver, as upstream")
}

pub(super) fn resolv_conf(facts: &Facts) -> Finding {
    const CHECK: &str = "resolv.conf";
    let Some(text) = &facts.resolv_conf else {
        return Finding::new(CHECK, Warn, "/etc/resolv.conf cannot be read")
            .advise("CoreDNS and Pods with dnsPolicy Default take their servers from the node's");
    };
    let servers: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok())
        .collect();
    let list = servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    if servers.is_empty() {
        return Finding::new(CHECK, Fail, "/etc/resolv.conf names no server")
            .advise("the node itself and CoreDNS' `forward . /etc/resolv.conf` have nobody to ask: write a `nameserver` line");
    }
    if servers.iter().any(|server| facts.addresses.contains(server)) {
        return Finding::new(CHECK, Fail, format!("/etc/resolv.conf names the agent's own address ({list})")).advise(
            "CoreDNS on this node would ask the agent, which asks CoreDNS: name the network's resolver. Pods get the agent's \
             address by injection or from the kubelet",
        );
    }
    if servers.iter().any(IpAddr::is_loopback) {
        return Finding::new(CHECK, Warn, format!("/etc/resolv.conf names a server on the loopback ({list})")).advise(
            "a Pod that gets this file asks itself: give the kubelet `--resolv-conf=/run/systemd/resolve/resolv.conf` (systemd-resolved) \
             or the file that names the network's resolver",
        );
    }
    let severity = if servers.len() > 3 { Info } else { Ok };
    Finding::new(CHECK, severity, format!("/etc/resolv.conf names {list}"))
}
