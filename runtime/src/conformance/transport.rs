//! Rows G, H, I and J where upstreams are asked over TCP, and what peers on a connection may do wrong (reliability.md S19).
//!
//! Which transport a query takes, how connections are kept, given up and replaced, and that none of it costs a client its
//! answer. What only UDP shows is in [`selection`](super::selection); what the pool decides to the millisecond, in the core's
//! own tests.
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::{Bench, PATIENCE, Row, Setup, sleep_ms};
use super::harness::{forwarding_to, start};
use crate::worker::Runtime;
use nodens_core::config::{ForwardRules, Limits, Policy, UpstreamTransport};
use nodens_core::wire::{Name, Rcode};
use nodens_testkit::msg::rcode::{NOERROR, REFUSED, SERVFAIL};
use nodens_testkit::msg::rtype;
use nodens_testkit::{Action, Query, Received, Reply, Transport, UdpClient, Upstream};
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn named(n: usize) -> Query {
    Query::new(&format!("n{n}.example."), "A")
}

/// An address that depends on the name, so that an answer to another question is noticed.
fn address_of(n: usize) -> String {
    format!("192.0.{}.{}", n / 250, n % 250 + 1)
}

fn number(query: &Received) -> usize {
    query.qname.trim_start_matches('n').split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn answer(query: &Received) -> Vec<u8> {
    query.response().answer(&format!("@ 60 IN A {}", address_of(number(query)))).bytes()
}

fn sends(query: &Received) -> Vec<Action> {
    vec![Action::Send(answer(query))]
}

/// Changes the zone's `forward`.
fn forward(mut setup: Setup, change: impl FnOnce(&mut ForwardRules)) -> Setup {
    if let Some(forward) = &mut setup.config.zones[0].forward {
        change(forward);
    }
    setup
}

/// `force_tcp`, for queries and probes, with one worker.
fn force_tcp(setup: Setup) -> Setup {
    let mut setup = forward(setup.one_worker(), |forward| forward.transport = UpstreamTransport::ForceTcp);
    for upstream in &mut setup.config.upstreams {
        upstream.probe_transport = nodens_core::Transport::Tcp;
    }
    setup
}

/// Over UDP, then over TCP.
fn both_transports() -> [fn(Setup) -> Setup; 2] {
    [Setup::one_worker, force_tcp]
}

fn over_tcp<R: Runtime>(handler: impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static) -> Row {
    Row::behind::<R>(Upstream::start(handler), force_tcp)
}

/// How a question of a client over UDP and one of a client over TCP reach the upstream.
fn carried<R: Runtime>(transport: UpstreamTransport) -> [Vec<Transport>; 2] {
    let row = Row::behind::<R>(Upstream::start(sends), |setup| {
        forward(setup.one_worker(), |forward| forward.transport = transport)
    });
    let seen = |reply: Reply| {
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
        let seen = row.upstream.received().iter().map(|query| query.transport).collect::<Vec<_>>();
        row.upstream.clear();
        seen
    };
    [seen(row.bench.ask(&named(1))), seen(row.bench.ask_tcp(&named(2)))]
}

pub fn h01_h05_without_an_option_it_goes_as_it_came<R: Runtime>() {
    assert_eq!(carried::<R>(UpstreamTransport::AsClient), [vec![Transport::Udp], vec![Transport::Tcp]]);
}

/// With both options the configuration says the same: `force_tcp` beats `prefer_udp`.
pub fn h02_h04_h06_h08_force_tcp_forces_tcp<R: Runtime>() {
    assert_eq!(carried::<R>(UpstreamTransport::ForceTcp), [vec![Transport::Tcp], vec![Transport::Tcp]]);
}

pub fn h03_h07_prefer_udp_prefers_udp<R: Runtime>() {
    assert_eq!(carried::<R>(UpstreamTransport::PreferUdp), [vec![Transport::Udp], vec![Transport::Udp]]);
}

/// More than fits into 512 bytes.
const MANY: usize = 40;

fn many(query: &Received) -> Vec<u8> {
    let lines = (0..MANY).map(|n| format!("@ 60 IN A {}", address_of(n)));
    lines.fold(query.response(), |response, line| response.answer(&line)).bytes()
}

/// Asks for an answer of [`MANY`] addresses in every way that has room for it, and in the one that has not.
fn overflows<R: Runtime>(
    transport: UpstreamTransport,
    handler: impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static,
) -> Vec<Transport> {
    let row = Row::behind::<R>(Upstream::start(handler), |setup| {
        forward(setup.one_worker(), |forward| forward.transport = transport)
    });
    let small = row.bench.ask(&named(1));
    assert!(small.tc && small.answers.len() < MANY, "512 bytes are all that this client takes");
    let seen = row.upstream.received().iter().map(|query| query.transport).collect();
    for whole in [row.bench.ask(&named(2).edns(1232)), row.bench.ask_tcp(&named(3))] {
        assert_eq!((whole.tc, whole.rdatas("A").len()), (false, MANY));
    }
    seen
}

pub fn h09_prefer_udp_and_an_answer_beyond_512_bytes<R: Runtime>() {
    let seen = overflows::<R>(UpstreamTransport::PreferUdp, |query| vec![Action::Send(many(query))]);
    assert_eq!(seen, [Transport::Udp], "we take more than 512 bytes, so there is nothing to repeat");
}

pub fn h09_prefer_udp_and_an_answer_cut_off_at_512_bytes<R: Runtime>() {
    let seen = overflows::<R>(UpstreamTransport::PreferUdp, |query| match query.transport {
        Transport::Udp => vec![Action::Send(query.response().tc().bytes())],
        Transport::Tcp => vec![Action::Send(many(query))],
    });
    assert_eq!(seen, [Transport::Udp, Transport::Tcp], "what was cut off is fetched over TCP");
}

pub fn h11_h12_force_tcp_and_an_answer_beyond_512_bytes<R: Runtime>() {
    let seen = overflows::<R>(UpstreamTransport::ForceTcp, |query| vec![Action::Send(many(query))]);
    assert_eq!(seen, [Transport::Tcp]);
}

pub fn h25_prefer_udp_follows_tc_for_a_client_over_tcp<R: Runtime>() {
    let upstream = Upstream::start(|query| match query.transport {
        Transport::Udp => vec![Action::Send(query.response().tc().bytes())],
        Transport::Tcp => sends(query),
    });
    let row = Row::behind::<R>(upstream, |setup| {
        forward(setup.one_worker(), |forward| forward.transport = UpstreamTransport::PreferUdp)
    });
    let reply = row.bench.ask_tcp(&named(7));
    assert_eq!((reply.tc, reply.rdatas("A")), (false, vec![&*address_of(7)]));
    let seen: Vec<_> = row.upstream.received().iter().map(|query| query.transport).collect();
    assert_eq!(seen, [Transport::Udp, Transport::Tcp]);
}

/// Questions one after the other with a pause between them; each must be answered well. The upstream ends each connection in some
/// way, and that is nobody's failure.
fn survives<R: Runtime>(pause_ms: u64, handler: impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static) {
    let row = over_tcp::<R>(handler);
    for n in 0..20 {
        assert_eq!(row.bench.ask(&named(n)).rdatas("A"), [address_of(n)], "question {n}");
        sleep_ms(pause_ms);
    }
    let of = |counter: fn(&nodens_core::stats::UpstreamStats) -> &nodens_core::stats::Counter| {
        row.bench.upstream(0, counter)
    };
    assert_eq!((of(|u| &u.down), of(|u| &u.probes)), (0, 0), "the end of a connection is no failure");
    assert!(row.upstream.connections() > 1, "it did end them");
}

const LATER: Action = Action::Delay(Duration::from_millis(15));

pub fn h28_idle_connections_that_the_upstream_closes<R: Runtime>() {
    survives::<R>(30, |query| vec![Action::Send(answer(query)), LATER, Action::Close]);
}

pub fn h28_connections_that_the_upstream_closes_while_we_ask<R: Runtime>() {
    survives::<R>(0, |query| vec![Action::Send(answer(query)), Action::Close]);
}

pub fn h29_idle_connections_that_the_upstream_resets<R: Runtime>() {
    survives::<R>(30, |query| vec![Action::Send(answer(query)), LATER, Action::Reset]);
}

/// What was asked on each connection so far, this query included.
fn count_on_connection(counts: &Mutex<HashMap<usize, usize>>, query: &Received) -> usize {
    let mut counts = counts.lock().expect("no handler panics");
    let count = counts.entry(query.connection.expect("over TCP")).or_default();
    *count += 1;
    *count
}

/// Answers the first question on a connection and does something else to the second.
fn once_each(second: Vec<Action>) -> impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static {
    let counts = Mutex::default();
    move |query| if count_on_connection(&counts, query) == 1 { sends(query) } else { second.clone() }
}

pub fn h28_a_connection_that_is_closed_with_a_query_out<R: Runtime>() {
    survives::<R>(5, once_each(vec![Action::Close]));
}

pub fn h29_a_connection_that_is_reset_with_a_query_out<R: Runtime>() {
    survives::<R>(5, once_each(vec![Action::Reset]));
}

pub fn h28_s19_a_connection_that_ends_inside_a_message<R: Runtime>() {
    survives::<R>(5, once_each(vec![Action::SendRaw(b"\x00\x40half".to_vec()), Action::Close]));
}

pub fn rfc7766_7_answers_out_of_order_on_one_connection<R: Runtime>() {
    const QUERIES: usize = 10;
    let row = over_tcp::<R>(|query| {
        let turns = QUERIES.saturating_sub(number(query)) as u64;
        vec![Action::Delay(Duration::from_millis(100 + turns * 15)), Action::Send(answer(query))]
    });
    let client = UdpClient::new();
    (0..QUERIES).for_each(|n| client.send(row.bench.addr, &named(n).id(n as u16).bytes()));
    let mut order = Vec::new();
    for _ in 0..QUERIES {
        let reply = Reply::parse(&client.recv(PATIENCE).expect("an answer").0);
        let n = usize::from(reply.id);
        assert_eq!(reply.answer_lines(), [format!("n{n}.example. A {}", address_of(n))]);
        order.push(n);
    }
    let received = row.upstream.received();
    let ids: BTreeSet<_> = received.iter().map(|query| (query.connection, query.id)).collect();
    assert_eq!(ids.len(), received.len(), "IDs are unique on a connection");
    assert!(received.iter().take(QUERIES).all(|query| query.connection == Some(0)), "one connection serves");
    assert!(order[0] > order[QUERIES - 1], "whoever is ready first is answered first: {order:?}");
}

pub fn g20_h26_an_answer_to_something_else_is_not_taken<R: Runtime>() {
    for transport in both_transports() {
        let upstream = Upstream::start(|query| {
            let other_question =
                query.response().question("evil.example.", "A").answer("@ 60 IN A 192.0.2.66");
            let other_id = query.response().id(query.id ^ 0x0101).answer("@ 60 IN A 192.0.2.66");
            match query.seq {
                0 => vec![Action::Send(other_question.bytes()), LATER, Action::Send(answer(query))],
                1 => vec![Action::Send(other_id.bytes()), LATER, Action::Send(answer(query))],
                _ => sends(query),
            }
        });
        let row = Row::behind::<R>(upstream, transport);
        for n in 0..3 {
            assert_eq!(row.bench.ask(&named(n)).rdatas("A"), [address_of(n)]);
        }
    }
}

pub fn h23_the_id_upstream_is_ours_and_the_client_s_comes_back<R: Runtime>() {
    for transport in both_transports() {
        let row = Row::behind::<R>(Upstream::start(sends), transport);
        for n in 0..20 {
            assert_eq!(row.bench.ask(&named(n).id(0x1234)).id, 0x1234);
        }
        let as_asked = row.upstream.received().iter().filter(|query| query.id == 0x1234).count();
        assert!(as_asked <= 1, "{as_asked} of 20 upstream IDs are the client's");
    }
}

/// How many attempts and connections one question costs at an upstream that refuses and is never called down.
fn refused<R: Runtime>(change: fn(Setup) -> Setup, attempts_max: u32) -> (u64, Duration) {
    let row = Row::behind::<R>(Upstream::start(sends), |setup| {
        let mut setup = forward(change(setup), |f| f.max_connect_attempts = Some(attempts_max));
        setup.config.upstreams[0].max_fails = 0;
        setup
    });
    row.upstream.stop();
    let began = Instant::now();
    assert_eq!(row.bench.ask(&named(0)).rcode, SERVFAIL);
    let opened =
        row.bench.upstream(0, |u| &u.paths_opened[0]) + row.bench.upstream(0, |u| &u.paths_opened[1]);
    assert_eq!(opened, row.bench.upstream(0, |u| &u.attempts), "an attempt is one connect");
    (opened, began.elapsed())
}

pub fn g04_one_connect_attempt_is_one<R: Runtime>() {
    for transport in both_transports() {
        assert_eq!(refused::<R>(transport, 1).0, 1);
    }
}

pub fn g05_ten_connect_attempts_are_ten_and_paced<R: Runtime>() {
    for transport in both_transports() {
        let (attempts, took) = refused::<R>(transport, 10);
        assert_eq!(attempts, 10);
        assert!(took > Duration::from_millis(100) && took < Duration::from_millis(4700), "{took:?}");
    }
}

/// Upstreams that answer with these RCODEs, asked in turn with this `failover`: the client's answer and how often each was asked.
fn failing_over<R: Runtime>(
    transport: fn(Setup) -> Setup,
    rcodes: &[u16],
    failover: &[Rcode],
) -> (Reply, Vec<usize>, Duration) {
    let with_rcode = |rcode: &u16| {
        let rcode = *rcode;
        Upstream::start(move |query| match rcode {
            NOERROR => sends(query),
            _ => vec![Action::Send(query.response().rcode(rcode).bytes())],
        })
    };
    let upstreams: Vec<_> = rcodes.iter().map(with_rcode).collect();
    let setup = forward(Setup::new(&upstreams.iter().collect::<Vec<_>>()), |forward| {
        (forward.policy, forward.failover) = (Policy::Sequential, failover.to_vec());
    });
    let bench = transport(setup).start::<R>();
    let began = Instant::now();
    let reply = bench.ask(&named(0));
    let took = began.elapsed();
    (reply, upstreams.iter().map(Upstream::count).collect(), took)
}

pub fn g11_failover_ends_after_the_last_upstream<R: Runtime>() {
    for transport in both_transports() {
        let (reply, asked, took) = failing_over::<R>(transport, &[SERVFAIL, SERVFAIL], &[Rcode::SERVFAIL]);
        assert_eq!((reply.rcode, asked), (SERVFAIL, vec![1, 1]));
        assert!(took < Duration::from_millis(500), "there is nothing to wait for: {took:?}");
    }
}

pub fn g12_failover_goes_on_to_the_good_answer<R: Runtime>() {
    for transport in both_transports() {
        let rcodes = [SERVFAIL, REFUSED, NOERROR];
        let (reply, asked, _) = failing_over::<R>(transport, &rcodes, &[Rcode::SERVFAIL, Rcode::REFUSED]);
        assert_eq!((reply.rcode, reply.answers.len(), asked), (NOERROR, 1, vec![1, 1, 1]));
    }
}

pub fn g13_g14_without_failover_the_first_answer_counts<R: Runtime>() {
    for transport in both_transports() {
        let (reply, asked, _) = failing_over::<R>(transport, &[SERVFAIL, REFUSED, NOERROR], &[]);
        assert_eq!((reply.rcode, reply.answers.len(), asked), (SERVFAIL, 0, vec![1, 0, 0]));
        let (reply, asked, _) = failing_over::<R>(transport, &[NOERROR, SERVFAIL], &[]);
        assert_eq!((reply.rcode, reply.answers.len(), asked), (NOERROR, 1, vec![1, 0]));
    }
}

pub fn g19_excepted_names_stay_here<R: Runtime>() {
    let name = |text: &str| Name::parse(text).expect("a name");
    let row = Row::behind::<R>(Upstream::start(sends), |setup| {
        forward(setup, |forward| {
            forward.from = name("example.");
            forward.except = vec![name("sub.example."), name("example.")];
        })
    });
    let rcode = |asked: &str| row.bench.ask(&Query::new(asked, "A")).rcode;
    assert_eq!(
        (rcode("sub.example."), rcode("a.SUB.example."), rcode("other.")),
        (REFUSED, REFUSED, REFUSED)
    );
    assert_eq!(row.upstream.count(), 0);
    assert_eq!(rcode("example."), NOERROR, "the name of the zone itself is never excepted");
    assert_eq!(row.upstream.count(), 1);
}

pub fn g21_two_silent_upstreams_and_a_hard_deadline<R: Runtime>() {
    let silent = [(); 2].map(|()| Upstream::start(|_| vec![Action::Drop]));
    let benches = both_transports().map(|transport| {
        let mut setup = transport(Setup::new(&[&silent[0], &silent[1]]));
        setup.config.upstreams.iter_mut().for_each(|upstream| upstream.max_fails = 0);
        setup.start::<R>()
    });
    let began = Instant::now();
    let clients = benches.each_ref().map(|bench| {
        let client = UdpClient::new();
        client.send(bench.addr, &named(0).bytes());
        client
    });
    for client in &clients {
        let reply = Reply::parse(&client.recv(PATIENCE).expect("an answer").0);
        let took = began.elapsed();
        assert_eq!(reply.rcode, SERVFAIL);
        assert!(took > Duration::from_secs(4) && took < Duration::from_millis(4900), "{took:?}");
    }
}

pub fn i03_an_idle_connection_is_given_up_after_its_time<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(sends), |setup| {
        let mut setup = force_tcp(setup);
        setup.config.upstreams[0].expire = Duration::from_millis(300);
        setup
    });
    for n in 0..5 {
        row.bench.ask(&named(n));
    }
    assert_eq!(row.upstream.connections(), 1, "it is used again and again");
    sleep_ms(600);
    assert_eq!(row.upstream.open_connections(), 0);
    assert_eq!(row.bench.ask(&named(9)).rcode, NOERROR);
    assert_eq!(row.upstream.connections(), 2);
}

