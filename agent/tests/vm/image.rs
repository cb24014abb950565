//! From the image to an answer, on the node: the container that the chart renders, a Pod that was injected, the cluster's DNS.
//!
//! `deploy/tests/image/for_machine.py` writes what is in [`CLUSTER`]. Everything is asked where the Pod, the kubelet and
//! Prometheus are told to ask; nothing of it is known here.

use std::fs::read_to_string;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nodens_testkit::msg::rcode;
use nodens_testkit::process::signal::{SIGKILL, SIGTERM};
use nodens_testkit::{Process, Query, Reply, TcpClient, UdpClient};

use crate::support::{Metrics, PATIENCE, eventually, get, report, run};
use crate::world::netns::{NAME, Namespace};
use crate::world::{EtcNetns, World, expect};
use crate::{a_node, assert_bare, kernel};

const CLUSTER: &str = "/cluster";
/// The container.
const AGENT: &str = "agent";
/// What people leave out of a name, because a Pod's resolver adds it.
const SUFFIX: &str = ".svc.cluster.local";
/// `timeout:1` of the Pod's resolv.conf: what a silent nameserver costs.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Lookups of each kind. Of those at a dead agent more than the kernel's limit on ICMP errors lets through.
const LOOKUPS: usize = 12;

/// A node with a Pod, and the cluster's DNS.
struct Cluster {
    world: World,
    /// The Pod's: the agent, and kube-dns.
    nameservers: [IpAddr; 2],
    /// Names with their addresses.
    records: Vec<(String, String)>,
    endpoints: Vec<(SocketAddr, String)>,
    _resolv_conf: EtcNetns,
    _dns: (Process, Namespace),
}

impl Cluster {
    fn new() -> Cluster {
        let world = a_node();
        let resolv_conf = file("pod/resolv.conf");
        let nameservers: Vec<_> = values(&resolv_conf, "nameserver ").map(parsed).collect();
        let cluster = Cluster {
            _dns: dns(&world.node),
            _resolv_conf: EtcNetns::write(&world.pod.name, &resolv_conf),
            nameservers: nameservers.try_into().expect("two nameservers"),
            records: pairs("pod/records"),
            endpoints: pairs("endpoints").into_iter().map(|(at, path)| (parsed(&at), path)).collect(),
            world,
        };
        let [_, kube_dns] = cluster.nameservers;
        eventually("the cluster's DNS", PATIENCE, || cluster.is_served_by(kube_dns).then_some(()));
        cluster
    }

    /// The Pod asks one server for the first of the records.
    fn is_served_by(&self, server: IpAddr) -> bool {
        let (name, address) = &self.records[0];
        let reply = self.asks(server, name);
        reply.is_some_and(|reply| reply.rdatas("A") == [address.as_str()])
    }

    fn asks(&self, server: IpAddr, name: &str) -> Option<Reply> {
        let query = Query::new(&format!("{name}."), "A").bytes();
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        self.world.pod.enter(|| UdpClient::bind(any).ask((server, 53).into(), &query, TIMEOUT))
    }

    fn asks_over_tcp(&self, server: IpAddr, name: &str) -> Option<Reply> {
        let query = Query::new(&format!("{name}."), "A").bytes();
        self.world.pod.enter(|| TcpClient::connect((server, 53).into()).ok()?.ask(&query, TIMEOUT))
    }

    /// What a lookup by the C library takes a program in the Pod, its start included: the fastest and the slowest.
    fn lookups(&self) -> (Duration, Duration) {
        let took = self.records.iter().cycle().take(LOOKUPS).map(|(name, address)| {
            let short = name.strip_suffix(SUFFIX).unwrap_or(name);
            let begun = Instant::now();
            let found = self.world.pod.run("getent", &["ahostsv4", short]);
            assert!(found.contains(&format!("{address} ")), "{short}: {found}");
            begun.elapsed()
        });
        let took: Vec<_> = took.collect();
        (*took.iter().min().expect("some"), *took.iter().max().expect("some"))
    }

    /// What the agent says to the kubelet or to Prometheus.
    fn page(&self, path: &str) -> String {
        let (at, path) =
            self.endpoints.iter().find(|(_, of)| of == path).expect("an endpoint of the agent's");
        let page = get(*at, path).unwrap_or_else(|| panic!("nothing at {at}{path}"));
        assert_eq!(page.status, 200, "{at}{path} {page:?}");
        page.body
    }

    /// The agent's container, when it serves.
    fn start(&self) -> Process {
        // The machine's root is the first RAM disk, which the kernel does not let a container have taken away.
        let agent =
            Process::spawn(crun("run", &["--no-pivot", "--bundle", &format!("{CLUSTER}/agent"), AGENT]));
        expect(&agent, "[INFO] packet rules by nftables: ");
        agent
    }
}

impl Drop for Cluster {
    /// A container outlives the crun that a failing test has left.
    fn drop(&mut self) {
        drop(crun("delete", &["--force", AGENT]).output());
    }
}

fn crun(command: &str, words: &[&str]) -> Command {
    let mut crun = Command::new("crun");
    crun.args(["--cgroup-manager=disabled", command]).args(words);
    crun
}

