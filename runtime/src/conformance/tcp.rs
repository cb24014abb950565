//! Clients over TCP: pipelining, odd segments, clients that are slow, silent, gone or many (RFC 7766).
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::{Bench, PATIENCE, Row, check_frame, sleep_ms};
use crate::clients::{CONNECTIONS_MAX, ClientLimits, CloseReason, UNSENT_HIGH_WATER};
use crate::worker::Runtime;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nodens_testkit::{Action, Query, Received, Reply, TcpClient, Upstream, note};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

fn address(query: &Received) -> Vec<Action> {
    vec![Action::Send(query.response().answer("@ 60 IN A 192.0.2.1").bytes())]
}

/// Names that begin with `slow` take 300 ms.
fn sometimes_slow() -> Upstream {
    Upstream::start(|query| {
        let mut steps = address(query);
        if query.qname.starts_with("slow") {
            steps.insert(0, Action::Delay(Duration::from_millis(300)));
        }
        steps
    })
}

fn named(name: &str) -> Query {
    Query::new(name, "A")
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn next(client: &mut TcpClient) -> Reply {
    Reply::parse(&client.recv_framed(PATIENCE).expect("an answer"))
}

/// One counter of the workers' sockets, over all workers.
fn vitals(bench: &Bench, counter: fn(&crate::Vitals) -> u64) -> u64 {
    bench.running().workers.iter().map(|worker| counter(&worker.vitals)).sum()
}

pub fn l25_answers_come_as_they_are_ready<R: Runtime>() {
    let row = Row::behind::<R>(sometimes_slow(), |setup| setup);
    row.bench.ask(&named("hit.example."));
    let mut client = row.bench.tcp();
    let (slow, hit) = (named("slow.example.").id(1), named("hit.example.").id(2));
    client.send_framed(&slow.bytes()).expect("sent");
    client.send_framed(&hit.bytes()).expect("sent");
    let (first, second) = (next(&mut client), next(&mut client));
    assert_eq!((first.id, second.id), (2, 1), "the hit does not wait for the miss before it");
    check_frame(&hit.bytes(), &first);
    check_frame(&slow.bytes(), &second);
}

pub fn l25_misses_overtake_each_other<R: Runtime>() {
    let row = Row::behind::<R>(sometimes_slow(), |setup| setup);
    let mut client = row.bench.tcp();
    client.send_framed(&named("slow.example.").id(1).bytes()).expect("sent");
    client.send_framed(&named("fast.example.").id(2).bytes()).expect("sent");
    assert_eq!((next(&mut client).id, next(&mut client).id), (2, 1));
}

pub fn several_queries_in_one_segment_are_all_answered<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(address), |setup| setup);
    let mut client = row.bench.tcp();
    let all: Vec<u8> = (0..1000).flat_map(|id| framed(&named("a.example.").id(id).bytes())).collect();
    client.send_raw(&all).expect("sent");
    // Nearly all of them hits, and more than a worker takes in one turn.
    let ids: BTreeSet<u16> = (0..1000).map(|_| next(&mut client).id).collect();
    assert_eq!((ids.len(), row.asked()), (1000, 1));
}

pub fn more_slow_queries_than_may_be_pipelined_are_all_answered<R: Runtime>() {
    let row = Row::behind::<R>(sometimes_slow(), |setup| setup);
    let mut client = row.bench.tcp();
    let query = |id: u16| named(&format!("slow{id}.example.")).id(id).bytes();
    let all: Vec<u8> = (0..250).flat_map(|id| framed(&query(id))).collect();
    client.send_raw(&all).expect("sent");
    let ids: BTreeSet<u16> = (0..250).map(|_| next(&mut client).id).collect();
    assert_eq!(ids.len(), 250);
}

pub fn a_query_in_single_bytes_is_answered_and_holds_up_nobody<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(address), |setup| setup);
    let server = row.bench.addr;
    let slow = std::thread::spawn(move || {
        let mut client = TcpClient::connect(server).expect("connected");
        // Some 30 bytes, ten milliseconds apart; two messages, so that the second begins in the middle of a stream.
        for id in [1, 2] {
            for byte in framed(&named("a.example.").id(id).bytes()) {
                client.send_raw(&[byte]).expect("sent");
                sleep_ms(10);
            }
        }
        [next(&mut client).id, next(&mut client).id]
    });
    while !slow.is_finished() {
        let began = Instant::now();
        row.bench.ask_tcp(&named("b.example."));
        row.bench.ask(&named("b.example."));
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        sleep_ms(20);
    }
    assert_eq!(slow.join().expect("the slow client is answered"), [1, 2]);
}

