//! Rows B: what separates two answers, what does not, and which header bits and options a client gets (semantics.md §1.8 B).
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::{OUR_SIZE, Row, Setup, assert_ttls, sleep_ms};
use crate::worker::Runtime;
use nodens_testkit::msg::option_code::{CLIENT_SUBNET, COOKIE, PADDING, TCP_KEEPALIVE};
use nodens_testkit::msg::rcode::NOERROR;
use nodens_testkit::{Query, Received, Response};
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers every type with something of that type; AD where it was asked for.
fn something(query: &Received) -> Response {
    let rdata = match query.qtype {
        28 => "AAAA 2001:db8::1",
        15 => "MX 10 mx.example.",
        _ => "A 192.0.2.1",
    };
    query.response().answer(&format!("@ 60 IN {rdata}")).ad(query.ad).edns(1232, query.do_bit)
}

fn a_query() -> Query {
    Query::new("www.example.", "A")
}

/// Two questions that must not share an answer: each goes upstream, and each is then kept for itself.
fn separate<R: Runtime>(one: &Query, other: &Query) {
    let row = Row::start::<R>(something);
    row.bench.ask(one);
    row.bench.ask(other);
    assert_eq!(row.asked(), 2, "neither is the other's answer");
    row.bench.ask(one);
    row.bench.ask(other);
    assert_eq!(row.asked(), 2, "both are kept");
}

pub fn b01_type_separates<R: Runtime>() {
    separate::<R>(&a_query(), &Query::new("www.example.", "AAAA"));
}

pub fn b02_do_separates<R: Runtime>() {
    separate::<R>(&a_query(), &a_query().do_bit());
    // An OPT alone does not.
    let row = Row::start::<R>(something);
    row.bench.ask(&a_query());
    row.bench.ask(&a_query().edns(1232));
    assert_eq!(row.asked(), 1);
}

pub fn b03_cd_separates<R: Runtime>() {
    separate::<R>(&a_query(), &a_query().cd(true));
}

pub fn b04_cd_and_do_separate<R: Runtime>() {
    separate::<R>(&a_query(), &a_query().cd(true).do_bit());
    separate::<R>(&a_query().cd(true), &a_query().do_bit());
}

pub fn b05_cd_do_and_type_separate<R: Runtime>() {
    separate::<R>(&a_query(), &Query::new("www.example.", "MX").cd(true).do_bit());
}

/// Two queries that must share an answer.
fn shared<R: Runtime>(one: &Query, other: &Query) {
    let row = Row::start::<R>(something);
    let first = row.bench.ask(one);
    let second = row.bench.ask(other);
    assert_eq!(first.answer_lines(), second.answer_lines());
    assert_eq!(row.asked(), 1);
}

pub fn b06_aa_in_the_query_does_not_separate<R: Runtime>() {
    shared::<R>(&a_query(), &a_query().aa(true));
    shared::<R>(&a_query().aa(true), &a_query());
}

pub fn b07_ad_is_learned_for_whoever_asks_later<R: Runtime>() {
    let row = Row::start::<R>(something);
    assert!(!row.bench.ask(&a_query()).ad, "AD only for who asks");
    assert!(row.upstream.received()[0].ad, "we always ask for it");
    assert!(row.bench.ask(&a_query().ad(true)).ad);
    assert_eq!(row.asked(), 1);
}

pub fn b08_ad_is_kept_from_who_did_not_ask<R: Runtime>() {
    let row = Row::start::<R>(something);
    assert!(row.bench.ask(&a_query().ad(true)).ad);
    assert!(!row.bench.ask(&a_query()).ad);
    assert_eq!(row.asked(), 1);
}