/// Tells the container to end, as the kubelet does; how it did.
fn tell(agent: &mut Process, signal: i32) -> ExitStatus {
    let told = run(crun("kill", &[AGENT, &signal.to_string()]));
    assert_eq!(told.code, Some(0), "{}", told.dump());
    agent.wait(PATIENCE).unwrap_or_else(|| panic!("it lives on: {}", agent.dump()))
}

/// A server that is not of ours, behind the node.
fn dns(node: &Namespace) -> (Process, Namespace) {
    let dns = node.pod(2);
    for address in values(&file("dns/nsd.conf"), "ip-address: ") {
        dns.run("ip", &["address", "add", address, "dev", "lo"]);
        node.run("ip", &["route", "add", address, "via", "10.244.2.2"]);
    }
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &dns.name, "nsd", "-d", "-c", "nsd.conf"]);
    command.current_dir(format!("{CLUSTER}/dns"));
    (Process::spawn(command), dns)
}

fn file(name: &str) -> String {
    let path = format!("{CLUSTER}/{name}");
    read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// What follows a word at a line's begin.
fn values<'a>(text: &'a str, word: &str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim_start().strip_prefix(word))
}

/// A file of two words a line.
fn pairs(name: &str) -> Vec<(String, String)> {
    let text = file(name);
    let pairs = text.lines().map(|line| line.split_once(' ').expect("two words"));
    pairs.map(|(one, other)| (one.to_owned(), other.to_owned())).collect()
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("an address")
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn a_pod_is_served_from_the_image_and_by_its_second_nameserver_when_the_agent_is_killed() {
    let cluster = Cluster::new();
    let Cluster { world, nameservers: [node_local, kube_dns], .. } = &cluster;
    let begun = Instant::now();
    let mut agent = cluster.start();
    let started = begun.elapsed();
    let line = expect(&agent, "[INFO] runtime tokio: ");
    assert!(line.contains("seccomp"), "the container's filter has no io_uring: {line}");
    let link = world.node.run("ip", &["-d", "link", "show", NAME]);
    assert!(link.contains("dummy") && link.contains("UP"), "{link}");
    assert!(world.rules() > 0, "{}", agent.dump());
    assert_eq!(read_to_string("/proc/sys/net/ipv4/icmp_ratemask").expect("a file").trim(), "6160");

    let (alive, _) = cluster.lookups();
    for (name, address) in &cluster.records {
        for reply in [cluster.asks(*node_local, name), cluster.asks_over_tcp(*node_local, name)] {
            let reply = reply.unwrap_or_else(|| panic!("no answer for {name}: {}", agent.dump()));
            assert_eq!(reply.rdatas("A"), [address.as_str()], "{reply:?}");
        }
    }
    let nothing = cluster.asks(*node_local, "nosuch.default.svc.cluster.local").expect("an answer");
    assert_eq!(nothing.rcode, rcode::NXDOMAIN, "{nothing:?}");
    assert_eq!((cluster.page("/health").trim(), cluster.page("/ready").trim()), ("OK", "OK"));
    let metrics = Metrics::read(cluster.page("/metrics"));
    let answered = LOOKUPS + 2 * cluster.records.len() + 1;
    assert!(metrics.sum("coredns_dns_requests_total", &[]) >= answered as u64, "the Pod asked the agent");
    assert!(metrics.sum("coredns_cache_hits_total", &[]) > 0, "and its cache answered");

    let status = tell(&mut agent, SIGKILL);
    assert_eq!(status.code(), Some(128 + SIGKILL), "{}", agent.dump());
    let (fastest, slowest) = cluster.lookups();
    assert!(slowest < TIMEOUT * 9 / 10, "a lookup waited for its timeout: {slowest:?}");
    assert!(cluster.is_served_by(*kube_dns));
    // What the bound above is worth: the same, but the kernel's refusals do not reach the Pod.
    world.pod.shell(
        "nft add table inet silence; nft add chain inet silence in '{ type filter hook input priority 0; }'; \
         nft add rule inet silence in icmp type destination-unreachable drop",
    );
    let (silent, _) = cluster.lookups();
    assert!(silent >= TIMEOUT, "a lookup did without its first nameserver: {silent:?}");
    world.pod.run("nft", &["flush", "ruleset"]);
    report(&format!(
        "from the image, Linux {}: rules {started:?} after `crun run`; getent: agent alive {alive:?}; killed {fastest:?} to \
         {slowest:?}, by the second nameserver; without ICMP {silent:?}",
        kernel()
    ));

    let mut agent = cluster.start();
    assert!(cluster.is_served_by(*node_local), "{}", agent.dump());
    let status = tell(&mut agent, SIGTERM);
    assert_eq!(status.code(), Some(0), "{}", agent.dump());
    // The chart's agent leaves the address, for the next one.
    assert!(world.has_address(), "{}", agent.dump());
    let removed = world.node_command("remove", &[]);
    assert_eq!(removed.code, Some(0), "{}", removed.dump());
    assert_bare(world, &agent);
}