pub fn i08_i09_a_busy_connection_grows_old_too<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(sends), |setup| {
        let mut setup = force_tcp(setup);
        setup.config.upstreams[0].max_age = Duration::from_millis(100);
        setup
    });
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed() < Duration::from_millis(600) {
        assert_eq!(row.bench.ask(&named(n)).rdatas("A"), [address_of(n)]);
        n += 1;
        sleep_ms(10);
    }
    assert!((4..=9).contains(&row.upstream.connections()), "{} in 600 ms", row.upstream.connections());
    let received = row.upstream.received();
    for number in 0..row.upstream.connections() {
        let mut times =
            received.iter().filter(|query| query.connection == Some(number)).map(|query| query.at);
        let first = times.next().expect("each was opened for a query");
        let last = times.next_back().unwrap_or(first);
        // A quarter more or less, and the time until a test's query arrives.
        assert!(last - first < Duration::from_millis(200), "connection {number} served {:?}", last - first);
    }
    row.bench.wait_for("the old ones are closed", |_| row.upstream.open_connections() <= 1);
}

pub fn i04_i07_i10_stopping_closes_every_connection_and_opens_none<R: Runtime>() {
    let upstream = Upstream::start(|query| match query.qname.as_str() {
        "slow.example." => vec![Action::Delay(Duration::from_millis(200)), Action::Send(answer(query))],
        _ => sends(query),
    });
    let mut config = forwarding_to(upstream.addr());
    config.zones[0].forward.as_mut().expect("it forwards").transport = UpstreamTransport::ForceTcp;
    let server = start::<R>(config);
    // Enough ports for both workers.
    for n in 0..16 {
        let reply = nodens_testkit::ask_udp(server.addr, &named(n).bytes()).expect("an answer");
        assert_eq!(reply.rdatas("A"), [address_of(n)]);
    }
    let client = UdpClient::new();
    client.send(server.addr, &Query::new("slow.example.", "A").bytes());
    assert!(upstream.wait_for_count(17, PATIENCE));
    assert!(upstream.open_connections() >= 1);
    server.stop(PATIENCE);
    let opened = upstream.connections();
    assert!(client.recv(PATIENCE).is_some(), "what was under way is answered first");
    let deadline = Instant::now() + PATIENCE;
    while upstream.open_connections() > 0 && Instant::now() < deadline {
        sleep_ms(2);
    }
    sleep_ms(50);
    assert_eq!((upstream.open_connections(), upstream.connections()), (0, opened));
}

