//! Threats that the core decides (reliability.md §2.4, S1 to S30): what somebody sends, and what it must not bring about.
//!
//! `README.md` beside this file names for every row the test that proves it, here or elsewhere.

mod support;

use nodens_core::hash::HashKeys;
use nodens_core::{ClientAddr, DropReason, ListenerId, PathEvent, Rejection, Seed, Transport};
use nodens_testkit::msg::type_number;
use nodens_testkit::{Query, Response};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use support::message::{genuine, question_end};
use support::{Come, MS, ROUND_TRIP, SECOND, Sent, What, World, cache, config, name, over_tcp, silence};

const FORMERR: u16 = 1;
const SERVFAIL: u16 = 2;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;

/// When the genuine answer comes, in the worlds where somebody is faster.
const GENUINE_AFTER: u64 = 50 * MS;
/// What a forged reply may add to that.
const LATENCY_ADDED_MAX: u64 = 5 * MS;

/// The address in forged answers; the world knows that it is not the genuine one.
const FORGED: &str = "@ 60 IN A 6.6.6.6";

/// Answers to `sent`, each with one thing wrong (reliability.md §0.1).
fn forgeries(sent: &Sent) -> Vec<(&'static str, Vec<u8>)> {
    let reply = || Response::to(&sent.bytes);
    let mut header = reply().bytes();
    header.truncate(12);
    header[4..12].fill(0);
    let mut refused = header.clone();
    refused[3] |= 5;
    let end = question_end(&sent.bytes);
    let mut own_pointer = reply().answer(FORGED).bytes();
    own_pointer[end..end + 2].copy_from_slice(&[0xc0, end as u8]);
    let mut cut = reply().answer(FORGED).bytes();
    cut.truncate(end + 9);
    vec![
        ("wrong ID", reply().id(sent.id() ^ 1).answer(FORGED).bytes()),
        ("another name", reply().question("evil.example.", "A").answer(FORGED).bytes()),
        ("another type", reply().question("n1.example.org.", "AAAA").answer(FORGED).bytes()),
        ("another class", reply().question_class(3).answer(FORGED).bytes()),
        ("no question", reply().no_question().bytes()),
        ("a header alone, NOERROR", header),
        ("a header alone, REFUSED", refused),
        ("a query", reply().qr(false).answer(FORGED).bytes()),
        ("opcode 4", reply().opcode(4).answer(FORGED).bytes()),
        ("a body that was cut", cut),
        ("a name that points at itself", own_pointer),
        ("nothing at all", Vec::new()),
    ]
}

#[test]
fn s01_after_each_forgery_the_genuine_answer_is_waited_for_and_costs_no_more() {
    let kinds = forgeries(&a_query_sent()).len();
    for kind in 0..kinds {
        let mut world = World::new(config(1));
        world.network = Box::new(move |sent| {
            let mut come = sent.answered(GENUINE_AFTER);
            if sent.transport == Transport::Udp && sent.bytes[13..].starts_with(b"n1") {
                come.insert(0, (ROUND_TRIP, What::Message(forgeries(sent).swap_remove(kind).1)));
            }
            come
        });
        let asked = world.ask(&name(1));
        world.pass(2 * SECOND);
        let what = forgeries(&world.sent[0]).swap_remove(kind).0;
        assert_eq!(world.asks[asked].reply().rcode, 0, "{what}");
        assert!(world.asks[asked].took() <= GENUINE_AFTER + LATENCY_ADDED_MAX, "{what}");
        // The cache has the genuine one, and nothing under the forgery's name.
        let again = world.ask(&name(1));
        assert_eq!(world.asks[again].reply().answers.len(), 1, "{what}");
        let stats = world.workers[0].forwarder.stats().clone();
        assert!(stats.rejected.iter().map(nodens_core::stats::Counter::get).sum::<u64>() >= 1, "{what}");
        assert_eq!(stats.upstreams[0].probes.get(), 0, "{what} is held against the upstream");
        let evil = world.ask(&Query::new("evil.example.", "A"));
        world.pass(2 * SECOND);
        assert!(world.asks[evil].took() >= GENUINE_AFTER, "{what} poisons another name");
    }
}

