//! A Forwarder in a world whose time and upstreams we control: deadlines, hedges, health, coalescing, exact to the millisecond.

mod world;

use nodens_core::{DropReason, FailureCause, Path, Rejection, Transport};
use nodens_testkit::Query;
use std::collections::HashSet;
use world::{World, config, upstream};

fn a_query(n: u16) -> Query {
    Query::new("www.example.org.", "A").id(n)
}

#[test]
fn a_miss_is_forwarded_answered_and_then_served_from_the_cache_with_falling_ttls() {
    let mut world = World::new(config(1));
    assert!(world.ask(World::client(1), &a_query(7)).is_none());
    let sent = world.next_sent();
    let response = sent.reply().answer("www.example.org. 60 IN A 192.0.2.80").bytes();
    world.deliver(&sent, &response).expect("accepted");
    let first = world.only_answer();
    assert_eq!((first.id, first.rcode, first.answers[0].ttl), (7, 0, 60));
    assert!(world.open.is_empty(), "the path is closed");
    assert_eq!(world.forwarder.poll_timeout(), None, "nothing is left to wait for");

    world.pass_ms(17_999);
    let hit = world.ask(World::client(2), &a_query(8)).expect("from the cache");
    assert_eq!((hit.id, hit.answers[0].ttl), (8, 43));
    world.pass_ms(42_000);
    assert_eq!(world.ask(World::client(3), &a_query(9)).expect("its last second").answers[0].ttl, 1);
    world.pass_ms(1);
    assert!(world.ask(World::client(4), &a_query(10)).is_none(), "60 s are over");
}

#[test]
fn x1_equal_queries_share_one_lookup_and_each_gets_its_own_id_and_spelling() {
    let mut world = World::new(config(1));
    for n in 0..64 {
        let name = if n % 2 == 0 { "www.example.org." } else { "WwW.eXample.org." };
        assert!(world.ask(World::client(n), &Query::new(name, "A").id(n)).is_none());
    }
    assert_eq!(world.sent.len(), 1);
    let sent = world.next_sent();
    world
        .deliver(&sent, &sent.reply().answer("www.example.org. 60 IN A 192.0.2.80").bytes())
        .expect("accepted");
    assert_eq!(world.answers.len(), 64);
    for (client, bytes) in &world.answers {
        let reply = nodens_testkit::Reply::parse(bytes);
        let n = client.peer.port();
        assert_eq!(reply.id, n);
        let upper = reply.question.expect("a question").raw.iter().any(u8::is_ascii_uppercase);
        assert_eq!(upper, n % 2 == 1);
    }
}

#[test]
fn a_retransmission_is_not_answered_twice() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(7));
    world.ask(World::client(1), &a_query(7));
    assert_eq!(world.forwarder.stats().dropped[DropReason::Duplicate as usize].get(), 1);
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
    assert_eq!(world.answers.len(), 1);
}