pub fn j02_probes_go_over_tcp_where_queries_do<R: Runtime>() {
    let probed = AtomicBool::new(false);
    let upstream = Upstream::start(move |query| {
        if query.qtype == rtype::NS {
            probed.store(true, Ordering::SeqCst);
        }
        if probed.load(Ordering::SeqCst) { sends(query) } else { vec![Action::Drop] }
    });
    let row = Row::behind::<R>(upstream, |setup| force_tcp(setup).probe_interval(Duration::from_millis(200)));
    assert_eq!(row.bench.ask(&named(0)).rcode, NOERROR);
    sleep_ms(500);
    let received = row.upstream.received();
    let probes: Vec<_> = received.iter().filter(|query| query.qtype == rtype::NS).collect();
    assert_eq!(probes.len(), 1, "one was answered, and that is enough");
    assert_eq!((probes[0].qname.as_str(), probes[0].rd), (".", true));
    assert!(received.iter().all(|query| query.transport == Transport::Tcp));
    assert_eq!(row.bench.upstream(0, |upstream| &upstream.down), 0);
}

pub fn j04_one_probe_when_only_the_query_is_lost<R: Runtime>() {
    for transport in both_transports() {
        let upstream = Upstream::start(|query| {
            // Lost until it is missed: over TCP it is repeated before anybody becomes suspicious.
            let lost = query.qtype != rtype::NS && query.qname == "n0.example.";
            if lost { vec![Action::Drop] } else { sends(query) }
        });
        let interval = Duration::from_millis(100);
        let row = Row::behind::<R>(upstream, |setup| transport(setup).probe_interval(interval));
        UdpClient::new().send(row.bench.addr, &named(0).bytes());
        row.bench.wait_for("it is probed", |bench| bench.upstream(0, |upstream| &upstream.probes) >= 1);
        sleep_ms(50);
        assert_eq!(row.bench.ask(&named(1)).rcode, NOERROR);
        assert_eq!(row.bench.upstream(0, |upstream| &upstream.probe_failures), 0);
        assert_eq!(row.bench.upstream(0, |upstream| &upstream.down), 0);
    }
}