/// A query as the core sends it.
fn a_query_sent() -> Sent {
    let mut world = World::new(config(1));
    world.ask(&name(1));
    world.sent.swap_remove(0)
}

#[test]
fn s01_records_of_another_name_are_used_for_that_name_by_nobody() {
    let mut world = World::new(config(1));
    world.network = Box::new(|sent| {
        let poison = Response::to(&sent.bytes)
            .answer("@ 60 IN CNAME victim.example.")
            .answer("victim.example. 60 IN TXT \"forged\"")
            .additional("other.example. 60 IN TXT \"forged\"")
            .bytes();
        let is_bait = sent.bytes[13..].starts_with(b"bait");
        if is_bait { vec![(ROUND_TRIP, What::Message(poison))] } else { sent.answered(ROUND_TRIP) }
    });
    world.ask(&Query::new("bait.example.", "TXT"));
    world.pass(10 * MS);
    for victim in ["victim.example.", "other.example."] {
        let asked = world.ask(&Query::new(victim, "TXT"));
        world.pass(10 * MS);
        assert!(world.asks[asked].took() > 0, "{victim} was cached from another answer");
    }
}

/// Chi-square of how evenly `values` below 65 536 fall into 64 cells, where only those `allowed` can be drawn.
fn chi_square(values: &[u16], allowed: impl Fn(u16) -> bool) -> f64 {
    let mut weights = [0f64; 64];
    (0..=u16::MAX).filter(|value| allowed(*value)).for_each(|value| weights[usize::from(value >> 10)] += 1.0);
    let mut found = [0f64; 64];
    values.iter().for_each(|value| found[usize::from(value >> 10)] += 1.0);
    let all: f64 = weights.iter().sum();
    let cells = weights.iter().zip(found).filter(|(weight, _)| **weight > 0.0);
    cells
        .map(|(weight, found)| {
            let expected = values.len() as f64 * weight / all;
            (found - expected).powi(2) / expected
        })
        .sum()
}

/// Chance makes the chi-square of 64 cells larger than this once in a thousand times (63 degrees of freedom).
const CHI_SQUARE_MAX: f64 = 103.4;

#[test]
fn s02_ports_and_ids_are_evenly_spread_and_workers_differ() {
    const MISSES: usize = 5000;
    let shared = cache();
    let mut world = World::of([(config(1), shared.clone()), (config(1), shared)]);
    // Below the rate above which sockets are shared.
    world.load(0, MISSES as u64 * 2 * MS, MS);
    world.run_until(15 * SECOND);
    // From 16 384 on, Kubernetes' NodePorts left out.
    let allowed = |port: u16| port >= 16_384 && !(30_000..=32_767).contains(&port);
    let drawn = |worker: usize| {
        let sent = world.questions().filter(move |sent| sent.worker == worker);
        sent.map(|sent| (sent.port as u16, sent.id())).unzip::<u16, u16, Vec<_>, Vec<_>>()
    };
    let [(ports, ids), (other_ports, other_ids)] = [drawn(0), drawn(1)];
    for (ports, ids) in [(&ports, &ids), (&other_ports, &other_ids)] {
        assert_eq!(ports.len(), MISSES);
        assert!(ports.iter().all(|port| allowed(*port)));
        assert!(chi_square(ports, allowed) < CHI_SQUARE_MAX, "ports: {}", chi_square(ports, allowed));
        assert!(chi_square(ids, |_| true) < CHI_SQUARE_MAX, "IDs: {}", chi_square(ids, |_| true));
        for (drawn, of) in [(ports, (0..=u16::MAX).filter(|p| allowed(*p)).count()), (ids, 1 << 16)] {
            // So many distinct ones are to be expected, with this variance (the birthday problem).
            let (n, of) = (MISSES as f64, of as f64);
            let empty = (-n / of).exp();
            let (expected, variance) = (of * (1.0 - empty), of * empty * (1.0 - (1.0 + n / of) * empty));
            let distinct = drawn.iter().collect::<HashSet<_>>().len() as f64;
            assert!((distinct - expected).abs() <= 3.0 * variance.sqrt(), "{distinct}, not {expected}");
        }
    }
    let alike = ports.iter().zip(&other_ports).filter(|(a, b)| a == b).count();
    assert!(alike <= 3, "two workers draw the same ports: {alike}");
}

