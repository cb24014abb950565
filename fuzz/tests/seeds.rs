//! The corpora's first files, written by hand through the test kit's encoder: each is a case with a name.
//!
//! `NODENS_BLESS=1` writes them anew. What fuzzers found stands beside them under a hash.

use nodens_testkit::{Query, Response};
use std::fs;
use std::path::Path;

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn query(name: &str, qtype: &str) -> Query {
    Query::new(name, qtype).id(0x1234)
}

fn queries() -> Seeds {
    let plain = query("www.Example.", "A");
    vec![
        ("plain", plain.bytes()),
        ("root-ns", query(".", "NS").bytes()),
        ("edns-do", plain.clone().edns(4096).do_bit().bytes()),
        (
            "edns-small-options",
            plain.clone().edns(1).option(10, [7; 8]).option(8, [0, 1, 24, 0, 192, 0, 2]).bytes(),
        ),
        ("edns-version-1", plain.clone().edns_version(1).bytes()),
        ("two-opts", plain.clone().two_opts().bytes()),
        ("no-rd-cd-ad", plain.clone().rd(false).cd(true).ad(true).bytes()),
        ("response", plain.clone().qr(true).bytes()),
        ("notify", plain.clone().opcode(4).bytes()),
        ("chaos", query("version.bind.", "TXT").class(3).bytes()),
        ("axfr", query("example.", "AXFR").bytes()),
        ("refused-zone", query("a.Refused.", "AAAA").edns(1232).bytes()),
        ("refused-zone-ds", query("refused.", "DS").bytes()),
        ("two-questions", plain.clone().claimed_qdcount(2).bytes()),
        ("tsig", plain.clone().additional("key. 0 IN TYPE250 \\# 2 0000").bytes()),
        ("ixfr-soa", plain.clone().authority("example. 1 IN SOA a. b. 1 2 3 4 5").edns(1232).bytes()),
        ("trailing", plain.trailing(&[0xff; 20]).bytes()),
        ("longest-name", query(&["a"; 127].join("."), "TYPE65280").bytes()),
    ]
}

/// A response behind the byte that chooses transport and client: see the constants of `response_bytes`.
fn response(choices: u8, response: &Response) -> Vec<u8> {
    [&[choices], &response.bytes()[..]].concat()
}