#[test]
fn f2_one_of_two_upstreams_silent_and_the_other_answers_within_250_ms() {
    let mut world = World::new(config(2));
    world.ask(World::client(1), &a_query(1));
    let first = world.next_sent();
    assert_eq!(first.upstream, upstream(1));
    world.pass_ms(250);
    let second = world.sent.iter().find(|s| s.upstream == upstream(2)).expect("a hedge").clone();
    assert!(second.at.since(first.at).as_millis() <= 150);
    world.deliver(&second, &second.reply().answer("@ 60 IN A 192.0.2.2").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.2"]);
    // From when its silence is suspect on, the silent one is probed and not asked first any more.
    world.pass_ms(400);
    world.sent.clear();
    world.ask(World::client(2), &Query::new("b.example.org.", "A"));
    let asked: Vec<_> = world.sent.iter().map(|s| (s.upstream, s.bytes[12] == 0)).collect();
    assert_eq!(asked, [(upstream(1), true), (upstream(2), false)], "a probe, and the query");
}

#[test]
fn f6_all_upstreams_silent_ends_in_servfail_within_the_hard_cap_and_then_within_900_ms() {
    let mut world = World::new(config(2));
    world.ask(World::client(1), &a_query(1).edns(1232));
    world.pass_ms(4_500);
    let reply = world.only_answer();
    assert_eq!((reply.rcode, reply.ede()), (2, Some(22)));
    // Both are known to be down by now.
    let asked = world.now;
    world.ask(World::client(2), &Query::new("other.example.org.", "A"));
    while world.answers.is_empty() {
        world.pass_ms(10);
    }
    assert_eq!(world.only_answer().rcode, 2);
    assert!(world.now.since(asked).as_millis() <= 900, "{:?}", world.now.since(asked));
    assert_eq!(world.forwarder.lookups(), 0);
}

#[test]
fn f1_a_refusing_upstream_costs_nothing_while_another_answers() {
    let mut world = World::new(config(2));
    world.refusing = vec![upstream(1)];
    world.ask(World::client(1), &a_query(1));
    let sent = world.sent.iter().find(|s| s.upstream == upstream(2)).expect("asked at once").clone();
    assert_eq!(sent.at, world.now);
    world.deliver(&sent, &sent.reply().answer("@ 60 IN A 192.0.2.2").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rcode, 0);
}

#[test]
fn f1_g07_a_lone_refusing_upstream_is_tried_twice_and_then_servfail() {
    let mut world = World::new(config(1));
    world.refusing = vec![upstream(1)];
    world.ask(World::client(1), &a_query(1).edns(1232));
    world.pass_ms(100);
    let reply = world.only_answer();
    assert_eq!((reply.rcode, reply.ede()), (2, Some(23)));
    assert_eq!(world.forwarder.stats().upstreams[0].attempts.get(), 2);
}

#[test]
fn x3_rfc9520_a_failed_lookup_is_not_repeated_within_a_second_and_recovery_takes_less() {
    let mut world = World::new(config(1));
    world.refusing = vec![upstream(1)];
    world.ask(World::client(1), &a_query(1));
    world.pass_ms(100);
    assert_eq!(world.only_answer().rcode, 2);
    let attempts = world.forwarder.stats().upstreams[0].attempts.get();
    assert_eq!(world.ask(World::client(2), &a_query(2)).expect("from the failures").rcode, 2);
    assert_eq!(world.forwarder.stats().upstreams[0].attempts.get(), attempts);

    // It comes back; a probe finds out within its interval, and the failure is forgotten.
    world.refusing.clear();
    world.pass_ms(500);
    let probe = world.sent.pop().expect("a probe");
    world.deliver(&probe, &probe.reply().rcode(5).bytes()).expect("any rcode shows life");
    assert!(world.ask(World::client(3), &a_query(3)).is_none(), "asked again");
    assert_eq!(world.sent.len(), 1);
    assert_eq!(world.forwarder.poll_timeout().map(|(_, reason)| reason), Some(nodens_core::Reason::Lookup));
}

#[test]
fn a_lost_datagram_is_sent_again_from_another_port_with_another_id() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(1));
    world.pass_ms(400);
    let (first, second) = (world.sent[0].clone(), world.sent[1].clone());
    assert_ne!(first.path, second.path);
    assert_ne!(first.bytes[..2], second.bytes[..2]);
    // The first may still answer.
    world.deliver(&first, &first.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rcode, 0);
    assert_eq!(world.deliver(&second, &second.reply().bytes()), Err(Rejection::UnknownPath));
    assert!(world.open.is_empty());
}

#[test]
fn rfc5452_9_2_ports_and_ids_of_many_misses_are_spread() {
    let mut world = World::new(config(1));
    let (mut ports, mut ids) = (HashSet::new(), HashSet::new());
    for n in 0..2_000u16 {
        world.ask(World::client(n), &Query::new(&format!("n{n}.example.org."), "A"));
        let sent = world.next_sent();
        ports.insert(world.open[&sent.path.slot].3.expect("a port"));
        ids.insert([sent.bytes[0], sent.bytes[1]]);
        world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
        world.pass_ms(1);
    }
    // 2000 draws from 46 384 ports and 65 536 IDs: 1957 and 1970 distinct ones are to be expected.
    assert!(ports.len() > 1_920 && ids.len() > 1_935, "{} ports, {} ids", ports.len(), ids.len());
}

