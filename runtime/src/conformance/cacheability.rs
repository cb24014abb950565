//! Rows A: what is kept, what is only relayed, and with which TTLs (semantics.md §1.8 A, changed by design §4a).
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::{Row, Setup, assert_ttls, sleep_ms, ttls};
use crate::worker::Runtime;
use nodens_core::cache::Class;
use nodens_core::config::KindRules;
use nodens_core::wire::Name;
use nodens_testkit::msg::rcode::{FORMERR, NOERROR, NOTIMP, NXDOMAIN, REFUSED, SERVFAIL};
use nodens_testkit::{Action, Query, Received, Response, Transport, Upstream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A SOA above every name used here: TTL 60, MINIMUM 40.
const SOA: &str = "example. 60 IN SOA ns.example. admin.example. 1 2 3 4 40";
const SIGNER: &str = "12345 example. AAAA";

fn a_query() -> Query {
    Query::new("www.example.", "A")
}

/// A script that answers everything with these records.
fn records(lines: &'static [&'static str]) -> impl Fn(&Received) -> Response + Send + Sync + 'static {
    move |query| lines.iter().fold(query.response(), |response, line| response.answer(line))
}

/// The chain in `lines` answers a question of this type: it is kept as a positive answer, in its order.
fn kept_as_positive<R: Runtime>(query: &Query, lines: &'static [&'static str]) {
    let row = Row::start::<R>(records(lines));
    let hit = row.expect_kept(query);
    let sent: Vec<_> = lines.iter().map(|line| line.replace("@ ", "www.example. ")).collect();
    let sent: Vec<_> = sent.iter().map(|line| line.replacen(" 60 IN", "", 1)).collect();
    assert_eq!(hit.answer_lines(), sent);
    assert_eq!((row.bench.kept(Class::Success), row.bench.kept(Class::Denial)), (1, 0));
    assert_eq!(row.bench.zone(|zone| &zone.hits_success), 1);
}

/// The chain in `lines` answers nothing: it is relayed and not kept.
fn relayed_and_not_kept<R: Runtime>(query: &Query, lines: &'static [&'static str]) {
    let row = Row::start::<R>(records(lines));
    let reply = row.expect_relayed(query);
    assert_eq!(reply.answers.len(), lines.len(), "all records reach the client");
    assert_eq!(ttls(&reply), vec![60; lines.len()], "TTLs are relayed as they are");
}

pub fn a01_ad_bit_and_ttl_cap<R: Runtime>() {
    let row = Row::start::<R>(|query| {
        let mx = ["@ 3601 IN MX 1 a.mx.example.", "@ 3601 IN MX 10 b.mx.example."];
        query.response().answer(mx[0]).answer(mx[1]).ad(true)
    });
    let query = Query::new("miek.example.", "MX").ad(true);
    let hit = row.expect_kept(&query);
    assert_eq!(hit.answers.len(), 2);
    assert_ttls(&hit, 3600);
    assert!(hit.ra && hit.ad);
}

pub fn a02_case_sensitivity<R: Runtime>() {
    let row = Row::start::<R>(records(&["@ 60 IN A 192.0.2.1"]));
    // That the question comes back in the spelling of each query is checked with every answer.
    row.bench.ask(&Query::new("mIEK.eXample.", "A"));
    let hit = row.bench.ask(&Query::new("miek.example.", "A"));
    assert_eq!(hit.question.expect("a question").name, "miek.example.");
    assert_eq!(row.asked(), 1);
}

fn truncated_over_udp(tcp: fn(&Received) -> Action) -> Upstream {
    Upstream::start(move |query| match query.transport {
        Transport::Udp => {
            vec![Action::Send(query.response().tc().answer("@ 60 IN MX 1 mx.example.").bytes())]
        }
        Transport::Tcp => vec![tcp(query)],
    })
}

