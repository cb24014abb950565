//! Each check against facts that are made up: what is well, what is wrong, and what it says to do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodens_node::observed::{IcmpFamily, IcmpLimit};

use super::super::facts::{Asked, Facts, Side, Transport, Upstream};
use super::*;
use crate::privilege::UID;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A node on which all is well, seen by root, with an agent.
fn healthy() -> Facts {
    let mask = |family, value: &str| IcmpLimit { family, value: value.to_owned() };
    Facts {
        addresses: vec![ip("169.254.20.10")],
        dns_port: 53,
        kernel: "6.1.0-18-cloud-amd64".to_owned(),
        dummy: Dummy::Loaded,
        wanted: vec![wanted(53, Some("169.254.20.10"), true), wanted(9253, None, false)],
        node: Side {
            is_looked_after: true,
            back_end: Some("nftables: a table of our own, in one transaction".to_owned()),
            ..Side::default()
        },
        chains: Some(vec!["ip nat KUBE-SERVICES".to_owned(), "inet nodens input".to_owned()]),
        icmp: vec![mask(IcmpFamily::V4, "6160"), mask(IcmpFamily::V6, "0,3-127")],
        resolv_conf: Some("search example.\nnameserver 192.0.2.53\n".to_owned()),
        upstreams: vec![asked(answer("NXDOMAIN"), answer("NXDOMAIN"))],
        ..Facts::default()
    }
}

fn wanted(port: u16, address: Option<&str>, is_vital: bool) -> Wanted {
    Wanted { purpose: "DNS", transport: Transport::Tcp, address: address.map(ip), port, is_vital }
}

fn held(address: &str, uid: u32, process: Option<&str>) -> Listening {
    let address: SocketAddr = address.parse().expect("an address");
    let process = process.map(|name| (name.to_owned(), 7));
    Listening { transport: Transport::Tcp, address, uid, inode: 1, process }
}

fn answer(code: &str) -> Asked {
    let is_good = ["NOERROR", "NXDOMAIN"].contains(&code);
    Asked::Answer { code: code.to_owned(), is_good, took: Duration::from_millis(3) }
}

fn asked(udp: Asked, tcp: Asked) -> Upstream {
    let address = "10.96.0.10:53".parse().expect("an address");
    Upstream { address, over_tcp: true, domain: "invalid.".to_owned(), udp, tcp }
}

/// The one finding of a check, and whether it is this bad and says all this.
#[track_caller]
fn assert_finding(facts: &Facts, check: &str, severity: Severity, texts: &[&str]) {
    let all = all(facts);
    let found: Vec<_> = all.iter().filter(|finding| finding.check == check).collect();
    let matching = found.iter().find(|finding| {
        let whole = format!("{} {}", finding.found, finding.advice.as_deref().unwrap_or_default());
        finding.severity == severity && texts.iter().all(|text| whole.contains(text))
    });
    assert!(matching.is_some(), "{check} {severity:?} {texts:?}: {found:#?}");
}

#[test]
fn a_healthy_node_has_nothing_but_good_findings() {
    let findings = all(&healthy());
    assert!(findings.iter().all(|finding| finding.severity == Ok), "{findings:#?}");
    let mut checks: Vec<_> = findings.iter().map(|finding| finding.check).collect();
    checks.dedup();
    let expected = [
        "kernel",
        "io_uring",
        "dummy",
        "privileges",
        "ports",
        "address",
        "interface",
        "rules",
        "icmp",
        "kube-proxy",
        "network",
        "resolv.conf",
        "loop",
        "upstream",
    ];
    assert_eq!(checks, expected);
}

#[test]
fn the_machine() {
    let old = Facts { kernel: "4.9.0-19-amd64".to_owned(), ..healthy() };
    assert_finding(&old, "kernel", Warn, &["4.9", "-packetrules=iptables"]);
    let newer = Facts { kernel: "4.18.0-553.el8.x86_64".to_owned(), ..healthy() };
    assert_finding(&newer, "kernel", Ok, &["4.18"]);
    let why = "io_uring is not available: could not set up a ring; probably the container's seccomp profile blocks it";
    let blocked = Facts { io_uring: IoUring::Unavailable(why.to_owned()), ..healthy() };
    assert_finding(&blocked, "io_uring", Info, &["seccomp profile", "takes epoll"]);
    let insisted = Facts { io_uring_asked: true, ..blocked };
    assert_finding(&insisted, "io_uring", Fail, &["seccomp profile", "`-runtime auto`"]);
    assert_finding(&Facts { dummy: Dummy::Missing, ..healthy() }, "dummy", Info, &["veth"]);
    assert_finding(&Facts { dummy: Dummy::Unknown, ..healthy() }, "dummy", Info, &["/lib/modules"]);
    assert_finding(&Facts { uid: 1000, ..healthy() }, "privileges", Info, &["UID 1000", "as root"]);
    let without = Facts { no_corefile: Some("/etc/Corefile cannot be used".to_owned()), ..healthy() };
    assert_finding(&without, "corefile", Info, &["-conf"]);
}