#[test]
fn above_so_many_misses_a_second_udp_paths_are_shared_and_short_lived() {
    let mut world = World::new(config(1));
    let mut paths = HashSet::new();
    for n in 0..6_000u32 {
        world.ask(World::client((n % 60_000) as u16), &Query::new(&format!("n{n}.example.org."), "A"));
        let sent = world.next_sent();
        paths.insert(sent.path);
        world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
        if n % 5 == 4 {
            world.pass_ms(1);
        }
    }
    // A thousand of their own, then 256 at a time for at most 64 queries each.
    assert!((1_200..1_500).contains(&paths.len()), "{} paths", paths.len());
    world.pass_ms(2_000);
    assert!(world.open.is_empty(), "{} paths outlive the load", world.open.len());
    assert_eq!(world.forwarder.poll_timeout(), None);
}

#[test]
fn rfc5452_9_2_a_shared_port_and_an_id_are_one_query_s_for_good() {
    let mut shared = config(1);
    shared.limits.udp_single_rate_max = 0;
    let mut world = World::new(shared);
    let mut ids = HashSet::new();
    for n in 0..40_000u32 {
        world.ask(World::client((n % 60_000) as u16), &Query::new(&format!("n{n}.example.org."), "A"));
        let sent = world.next_sent();
        assert!(ids.insert((sent.path, [sent.bytes[0], sent.bytes[1]])), "query {n} on {:?}", sent.path);
        world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
    }
}

#[test]
fn f5_a_repetition_leaves_from_a_port_of_its_own_where_sockets_are_shared() {
    let mut shared = config(1);
    shared.limits.udp_single_rate_max = 0;
    let mut world = World::new(shared);
    for n in 0..600 {
        world.ask(World::client(n), &Query::new(&format!("n{n}.example.org."), "A"));
    }
    let first: HashSet<Path> = std::mem::take(&mut world.sent).iter().map(|sent| sent.path).collect();
    assert!(first.len() <= 256, "{} paths", first.len());
    world.pass_ms(400);
    let again: Vec<Path> =
        world.sent.iter().filter(|sent| sent.bytes[12] != 0).map(|sent| sent.path).collect();
    assert_eq!(again.len(), 600);
    assert!(again.iter().all(|path| !first.contains(path)), "asked again on a shared path");
    assert_eq!(again.iter().collect::<HashSet<_>>().len(), 600, "each from its own");
}

#[test]
fn a_taken_port_is_drawn_again() {
    let mut world = World::new(config(1));
    let mut out = [0; 512];
    let query = a_query(1).bytes();
    let client_query = nodens_core::ClientQuery { client: World::client(1), message: &query };
    let _ = world.forwarder.handle_query(world.now, client_query, &mut out);
    let mut ports = Vec::new();
    while let Some(nodens_core::PathRequest::Open { path, source_port, .. }) = world.forwarder.poll_path() {
        ports.push(source_port);
        if source_port.is_some() {
            world.forwarder.handle_path_event(world.now, path, nodens_core::PathEvent::PortTaken);
        }
    }
    assert_eq!(ports.len(), 9);
    assert_eq!(ports.last(), Some(&None), "then the kernel may choose");
}

#[test]
fn no_port_at_all_is_a_local_failure_and_ends() {
    let mut world = World::new(config(1));
    let mut out = [0; 512];
    let query = a_query(1).bytes();
    let client_query = nodens_core::ClientQuery { client: World::client(1), message: &query };
    let _ = world.forwarder.handle_query(world.now, client_query, &mut out);
    let mut opens = 0;
    for _ in 0..100 {
        while let Some(request) = world.forwarder.poll_path() {
            if let nodens_core::PathRequest::Open { path, .. } = request {
                opens += 1;
                assert!(opens < 100, "it asks for ever");
                world.forwarder.handle_path_event(world.now, path, nodens_core::PathEvent::PortTaken);
            }
        }
        world.now += nodens_core::Duration::from_millis(20);
        world.forwarder.handle_timeout(world.now);
    }
    world.drain();
    assert_eq!(world.only_answer().rcode, 2);
    assert_eq!(world.forwarder.stats().upstreams[0].probes.get(), 0, "the upstream is not to blame");
}