pub fn a03_truncated_answer_is_fetched_over_tcp<R: Runtime>() {
    let whole = |query: &Received| {
        let mx = ["@ 60 IN MX 1 mx.example.", "@ 60 IN MX 2 mx2.example."];
        Action::Send(query.response().answer(mx[0]).answer(mx[1]).bytes())
    };
    let row = Row::behind::<R>(truncated_over_udp(whole), |setup| setup);
    let query = Query::new("www.example.", "MX");
    for reply in row.ask_twice(&query) {
        assert_eq!((reply.tc, reply.answers.len()), (false, 2));
    }
    assert_eq!((row.upstream.udp_count(), row.upstream.tcp_count()), (1, 1));
}

pub fn a03_truncated_answer_is_never_kept<R: Runtime>() {
    let row = Row::behind::<R>(truncated_over_udp(|_| Action::Close), |setup| setup);
    let query = Query::new("www.example.", "MX");
    for reply in row.ask_twice(&query) {
        assert!(reply.tc, "the upstream has no TCP, so the client is told what we were told");
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 0));
    }
    assert!(row.upstream.udp_count() >= 2, "the second query asked again");
    assert_eq!(row.bench.cache.usage().table.entries, 0);
}

pub fn a04_nxdomain_with_soa_is_kept<R: Runtime>() {
    let soa = "example. 3600 IN SOA ns.example. admin.example. 1 2 3 4 3600";
    let row = Row::start::<R>(move |query| query.response().rcode(NXDOMAIN).authority(soa));
    let hit = row.expect_kept(&a_query());
    assert_eq!((hit.rcode, hit.ra), (NXDOMAIN, true));
    assert_eq!((hit.authority.len(), hit.authority[0].rtype), (1, 6));
    assert_ttls(&hit, 1800);
    assert_eq!((row.bench.kept(Class::Success), row.bench.kept(Class::Denial)), (0, 1));
}

pub fn a05_nxdomain_without_soa_is_relayed<R: Runtime>() {
    let row = Row::start::<R>(|query| query.response().rcode(NXDOMAIN));
    assert_eq!(row.expect_relayed(&a_query()).rcode, NXDOMAIN);
}

/// The upstream's failure is kept for `servfail`, here one second.
fn failure_is_kept<R: Runtime>(rcode: u16) {
    let respond = move |query: &Received| query.response().rcode(rcode);
    let row = Row::with::<R>(respond, |setup| setup.rules(|rules| rules.servfail_ttl_s = 1));
    let hit = row.expect_kept(&a_query());
    assert_eq!(hit.rcode, rcode);
    assert_eq!(row.bench.zone(|zone| &zone.hits_denial), 1);
    sleep_ms(1050);
    row.bench.ask(&a_query());
    assert_eq!(row.asked(), 2, "asked again when it has run out");
}

pub fn a06_servfail_is_kept_for_its_time<R: Runtime>() {
    failure_is_kept::<R>(SERVFAIL);
}

pub fn a07_notimp_is_kept_for_its_time<R: Runtime>() {
    failure_is_kept::<R>(NOTIMP);
}

/// An RRSIG over `covered` that begins and ends so many seconds from now.
fn rrsig(covered: &str, from_s: i64, until_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    format!("@ 60 IN RRSIG {covered} 8 2 60 {} {} {SIGNER}", now + until_s, now + from_s)
}

pub fn a08_expired_signature_is_relayed<R: Runtime>() {
    let row = Row::start::<R>(|query| {
        let signature = rrsig("A", -7200, -3600);
        query.response().answer("@ 60 IN A 192.0.2.1").answer(&signature).edns(1232, true)
    });
    let reply = row.expect_relayed(&a_query().do_bit());
    assert_eq!(reply.rdatas("RRSIG").len(), 1);
}

pub fn a09_valid_signature_is_kept<R: Runtime>() {
    let row = Row::start::<R>(|query| {
        let signature = rrsig("A", -3600, 3600);
        query.response().answer("@ 90 IN A 192.0.2.1").answer(&signature).edns(1232, true)
    });
    let hit = row.expect_kept(&a_query().do_bit());
    assert_eq!(hit.rdatas("RRSIG").len(), 1);
    assert_ttls(&hit, 60);
    assert_eq!(hit.answers[0].ttl, hit.answers[1].ttl);
}