#[test]
fn s02_500_lookups_at_once_leave_from_500_ports() {
    let mut world = World::new(config(1));
    world.network = Box::new(|sent| sent.answered(100 * MS));
    for n in 0..500 {
        world.ask(&name(n));
    }
    let ports: HashSet<u32> = world.questions().map(|sent| sent.port).collect();
    assert_eq!(ports.len(), 500);
    world.come_to_rest();
}

#[test]
fn s03_500_equal_questions_in_all_dress_are_four_lookups_and_500_answers() {
    let mut world = World::new(config(1));
    world.network = Box::new(|sent| sent.answered(20 * MS));
    let mut out = HashMap::new();
    for n in 0..500_u16 {
        let spelled = if n & 1 == 0 { "www.example.org." } else { "wWw.eXample.ORG." };
        let mut query = Query::new(spelled, "A").id(n).cd(n & 2 != 0).ad(n & 4 != 0);
        if n & 8 != 0 {
            // A client subnet, a cookie, padding: none of it splits.
            query = query.edns(512 + n).option(8, [0, 1, 24, 0, 10, 0, n as u8]).option(10, [n as u8; 8]);
            query = query.option(12, vec![0; usize::from(n) / 16]);
        }
        if n & 16 != 0 {
            query = query.edns(1232).do_bit();
        }
        world.ask(&query);
    }
    for sent in world.questions() {
        let (cd, edns) = (sent.bytes[3] & 0x10 != 0, &sent.bytes[question_end(&sent.bytes)..]);
        *out.entry((cd, edns[7] & 0x80 != 0)).or_insert(0) += 1;
        assert_eq!(edns.len(), 11, "options of clients stay behind");
    }
    assert_eq!(
        out,
        HashMap::from([((false, false), 1), ((false, true), 1), ((true, false), 1), ((true, true), 1)])
    );
    world.pass(SECOND);
    world.all_figures().assert_all_well();
}

#[test]
fn s04_late_double_and_misdirected_replies_are_counted_and_change_nothing() {
    let mut world = World::new(config(1));
    world.network = Box::new(|_| silence());
    let first = world.ask(&name(1));
    let second = world.ask(&name(2));
    let sent: Vec<Sent> = world.sent.clone();
    let forged = Response::to(&sent[0].bytes).answer(FORGED).bytes();
    // On the path of another question: another port, as the kernel tells them apart.
    assert_eq!(world.deliver(&sent[1], &forged), Err(Rejection::WrongId));
    assert!(world.asks[first].answer.is_none() && world.asks[second].answer.is_none());
    world.deliver(&sent[0], &genuine(&sent[0].bytes, 60)).expect("accepted");
    // Twice, and late: its path is gone.
    assert_eq!(world.deliver(&sent[0], &forged), Err(Rejection::UnknownPath));
    world.deliver(&sent[1], &genuine(&sent[1].bytes, 60)).expect("accepted");
    assert_eq!(world.deliver(&sent[1], &forged), Err(Rejection::UnknownPath));
    world.all_figures().assert_all_well();
    let stats = world.workers[0].forwarder.stats().clone();
    assert_eq!(stats.rejected[Rejection::UnknownPath as usize].get(), 2);
    assert_eq!(stats.rejected[Rejection::WrongId as usize].get(), 1);
    let hit = world.ask(&name(1));
    assert_eq!(world.asks[hit].took(), 0);
}