/// Two silent upstreams that count as down; nothing but probes is under way.
fn all_down<R: Runtime>(transport: fn(Setup) -> Setup, failfast: bool) -> (Bench, [Upstream; 2]) {
    let upstreams = [(); 2].map(|()| Upstream::start(|_| vec![Action::Drop]));
    let setup = transport(Setup::new(&[&upstreams[0], &upstreams[1]]));
    let setup = forward(setup, |forward| forward.failfast = failfast);
    let bench = setup.probe_interval(Duration::from_millis(100)).start::<R>();
    assert_eq!(bench.ask(&named(0)).rcode, SERVFAIL);
    let down = |bench: &Bench, index| bench.upstream(index, |upstream| &upstream.down) == 1;
    bench.wait_for("both are down", |bench| down(bench, 0) && down(bench, 1));
    (bench, upstreams)
}

fn attempts(bench: &Bench) -> u64 {
    [0, 1].map(|index| bench.upstream(index, |upstream| &upstream.attempts)).iter().sum()
}

pub fn j08_failfast_asks_nobody_while_all_are_down<R: Runtime>() {
    for transport in both_transports() {
        let (bench, upstreams) = all_down::<R>(transport, true);
        let (before, broken) = (attempts(&bench), bench.sum(|stats| &stats.all_down));
        let began = Instant::now();
        assert_eq!(bench.ask(&named(1)).rcode, SERVFAIL);
        assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
        assert_eq!((attempts(&bench) - before, bench.sum(|stats| &stats.all_down) - broken), (0, 1));
        assert!(upstreams.iter().all(|upstream| upstream.count_for("n1.example.", "A") == 0));
    }
}