pub fn b11_signatures_go_to_those_who_want_them<R: Runtime>() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let signature = format!("@ 60 IN RRSIG A 8 2 60 {} {} 7 example. AAAA", now + 3600, now - 3600);
    let row = Row::start::<R>(move |query| {
        let response = query.response().answer("@ 60 IN A 192.0.2.1").edns(1232, query.do_bit);
        if query.do_bit { response.answer(&signature) } else { response }
    });
    for _ in 0..2 {
        let signed = row.bench.ask(&a_query().do_bit());
        assert_eq!((signed.rdatas("A").len(), signed.rdatas("RRSIG").len()), (1, 1));
        let plain = row.bench.ask(&a_query());
        assert_eq!((plain.rdatas("A").len(), plain.rdatas("RRSIG").len()), (1, 0));
    }
    assert_eq!(row.asked(), 2);
}

pub fn b12_x6_the_upstream_s_opt_is_never_kept<R: Runtime>() {
    // Were it kept and aged like a record, its TTL field (extended RCODE, version, DO) would be rewritten.
    let row = Row::start::<R>(|query| {
        query
            .response()
            .answer("@ 60 IN A 192.0.2.1")
            .additional("ns.example. 60 IN A 192.0.2.9")
            .edns(4096, true)
    });
    row.bench.ask(&a_query().edns(4096));
    sleep_ms(1050);
    let hit = row.bench.ask(&a_query().edns(4096));
    let opt = hit.opt.as_ref().expect("our own OPT");
    assert_eq!((opt.size, opt.version, opt.do_bit, opt.options.len()), (OUR_SIZE, 0, false, 0));
    assert_eq!((hit.rcode, hit.opt_count, hit.additional.len()), (NOERROR, 1, 1));
    assert_ttls(&hit, 59);
    let plain = row.bench.ask(&a_query());
    assert_eq!((plain.opt_count, plain.additional.len()), (0, 1));
    assert_eq!(row.asked(), 1);
}

pub fn b13_do_is_echoed_and_the_size_is_ours<R: Runtime>() {
    let row = Row::start::<R>(something);
    for reply in row.ask_twice(&a_query().edns(4096).do_bit()) {
        let opt = reply.opt.expect("an OPT");
        assert_eq!((opt.size, opt.do_bit), (OUR_SIZE, true));
    }
    let ours = row.upstream.received()[0].opt.clone().expect("we speak EDNS to the upstream");
    assert_eq!((ours.size, ours.do_bit), (OUR_SIZE, true));
}

pub fn b14_no_opt_to_who_sent_none<R: Runtime>() {
    let row = Row::start::<R>(something);
    for reply in row.ask_twice(&a_query()) {
        assert_eq!(reply.opt_count, 0);
        assert!(reply.additional.is_empty());
    }
}

pub fn b15_opt_is_the_last_record<R: Runtime>() {
    let row = Row::start::<R>(|query| {
        query
            .response()
            .answer("@ 60 IN A 192.0.2.1")
            .additional("ns.example. 60 IN A 192.0.2.9")
            .edns(4096, false)
    });
    for reply in row.ask_twice(&a_query().edns(4096)) {
        assert_eq!((reply.opt_count, reply.opt_is_last, reply.additional.len()), (1, true, 1));
    }
}

pub fn b16_ad_only_for_those_who_asked<R: Runtime>() {
    let row = Row::start::<R>(something);
    for reply in row.ask_twice(&a_query()) {
        assert!(!reply.ad);
    }
    // DO asks for it too (RFC 6840 §5.8).
    for reply in row.ask_twice(&a_query().do_bit()) {
        assert!(reply.ad);
    }
    let distrusting = Row::with::<R>(something, |mut setup: Setup| {
        setup.config.trust_ad = false;
        setup
    });
    for reply in distrusting.ask_twice(&a_query().ad(true)) {
        assert!(!reply.ad, "trust_ad off");
    }
}

pub fn b17_aa_is_never_set<R: Runtime>() {
    // Also checked with every other answer of the suite.
    let row = Row::start::<R>(|query| something(query).aa());
    for reply in row.ask_twice(&a_query()) {
        assert!(!reply.aa);
    }
}