pub fn messages_that_straddle_segments_are_read<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(address), |setup| setup);
    let stream: Vec<u8> = (0..12).flat_map(|id| framed(&named("a.example.").id(id).bytes())).collect();
    for chunk_len in [1, 2, 3, 13, 31, 33] {
        let mut client = row.bench.tcp();
        for chunk in stream.chunks(chunk_len) {
            client.send_raw(chunk).expect("sent");
        }
        for _ in 0..12 {
            assert_eq!(next(&mut client).answers.len(), 1);
        }
    }
}

pub fn half_open_connections_hold_up_nobody<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(address), |setup| setup);
    let mut stalled = vec![];
    for n in 0..200_u16 {
        // From many addresses, so that none of them runs into its own cap.
        let source = SocketAddr::from(([127, 2, (n / 20) as u8, 1], 0));
        let mut client = TcpClient::connect_from(source, row.bench.addr).expect("connected");
        let half = &framed(&named("a.example.").bytes())[..usize::from(n % 20)];
        client.send_raw(half).expect("sent");
        stalled.push(client);
    }
    for n in 0..6 {
        let began = Instant::now();
        assert_eq!(row.bench.ask_tcp(&named(&format!("n{n}.example."))).answers.len(), 1);
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
    assert_eq!(row.bench.ask(&named("n0.example.")).answers.len(), 1);
}

pub fn a_client_that_says_no_more_gets_its_answer<R: Runtime>() {
    let row = Row::behind::<R>(sometimes_slow(), |setup| setup);
    let mut client = row.bench.tcp();
    client.send_framed(&named("slow.example.").bytes()).expect("sent");
    client.shutdown_write();
    assert_eq!(next(&mut client).answers.len(), 1);
    assert!(client.recv_eof(PATIENCE), "and then the server closes too");
    row.bench.wait_for("the connection is forgotten", |bench| vitals(bench, |v| v.connections.get()) == 0);
}

pub fn a_client_that_asks_a_lot_and_says_no_more_gets_all_answers<R: Runtime>() {
    let row = Row::behind::<R>(sometimes_slow(), |setup| setup);
    let mut client = row.bench.tcp();
    let query = |id: u16| named(&format!("{}{id}.example.", if id < 50 { "slow" } else { "fast" })).id(id);
    let all: Vec<u8> = (0..100).flat_map(|id| framed(&query(id).bytes())).collect();
    client.send_raw(&all).expect("sent");
    client.shutdown_write();
    let ids: Vec<u16> = (0..100).map(|_| next(&mut client).id).collect();
    assert!(ids[0] >= 50, "answers do not wait for earlier questions: {ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 100);
    assert!(client.recv_eof(PATIENCE), "and then the server closes too");
    row.bench.wait_for("the reason is counted", |bench| {
        vitals(bench, |v| v.connections_closed[CloseReason::Done as usize].get()) == 1
    });
}

pub fn a_client_that_leaves_early_harms_nobody<R: Runtime>() {
    let row = Row::behind::<R>(sometimes_slow(), |setup| setup);
    for n in 0..20 {
        let mut client = row.bench.tcp();
        client.send_framed(&named(&format!("slow{n}.example.")).bytes()).expect("sent");
        // Half of them abort, half of them close.
        if n % 2 == 0 {
            client.reset();
        }
    }
    let mut client = row.bench.tcp();
    client.send_framed(&named("slow0.example.").id(7).bytes()).expect("sent");
    assert_eq!(next(&mut client).id, 7, "its own answer, and no other client's");
    sleep_ms(350);
    assert!(client.recv_framed(Duration::from_millis(20)).is_none());
    row.bench.wait_for("nobody waits", |bench| bench.sum(|stats| &stats.waiters) == 0);
}

pub fn a_length_that_is_no_message_ends_the_connection<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(address), |setup| setup);
    for len in [0_u16, 1, 11] {
        let mut client = row.bench.tcp();
        client.send_raw(&[&len.to_be_bytes()[..], &vec![0; usize::from(len)]].concat()).expect("sent");
        assert!(client.recv_eof(PATIENCE), "length {len}");
    }
    row.bench.wait_for("the reason is counted", |bench| {
        vitals(bench, |v| v.connections_closed[CloseReason::BadFraming as usize].get()) == 3
    });
}

