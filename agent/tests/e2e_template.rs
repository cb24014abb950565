//! node-cache's way to a Corefile, with the real process: template, environment, ConfigMap.

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use nodens_testkit::process::signal::SIGTERM;
use nodens_testkit::{Process, Query, UdpClient, Upstream, answers, free_port};

use support::{Directory, NODENS, PATIENCE, eventually, loopback, runtime};

const SIGHUP: i32 = 1;

fn signing(number: u8) -> Upstream {
    Upstream::start(answers(move |query| query.response().answer(&format!("@ 60 IN A 192.0.2.{number}"))))
}

/// A template for an upstream behind the Service, on its port.
fn template(dns: SocketAddr, upstream: &Upstream) -> String {
    format!(
        ".:{} {{\n    errors\n    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n    \
         forward . __PILLAR__CLUSTER__DNS__:{} {{\n        force_tcp\n    }}\n    \
         nodens {{\n        workers 1\n        runtime {}\n    }}\n}}\n",
        dns.port(),
        upstream.addr().port(),
        runtime()
    )
}

struct Node {
    dns: SocketAddr,
    directory: Directory,
    process: Process,
}

impl Node {
    fn start(
        template: impl FnOnce(SocketAddr) -> String,
        variables: &[(&str, &str)],
        flags: &[&str],
    ) -> Node {
        let (directory, dns) = (Directory::create(), loopback(free_port()));
        let base = directory.write("Corefile.base", &template(dns));
        let corefile = directory.path("Corefile");
        let mut command = Command::new(NODENS);
        command.args(["-basecorefile", &base, "-corefile", &corefile, "-conf", &corefile]);
        command.args(["-localip", "127.0.0.1", "-upstreamsvc", "dns-upstream"]).args(flags);
        command.args(["-setupinterface=false", "-setupiptables=false", "-dns.port", &dns.port().to_string()]);
        command.envs(variables.iter().copied());
        Node { dns, directory, process: Process::spawn(command) }
    }

    fn expect_line(&self, text: &str) {
        let line = self.process.wait_for_line(text, PATIENCE);
        assert!(line.is_some(), "waited for {text:?}\n{}", self.process.dump());
    }

    fn ask(&self, name: &str) -> Option<String> {
        let reply = UdpClient::new().ask(self.dns, &Query::new(name, "A").bytes(), PATIENCE)?;
        reply.rdatas("A").first().map(|ip| (*ip).to_owned())
    }
}

const SERVICE: (&str, &str) = ("DNS_UPSTREAM_SERVICE_HOST", "127.0.0.1");

#[test]
fn without_the_service_it_waits_says_so_once_and_ends_when_told() {
    let upstream = signing(1);
    let mut node = Node::start(|dns| template(dns, &upstream), &[], &[]);
    node.expect_line("not ready: there is no DNS_UPSTREAM_SERVICE_HOST in the environment");
    node.process.signal(SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    assert!(node.process.is_running(), "{}", node.process.dump());
    assert_eq!(node.process.line_count(), 1, "{}", node.process.dump());
    // Nothing of the Service is needed any more.
    let text = template(node.dns, &upstream).replace("__PILLAR__CLUSTER__DNS__", "127.0.0.1");
    node.directory.write("Corefile.base", &text);
    node.process.signal(SIGHUP);
    node.expect_line("[INFO] ready");
    assert_eq!(node.ask("www.example.").as_deref(), Some("192.0.2.1"));
    node.process.signal(SIGTERM);
    assert_eq!(node.process.wait(PATIENCE).and_then(|status| status.code()), Some(0));

    let mut node = Node::start(|dns| template(dns, &upstream), &[], &[]);
    node.expect_line("not ready");
    node.process.signal(SIGTERM);
    assert_eq!(node.process.wait(PATIENCE).and_then(|status| status.code()), Some(0));
}

#[test]
fn n02_n03_an_edited_template_and_a_config_map_are_in_force_within_fifteen_seconds() {
    let (old, new) = (signing(1), signing(2));
    let config_map = Directory::create();
    let flags = ["-kubednscm", &config_map.path(""), "-reloadwithsignal", "-quiet=false"];
    let node = Node::start(|dns| template(dns, &old), &[SERVICE], &flags);
    node.expect_line("[INFO] ready");
    assert_eq!(node.ask("www.example.").as_deref(), Some("192.0.2.1"));
    config_map.write("stubDomains", &format!("{{\"acme.local\": [\"{}\"]}}", new.addr()));
    let text = template(node.dns, &new).replace(".:", "example:");
    let edited = Instant::now();
    node.directory.write("Corefile.base", &text);
    eventually("the new upstream answers", Duration::from_secs(15), || {
        (node.ask("www.example.").as_deref() == Some("192.0.2.2")).then_some(())
    });
    assert!(edited.elapsed() < Duration::from_secs(15));
    let corefile = std::fs::read_to_string(node.directory.path("Corefile")).expect("it was written");
    assert!(corefile.contains(&format!("acme.local:{} {{", node.dns.port())), "{corefile}");
}

#[test]
fn a_signal_fills_in_and_reloads_at_once_and_a_bad_template_changes_nothing() {
    let (old, new) = (signing(1), signing(2));
    let node = Node::start(|dns| template(dns, &old), &[SERVICE], &[]);
    node.expect_line("[INFO] ready");
    for broken in ["nonsense {", "__PILLAR__UNHEARD__OF__ {\n}\n"] {
        node.directory.write("Corefile.base", broken);
        let before = node.process.line_count();
        node.process.signal(SIGHUP);
        assert!(node.process.wait_for_line_after(before, "reload failed", PATIENCE).is_some());
        assert_eq!(node.ask("www.example.").as_deref(), Some("192.0.2.1"));
    }
    node.directory.write("Corefile.base", &template(node.dns, &new));
    let before = node.process.line_count();
    node.process.signal(SIGHUP);
    let done = node.process.wait_for_line_after(before, "Reloading complete", PATIENCE);
    assert!(done.is_some(), "{}", node.process.dump());
    assert_eq!(node.ask("www.example.").as_deref(), Some("192.0.2.2"));
}
