//! The life of the real process: signals, draining, two generations on one port, the demo.

mod support;

use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nodens_testkit::msg::rcode::NOERROR;
use nodens_testkit::process::signal::{SIGINT, SIGTERM};
use nodens_testkit::{
    Action, Process, Query, Received, Reply, TcpClient, UdpClient, Upstream, answers, ask_tcp, ask_udp,
    free_port,
};

use support::{Agent, COREFILE, NODENS, PATIENCE, eventually, get, loopback, report};

/// SIGQUIT, which ends nodens like the other two.
const SIGQUIT: i32 = 3;

fn named(name: &str) -> Query {
    Query::new(name, "A")
}

/// Answers at once, but names that begin with `slow` after this time.
fn upstream(slow: Duration) -> Upstream {
    Upstream::start(move |query: &Received| {
        let answer = Action::Send(query.response().answer("@ 60 IN A 192.0.2.1").bytes());
        if query.qname.starts_with("slow") { vec![Action::Delay(slow), answer] } else { vec![answer] }
    })
}

fn start(upstream: &Upstream, lameduck: &str) -> Agent {
    Agent::start(COREFILE, &[("UPSTREAM", &upstream.addr().to_string()), ("LAMEDUCK", lameduck)])
}

/// Lookups that the upstream has and nodens waits for: one over UDP, one over TCP.
fn slow_lookups(agent: &Agent, upstream: &Upstream) -> (UdpClient, TcpClient) {
    let (udp, mut tcp) = (UdpClient::new(), TcpClient::connect(agent.dns).expect("connected"));
    udp.send(agent.dns, &named("slow-udp.example.").bytes());
    tcp.send_framed(&named("slow-tcp.example.").bytes()).expect("sent");
    eventually("the upstream has both lookups", PATIENCE, || {
        ["slow-udp.example.", "slow-tcp.example."]
            .iter()
            .all(|name| upstream.count_for(name, "A") > 0)
            .then_some(())
    });
    (udp, tcp)
}

fn assert_both_answered((udp, mut tcp): (UdpClient, TcpClient)) {
    let (over_udp, _) = udp.recv(PATIENCE).expect("the lookup over UDP is answered");
    let over_tcp = tcp.recv_framed(PATIENCE).expect("the lookup over TCP is answered");
    for bytes in [over_udp, over_tcp] {
        assert_eq!(Reply::parse(&bytes).rdatas("A"), ["192.0.2.1"]);
    }
    assert!(tcp.recv_eof(PATIENCE), "the connection ends with the process");
}

fn assert_port_is_free(agent: &Agent) {
    // Without SO_REUSEPORT: fails if anybody holds it. The kernel lets go of an io_uring's sockets a little after the process.
    eventually("the ports are free", PATIENCE, || {
        (UdpSocket::bind(agent.dns).is_ok() && TcpListener::bind(agent.dns).is_ok()).then_some(())
    });
}

#[test]
fn m59_while_lameduck_ready_says_no_and_dns_says_yes() {
    const LAMEDUCK: Duration = Duration::from_millis(1500);
    let upstream = upstream(Duration::from_millis(300));
    let mut agent = start(&upstream, "1500ms");
    assert_eq!(agent.get("/ready").expect("served").status, 200);
    let lookups = slow_lookups(&agent, &upstream);
    let told = Instant::now();
    agent.process.signal(SIGTERM);
    eventually("/ready is 503", PATIENCE, || (agent.get("/ready")?.status == 503).then_some(()));
    assert_eq!(agent.get("/health").expect("served").status, 200, "who restarts it now, kills it");
    assert_eq!(agent.udp(&named("new.example.")).rcode, NOERROR, "new queries are still taken");
    assert_eq!(agent.tcp(&named("newer.example.")).rcode, NOERROR, "new connections as well");
    assert!(told.elapsed() < LAMEDUCK, "this test was too slow to show anything");
    assert_both_answered(lookups);
    assert_eq!(agent.exit_code(), Some(0), "{}", agent.process.dump());
    assert!(told.elapsed() >= LAMEDUCK, "ended after {:?}", told.elapsed());
    assert_port_is_free(&agent);
}

