//! What a message from an upstream changes besides giving an answer: whom it makes us suspect, what is remembered of it, which of its
//! bits go on to the client. What a message *is* stands in `policy_rows.rs`.

mod world;

use nodens_core::{Rejection, Transport};
use nodens_testkit::{Query, Response};
use world::{Sent, World, config, name};

const SERVFAIL: u16 = 2;
const REFUSED: u16 = 5;

const ADDRESS: &str = "@ 60 IN A 192.0.2.1";

/// No answer is kept: whoever asks is sent on, unless a failure stands.
fn without_cache() -> World {
    let mut config = config(1);
    config.zones[0].cache = None;
    World::new(config)
}

/// A reply to `sent` under another ID than anybody's on its path.
fn misaddressed(sent: &Sent, n: u16) -> Vec<u8> {
    let id = u16::from_be_bytes([sent.bytes[0], sent.bytes[1]]);
    sent.reply().id(id.wrapping_add(n)).bytes()
}

fn over_tcp(world: &World) -> usize {
    world.sent.iter().filter(|sent| sent.transport == Transport::Tcp).count()
}

#[test]
fn s5_the_fourth_wrong_id_at_a_port_of_its_own_asks_over_tcp_and_no_other_does() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &name(1));
    let sent = world.next_sent();
    for (n, asked) in [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)] {
        assert_eq!(world.deliver(&sent, &misaddressed(&sent, n)), Err(Rejection::WrongId));
        assert_eq!(over_tcp(&world), asked, "after {n} wrong IDs");
    }
}

#[test]
fn s5_wrong_ids_on_a_shared_path_are_late_answers_and_ask_nobody() {
    let mut world = World::new(config(1));
    // Above a thousand a second one worker shares its sockets.
    for n in 0..2_000_u32 {
        world.ask(World::client(n as u16), &name(n));
    }
    let shared = world.sent.pop().expect("the last one");
    let beside = world.sent.iter().filter(|sent| sent.path == shared.path).count();
    assert!((1..64).contains(&beside), "{beside} others on its path");
    let ids: Vec<_> = world
        .sent
        .iter()
        .filter(|sent| sent.path == shared.path)
        .map(|sent| sent.bytes[..2].to_vec())
        .collect();
    let mut wrong =
        (1..).map(|n| misaddressed(&shared, n)).filter(|bytes| !ids.contains(&bytes[..2].to_vec()));
    for _ in 0..8 {
        let bytes = wrong.next().expect("there are enough");
        assert_eq!(world.deliver(&shared, &bytes), Err(Rejection::WrongId));
    }
    assert_eq!(over_tcp(&world), 0);
}

#[test]
fn octets_behind_the_last_record_are_cut_and_counted_where_the_message_is_whole() {
    let mut world = World::new(config(1));
    for (n, trailing, truncated, counted) in
        [(1, "", false, 0), (2, "rest", false, 1), (3, "rest", true, 1), (4, "", false, 1)]
    {
        world.ask(World::client(n), &name(n.into()));
        let sent = world.next_sent();
        let reply = sent.reply().answer(ADDRESS).trailing(trailing.as_bytes());
        let reply = if truncated { reply.tc() } else { reply };
        world.deliver(&sent, &reply.bytes()).expect("accepted");
        assert_eq!(world.forwarder.stats().trailing_bytes_cut.get(), counted, "message {n}");
        world.sent.clear();
    }
    assert!(world.answers.iter().all(|(_, bytes)| !bytes.ends_with(b"rest")));
}

#[test]
fn rfc6891_7_formerr_without_opt_sends_one_question_more_and_no_third() {
    let mut world = World::new(config(2));
    world.ask(World::client(1), &name(1));
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().rcode(1).bytes()).expect("accepted");
    let plain = world.next_sent();
    assert_eq!((plain.upstream, world.sent.len()), (sent.upstream, 0));
}

#[test]
fn rfc9520_3_2_a_refusal_stands_for_a_second_for_those_who_wanted_recursion() {
    for (recursion, stands) in [(true, true), (false, false)] {
        let mut world = World::new(config(1));
        let query = name(1).rd(recursion);
        world.ask(World::client(1), &query);
        let sent = world.next_sent();
        world.deliver(&sent, &sent.reply().rcode(REFUSED).bytes()).expect("accepted");
        assert_eq!(world.only_answer().rcode, REFUSED);
        let again = world.ask(World::client(2), &query).map(|reply| reply.rcode);
        assert_eq!(again, stands.then_some(REFUSED), "RD={recursion}");
        world.pass_ms(1_001);
        assert!(world.ask(World::client(3), &query).is_none(), "asked again");
    }
}

#[test]
fn an_answer_that_nobody_keeps_is_no_failure_that_stands() {
    let mut world = without_cache();
    for n in 1..4 {
        assert!(world.ask(World::client(n), &name(1)).is_none(), "asked again");
        let sent = world.next_sent();
        world.deliver(&sent, &sent.reply().answer(ADDRESS).bytes()).expect("accepted");
    }
}

#[test]
fn a_refusal_after_an_answer_stands_for_a_second_only_and_after_another_refusal_for_two() {
    for (rcode, record, kept_ms) in
        [(0, Some(ADDRESS), 1_000), (3, None, 1_000), (SERVFAIL, None, 2_000), (REFUSED, None, 2_000)]
    {
        let mut world = without_cache();
        let mut reply = |rcode, record: Option<&str>| {
            assert!(world.ask(World::client(1), &name(1)).is_none(), "asked again");
            let sent = world.next_sent();
            let reply = record.into_iter().fold(sent.reply().rcode(rcode), Response::answer);
            world.deliver(&sent, &reply.bytes()).expect("accepted");
            world.answers.clear();
            // As long as it may stand.
            world.pass_ms(if rcode == REFUSED { 1_000 } else { 0 });
        };
        reply(REFUSED, None);
        if rcode != REFUSED {
            reply(rcode, record);
        }
        reply(REFUSED, None);
        let stands = world.ask(World::client(2), &name(1)).is_some();
        assert_eq!(stands, kept_ms > 1_000, "after RCODE {rcode}");
    }
}

