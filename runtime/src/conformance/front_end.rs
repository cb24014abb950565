//! Rows L: what comes from clients, good and bad, and what each of it is answered with (semantics.md §1.8 L).
//!
//! Bad input never ends a worker, never holds up the next query, and gets the answer the protocol has for it, or none.
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::{Bench, PATIENCE, Row, Setup, check_frame};
use crate::clients::CloseReason;
use crate::worker::Runtime;
use nodens_core::DropReason;
use nodens_testkit::msg::Rr;
use nodens_testkit::msg::rcode::{BADVERS, FORMERR, NOERROR, NOTIMP, REFUSED, SERVFAIL};
use nodens_testkit::{Query, Received, Reply, Response, UdpClient};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

fn address(query: &Received) -> Response {
    query.response().answer("@ 60 IN A 192.0.2.1")
}

fn a_query() -> Query {
    Query::new("www.example.", "A")
}

/// These bytes are answered with this RCODE over UDP and over TCP, and nothing goes upstream.
fn answered_with<R: Runtime>(bytes: &[u8], rcode: u16) -> [Reply; 2] {
    let row = Row::start::<R>(address);
    let udp = row.bench.send_raw(bytes).expect("an answer over UDP");
    let tcp = row.bench.tcp().ask(bytes, PATIENCE).expect("an answer over TCP");
    for reply in [&udp, &tcp] {
        assert_eq!((reply.rcode, reply.qr, reply.tc), (rcode, true, false));
        assert_eq!(reply.id.to_be_bytes(), bytes[..2]);
        assert!(reply.answers.is_empty() && !reply.aa && !reply.ad);
    }
    assert_eq!(row.asked(), 0);
    still_serves(&row);
    [udp, tcp]
}

fn still_serves(row: &Row) {
    assert_eq!(row.bench.ask(&Query::new("after.example.", "A")).answers.len(), 1);
}

/// These bytes get no answer, are counted under `reason`, and disturb nobody.
fn silence_for<R: Runtime>(bytes: &[u8], reason: DropReason) {
    let row = Row::start::<R>(address);
    assert!(row.bench.is_silent_on(bytes));
    assert_eq!(row.bench.sum(|stats| &stats.dropped[reason as usize]), 1);
    assert_eq!(row.asked(), 1, "only the query behind them went upstream");
}

pub fn l01_thirty_addresses_fit_into_512_bytes<R: Runtime>() {
    // As they came from the upstream: every owner is a pointer to the question.
    let row = Row::start::<R>(|query| {
        (0..30).fold(query.response(), |r, n| r.answer(&format!("@ 60 IN A 192.0.2.{n}")))
    });
    for reply in row.ask_twice(&Query::new("a.example.", "A")) {
        assert_eq!((reply.tc, reply.answers.len()), (false, 30));
        assert!(reply.raw_len <= 512);
        let pointers = reply.raw.windows(2).filter(|bytes| *bytes == [0xc0, 0x0c]).count();
        assert_eq!(pointers, 30);
    }
}

pub fn l14_a_plain_query_is_answered<R: Runtime>() {
    let row = Row::start::<R>(address);
    let reply = row.bench.ask(&a_query());
    assert_eq!((reply.rcode, reply.answer_lines()), (NOERROR, vec!["www.example. A 192.0.2.1".to_owned()]));
    assert_eq!(row.bench.ask_tcp(&a_query()).answer_lines(), reply.answer_lines());
}

pub fn l13_edns_version_1_is_badvers<R: Runtime>() {
    for version in [1, 2, 255] {
        for reply in answered_with::<R>(&a_query().edns_version(version).bytes(), BADVERS) {
            let opt = reply.opt.expect("BADVERS lives in the OPT");
            assert_eq!(opt.version, 0, "the version we speak");
            assert_eq!(reply.question.expect("the question").name, "www.example.");
        }
    }
}

pub fn l16_a_zone_without_forward_is_refused<R: Runtime>() {
    let row = Row::with::<R>(address, |mut setup: Setup| {
        setup.config.zones[0].forward = None;
        setup
    });
    assert_eq!(row.bench.ask(&a_query()).rcode, REFUSED);
    assert_eq!(row.asked(), 0);
}

pub fn l18_a_name_outside_all_zones_is_refused<R: Runtime>() {
    let row = Row::with::<R>(address, |mut setup: Setup| {
        let apex = nodens_core::wire::Name::parse("cluster.local.").expect("a name");
        setup.config.listeners[0].routes[0].apex = apex;
        setup
    });
    assert_eq!(row.bench.ask(&a_query()).rcode, REFUSED);
    assert_eq!(row.bench.ask(&Query::new("x.cluster.local.", "A")).rcode, NOERROR);
    assert_eq!(row.asked(), 1);
    // The place behind the last route is for names that no zone matches: zone label `dropped`.
    assert_eq!(row.bench.sum(|stats| &stats.routes[0][1].responses[usize::from(REFUSED)]), 1);
}