#[test]
fn s05_a_flood_of_wrong_ids_moves_the_question_to_tcp_and_harms_nobody() {
    let mut world = World::new(config(1));
    world.network = Box::new(|sent| {
        let genuine = sent.answered(GENUINE_AFTER);
        if sent.transport == Transport::Tcp {
            return sent.answered(ROUND_TRIP);
        }
        // 50 000 a second to the open port.
        let flood = (1..GENUINE_AFTER / 20).map(|n| {
            let id = sent.id() ^ (1 + n as u16 % 60_000);
            (20 * n, What::Message(Response::to(&sent.bytes).id(id).answer(FORGED).bytes()))
        });
        flood.chain(genuine).collect()
    });
    let asked = world.ask(&name(1));
    world.pass(100 * MS);
    world.all_figures().assert_all_well();
    assert!(world.asks[asked].took() < GENUINE_AFTER / 2, "TCP did not wait for UDP");
    assert_eq!(world.questions().filter(|sent| sent.transport == Transport::Tcp).count(), 1);
    let stats = world.workers[0].forwarder.stats().clone();
    assert_eq!((stats.upstreams[0].down.get(), stats.upstreams[0].probes.get()), (0, 0));
}

#[test]
fn s06_one_forged_port_unreachable_costs_one_more_query_and_no_health() {
    for upstreams in [1, 2] {
        let mut world = World::new(config(upstreams));
        let mut first = true;
        world.network = Box::new(move |sent| {
            let mut come = sent.answered(2 * MS);
            if std::mem::take(&mut first) {
                come.insert(0, (MS, What::Report(PathEvent::Refused)));
            }
            come
        });
        let asked = world.ask(&name(1));
        world.pass(SECOND);
        assert_eq!(world.asks[asked].reply().rcode, 0);
        assert!(world.asks[asked].took() <= 30 * MS, "{} us", world.asks[asked].took());
        assert_eq!(world.questions().count(), 2, "one more");
        let stats = world.workers[0].forwarder.stats().clone();
        assert!(stats.upstreams.iter().all(|upstream| upstream.down.get() == 0));
        // Whoever was accused is asked like any other again.
        world.load(world.now, world.now + SECOND, 10 * MS);
        world.pass(2 * SECOND);
        let to_first = world.questions().skip(2).filter(|sent| sent.upstream == 0).count();
        assert!(to_first * upstreams >= 80, "{to_first} of 100 questions");
        world.come_to_rest();
    }
}

/// Names that no message may contain: reliability.md S7.
fn bad_names(at: usize) -> Vec<(&'static str, Vec<u8>)> {
    let here = |offset: usize| vec![0xc0 | (offset >> 8) as u8, offset as u8];
    let chain = |hops: usize| {
        // A label, then pointers each to the one before it; the name is the last.
        let mut bytes = vec![1, b'a'];
        (0..hops).for_each(|n| bytes.extend(here(at + if n == 0 { 2 } else { 2 + 2 * (n + 1) })));
        bytes
    };
    vec![
        ("a pointer to itself", here(at)),
        ("a pointer forward", here(at + 2)),
        ("a pointer into the header", here(2)),
        ("a pointer behind the message", here(0x3fff)),
        ("a pointer chain", chain(120)),
        ("label type 0x40", vec![0x41, b'a', 0]),
        ("label type 0x80", vec![0x81, b'a', 0]),
        ("64 bytes in a label", [vec![64], vec![b'a'; 64], vec![0]].concat()),
        ("256 bytes in a name", [[vec![63], vec![b'a'; 63]].concat().repeat(4), vec![0]].concat()),
        ("a name without an end", vec![1, b'a']),
    ]
}

#[test]
fn s07_bad_names_in_any_section_of_a_reply_are_rejected_and_the_wait_goes_on() {
    for section in 0..3 {
        for kind in 0..bad_names(0).len() {
            let mut world = World::new(config(1));
            world.network = Box::new(|_| silence());
            let asked = world.ask(&name(1));
            let sent = world.sent[0].clone();
            let end = question_end(&sent.bytes);
            let (what, bad) = bad_names(end).swap_remove(kind);
            let mut reply = Response::to(&sent.bytes).bytes()[..end].to_vec();
            reply[6..12].fill(0);
            reply[7 + 2 * section] = 1;
            reply.extend_from_slice(&bad);
            reply.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 6, 6, 6, 6]);
            assert_eq!(
                world.deliver(&sent, &reply),
                Err(Rejection::Malformed),
                "{what} in section {section}"
            );
            assert!(world.asks[asked].answer.is_none(), "{what} in section {section}");
            world.deliver(&sent, &genuine(&sent.bytes, 60)).expect("accepted");
            assert_eq!(world.asks[asked].reply().rcode, 0);
        }
    }
}