pub fn the_largest_query_is_answered<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(address), |setup| setup);
    let query = named("a.example.").edns(1232).pad_to(65_535);
    assert_eq!(row.bench.ask_tcp(&query).answers.len(), 1);
}

pub fn the_largest_answer_is_relayed_whole_and_not_kept<R: Runtime>() {
    let upstream = Upstream::start(|query| {
        let response = (0..4000)
            .fold(query.response(), |r, n| r.answer(&format!("@ 60 IN A 10.0.{}.{}", n / 256, n % 256)));
        let over_udp = query.transport == nodens_testkit::Transport::Udp;
        vec![Action::Send(if over_udp { query.response().tc().bytes() } else { response.bytes() })]
    });
    let row = Row::behind::<R>(upstream, |setup| setup);
    for _ in 0..2 {
        let reply = row.bench.ask_tcp(&named("a.example."));
        assert_eq!((reply.tc, reply.answers.len()), (false, 4000));
        assert!(reply.raw_len > 64_000);
    }
    // A busy upstream may have been asked once more.
    assert!(row.upstream.tcp_count() >= 2, "more than an entry may have");
    assert_eq!(row.bench.cache.usage().table.entries, 0);
    assert!(row.bench.ask(&named("a.example.")).tc);
}

pub fn a_client_that_does_not_read_is_not_read_from<R: Runtime>() {
    // 8 KiB for each question: a client that only asks would make us hold all of it.
    let upstream = Upstream::start(|query| {
        let response = (0..500)
            .fold(query.response(), |r, n| r.answer(&format!("@ 60 IN A 10.0.{}.{}", n / 256, n % 256)));
        let over_udp = query.transport == nodens_testkit::Transport::Udp;
        vec![Action::Send(if over_udp { query.response().tc().bytes() } else { response.bytes() })]
    });
    let row = Row::behind::<R>(upstream, |setup| setup);
    row.bench.ask_tcp(&named("a.example."));
    let held = || vitals(&row.bench, |v| v.tcp_bytes_held.get());
    let mut most_held = 0;
    let mut greedy = TcpStream::connect(row.bench.addr).expect("connected");
    greedy.set_nonblocking(true).expect("nonblocking");
    let burst = framed(&named("a.example.").bytes()).repeat(1000);
    let (mut sent, began) = (0, Instant::now());
    let mut blocked_since = None;
    while began.elapsed() < Duration::from_secs(10) && sent < (64 << 20) {
        most_held = held().max(most_held);
        match greedy.write(&burst) {
            Ok(len) => (sent, blocked_since) = (sent + len, None),
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                let since = *blocked_since.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_millis(300) {
                    break;
                }
                sleep_ms(5);
            }
            Err(why) => panic!("the server ended the connection: {why}"),
        }
    }
    assert!(blocked_since.is_some(), "{sent} bytes of questions were taken from a client that reads nothing");
    let began = Instant::now();
    assert_eq!(row.bench.ask_tcp(&named("a.example.")).answers.len(), 500);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // What makes it stop reading, one answer above that, and what it had read already; the kernel may have taken a part since.
    let most = UNSENT_HIGH_WATER as u64 + (128 << 10);
    assert!((1..=most).contains(&held()), "{} bytes for one client", held());
    assert!(most_held <= most, "{most_held} bytes for one client");
    // It reads after all: what was asked is answered.
    let mut buffer = vec![0; 1 << 20];
    let mut got = 0;
    let began = Instant::now();
    while got < 4 << 20 && began.elapsed() < PATIENCE {
        match greedy.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => got += len,
            Err(_) => sleep_ms(2),
        }
    }
    assert!(got >= 4 << 20, "{got} bytes");
    drop(greedy);
    row.bench
        .wait_for("nothing is held for who is gone", |bench| vitals(bench, |v| v.tcp_bytes_held.get()) == 0);
}

