//! nodens beside unbound, dnsdist and node-cache: the same upstream, the same load, one core each, taking turns.
//!
//! Every server gets one worker, no logging, a cache large enough for what is asked, and an upstream at 127.0.0.1. A server that is
//! not installed, or cannot do a scenario, is left out by name; nothing is estimated.

use crate::floor::{Row, Scenario, Settings, add, echo_round, measure};
use crate::load::Report;
use crate::process::{Server, free_port, pin};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The scenarios of a run, in the order of the table.
const SCENARIOS: [Scenario; 4] = [Scenario::Hits, Scenario::MissesUdp, Scenario::MissesTcp, Scenario::Mix];

/// A server that can be compared.
#[derive(Clone, Debug)]
pub struct Peer {
    kind: Kind,
    program: String,
    name: String,
}

#[derive(Clone, Debug)]
enum Kind {
    /// With this `-runtime`.
    Nodens(&'static str),
    Unbound,
    Dnsdist,
    /// node-cache, or CoreDNS itself.
    NodeCache,
}

/// A server's configuration for one scenario, in a directory of its own that goes when this does.
#[derive(Debug)]
struct Prepared {
    command: Vec<String>,
    env: Vec<(&'static str, &'static str)>,
    directory: PathBuf,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// The peers that are here; what is missing is said aloud.
pub fn find(nodens: &str, node_cache: Option<&str>) -> Vec<Peer> {
    let mut peers = vec![];
    if Path::new(nodens).is_file() {
        for runtime in ["uring", "tokio"] {
            peers.push(Peer {
                kind: Kind::Nodens(runtime),
                program: nodens.to_string(),
                name: format!("nodens on {runtime}"),
            });
        }
    } else {
        println!("*** MISSING: nodens is not at {nodens}: cargo build --release, or name it with --nodens");
    }
    for (kind, program) in [(Kind::Unbound, "unbound"), (Kind::Dnsdist, "dnsdist")] {
        match which(program) {
            Some(path) => {
                let version = version(&path, if program == "unbound" { "-V" } else { "--version" });
                peers.push(Peer { kind, program: path, name: format!("{program} {version}") });
            }
            None => println!("*** MISSING: {program} is not installed: run benches/install-peers as root"),
        }
    }
    match node_cache {
        Some(path) if Path::new(path).is_file() => {
            let name = Path::new(path).file_name().map_or("node-cache".into(), |name| name.to_string_lossy());
            peers.push(Peer { kind: Kind::NodeCache, program: path.to_string(), name: name.into_owned() });
        }
        Some(path) => println!("*** MISSING: NODE_CACHE_BIN={path} is not there"),
        None => println!("*** MISSING: node-cache: name its binary in NODE_CACHE_BIN"),
    }
    peers
}

/// Runs all rounds of the echo programs and, if `peers` is not empty, of the peers.
///
/// # Errors
///
/// The upstream does not start, or there is no core for the load.
pub fn run(peers: &[Peer], settings: &Settings) -> io::Result<Vec<Row>> {
    pin(settings.load_core)?;
    let mut rows: Vec<Row> = vec![];
    for round in 1..=settings.rounds {
        println!("round {round} of {}", settings.rounds);
        echo_round(&mut rows, settings);
        for scenario in SCENARIOS {
            for peer in peers {
                // What could not be done in the first round was said then.
                let has_row = rows.iter().any(|row| row.name == peer.name && row.scenario == scenario);
                if round == 1 || has_row {
                    add(&mut rows, &peer.name, scenario, turn(peer, scenario, settings));
                }
            }
        }
    }
    Ok(rows)
}

/// A fresh upstream, a fresh server, one measurement.
fn turn(peer: &Peer, scenario: Scenario, settings: &Settings) -> io::Result<Report> {
    let (_upstream, upstream) = Server::start_own(settings.load_core, &["upstream"])?;
    let port = free_port()?;
    let prepared = peer.prepare(scenario, port, upstream)?;
    let mut server = Server::start(settings.server_core, &prepared.command, &prepared.env)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    server.wait_for_answer(address)?;
    measure(scenario, &server, address, settings)
}

impl Peer {
    /// What tables call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, scenario: Scenario, port: u16, upstream: SocketAddr) -> io::Result<Prepared> {
        let directory = std::env::temp_dir().join(format!("nodens-bench-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let file = directory.join("config");
        let path = file.display().to_string();
        let over_tcp = scenario == Scenario::MissesTcp;
        let mut env = vec![];
        let (text, arguments) = match &self.kind {
            Kind::Nodens(runtime) => {
                (corefile(port, upstream, over_tcp, true), vec!["-conf", &path, "-runtime", runtime])
            }
            Kind::NodeCache => {
                env.push(("GOMAXPROCS", "1"));
                let mut arguments = vec!["-conf", &path];
                if self.name.contains("node") {
                    arguments.extend([
                        "-localip",
                        "127.0.0.1",
                        "-setupinterface=false",
                        "-setupiptables=false",
                    ]);
                }
                (corefile(port, upstream, over_tcp, false), arguments)
            }
            Kind::Unbound => (unbound_conf(port, upstream, over_tcp), vec!["-d", "-c", &path]),
            Kind::Dnsdist => (
                dnsdist_conf(port, upstream, over_tcp),
                vec!["--supervised", "--disable-syslog", "-C", &path],
            ),
        };
        std::fs::write(&file, text)?;
        let words = std::iter::once(self.program.as_str()).chain(arguments);
        let command = words.map(str::to_string).collect();
        Ok(Prepared { command, env, directory })
    }
}

/// The seed's kind of block: everything to one upstream, TTL caps as in the chart, but room for every name.
fn corefile(port: u16, upstream: SocketAddr, over_tcp: bool, is_nodens: bool) -> String {
    let force_tcp = if over_tcp { " {\n        force_tcp\n    }" } else { "" };
    let own = if is_nodens { "    nodens {\n        workers 1\n    }\n" } else { "" };
    format!(
        ".:{port} {{\n    bind 127.0.0.1\n    errors\n    cache 30 {{\n        success 100000 30\n        \
         denial 100000 30\n    }}\n    forward . {upstream}{force_tcp}\n{own}}}\n"
    )
}

fn unbound_conf(port: u16, upstream: SocketAddr, over_tcp: bool) -> String {
    format!(
        "server:
  interface: 127.0.0.1@{port}
  port: {port}
  num-threads: 1
  username: \"\"
  chroot: \"\"
  directory: \"\"
  pidfile: \"\"
  use-syslog: no
  logfile: \"\"
  verbosity: 0
  module-config: \"iterator\"
  do-not-query-localhost: no
  local-zone: \"10.in-addr.arpa.\" nodefault
  qname-minimisation: no
  harden-below-nxdomain: no
  minimal-responses: yes
  do-ip6: no
  msg-cache-size: 64m
  rrset-cache-size: 64m
  outgoing-range: 4096
  num-queries-per-thread: 2048
  outgoing-num-tcp: 64
  so-rcvbuf: 1m
forward-zone:
  name: \".\"
  forward-addr: {}@{}
  forward-tcp-upstream: {}
remote-control:
  control-enable: no
",
        upstream.ip(),
        upstream.port(),
        if over_tcp { "yes" } else { "no" }
    )
}

fn dnsdist_conf(port: u16, upstream: SocketAddr, over_tcp: bool) -> String {
    format!(
        "setLocal('127.0.0.1:{port}')
setSecurityPollSuffix('')
setMaxTCPClientThreads(1)
newServer({{address='{upstream}', healthCheckMode='up', tcpOnly={over_tcp}}})
getPool(''):setCache(newPacketCache(200000, {{maxTTL=30}}))
"
    )
}

fn which(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    folders
        .map(|folder| Path::new(folder).join(program))
        .find(|file| file.is_file())
        .map(|file| file.display().to_string())
}

/// The first word of what `program flag` prints that looks like a version.
fn version(program: &str, flag: &str) -> String {
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    text.split_ascii_whitespace().find(is_version).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str = "127.0.0.1:5399";

    #[test]
    fn each_server_is_told_port_upstream_and_transport() {
        let upstream = UPSTREAM.parse().expect("an address");
        for write in [
            |p, u, t| corefile(p, u, t, true),
            |p, u, t| corefile(p, u, t, false),
            unbound_conf,
            dnsdist_conf,
        ] {
            let (udp, tcp) = (write(5311, upstream, false), write(5311, upstream, true));
            assert!(udp.contains("5311") && udp.contains("127.0.0.1") && udp.contains("5399"), "{udp}");
            assert_ne!(udp, tcp, "the transport makes a difference");
        }
    }

    #[test]
    fn a_configuration_goes_with_its_use() {
        let peer = Peer { kind: Kind::Unbound, program: "unbound".to_string(), name: "unbound".to_string() };
        let prepared = peer.prepare(Scenario::Hits, 1, UPSTREAM.parse().expect("an address")).expect("room");
        let directory = prepared.directory.clone();
        assert!(prepared.command.last().is_some_and(|path| Path::new(path).is_file()));
        drop(prepared);
        assert!(!directory.exists());
    }

    #[test]
    fn what_is_not_installed_is_not_found() {
        assert_eq!(which("nodens-no-such-program"), None);
        assert!(which("sh").is_some());
        assert!(find("/nodens/is/not/here", None).iter().all(|peer| !peer.name.contains("nodens")));
    }
}