pub fn l19_chaos_is_refused<R: Runtime>() {
    answered_with::<R>(&Query::new("version.bind.", "TXT").class(3).bytes(), REFUSED);
}

pub fn l20_no_question_is_formerr<R: Runtime>() {
    answered_with::<R>(&a_query().qdcount(0).bytes(), FORMERR);
}

pub fn l20_two_questions_are_formerr<R: Runtime>() {
    answered_with::<R>(&a_query().qdcount(2).bytes(), FORMERR);
    answered_with::<R>(&a_query().claimed_qdcount(2).bytes(), FORMERR);
}

pub fn l20_a_question_that_is_not_there_is_formerr<R: Runtime>() {
    answered_with::<R>(&a_query().qdcount(0).claimed_qdcount(1).bytes(), FORMERR);
}

pub fn l21_all_other_opcodes_are_notimp<R: Runtime>() {
    let row = Row::start::<R>(address);
    for opcode in 1..16 {
        let query = a_query().opcode(opcode).bytes();
        for reply in [row.bench.send_raw(&query), row.bench.tcp().ask(&query, PATIENCE)] {
            let reply = reply.expect("an answer");
            assert_eq!((reply.rcode, reply.opcode, reply.qr), (NOTIMP, opcode, true));
        }
    }
    assert_eq!(row.asked(), 0);
    still_serves(&row);
}

pub fn l22_a_response_is_met_with_silence<R: Runtime>() {
    silence_for::<R>(&a_query().qr(true).bytes(), DropReason::Response);
}

pub fn l22_eleven_bytes_are_met_with_silence<R: Runtime>() {
    silence_for::<R>(&a_query().bytes()[..11], DropReason::Short);
}

pub fn l22_a_response_with_another_opcode_is_met_with_silence<R: Runtime>() {
    silence_for::<R>(&a_query().qr(true).opcode(5).bytes(), DropReason::Response);
}

pub fn l22_our_own_answer_sent_back_is_met_with_silence<R: Runtime>() {
    // Two servers that answer each other's answers would never stop (RUSTSEC-2023-0041).
    let row = Row::start::<R>(address);
    for query in [a_query(), a_query().opcode(2), a_query().qdcount(0)] {
        let answer = row.bench.send_raw(&query.bytes()).expect("an answer").raw;
        assert!(row.bench.is_silent_on(&answer));
    }
    assert_eq!(row.bench.sum(|stats| &stats.dropped[DropReason::Response as usize]), 3);
}

pub fn l23_two_opts_are_formerr<R: Runtime>() {
    answered_with::<R>(&a_query().edns(1232).two_opts().bytes(), FORMERR);
}

pub fn l23_an_opt_that_is_not_the_root_s_is_formerr<R: Runtime>() {
    answered_with::<R>(&a_query().edns(1232).opt_owner("example.").bytes(), FORMERR);
}

/// A query of this length, padded with an option, is answered like any other.
fn long_query<R: Runtime>(len: usize) {
    let row = Row::start::<R>(address);
    let query = a_query().edns(1232).pad_to(len);
    assert_eq!(query.bytes().len(), len);
    assert_eq!(row.bench.ask(&query).answers.len(), 1);
    assert_eq!(row.bench.ask_tcp(&query).answers.len(), 1);
    assert_eq!(row.asked(), 1);
    assert!(row.upstream.received()[0].bytes.len() < 100, "the padding stays here");
}

pub fn l24_a_query_of_700_bytes_is_answered<R: Runtime>() {
    long_query::<R>(700);
}

pub fn l24_a_query_of_4096_bytes_is_answered<R: Runtime>() {
    long_query::<R>(4096);
}

/// Asked at another address than the one it listens on, it answers from there: at once, and when the answer comes later.
fn answers_from<R: Runtime>(listen: IpAddr, ask: IpAddr, client: IpAddr) {
    let row = Row::with::<R>(address, |mut setup: Setup| {
        setup.address = SocketAddr::new(listen, 0);
        setup
    });
    let server = SocketAddr::new(ask, row.bench.addr.port());
    for kind in ["a miss", "a hit"] {
        let socket = UdpClient::bind(SocketAddr::new(client, 0));
        let query = a_query().bytes();
        socket.send(server, &query);
        let (reply, from) = socket.recv(PATIENCE).unwrap_or_else(|| panic!("{kind} is answered"));
        assert_eq!(from, server, "{kind}");
        check_frame(&query, &Reply::parse(&reply));
        // A client that is connected would not even see an answer from elsewhere, so errors count as well.
        assert_eq!(Reply::parse(&reply).answers.len(), 1);
    }
    assert_eq!(row.asked(), 1);
}