fn responses() -> Seeds {
    const SOA: &str = "ns.example. host.example. 1 2 3 4 60";
    let to = |name: &str, qtype: &str| Response::to(&query(name, qtype).bytes());
    let answer = to("www.Example.", "A").answer("@ 300 IN A 192.0.2.1");
    let empty = to("www.example.", "A");
    let soa = format!("example. 30 IN SOA {SOA}");
    let chain = to("a.example.", "AAAA")
        .answer("@ 60 IN CNAME b.example.")
        .answer("b.example. 30 IN CNAME c.example.")
        .answer("c.example. 20 IN AAAA 2001:db8::1")
        .authority("example. 10 IN NS ns.example.")
        .additional("ns.example. 5 IN A 192.0.2.53")
        .compress_all();
    let srv = to("_dns._udp.example.", "SRV").answer("@ 30 IN SRV 1 2 53 ns.example.").edns(4096, true);
    let many = (1..100).fold(to("many.example.", "A"), |r, n| r.answer(&format!("@ {n} IN A 192.0.2.{n}")));
    let signature = "@ 300 IN TYPE46 \\# 22 00010d0200000000ffffffff00000000123400000000";
    let opt_between = {
        let mut bytes = answer.clone().edns(1232, false).ede(22).bytes();
        // One more additional record behind the OPT, whose owner is read from the first.
        bytes[11] = 2;
        bytes.extend(b"\x02ns\xc0\x10\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xc0\x00\x02\x01");
        [&[0x04], &bytes[..]].concat()
    };
    vec![
        ("answer", response(0x00, &answer)),
        ("answer-tcp-do", response(0x8d, &answer.clone().ad(true).edns(1232, true))),
        ("no-recursion-cd", response(0x34, &answer)),
        ("wrong-id", response(0x02, &answer)),
        ("wrong-id-tcp", response(0x03, &answer)),
        ("wrong-question", response(0x40, &answer)),
        ("chain", response(0x04, &chain)),
        ("chain-no-compression", response(0x00, &chain.clone().no_compression())),
        ("nxdomain", response(0x04, &empty.clone().rcode(3).authority(&soa))),
        (
            "nxdomain-minimum",
            response(0x00, &empty.clone().rcode(3).authority("example. 300 IN SOA a. b. 1 2 3 4 7")),
        ),
        ("nodata-minimum", response(0x00, &empty.clone().authority("example. 300 IN SOA a. b. 1 2 3 4 7"))),
        ("ad-unasked", response(0x04, &answer.clone().ad(true))),
        ("ttl-above-the-cap", response(0x00, &empty.clone().answer("@ 86400 IN A 192.0.2.1"))),
        ("nxdomain-without-soa", response(0x00, &empty.clone().rcode(3))),
        (
            "nxdomain-foreign-soa",
            response(0x00, &empty.clone().rcode(3).authority(&format!("x.org. 30 IN SOA {SOA}"))),
        ),
        (
            "nxdomain-behind-a-chain",
            response(
                0x04,
                &empty
                    .clone()
                    .rcode(3)
                    .answer("@ 9 IN CNAME b.test.")
                    .authority(&format!("test. 30 IN SOA {SOA}")),
            ),
        ),
        ("nodata", response(0x00, &empty.clone().authority(&soa))),
        ("nodata-without-soa", response(0x00, &empty)),
        ("referral", response(0x00, &empty.clone().authority("example. 30 IN NS ns.example."))),
        ("servfail-ede", response(0x04, &empty.clone().rcode(2).ede(22))),
        ("refused", response(0x00, &empty.clone().rcode(5))),
        ("formerr", response(0x04, &empty.clone().rcode(1))),
        ("badcookie", response(0x00, &empty.clone().edns(1232, false).rcode(23))),
        ("truncated", response(0x00, &answer.clone().tc())),
        ("truncated-tcp", response(0x01, &answer.clone().tc())),
        ("srv-do", response(0x0c, &srv)),
        ("signed", response(0x0c, &answer.clone().answer(signature).edns(1232, true))),
        ("many", response(0x00, &many)),
        ("many-tcp", response(0x80, &many.clone().compress_all())),
        ("scoped", response(0x04, &answer.clone().option(8, [0, 1, 24, 24, 192, 0, 2]))),
        ("ttl-top-bit", response(0x00, &empty.clone().answer("@ 4294967295 IN A 192.0.2.1"))),
        ("ttl-zero", response(0x00, &empty.clone().answer("@ 0 IN A 192.0.2.1"))),
        ("other-class", response(0x00, &empty.clone().answer("@ 9 CH A 192.0.2.1"))),
        ("counts-lie", response(0x00, &answer.clone().claimed_ancount(2))),
        ("opt-before-the-last", opt_between),
        ("opt-version-1", response(0x04, &answer.clone().edns_version(1))),
        ("trailing", response(0x01, &answer.trailing(&[7; 9]))),
    ]
}

/// A message behind the bytes that choose the client: see `cached_answer`.
fn served(choices: u8, flags: u16, size: u16, ttl_s: u16, message: &[u8]) -> Vec<u8> {
    let [f, s, t] = [flags, size, ttl_s].map(u16::to_be_bytes);
    [&[choices, f[0], f[1], s[0], s[1], t[0], t[1], 0x55], message].concat()
}

/// Bytes for a target that takes them for decisions.
fn decisions(step: u8, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n as u8).wrapping_mul(step).wrapping_add((n >> 8) as u8)).collect()
}

fn histories() -> Seeds {
    // A calm configuration: no tight limits, two upstreams, the defaults of everything else.
    const CALM: [u8; 40] = [0; 40];
    let story = |steps: &[u8]| [&CALM[..], steps].concat();
    vec![
        ("nothing", vec![]),
        ("one-good-answer", story(&[0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 1])),
        ("answer-then-hit", story(&[0, 0, 0, 1, 0, 1, 4, 0, 0, 0, 1, 0, 2, 0, 1, 0, 1])),
        ("nobody-answers", story(&[0, 0, 0, 0, 0, 1, 14, 1, 14, 1, 14, 1, 14, 1, 12, 4, 9, 1])),
        ("hurried", decisions(7, 300)),
        ("tight", [&[2, 0x3f, 3, 2, 2, 1, 1, 3][..], &decisions(11, 400)].concat()),
        ("stormy", decisions(13, 700)),
        ("long", decisions(37, 1500)),
        ("longer", decisions(101, 2500)),
        ("tcp", [&[1, 0, 0x83, 0, 2, 0, 0, 0, 0, 0, 0x83, 0, 2][..], &decisions(29, 900)].concat()),
        ("reloads", (0..600).map(|n: usize| if n % 31 == 30 { 15 } else { (n * 17) as u8 }).collect()),
    ]
}