pub fn a10_cd_is_kept_and_echoed<R: Runtime>() {
    let row = Row::start::<R>(records(&["@ 60 IN A 192.0.2.1"]));
    assert!(row.expect_kept(&a_query().cd(true)).cd);
    assert!(row.upstream.received()[0].cd, "the upstream is told");
}

pub fn a15_dangling_cname_chain<R: Runtime>() {
    relayed_and_not_kept::<R>(&a_query(), &["@ 60 IN CNAME b.example.", "b.example. 60 IN CNAME c.example."]);
}

pub fn a16_chain_ending_in_another_type<R: Runtime>() {
    relayed_and_not_kept::<R>(&a_query(), &["@ 60 IN CNAME b.example.", "b.example. 60 IN AAAA 2001:db8::1"]);
}

pub fn a17_mx_chain_without_mx<R: Runtime>() {
    relayed_and_not_kept::<R>(&Query::new("www.example.", "MX"), &["@ 60 IN CNAME b.example."]);
}

pub fn a18_mx_chain_with_mx<R: Runtime>() {
    let chain = &["@ 60 IN CNAME b.example.", "b.example. 60 IN MX 10 mx.example."];
    kept_as_positive::<R>(&Query::new("www.example.", "MX"), chain);
}

pub fn a19_dangling_signed_cname<R: Runtime>() {
    let row = Row::start::<R>(|query| {
        let signature = rrsig("CNAME", -3600, 3600);
        query.response().answer("@ 60 IN CNAME b.example.").answer(&signature).edns(1232, true)
    });
    assert_eq!(row.expect_relayed(&a_query().do_bit()).answers.len(), 2);
}

pub fn a20_address_off_the_chain<R: Runtime>() {
    relayed_and_not_kept::<R>(&a_query(), &["@ 60 IN CNAME b.example.", "c.example. 60 IN A 192.0.2.1"]);
}

pub fn a21_lone_cname_answers_any<R: Runtime>() {
    kept_as_positive::<R>(&Query::new("www.example.", "ANY"), &["@ 60 IN CNAME b.example."]);
}

pub fn a22_chain_with_address<R: Runtime>() {
    kept_as_positive::<R>(&a_query(), &["@ 60 IN CNAME b.example.", "b.example. 60 IN A 192.0.2.1"]);
}

pub fn a23_order_is_preserved<R: Runtime>() {
    kept_as_positive::<R>(&a_query(), &["b.example. 60 IN A 192.0.2.1", "@ 60 IN CNAME b.example."]);
}

pub fn a24_cname_query<R: Runtime>() {
    kept_as_positive::<R>(&Query::new("www.example.", "CNAME"), &["@ 60 IN CNAME b.example."]);
}

const FORK: [&str; 3] =
    ["@ 60 IN CNAME b.example.", "@ 60 IN CNAME c.example.", "b.example. 60 IN A 192.0.2.1"];

pub fn a25_two_targets<R: Runtime>() {
    relayed_and_not_kept::<R>(&a_query(), &FORK);
}

pub fn a26_two_targets_reversed<R: Runtime>() {
    relayed_and_not_kept::<R>(&a_query(), &[FORK[1], FORK[0], FORK[2]]);
}

pub fn a27_cname_loop<R: Runtime>() {
    let chain = &["@ 60 IN CNAME b.example.", "b.example. 60 IN CNAME www.example.", "@ 60 IN A 192.0.2.1"];
    relayed_and_not_kept::<R>(&a_query(), chain);
}

pub fn a28_equal_cnames<R: Runtime>() {
    kept_as_positive::<R>(&a_query(), &[FORK[0], FORK[0], FORK[2]]);
}

pub fn a29_cname_with_soa_is_nodata<R: Runtime>() {
    let respond = |query: &Received| query.response().answer("@ 60 IN CNAME b.example.").authority(SOA);
    let row = Row::with::<R>(respond, |setup| setup.rules(|rules| rules.denial.ttl_max_s = 7));
    let hit = row.expect_kept(&a_query());
    assert_ttls(&hit, 7);
    assert_eq!((row.bench.kept(Class::Success), row.bench.kept(Class::Denial)), (0, 1));
    assert_eq!(row.bench.zone(|zone| &zone.hits_denial), 1);
}

