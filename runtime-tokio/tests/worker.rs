//! The tokio runtime against the worker contract: what the conformance suite cannot ask of every runtime, because it needs a cache
//! that fails, a peer that misbehaves on a stream, or a look at the worker from outside.

use nodens_cache::SharedCache;
use nodens_core::cache::{AnswerRef, Cache, Entry, InsertRules, Inserted, Key};
use nodens_core::hash::HashKeys;
use nodens_core::{Instant, Seed};
use nodens_runtime::conformance::{Running, forwarding_to, start, start_with};
use nodens_runtime::worker::WorkerFailure;
use nodens_runtime::{ClientLimits, CloseReason};
use nodens_runtime_tokio::Tokio;
use nodens_testkit::{Action, Query, Received, TcpClient, UdpClient, Upstream, answers, ask_tcp, ask_udp};
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(100);

fn address_of(query: &Received) -> nodens_testkit::Response {
    query.response().answer("@ 300 IN A 192.0.2.1")
}

fn forwarder() -> (Running, Upstream) {
    let upstream = Upstream::start(answers(address_of));
    (start::<Tokio>(forwarding_to(upstream.addr())), upstream)
}

#[test]
fn both_transports_are_served_from_one_cache() {
    let (server, upstream) = forwarder();
    let query = Query::new("www.example.", "A").bytes();
    for _ in 0..8 {
        let reply = ask_udp(server.addr, &query).expect("an answer over UDP");
        assert_eq!(reply.answer_lines(), ["www.example. A 192.0.2.1"]);
    }
    let reply = ask_tcp(server.addr, &query).expect("an answer over TCP");
    assert_eq!(reply.answer_lines(), ["www.example. A 192.0.2.1"]);
    assert_eq!(upstream.count(), 1);
    assert_eq!(server.sum(|stats| &stats.zones[0].hits_success), 8);
    let padded = Query::new("www.example.", "A").edns(1232).pad_to(4096).bytes();
    assert_eq!(ask_udp(server.addr, &padded).expect("an answer to a long query").rcode, 0);
    server.stop(SHORT);
}

#[test]
fn a_truncated_answer_is_fetched_over_tcp() {
    let upstream = Upstream::start(|query: &Received| {
        let mut response = query.response();
        if query.transport == nodens_testkit::Transport::Udp {
            return vec![Action::Send(response.tc().bytes())];
        }
        for host in 0..200 {
            response = response.answer(&format!("@ 300 IN A 192.0.2.{host}"));
        }
        vec![Action::Send(response.bytes())]
    });
    let server = start::<Tokio>(forwarding_to(upstream.addr()));
    let reply = ask_tcp(server.addr, &Query::new("large.example.", "A").bytes()).expect("an answer");
    assert_eq!(reply.answer_lines().len(), 200);
    assert_eq!((upstream.udp_count(), upstream.tcp_count()), (1, 1));
    assert!(server.wait_until(|s| s.sum(|stats| &stats.paths) == 0), "no path is left open");
    server.stop(SHORT);
}

#[test]
fn a_hundred_pipelined_queries_are_answered_after_the_clients_fin() {
    let upstream = Upstream::start(|query: &Received| {
        // The later ones overtake the earlier.
        let pause = if query.qname.starts_with("slow") { 60 } else { 0 };
        vec![Action::Delay(Duration::from_millis(pause)), Action::Send(address_of(query).bytes())]
    });
    let server = start::<Tokio>(forwarding_to(upstream.addr()));
    let mut client = TcpClient::connect(server.addr).expect("connected");
    let mut burst = vec![];
    for id in 0..100u16 {
        let pace = if id < 50 { "slow" } else { "quick" };
        let query = Query::new(&format!("{pace}{id}.example."), "A").id(id).bytes();
        burst.extend((query.len() as u16).to_be_bytes());
        burst.extend(query);
    }
    client.send_raw(&burst).expect("sent");
    client.shutdown_write();
    let ids: Vec<u16> =
        std::iter::from_fn(|| client.recv_framed(LONG)).map(|m| u16::from_be_bytes([m[0], m[1]])).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    assert!(ids[0] >= 50, "answers do not wait for earlier questions: {ids:?}");
    assert!(client.recv_eof(LONG), "and then the connection ends");
    assert!(server.wait_until(|s| closed(s, CloseReason::Done) == 1));
    server.stop(SHORT);
}

