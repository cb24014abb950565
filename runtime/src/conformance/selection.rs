//! Rows G, H and J: which upstream is asked, how often, over what, and how one that is not well is probed.
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::{Bench, PATIENCE, Row, Setup, sleep_ms};
use crate::worker::Runtime;
use nodens_core::Duration;
use nodens_core::config::Policy;
use nodens_core::wire::Name;
use nodens_testkit::msg::rcode::{NOERROR, REFUSED, SERVFAIL};
use nodens_testkit::msg::rtype;
use nodens_testkit::{Action, Query, Received, Transport, UdpClient, Upstream, answers};
use std::collections::BTreeSet;

fn named(n: usize) -> Query {
    Query::new(&format!("n{n}.example."), "A")
}

fn address(query: &Received) -> nodens_testkit::Response {
    query.response().answer("@ 60 IN A 192.0.2.1")
}

/// A server with one worker in front of these upstreams, which it chooses from in this way.
fn choosing<R: Runtime>(upstreams: &[&Upstream], policy: Policy) -> Bench {
    let mut setup = Setup::new(upstreams).one_worker();
    if let Some(forward) = &mut setup.config.zones[0].forward {
        forward.policy = policy;
    }
    setup.start::<R>()
}

/// How many first attempts each of three healthy upstreams got of 60.
fn spread<R: Runtime>(policy: Policy) -> [usize; 3] {
    let upstreams = [(); 3].map(|()| Upstream::start(answers(address)));
    let bench = choosing::<R>(&[&upstreams[0], &upstreams[1], &upstreams[2]], policy);
    for n in 0..60 {
        assert_eq!(bench.ask(&named(n)).rcode, NOERROR);
    }
    upstreams.map(|upstream| upstream.count())
}

pub fn g01_round_robin_takes_turns<R: Runtime>() {
    let spread = spread::<R>(Policy::RoundRobin);
    // A slow machine may hedge now and then.
    assert!(spread.iter().all(|n| (18..=24).contains(n)), "{spread:?}");
}

pub fn g02_random_asks_all<R: Runtime>() {
    let spread = spread::<R>(Policy::Random);
    assert!(spread.iter().all(|n| *n >= 8), "{spread:?}");
}

pub fn g03_sequential_asks_the_first<R: Runtime>() {
    let [first, second, third] = spread::<R>(Policy::Sequential);
    assert!(first >= 60 && second + third <= 6, "{first}, {second}, {third}");
}

/// Attempts at each of `count` upstreams that refuse, for one question.
fn attempts_at_refusing<R: Runtime>(count: usize) -> Vec<u64> {
    let upstreams: Vec<_> = (0..count).map(|_| Upstream::start(answers(address))).collect();
    let bench = choosing::<R>(&upstreams.iter().collect::<Vec<_>>(), Policy::Sequential);
    upstreams.iter().for_each(Upstream::stop);
    assert_eq!(bench.ask(&named(0)).rcode, SERVFAIL);
    (0..count).map(|n| bench.upstream(n, |upstream| &upstream.attempts)).collect()
}

pub fn g07_one_refusing_upstream_is_tried_twice<R: Runtime>() {
    assert_eq!(attempts_at_refusing::<R>(1), [2]);
}

pub fn g08_three_refusing_upstreams_are_tried_twice_each<R: Runtime>() {
    assert_eq!(attempts_at_refusing::<R>(3), [2, 2, 2]);
}

pub fn g13_g14_the_first_answer_counts_whatever_it_says<R: Runtime>() {
    let failing = Upstream::start(answers(|query| query.response().rcode(SERVFAIL)));
    let good = Upstream::start(answers(address));
    let bench = choosing::<R>(&[&failing, &good], Policy::Sequential);
    assert_eq!(bench.ask(&named(0)).rcode, SERVFAIL, "no failover unless it is asked for");
    assert_eq!(good.count(), 0);
    let bench = choosing::<R>(&[&good, &failing], Policy::Sequential);
    assert_eq!(bench.ask(&named(1)).rcode, NOERROR);
}

pub fn g17_an_upstream_that_drops_every_other_query_costs_no_answer<R: Runtime>() {
    let flaky = Upstream::start(|query| {
        if query.seq.is_multiple_of(2) {
            vec![Action::Drop]
        } else {
            vec![Action::Send(address(query).bytes())]
        }
    });
    let good = Upstream::start(answers(address));
    let bench = choosing::<R>(&[&flaky, &good], Policy::Random);
    for n in 0..20 {
        let reply = bench.ask_within(&named(n), Duration::from_secs(1)).expect("an answer in time");
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
    }
}

pub fn h19_h20_rubbish_before_the_answer<R: Runtime>() {
    let upstream = Upstream::start(|query| {
        let other_id = [&(query.id ^ 1).to_be_bytes()[..], &[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 7]].concat();
        vec![
            Action::Send(vec![1, 2, 3]),
            Action::Send(other_id),
            Action::Send(query.response().answer("@ 60 IN A 192.0.2.55").bytes()),
        ]
    });
    let row = Row::behind::<R>(upstream, |setup| setup);
    assert_eq!(row.bench.ask(&named(0)).rdatas("A"), ["192.0.2.55"]);
}