pub fn l26_wildcard_socket_answers_from_the_address_asked<R: Runtime>() {
    let any = Ipv4Addr::UNSPECIFIED.into();
    for asked in [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 9, 8, 7), Ipv4Addr::LOCALHOST] {
        answers_from::<R>(any, asked.into(), Ipv4Addr::LOCALHOST.into());
    }
}

pub fn l26_wildcard_socket_answers_from_the_address_asked_over_ipv6<R: Runtime>() {
    let here = Ipv6Addr::LOCALHOST.into();
    answers_from::<R>(Ipv6Addr::UNSPECIFIED.into(), here, here);
}

/// Garbage of many kinds; each is answered with an error or not at all, and none of it goes upstream.
fn garbage() -> Vec<Vec<u8>> {
    let header = |counts: [u8; 8]| [&[0xab, 0xcd, 1, 0][..], &counts].concat();
    let one = header([0, 1, 0, 0, 0, 0, 0, 0]);
    let with = |tail: &[u8]| [&one[..], tail].concat();
    let mut all = vec![
        vec![],
        vec![0],
        vec![0xff; 12],
        vec![0; 12],
        vec![0xff; 512],
        vec![0; 4096],
        header([0xff; 8]),
        // A name that is cut off, a label that is, a label type that is none.
        with(b"\x03www"),
        with(b"\x3f"),
        with(b"\x40a\x00\x00\x01\x00\x01"),
        with(b"\x80a\x00\x00\x01\x00\x01"),
        // A name without an end, one of 256 bytes, a question that is cut off.
        with(&[1; 500]),
        with(&[&b"\x01a".repeat(127)[..], b"\x01a\x00\x00\x01\x00\x01"].concat()),
        with(b"\x01a\x00\x00\x01\x00"),
        // Pointers: to itself, to a later place, to a loop of two, into the header, without their second byte.
        with(b"\xc0\x0c\x00\x01\x00\x01"),
        with(b"\xc0\x0e\x00\x01\x00\x01"),
        with(b"\x01a\xc0\x0c\x00\x01\x00\x01"),
        with(b"\xc0\x0e\xc0\x0c\x00\x01\x00\x01"),
        with(b"\xc0\x00\x00\x01\x00\x01"),
        with(b"\xc0"),
        // An OPT whose length lies, an extra record whose owner points to itself.
        [
            &header([0, 1, 0, 0, 0, 0, 0, 1])[..],
            b"\x01a\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\0\0\0\0\xff\xff",
        ]
        .concat(),
        [
            &header([0, 1, 0, 0, 0, 0, 0, 1])[..],
            b"\x01a\x00\x00\x01\x00\x01\xc0\x13\x00\x01\x00\x01\0\0\0\0\0\0",
        ]
        .concat(),
    ];
    // Bytes from a small generator of its own, so that every run sends the same.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for len in 1..200 {
        let bytes = (0..len).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        let mut bytes: Vec<u8> = bytes.collect();
        // As a query of opcode 0 with one question it gets further than as plain noise.
        if len >= 12 && len % 2 == 0 {
            bytes[2..6].copy_from_slice(&[1, 0, 0, 1]);
            bytes[6..12].fill(0);
        }
        all.push(bytes);
    }
    all
}

/// Every answer to garbage is an error.
fn check_garbage_answer(sent: &[u8], reply: &[u8]) {
    let reply = Reply::parse(reply);
    assert_eq!(reply.id.to_be_bytes(), sent[..2]);
    assert!(reply.qr && reply.answers.is_empty());
    // Noise may happen to be a readable query of a type or class that is refused, or to name a future EDNS version.
    let expected = [FORMERR, NOTIMP, REFUSED, BADVERS].contains(&reply.rcode);
    assert!(expected, "{} for {sent:02x?}", reply.rcode);
}

pub fn bad_input_over_udp_is_answered_with_errors_and_harms_nobody<R: Runtime>() {
    let row = Row::start::<R>(address);
    let client = UdpClient::new();
    for (n, bytes) in garbage().iter().enumerate() {
        client.send(row.bench.addr, bytes);
        let probe = a_query().id(0x7000 + n as u16).bytes();
        client.send(row.bench.addr, &probe);
        loop {
            let (reply, _) = client.recv(PATIENCE).unwrap_or_else(|| panic!("dead after {bytes:02x?}"));
            if reply[..2] == probe[..2] {
                break;
            }
            check_garbage_answer(bytes, &reply);
        }
    }
    assert_eq!(row.asked(), 1, "nothing but the honest question went upstream");
}