pub fn over_the_cap_the_oldest_idle_connection_makes_room<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(address), |mut setup| {
        setup.clients = Some(ClientLimits { connections_max: 4, ..ClientLimits::per_worker(1) });
        setup.one_worker()
    });
    let mut clients: Vec<_> = (0..4).map(|_| row.bench.tcp()).collect();
    for client in &mut clients {
        assert!(client.ask(&named("a.example.").bytes(), PATIENCE).is_some());
    }
    let mut fifth = row.bench.tcp();
    assert!(fifth.ask(&named("a.example.").bytes(), PATIENCE).is_some(), "the new one is served");
    assert!(clients[0].recv_eof(PATIENCE), "the oldest idle one is closed");
    for client in &mut clients[1..] {
        assert!(client.ask(&named("a.example.").bytes(), PATIENCE).is_some(), "the others stay");
    }
    assert_eq!(vitals(&row.bench, |v| v.connections_closed[CloseReason::Evicted as usize].get()), 1);
}

pub fn one_source_cannot_take_all_connections<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(address), |mut setup| {
        setup.clients = Some(ClientLimits { per_source_max: 3, ..ClientLimits::per_worker(1) });
        setup.one_worker()
    });
    let other = SocketAddr::from(([127, 3, 0, 1], 0));
    let mut neighbour = TcpClient::connect_from(other, row.bench.addr).expect("connected");
    assert!(neighbour.ask(&named("a.example.").bytes(), PATIENCE).is_some());
    let mut greedy: Vec<_> = (0..6).map(|_| row.bench.tcp()).collect();
    assert!(greedy[5].ask(&named("a.example.").bytes(), PATIENCE).is_some());
    assert!(neighbour.ask(&named("a.example.").bytes(), PATIENCE).is_some(), "nobody else pays for it");
    row.bench
        .wait_for("the greedy source has its share", |bench| vitals(bench, |v| v.connections.get()) == 4);
}

/// How many descriptors one test may have open: half of the process's limit, raised as far as it goes; root may go further.
fn descriptors_for_one_test(wanted: usize) -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let enough = hard.max(2 * wanted as u64);
    if setrlimit(Resource::RLIMIT_NOFILE, enough, enough).is_err() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    usize::try_from(soft / 2).unwrap_or(usize::MAX)
}

fn connect_from(source: Ipv4Addr, server: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    Ok(socket)
}

pub fn ten_thousand_idle_connections_hold_up_nobody<R: Runtime>() {
    const WANTED: usize = 10_000;
    // The server's own ends count too; they are capped.
    let count = WANTED.min(descriptors_for_one_test(WANTED));
    if count < WANTED {
        let needed = 2 * WANTED;
        note(&format!(
            "NOTE: only {count} instead of {WANTED} idle connections; raise RLIMIT_NOFILE to {needed}"
        ));
    }
    // With fewer there is no crowd: the server's own cap would not even be reached.
    assert!(count > 2 * CONNECTIONS_MAX, "RLIMIT_NOFILE is too low for this test");
    let row = Row::behind::<R>(Upstream::start(address), |setup| setup);
    row.bench.ask(&named("hit.example."));
    let mut idle = Vec::with_capacity(count);
    for n in 0..count {
        // A client address for each twenty: a crowd of Pods, not one Pod.
        let pod = (n / 20) as u16;
        let source = Ipv4Addr::new(127, 4, (pod >> 8) as u8, pod as u8 | 1);
        idle.push(connect_from(source, row.bench.addr).expect("nobody is turned away"));
        if n % 1000 == 999 {
            let began = Instant::now();
            assert_eq!(row.bench.ask(&named("hit.example.")).answers.len(), 1);
            assert_eq!(row.bench.ask_tcp(&named(&format!("n{n}.example."))).answers.len(), 1);
            assert!(began.elapsed() < Duration::from_secs(2), "after {n}: {:?}", began.elapsed());
        }
    }
    let open = vitals(&row.bench, |v| v.connections.get());
    assert!(open <= CONNECTIONS_MAX as u64, "{open} connections are open");
    let accepted = || vitals(&row.bench, |v| v.connections_opened.get());
    row.bench.wait_for("all were accepted", |_| accepted() >= count as u64);
    row.bench.wait_for("nothing is held for who asks nothing", |bench| {
        vitals(bench, |v| v.tcp_bytes_held.get()) == 0
    });
}
