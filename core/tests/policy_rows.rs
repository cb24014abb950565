//! Rows of semantics.md §1.8 that are about pure decisions: what a message is, how long it may be kept, whether it
//! answers its question.
//!
//! Messages come from the test kit's encoder, so a mistake in our own reader cannot hide. Rows that need sockets are in the
//! conformance suite of `nodens-runtime`, those about the table beside the shard.

mod world;

use nodens_core::cache::{Judgement, Kind, SOALESS_TTL_MAX_S, answers_question, judge};
use nodens_core::config::{CacheRules, KindRules};
use nodens_core::wire::{Header, Message, Question};
use nodens_testkit::{Query, Response};
use world::{World, config};

/// Some day in 2026, on which nothing in these tests depends.
const TODAY: u64 = 1_790_000_000;
const SOA: &str = "a.example. b.example. 1 2 3 4";
const SIGNATURE: &str = "CNAME 8 2 60 20300101000000 20250101000000 4660 example. AQID";
/// The CNAMEs of an answer that are looked at.
const CNAMES_MAX: usize = 64;

fn with_message<R>(response: &Response, look: impl FnOnce(&Message<'_>) -> R) -> R {
    let bytes = response.bytes();
    let header = Header::read(&bytes).expect("a header");
    let question = Question::read(&bytes).expect("a question");
    look(&Message::walk(&bytes, header, question).expect("a sound message"))
}

fn judged(response: &Response, rules: &CacheRules) -> Judgement {
    with_message(response, |message| judge(message, rules, TODAY))
}

fn reply_to(name: &str, qtype: &str) -> Response {
    Response::to(&Query::new(name, qtype).bytes())
}

/// The lifetime of a positive answer with this TTL between these clamps.
fn kept_for_s(ttl_s: u32, ttl_min_s: u32, ttl_max_s: u32) -> u32 {
    let success = KindRules { entries_max: 100, ttl_max_s, ttl_min_s };
    let rules = CacheRules { success, ..CacheRules::coredns() };
    let response = reply_to("www.example.", "A").answer(&format!("@ {ttl_s} IN A 192.0.2.1"));
    match judged(&response, &rules) {
        Judgement::Keep { kind: Kind::Positive, ttl_s } => ttl_s,
        other => panic!("not kept: {other:?}"),
    }
}

fn answers(qname: &str, qtype: &str, records: &[&str]) -> bool {
    let response = records.iter().fold(reply_to(qname, qtype), |response, line| response.answer(line));
    with_message(&response, answers_question)
}

#[test]
fn a47_a_ttl_between_the_clamps_stays() {
    assert_eq!(kept_for_s(1800, 300, 3600), 1800);
}

#[test]
fn a48_a_ttl_below_the_lower_clamp_is_raised() {
    assert_eq!(kept_for_s(299, 300, 3600), 300);
}

#[test]
fn a49_without_a_lower_clamp_it_stays() {
    assert_eq!(kept_for_s(299, 0, 3600), 299);
}

#[test]
fn a50_a_ttl_above_the_upper_clamp_is_cut() {
    assert_eq!(kept_for_s(3601, 300, 3600), 3600);
}

#[test]
fn a51_the_upper_clamp_beats_the_lower() {
    assert_eq!(kept_for_s(60, 5, 3), 3);
}

#[test]
fn a52_nodata_lives_for_the_soa_ttl_where_that_is_less_than_minimum() {
    let response = reply_to("www.example.", "A").authority(&format!("example. 1800 IN SOA {SOA} 3600"));
    let kept = Judgement::Keep { kind: Kind::NoData, ttl_s: 1800 };
    assert_eq!(judged(&response, &CacheRules::coredns()), kept);
}

#[test]
fn a53_nxdomain_lives_for_the_soa_ttl_where_that_is_less_than_minimum() {
    let response =
        reply_to("www.example.", "A").rcode(3).authority(&format!("example. 1800 IN SOA {SOA} 3600"));
    let kept = Judgement::Keep { kind: Kind::NxDomain, ttl_s: 1800 };
    assert_eq!(judged(&response, &CacheRules::coredns()), kept);
}

#[test]
fn a54_rfc2308_5_minimum_counts_where_it_is_less_than_the_soa_ttl() {
    for (rcode, kind) in [(0, Kind::NoData), (3, Kind::NxDomain)] {
        let response =
            reply_to("www.example.", "A").rcode(rcode).authority(&format!("example. 3600 IN SOA {SOA} 30"));
        assert_eq!(judged(&response, &CacheRules::coredns()), Judgement::Keep { kind, ttl_s: 30 });
    }
}

#[test]
fn a55_the_least_ttl_of_all_sections_counts() {
    let mut response = reply_to("www.example.", "A");
    for n in 0..10 {
        let ttl_s = 1000 + 100 * n;
        response = response
            .answer(&format!("@ {ttl_s} IN A 192.0.2.{n}"))
            .authority(&format!("example. {ttl_s} IN NS ns{n}.example."));
    }
    for n in 1..9 {
        response = response.additional(&format!("ns{n}.example. {} IN A 192.0.2.1{n}", 1000 + 100 * n));
    }
    let kept = Judgement::Keep { kind: Kind::Positive, ttl_s: 1000 };
    assert_eq!(judged(&response, &CacheRules::coredns()), kept);
    let lower = response.additional("ns9.example. 900 IN A 192.0.2.19");
    let kept = Judgement::Keep { kind: Kind::Positive, ttl_s: 900 };
    assert_eq!(judged(&lower, &CacheRules::coredns()), kept);
}

#[test]
fn a37_a38_an_empty_answer_without_soa_lives_for_five_seconds_at_most() {
    assert_eq!(SOALESS_TTL_MAX_S, 5);
    let empty = reply_to("www.example.", "A");
    let kept = Judgement::Keep { kind: Kind::NoData, ttl_s: 5 };
    assert_eq!(judged(&empty, &CacheRules::coredns()), kept);
    let elsewhere = empty.additional("ns.example. 300 IN A 192.0.2.1");
    assert_eq!(judged(&elsewhere, &CacheRules::coredns()), kept);
}

#[test]
fn v13_a_negative_answer_with_a_soa_of_another_zone_is_not_kept() {
    for rcode in [0, 3] {
        let foreign =
            reply_to("www.example.", "A").rcode(rcode).authority(&format!("org. 30 IN SOA {SOA} 30"));
        assert_eq!(judged(&foreign, &CacheRules::coredns()), Judgement::Relay, "RCODE {rcode}");
    }
}

#[test]
fn servfail_and_notimp_are_kept_as_failures_and_other_errors_not_at_all() {
    let rules = CacheRules::coredns();
    for (rcode, wanted) in [
        (1, Judgement::Relay),
        (2, Judgement::Keep { kind: Kind::Failure, ttl_s: rules.servfail_ttl_s }),
        (4, Judgement::Keep { kind: Kind::Failure, ttl_s: rules.servfail_ttl_s }),
        (5, Judgement::Relay),
    ] {
        assert_eq!(judged(&reply_to("www.example.", "A").rcode(rcode), &rules), wanted, "RCODE {rcode}");
    }
}

#[test]
fn a_referral_is_no_denial_and_is_not_kept() {
    let referral = reply_to("www.example.", "A").authority("example. 300 IN NS ns.example.");
    assert_eq!(judged(&referral, &CacheRules::coredns()), Judgement::Relay);
}

#[test]
fn an_answer_to_something_else_is_not_kept_as_an_empty_one() {
    let other = reply_to("www.example.", "A").answer("@ 60 IN TXT \"x\"");
    assert_eq!(judged(&other, &CacheRules::coredns()), Judgement::Relay);
}

#[test]
fn an_nxdomain_may_follow_a_chain_but_not_data() {
    let denied = reply_to("www.example.", "A").rcode(3).authority(&format!("example. 30 IN SOA {SOA} 30"));
    let kept = Judgement::Keep { kind: Kind::NxDomain, ttl_s: 30 };
    for (answer, wanted) in [
        ("@ 60 IN CNAME gone.example.", kept),
        ("@ 60 IN DNAME gone.example.", kept),
        ("@ 60 IN A 192.0.2.1", Judgement::Relay),
    ] {
        assert_eq!(judged(&denied.clone().answer(answer), &CacheRules::coredns()), wanted, "{answer}");
    }
}

#[test]
fn a61_a_step_of_the_wall_clock_changes_no_ttl() {
    let mut world = World::new(config(1));
    let query = Query::new("www.example.", "A");
    assert!(world.ask(World::client(1), &query).is_none());
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    assert_eq!(world.only_answer().min_answer_ttl(), Some(60));
    world.pass_ms(17_000);
    for step_s in [-3600, 7200] {
        world.forwarder.handle_wall_clock(world.now, TODAY.saturating_add_signed(step_s));
        let hit = world.ask(World::client(2), &query).expect("a hit");
        assert_eq!(hit.min_answer_ttl(), Some(43), "after a step of {step_s} s");
    }
}

#[test]
fn e04_a_direct_answer_answers() {
    assert!(answers("a.example.", "A", &["a.example. 60 IN A 192.0.2.1"]));
}

#[test]
fn e05_any_is_answered_by_any_record_of_the_name() {
    assert!(answers("a.example.", "ANY", &["A.Example. 60 IN TXT \"x\""]));
}

#[test]
fn e06_any_is_not_answered_by_another_name() {
    assert!(!answers("a.example.", "ANY", &["b.example. 60 IN A 192.0.2.1"]));
}

#[test]
fn e07_two_equal_cnames_are_one() {
    let cname = "a.example. 60 IN CNAME b.example.";
    assert!(answers("a.example.", "A", &[cname, cname, "b.example. 60 IN A 192.0.2.1"]));
    assert!(answers("a.example.", "CNAME", &[cname, cname]));
}

#[test]
fn e08_two_cname_targets_answer_nothing() {
    let fork = ["a.example. 60 IN CNAME b.example.", "a.example. 60 IN CNAME c.example."];
    let ending = "b.example. 60 IN A 192.0.2.1";
    assert!(!answers("a.example.", "A", &[fork[0], fork[1], ending]));
    assert!(!answers("a.example.", "A", &[fork[1], fork[0], ending]));
    assert!(!answers("a.example.", "CNAME", &fork));
}

#[test]
fn e09_a_record_of_another_class_answers_nothing() {
    assert!(!answers("a.example.", "A", &["a.example. 60 CH A 192.0.2.1"]));
}

#[test]
fn e10_any_is_answered_by_a_cname_itself_and_no_chain_is_followed() {
    assert!(answers("a.example.", "ANY", &["a.example. 60 IN CNAME b.example."]));
    assert!(!answers("b.example.", "ANY", &["a.example. 60 IN CNAME b.example."]));
}

#[test]
fn e11_what_signs_or_denies_a_cname_answers_beside_it_and_elsewhere_at_the_end_of_the_chain() {
    let cname = "a.example. 60 IN CNAME b.example.";
    let [here, there] = ["a.example.", "b.example."].map(|owner| format!("{owner} 60 IN RRSIG {SIGNATURE}"));
    assert!(answers("a.example.", "RRSIG", &[cname, &here]), "RFC 4034 §2.5");
    assert!(answers("a.example.", "RRSIG", &[cname, &there]));
    assert!(!answers("a.example.", "RRSIG", &[cname]));
}

#[test]
fn e12_a_chain_is_followed_among_as_many_cnames_as_are_read_and_not_among_more() {
    let address = "b.example. 60 IN A 192.0.2.1".to_owned();
    for (cnames, followed) in [(CNAMES_MAX, true), (CNAMES_MAX + 1, false), (CNAMES_MAX + 2, false)] {
        let others = (1..cnames).map(|n| format!("other{n}.example. 60 IN CNAME b.example."));
        let first = std::iter::once("a.example. 60 IN CNAME b.example.".to_owned());
        let records: Vec<_> = first.chain(others).chain([address.clone()]).collect();
        let records: Vec<_> = records.iter().map(String::as_str).collect();
        assert_eq!(answers("a.example.", "A", &records), followed, "{cnames} CNAMEs");
    }
    let addresses: Vec<_> = (0..=CNAMES_MAX).map(|n| format!("a.example. 60 IN A 192.0.2.{n}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    assert!(answers("a.example.", "A", &addresses), "what is no CNAME does not count");
}

#[test]
fn a_denial_may_come_from_the_zone_of_the_name_or_of_the_chains_end() {
    for (zone, is_kept) in [("first.", true), ("last.", true), ("other.", false)] {
        let denial = reply_to("www.first.", "A")
            .answer("@ 60 IN CNAME www.last.")
            .authority(&format!("{zone} 30 IN SOA {SOA} 30"));
        let kept = Judgement::Keep { kind: Kind::NoData, ttl_s: 30 };
        let wanted = if is_kept { kept } else { Judgement::Relay };
        assert_eq!(judged(&denial, &CacheRules::coredns()), wanted, "SOA of {zone}");
    }
}

#[test]
fn rfc2308_5_a_minimum_with_the_highest_bit_is_0_and_the_greatest_without_it_is_not() {
    let rules = CacheRules::coredns();
    for (minimum, ttl_s) in [(0x7fff_ffff_u32, 30), (0x8000_0000, rules.denial.ttl_min_s)] {
        let denial = reply_to("www.example.", "A").authority(&format!("example. 30 IN SOA {SOA} {minimum}"));
        let kept = Judgement::Keep { kind: Kind::NoData, ttl_s };
        assert_eq!(judged(&denial, &rules), kept, "MINIMUM {minimum}");
    }
}

/// What becomes of an answer for 60 s to DO that is signed until and since so many seconds after now.
fn signed(until_s: i64, since_s: i64) -> Judgement {
    let [until, since] = [until_s, since_s].map(|seconds| TODAY.wrapping_add_signed(seconds) as u32);
    let response = reply_to("www.example.", "A")
        .edns(1232, true)
        .answer("@ 60 IN A 192.0.2.1")
        .answer(&format!("@ 60 IN RRSIG A 8 2 60 {until} {since} 4660 example. AQID"));
    judged(&response, &CacheRules::coredns())
}

#[test]
fn rfc4035_5_3_3_a_signed_answer_is_not_kept_beyond_its_signatures_nor_before_them() {
    const DAY: i64 = 86_400;
    let kept = |ttl_s| Judgement::Keep { kind: Kind::Positive, ttl_s };
    assert_eq!(signed(DAY, -DAY), kept(60));
    assert_eq!(signed(40, -DAY), kept(40), "the signature ends first");
    assert_eq!(signed(0, -DAY), kept(1), "its last second");
    assert_eq!(signed(-1, -DAY), Judgement::Relay, "over");
    assert_eq!(signed(DAY, 0), kept(60), "its first second");
    assert_eq!(signed(DAY, 1), Judgement::Relay, "not yet valid");
}

#[test]
fn signatures_count_for_those_alone_who_asked_for_them_and_no_other_record_is_one() {
    let stale = "@ 60 IN RRSIG A 8 2 60 1 0 4660 example. AQID";
    let answer = reply_to("www.example.", "A").answer("@ 60 IN A 192.0.2.1");
    let kept = Judgement::Keep { kind: Kind::Positive, ttl_s: 60 };
    assert_eq!(judged(&answer.clone().answer(stale), &CacheRules::coredns()), kept, "without EDNS");
    assert_eq!(judged(&answer.clone().answer(stale).edns(1232, false), &CacheRules::coredns()), kept, "DO=0");
    assert_eq!(
        judged(&answer.clone().answer(stale).edns(1232, true), &CacheRules::coredns()),
        Judgement::Relay
    );
    assert_eq!(judged(&answer.clone().edns(1232, true), &CacheRules::coredns()), kept, "nothing is signed");
    // Eighteen octets stand before the signer's name; without them there is no signature that could be valid.
    let until = TODAY + 86_400;
    for (len, tag, wanted) in [(17, "12", Judgement::Relay), (18, "1234", kept)] {
        let record = format!(r"@ 60 IN RRSIG \# {len} 000108020000003c{until:08x}00000001{tag}");
        let response = answer.clone().answer(&record).edns(1232, true);
        assert_eq!(judged(&response, &CacheRules::coredns()), wanted, "{len} octets");
    }
}
