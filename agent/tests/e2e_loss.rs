//! The real binary and upstreams that fall silent: whole, or a single TCP flow of theirs that netfilter swallows (reliability.md
//! §0.3, §0.4, §0.6).
//!
//! The flow dies in a network namespace of its own, where rules harm nobody: the test runs itself again inside. That takes root and
//! Debian's iptables; without them it says so and shows nothing.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nodens_testkit::msg::rcode::NOERROR;
use nodens_testkit::{Action, Query, Reply, UdpClient, Upstream, answers};

use support::{Agent, COREFILE, PATIENCE, report, run, skip, tool};

/// Set to anything: outages last as long as where they were measured first.
const LONG: &str = "NODENS_TEST_LONG";
/// Set in the run inside the namespace.
const INSIDE: &str = "NODENS_TEST_INSIDE_NAMESPACE";

fn upstream() -> Upstream {
    Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")))
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn seconds(short: u64, long: u64) -> Duration {
    Duration::from_secs(if is_set(LONG) { long } else { short })
}

/// [`COREFILE`] with other options of `forward`.
fn corefile(upstreams: usize, options: &str) -> String {
    let variables = (0..upstreams).map(|n| format!("{{$UPSTREAM{n}}}")).collect::<Vec<_>>().join(" ");
    let text = COREFILE.replace("health_check 100ms", options).replace("{$UPSTREAM}", &variables);
    assert!(text.contains(&variables) && text.contains(options), "{text}");
    text
}

fn start(corefile: &str, upstreams: &[&Upstream]) -> Agent {
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.addr().to_string()).collect();
    let names: Vec<_> = (0..upstreams.len()).map(|n| format!("UPSTREAM{n}")).collect();
    let variables: Vec<_> =
        names.iter().map(String::as_str).zip(addresses.iter().map(String::as_str)).collect();
    Agent::start(corefile, &variables)
}

/// What a steady stream of questions came to; who asks waits for five seconds and never asks again.
struct Flow {
    /// When each was asked, since the beginning, and how long the answer took.
    took: Vec<(Duration, Duration)>,
    /// RCODEs that are no success.
    failed: Vec<u16>,
    lost: usize,
}

impl Flow {
    /// `count` questions from ports of their own, one every `gap`. `{n}` in the name is the number of the question.
    fn ask(dns: SocketAddr, name: &str, count: u32, gap: Duration) -> Flow {
        let began = Instant::now();
        let asked: Vec<_> = (0..count)
            .map(|n| {
                thread::sleep((gap * n).saturating_sub(began.elapsed()));
                let query = Query::new(&name.replace("{n}", &n.to_string()), "A").id(n as u16);
                thread::spawn(move || {
                    let at = Instant::now();
                    let reply = UdpClient::new().ask(dns, &query.bytes(), Duration::from_secs(5));
                    (at, at.elapsed(), reply)
                })
            })
            .collect();
        let mut flow = Flow { took: Vec::new(), failed: Vec::new(), lost: 0 };
        for (at, took, reply) in asked.into_iter().map(|client| client.join().expect("a client")) {
            match reply {
                None => flow.lost += 1,
                Some(reply) if reply.rcode != NOERROR => flow.failed.push(reply.rcode),
                Some(reply) => assert_eq!(reply.rdatas("A"), ["192.0.2.1"]),
            }
            flow.took.push((at - began, took));
        }
        flow
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut took: Vec<_> = self.took.iter().map(|(_, took)| *took).collect();
        took.sort_unstable();
        took[(took.len() * percent).div_ceil(100).max(1) - 1]
    }

    fn slowest(&self) -> Duration {
        self.took.iter().map(|(_, took)| *took).max().unwrap_or_default()
    }

    fn report(&self, what: &str) {
        report(&format!(
            "{what}: {} queries, {} lost, {} failed, median {:?}, p99 {:?}, slowest {:?}",
            self.took.len(),
            self.lost,
            self.failed.len(),
            self.percentile(50),
            self.percentile(99),
            self.slowest()
        ));
    }

    /// Everybody has an answer that is one.
    fn expect(&self, what: &str) {
        self.report(what);
        assert!(self.lost == 0 && self.failed.is_empty(), "{what}: {} lost, {:?}", self.lost, self.failed);
    }
}