#[test]
fn forged_replies_change_nothing_but_a_counter_and_ask_over_tcp_once() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(1));
    let sent = world.next_sent();
    let forged = [
        (sent.reply().question("evil.example.org.", "A").bytes(), Rejection::WrongQuestion),
        (sent.reply().question("www.example.org.", "AAAA").bytes(), Rejection::WrongQuestion),
        (sent.reply().question_class(3).bytes(), Rejection::WrongQuestion),
        (sent.reply().no_question().bytes(), Rejection::WrongQuestion),
        (sent.reply().qr(false).bytes(), Rejection::NotAResponse),
        (sent.reply().opcode(4).bytes(), Rejection::WrongOpcode),
        (sent.reply().id(sent.bytes[0] as u16).bytes(), Rejection::WrongId),
        (vec![0; 5], Rejection::Short),
    ];
    for (bytes, rejection) in forged {
        assert_eq!(world.deliver(&sent, &bytes), Err(rejection));
        assert!(world.answers.is_empty());
    }
    let over_tcp: Vec<_> = world.sent.iter().filter(|s| s.transport == Transport::Tcp).collect();
    assert_eq!(over_tcp.len(), 1);
    let unknown = Path { slot: 999, generation: 0 };
    assert_eq!(world.forwarder.handle_response(world.now, unknown, &[0; 12]), Err(Rejection::UnknownPath));
    world.deliver(&sent, &sent.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.1"]);
    assert_eq!(world.forwarder.stats().zones[0].drops.get(), 4);
}

#[test]
fn the_attempt_over_tcp_that_a_forgery_called_for_is_not_given_up_for_more_over_udp() {
    let mut config = config(1);
    config.upstreams[0].max_fails = 0;
    let mut world = World::new(config);
    world.ask(World::client(1), &a_query(1));
    let sent = world.next_sent();
    let _ = world.deliver(&sent, &sent.reply().no_question().bytes());
    world.pass_ms(4000);
    let over_udp = world.sent.iter().filter(|sent| sent.transport == Transport::Udp).count();
    assert!(over_udp >= 4, "{over_udp} more over UDP");
    let tcp = world.sent.iter().find(|sent| sent.transport == Transport::Tcp).expect("over TCP").clone();
    world.deliver(&tcp, &tcp.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.1"]);
}

#[test]
fn a_forgery_that_calls_for_tcp_does_not_charge_an_upstream_without_it() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(1));
    let sent = world.next_sent();
    let _ = world.deliver(&sent, &sent.reply().no_question().bytes());
    let tcp = world.next_sent();
    world.forwarder.handle_path_event(world.now, tcp.path, nodens_core::PathEvent::Refused);
    world.drain();
    world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
    assert_eq!(world.forwarder.stats().upstreams[0].probes.get(), 0);
}

#[test]
fn a03_h24_a_truncated_answer_is_fetched_over_tcp_and_never_cached() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(1));
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().tc().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    assert!(world.answers.is_empty());
    let tcp = world.next_sent();
    assert_eq!(tcp.transport, Transport::Tcp);
    assert!(world.ask(World::client(2), &a_query(2)).is_none(), "nothing was cached");
    world.deliver(&tcp, &tcp.reply().answer("@ 60 IN A 192.0.2.2").bytes()).expect("accepted");
    assert_eq!(world.answers.len(), 2);
    let hit = world.ask(World::client(3), &a_query(3)).expect("now it is");
    assert_eq!(hit.rdatas("A"), ["192.0.2.2"]);
}

#[test]
fn a_truncated_answer_on_the_last_attempt_ends_with_the_deadline() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(1));
    for _ in 0..210 {
        world.pass_ms(10);
        // It lives: probes are answered, only this name is slow.
        for sent in std::mem::take(&mut world.sent) {
            if sent.bytes[12] == 0 {
                world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
            } else {
                world.kept.push(sent);
            }
        }
    }
    assert!(world.kept.len() >= 5, "{} attempts", world.kept.len());
    let last = world.kept.pop().expect("an attempt");
    world.deliver(&last, &last.reply().tc().bytes()).expect("accepted");
    world.pass_ms(4_500);
    assert_eq!(world.only_answer().rcode, 0, "the truncation is passed on");
    assert_eq!(world.forwarder.lookups(), 0);
}