pub fn a30_nxdomain_behind_a_cname<R: Runtime>() {
    let row = Row::start::<R>(|query| {
        query.response().rcode(NXDOMAIN).answer("@ 60 IN CNAME b.example.").authority(SOA)
    });
    let hit = row.expect_kept(&a_query());
    assert_eq!((hit.rcode, hit.answers.len(), hit.authority.len()), (NXDOMAIN, 1, 1));
    assert_ttls(&hit, 40);
    assert_eq!(row.bench.kept(Class::Denial), 1);
}

pub fn a31_refused_is_a_failure_of_one_second<R: Runtime>() {
    let row = Row::with::<R>(|query| query.response().rcode(REFUSED), Setup::one_worker);
    for reply in row.ask_twice(&a_query()) {
        assert_eq!(reply.rcode, REFUSED);
    }
    assert_eq!((row.asked(), row.bench.sum(|stats| &stats.failure_hits)), (1, 1));
    assert_eq!(row.bench.cache.usage().table.entries, 0, "it is no answer");
    sleep_ms(1050);
    row.bench.ask(&a_query());
    assert_eq!(row.asked(), 2);
}

pub fn a32_formerr_is_relayed<R: Runtime>() {
    // With an OPT: the upstream knows EDNS and still finds the query wrong.
    let row = Row::start::<R>(|query| query.response().rcode(FORMERR).edns(1232, false));
    assert_eq!(row.expect_relayed(&a_query()).rcode, FORMERR);
}

pub fn a33_nxdomain_without_soa_is_a_denial_that_does_not_fit<R: Runtime>() {
    let row =
        Row::start::<R>(|query| query.response().rcode(NXDOMAIN).authority("example. 60 IN NS ns.example."));
    assert_eq!(row.expect_relayed(&a_query()).rcode, NXDOMAIN);
    assert_eq!(row.bench.responses(NXDOMAIN), 2);
}

/// A referral, with an expired signature if `signed`.
fn referral_is_relayed<R: Runtime>(signed: bool) {
    let row = Row::start::<R>(move |query| {
        let response = query.response().authority("example. 60 IN NS ns.example.");
        let signature = rrsig("NS", -7200, -3600);
        if signed { response.authority(&signature).edns(1232, true) } else { response }
    });
    let query = if signed { a_query().do_bit() } else { a_query() };
    let reply = row.expect_relayed(&query);
    assert_eq!((reply.rcode, reply.authority.len()), (NOERROR, 1 + usize::from(signed)));
}

pub fn a34_a36_referral_is_relayed<R: Runtime>() {
    referral_is_relayed::<R>(false);
}

pub fn a35_signed_referral_is_relayed<R: Runtime>() {
    referral_is_relayed::<R>(true);
}

pub fn a37_empty_noerror_is_kept_for_a_moment<R: Runtime>() {
    // Five seconds at most, which tests/policy_rows.rs of the core proves; here the zone allows one.
    let change =
        |setup: Setup| setup.rules(|rules| (rules.denial.ttl_min_s, rules.denial.ttl_max_s) = (0, 1));
    let row = Row::with::<R>(Received::response, change);
    let hit = row.expect_kept(&a_query());
    assert_eq!((hit.rcode, ttls(&hit).len()), (NOERROR, 0));
    sleep_ms(1050);
    row.bench.ask(&a_query());
    assert_eq!(row.asked(), 2);
}

pub fn a38_data_in_additional_only<R: Runtime>() {
    let row = Row::start::<R>(|query| query.response().additional("ns.example. 300 IN A 192.0.2.1"));
    let hit = row.expect_kept(&a_query());
    assert_eq!((hit.answers.len(), hit.additional.len()), (0, 1));
    assert_ttls(&hit, 5);
}