#[test]
fn s07_bad_names_in_a_query_are_formerr_and_go_nowhere() {
    for (what, bad) in bad_names(12) {
        let mut world = World::new(config(1));
        let mut query = Query::new("x.", "A").bytes()[..12].to_vec();
        query.extend_from_slice(&bad);
        query.extend_from_slice(&[0, 1, 0, 1]);
        let asked = world.ask_from(0, 0, client(1), query);
        world.pass(SECOND);
        assert_eq!(world.asks[asked].reply().rcode, FORMERR, "{what}");
        assert!(world.sent.is_empty(), "{what}");
    }
}

#[test]
fn s08_counts_that_no_message_can_hold_are_rejected() {
    for len in [0, 52, 65_000] {
        for section in 0..3 {
            let mut world = World::new(config(1));
            world.network = Box::new(|_| silence());
            let asked = world.ask(&name(1));
            let sent = world.sent[0].clone();
            let mut reply = Response::to(&sent.bytes).bytes()[..question_end(&sent.bytes)].to_vec();
            reply[6..12].fill(0);
            reply[6 + 2 * section..8 + 2 * section].fill(0xff);
            reply.resize(reply.len() + len, 0);
            let rejected = world.deliver(&sent, &reply);
            assert_eq!(rejected, Err(Rejection::Malformed), "section {section}, {len} bytes");
            assert!(world.asks[asked].answer.is_none());
        }
    }
    // 4000 OPT records.
    let mut world = World::new(config(1));
    world.network = Box::new(|_| silence());
    world.ask(&name(1));
    let sent = world.sent[0].clone();
    let mut reply = Response::to(&sent.bytes).bytes()[..question_end(&sent.bytes)].to_vec();
    reply[6..10].fill(0);
    reply[10..12].copy_from_slice(&4000_u16.to_be_bytes());
    (0..4000).for_each(|_| reply.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]));
    assert_eq!(world.deliver(&sent, &reply), Err(Rejection::BadOpt));
}

#[test]
fn s10_chains_of_any_length_and_loops_are_relayed_and_never_followed() {
    for links in [1, 10, 11, 12, 50] {
        for closed in [false, true] {
            let mut world = World::new(config(1));
            world.network = Box::new(move |sent| {
                let mut reply = Response::to(&sent.bytes).answer("@ 60 IN CNAME c1.example.");
                for n in 1..links {
                    let next = if closed && n + 1 == links { 1 } else { n + 1 };
                    reply = reply.answer(&format!("c{n}.example. 60 IN CNAME c{next}.example."));
                }
                vec![(ROUND_TRIP, What::Message(reply.bytes()))]
            });
            let asked = world.ask_over_tcp_at(0, &name(1));
            world.pass(10 * MS);
            assert_eq!(world.questions().count(), 1, "{links} links: nobody follows");
            assert_eq!(world.asks[asked].reply().rcode, 0);
            assert_eq!(world.asks[asked].reply().answers.len(), links.max(1));
        }
    }
}

fn client(port: u16) -> ClientAddr {
    let peer = SocketAddr::from(([10, 9, 9, 9], port));
    ClientAddr { listener: ListenerId(0), peer, local: None, connection: None }
}

#[test]
fn s13_a_response_at_the_listener_is_answered_with_nothing() {
    let mut world = World::new(config(1));
    // From the listener's own address, as in the loop that it would start; whole, cut, and with nonsense in it.
    let own = ClientAddr { peer: SocketAddr::from(([169, 254, 20, 10], 53)), ..client(1) };
    let response = Query::new("www.example.org.", "A").qr(true);
    let cut = response.bytes()[..12].to_vec();
    let odd = response.clone().opcode(4).qdcount(2).bytes();
    for bytes in [response.bytes(), cut, odd] {
        let asked = world.ask_from(world.now, 0, own, bytes);
        world.pass(6 * SECOND);
        assert!(world.asks[asked].answer.is_none());
    }
    assert!(world.sent.is_empty());
    let dropped = &world.workers[0].forwarder.stats().dropped;
    assert_eq!(dropped[DropReason::Response as usize].get(), 3);
}