#[test]
fn a_truncated_answer_whose_tcp_is_silent_ends_at_the_deadline() {
    // Truncated at once, and truncated only when all attempts are made: the second once made the timer ring for ever.
    for silent_ms in [0, 3000] {
        let mut config = config(1);
        // No probes, and never down, which would end it earlier.
        config.upstreams[0].max_fails = 0;
        let mut world = World::new(config);
        world.ask(World::client(1), &a_query(1));
        world.pass_ms(silent_ms);
        let sent = world.sent.pop().expect("the last attempt");
        world.sent.clear();
        world.deliver(&sent, &sent.reply().tc().bytes()).expect("accepted");
        world.pass_ms(4499 - silent_ms);
        assert!(world.answers.is_empty());
        assert!(world.sent.iter().all(|s| s.transport == Transport::Tcp), "UDP would only say it again");
        assert!((1..=6).contains(&world.sent.len()), "{} attempts over TCP", world.sent.len());
        world.pass_ms(1);
        assert!(world.only_answer().tc);
    }
}

#[test]
fn truncation_over_tcp_is_a_failed_attempt_and_the_next_upstream_is_asked() {
    let mut world = World::new(config(2));
    world.ask(World::client(1), &a_query(1));
    for _ in 0..2 {
        let sent = world.next_sent();
        assert_eq!(sent.upstream, upstream(1));
        world.deliver(&sent, &sent.reply().tc().bytes()).expect("accepted");
    }
    let other = world.next_sent();
    assert_eq!((other.upstream, other.transport), (upstream(2), Transport::Tcp));
    world.deliver(&other, &other.reply().answer("@ 60 IN A 192.0.2.2").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.2"]);
}

#[test]
fn seven_upstreams_of_which_one_lives() {
    let mut world = World::new(config(7));
    world.refusing = (1..=6).map(upstream).collect();
    world.ask(World::client(1), &a_query(1));
    let sent = world.sent.iter().find(|sent| sent.upstream == upstream(7)).expect("asked").clone();
    world.deliver(&sent, &sent.reply().answer("@ 60 IN A 192.0.2.7").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.7"]);
}

#[test]
fn what_this_machine_cannot_send_is_not_the_upstreams_silence() {
    let mut world = World::new(config(1));
    let query = a_query(1).bytes();
    let mut out = [0; 512];
    let client_query = nodens_core::ClientQuery { client: World::client(1), message: &query };
    let _ = world.forwarder.handle_query(world.now, client_query, &mut out);
    for _ in 0..2 {
        while let Some(request) = world.forwarder.poll_path() {
            if let nodens_core::PathRequest::Open { path, .. } = request {
                world.forwarder.handle_path_event(world.now, path, nodens_core::PathEvent::LocalFailure);
            }
        }
        world.now += nodens_core::Duration::from_millis(20);
        world.forwarder.handle_timeout(world.now);
    }
    world.drain();
    assert_eq!(world.only_answer().rcode, 2);
    world.pass_ms(500);
    world.ask(World::client(2), &Query::new("b.example.org.", "A"));
    assert_eq!(world.forwarder.stats().upstreams[0].probes.get(), 0);
}

#[test]
fn an_upstream_without_tcp_gets_its_truncation_relayed_to_udp_clients() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(1));
    world.ask(World::tcp_client(2), &a_query(2));
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().tc().bytes()).expect("accepted");
    for _ in 0..2 {
        let tcp = world.sent.iter().find(|sent| sent.transport == Transport::Tcp).expect("over TCP").clone();
        world.sent.clear();
        world.forwarder.handle_path_event(world.now, tcp.path, nodens_core::PathEvent::Refused);
        world.drain();
        world.pass_ms(20);
    }
    assert_eq!(world.answers.len(), 2);
    for (client, bytes) in std::mem::take(&mut world.answers) {
        let reply = nodens_testkit::Reply::parse(&bytes);
        let expected = if client.connection.is_some() { (2, false) } else { (0, true) };
        assert_eq!((reply.rcode, reply.tc), expected);
    }
}

