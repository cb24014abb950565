//! What packets do under our rules: a "node" with "Pods", an address of the node's own and one of a Service, and
//! kube-proxy's part played by a rule of iptables.

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use nodens_node::desired::{Desired, RulesWish};
use nodens_node::node::Outcome;
use nodens_node::rules::BackEnd;
use nodens_node::{BackEndChoice, Node};
use nodens_testkit::{Query, TcpClient, Upstream, answers};
use support::{ADDRESS, Namespace, PORTS, Server, ask, wish};

const SERVICE: &str = "10.96.0.10";
/// Long for one host, short for a test.
const WAIT: Duration = Duration::from_secs(2);

fn reach(node: &Namespace, back_end: BackEnd, desired: &Desired) -> Outcome {
    let outcome = node
        .block_on(async || Node::open(BackEndChoice::Only(back_end)).expect("netlink").reach(desired).await);
    assert!(outcome.failures.is_empty(), "{outcome:#?}");
    outcome
}

/// A node that routes between its Pods, and tracks connections as one with kube-proxy does.
fn a_node() -> Option<Namespace> {
    let node = Namespace::new(&["nft", "iptables", "conntrack"])?;
    node.shell(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; \
         nft add table inet tracking; \
         nft add chain inet tracking seen '{ type filter hook input priority 0; }'; \
         nft add rule inet tracking seen ct state new counter",
    );
    Some(node)
}

/// kube-proxy's part: the Service's address is translated to a Pod's.
fn translate(node: &Namespace, to: &str) {
    let to = format!("{to}:53");
    for (chain, transport) in
        [("PREROUTING", "udp"), ("PREROUTING", "tcp"), ("OUTPUT", "udp"), ("OUTPUT", "tcp")]
    {
        node.run(
            "iptables",
            &[
                "-t",
                "nat",
                "-A",
                chain,
                "-d",
                SERVICE,
                "-p",
                transport,
                "--dport",
                "53",
                "-j",
                "DNAT",
                "--to-destination",
                &to,
            ],
        );
    }
}

fn tracked(node: &Namespace, what: &str) -> usize {
    let both = node.shell("conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null");
    both.lines().filter(|line| line.contains(what)).count()
}

#[test]
fn the_nodes_dns_is_not_tracked_with_either_back_end() {
    for back_end in BackEnd::ALL {
        let Some(node) = a_node() else { return };
        let pod = node.pod(1);
        let addresses = [ADDRESS, "fd00:53::10"];
        let setup = Desired { rules: RulesWish::LeaveAlone, ..wish(&addresses) };
        reach(&node, back_end, &setup);
        let servers = addresses.map(|address| Server::start(&node, address, 53, "pong"));
        // Without rules everything is tracked: the test would see it.
        for address in addresses {
            assert_eq!(ask(&pod, address, 53, WAIT).expect("an answer"), b"pong", "{back_end} {address}");
            assert!(tracked(&node, address) > 0, "{back_end}");
        }
        node.run("conntrack", &["-F"]);
        reach(&node, back_end, &wish(&addresses));
        for address in addresses {
            assert_eq!(ask(&pod, address, 53, WAIT).expect("an answer"), b"pong", "{back_end} {address}");
        }
        // The node's own programs; with nftables only to what is the node's own beyond doubt.
        ask(&node, ADDRESS, 53, WAIT).expect("an answer");
        assert_eq!((tracked(&node, ADDRESS), tracked(&node, "fd00:53::10")), (0, 0), "{back_end}");
        drop(servers);
    }
}

#[test]
fn p1_a_services_address_fails_open_in_the_kernel_when_nobody_listens() {
    let Some(node) = a_node() else { return };
    let (pod, dns) = (node.pod(1), node.pod(2));
    let cluster_dns = Server::start(&dns, "10.244.2.2", 53, "kube-dns");
    translate(&node, "10.244.2.2");
    let ask = |from: &Namespace| ask(from, SERVICE, 53, WAIT).expect("an answer");
    assert_eq!(ask(&pod), b"kube-dns");

    reach(&node, BackEnd::Nftables, &wish(&[ADDRESS, SERVICE]));
    assert_eq!(ask(&pod), b"kube-dns", "the address and the rules are there, and nobody listens yet");
    let agent = Server::start(&node, SERVICE, 53, "nodens");
    assert_eq!(ask(&pod), b"nodens");
    assert_eq!(ask(&node), b"kube-dns", "the node's own programs stay with kube-proxy");
    // As by SIGKILL: rules and address stay.
    drop(agent);
    assert_eq!(ask(&pod), b"kube-dns");
    drop(cluster_dns);
}

