//! Many at once: equal questions, different questions, and what a crowd must not do to anybody else.
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::{PATIENCE, Row, SILENCE, Setup, check_frame};
use crate::worker::Runtime;
use nodens_core::DropReason;
use nodens_testkit::{Action, Query, Received, Reply, UdpClient, Upstream};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Long enough for a crowd to gather, shorter than any retransmission.
const UPSTREAM_TIME: Duration = Duration::from_millis(200);

fn slow_upstream() -> Upstream {
    Upstream::start(|query| {
        let answer = query.response().answer("@ 60 IN A 192.0.2.1").bytes();
        vec![Action::Delay(UPSTREAM_TIME), Action::Send(answer)]
    })
}

/// `www.example.` in a spelling of its own for every number below 1024.
fn spelled(n: u16) -> Query {
    let mut bit = 0;
    let name = "www.example.".chars().map(|letter| {
        if !letter.is_ascii_alphabetic() {
            return letter;
        }
        bit += 1;
        if n >> (bit - 1) & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
    });
    Query::new(&name.collect::<String>(), "A").id(n)
}

/// `clients` times `each` equal questions at once; everybody is answered with the own ID and spelling.
fn crowd(row: &Row, clients: u16, each: u16) {
    let sockets: Vec<_> = (0..clients).map(|_| UdpClient::new()).collect();
    for n in 0..clients * each {
        sockets[usize::from(n / each)].send(row.bench.addr, &spelled(n).bytes());
    }
    for (socket, first) in sockets.iter().zip((0..).step_by(each.into())) {
        let mut missing: BTreeSet<u16> = (first..first + each).collect();
        while !missing.is_empty() {
            let reply = socket.recv(PATIENCE).unwrap_or_else(|| panic!("no answer for {missing:?}")).0;
            let reply = Reply::parse(&reply);
            assert!(missing.remove(&reply.id), "one answer for each");
            check_frame(&spelled(reply.id).bytes(), &reply);
            assert_eq!(reply.rdatas("A"), ["192.0.2.1"]);
        }
    }
}

pub fn x1_64_equal_queries_are_one_lookup<R: Runtime>() {
    let row = Row::behind::<R>(slow_upstream(), Setup::one_worker);
    crowd(&row, 8, 8);
    assert_eq!(row.asked(), 1);
    assert_eq!(row.bench.sum(|stats| &stats.coalesced), 63);
}

pub fn x1_1000_equal_queries_are_one_lookup_per_worker<R: Runtime>() {
    let row = Row::behind::<R>(slow_upstream(), |setup| setup);
    crowd(&row, 20, 50);
    let workers = row.bench.running().workers.len() as u64;
    assert!((1..=workers).contains(&row.asked()), "{} lookups", row.asked());
}

pub fn both_workers_serve<R: Runtime>() {
    let row = Row::behind::<R>(slow_upstream(), |setup| setup);
    crowd(&row, 40, 1);
    for stats in row.bench.running().stats() {
        let answered = stats.routes[0][0].duration.count();
        assert!(answered > 0, "forty ports reach both workers");
    }
}

pub fn a_retransmission_is_answered_once<R: Runtime>() {
    let row = Row::behind::<R>(slow_upstream(), |setup| setup);
    let client = UdpClient::new();
    let query = Query::new("www.example.", "A").bytes();
    for _ in 0..3 {
        client.send(row.bench.addr, &query);
    }
    assert!(client.recv(PATIENCE).is_some());
    assert!(client.recv(SILENCE).is_none());
    assert_eq!(row.bench.sum(|stats| &stats.dropped[DropReason::Duplicate as usize]), 2);
    assert_eq!(row.asked(), 1);
}

pub fn a_thousand_different_questions_are_all_answered<R: Runtime>() {
    let row = Row::behind::<R>(slow_upstream(), |setup| setup);
    let sockets: Vec<_> = (0..10).map(|_| UdpClient::new()).collect();
    for n in 0..1000_u16 {
        let query = Query::new(&format!("n{n}.example."), "A").id(n);
        sockets[usize::from(n % 10)].send(row.bench.addr, &query.bytes());
    }
    let mut answered = BTreeSet::new();
    for socket in sockets.iter().cycle().take(1000) {
        let reply = Reply::parse(&socket.recv(PATIENCE).expect("an answer").0);
        let name = format!("n{}.example.", reply.id);
        assert_eq!(reply.answer_lines(), [format!("{name} A 192.0.2.1")]);
        assert!(answered.insert(reply.id));
    }
    assert_eq!(row.asked(), 1000);
    row.bench.wait_for("nothing is left over", |bench| {
        bench.sum(|stats| &stats.lookups)
            + bench.sum(|stats| &stats.waiters)
            + bench.sum(|stats| &stats.paths)
            == 0
    });
}

pub fn slow_lookups_hold_up_nobody<R: Runtime>() {
    let upstream = Upstream::start(|query: &Received| {
        let answer = Action::Send(query.response().answer("@ 60 IN A 192.0.2.1").bytes());
        if query.qname.starts_with("slow") { vec![Action::Drop] } else { vec![answer] }
    });
    let row = Row::behind::<R>(upstream, |setup| setup);
    row.bench.ask(&Query::new("hit.example.", "A"));
    let client = UdpClient::new();
    for n in 0..200 {
        client.send(row.bench.addr, &Query::new(&format!("slow{n}.example."), "A").bytes());
    }
    let mut late = vec![];
    for n in 0..20 {
        for name in ["hit.example.".to_owned(), format!("miss{n}.example.")] {
            let began = Instant::now();
            assert_eq!(row.bench.ask(&Query::new(&name, "A")).answers.len(), 1);
            if began.elapsed() > Duration::from_millis(250) {
                late.push((name, began.elapsed()));
            }
        }
    }
    // A busy machine may be late once; whoever waits for slow lookups is late every time.
    assert!(late.len() <= 4, "{late:?}");
}

pub fn max_concurrent_refuses<R: Runtime>() {
    let row = Row::behind::<R>(slow_upstream(), |mut setup| {
        if let Some(forward) = &mut setup.config.zones[0].forward {
            forward.max_concurrent = 1;
        }
        setup.one_worker()
    });
    let first = UdpClient::new();
    first.send(row.bench.addr, &Query::new("a.example.", "A").bytes());
    assert!(row.upstream.wait_for_count(1, PATIENCE));
    assert_eq!(row.bench.ask(&Query::new("b.example.", "A")).rcode, 5, "as CoreDNS");
    assert_eq!(row.bench.zone(|zone| &zone.max_concurrent_rejects), 1);
    assert!(first.recv(PATIENCE).is_some());
    assert_eq!(row.bench.ask(&Query::new("b.example.", "A")).rcode, 0);
}