#[test]
fn rfc6891_7_an_upstream_that_does_not_know_edns_is_asked_without_and_remembered() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(1));
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().rcode(1).bytes()).expect("accepted");
    let plain = world.next_sent();
    assert_eq!(plain.bytes[10..12], [0, 0], "no OPT");
    world.deliver(&plain, &plain.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rcode, 0);
    world.ask(World::client(2), &Query::new("b.example.org.", "A"));
    assert_eq!(world.next_sent().bytes[10..12], [0, 0], "remembered");
}

#[test]
fn a_name_that_gets_formerr_either_way_does_not_switch_edns_off() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(1));
    for _ in 0..2 {
        let sent = world.next_sent();
        world.deliver(&sent, &sent.reply().rcode(1).bytes()).expect("accepted");
    }
    assert_eq!(world.only_answer().rcode, 1);
    world.ask(World::client(2), &Query::new("b.example.org.", "A"));
    assert_eq!(world.next_sent().bytes[10..12], [0, 1], "an OPT as ever");
}

#[test]
fn limits_are_answered_with_servfail_and_never_with_silence() {
    let mut limited = config(1);
    limited.limits.lookups_max = 2;
    limited.limits.waiters_per_lookup_max = 2;
    let mut world = World::new(limited);
    for n in 0..2 {
        assert!(world.ask(World::client(n), &Query::new(&format!("n{n}."), "A")).is_none());
    }
    assert_eq!(world.ask(World::client(3), &Query::new("n3.", "A")).expect("shed").rcode, 2);
    assert!(world.ask(World::client(4), &Query::new("n0.", "A")).is_none());
    assert_eq!(world.ask(World::client(5), &Query::new("n0.", "A")).expect("shed").rcode, 2);
    assert_eq!(world.forwarder.stats().shed.get(), 2);
}

#[test]
fn a_machine_without_sockets_says_so_and_blames_nobody() {
    let mut limited = config(1);
    limited.limits.paths_max = 1;
    let mut world = World::new(limited);
    world.ask(World::client(1), &a_query(1));
    world.ask(World::client(2), &Query::new("b.", "A"));
    assert_eq!(world.sent.len(), 1);
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
    world.pass_ms(400);
    assert_eq!(world.sent.len(), 1, "the second goes out when there is room");
    assert!(world.forwarder.stats().paths_exhausted.get() >= 1);
    let failures = world
        .events
        .iter()
        .filter(|e| matches!(e, nodens_core::Event::Failure(f) if f.cause == FailureCause::Local));
    assert_eq!(failures.count(), 0);
}

#[test]
fn rd_0_is_forwarded_as_it_is_not_cached_and_joins_no_recursive_lookup() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &a_query(1));
    world.ask(World::client(2), &a_query(2).rd(false));
    assert_eq!(world.sent.len(), 2);
    let (recursive, iterative) = (world.next_sent(), world.next_sent());
    assert_eq!((recursive.bytes[2] & 1, iterative.bytes[2] & 1), (1, 0));
    world.deliver(&iterative, &iterative.reply().answer("@ 60 IN A 192.0.2.9").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.9"]);
    assert!(world.ask(World::client(3), &a_query(3)).is_none(), "was not cached");
    world.deliver(&recursive, &recursive.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    let hit = world.ask(World::client(4), &a_query(4).rd(false)).expect("a fresh hit is served");
    assert_eq!((hit.rdatas("A"), hit.rd), (vec!["192.0.2.1"], false));
}

#[test]
fn winding_down_answers_what_is_known_and_what_is_under_way_and_sheds_the_rest() {
    let mut world = World::new(config(1));
    world.ask(World::client(9), &Query::new("known.", "A"));
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    assert!(world.ask(World::client(1), &Query::new("underway.", "A")).is_none());
    world.forwarder.wind_down();
    assert_eq!(world.ask(World::client(2), &Query::new("known.", "A")).expect("a hit").rcode, 0);
    assert!(world.ask(World::client(3), &Query::new("underway.", "A")).is_none(), "it joins");
    let shed = world.ask(World::client(4), &Query::new("unknown.", "A").edns(1232)).expect("at once");
    assert_eq!((shed.rcode, shed.ede()), (2, Some(14)));
    assert_eq!((world.forwarder.lookups(), world.forwarder.stats().shed.get()), (1, 1));
}
