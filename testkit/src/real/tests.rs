//! The real servers serve what the sample zones promise; skipped aloud where
//! none is installed.

use super::config::Software;
use super::{BIG_ADDRESSES, HUGE_ADDRESSES, RealAuthority, sample_zone};
use crate::client::{ask_tcp, ask_udp};
use crate::msg::{Query, rcode, rtype};

#[test]
fn an_installed_server_serves_the_sample_zones() {
    let Some(mut server) = RealAuthority::start_or_skip(&sample_zone()) else { return };
    check(&mut server);
}

#[test]
fn knot_serves_the_sample_zones_too() {
    let Some(program) = Software::Knot.find() else {
        // No skip: one real server is what the tests need.
        return crate::note("NOTE: knotd is not installed (Debian package knot), only NSD was tried");
    };
    check(&mut RealAuthority::run(Software::Knot, program, &sample_zone()));
}

fn check(server: &mut RealAuthority) {
    let addr = server.addr();
    let ask = |name: &str, qtype: &str| {
        ask_udp(addr, &Query::new(name, qtype).edns(1232).bytes()).expect("an answer")
    };

    let www = ask("www.example.com.", "A");
    assert_eq!(
        www.answer_lines(),
        [
            "www.example.com. CNAME web.example.com.",
            "web.example.com. CNAME host.example.com.",
            "host.example.com. A 192.0.2.80"
        ]
    );
    assert_eq!(ask("web.default.svc.cluster.local.", "AAAA").rdatas("AAAA"), ["fd00:10:96::20"]);
    assert_eq!(
        ask("_http._tcp.web.default.svc.cluster.local.", "SRV").rdatas("SRV"),
        ["0 100 80 web.default.svc.cluster.local."]
    );
    assert_eq!(
        ask("1.0.96.10.in-addr.arpa.", "PTR").rdatas("PTR"),
        ["kubernetes.default.svc.cluster.local."]
    );
    assert_eq!(ask("example.com.", "MX").rdatas("MX"), ["10 mail.example.com."]);
    assert_eq!(ask("example.com.", "TXT").rdatas("TXT"), ["\"v=spf1 -all\" \"second string\""]);
    assert_eq!(ask("x.wild.example.com.", "A").rdatas("A"), ["192.0.2.99"]);
    assert_eq!(ask("any.old.example.com.", "A").rdatas("A"), ["192.0.2.6"]);

    let nodata = ask("v4only.example.com.", "AAAA");
    assert_eq!((nodata.rcode, nodata.answers.len()), (rcode::NOERROR, 0));
    assert_eq!(nodata.authority[0].rtype, rtype::SOA);
    let nxdomain = ask("nothing.example.com.", "A");
    assert_eq!((nxdomain.rcode, nxdomain.authority[0].ttl), (rcode::NXDOMAIN, 30));
    assert_eq!(ask("ent.example.com.", "A").rcode, rcode::NOERROR);

    let big = Query::new("big.example.com.", "A");
    assert!(ask_udp(addr, &big.bytes()).expect("an answer").tc, "60 addresses fit no 512 octets");
    let whole = ask_udp(addr, &big.clone().edns(1232).bytes()).expect("an answer");
    assert_eq!((whole.tc, whole.answers.len()), (false, BIG_ADDRESSES));
    assert!(ask("huge.example.com.", "A").tc, "200 addresses fit no 1232 octets");
    let huge = Query::new("huge.example.com.", "A").bytes();
    assert_eq!(ask_tcp(addr, &huge).expect("an answer").answers.len(), HUGE_ADDRESSES);

    server.stop();
    assert!(ask_tcp(addr, &huge).is_none(), "a stopped server refuses");
    server.restart();
    assert!(ask_tcp(addr, &huge).is_some(), "a restarted server answers");
}
