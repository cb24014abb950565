//! The worker contract ([`crate::worker`]): how a worker starts, shows that it lives, tells what happened, stops, and dies.
//!
//! These rows look at workers from outside, through [`Running`] and counters; what clients get to see is in the other modules.
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::PATIENCE;
use super::harness::{Running, forwarding_to, start, start_with};
use crate::clients::ClientLimits;
use crate::departure::QUIET_PATIENCE;
use crate::worker::{Runtime, WorkerFailure};
use nodens_core::cache::{AnswerRef, Cache, Entry, InsertRules, Inserted, Key};
use nodens_core::hash::HashKeys;
use nodens_core::{Instant, Seed};
use nodens_testkit::{Action, Query, Received, TcpClient, UdpClient, Upstream, answers, ask_udp};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(100);

fn address(query: &Received) -> nodens_testkit::Response {
    query.response().answer("@ 60 IN A 192.0.2.1")
}

fn question(name: &str) -> Vec<u8> {
    Query::new(name, "A").bytes()
}

fn forwarder<R: Runtime>() -> (Running, Upstream) {
    let upstream = Upstream::start(answers(address));
    (start::<R>(forwarding_to(upstream.addr())), upstream)
}

pub fn an_idle_worker_lives_and_does_not_spin<R: Runtime>() {
    let (server, _upstream) = forwarder::<R>();
    let turns = || server.workers.iter().map(|worker| worker.vitals.turns.get()).collect::<Vec<_>>();
    let before = turns();
    std::thread::sleep(Duration::from_millis(2200));
    for (worker, (before, after)) in server.workers.iter().zip(before.iter().zip(turns())) {
        assert!(
            after > *before,
            "no turn within two seconds: {before} turns, nobody would take it for alive"
        );
        assert!(after < before + 20, "{before} then {after} turns: it spins");
        assert!(!worker.is_finished());
        // Three ticks: a busy machine may be late for one of them.
        assert!(worker.silent_for() < Duration::from_secs(3));
    }
    assert!(ask_udp(server.addr, &question("www.example.")).is_some());
    server.stop(SHORT);
}

pub fn a_query_event_comes_out_of_the_channel<R: Runtime>() {
    let (mut server, _upstream) = forwarder::<R>();
    let events = server.take_events();
    assert!(ask_udp(server.addr, &question("www.example.")).is_some());
    let of_any = |_: &Running| events.iter().any(|events| events.try_iter().count() > 0);
    assert!(server.wait_until(of_any));
    server.stop(SHORT);
}

pub fn sockets_to_upstreams_are_closed_in_the_end<R: Runtime>() {
    // An attempt over UDP, one over TCP, and an upstream that leaves the connection open.
    let upstream = Upstream::start(|query: &Received| {
        let over_udp = query.transport == nodens_testkit::Transport::Udp;
        vec![Action::Send(if over_udp { query.response().tc().bytes() } else { address(query).bytes() })]
    });
    let mut config = forwarding_to(upstream.addr());
    config.upstreams[0].expire = Duration::from_millis(300);
    let server = start::<R>(config);
    assert!(ask_udp(server.addr, &question("large.example.")).is_some());
    assert!(upstream.udp_count() >= 1 && upstream.tcp_count() >= 1);
    assert!(server.wait_until(|s| s.sum(|stats| &stats.paths) == 0), "no path is left open");
    server.stop(SHORT);
}

pub fn stopping_finishes_what_is_in_flight_and_refuses_the_rest<R: Runtime>() {
    let upstream = Upstream::start(|query: &Received| {
        vec![Action::Delay(Duration::from_millis(700)), Action::Send(address(query).bytes())]
    });
    let server = start::<R>(forwarding_to(upstream.addr()));
    let addr = server.addr;
    let (udp, mut tcp) = (UdpClient::new(), TcpClient::connect(addr).expect("connected"));
    udp.send(addr, &question("www.example."));
    tcp.send_framed(&question("other.example.")).expect("sent");
    assert!(upstream.wait_for_count(2, PATIENCE));
    let began = std::time::Instant::now();
    for worker in &server.workers {
        worker.stop(PATIENCE);
    }
    let refused = |_: &Running| TcpClient::connect(addr).is_err();
    assert!(server.wait_until(refused), "no new connections");
    assert!(server.wait_until(|_| is_refused(addr)), "new datagrams are refused by the kernel");
    assert!(udp.recv(PATIENCE).is_some(), "the old ones are answered");
    assert!(tcp.recv_framed(PATIENCE).is_some(), "the old ones are answered");
    server.stop(PATIENCE);
    assert!(began.elapsed() < PATIENCE / 2, "it ends once nothing is in flight: {:?}", began.elapsed());
}

