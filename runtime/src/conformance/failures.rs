//! Upstreams that fail, lie, fall silent and come back, and what clients notice of it (reliability.md §3, semantics.md X2, X3).
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::{Bench, PATIENCE, Row, Setup, sleep_ms};
use crate::worker::{Runtime, WorkerHandle};
use nodens_testkit::msg::rcode::{FORMERR, NOERROR, SERVFAIL};
use nodens_testkit::{Action, Query, Received, Transport, UdpClient, Upstream, answers};
use std::time::{Duration, Instant};

/// Extended DNS errors (RFC 8914 §4).
const EDE_CACHED_ERROR: u16 = 13;
const EDE_NOT_READY: u16 = 14;
const EDE_NO_REACHABLE_AUTHORITY: u16 = 22;
const EDE_NETWORK_ERROR: u16 = 23;

/// What a client waits for at most while its upstreams are known to be dead (design §4a).
const KNOWN_DEAD: Duration = Duration::from_millis(900);

fn named(name: &str) -> Query {
    Query::new(name, "A")
}

fn healthy() -> Upstream {
    Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")))
}

/// Probed every 100 ms while it is not well, so that a row takes no longer than it must.
fn probed_often(setup: Setup) -> Setup {
    setup.one_worker().probe_interval(Duration::from_millis(100))
}

fn timed(bench: &Bench, query: &Query) -> (nodens_testkit::Reply, Duration) {
    let began = Instant::now();
    (bench.ask(query), began.elapsed())
}

fn is_down(bench: &Bench) -> bool {
    bench.upstream(0, |upstream| &upstream.down) == 1
}

/// Makes the server learn that its upstream is gone.
fn learn_that_it_is_down(row: &Row) {
    let client = UdpClient::new();
    client.send(row.bench.addr, &named("canary.example.").bytes());
    row.bench.wait_for("the upstream counts as down", is_down);
}

/// While the upstream is gone in this way: SERVFAIL in time, fresh entries still served, and back within a second.
fn outage<R: Runtime>(begin: fn(&Upstream), end: fn(&Upstream)) {
    let row = Row::behind::<R>(healthy(), probed_often);
    row.bench.ask(&named("fresh.example."));
    begin(&row.upstream);
    learn_that_it_is_down(&row);
    let (reply, took) = timed(&row.bench, &named("new.example.").edns(1232));
    assert_eq!(reply.rcode, SERVFAIL);
    assert!(took < KNOWN_DEAD, "SERVFAIL after {took:?}");
    assert!(matches!(reply.ede(), Some(EDE_NO_REACHABLE_AUTHORITY | EDE_NETWORK_ERROR)), "{:?}", reply.ede());
    let (reply, took) = timed(&row.bench, &named("fresh.example."));
    assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
    assert!(took < Duration::from_millis(100), "a fresh entry is served at once: {took:?}");
    end(&row.upstream);
    let back = Instant::now();
    row.bench.wait_for("the upstream is well again", |bench| !is_down(bench));
    assert_eq!(row.bench.ask(&named("new.example.")).rcode, NOERROR, "its failure is forgotten");
    assert!(back.elapsed() < Duration::from_secs(1), "back after {:?}", back.elapsed());
}

pub fn f1_a_stopped_upstream<R: Runtime>() {
    outage::<R>(Upstream::stop, Upstream::restart);
}

pub fn f2_a_silent_upstream<R: Runtime>() {
    outage::<R>(Upstream::pause, Upstream::resume);
}

/// Two upstreams of which the first, which is asked first, is broken by `breaking`; a new name every time.
fn one_of_two<R: Runtime>(breaking: fn(&Upstream)) {
    let (bad, good) = (healthy(), healthy());
    let bench = Setup::new(&[&bad, &good]).one_worker().start::<R>();
    breaking(&bad);
    let mut late = vec![];
    let asked_bad = || bad.count_if(|query| query.qname.starts_with('n'));
    let mut asked_before = 0;
    for n in 0..30 {
        if n == 20 {
            asked_before = asked_bad();
        }
        let (reply, took) = timed(&bench, &named(&format!("n{n}.example.")));
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
        if took > Duration::from_millis(250) {
            late.push((n, took));
        }
        sleep_ms(30);
    }
    // A busy machine may be late now and then; waiting for the broken one would be a habit.
    assert!(late.len() <= 3, "{late:?}");
    // By now it is known not to be well, and asked only where the other one takes its time.
    assert!(asked_bad() - asked_before <= 3, "asked {} times of ten", asked_bad() - asked_before);
    assert!(good.count() >= 30);
}