#[test]
fn a_port_that_somebody_holds_is_told_with_the_holder() {
    let with = |sockets: &[Listening]| Facts { listening: sockets.to_vec(), ..healthy() };
    let dnsmasq = with(&[held("0.0.0.0:53", 0, Some("dnsmasq"))]);
    assert_finding(&dnsmasq, "ports", Fail, &["169.254.20.10:53", "dnsmasq (process 7)", "0.0.0.0:53"]);
    assert_finding(&with(&[held("[::]:53", 0, None)]), "ports", Fail, &["UID 0 that cannot be seen"]);
    // Each on an address of its own is no clash, nor is another port or family.
    for other in ["127.0.0.53:53", "169.254.20.10:54", "[::1]:53"] {
        assert_finding(&with(&[held(other, 0, Some("x"))]), "ports", Ok, &["169.254.20.10:53", "is free"]);
    }
    assert_finding(&with(&[held("10.0.0.1:9253", 0, Some("x"))]), "ports", Warn, &["port 9253"]);
    let ours = with(&[held("169.254.20.10:53", UID, None), held("169.254.20.10:53", 0, Some("nodens"))]);
    assert_finding(&ours, "ports", Ok, &["169.254.20.10:53", "served by nodens"]);
    let older = with(&[held("169.254.20.10:53", 0, Some("node-cache"))]);
    assert_finding(&older, "ports", Fail, &["node-cache (process 7)"]);
}

#[test]
fn the_nodes_own_side() {
    let with = |change: fn(&mut Side)| {
        let mut facts = healthy();
        change(&mut facts.node);
        facts
    };
    let elsewhere = with(|side| side.elsewhere.push((ip("169.254.20.10"), "old".to_owned())));
    assert_finding(&elsewhere, "address", Fail, &["interface old", "ip address del 169.254.20.10 dev old"]);
    let foreign = with(|side| side.foreign = Some("bridge".to_owned()));
    assert_finding(&foreign, "interface", Fail, &["is bridge and not ours", "-interfacename"]);
    let steps = with(|side| side.rule_steps.push("+ table inet nodens, 8 rules".to_owned()));
    assert_finding(&steps, "rules", Warn, &["although an agent is there", "8 rules", "would take nftables"]);
    let no_agent = with(|side| {
        side.is_looked_after = false;
        side.link_steps.push("+ interface nodelocaldns (dummy)".to_owned());
    });
    assert_finding(&no_agent, "interface", Info, &["no agent is there", "+ interface nodelocaldns"]);
    let closed = with(|side| side.remarks.push("the chain ip filter INPUT drops by default".to_owned()));
    assert_finding(&closed, "rules", Warn, &["drops by default"]);
    let mut taken = with(|side| side.back_end = Some("iptables: as -packetrules says".to_owned()));
    assert!(
        all(&taken).iter().all(|finding| finding.check != "rules" || finding.severity == Ok),
        "a link-local address is refused, not taken"
    );
    taken.addresses.push(ip("10.96.0.10"));
    assert_finding(&taken, "rules", Warn, &["10.96.0.10 stays taken", "-packetrules=nftables"]);
    taken.node.back_end = healthy().node.back_end;
    assert!(
        all(&taken).iter().all(|finding| finding.check != "rules" || finding.severity == Ok),
        "it fails open"
    );
    let failed = with(|side| side.failures.push("cannot list: grant CAP_NET_ADMIN".to_owned()));
    assert_finding(&failed, "rules", Warn, &["CAP_NET_ADMIN"]);
    let limited =
        Facts { icmp: vec![IcmpLimit { family: IcmpFamily::V4, value: "6168".to_owned() }], ..healthy() };
    assert_finding(&limited, "icmp", Warn, &["net.ipv4.icmp_ratemask is 6168", "-seticmpratemask"]);
    assert_finding(&Facts { icmp: Vec::new(), ..healthy() }, "icmp", Info, &["not to be seen"]);
}