pub fn b18_ra_is_the_upstream_s<R: Runtime>() {
    for ra in [true, false] {
        let row = Row::start::<R>(move |query| something(query).ra(ra));
        for reply in row.ask_twice(&a_query()) {
            assert_eq!(reply.ra, ra);
        }
    }
}

pub fn b19_rd_is_echoed_on_a_hit<R: Runtime>() {
    let row = Row::start::<R>(something);
    row.bench.ask(&a_query());
    assert!(!row.bench.ask(&a_query().rd(false)).rd);
    assert_eq!(row.asked(), 1);
}

pub fn b19_r15_a_miss_without_rd_is_forwarded_so_and_not_kept<R: Runtime>() {
    let row = Row::start::<R>(something);
    row.expect_relayed(&a_query().rd(false));
    assert!(row.upstream.received().iter().all(|query| !query.rd));
    row.bench.ask(&a_query());
    assert_eq!(row.asked(), 3, "what came without RD is not the answer for RD");
}

pub fn b20_ids_are_the_client_s<R: Runtime>() {
    let row = Row::start::<R>(something);
    for id in [0, 1, 0x8000, 0xffff] {
        assert_eq!(row.bench.ask(&a_query().id(id)).id, id);
    }
    assert_eq!(row.asked(), 1);
}

pub fn b21_x5_spelling_is_the_client_s<R: Runtime>() {
    // Owners are pointers into the question, so a hit decodes to the spelling of whoever asks.
    let row = Row::start::<R>(|query| {
        let chain = ["@ 60 IN CNAME b.www.example.", "b.www.example. 60 IN A 192.0.2.1"];
        query.response().answer(chain[0]).answer(chain[1]).compress_all()
    });
    for name in ["www.example.", "wWw.eXaMpLe.", "WWW.EXAMPLE."] {
        let reply = row.bench.ask(&Query::new(name, "A"));
        assert_eq!(reply.question.as_ref().expect("a question").name, name);
        let lower: Vec<_> = reply.answer_lines().iter().map(|line| line.to_lowercase()).collect();
        assert_eq!(lower, ["www.example. cname b.www.example.", "b.www.example. a 192.0.2.1"]);
        assert_eq!(reply.answers[0].owner, name, "the owner is a pointer to the question");
    }
    assert_eq!(row.asked(), 1);
}

/// An option that the client sends reaches neither the upstream nor the client again.
fn option_is_dropped<R: Runtime>(code: u16, data: &[u8]) {
    let row = Row::start::<R>(something);
    for reply in row.ask_twice(&a_query().option(code, data)) {
        assert_eq!(reply.option(code), None, "option {code} comes back");
    }
    let upstream = row.upstream.received()[0].opt.clone().expect("an OPT of our own");
    assert!(upstream.options.is_empty(), "option {code} goes upstream");
    row.bench.ask(&a_query());
    assert_eq!(row.asked(), 1, "option {code} separates");
}

pub fn b22_l12_known_options_are_not_echoed<R: Runtime>() {
    for (code, data) in [(COOKIE, &b"12345678"[..]), (PADDING, &[0; 16]), (TCP_KEEPALIVE, &[])] {
        option_is_dropped::<R>(code, data);
    }
}

pub fn b23_unknown_options_are_not_echoed<R: Runtime>() {
    option_is_dropped::<R>(65_001, b"anything");
}

pub fn b24_client_subnets_are_stripped<R: Runtime>() {
    option_is_dropped::<R>(CLIENT_SUBNET, &[0, 1, 8, 0, 10]);
}

pub fn b24_r13_an_answer_for_a_subnet_is_not_kept<R: Runtime>() {
    // We sent no subnet; an upstream that scopes its answer anyway made it for this client alone.
    let row = Row::start::<R>(|query| something(query).option(CLIENT_SUBNET, [0, 1, 8, 8, 10]));
    row.expect_relayed(&a_query());
}