#[test]
fn a_query_in_pieces_and_a_thousand_in_one_go() {
    let (server, upstream) = forwarder();
    let query = Query::new("pieces.example.", "A").bytes();
    let mut client = TcpClient::connect(server.addr).expect("connected");
    client.send_in_chunks(&query, 3).expect("sent");
    assert!(client.recv_framed(LONG).is_some());
    // More than a turn takes, all cached.
    let framed = [&(query.len() as u16).to_be_bytes(), &query[..]].concat();
    client.send_raw(&framed.repeat(1000)).expect("sent");
    let answered = std::iter::from_fn(|| client.recv_framed(LONG)).take(1000).count();
    assert_eq!((answered, upstream.count()), (1000, 1));
    server.stop(SHORT);
}

#[test]
fn a_client_that_does_not_read_costs_itself_only() {
    let upstream = Upstream::start(answers(|query| {
        (0..200).fold(query.response(), |r, host| r.answer(&format!("@ 300 IN A 192.0.2.{host}")))
    }));
    let server = start::<Tokio>(forwarding_to(upstream.addr()));
    let query = Query::new("large.example.", "A").edns(4096).bytes();
    let framed = [&(query.len() as u16).to_be_bytes(), &query[..]].concat();
    let mut deaf = TcpStream::connect(server.addr).expect("connected");
    deaf.set_write_timeout(Some(SHORT * 3)).expect("an option");
    // Kernel buffers take a few thousand answers of 3.2 KiB; then the server stops reading, and writing to it stalls.
    let stalled = (0..1000).any(|_| deaf.write_all(&framed.repeat(1000)).is_err());
    assert!(stalled, "a million queries were read from a client that takes no answers");
    assert!(ask_tcp(server.addr, &query).is_some(), "others are served");
    assert!(ask_udp(server.addr, &Query::new("large.example.", "A").bytes()).is_some());
    server.stop(SHORT);
}

#[test]
fn bad_framing_ends_a_connection() {
    let (server, _upstream) = forwarder();
    let mut client = TcpClient::connect(server.addr).expect("connected");
    client.send_raw(&[0, 1, 0]).expect("sent");
    assert!(client.recv_eof(LONG));
    assert!(server.wait_until(|s| closed(s, CloseReason::BadFraming) == 1));
    server.stop(SHORT);
}

#[test]
fn idle_connections_over_the_cap_make_room_for_new_ones() {
    let upstream = Upstream::start(answers(address_of));
    let limits = ClientLimits { connections_max: 20, per_source_max: 20, bytes_held_max: 1 << 20 };
    let cache = Arc::new(SharedCache::new(1 << 20, &Seed([1; 32])));
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = start_with::<Tokio, _>(forwarding_to(upstream.addr()), cache, here, 1, limits);
    let query = Query::new("www.example.", "A").bytes();
    let mut idle: Vec<_> = (0..200).map(|_| TcpClient::connect(server.addr).expect("connected")).collect();
    assert!(ask_tcp(server.addr, &query).is_some());
    assert!(server.wait_until(|s| s.workers[0].vitals.connections.get() <= 20));
    assert!(closed(&server, CloseReason::Evicted) >= 180);
    assert!(idle[0].recv_eof(LONG), "the oldest went first");
    assert!(idle[199].ask(&query, LONG).is_some(), "the newest is served");
    server.stop(SHORT);
}

#[test]
fn a_refused_upstream_is_noticed_at_once() {
    let upstream = Upstream::start(answers(address_of));
    upstream.stop();
    let server = start::<Tokio>(forwarding_to(upstream.addr()));
    let started = std::time::Instant::now();
    let reply = ask_udp(server.addr, &Query::new("www.example.", "A").bytes()).expect("an answer");
    assert_eq!(reply.rcode, 2);
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
    assert!(server.wait_until(|s| s.sum(|stats| &stats.lookups) == 0));
    server.stop(SHORT);
}

#[test]
fn an_upstream_connection_that_breaks_is_reported() {
    for end in [Action::Close, Action::Reset, Action::SendRaw(vec![0, 3, 1, 2, 3])] {
        let upstream = Upstream::start(move |query: &Received| match query.transport {
            nodens_testkit::Transport::Udp => vec![Action::Send(query.response().tc().bytes())],
            nodens_testkit::Transport::Tcp => vec![end.clone()],
        });
        let server = start::<Tokio>(forwarding_to(upstream.addr()));
        let started = std::time::Instant::now();
        let query = Query::new("www.example.", "A").bytes();
        let reply = ask_tcp(server.addr, &query).expect("an answer, not silence");
        assert!(reply.rcode == 2 || reply.tc, "{reply:?}");
        assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
        assert!(server.wait_until(|s| s.sum(|stats| &stats.paths) <= 1), "at most a probe is left");
        server.stop(SHORT);
    }
}