#[test]
fn the_mode_of_kube_proxy() {
    let chains =
        |all: &[&str]| Facts { chains: Some(all.iter().map(|&c| c.to_owned()).collect()), ..healthy() };
    assert_finding(&healthy(), "kube-proxy", Ok, &["iptables, on nf_tables"]);
    assert_finding(&chains(&["ip kube-proxy services"]), "kube-proxy", Ok, &["mode nftables"]);
    assert_finding(&chains(&["ip filter INPUT"]), "kube-proxy", Info, &["no trace"]);
    assert_finding(&Facts { chains: None, ..healthy() }, "kube-proxy", Info, &["CAP_NET_ADMIN"]);
    let legacy = Facts { legacy_tables: vec!["nat".to_owned()], ..chains(&[]) };
    assert_finding(&legacy, "kube-proxy", Ok, &["the older one"]);
    let ipvs = Facts { links: vec!["kube-ipvs0".to_owned()], ipvs: vec![ip("10.96.0.10")], ..healthy() };
    assert_finding(&ipvs, "kube-proxy", Ok, &["mode ipvs"]);
    let taken = Facts { addresses: vec![ip("169.254.20.10"), ip("10.96.0.10")], ..ipvs };
    assert_finding(&taken, "kube-proxy", Fail, &["10.96.0.10 is a Service's address"]);
}

#[test]
fn network_plug_ins_that_lead_packets_past_the_node() {
    let terway =
        |text: &str| Facts { cni: vec![("10-terway.conf".to_owned(), text.to_owned())], ..healthy() };
    let past = r#"{"type": "terway", "eniip_virtual_type": "IPVlan", "host_stack_cidrs": ["10.0.0.0/8"]}"#;
    assert_finding(
        &terway(past),
        "network",
        Fail,
        &["\"host_stack_cidrs\": [\"169.254.20.10/32\"]", "eni-config"],
    );
    for list in ["[\"169.254.20.10/32\"]", "[\"10.0.0.0/8\", \"169.254.0.0/16\"]", "[\"0.0.0.0/0\"]"] {
        let text = past.replace("[\"10.0.0.0/8\"]", list);
        assert_finding(&terway(&text), "network", Ok, &["leads Pods to"]);
    }
    assert_finding(&terway(r#"{"type": "terway"}"#), "network", Info, &["only its IPvlan mode"]);
    let cilium = Facts { links: vec!["cilium_host".to_owned()], ..healthy() };
    assert_finding(&cilium, "network", Info, &["link-local addresses pass it"]);
    let service = Facts { addresses: vec![ip("169.254.20.10"), ip("10.96.0.10")], ..cilium };
    assert_finding(&service, "network", Warn, &["translates 10.96.0.10", "CiliumLocalRedirectPolicy"]);
}

#[test]
fn s51_private_zone_udp_is_answered_and_tcp_is_not_so_coredns_gets_its_patch() {
    let patch = "  forward . /etc/resolv.conf\nto\n  forward . /etc/resolv.conf {\n    prefer_udp\n  }\n";
    for tcp in [answer("SERVFAIL"), Asked::Silent] {
        let facts = Facts { upstreams: vec![asked(answer("NXDOMAIN"), tcp)], ..healthy() };
        assert_finding(&facts, "upstream", Fail, &["10.96.0.10:53", "edit configmap coredns", patch]);
        let mut over_udp = facts;
        over_udp.upstreams[0].over_tcp = false;
        assert_finding(&over_udp, "upstream", Warn, &[patch]);
    }
}

#[test]
fn upstreams_that_fail_in_other_ways() {
    let with = |udp, tcp| Facts { upstreams: vec![asked(udp, tcp)], ..healthy() };
    let refused = || Asked::Unreachable("Connection refused (os error 111)".to_owned());
    let none = with(answer("NOERROR"), refused());
    assert_finding(&none, "upstream", Fail, &["takes no connection", "`prefer_udp` instead of `force_tcp`"]);
    assert_finding(&with(Asked::Silent, answer("NOERROR")), "upstream", Warn, &["datagrams get lost"]);
    assert_finding(&with(answer("SERVFAIL"), answer("SERVFAIL")), "upstream", Warn, &["its own upstreams"]);
    assert_finding(&with(Asked::Silent, refused()), "upstream", Fail, &["nobody answers there"]);
}

#[test]
fn circles_and_the_nodes_resolv_conf() {
    let mut facts = healthy();
    facts.upstreams[0].address = "169.254.20.10:53".parse().expect("an address");
    assert_finding(&facts, "loop", Fail, &["169.254.20.10:53 is an upstream"]);
    facts.upstreams[0].address = "169.254.20.10:5353".parse().expect("an address");
    assert_finding(&facts, "loop", Ok, &[]);
    let with = |text: &str| Facts { resolv_conf: Some(text.to_owned()), ..healthy() };
    assert_finding(&with("search x\n"), "resolv.conf", Fail, &["names no server"]);
    assert_finding(&with("nameserver 169.254.20.10\n"), "resolv.conf", Fail, &["the agent's own address"]);
    assert_finding(&with("nameserver 127.0.0.53\n"), "resolv.conf", Warn, &["--resolv-conf="]);
    assert_finding(&Facts { resolv_conf: None, ..healthy() }, "resolv.conf", Warn, &["cannot be read"]);
}
