//! A "node" with the agent on it: a network namespace, or a whole machine; an upstream, a "Pod" and a Corefile.

#![allow(dead_code, reason = "each test binary uses its part of this")]

#[path = "../../../node/tests/support/mod.rs"]
pub(crate) mod netns;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use nodens_testkit::process::signal::SIGTERM;
use nodens_testkit::{Action, Load, Process, Query, Received, TcpClient, UdpClient, Upstream};

use crate::support::{Directory, Ended, Metrics, NODENS, PATIENCE, get, run, runtime};
use netns::{ADDRESS, Namespace};

/// What the agent is configured with, unless a test writes another Corefile.
pub(crate) const COREFILE: &str = "\
.:53 {
    bind 169.254.20.10
    errors
    cache 30
    forward . 127.0.0.9:5300
    health 169.254.20.10:8080
    prometheus 127.0.0.1:9253
    nodens {
        workers 1
        runtime {$RUNTIME}
    }
}
";

/// The upstream, in the node's namespace.
pub(crate) const UPSTREAM: &str = "127.0.0.9:5300";

/// What the upstream answers everything with.
pub(crate) const ANSWER: &str = "192.0.2.1";

/// How long the upstream takes for names that begin with `u`.
const SLOW: Duration = Duration::from_millis(20);

/// One node with what is on it.
pub(crate) struct World {
    pub(crate) node: Namespace,
    pub(crate) pod: Namespace,
    pub(crate) directory: Directory,
    _upstream: Upstream,
}

impl World {
    /// In a namespace of its own; `None` if there cannot be one here, or if one of `programs` is missing.
    pub(crate) fn new(programs: &[&str]) -> Option<World> {
        Namespace::new(programs).map(World::on)
    }

    /// On this node.
    pub(crate) fn on(node: Namespace) -> World {
        let pod = node.pod(1);
        let address: SocketAddr = UPSTREAM.parse().expect("an address");
        let handler = |query: &Received| {
            let answer = Action::Send(query.response().answer(&format!("@ 60 IN A {ANSWER}")).bytes());
            // The names of a `Load` that nobody asked for before.
            if query.qname.starts_with('u') { vec![Action::Delay(SLOW), answer] } else { vec![answer] }
        };
        let upstream = node.enter(|| Upstream::on(address, handler));
        let directory = Directory::create();
        directory.write("Corefile", COREFILE);
        World { node, pod, directory, _upstream: upstream }
    }

    /// A command that runs in the node's namespace.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.node.name]).args(arguments).env("RUNTIME", runtime());
        command
    }

    /// The agent as a DaemonSet starts it.
    pub(crate) fn start(&self, flags: &[&str]) -> Process {
        let path = self.directory.path("Corefile");
        let mut command = Command::new(NODENS);
        command.args(["-localip", ADDRESS, "-conf", &path]).args(flags).env("RUNTIME", runtime());
        // At once: `ip netns exec` takes 15 ms, which would count where a restart is measured.
        self.node.enter(|| Process::spawn(command))
    }

    /// The agent, with rules and all.
    pub(crate) fn started(&self, flags: &[&str]) -> Process {
        let agent = self.start(flags);
        expect(&agent, "[INFO] packet rules by ");
        agent
    }

    /// `nodens node …`
    pub(crate) fn node_command(&self, verb: &str, flags: &[&str]) -> Ended {
        let mut command = self.command(&[NODENS, "node", verb, "-localip", ADDRESS]);
        command.args(flags);
        run(command)
    }

    /// A Pod's lookup over UDP.
    pub(crate) fn resolves(&self) -> bool {
        self.resolves_at(ADDRESS)
    }

    /// A Pod's lookup over UDP, at one of the agent's addresses.
    pub(crate) fn resolves_at(&self, address: &str) -> bool {
        self.resolves_within(address, Duration::from_secs(2))
    }

    /// The same, for a Pod that waits this long.
    pub(crate) fn resolves_within(&self, address: &str, timeout: Duration) -> bool {
        self.pod.enter(|| {
            let query = Query::new("www.example.", "A");
            let server = SocketAddr::new(netns::ip(address), 53);
            let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let client = UdpClient::bind(any.parse().expect("an address"));
            let reply = client.ask(server, &query.bytes(), timeout);
            reply.is_some_and(|reply| reply.rdatas("A") == [ANSWER])
        })
    }

    /// The same over TCP.
    pub(crate) fn resolves_over_tcp(&self, address: &str) -> bool {
        self.pod.enter(|| {
            let server = SocketAddr::new(netns::ip(address), 53);
            let Ok(mut client) = TcpClient::connect(server) else { return false };
            let reply = client.ask(&Query::new("www.example.", "A").bytes(), Duration::from_secs(2));
            reply.is_some_and(|reply| reply.rdatas("A") == [ANSWER])
        })
    }

    /// A Pod asks all the time.
    pub(crate) fn load(&self, per_second: u32) -> Load {
        self.pod.enter(|| Load::start(SocketAddr::new(netns::ip(ADDRESS), 53), per_second))
    }

    /// The same with names that are in the cache, nearly all of the time.
    pub(crate) fn load_known(&self, per_second: u32) -> Load {
        self.pod.enter(|| Load::start_known(SocketAddr::new(netns::ip(ADDRESS), 53), per_second))
    }

    pub(crate) fn has_address(&self) -> bool {
        self.node.shell("ip -o address").contains(ADDRESS)
    }

    /// How many of our rules of nftables keep something from being tracked.
    pub(crate) fn rules(&self) -> usize {
        self.node.shell("nft list ruleset").matches("notrack").count()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let page = self.node.enter(|| get(SocketAddr::from(([127, 0, 0, 1], 9253)), "/metrics"));
        Metrics::read(page.expect("/metrics answers").body)
    }
}

/// Waits for a line of it.
pub(crate) fn expect(process: &Process, text: &str) -> String {
    let line = process.wait_for_line(text, PATIENCE);
    line.unwrap_or_else(|| panic!("waited for {text:?}\n{}", process.dump()))
}

/// Ends it as a kubelet does.
pub(crate) fn end(process: &mut Process) {
    process.signal(SIGTERM);
    let status = process.wait(PATIENCE);
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", process.dump());
}

/// A resolv.conf that `ip netns exec` shows in one namespace.
pub(crate) struct EtcNetns(std::path::PathBuf);

impl EtcNetns {
    /// Shows `text` in this namespace.
    pub(crate) fn write(namespace: &str, text: &str) -> EtcNetns {
        let folder = std::path::Path::new("/etc/netns").join(namespace);
        std::fs::create_dir_all(&folder).expect("root may");
        std::fs::write(folder.join("resolv.conf"), text).expect("root may");
        EtcNetns(folder)
    }
}

impl Drop for EtcNetns {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