pub fn j09_without_failfast_one_query_is_tried<R: Runtime>() {
    for transport in both_transports() {
        let (bench, upstreams) = all_down::<R>(transport, false);
        let (before, broken) = (attempts(&bench), bench.sum(|stats| &stats.all_down));
        assert_eq!(bench.ask(&named(1)).rcode, SERVFAIL);
        assert_eq!((attempts(&bench) - before, bench.sum(|stats| &stats.all_down) - broken), (1, 1));
        let seen: usize = upstreams.iter().map(|upstream| upstream.count_for("n1.example.", "A")).sum();
        assert_eq!(seen, 1);
    }
}

/// What a steady stream of different questions came to.
struct Flow {
    /// From asking to the answer; sorted.
    took: Vec<Duration>,
    /// Answers that were not the right address.
    failed: Vec<(usize, u16)>,
    /// Never answered.
    lost: usize,
}

impl Flow {
    /// `clients` ports ask a new question every `gap` each, `each` times.
    fn through(bench: &Bench, clients: usize, each: usize, gap: Duration) -> Flow {
        let addr = bench.addr;
        let client = |number: usize| move || Flow::of_one(addr, number * each..(number + 1) * each, gap);
        let threads: Vec<_> = (0..clients).map(|number| thread::spawn(client(number))).collect();
        let mut whole = Flow { took: Vec::new(), failed: Vec::new(), lost: 0 };
        for thread in threads {
            let part = thread.join().expect("a client");
            whole.took.extend(part.took);
            whole.failed.extend(part.failed);
            whole.lost += part.lost;
        }
        whole.took.sort_unstable();
        whole
    }