/// Over UDP `spoof` comes first and the truth 100 ms later. The client gets the truth, and the spoof is not kept under the
/// name that it speaks of.
fn spoof_is_ignored<R: Runtime>(spoof: fn(&Received) -> Response, also: &Query) {
    let upstream = Upstream::start(move |query| match (query.transport, query.qname.as_str()) {
        (Transport::Tcp, _) => vec![Action::Drop],
        (_, "www.example.") if query.qtype == 1 => vec![
            Action::Send(spoof(query).answer("@ 60 IN A 203.0.113.66").bytes()),
            Action::Delay(Duration::from_millis(100)),
            Action::Send(query.response().answer("@ 60 IN A 192.0.2.1").bytes()),
        ],
        _ => vec![Action::Send(query.response().rcode(NXDOMAIN).authority(SOA).bytes())],
    });
    let row = Row::behind::<R>(upstream, |setup| setup);
    for reply in row.ask_twice(&a_query()) {
        assert_eq!(reply.answer_lines(), ["www.example. A 192.0.2.1"]);
    }
    assert_eq!(row.upstream.count_if(|query| query.transport == Transport::Udp), 1);
    let rejected: u64 =
        (0..nodens_core::Rejection::COUNT).map(|reason| row.bench.sum(|stats| &stats.rejected[reason])).sum();
    assert_eq!(rejected, 1);
    assert_eq!(row.bench.ask(also).rcode, NXDOMAIN, "the spoof is nobody's answer");
}

pub fn a39_spoofed_name_is_ignored<R: Runtime>() {
    let other = Query::new("other.example.", "A");
    spoof_is_ignored::<R>(|query| query.response().question("other.example.", "A"), &other);
}

pub fn a40_spoofed_type_is_ignored<R: Runtime>() {
    let other = Query::new("www.example.", "AAAA");
    spoof_is_ignored::<R>(|query| query.response().question("www.example.", "AAAA"), &other);
}

pub fn a41_reply_that_is_a_query_is_ignored<R: Runtime>() {
    let other = Query::new("www.example.", "TXT");
    spoof_is_ignored::<R>(|query| query.response().qr(false), &other);
}

pub fn a42_other_classes_are_refused_and_disturb_nothing<R: Runtime>() {
    let row = Row::start::<R>(records(&["@ 60 IN A 192.0.2.1"]));
    assert_eq!(row.bench.ask(&a_query().class(3)).rcode, REFUSED);
    assert_eq!(row.asked(), 0, "only IN is forwarded");
    assert_eq!(row.bench.ask(&a_query()).answers.len(), 1);
    assert_eq!(row.bench.ask(&a_query().class(3)).rcode, REFUSED, "IN's answer is not CH's");
    assert_eq!(row.asked(), 1);
}

/// A single address with this TTL, under these clamps.
fn one_address<R: Runtime>(ttl_s: u32, change: impl FnOnce(&mut KindRules)) -> Row {
    let respond = move |query: &Received| query.response().answer(&format!("@ {ttl_s} IN A 192.0.2.1"));
    Row::with::<R>(respond, |setup| setup.rules(|rules| change(&mut rules.success)))
}

pub fn a43_zero_ttl_without_a_floor<R: Runtime>() {
    let row = one_address::<R>(0, |success| success.ttl_min_s = 0);
    assert_eq!(ttls(&row.expect_relayed(&a_query())), [0]);
}

pub fn a44_zero_ttl_is_raised_to_the_floor<R: Runtime>() {
    let row = one_address::<R>(0, |_| {});
    assert_eq!(ttls(&row.bench.ask(&a_query())), [5]);
    assert_ttls(&row.bench.ask(&a_query()), 5);
    assert_eq!(row.asked(), 1);
}

pub fn a45_cap_above_the_default<R: Runtime>() {
    let row = one_address::<R>(86_400, |success| (success.ttl_min_s, success.ttl_max_s) = (0, 7200));
    assert_eq!(ttls(&row.bench.ask(&a_query())), [7200]);
}

pub fn a51_cap_beats_the_floor<R: Runtime>() {
    let row = one_address::<R>(60, |success| success.ttl_max_s = 3);
    assert_eq!(ttls(&row.bench.ask(&a_query())), [3]);
}

pub fn a54_minimum_of_the_soa_counts<R: Runtime>() {
    let soa = "example. 3600 IN SOA ns.example. admin.example. 1 2 3 4 30";
    let row = Row::start::<R>(move |query| query.response().rcode(NXDOMAIN).authority(soa));
    assert_eq!(ttls(&row.bench.ask(&a_query())), [30]);
    assert_ttls(&row.bench.ask(&a_query()), 30);
}

