//! The demo's world: a small cluster, a domain on the Internet, and the root above them.
//!
//! The cluster's names follow the Kubernetes DNS specification: Services, SRV records of named ports, a headless Service with
//! the names of its Pods, an ExternalName, reverse names. TTLs are those of a cluster made by kubeadm.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record};

/// TTL in a cluster, in seconds, of its negative answers too.
const CLUSTER_TTL_S: u32 = 30;
/// TTL of what stands for the Internet, in seconds.
const INTERNET_TTL_S: u32 = 300;
/// How long the Internet's negative answers may be kept, in seconds.
const INTERNET_NEGATIVE_TTL_S: u32 = 60;
/// Addresses of `big.example.com`: 100 make 1.6 KB, more than any sensible UDP size.
const BIG_ADDRESSES: u8 = 100;

/// A zone: apex, TTL of its records, TTL of its negative answers.
const ZONES: [(&str, u32, u32); 4] = [
    (".", INTERNET_TTL_S, INTERNET_NEGATIVE_TTL_S),
    ("cluster.local.", CLUSTER_TTL_S, CLUSTER_TTL_S),
    ("10.in-addr.arpa.", CLUSTER_TTL_S, CLUSTER_TTL_S),
    ("example.com.", INTERNET_TTL_S, INTERNET_NEGATIVE_TTL_S),
];

/// Services with a cluster IP and Pods with names, each with its reverse name.
const ADDRESSES: [(&str, [u8; 4]); 8] = [
    ("kubernetes.default.svc.cluster.local.", [10, 96, 0, 1]),
    ("kube-dns.kube-system.svc.cluster.local.", [10, 96, 0, 10]),
    ("api.shop.svc.cluster.local.", [10, 96, 14, 2]),
    ("web-0.web.default.svc.cluster.local.", [10, 244, 1, 10]),
    ("web-1.web.default.svc.cluster.local.", [10, 244, 1, 11]),
    ("web-2.web.default.svc.cluster.local.", [10, 244, 2, 10]),
    ("mail.example.com.", [192, 0, 2, 25]),
    ("ns.example.com.", [192, 0, 2, 53]),
];

/// Named ports: owner, port, Service.
const PORTS: [(&str, u16, &str); 5] = [
    ("_dns._udp", 53, "kube-dns.kube-system.svc.cluster.local."),
    ("_dns-tcp._tcp", 53, "kube-dns.kube-system.svc.cluster.local."),
    ("_dns._tcp", 53, "kube-dns.kube-system.svc.cluster.local."),
    ("_metrics._tcp", 9153, "kube-dns.kube-system.svc.cluster.local."),
    ("_https._tcp", 443, "kubernetes.default.svc.cluster.local."),
];

/// All names and what they have.
#[derive(Debug)]
pub struct World {
    records: BTreeMap<Name, Vec<Record>>,
    /// Apex and SOA record.
    zones: Vec<(Name, Record)>,
}

/// What a name is.
#[derive(Debug)]
pub enum Found<'a> {
    /// It has these records.
    Records(&'a [Record]),
    /// It has none, but there are names below it (RFC 8020).
    Empty,
    /// There is no such name.
    Nothing,
}

impl World {
    /// The demo's world.
    pub fn new() -> Self {
        let mut world = World { records: BTreeMap::new(), zones: Vec::new() };
        for (apex, ttl, negative_ttl) in ZONES {
            let apex = name(apex);
            let soa = SOA::new(
                name("ns.example.com."),
                name("admin.example.com."),
                1,
                7200,
                1800,
                86_400,
                negative_ttl,
            );
            let soa = Record::from_rdata(apex.clone(), negative_ttl, RData::SOA(soa));
            world.zones.push((apex.clone(), soa.clone()));
            world.records.entry(apex.clone()).or_default().push(soa);
            world.records.entry(apex.clone()).or_default().push(Record::from_rdata(
                apex,
                ttl,
                RData::NS(NS(name("ns.example.com."))),
            ));
        }
        for (owner, address) in ADDRESSES {
            world.add(owner, a(address));
            if address[0] == 10 {
                let [a, b, c, d] = address;
                world.add(&format!("{d}.{c}.{b}.{a}.in-addr.arpa."), RData::PTR(PTR(name(owner))));
            }
            // A headless Service has the addresses of all its Pods.
            if let Some(service) = owner.strip_prefix("web-").and_then(|rest| rest.split_once('.')) {
                world.add(service.1, a(address));
            }
        }
        for (port_name, port, service) in PORTS {
            let srv = SRV::new(0, 100, port, name(service));
            world.add(&format!("{port_name}.{service}"), RData::SRV(srv));
        }
        // An ExternalName Service.
        world.add("shop.default.svc.cluster.local.", RData::CNAME(CNAME(name("example.com."))));
        world.internet();
        world
    }

    fn internet(&mut self) {
        self.add("example.com.", a([192, 0, 2, 80]));
        self.add("example.com.", RData::AAAA(AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80))));
        self.add("example.com.", RData::MX(MX::new(10, name("mail.example.com."))));
        self.add("example.com.", RData::TXT(TXT::new(vec!["v=spf1 mx -all".to_owned()])));
        self.add("www.example.com.", RData::CNAME(CNAME(name("example.com."))));
        self.add("slow.example.com.", a([192, 0, 2, 99]));
        for last in 1..=BIG_ADDRESSES {
            self.add("big.example.com.", a([198, 51, 100, last]));
        }
    }

    /// What `owner` is.
    pub fn find(&self, owner: &Name) -> Found<'_> {
        match self.records.get(&owner.to_lowercase()) {
            Some(records) => Found::Records(records),
            None if self.records.keys().any(|known| owner.zone_of(known)) => Found::Empty,
            None => Found::Nothing,
        }
    }

    /// The SOA record of the zone that `owner` is in.
    pub fn soa(&self, owner: &Name) -> &Record {
        &self.zone_of(owner).1
    }

    fn zone_of(&self, owner: &Name) -> &(Name, Record) {
        let above = self.zones.iter().filter(|(apex, _)| apex.zone_of(owner));
        above.max_by_key(|(apex, _)| apex.num_labels()).unwrap_or(&self.zones[0])
    }

    fn add(&mut self, owner: &str, data: RData) {
        let owner = name(owner);
        let apex = self.zone_of(&owner).0.clone();
        let ttl = ZONES.iter().find(|zone| name(zone.0) == apex).map_or(INTERNET_TTL_S, |zone| zone.1);
        self.records.entry(owner.clone()).or_default().push(Record::from_rdata(owner, ttl, data));
    }
}

impl Default for World {
    fn default() -> Self {
        World::new()
    }
}

fn a(address: [u8; 4]) -> RData {
    RData::A(A(Ipv4Addr::from(address)))
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("the names above are names")
}