    fn of_one(addr: std::net::SocketAddr, names: std::ops::Range<usize>, gap: Duration) -> Flow {
        let (client, began) = (UdpClient::new(), Instant::now());
        let mut flow = Flow { took: Vec::new(), failed: Vec::new(), lost: 0 };
        let mut asked: HashMap<usize, Instant> = HashMap::new();
        let count = names.len() as u32;
        let mut take = |asked: &mut HashMap<usize, Instant>, until: Instant| {
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                let Some((bytes, _)) = client.recv(left) else { return };
                let reply = Reply::parse(&bytes);
                let n = usize::from(reply.id);
                let Some(at) = asked.remove(&n) else { panic!("n{n} is answered twice") };
                flow.took.push(at.elapsed());
                if reply.rdatas("A") != [address_of(n)] {
                    flow.failed.push((n, reply.rcode));
                }
                if asked.is_empty() && began.elapsed() > gap * count {
                    return;
                }
            }
        };
        for (turn, n) in (0..).zip(names) {
            asked.insert(n, Instant::now());
            client.send(addr, &named(n).id(n as u16).bytes());
            take(&mut asked, began + gap * (turn + 1));
        }
        if !asked.is_empty() {
            take(&mut asked, Instant::now() + PATIENCE);
        }
        flow.lost = asked.len();
        flow
    }

    fn at(&self, percent: usize) -> Duration {
        self.took[(self.took.len() * percent).div_ceil(100).max(1) - 1]
    }

    /// Everybody has the right answer, and nobody waited longer than this.
    fn expect(&self, what: &str, slowest: Duration) {
        assert!(self.lost == 0 && self.failed.is_empty(), "{what}: {} lost, {:?}", self.lost, self.failed);
        nodens_testkit::note(&format!(
            "measured: {what}: {} answers, median {:?}, p99 {:?}, slowest {:?}",
            self.took.len(),
            self.at(50),
            self.at(99),
            self.at(100)
        ));
        assert!(self.at(100) < slowest, "{what}: slowest {:?}", self.at(100));
    }
}