#[test]
fn s14_what_is_no_lookup_never_reaches_an_upstream() {
    let mut rows: Vec<(String, Query, u16)> = Vec::new();
    let query = || Query::new("www.example.org.", "A");
    for opcode in 1..16 {
        rows.push((format!("opcode {opcode}"), query().opcode(opcode), NOTIMP));
    }
    for class in [0, 2, 3, 4, 254, 255, 256, 65_535] {
        rows.push((format!("class {class}"), query().class(class), REFUSED));
    }
    for qtype in ["AXFR", "IXFR"] {
        rows.push((qtype.to_owned(), Query::new("example.org.", qtype), REFUSED));
    }
    for count in [0, 2, 65_535] {
        rows.push((format!("QDCOUNT {count}"), query().claimed_qdcount(count), FORMERR));
    }
    rows.push(("two questions".to_owned(), query().qdcount(2), FORMERR));
    rows.push(("two OPT records".to_owned(), query().edns(1232).two_opts(), FORMERR));
    for (what, query, rcode) in rows {
        for tcp in [false, true] {
            let mut world = World::new(config(1));
            let asked = if tcp { world.ask_over_tcp_at(0, &query) } else { world.ask_at(0, &query) };
            world.pass(MS);
            assert!(world.sent.is_empty(), "{what} was forwarded");
            assert_eq!(world.asks[asked].reply().rcode, rcode, "{what}");
        }
    }
}

#[test]
fn s15_do_cd_and_types_never_serve_each_other() {
    /// What an upstream says to a query with these bits.
    fn told(do_bit: bool, cd: bool) -> String {
        format!("DO {do_bit}, CD {cd}")
    }
    let mut world = World::new(config(1));
    world.network = Box::new(|sent| {
        let (cd, edns) = (sent.bytes[3] & 0x10 != 0, &sent.bytes[question_end(&sent.bytes)..]);
        let text = format!("@ 60 IN TXT \"{}\"", told(edns[7] & 0x80 != 0, cd));
        let reply = Response::to(&sent.bytes).answer(&text).bytes();
        let asks_for_text = sent.bytes[question_end(&sent.bytes) - 3] == 16;
        if asks_for_text { vec![(ROUND_TRIP, What::Message(reply))] } else { sent.answered(ROUND_TRIP) }
    });
    for _ in 0..2 {
        for qtype in ["TXT", "A", "TYPE65280"] {
            for (do_bit, cd) in [(false, false), (true, false), (false, true), (true, true)] {
                let query = Query::new("www.example.org.", qtype).edns(1232).cd(cd);
                let asked = world.ask(&if do_bit { query.do_bit() } else { query });
                world.pass(MS);
                let reply = world.asks[asked].reply();
                assert_eq!(reply.answers[0].rtype, type_number(qtype));
                if qtype == "TXT" {
                    assert!(reply.rdatas("TXT")[0].contains(&told(do_bit, cd)), "{:?}", reply.answer_lines());
                }
            }
        }
        // Each was asked for once; the second round finds its own.
        assert_eq!(world.questions().count(), 12);
    }
}

#[test]
fn s16_names_chosen_to_collide_under_one_seed_are_spread_under_another() {
    let keys = |seed| HashKeys::new(&Seed([seed; 32]));
    let bucket = |keys: &HashKeys, n: u32| keys.hash(format!("n{n}.example.org").as_bytes()) & 0x3ff;
    let known = keys(0);
    let chosen: Vec<u32> = (0..200_000).filter(|n| bucket(&known, *n) == 0).collect();
    assert!(chosen.len() > 100, "{} names", chosen.len());
    let own = keys(1);
    let mut fill = HashMap::new();
    chosen.iter().for_each(|n| *fill.entry(bucket(&own, *n)).or_insert(0) += 1);
    let fullest = fill.values().max().expect("names");
    assert!(*fullest <= 6, "{fullest} of {} names in one of 1024 places", chosen.len());
}