pub fn a56_cap_on_a_long_ttl<R: Runtime>() {
    let respond = records(&["@ 1800 IN A 192.0.2.1", "@ 1800 IN A 192.0.2.2"]);
    let row = Row::with::<R>(respond, |setup| setup.rules(|rules| rules.success.ttl_max_s = 10));
    assert_eq!(ttls(&row.bench.ask(&a_query())), [10, 10]);
}

pub fn a57_floor_under_a_short_ttl<R: Runtime>() {
    let row = one_address::<R>(1, |success| success.ttl_max_s = 10);
    assert_eq!(ttls(&row.bench.ask(&a_query())), [5]);
}

pub fn a58_ttls_are_flattened<R: Runtime>() {
    let row = Row::start::<R>(records(&["@ 300 IN CNAME b.example.", "b.example. 30 IN A 192.0.2.1"]));
    assert_eq!(ttls(&row.bench.ask(&a_query())), [30, 30]);
    let hit = row.bench.ask(&a_query());
    assert_ttls(&hit, 30);
    assert_eq!(hit.answers[0].ttl, hit.answers[1].ttl);
}

pub fn a59_ttls_of_what_is_not_kept_stay<R: Runtime>() {
    let row = Row::start::<R>(|query| query.response().rcode(REFUSED).answer("@ 300 IN A 192.0.2.1"));
    let reply = row.bench.ask(&a_query());
    assert_eq!((reply.rcode, ttls(&reply)), (REFUSED, vec![300]));
}

pub fn a60_ttls_fall_with_time<R: Runtime>() {
    let row = one_address::<R>(60, |_| {});
    let before = Instant::now();
    row.bench.ask(&a_query());
    let after = Instant::now();
    sleep_ms(1600);
    let least = after.elapsed().as_secs() as u32;
    let ttl = ttls(&row.bench.ask(&a_query()))[0];
    let most = before.elapsed().as_secs() as u32;
    assert!((60 - most..=60 - least).contains(&ttl), "{ttl} after {least} to {most} whole seconds");
}

pub fn a62_entries_stay_within_the_bound<R: Runtime>() {
    const BOUND: u64 = 16;
    let change = |mut setup: Setup| {
        // One shard, so that the bound is exact.
        setup.cache_bytes = 256 << 10;
        setup.rules(|rules| rules.success.entries_max = BOUND as u32)
    };
    let row = Row::with::<R>(records(&["@ 60 IN A 192.0.2.1"]), change);
    for n in 0..3 * BOUND {
        assert_eq!(row.bench.ask(&Query::new(&format!("n{n}.example."), "A")).answers.len(), 1);
    }
    let usage = row.bench.cache.usage().table;
    assert_eq!((usage.entries, usage.evictions()), (BOUND, 2 * BOUND));
}

pub fn a64_only_the_zones_of_cache_are_kept<R: Runtime>() {
    let only = Name::parse("example.org.").expect("a name");
    let change = |setup: Setup| setup.rules(|rules| rules.zones = vec![only]);
    let row = Row::with::<R>(records(&["@ 60 IN A 192.0.2.1"]), change);
    row.expect_relayed(&a_query());
    row.expect_kept(&Query::new("www.example.org.", "A"));
    row.expect_kept(&Query::new("example.org.", "A"));
}

pub fn a65_transfers_and_other_opcodes_are_no_business_of_ours<R: Runtime>() {
    let row = Row::start::<R>(records(&["@ 60 IN A 192.0.2.1"]));
    for qtype in ["AXFR", "IXFR"] {
        let query = Query::new("www.example.", qtype);
        assert_eq!(row.bench.ask_tcp(&query).rcode, REFUSED, "{qtype}");
        assert_eq!(row.bench.ask(&query).rcode, REFUSED, "{qtype}");
    }
    for opcode in [4, 5] {
        assert_eq!(row.bench.ask_tcp(&a_query().opcode(opcode)).rcode, NOTIMP, "opcode {opcode}");
    }
    assert_eq!((row.asked(), row.bench.cache.usage().table.entries), (0, 0));
}