/// No client of a healthy zone waits longer, whatever one of its upstreams does.
const BOUND: Duration = Duration::from_secs(1);

/// A hundred questions a second for a second, at an upstream like this and a good one.
fn one_of_two<R: Runtime>(what: &str, handler: impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static) {
    let (odd, good) = (Upstream::start(handler), Upstream::start(sends));
    let setup = forward(force_tcp(Setup::new(&[&odd, &good])), |forward| forward.policy = Policy::Random);
    let bench = setup.start::<R>();
    Flow::through(&bench, 4, 25, Duration::from_millis(40)).expect(what, BOUND);
    assert!(odd.count() > 0, "it was asked");
}

/// The same at an upstream that has nobody beside it.
fn alone<R: Runtime>(what: &str, handler: impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static) {
    let row = over_tcp::<R>(handler);
    Flow::through(&row.bench, 4, 25, Duration::from_millis(40)).expect(what, BOUND);
}

pub fn s19_an_upstream_that_accepts_and_never_answers<R: Runtime>() {
    one_of_two::<R>("never answers, one of two", |_| vec![Action::Drop]);
}

pub fn s19_an_upstream_that_answers_one_byte_a_second<R: Runtime>() {
    one_of_two::<R>("one byte a second, one of two", |query| {
        vec![Action::SendByteByByte(answer(query), Duration::from_secs(1))]
    });
}

