//! The real binary in front of a real authoritative server (NSD or Knot): what the authority says is what clients get, over UDP
//! and TCP, from the upstream and from the cache, and from the cache alone once the authority is gone.

mod support;

use std::time::{Duration, Instant};

use nodens_testkit::msg::Rr;
use nodens_testkit::msg::rcode::{NOERROR, NXDOMAIN};
use nodens_testkit::real::{BIG_ADDRESSES, SAMPLE_NEGATIVE_TTL, Zone};
use nodens_testkit::{Query, RealAuthority, Reply, ask_tcp, ask_udp, sample_zone};

use support::Agent;

/// Name, type and what the answer section says.
const QUESTIONS: [(&str, &str, &[&str]); 8] = [
    ("host.example.com.", "A", &["192.0.2.80"]),
    ("host.example.com.", "AAAA", &["2001:db8::80"]),
    ("_http._tcp.web.default.svc.cluster.local.", "SRV", &["0 100 80 web.default.svc.cluster.local."]),
    ("1.0.96.10.in-addr.arpa.", "PTR", &["kubernetes.default.svc.cluster.local."]),
    ("example.com.", "MX", &["10 mail.example.com."]),
    ("example.com.", "TXT", &["\"v=spf1 -all\" \"second string\""]),
    ("www.example.com.", "A", &["192.0.2.80"]),
    ("db.prod.svc.cluster.local.", "A", &["10.244.1.11", "10.244.2.12", "10.244.3.13"]),
];

/// The sample zones, with TTLs in the cluster that outlast a slow test.
fn zones() -> Vec<Zone> {
    let longer = |zone: Zone| Zone { text: zone.text.replace(" 5 IN ", " 60 IN "), ..zone };
    sample_zone().into_iter().map(longer).collect()
}

fn query(name: &str, qtype: &str) -> Query {
    Query::new(name, qtype).edns(1232)
}

/// What of an answer must not depend on who gives it. Records of one RRset may come in any order.
fn essence(reply: &Reply) -> (u16, Vec<String>, Vec<String>) {
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let soa = reply.authority.iter().filter(|_| reply.answers.is_empty()).map(Rr::line).collect();
    (reply.rcode, sorted(reply.answer_lines()), sorted(soa))
}

#[test]
fn every_type_over_udp_and_tcp_then_from_the_cache_then_without_the_authority() {
    let Some(mut authority) = RealAuthority::start_or_skip(&zones()) else { return };
    let agent = Agent::before(authority.addr());
    let mut first = Vec::new();
    for (name, qtype, data) in QUESTIONS {
        let query = query(name, qtype);
        let direct = ask_udp(authority.addr(), &query.bytes()).expect("the authority answers");
        let (udp, tcp) = (agent.udp(&query), agent.tcp(&query));
        for reply in [&udp, &tcp] {
            let mut found = reply.rdatas(qtype);
            found.sort_unstable();
            assert_eq!(found, data, "{name} {qtype}");
            assert_eq!(essence(reply), essence(&direct), "{name} {qtype}");
            assert!(reply.qr && reply.rd && !reply.aa && !reply.tc, "{reply:?}");
        }
        first.push((query, udp, Instant::now()));
    }
    let chain = agent.udp(&query("www.example.com.", "A"));
    assert_eq!(
        chain.answer_lines(),
        [
            "www.example.com. CNAME web.example.com.",
            "web.example.com. CNAME host.example.com.",
            "host.example.com. A 192.0.2.80"
        ],
        "a chain keeps its order"
    );
    for (name, qtype, rcode) in
        [("gone.example.com.", "A", NXDOMAIN), ("v4only.example.com.", "AAAA", NOERROR)]
    {
        let reply = agent.udp(&query(name, qtype));
        assert_eq!((reply.rcode, reply.answers.len()), (rcode, 0), "{name}");
        assert_eq!(reply.authority[0].rdata.split(' ').next(), Some("ns.example.com."), "{name}: {reply:?}");
        assert!(reply.authority[0].ttl <= SAMPLE_NEGATIVE_TTL, "{reply:?}");
        assert!(
            reply.ra || rcode != NOERROR,
            "glibc takes an empty answer without RA and AA for a lame server's"
        );
        first.push((query(name, qtype), reply, Instant::now()));
    }

    authority.stop();
    let before = agent.metrics();
    std::thread::sleep(Duration::from_millis(1100));
    for (query, old, at) in &first {
        for reply in [agent.udp(query), agent.tcp(query)] {
            assert_eq!(essence(&reply), essence(old), "{query:?}");
            let age = at.elapsed().as_secs() as u32;
            let ttl = |reply: &Reply| reply.answers.iter().chain(&reply.authority).map(|rr| rr.ttl).min();
            let (old, new) = (ttl(old).expect("records"), ttl(&reply).expect("records"));
            assert!(new < old && new + age + 1 >= old, "TTL {old} and {age} s later {new}: {query:?}");
        }
    }
    let after = agent.metrics();
    let asked = 2 * first.len() as u64;
    let more = |name, labels: &[&str]| after.sum(name, labels) - before.sum(name, labels);
    assert_eq!(more("coredns_cache_hits_total", &[]), asked);
    assert_eq!(more("coredns_cache_hits_total", &["type=\"denial\""]), 4);
    assert_eq!(
        (more("coredns_cache_misses_total", &[]), more("coredns_forward_requests_total", &[])),
        (0, 0)
    );
}

#[test]
fn an_answer_too_large_for_512_octets_is_truncated_over_udp_and_whole_otherwise() {
    let Some(authority) = RealAuthority::start_or_skip(&sample_zone()) else { return };
    let agent = Agent::before(authority.addr());
    let plain = Query::new("big.example.com.", "A");
    // Once from the upstream, once from the cache.
    for from in ["the upstream", "the cache"] {
        let cut = agent.udp(&plain);
        assert!(cut.tc && cut.raw_len <= 512 && cut.opt.is_none(), "from {from}: {cut:?}");
        let whole = agent.tcp(&plain);
        assert_eq!((whole.tc, whole.answers.len()), (false, BIG_ADDRESSES), "from {from}");
        let large = agent.udp(&plain.clone().edns(1232));
        assert_eq!((large.tc, large.answers.len()), (false, BIG_ADDRESSES), "from {from}");
    }
    // Too large for the way to the authority as well: nodens has to fetch it over TCP.
    let huge = Query::new("huge.example.com.", "A").edns(4096);
    assert!(ask_udp(authority.addr(), &huge.clone().edns(1232).bytes()).expect("an answer").tc);
    let direct = ask_tcp(authority.addr(), &huge.bytes()).expect("an answer");
    assert_eq!(essence(&agent.tcp(&huge)), essence(&direct));
    let over_udp = agent.udp(&huge.edns(1232));
    assert!(over_udp.tc && over_udp.raw_len <= 1232, "{} octets", over_udp.raw_len);
}