#[test]
fn a_good_answer_in_a_zone_forgets_its_failures_and_an_error_does_not() {
    for (rcode, forgets) in [(0, true), (3, true), (SERVFAIL, false), (REFUSED, false)] {
        let mut world = World::new(config(1));
        world.ask(World::client(1), &name(1));
        // This name is never answered, others are: the upstream is well, and the lookup fails by itself.
        for n in 2..500 {
            world.ask(World::client(n), &name(n.into()));
            let sent = world.sent.pop().expect("asked");
            world.deliver(&sent, &sent.reply().rcode(REFUSED).bytes()).expect("accepted");
            world.pass_ms(20);
            if world.answers.iter().any(|(client, _)| *client == World::client(1)) {
                break;
            }
        }
        let failed = world.ask(World::client(1_001), &name(1)).expect("from the failures");
        assert_eq!(failed.rcode, SERVFAIL);
        world.ask(World::client(1_002), &name(1_000));
        let sent = world.sent.pop().expect("asked");
        world.deliver(&sent, &sent.reply().rcode(rcode).bytes()).expect("accepted");
        let again = world.ask(World::client(1_003), &name(1));
        assert_eq!(again.is_none(), forgets, "RCODE {rcode}");
    }
}

#[test]
fn ra_and_ad_are_the_upstreams_in_the_answer_and_from_the_cache() {
    for (n, ra, ad) in [(1, false, false), (2, false, true), (3, true, false), (4, true, true)] {
        let mut world = World::new(config(1));
        let query = Query::new("www.example.org.", "A").ad(true);
        world.ask(World::client(n), &query);
        let sent = world.next_sent();
        let reply = sent.reply().ra(ra).ad(ad).answer(ADDRESS);
        world.deliver(&sent, &reply.bytes()).expect("accepted");
        let relayed = world.only_answer();
        assert_eq!((relayed.ra, relayed.ad), (ra, ad));
        let hit = world.ask(World::client(10 + n), &query).expect("from the cache");
        assert_eq!((hit.ra, hit.ad), (ra, ad));
    }
}

#[test]
fn an_answer_of_as_many_octets_as_an_entry_may_have_is_kept_and_a_longer_one_only_relayed() {
    // One A record whose owner is a pointer, and where its TTL stands.
    const RECORD_LEN: u32 = 16 + 2;
    for (entry_bytes_max, kept) in [(RECORD_LEN, true), (RECORD_LEN - 1, false), (RECORD_LEN + 1, true)] {
        let mut config = config(1);
        config.limits.entry_bytes_max = entry_bytes_max;
        let mut world = World::new(config);
        world.ask(World::client(1), &name(1));
        let sent = world.next_sent();
        world.deliver(&sent, &sent.reply().answer(ADDRESS).bytes()).expect("accepted");
        assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.1"]);
        assert_eq!(world.ask(World::client(2), &name(1)).is_some(), kept, "at most {entry_bytes_max} octets");
        assert_eq!(world.forwarder.stats().zones[0].insert_skipped.get(), 0, "the shard was free");
    }
}

#[test]
fn a_spelling_of_the_question_that_is_not_ours_is_no_forgery() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &Query::new("www.example.org.", "A"));
    let sent = world.next_sent();
    let reply = sent.reply().question("WWW.Example.ORG.", "A").answer(ADDRESS);
    world.deliver(&sent, &reply.bytes()).expect("accepted");
    assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.1"]);
}

#[test]
fn rfc2181_9_a_truncated_message_may_be_cut_anywhere_behind_its_question() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &name(1));
    let sent = world.next_sent();
    let whole = sent.reply().tc().answer(ADDRESS).bytes();
    world.deliver(&sent, &whole[..whole.len() - 3]).expect("accepted");
    assert_eq!(over_tcp(&world), 1, "asked over TCP");
}

#[test]
fn rfc8914_the_upstreams_extended_error_reaches_the_client_and_the_next_one() {
    let mut world = World::new(config(1));
    let query = name(1).edns(1232);
    world.ask(World::client(1), &query);
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().rcode(SERVFAIL).edns(1232, false).ede(9).bytes()).expect("accepted");
    assert_eq!(world.only_answer().ede(), Some(9));
    assert_eq!(world.ask(World::client(2), &query).expect("kept").ede(), Some(9));
}

#[test]
fn rfc7871_7_3_1_an_answer_for_some_clients_only_is_relayed_and_not_kept() {
    // Family 1, 24 bits of the client's address, and the scope that the answer is meant for.
    for (scope, kept) in [(24, false), (0, true)] {
        let mut world = World::new(config(1));
        world.ask(World::client(1), &name(1));
        let sent = world.next_sent();
        let reply = sent.reply().answer(ADDRESS).edns(1232, false).option(8, [0, 1, 24, scope, 192, 0, 2]);
        world.deliver(&sent, &reply.bytes()).expect("accepted");
        assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.1"]);
        assert_eq!(world.ask(World::client(2), &name(1)).is_some(), kept, "scope {scope}");
    }
}
