//! `nodens doctor` on nodes that are well and on nodes that are not: real sockets, interfaces, rules and upstreams.

#[path = "../../node/tests/support/mod.rs"]
mod netns;
mod support;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use nodens_testkit::process::signal::SIGTERM;
use nodens_testkit::{Process, Transport, Upstream, answers};

use netns::{ADDRESS, Namespace};
use support::{Directory, Ended, NODENS, PATIENCE, run, runtime};

const COREFILE: &str = "\
.:53 {
    bind 169.254.20.10
    forward . 127.0.0.9:5300 {
        force_tcp
    }
    health 169.254.20.10:8080
    prometheus 127.0.0.1:9253
    nodens {
        runtime {$RUNTIME}
    }
}
";

/// Of SERVFAIL and NXDOMAIN.
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

struct World {
    node: Namespace,
    upstream: Upstream,
    directory: Directory,
}

impl World {
    fn new(programs: &[&str]) -> Option<World> {
        let node = Namespace::new(programs)?;
        let address: SocketAddr = "127.0.0.9:5300".parse().expect("an address");
        let handler = answers(|query| query.response().rcode(NXDOMAIN.into()));
        let upstream = node.enter(|| Upstream::on(address, handler));
        let directory = Directory::create();
        directory.write("Corefile", COREFILE);
        Some(World { node, upstream, directory })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.node.name]).args(arguments).env("RUNTIME", runtime());
        command
    }

    fn doctor(&self, flags: &[&str]) -> Ended {
        let path = self.directory.path("Corefile");
        run(self.command(&[&[NODENS, "doctor", "-conf", &path], flags].concat()))
    }

    fn agent(&self, flags: &[&str]) -> Process {
        let path = self.directory.path("Corefile");
        let agent =
            Process::spawn(self.command(&[&[NODENS, "-localip", ADDRESS, "-conf", &path], flags].concat()));
        assert!(agent.wait_for_line("[INFO] packet rules by ", PATIENCE).is_some(), "{}", agent.dump());
        agent
    }
}

/// The lines of one check.
#[track_caller]
fn assert_line(ended: &Ended, severity: &str, check: &str, texts: &[&str]) {
    let start = format!("{severity:<5} {check:<12} ");
    let found =
        ended.out.iter().any(|line| line.starts_with(&start) && texts.iter().all(|text| line.contains(text)));
    assert!(found, "no {start:?} with {texts:?} in {}", ended.dump());
}

#[test]
fn beside_an_agent_all_is_well_and_before_it_the_doctor_says_what_it_would_do() {
    let Some(world) = World::new(&["nft"]) else { return };
    let before = world.doctor(&["-seticmpratemask"]);
    assert_line(
        &before,
        "info",
        "interface",
        &["no agent is there; its start would do: + interface nodelocaldns"],
    );
    assert_line(&before, "info", "rules", &["+ table inet nodens, 8 rules", "would take nftables"]);
    assert_line(&before, "ok", "ports", &["169.254.20.10:53 over UDP (DNS) is free"]);
    assert_line(&before, "warn", "icmp", &["net.ipv4.icmp_ratemask is 6168"]);

    let mut agent = world.agent(&["-seticmpratemask"]);
    let beside = world.doctor(&["-seticmpratemask"]);
    for transport in ["UDP", "TCP"] {
        assert_line(
            &beside,
            "ok",
            "ports",
            &[&format!("169.254.20.10:53 over {transport} (DNS) is served by nodens")],
        );
    }
    assert_line(&beside, "ok", "ports", &["169.254.20.10:8080 over TCP (health) is served by nodens"]);
    assert_line(&beside, "ok", "address", &["nobody else has 169.254.20.10"]);
    assert_line(&beside, "ok", "interface", &[]);
    assert_line(&beside, "ok", "rules", &["by nftables"]);
    assert_line(&beside, "ok", "icmp", &[]);
    assert_line(&beside, "ok", "upstream", &["127.0.0.9:5300", "UDP NXDOMAIN", "TCP NXDOMAIN"]);
    assert_line(&beside, "ok", "loop", &[]);
    assert!(!beside.dump().contains("\nfail "), "{}", beside.dump());
    agent.signal(SIGTERM);
    assert!(agent.wait(PATIENCE).is_some());
    assert_eq!(
        world.node.shell("nft list ruleset; ip -o link | grep nodelocaldns || true"),
        "",
        "nothing was made"
    );
}

