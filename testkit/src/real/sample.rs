//! Zones for tests against a real authoritative server.
//!
//! They hold one of everything a forwarder meets in a cluster: service
//! addresses, SRV, reverse names, alias chains, answers that do not fit a
//! datagram, names that exist without data, and negative answers that may be
//! cached for 30 s.

use std::fmt::Write;

/// A zone and its file.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The name of the zone, with the last dot.
    pub origin: String,
    /// The text of the zone file.
    pub text: String,
}

/// The negative TTL (SOA minimum and TTL) of the sample zones.
pub const SAMPLE_NEGATIVE_TTL: u32 = 30;

/// The number of addresses of `big.example.com.`: more than 512 octets, less
/// than 1232.
pub const BIG_ADDRESSES: usize = 60;

/// The number of addresses of `huge.example.com.`: more than 1232 octets.
pub const HUGE_ADDRESSES: usize = 200;

/// The zones `cluster.local.`, `example.com.` and `10.in-addr.arpa.`.
///
/// - `kubernetes.default.svc.cluster.local.`: A 10.96.0.1, with PTR
/// - `web.default.svc.cluster.local.`: A 10.96.0.20 and AAAA, SRV under
///   `_http._tcp`, with PTR
/// - `db.prod.svc.cluster.local.`: headless, three A
/// - `example.com.`: A, AAAA, MX, TXT, NS
/// - `www.example.com.`: CNAME to `web`, CNAME to `host`, A 192.0.2.80
/// - `dangling.example.com.`: CNAME to a name that does not exist
/// - `v4only.example.com.`: A but no AAAA (NODATA)
/// - `ent.example.com.`: an empty non-terminal over `a.ent.example.com.`
/// - `*.wild.example.com.`: A 192.0.2.99
/// - `any.old.example.com.`: DNAME from `old` to `new`
/// - `big.example.com.`, `huge.example.com.`: 60 and 200 addresses
pub fn sample_zone() -> Vec<Zone> {
    vec![
        zone("cluster.local.", CLUSTER.to_string()),
        zone("example.com.", example()),
        zone("10.in-addr.arpa.", REVERSE.to_string()),
    ]
}

const CLUSTER: &str = "\
@ 5 IN NS ns.dns.cluster.local.
ns.dns.cluster.local. 5 IN A 127.0.0.1
kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1
_https._tcp.kubernetes.default.svc.cluster.local. 5 IN SRV 0 100 443 kubernetes.default.svc.cluster.local.
web.default.svc.cluster.local. 5 IN A 10.96.0.20
web.default.svc.cluster.local. 5 IN AAAA fd00:10:96::20
_http._tcp.web.default.svc.cluster.local. 5 IN SRV 0 100 80 web.default.svc.cluster.local.
db.prod.svc.cluster.local. 5 IN A 10.244.1.11
db.prod.svc.cluster.local. 5 IN A 10.244.2.12
db.prod.svc.cluster.local. 5 IN A 10.244.3.13
";

const EXAMPLE: &str = "\
@ 300 IN NS ns.example.com.
ns.example.com. 300 IN A 127.0.0.1
@ 300 IN A 192.0.2.1
@ 300 IN AAAA 2001:db8::1
@ 300 IN MX 10 mail.example.com.
@ 300 IN TXT \"v=spf1 -all\" \"second string\"
mail.example.com. 300 IN A 192.0.2.25
www.example.com. 300 IN CNAME web.example.com.
web.example.com. 60 IN CNAME host.example.com.
host.example.com. 120 IN A 192.0.2.80
host.example.com. 120 IN AAAA 2001:db8::80
dangling.example.com. 60 IN CNAME gone.example.com.
v4only.example.com. 60 IN A 192.0.2.4
a.ent.example.com. 60 IN A 192.0.2.5
*.wild.example.com. 60 IN A 192.0.2.99
old.example.com. 60 IN DNAME new.example.com.
any.new.example.com. 60 IN A 192.0.2.6
short.example.com. 1 IN A 192.0.2.7
";

const REVERSE: &str = "\
@ 300 IN NS ns.example.com.
1.0.96.10.in-addr.arpa. 5 IN PTR kubernetes.default.svc.cluster.local.
20.0.96.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local.
";

fn zone(origin: &str, records: String) -> Zone {
    let ttl = SAMPLE_NEGATIVE_TTL;
    let soa = format!("@ {ttl} IN SOA ns.example.com. hostmaster.example.com. 1 3600 600 86400 {ttl}");
    Zone { origin: origin.to_string(), text: format!("$ORIGIN {origin}\n{soa}\n{records}") }
}

fn example() -> String {
    let mut text = EXAMPLE.to_string();
    for (name, count) in [("big", BIG_ADDRESSES), ("huge", HUGE_ADDRESSES)] {
        for n in 1..=count {
            writeln!(text, "{name}.example.com. 60 IN A 198.51.100.{n}").expect("a String takes all");
        }
    }
    text
}