pub fn f2_one_of_two_upstreams_is_silent<R: Runtime>() {
    one_of_two::<R>(Upstream::pause);
}

pub fn f1_one_of_two_upstreams_is_gone<R: Runtime>() {
    one_of_two::<R>(Upstream::stop);
}

pub fn x2_a_failed_lookup_fails_everybody_once_and_asks_no_more_often<R: Runtime>() {
    let row =
        Row::behind::<R>(healthy(), |setup| probed_often(setup).probe_interval(Duration::from_secs(60)));
    row.upstream.stop();
    let client = UdpClient::new();
    for id in 0..20 {
        client.send(row.bench.addr, &named("gone.example.").id(id).bytes());
    }
    let mut ids: Vec<u16> = (0..20)
        .map(|_| {
            let reply =
                nodens_testkit::Reply::parse(&client.recv(PATIENCE).expect("everybody is answered").0);
            assert_eq!(reply.rcode, SERVFAIL);
            reply.id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>(), "each once");
    let attempts = row.bench.upstream(0, |upstream| &upstream.attempts);
    assert!(attempts <= 2, "twenty clients are one lookup, which connects twice: {attempts}");
}

pub fn x3_a_failure_is_remembered_for_a_second<R: Runtime>() {
    let row = Row::behind::<R>(healthy(), |setup| setup.one_worker().probe_interval(Duration::from_secs(60)));
    row.upstream.stop();
    let query = named("gone.example.").edns(1232);
    let first = row.bench.ask(&query);
    assert_eq!((first.rcode, first.ede()), (SERVFAIL, Some(EDE_NETWORK_ERROR)));
    row.upstream.restart();
    let before = row.upstream.count();
    let second = row.bench.ask(&query);
    assert_eq!((second.rcode, second.ede()), (SERVFAIL, Some(EDE_CACHED_ERROR)));
    assert_eq!(row.upstream.count(), before, "RFC 9520 §3.2: not a packet");
    assert_eq!(row.bench.sum(|stats| &stats.failure_hits), 1);
    sleep_ms(1050);
    assert_eq!(row.bench.ask(&query).rcode, NOERROR);
}

pub fn x3_a_good_answer_in_the_zone_ends_it_early<R: Runtime>() {
    let row = Row::behind::<R>(healthy(), |setup| setup.one_worker().probe_interval(Duration::from_secs(60)));
    row.upstream.stop();
    assert_eq!(row.bench.ask(&named("gone.example.")).rcode, SERVFAIL);
    row.upstream.restart();
    assert_eq!(row.bench.ask(&named("another.example.")).rcode, NOERROR);
    assert_eq!(row.bench.ask(&named("gone.example.")).rcode, NOERROR);
}

pub fn f6_a_silent_upstream_is_given_up_within_the_hard_cap<R: Runtime>() {
    let row = Row::behind::<R>(healthy(), |setup| setup.one_worker().probe_interval(Duration::from_secs(60)));
    row.upstream.pause();
    let (reply, took) = timed(&row.bench, &named("gone.example.").edns(1232));
    assert_eq!((reply.rcode, reply.ede()), (SERVFAIL, Some(EDE_NO_REACHABLE_AUTHORITY)));
    assert!(took < Duration::from_millis(4700), "{took:?}");
    assert!((2..=6).contains(&row.asked_with_repetitions()), "{}", row.asked_with_repetitions());
}

impl Row {
    fn asked_with_repetitions(&self) -> usize {
        self.upstream.count_if(|query| query.qname == "gone.example.")
    }
}

pub fn ede_is_for_clients_that_speak_edns<R: Runtime>() {
    let row = Row::behind::<R>(healthy(), Setup::one_worker);
    row.upstream.stop();
    let plain = row.bench.ask(&named("a.example."));
    assert_eq!((plain.rcode, plain.opt_count), (SERVFAIL, 0));
    let reply = row.bench.ask(&named("b.example.").edns(1232));
    assert_eq!((reply.rcode, reply.ede()), (SERVFAIL, Some(EDE_NETWORK_ERROR)));
    let opt = reply.opt.expect("an OPT");
    assert_eq!(opt.options.len(), 1);
}

pub fn ede_of_the_upstream_is_passed_on<R: Runtime>() {
    let row = Row::start::<R>(|query| query.response().rcode(SERVFAIL).ede(9));
    for reply in row.ask_twice(&named("bogus.example.").edns(1232)) {
        assert_eq!((reply.rcode, reply.ede()), (SERVFAIL, Some(9)), "DNSKEY missing is what it said");
    }
    assert_eq!(row.bench.ask(&named("bogus.example.")).opt_count, 0);
    assert_eq!(row.asked(), 1);
}

pub fn rfc6891_7_formerr_to_edns_is_asked_again_without_and_remembered<R: Runtime>() {
    let old = |query: &Received| match query.opt {
        Some(_) => query.response().rcode(FORMERR),
        None => query.response().answer("@ 60 IN A 192.0.2.1"),
    };
    let row = Row::with::<R>(old, Setup::one_worker);
    for reply in [row.bench.ask(&named("a.example.").edns(1232)), row.bench.ask(&named("b.example."))] {
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
    }
    let with_opt: Vec<_> = row.upstream.received().iter().map(|query| query.opt.is_some()).collect();
    assert_eq!(with_opt, [true, false, false]);
}

pub fn servfail_of_one_upstream_is_the_answer<R: Runtime>() {
    // Design §4a: it is whole and valid; who wants another resolver's opinion says so with `failover`.
    let row = Row::start::<R>(|query| query.response().rcode(SERVFAIL));
    assert_eq!(row.bench.ask(&named("a.example.")).rcode, SERVFAIL);
    assert_eq!(row.asked(), 1);
}

/// Forty addresses: over UDP truncated, over TCP whole.
fn large_answer() -> Upstream {
    Upstream::start(|query| {
        let whole = (0..100).fold(query.response(), |r, n| r.answer(&format!("@ 60 IN A 192.0.2.{n}")));
        let bytes = match query.transport {
            Transport::Udp => query.response().answer("@ 60 IN A 192.0.2.0").tc().bytes(),
            Transport::Tcp => whole.bytes(),
        };
        vec![Action::Send(bytes)]
    })
}

pub fn h10_h24_a_truncated_answer_is_fetched_whole<R: Runtime>() {
    let row = Row::behind::<R>(large_answer(), |setup| setup);
    let small = row.bench.ask(&named("a.example."));
    assert!(small.tc && small.raw_len <= 512 && small.answers.len() > 20, "as much as fits");
    let tcp = row.bench.ask_tcp(&named("a.example."));
    assert_eq!((tcp.tc, tcp.answers.len()), (false, 100));
    let large = row.bench.ask(&named("a.example.").edns(4096));
    assert!(large.tc && large.raw_len <= 1232 && large.answers.len() > 70, "no larger than our own size");
    assert_eq!((row.upstream.udp_count(), row.upstream.tcp_count()), (1, 1));
    let fits = large.answers.len();
    assert!(fits > small.answers.len());
}

pub fn h10_a_truncated_answer_that_fits_is_given_whole<R: Runtime>() {
    let upstream = Upstream::start(|query| {
        let whole = (0..50).fold(query.response(), |r, n| r.answer(&format!("@ 60 IN A 192.0.2.{n}")));
        let cut = query.response().tc();
        vec![Action::Send(if query.transport == Transport::Udp { cut.bytes() } else { whole.bytes() })]
    });
    let row = Row::behind::<R>(upstream, |setup| setup);
    let reply = row.bench.ask(&named("a.example.").edns(1232));
    assert_eq!((reply.tc, reply.answers.len()), (false, 50));
}

pub fn h24_a_truncated_message_may_be_broken<R: Runtime>() {
    // RFC 2181 §9: nothing of the body is used, and one that was cut inside a record may not even parse.
    let upstream = Upstream::start(|query| match query.transport {
        Transport::Udp => {
            let mut bytes = query.response().tc().answer("@ 60 IN A 203.0.113.66").bytes();
            bytes.truncate(bytes.len() - 3);
            vec![Action::Send(bytes)]
        }
        Transport::Tcp => vec![Action::Send(query.response().answer("@ 60 IN A 192.0.2.1").bytes())],
    });
    let row = Row::behind::<R>(upstream, |setup| setup);
    assert_eq!(row.bench.ask(&named("a.example.")).rdatas("A"), ["192.0.2.1"]);
}

/// The upstream answers over TCP in this way. After a truncated answer there is no other way to the whole one, so the client
/// is told TC over UDP and SERVFAIL over TCP, both in time.
fn broken_tcp<R: Runtime>(tcp: fn(&Received) -> Vec<Action>) {
    let upstream = Upstream::start(move |query| match query.transport {
        Transport::Udp => vec![Action::Send(query.response().tc().bytes())],
        Transport::Tcp => tcp(query),
    });
    let row = Row::behind::<R>(upstream, |setup| setup);
    let (reply, took) = timed(&row.bench, &named("a.example."));
    assert_eq!((reply.tc, reply.answers.len()), (true, 0));
    assert!(took < Duration::from_millis(4700), "{took:?}");
    assert_eq!(row.bench.ask_tcp(&named("b.example.")).rcode, SERVFAIL);
    assert_eq!(row.bench.cache.usage().table.entries, 0);
}

pub fn h_tcp_that_is_closed_at_once<R: Runtime>() {
    broken_tcp::<R>(|_| vec![Action::Close]);
}

pub fn h_tcp_that_is_reset<R: Runtime>() {
    broken_tcp::<R>(|_| vec![Action::Reset]);
}

pub fn h_tcp_that_ends_inside_a_message<R: Runtime>() {
    broken_tcp::<R>(|_| vec![Action::SendRaw(b"\x00\x40half".to_vec()), Action::Close]);
}

pub fn h_tcp_that_answers_something_else<R: Runtime>() {
    broken_tcp::<R>(|query| vec![Action::Send(query.response().no_question().bytes())]);
}

pub fn h_tcp_that_sends_a_length_of_zero<R: Runtime>() {
    broken_tcp::<R>(|_| vec![Action::SendRaw(vec![0, 0]), Action::Close]);
}

pub fn h_tcp_that_takes_its_time_is_waited_for<R: Runtime>() {
    let upstream = Upstream::start(|query| match query.transport {
        Transport::Udp => vec![Action::Send(query.response().tc().bytes())],
        Transport::Tcp => vec![
            Action::Delay(Duration::from_millis(1500)),
            Action::Send(query.response().answer("@ 60 IN A 192.0.2.1").bytes()),
        ],
    });
    let row = Row::behind::<R>(upstream, Setup::one_worker);
    let (reply, took) = timed(&row.bench, &named("a.example."));
    assert_eq!(reply.rdatas("A"), ["192.0.2.1"]);
    assert!(took < Duration::from_millis(2000), "the answer to the first connection is taken: {took:?}");
}

pub fn h_tcp_byte_by_byte_is_read<R: Runtime>() {
    let upstream = Upstream::start(|query| match query.transport {
        Transport::Udp => vec![Action::Send(query.response().tc().bytes())],
        Transport::Tcp => {
            let whole = query.response().answer("@ 60 IN A 192.0.2.1").bytes();
            vec![Action::SendByteByByte(whole, Duration::from_millis(2))]
        }
    });
    let row = Row::behind::<R>(upstream, |setup| setup);
    assert_eq!(row.bench.ask(&named("a.example.")).rdatas("A"), ["192.0.2.1"]);
}

pub fn a_lost_datagram_is_sent_again<R: Runtime>() {
    let upstream = Upstream::start(|query| {
        if query.seq == 0 {
            return vec![Action::Drop];
        }
        vec![Action::Send(query.response().answer("@ 60 IN A 192.0.2.1").bytes())]
    });
    let row = Row::behind::<R>(upstream, Setup::one_worker);
    let (reply, took) = timed(&row.bench, &named("a.example."));
    assert_eq!(reply.answers.len(), 1);
    assert!(took < Duration::from_millis(900), "inside the client's patience: {took:?}");
    let sent = row.upstream.received();
    assert_ne!(sent[0].peer.port(), sent[1].peer.port(), "from another port");
    assert_ne!(sent[0].id, sent[1].id, "with another ID");
}

/// How long the lookup takes that the limit lets through; far more than an answer needs that waits for nobody.
const LOOKUP_TIME: Duration = Duration::from_millis(1000);

/// Limits answer with SERVFAIL and "not ready", never with silence.
fn shed<R: Runtime>(change: fn(&mut nodens_core::config::Limits), second: &Query) {
    let upstream = Upstream::start(|query| {
        let answer = query.response().answer("@ 60 IN A 192.0.2.1").bytes();
        vec![Action::Delay(LOOKUP_TIME), Action::Send(answer)]
    });
    let row = Row::behind::<R>(upstream, |setup| setup.one_worker().limits(change));
    let first = UdpClient::new();
    first.send(row.bench.addr, &named("a.example.").bytes());
    assert!(row.upstream.wait_for_count(1, PATIENCE));
    let (reply, took) = timed(&row.bench, second);
    assert_eq!((reply.rcode, reply.ede()), (SERVFAIL, Some(EDE_NOT_READY)));
    // At once: the one that was taken is still under way.
    assert!(took < LOOKUP_TIME, "{took:?}");
    assert_eq!((row.bench.sum(|stats| &stats.shed), row.bench.sum(|stats| &stats.lookups)), (1, 1));
    assert!(first.recv(PATIENCE).is_some(), "who waits is answered all the same");
    row.bench.wait_for("nobody waits", |bench| {
        bench.sum(|stats| &stats.waiters) == 0 && bench.sum(|stats| &stats.lookups) == 0
    });
}

pub fn x1_too_many_waiters_for_one_question<R: Runtime>() {
    shed::<R>(|limits| limits.waiters_per_lookup_max = 1, &named("a.example.").edns(1232));
}

pub fn x1_too_many_waiters_in_all<R: Runtime>() {
    shed::<R>(|limits| limits.waiters_max = 1, &named("b.example.").edns(1232));
}

pub fn x1_too_many_lookups<R: Runtime>() {
    shed::<R>(|limits| limits.lookups_max = 1, &named("b.example.").edns(1232));
}

/// What a bad day looks like: one of many misdeeds, chosen by the number in the name and by how often it was asked.
fn misdeed(query: &Received) -> Vec<Action> {
    let answer = || query.response().answer("@ 60 IN A 192.0.2.1");
    let tcp = query.transport == Transport::Tcp;
    let number: usize =
        query.qname.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let pause = |ms| Action::Delay(Duration::from_millis(ms));
    match (number + query.seq * 7) % 16 {
        0 => vec![Action::Drop],
        1 if tcp => vec![Action::Close],
        2 if tcp => vec![Action::Reset],
        3 if tcp => vec![Action::SendRaw(b"\x00\x05junk".to_vec())],
        4 if tcp => vec![pause(900), Action::Send(answer().bytes()), Action::Close],
        5 if tcp => vec![Action::SendByteByByte(answer().bytes(), Duration::from_millis(30))],
        1 | 2 => vec![Action::Send(answer().tc().bytes())],
        3 => vec![pause(700), Action::Send(answer().tc().bytes())],
        4 | 5 => vec![Action::Send(vec![0xff; 40])],
        6 => vec![Action::Send(answer().id(query.id ^ 1).bytes())],
        7 => vec![Action::Send(query.response().no_question().rcode(SERVFAIL).bytes())],
        8 => vec![Action::Send(query.response().rcode(FORMERR).bytes())],
        9 => vec![Action::Send(query.response().rcode(SERVFAIL).bytes())],
        10 => vec![pause(1200), Action::Send(answer().bytes())],
        11 => vec![Action::Send(answer().bytes()), Action::Send(answer().bytes())],
        12 => vec![
            Action::Send(query.response().question("evil.example.", "A").bytes()),
            pause(300),
            Action::Send(answer().bytes()),
        ],
        13 => vec![Action::Send(query.response().claimed_ancount(9).bytes())],
        14 => vec![Action::Send(query.response().edns_version(3).bytes())],
        _ => vec![Action::Send(answer().bytes())],
    }
}

pub fn upstreams_that_do_everything_wrong_cost_no_client_its_answer<R: Runtime>() {
    const QUERIES: u16 = 256;
    let upstreams = [Upstream::start(misdeed), Upstream::start(misdeed)];
    let bench =
        Setup::new(&[&upstreams[0], &upstreams[1]]).probe_interval(Duration::from_millis(100)).start::<R>();
    let clients: Vec<_> = (0..8).map(|_| UdpClient::new()).collect();
    let began = Instant::now();
    for id in 0..QUERIES {
        let query = named(&format!("c{id}.example.")).id(id).edns(1232).bytes();
        clients[usize::from(id % 8)].send(bench.addr, &query);
    }
    for client in clients.iter().cycle().take(usize::from(QUERIES)) {
        let reply = nodens_testkit::Reply::parse(&client.recv(PATIENCE).expect("everybody is answered").0);
        assert!(began.elapsed() < Duration::from_millis(4900), "{:?}", began.elapsed());
        // Whatever happened, it is the truth or a failure.
        let truth = reply.rdatas("A") == ["192.0.2.1"];
        assert!(truth || reply.answers.is_empty(), "{reply:?}");
        assert!(truth || reply.tc || [SERVFAIL, FORMERR].contains(&reply.rcode), "{reply:?}");
    }
    bench.wait_for("nothing is left over", |bench| {
        bench.sum(|stats| &stats.lookups) == 0 && bench.sum(|stats| &stats.waiters) == 0
    });
    let silent: Vec<_> = bench.running().workers.iter().map(WorkerHandle::silent_for).collect();
    assert!(silent.iter().all(|silent| *silent < Duration::from_secs(2)), "{silent:?}");
}