#[test]
fn s51_private_zone_a_resolver_without_tcp_behind_coredns_is_told_with_the_patch() {
    let Some(world) = World::new(&[]) else { return };
    world.upstream.set_handler(answers(|query| {
        let is_tcp = query.transport == Transport::Tcp;
        query.response().rcode(if is_tcp { SERVFAIL } else { NXDOMAIN }.into())
    }));
    let ended = world.doctor(&["-name", "private.example"]);
    assert_eq!(ended.code, Some(4), "{}", ended.dump());
    for domain in ["invalid.", "private.example."] {
        assert_line(
            &ended,
            "fail",
            "upstream",
            &[&format!("asked about {domain}: UDP NXDOMAIN"), "TCP SERVFAIL"],
        );
    }
    let advice: Vec<_> = ended.out.iter().filter_map(|line| line.trim_start().strip_prefix("> ")).collect();
    let patch =
        ["  forward . /etc/resolv.conf", "to", "  forward . /etc/resolv.conf {", "    prefer_udp", "  }"];
    assert!(advice.windows(patch.len()).any(|lines| lines == patch), "{advice:#?}");
    let json = world.doctor(&["-json"]);
    assert_eq!(json.code, Some(4));
    assert!(json.out[0].starts_with("{\"worst\":\"fail\",\"findings\":["), "{}", json.dump());
    let python = "import json,sys; d=json.load(sys.stdin); print(len(d['findings']), d['worst'])";
    let path = world.directory.write("json", &json.out.join("\n"));
    let read = netns::run("sh", &["-c", &format!("python3 -c \"{python}\" < {path}")]);
    assert!(read.trim().ends_with(" fail"), "{read}");
}

#[test]
fn who_is_in_the_way_is_named() {
    let Some(world) = World::new(&["nft"]) else { return };
    world.node.shell(&format!("ip address add {ADDRESS}/32 dev lo"));
    let _udp = world.node.enter(|| UdpSocket::bind("0.0.0.0:53").expect("a free port"));
    let _tcp = world.node.enter(|| TcpListener::bind("127.0.0.1:9253").expect("a free port"));
    let ended = world.doctor(&[]);
    assert_eq!(ended.code, Some(4), "{}", ended.dump());
    let us = format!("(process {}) at ", std::process::id());
    assert_line(
        &ended,
        "fail",
        "ports",
        &["169.254.20.10:53 over UDP (DNS) is held by e2e_doctor", &us, "0.0.0.0:53"],
    );
    assert_line(&ended, "ok", "ports", &["169.254.20.10:53 over TCP (DNS) is free"]);
    assert_line(&ended, "fail", "ports", &["127.0.0.1:9253 over TCP (metrics) is held by", &us]);
    assert_line(&ended, "fail", "address", &["169.254.20.10 is on the interface lo"]);
}

#[test]
fn others_at_work_on_packets_are_seen() {
    let Some(world) = World::new(&["nft"]) else { return };
    assert_line(&world.doctor(&[]), "info", "kube-proxy", &["no trace"]);
    world.node.shell("nft add table ip nat && nft add chain ip nat KUBE-SERVICES");
    assert_line(&world.doctor(&[]), "ok", "kube-proxy", &["mode iptables, on nf_tables"]);
    world
        .node
        .shell("nft flush ruleset; nft add table ip kube-proxy && nft add chain ip kube-proxy services");
    assert_line(&world.doctor(&[]), "ok", "kube-proxy", &["mode nftables"]);
    // Nothing but names and addresses is looked at; the real ones are dummies, which this kernel may not have.
    world.node.shell(
        "ip link add kube-ipvs0 type veth peer name peer && ip address add 10.96.0.10/32 dev kube-ipvs0",
    );
    let ended = world.doctor(&["-localip", "169.254.20.10,10.96.0.10"]);
    assert_line(&ended, "fail", "kube-proxy", &["10.96.0.10 is a Service's address"]);
    world.node.shell("ip link add cilium_host type veth peer name cilium_net");
    assert_line(&world.doctor(&[]), "info", "network", &["Cilium is here"]);
    // A closed chain of somebody else: what would help is said.
    world.node.shell("nft add table inet site && nft 'add chain inet site in { type filter hook input priority 0; policy drop; }'");
    assert_line(&world.doctor(&[]), "warn", "rules", &[]);
}

#[test]
fn without_a_corefile_or_privileges_it_says_what_it_could_not_see() {
    let Some(world) = World::new(&["setpriv"]) else { return };
    let nobody =
        ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let ended =
        run(world.command(&[&nobody[..], &[NODENS, "doctor", "-conf", "/nowhere/Corefile"]].concat()));
    assert_line(&ended, "info", "corefile", &["/nowhere/Corefile"]);
    assert_line(&ended, "info", "privileges", &["UID 65534"]);
    assert_line(&ended, "ok", "ports", &["port 8081 over TCP (ready) is free"]);
    assert_line(&ended, "warn", "rules", &["CAP_NET_ADMIN"]);
    assert_line(&ended, "info", "kube-proxy", &["CAP_NET_ADMIN"]);
    let wrong = support::nodens(&["doctor", "-name", "a..b"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.dump());
}