/// Runs this test again in a network namespace; true inside.
fn in_a_namespace(test: &str) -> bool {
    if is_set(INSIDE) {
        return true;
    }
    let tools = [("unshare", "util-linux"), ("ip", "iproute2"), ("ss", "iproute2"), ("iptables", "iptables")];
    if tools.iter().any(|(program, package)| tool(program, package).is_none()) {
        return false;
    }
    // What the test is about to do, tried without consequences.
    let mut attempt = Command::new("unshare");
    attempt.args([
        "-n",
        "sh",
        "-c",
        "ip link set lo up && iptables -I OUTPUT -p tcp --sport 1 --dport 2 -j DROP",
    ]);
    let attempt = run(with_path(attempt));
    if attempt.code != Some(0) {
        skip(&format!("no namespace with packet rules of its own here (needs root): {}", attempt.dump()));
        return false;
    }
    let mut inside = Command::new("unshare");
    inside.args(["-n", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
    inside.arg(std::env::current_exe().expect("a test binary has a path"));
    inside.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let mut process = nodens_testkit::Process::spawn(with_path(inside));
    let status = process.wait(Duration::from_secs(60));
    let measured = process.stderr_lines().into_iter().filter(|line| line.starts_with("measured: "));
    measured.for_each(|line| nodens_testkit::note(&line));
    assert!(status.is_some_and(|status| status.success()), "inside the namespace: {}", process.dump());
    assert!(process.dump().contains("1 passed"), "it did run: {}", process.dump());
    false
}

/// Debian keeps packet tools where users do not look.
fn with_path(mut command: Command) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// Drops everything, both ways, on the established connections to `upstream`; returns how many there were.
fn black_hole(upstream: SocketAddr) -> usize {
    let mut ss = Command::new("ss");
    let to = format!("dport = :{}", upstream.port());
    ss.args(["-tnH", "state", "established", &to]);
    let listed = run(with_path(ss));
    assert_eq!(listed.code, Some(0), "{}", listed.dump());
    // Recv-Q, Send-Q, local address, peer.
    let port = |line: &String| line.split_whitespace().nth(2)?.rsplit(':').next()?.parse::<u16>().ok();
    let ports: Vec<u16> = listed.out.iter().filter_map(port).collect();
    for local in &ports {
        for (from, to) in [(*local, upstream.port()), (upstream.port(), *local)] {
            let mut rule = Command::new("iptables");
            let (from, to) = (from.to_string(), to.to_string());
            rule.args(["-w", "-I", "OUTPUT", "-p", "tcp", "--sport", &from, "--dport", &to, "-j", "DROP"]);
            let done = run(with_path(rule));
            assert_eq!(done.code, Some(0), "{}", done.dump());
        }
    }
    ports.len()
}

#[test]
fn a_tcp_flow_that_netfilter_swallows_loses_nothing() {
    if !in_a_namespace("a_tcp_flow_that_netfilter_swallows_loses_nothing") {
        return;
    }
    let upstream = upstream();
    let agent = start(&corefile(1, "force_tcp"), &[&upstream]);
    let dns = agent.dns;
    let clients = thread::spawn(move || Flow::ask(dns, "n{n}.example.", 160, Duration::from_millis(25)));
    thread::sleep(Duration::from_millis(1500));
    let flows = black_hole(upstream.addr());
    assert!(flows >= 1, "there was nothing to swallow");
    let (before, flow) = (upstream.connections(), clients.join().expect("clients"));
    flow.expect(&format!("{flows} TCP flows black-holed at 1.5 s"));
    assert!(upstream.connections() > before, "new connections took over");
    assert!(flow.slowest() < Duration::from_millis(600), "{:?}", flow.slowest());
    assert_eq!(agent.metrics().sum("nodens_upstream_down", &[]), 0, "the upstream is not to blame");
}

/// One of two upstreams hears everything and says nothing for a while, in the middle of 50 queries a second.
fn one_of_two_is_silent(transport: &str) {
    let (first, second) = (upstream(), upstream());
    let agent = start(&corefile(2, transport), &[&first, &second]);
    let (dns, outage) = (agent.dns, seconds(3, 9));
    let count = if is_set(LONG) { 1000 } else { 250 };
    let clients = thread::spawn(move || Flow::ask(dns, "n{n}.example.", count, Duration::from_millis(20)));
    thread::sleep(Duration::from_secs(1));
    first.pause();
    thread::sleep(outage);
    first.resume();
    let flow = clients.join().expect("clients");
    flow.expect(&format!("one of two upstreams silent for {outage:?} ({transport})"));
    assert!(flow.slowest() < Duration::from_secs(1), "{:?}", flow.slowest());
}

#[test]
fn one_of_two_upstreams_silent_over_udp() {
    one_of_two_is_silent("prefer_udp");
}

#[test]
fn one_of_two_upstreams_silent_over_tcp() {
    one_of_two_is_silent("force_tcp");
}

/// Strictly one answer after the other on each connection, 20 ms each, as CoreDNS works.
fn serial_upstream() -> Upstream {
    const WORK: Duration = Duration::from_millis(20);
    let busy_until: Mutex<HashMap<Option<usize>, Instant>> = Mutex::default();
    Upstream::start(move |query| {
        let mut busy_until = busy_until.lock().expect("no panic");
        let now = Instant::now();
        let until = busy_until.get(&query.connection).map_or(now, |until| now.max(*until)) + WORK;
        busy_until.insert(query.connection, until);
        let answer = query.response().answer("@ 60 IN A 192.0.2.1").bytes();
        vec![Action::Delay(until - now), Action::Send(answer)]
    })
}

#[test]
fn a_serial_upstream_under_1000_misses_a_second_holds_up_nobody() {
    let upstream = serial_upstream();
    let agent = start(&corefile(1, "force_tcp"), &[&upstream]);
    let (count, gap) = if is_set(LONG) { (5000, 1) } else { (500, 2) };
    let flow = Flow::ask(agent.dns, "n{n}.example.", count, Duration::from_millis(gap));
    flow.expect(&format!("serial upstream, 20 ms each, {} misses/s", 1000 / gap));
    // The short form runs on machines that are busy with other tests, and half of it is the pool's first steps.
    let (percent, most_ms) = if is_set(LONG) { (99, 60) } else { (50, 100) };
    let took = flow.percentile(percent);
    assert!(took < Duration::from_millis(most_ms), "p{percent} {took:?}");
}

/// Resident memory, now and at most, in KiB.
fn memory_kib(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// What a Pod may use of a node's memory for this.
const MEMORY_MAX_KIB: u64 = 40 * 1024;

/// 800 different questions a second whose upstream is dead, while a quiet client asks for what is cached.
fn a_dead_upstream(transport: &str) {
    const A_SECOND: u32 = 800;
    let upstream = upstream();
    let agent = start(&corefile(1, transport), &[&upstream]);
    let dns = agent.dns;
    assert_eq!(agent.udp(&Query::new("kept.example.", "A")).rcode, NOERROR);
    let idle = memory_kib(agent.process.pid()).0;
    upstream.pause();
    let lasts = seconds(5, 10);
    let quiet = thread::spawn(move || {
        let count = lasts.as_millis() as u32 / 100;
        Flow::ask(dns, "kept.example.", count, Duration::from_millis(100))
    });
    let (noisy, began) = (UdpClient::new(), Instant::now());
    let mut answered = 0;
    let count = A_SECOND * lasts.as_secs() as u32;
    for n in 0..count {
        noisy.send(dns, &Query::new(&format!("dead{n}.example."), "A").id(n as u16).bytes());
        let due = began + Duration::from_secs(1) * n / A_SECOND;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            answered += u32::from(noisy.recv(left).is_some());
        }
    }
    let sending = began.elapsed();
    while answered < count && noisy.recv(PATIENCE).is_some() {
        answered += 1;
    }
    let (_, peak) = memory_kib(agent.process.pid());
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    report(&format!(
        "dead upstream ({transport}, {build}): {count} misses in {sending:?}, {answered} answered; RSS idle {:.1}, at most {:.1} MiB",
        idle as f64 / 1024.0,
        peak as f64 / 1024.0
    ));
    quiet.join().expect("the quiet client").expect(&format!("cached answers meanwhile ({transport})"));
    assert_eq!(answered, count, "whoever asks is told");
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
    let told = UdpClient::new().ask_raw(dns, &Query::new("one-more.example.", "A").bytes(), PATIENCE);
    assert_ne!(Reply::parse(&told.expect("an answer")).rcode, NOERROR);
}

#[test]
fn memory_stays_small_while_an_upstream_is_dead_over_udp() {
    a_dead_upstream("prefer_udp");
}

#[test]
fn memory_stays_small_while_an_upstream_is_dead_over_tcp() {
    a_dead_upstream("force_tcp");
}