pub fn s19_an_upstream_that_interleaves_its_answers<R: Runtime>() {
    one_of_two::<R>("interleaves, one of two", |query| {
        vec![
            Action::Delay(Duration::from_millis(30)),
            Action::SendByteByByte(answer(query), Duration::from_millis(5)),
        ]
    });
}

pub fn s19_an_upstream_that_answers_twice<R: Runtime>() {
    alone::<R>("answers twice", |query| vec![Action::Send(answer(query)), Action::Send(answer(query))]);
}

pub fn s19_an_upstream_that_answers_again_later<R: Runtime>() {
    alone::<R>("answers again later", |query| {
        vec![Action::Send(answer(query)), LATER, Action::Send(answer(query))]
    });
}

pub fn s19_an_upstream_that_closes_after_one_answer<R: Runtime>() {
    alone::<R>("closes after one answer", |query| vec![Action::Send(answer(query)), Action::Close]);
}

/// All are asked at once on one new connection, which ends after the first answer; some are still being written then.
pub fn s19_a_crowd_meets_an_upstream_that_closes_after_one_answer<R: Runtime>() {
    const CROWD: usize = 24;
    for _ in 0..5 {
        let row = over_tcp::<R>(|query| vec![Action::Send(answer(query)), Action::Close]);
        let client = UdpClient::new();
        (0..CROWD).for_each(|n| client.send(row.bench.addr, &named(n).id(n as u16).bytes()));
        for _ in 0..CROWD {
            let reply = Reply::parse(&client.recv(PATIENCE).expect("an answer").0);
            assert_eq!(reply.rdatas("A"), [address_of(usize::from(reply.id))], "{}", reply.rcode);
        }
    }
}

pub fn s19_an_upstream_that_takes_its_time_and_closes_after_one_answer<R: Runtime>() {
    alone::<R>("closes after one slow answer", |query| {
        vec![LATER, Action::Send(answer(query)), Action::Close]
    });
}

pub fn s19_an_upstream_that_answers_under_an_unknown_id_first<R: Runtime>() {
    alone::<R>("an unknown ID first", |query| {
        let other = query.response().id(query.id ^ 0x5555).bytes();
        if query.seq.is_multiple_of(10) {
            vec![Action::Send(other), Action::Send(answer(query))]
        } else {
            sends(query)
        }
    });
}

/// What one connection is busy with, each question strictly after the one before it.
fn serial(work: Duration) -> impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static {
    let busy = Mutex::new(HashMap::<usize, Instant>::new());
    move |query| {
        let now = Instant::now();
        let mut busy = busy.lock().expect("no handler panics");
        let done = busy.entry(query.connection.expect("over TCP")).or_insert(now);
        *done = now.max(*done) + work;
        vec![Action::Delay(*done - now), Action::Send(answer(query))]
    }
}

/// A queue behind one connection is late all the time (ten seconds on average here). A shared machine is late now and then, for half a
/// second at worst, so only the median is held to what the upstream needs.
pub fn a_serial_upstream_under_500_misses_a_second<R: Runtime>() {
    let upstream = Upstream::start(serial(Duration::from_millis(20)));
    let row = Row::behind::<R>(upstream, |setup| Setup { workers: 2, ..force_tcp(setup) });
    let flow = Flow::through(&row.bench, 8, 125, Duration::from_millis(16));
    flow.expect("serial upstream, 20 ms each, 500 misses/s", BOUND);
    assert!(flow.at(50) < Duration::from_millis(60), "{:?}", flow.at(50));
    let most = 2 * Limits::default().connections_per_upstream_max as usize;
    assert!(row.upstream.open_connections() <= most, "{} connections", row.upstream.open_connections());
}