#[test]
fn p1_over_tcp_each_packet_of_a_connection_goes_to_whoever_took_the_first() {
    let Some(node) = a_node() else { return };
    let (pod, dns) = (node.pod(1), node.pod(2));
    let server = |at: &Namespace, address: &str, answer: &'static str| {
        let address = address.parse().expect("an address");
        at.enter(|| Upstream::on(address, answers(move |query| query.response().answer(answer))))
    };
    let _cluster_dns = server(&dns, "10.244.2.2:53", "@ 60 IN TXT kube-dns");
    translate(&node, "10.244.2.2");
    let ask = || {
        pod.enter(|| {
            let mut client = TcpClient::connect(SocketAddr::new(support::ip(SERVICE), 53)).expect("a server");
            let reply = client.ask(&Query::new("www.example.", "TXT").bytes(), WAIT);
            reply.expect("an answer").rdatas("TXT").concat().replace('"', "")
        })
    };
    reach(&node, BackEnd::Nftables, &wish(&[ADDRESS, SERVICE]));
    assert_eq!(ask(), "kube-dns", "nobody listens yet");
    let agent = server(&node, "10.96.0.10:53", "@ 60 IN TXT nodens");
    node.run("conntrack", &["-F"]);
    for _ in 0..3 {
        assert_eq!(ask(), "nodens");
    }
    assert_eq!(tracked(&node, SERVICE), 0, "from the first packet to the last");
    drop(agent);
    assert_eq!(ask(), "kube-dns");
    // Somebody else's, for every address: what kube-proxy has begun stays with it.
    let others = server(&node, "0.0.0.0:53", "@ 60 IN TXT other");
    assert_eq!(ask(), "kube-dns");
    drop(others);
}

#[test]
fn queries_are_sent_on_to_the_service_while_the_agent_is_away() {
    let Some(node) = a_node() else { return };
    let (pod, dns) = (node.pod(1), node.pod(2));
    let cluster_dns = Server::start(&dns, "10.244.2.2", 53, "kube-dns");
    translate(&node, "10.244.2.2");
    reach(&node, BackEnd::Nftables, &wish(&[ADDRESS]));
    let refused = ask(&pod, ADDRESS, 53, WAIT).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    let upstream = format!("{SERVICE}:53").parse().expect("an address");
    let away =
        Desired { rules: RulesWish::Forward { ports: PORTS, upstreams: vec![upstream] }, ..wish(&[ADDRESS]) };
    reach(&node, BackEnd::Nftables, &away);
    // The socket is connected to our address: an answer from any other would not arrive.
    assert_eq!(ask(&pod, ADDRESS, 53, WAIT).expect("an answer"), b"kube-dns");
    assert_eq!(ask(&pod, SERVICE, 53, WAIT).expect("an answer"), b"kube-dns", "nor is the Service disturbed");
    // TCP has checksums in another place.
    let listener = dns.enter(|| std::net::TcpListener::bind("10.244.2.2:53")).expect("a port");
    let connect = |to: &str| {
        let to = std::net::SocketAddr::new(support::ip(to), 53);
        pod.enter(|| std::net::TcpStream::connect_timeout(&to, WAIT))
    };
    connect(ADDRESS).expect("the handshake needs answers from the address that was asked");
    drop(listener);
    let agent = Server::start(&node, ADDRESS, 53, "nodens");
    reach(&node, BackEnd::Nftables, &wish(&[ADDRESS]));
    assert_eq!(ask(&pod, ADDRESS, 53, WAIT).expect("an answer"), b"nodens", "its next start takes them back");
    drop((agent, cluster_dns));
}

#[test]
fn queries_of_ipv6_are_sent_on_to_another_port_too() {
    let Some(node) = a_node() else { return };
    let (pod, dns) = (node.pod(1), node.pod(2));
    let upstream = Server::start(&dns, "fd00:2::2", 5353, "far");
    let away = Desired {
        rules: RulesWish::Forward {
            ports: PORTS,
            upstreams: vec!["[fd00:2::2]:5353".parse().expect("an address")],
        },
        ..wish(&["fd00:53::10"])
    };
    reach(&node, BackEnd::Nftables, &away);
    assert_eq!(ask(&pod, "fd00:53::10", 53, WAIT).expect("an answer"), b"far");
    drop(upstream);
}

#[test]
fn a_dead_agent_costs_one_round_trip_while_the_address_stays_and_a_timeout_without_it() {
    let Some(node) = a_node() else { return };
    let pod = node.pod(1);
    reach(&node, BackEnd::Nftables, &wish(&[ADDRESS]));
    let start = std::time::Instant::now();
    let refused = ask(&pod, ADDRESS, 53, WAIT).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(start.elapsed() < WAIT / 2, "{:?}", start.elapsed());
    node.shell("ip link del nodelocaldns");
    let silent = ask(&pod, ADDRESS, 53, Duration::from_millis(300)).expect_err("nobody has the address");
    assert!(
        matches!(
            silent.kind(),
            ErrorKind::WouldBlock
                | ErrorKind::TimedOut
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        ),
        "{silent}"
    );
}