pub fn bad_input_over_tcp_is_answered_with_errors_and_harms_nobody<R: Runtime>() {
    const HEADER_LEN: usize = 12;
    let row = Row::start::<R>(address);
    let probe = a_query().id(0x7001).bytes();
    row.bench.ask(&a_query());
    let (mut answered, mut long) = (0, 0);
    let all = garbage();
    for bytes in &all {
        let mut client = row.bench.tcp();
        client.send_framed(bytes).expect("sent");
        if bytes.len() < HEADER_LEN {
            // No message at all: the stream means nothing from here on.
            assert!(client.recv_eof(PATIENCE), "{bytes:02x?}");
            continue;
        }
        long += 1;
        client.send_framed(&probe).expect("sent");
        loop {
            let reply = client.recv_framed(PATIENCE);
            let reply = reply.unwrap_or_else(|| panic!("the honest query behind {bytes:02x?} has no answer"));
            if reply[..2] == probe[..2] {
                break;
            }
            check_garbage_answer(bytes, &reply);
            answered += 1;
        }
    }
    let dropped = row.bench.sum(|stats| &stats.dropped[DropReason::Response as usize]);
    assert_eq!(answered + dropped, long, "each is answered, or is a response");
    assert!(answered > 50, "{answered}");
    let ended = |bench: &Bench| -> u64 {
        let vitals = bench.running().workers.iter().map(|worker| &worker.vitals);
        vitals.map(|vitals| vitals.connections_closed[CloseReason::BadFraming as usize].get()).sum()
    };
    row.bench.wait_for("the short ones are counted", |bench| ended(bench) == all.len() as u64 - long);
    assert_eq!(row.asked(), 1, "nothing but the honest question went upstream");
    still_serves(&row);
}

pub fn x4_the_size_of_each_client_decides_about_truncation<R: Runtime>() {
    let row = Row::start::<R>(|query| {
        (0..40).fold(query.response(), |r, n| r.answer(&format!("@ 60 IN A 192.0.2.{n}")))
    });
    let large = row.bench.ask(&a_query().edns(1232));
    assert_eq!((large.tc, large.answers.len()), (false, 40));
    let small = row.bench.ask(&a_query().edns(512));
    assert!(small.tc && small.raw_len <= 512 && (1..40).contains(&small.answers.len()));
    let plain = row.bench.ask(&a_query());
    assert!(plain.tc && plain.raw_len <= 512);
    assert_eq!(row.asked(), 1, "one entry for all of them");
    // RFC 6891 §6.2.3: a size below 512 means 512.
    assert_eq!(row.bench.ask(&a_query().edns(100)).answers.len(), small.answers.len());
}

/// Records of many kinds in all sections, about 3 KiB.
fn mixed(query: &Received) -> Response {
    let mut response = query.response();
    for n in 0..61 {
        response = response.answer(&format!("@ 60 IN SRV 10 {n} 8080 pod-{n}.svc.cluster.local."));
    }
    for n in 0..5 {
        response = response
            .authority(&format!("example. 60 IN NS ns{n}.example."))
            .additional(&format!("ns{n}.example. 60 IN A 192.0.2.{n}"));
    }
    response
}

fn check_truncated(reply: &Reply, whole: &Reply, size: u16) {
    assert!(reply.raw_len <= usize::from(size.clamp(512, 1232)), "{} bytes for {size}", reply.raw_len);
    let lines = |reply: &Reply, n: usize| {
        [&reply.answers, &reply.authority, &reply.additional][n].iter().map(Rr::line).collect::<Vec<_>>()
    };
    let mut missing = false;
    for section in 0..3 {
        let (kept, all) = (lines(reply, section), lines(whole, section));
        assert!(!missing || kept.is_empty(), "records go from the end");
        assert_eq!(kept[..], all[..kept.len()], "what is left is a beginning of what there was");
        missing |= kept.len() < all.len();
    }
    let needed = reply.answers.len() < whole.answers.len() || reply.authority.len() < whole.authority.len();
    assert_eq!(reply.tc, needed, "RFC 2181 §9: TC for what is missing of answer and authority");
}