#[test]
fn a_wildcard_listener_answers_from_the_address_asked() {
    let upstream = Upstream::start(answers(address_of));
    let cache = Arc::new(SharedCache::new(1 << 20, &Seed([1; 32])));
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let limits = ClientLimits::per_worker(1);
    let server = start_with::<Tokio, _>(forwarding_to(upstream.addr()), cache, everywhere, 1, limits);
    let asked = SocketAddr::from(([127, 5, 5, 5], server.addr.port()));
    let client = UdpClient::bind(SocketAddr::from(([127, 0, 0, 9], 0)));
    let query = Query::new("www.example.", "A").bytes();
    // The first answer comes later, from the upstream; the second at once, from the cache.
    for _ in 0..2 {
        client.send(asked, &query);
        let (_, from) = client.recv(LONG).expect("an answer");
        assert_eq!(from, asked);
    }
    server.stop(SHORT);
}

#[test]
fn stopping_finishes_what_is_in_flight_and_refuses_the_rest() {
    let upstream = Upstream::start(|query: &Received| {
        vec![Action::Delay(Duration::from_millis(300)), Action::Send(address_of(query).bytes())]
    });
    let server = start::<Tokio>(forwarding_to(upstream.addr()));
    let addr = server.addr;
    let query = Query::new("www.example.", "A").bytes();
    let (udp, mut tcp) = (UdpClient::new(), TcpClient::connect(addr).expect("connected"));
    udp.send(addr, &query);
    tcp.send_framed(&Query::new("other.example.", "A").bytes()).expect("sent");
    assert!(upstream.wait_for_count(2, LONG));
    let started = std::time::Instant::now();
    for worker in &server.workers {
        worker.stop(LONG);
    }
    std::thread::sleep(SHORT);
    assert!(TcpClient::connect(addr).is_err(), "no new connections");
    let late = UdpSocket::bind("127.0.0.1:0").expect("bind");
    late.connect(addr).expect("connect");
    late.set_read_timeout(Some(LONG)).expect("an option");
    late.send(&query).expect("sent");
    assert!(late.recv(&mut [0; 512]).is_err(), "new datagrams are refused by the kernel");
    assert!(udp.recv(LONG).is_some() && tcp.recv_framed(LONG).is_some(), "the old ones are answered");
    server.stop(LONG);
    assert!(started.elapsed() < Duration::from_secs(2), "it ends once nothing is in flight");
}

#[test]
fn stopping_does_not_wait_beyond_its_deadline() {
    let upstream = Upstream::start(|_: &Received| vec![Action::Drop]);
    let server = start::<Tokio>(forwarding_to(upstream.addr()));
    UdpClient::new().send(server.addr, &Query::new("www.example.", "A").bytes());
    assert!(upstream.wait_for_count(1, LONG));
    let started = std::time::Instant::now();
    server.stop(SHORT);
    assert!(started.elapsed() >= SHORT && started.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_query_event_comes_out_of_the_channel() {
    let (mut server, _upstream) = forwarder();
    let events = server.take_events();
    assert!(ask_udp(server.addr, &Query::new("www.example.", "A").bytes()).is_some());
    let of_any = |_: &Running| events.iter().any(|e| e.try_iter().count() > 0);
    assert!(server.wait_until(of_any));
    server.stop(SHORT);
}

#[test]
fn an_idle_worker_shows_that_it_lives() {
    let (server, _upstream) = forwarder();
    let turns = |s: &Running| s.workers.iter().map(|w| w.vitals.turns.get()).collect::<Vec<_>>();
    let before = turns(&server);
    std::thread::sleep(Duration::from_millis(2200));
    for (worker, (before, after)) in server.workers.iter().zip(before.iter().zip(turns(&server))) {
        assert!(
            after > *before && after < before + 10,
            "{before} then {after} turns: neither dead nor spinning"
        );
        assert!(worker.silent_for() < Duration::from_millis(1500));
    }
    server.stop(SHORT);
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

#[test]
fn a_panic_ends_the_worker_and_comes_out_of_join() {
    let upstream = Upstream::start(answers(address_of));
    let cache = Arc::new(PanickingCache(HashKeys::new(&Seed([1; 32]))));
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let limits = ClientLimits::per_worker(1);
    let mut server = start_with::<Tokio, _>(forwarding_to(upstream.addr()), cache, here, 1, limits);
    UdpClient::new().send(server.addr, &Query::new("www.example.", "A").bytes());
    assert!(server.wait_until(|s| s.workers[0].is_finished()));
    let end = server.workers.remove(0).join().expect_err("a panic is a failure");
    assert!(matches!(&end, WorkerFailure::Panic { id: 0, message } if message == "deliberately"), "{end}");
}

fn closed(server: &Running, reason: CloseReason) -> u64 {
    server.workers.iter().map(|worker| worker.vitals.connections_closed[reason as usize].get()).sum()
}