fn cached_answers() -> Seeds {
    const EDNS: u8 = 0x02;
    const DO: u8 = 0x04;
    const TCP: u8 = 0x08;
    const TRUST_AD: u8 = 0x10;
    const VERBATIM: u8 = 0x20;
    const BUILT: u8 = 0x01;
    let mut seeds: Seeds = Vec::new();
    // Upstream messages of the other target, to clients that differ.
    for (n, (name, bytes)) in responses().into_iter().enumerate() {
        let choices = [0, EDNS, EDNS | DO | TRUST_AD, TCP, VERBATIM | EDNS, TCP | TRUST_AD][n % 6];
        if ["chain", "many", "srv-do", "signed", "opt-before-the-last", "badcookie", "servfail-ede", "nodata"]
            .contains(&name)
        {
            seeds.push((name, served(choices, 0x0130, 512, 7, &bytes[1..])));
        }
    }
    let decisions =
        |step: u8, len: usize| (0..len).map(|n| (n as u8).wrapping_mul(step)).collect::<Vec<u8>>();
    seeds.push(("built-nothing", served(BUILT, 0, 512, 30, &[])));
    let signed = [&[0, 0x20][..], &decisions(7, 60)].concat();
    seeds.push(("built-ad-unasked", served(BUILT | EDNS | TRUST_AD, 0x0100, 1232, 30, &signed)));
    seeds.push(("built-ad-asked", served(BUILT | TRUST_AD, 0x0120, 1232, 30, &signed)));
    seeds.push(("built-small", served(BUILT | EDNS, 0x0100, 1232, 30, &decisions(7, 80))));
    seeds.push(("built-large", served(BUILT | DO | EDNS, 0x0120, 512, 30, &decisions(13, 900))));
    seeds.push(("built-large-tcp", served(BUILT | TCP, 0x0100, 512, 0, &decisions(29, 1500))));
    seeds
}

fn stream(pieces: &[u8], messages: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![pieces.len() as u8];
    bytes.extend(pieces);
    for message in messages {
        bytes.extend((message.len() as u16).to_be_bytes());
        bytes.extend(*message);
    }
    bytes
}

fn streams() -> Seeds {
    let (short, long) = ([1; 12], [2; 700]);
    let mut cut = stream(&[3], &[&short, &long]);
    cut.truncate(40);
    vec![
        ("nothing", vec![0]),
        ("one", stream(&[], &[&short])),
        ("byte-by-byte", stream(&[1], &[&short, &short])),
        ("length-cut", stream(&[1, 13], &[&short, &short])),
        ("two-in-one-read", stream(&[28], &[&short, &short])),
        ("long-in-uneven-pieces", stream(&[7, 200, 1], &[&short, &long, &short])),
        ("no-progress-reads", stream(&[0, 5, 0], &[&short])),
        ("cut-off", cut),
        ("length-without-a-header", stream(&[2], &[&short, &[9; 11], &short])),
        ("length-zero", stream(&[], &[&short, &[], &short])),
        ("largest-length", [&[2, 255, 255, 255, 255][..], &[3; 300]].concat()),
    ]
}

fn check(target: &str, seeds: Seeds) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    for (name, bytes) in seeds {
        let path = folder.join(name);
        if std::env::var_os("NODENS_BLESS").is_some() {
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(&path, &bytes).expect("a file");
        }
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(found == bytes, "{} is another; NODENS_BLESS=1 writes it anew", path.display());
    }
}

#[test]
fn the_corpora_hold_the_cases_that_are_known_by_name() {
    check("cached_answer", cached_answers());
    check("query_bytes", queries());
    check("response_bytes", responses());
    check("stream_bytes", streams());
    check("transitions", histories());
}