#[test]
fn s19_more_than_65536_queries_on_one_connection_keep_matching() {
    const QUERIES: usize = 66_000;
    let mut config = over_tcp(config(1));
    config.upstreams[0].max_age = nodens_core::Duration::from_secs(1_000_000);
    config.zones[0].cache = None;
    let mut world = World::new(config);
    let query = name(1).bytes();
    let mut paths = HashSet::new();
    for n in 0..QUERIES {
        let at = world.now;
        world.ask_from(at, 0, client((n % 60_000) as u16), query.clone());
        world.pass(2 * ROUND_TRIP);
        let sent = std::mem::take(&mut world.sent);
        paths.extend(sent.iter().map(|sent| (sent.path.slot, sent.path.generation)));
        assert!(std::mem::take(&mut world.asks).iter().all(|ask| ask.answer.is_some()), "query {n}");
    }
    assert_eq!(paths.len(), 1);
    assert_eq!(
        world.workers[0].forwarder.stats().upstreams[0].connections_reused.get() as usize,
        QUERIES - 1
    );
}

#[test]
fn s20_answers_held_for_5_s_reach_nobody_twice_and_waiting_is_bounded() {
    for config in [config(1), over_tcp(config(1))] {
        let most = config.limits.waiters_per_lookup_max as usize;
        let mut world = World::new(config);
        // A probe is answered; all else comes at once, 5 s after the first question.
        world.network = Box::new(|sent: &Sent| -> Come {
            if sent.is_probe() { sent.answered(ROUND_TRIP) } else { sent.answered(5 * SECOND - sent.at) }
        });
        for n in 0..most + 200 {
            world.ask_at(n as u64, &name(1).id(n as u16));
        }
        world.run_until(4 * SECOND);
        let shed = world.asks.iter().filter(|ask| ask.answer.is_some()).count();
        assert_eq!(shed, 200, "who cannot wait is told so at once");
        world.run_until(4600 * MS);
        let figures = world.all_figures();
        assert_eq!((figures.lost, figures.failed), (0, most + 200), "{figures}");
        assert!(world.questions().count() <= 6, "{} messages", world.questions().count());
        // The world refuses a second answer to anybody.
        world.run_until(10 * SECOND);
        let again = world.asks.iter().filter(|ask| ask.reply().rcode != SERVFAIL).count();
        assert_eq!(again, 0);
    }
}

#[test]
fn s29_1232_bytes_are_asked_for_and_a_larger_reply_is_cut_for_the_client() {
    for size in [None, Some(512), Some(1232), Some(4096), Some(65_535)] {
        let mut world = World::new(config(1));
        world.network = Box::new(|sent| {
            let mut reply = Response::to(&sent.bytes);
            for n in 0..240 {
                reply = reply.answer(&format!("@ 60 IN TXT \"{n:04}\""));
            }
            vec![(ROUND_TRIP, What::Message(reply.bytes()))]
        });
        let query = Query::new("www.example.org.", "TXT");
        let asked = world.ask(&size.map_or(query.clone(), |size| query.clone().edns(size)));
        world.pass(MS);
        let edns = &world.sent[0].bytes[question_end(&world.sent[0].bytes)..];
        assert_eq!(u16::from_be_bytes([edns[3], edns[4]]), 1232);
        let reply = world.asks[asked].reply();
        let most = usize::from(size.unwrap_or(512).clamp(512, 1232));
        assert!(reply.raw_len <= most && reply.tc, "{size:?}: {} bytes", reply.raw_len);
        let over_tcp = world.ask_over_tcp_at(world.now, &query);
        world.pass(MS);
        let reply = world.asks[over_tcp].reply();
        assert_eq!((reply.tc, reply.answers.len()), (false, 240));
    }
}