/// For every size of client: no larger than that, whole records, TC if something needed is missing.
fn truncation<R: Runtime>(respond: fn(&Received) -> Response, edns: bool) {
    let row = Row::start::<R>(respond);
    let whole = row.bench.ask_tcp(&Query::new("www.example.", "SRV"));
    assert!(!whole.tc && whole.raw_len > 512);
    let client = UdpClient::new();
    let mut last = 0;
    for size in (512..=1232).step_by(3).chain([0, 511, 4096, 65_535]) {
        let query = Query::new("www.example.", "SRV");
        let query = if edns { query.edns(size) } else { query };
        let reply = row.bench.ask_from(&client, &query, PATIENCE).expect("an answer");
        check_truncated(&reply, &whole, if edns { size } else { 512 });
        if (512..=1232).contains(&size) {
            assert!(reply.answers.len() >= last, "more room holds no less");
            last = reply.answers.len();
        }
    }
    assert_eq!(row.asked(), 1);
}

pub fn l02_l05_l06_truncation_fits_every_size<R: Runtime>() {
    truncation::<R>(mixed, true);
}

pub fn l02_without_edns_512_bytes_are_the_limit<R: Runtime>() {
    truncation::<R>(mixed, false);
}

pub fn l03_rfc2181_9_additional_data_may_be_missing_without_tc<R: Runtime>() {
    truncation::<R>(
        |query| {
            (0..40).fold(query.response().answer("@ 60 IN SRV 1 1 1 a.example."), |response, n| {
                response.additional(&format!("a.example. 60 IN A 192.0.2.{n}"))
            })
        },
        true,
    );
}

pub fn l04_our_maximum_holds_for_a_client_that_takes_more<R: Runtime>() {
    let row = Row::start::<R>(|query| {
        (0..199).fold(query.response().answer("@ 60 IN SRV 1 1 1 a.example."), |response, n| {
            response.additional(&format!("s{n}.example. 60 IN SRV 1 1 1 a.example."))
        })
    });
    let reply = row.bench.ask(&Query::new("www.example.", "SRV").edns(4096));
    assert!(reply.raw_len <= 1232, "{} bytes", reply.raw_len);
    assert_eq!((reply.tc, reply.answers.len()), (false, 1), "only additional data is missing");
    assert!(reply.additional.len() > 10);
}

pub fn l07_an_answer_that_fits_exactly_is_whole<R: Runtime>() {
    let row = Row::start::<R>(|query| {
        (0..50).fold(query.response(), |r, n| r.answer(&format!("@ 60 IN A 192.0.2.{n}")))
    });
    let whole = row.bench.ask(&a_query().edns(1232));
    assert_eq!((whole.tc, whole.answers.len()), (false, 50));
    let len = whole.raw_len as u16;
    let exact = row.bench.ask(&a_query().edns(len));
    assert_eq!((exact.tc, exact.raw_len), (false, whole.raw_len));
    let short = row.bench.ask(&a_query().edns(len - 1));
    assert_eq!((short.tc, short.answers.len()), (true, 49));
}

pub fn g22_r6_an_extended_rcode_is_servfail_without_edns<R: Runtime>() {
    // BADCOOKIE from an upstream, which takes an OPT to say.
    let row = Row::start::<R>(|query| query.response().edns(1232, false).rcode(23));
    assert_eq!(row.bench.ask(&a_query().edns(1232)).rcode, 23);
    assert_eq!(row.bench.ask(&a_query()).rcode, SERVFAIL);
}

/// Queries that a server may meet and must not stumble over: they are ordinary questions.
pub fn odd_but_legal_questions_are_forwarded<R: Runtime>() {
    let row = Row::start::<R>(Received::response);
    let longest = format!("{}.{}.{}.{}.", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    let names = [".", "\\000.example.", "a\\.b.example.", "*.example.", "_sip._tcp.example.", &longest];
    for name in names {
        let reply = row.bench.ask(&Query::new(name, "TYPE65280"));
        assert_eq!((reply.rcode, reply.question.expect("a question").name.as_str()), (NOERROR, name));
    }
    assert_eq!(row.asked(), names.len() as u64);
    let trailing = row.bench.ask(&Query::new("b.example.", "A").trailing(b"more"));
    assert_eq!(trailing.rcode, NOERROR);
}

/// Both transports answer a question that was asked over the other one before.
pub fn udp_and_tcp_share_the_cache<R: Runtime>() {
    let row = Row::start::<R>(address);
    row.bench.ask(&a_query());
    assert_eq!(row.bench.ask_tcp(&a_query()).answers.len(), 1);
    row.bench.ask_tcp(&Query::new("b.example.", "A"));
    assert_eq!(row.bench.ask(&Query::new("b.example.", "A")).answers.len(), 1);
    assert_eq!(row.asked(), 2);
}