pub fn h27_every_question_leaves_from_another_port<R: Runtime>() {
    let row = Row::start::<R>(address);
    for n in 0..100 {
        row.bench.ask(&named(n));
    }
    let received = row.upstream.received();
    let ports: BTreeSet<_> = received.iter().map(|query| query.peer.port()).collect();
    let ids: BTreeSet<_> = received.iter().map(|query| query.id).collect();
    assert!(ports.len() >= 98 && ids.len() >= 98, "{} ports, {} IDs", ports.len(), ids.len());
    // Not one after the other either.
    let steps: BTreeSet<_> =
        received.windows(2).map(|w| w[1].peer.port().wrapping_sub(w[0].peer.port())).collect();
    assert!(steps.len() >= 90, "{} different steps", steps.len());
}

/// Truncated over UDP; over TCP whole, and then the connection ends with these steps.
fn connection_ends<R: Runtime>(steps: Vec<Action>) {
    let upstream = Upstream::start(move |query| match query.transport {
        Transport::Udp => vec![Action::Send(query.response().tc().bytes())],
        Transport::Tcp => [&[Action::Send(address(query).bytes())], &steps[..]].concat(),
    });
    let row = Row::behind::<R>(upstream, Setup::one_worker);
    for n in 0..10 {
        assert_eq!(row.bench.ask(&named(n)).rdatas("A"), ["192.0.2.1"], "question {n}");
        sleep_ms(20);
    }
    assert_eq!(row.bench.upstream(0, |upstream| &upstream.down), 0, "such an end is no failure");
}

pub fn h28_an_upstream_that_closes_after_each_answer<R: Runtime>() {
    connection_ends::<R>(vec![Action::Close]);
}

pub fn h29_an_upstream_that_resets_after_each_answer<R: Runtime>() {
    // The answer has a moment to be read before the reset overtakes it.
    connection_ends::<R>(vec![Action::Delay(Duration::from_millis(10)), Action::Reset]);
}

/// The probes that reached an upstream whose first query got lost.
fn probes_after_a_loss<R: Runtime>(change: impl FnOnce(Setup) -> Setup) -> Vec<Received> {
    let upstream = Upstream::start(|query| {
        if query.seq == 0 { vec![Action::Drop] } else { vec![Action::Send(address(query).bytes())] }
    });
    let probe_interval = Duration::from_millis(100);
    let row = Row::behind::<R>(upstream, |setup| change(setup.one_worker().probe_interval(probe_interval)));
    assert_eq!(row.bench.ask(&named(0)).rcode, NOERROR);
    sleep_ms(350);
    let received = row.upstream.received();
    received.into_iter().filter(|query| query.qtype == rtype::NS).collect()
}

pub fn j01_one_probe_after_a_loss_and_then_none<R: Runtime>() {
    let probes = probes_after_a_loss::<R>(|setup| setup);
    assert_eq!(probes.len(), 1);
    assert_eq!((probes[0].qname.as_str(), probes[0].rd), (".", true));
}

pub fn j03_probes_without_recursion<R: Runtime>() {
    let probes = probes_after_a_loss::<R>(|mut setup| {
        setup.config.upstreams[0].probe_rd = false;
        setup
    });
    assert!(!probes.is_empty() && probes.iter().all(|probe| !probe.rd));
}

pub fn j06_without_max_fails_there_are_no_probes<R: Runtime>() {
    let probes = probes_after_a_loss::<R>(|mut setup| {
        setup.config.upstreams[0].max_fails = 0;
        setup
    });
    assert!(probes.is_empty());
}

pub fn j07_probes_ask_for_the_name_that_is_set<R: Runtime>() {
    let probes = probes_after_a_loss::<R>(|mut setup| {
        setup.config.upstreams[0].probe_name = Name::parse("example.org.").expect("a name");
        setup
    });
    assert!(!probes.is_empty() && probes.iter().all(|probe| probe.qname == "example.org."));
}

pub fn j05_j14_down_after_failed_probes_and_well_with_any_rcode<R: Runtime>() {
    let row = Row::with::<R>(address, |setup| setup.one_worker().probe_interval(Duration::from_millis(100)));
    let down = |bench: &Bench| bench.upstream(0, |upstream| &upstream.down);
    row.upstream.pause();
    UdpClient::new().send(row.bench.addr, &named(0).bytes());
    row.bench.wait_for("it is probed", |bench| bench.upstream(0, |upstream| &upstream.probes) >= 1);
    assert_eq!(down(&row.bench), 0, "suspect, not down");
    row.bench.wait_for("it counts as down", |bench| down(bench) == 1);
    assert!(row.bench.upstream(0, |upstream| &upstream.probe_failures) > 2);
    row.upstream.set_handler(answers(|query| query.response().rcode(REFUSED)));
    row.upstream.resume();
    row.bench.wait_for("it is well again", |bench| down(bench) == 0);
    assert!(row.upstream.wait_for_count(1, PATIENCE));
}