/// One worker, a name in its cache, and a query whose answer takes `delay`.
fn one_with_a_query_in_flight<R: Runtime>(delay: Duration) -> (Running, Upstream, UdpClient) {
    let upstream = Upstream::start(move |query: &Received| {
        let answer = Action::Send(address(query).bytes());
        if query.qname.starts_with("slow") { vec![Action::Delay(delay), answer] } else { vec![answer] }
    });
    let cache = Arc::new(nodens_cache::SharedCache::new(1 << 20, &Seed([1; 32])));
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let server =
        start_with::<R, _>(forwarding_to(upstream.addr()), cache, here, 1, ClientLimits::per_worker(1));
    assert!(ask_udp(server.addr, &question("known.example.")).is_some());
    let client = UdpClient::new();
    client.send(server.addr, &question("slow.example."));
    assert!(upstream.wait_for_count(2, PATIENCE));
    (server, upstream, client)
}

pub fn the_last_worker_serves_until_nothing_is_in_flight<R: Runtime>() {
    let (server, _upstream, client) = one_with_a_query_in_flight::<R>(QUIET_PATIENCE / 2);
    server.workers[0].stop_last(PATIENCE);
    assert!(client.recv(PATIENCE).is_some());
    assert!(server.wait_until(|server| server.workers[0].is_finished()));
    assert!(is_refused(server.addr));
    server.stop(SHORT);
}

pub fn a_last_worker_that_is_busy_winds_down_and_refuses_in_the_end<R: Runtime>() {
    let (server, _upstream, client) = one_with_a_query_in_flight::<R>(Duration::from_secs(1));
    server.workers[0].stop_last(PATIENCE);
    let began = std::time::Instant::now();
    assert!(ask_udp(server.addr, &question("new.example.")).is_some(), "nobody else could answer it");
    let rcode = |name: &str| {
        let reply = UdpClient::new().ask(server.addr, &question(name), SHORT)?;
        Some(reply.rcode)
    };
    let sheds = |_: &Running| rcode(&format!("n{}.example.", began.elapsed().as_nanos())) == Some(2);
    assert!(server.wait_until(sheds), "no lookup is started any more");
    // A machine that stands still for a moment is past that by now.
    let known = rcode("known.example.");
    assert!(known == Some(0) || is_refused(server.addr), "what is in the cache is answered: {known:?}");
    assert!(server.wait_until(|server| is_refused(server.addr)), "it does not serve on for ever");
    assert!(client.recv(PATIENCE).is_some(), "what is in flight is answered");
    server.stop(PATIENCE);
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

/// Whether a datagram comes back as an ICMP error: no socket takes it any more.
fn is_refused(addr: SocketAddr) -> bool {
    let late = UdpSocket::bind("127.0.0.1:0").expect("bind");
    late.connect(addr).expect("connect");
    late.set_read_timeout(Some(SHORT)).expect("an option");
    let _ = late.send(&question("late.example."));
    late.recv(&mut [0; 512]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

pub fn stopping_does_not_wait_beyond_its_deadline<R: Runtime>() {
    let upstream = Upstream::start(|_: &Received| vec![Action::Drop]);
    let server = start::<R>(forwarding_to(upstream.addr()));
    UdpClient::new().send(server.addr, &question("www.example."));
    assert!(upstream.wait_for_count(1, PATIENCE));
    let began = std::time::Instant::now();
    server.stop(SHORT);
    let took = began.elapsed();
    // The lookup itself would take 4.5 s.
    assert!(took >= SHORT && took < Duration::from_secs(2), "{took:?}");
}

/// A cache that breaks its promise.
#[derive(Debug)]
struct PanickingCache(HashKeys);

impl Cache for PanickingCache {
    fn hash_keys(&self) -> &HashKeys {
        &self.0
    }

    fn get<R>(&self, _: &Key, _: Instant, _: impl FnOnce(Entry<'_>) -> R) -> Option<R> {
        panic!("deliberately")
    }

    fn insert(&self, _: &Key, _: AnswerRef<'_>, _: InsertRules) -> Inserted {
        Inserted::Busy
    }
}

pub fn a_panic_ends_the_worker_and_comes_out_of_join<R: Runtime>() {
    let upstream = Upstream::start(answers(address));
    let cache = Arc::new(PanickingCache(HashKeys::new(&Seed([1; 32]))));
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let limits = ClientLimits::per_worker(1);
    let mut server = start_with::<R, _>(forwarding_to(upstream.addr()), cache, here, 1, limits);
    UdpClient::new().send(server.addr, &question("www.example."));
    assert!(server.wait_until(|s| s.workers[0].is_finished()));
    let end = server.workers.remove(0).join().expect_err("a panic is a failure");
    assert!(matches!(&end, WorkerFailure::Panic { id: 0, message } if message == "deliberately"), "{end}");
}