#[test]
fn l29_without_lameduck_what_is_in_flight_is_finished_for_each_signal() {
    for number in [SIGTERM, SIGINT, SIGQUIT] {
        let upstream = upstream(Duration::from_millis(400));
        let mut agent = start(&upstream, "0s");
        let idle = TcpClient::connect(agent.dns).expect("connected");
        let lookups = slow_lookups(&agent, &upstream);
        let told = Instant::now();
        agent.process.signal(number);
        assert_both_answered(lookups);
        assert_eq!(agent.exit_code(), Some(0), "{}", agent.process.dump());
        assert!(told.elapsed() < Duration::from_secs(3), "an idle connection holds nobody up");
        assert_port_is_free(&agent);
        drop(idle);
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    // Once while lameduck, once while draining.
    for lameduck in ["20s", "0s"] {
        let upstream = upstream(Duration::from_secs(60));
        let mut agent = start(&upstream, lameduck);
        let lookups = slow_lookups(&agent, &upstream);
        agent.process.signal(SIGTERM);
        let line = agent.process.wait_for_line("told to end", PATIENCE);
        assert!(line.is_some(), "{}", agent.process.dump());
        std::thread::sleep(Duration::from_millis(100));
        assert!(agent.process.is_running(), "there is something to wait for");
        let again = Instant::now();
        agent.process.signal(SIGTERM);
        assert_eq!(agent.exit_code(), Some(0), "{}", agent.process.dump());
        assert!(
            again.elapsed() < Duration::from_secs(1),
            "ended {:?} after the second signal",
            again.elapsed()
        );
        assert_port_is_free(&agent);
        drop(lookups);
    }
}

#[test]
fn the_next_generation_takes_over_the_port_without_losing_a_query() {
    const QUERIES: u32 = 500;
    const PACE: Duration = Duration::from_millis(2);
    const CLIENT_PATIENCE: Duration = Duration::from_secs(1);
    let upstream = Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")));
    let variables = [("UPSTREAM", &*upstream.addr().to_string())];
    let mut old = Agent::start(COREFILE, &variables);
    let new = Agent::try_start(COREFILE, &variables, old.dns, old.http).expect("the port can be shared");

    // Each query from a port of its own, so that the kernel spreads them over both.
    let (dns, begin) = (old.dns, Instant::now());
    let (half_way, half) = mpsc::channel();
    let lookups = std::thread::spawn(move || {
        let clients: Vec<(UdpClient, Instant)> = (0..QUERIES)
            .map(|n| {
                std::thread::sleep((PACE * n).saturating_sub(begin.elapsed()));
                if n == QUERIES / 2 {
                    half_way.send(()).expect("somebody waits for it");
                }
                let client = UdpClient::new();
                client.send(dns, &named(&format!("n{}.example.", n % 50)).bytes());
                (client, Instant::now())
            })
            .collect();
        let answered = |(client, sent): &(UdpClient, Instant)| {
            client.recv(CLIENT_PATIENCE.saturating_sub(sent.elapsed())).is_some()
        };
        clients.iter().filter(|client| !answered(client)).count()
    });
    half.recv_timeout(PATIENCE).expect("half of the queries sent");
    old.process.signal(SIGTERM);
    assert_eq!(old.exit_code(), Some(0), "{}", old.process.dump());
    let lost = lookups.join().expect("the clients' thread");
    let by_new = new.metrics().sum("coredns_dns_requests_total", &[]);
    report(&format!(
        "takeover of a port: {lost} of {QUERIES} queries lost, {by_new} served by the new process"
    ));
    assert_eq!(lost, 0, "of {QUERIES}; {}", old.process.dump());
    assert!(0 < by_new && by_new < u64::from(QUERIES), "both served: {by_new}");
}

#[test]
fn the_demo_answers_says_what_to_type_and_ends_with_ctrl_c() {
    let port = free_port();
    let mut demo = Process::start(NODENS, &["demo", "-dns.port", &port.to_string()], &[]);
    let dig = format!("dig @127.0.0.1 -p {port} kubernetes.default.svc.cluster.local");
    assert!(demo.wait_for_line(&dig, PATIENCE).is_some(), "{}", demo.dump());
    let addr = loopback(port);
    let kubernetes = named("kubernetes.default.svc.cluster.local.").bytes();
    for reply in [ask_udp(addr, &kubernetes), ask_tcp(addr, &kubernetes)] {
        assert_eq!(reply.expect("an answer").rdatas("A"), ["10.96.0.1"]);
    }
    let big = named("big.example.com.").edns(1232).bytes();
    assert!(ask_udp(addr, &big).expect("an answer").tc);
    assert_eq!(ask_tcp(addr, &big).expect("an answer").answers.len(), 100);
    demo.signal(SIGINT);
    assert_eq!(demo.wait(PATIENCE).and_then(|status| status.code()), Some(0), "{}", demo.dump());
    assert!(demo.stderr_lines().is_empty(), "{}", demo.dump());
    let last = demo.stdout_lines().pop().expect("a status line");
    assert!(last.starts_with("queries 4 ("), "{last}");
}

#[test]
fn health_is_served_until_the_end_and_an_unused_path_is_not() {
    let upstream = upstream(Duration::ZERO);
    let agent = start(&upstream, "0s");
    let health = agent.get("/health").expect("served");
    assert_eq!((health.status, health.body.as_str()), (200, "OK"));
    assert_eq!(agent.get("/elsewhere").expect("served").status, 404);
    let http = agent.http;
    drop(agent);
    assert!(get(http, "/health").is_none(), "nobody is there any more");
}
