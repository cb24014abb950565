//! Configurations and queries, drawn from bytes.

use crate::input::Input;
use crate::world::zone;
use nodens_core::config::{
    ForwardRules, ForwardZone, Limits, Listener, Policy, Route, UpstreamConfig, UpstreamTransport,
};
use nodens_core::wire::{Name, Rcode};
use nodens_core::{Config, Duration, Transport, UpstreamId};
use std::net::SocketAddr;

/// Names that are asked for, in the two zones and in two spellings.
const NAMES: [&[u8]; 8] = [
    b"\x01a\x00",
    b"\x01A\x00",
    b"\x03www\x01b\x00",
    b"\x03WwW\x01B\x00",
    b"\x00",
    b"\x01b\x00",
    b"\x01c\x01d\x00",
    b"\x04_dns\x04_udp\x01c\x00",
];
/// Types that are asked for; none holds names in its RDATA. DS goes to the parent's zone.
const QTYPES: [u16; 6] = [1, 1, 28, 65, 43, 65_280];

/// A configuration and what can be asked under it.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) config: Config,
}

impl Shape {
    pub(super) fn draw(input: &mut Input<'_>) -> Shape {
        let upstreams = 1 + input.below(3) as u16;
        let limits = limits(input);
        let zones = vec![forward_zone(input, 0, upstreams), forward_zone(input, 1, upstreams)];
        let routes =
            [(Name::root(), 0), (Name::from_wire(b"\x01b\x00"), 1)].map(|(apex, zone)| Route { apex, zone });
        let listener = Listener { routes: routes.into() };
        let listeners = vec![listener; if input.one_in(4) { 1 } else { 2 }];
        let upstreams = (1..=upstreams).map(|n| upstream(input, n as u8)).collect();
        Shape { config: Config { listeners, zones, upstreams, trust_ad: true, limits } }
    }

    /// A query that is forwarded or answered, never refused for its form.
    pub(super) fn query(&self, input: &mut Input<'_>, id: u16) -> Vec<u8> {
        let choices = input.byte();
        let has = |bit: u8| choices & bit != 0;
        let [high, low] = id.to_be_bytes();
        // Mostly with RD, seldom with CD.
        let (rd, cd) = (u8::from(!has(0x80)), u8::from(choices & 0x60 == 0x60) << 4);
        let edns = has(0x01);
        let mut query = vec![high, low, rd, cd, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        let which = input.byte();
        query.extend(NAMES[usize::from(which) % NAMES.len()]);
        query.extend(QTYPES[usize::from(which / 8) % QTYPES.len()].to_be_bytes());
        query.extend([0, 1]);
        if edns {
            let size: u16 = if has(0x08) { 4096 } else { 1232 };
            query.extend([0, 0, 41]);
            query.extend(size.to_be_bytes());
            query.extend([0, 0, u8::from(has(0x02)) << 7, 0, 0, 0]);
        }
        query
    }

    /// The most that we send over UDP to a client that takes `udp_size` bytes.
    pub(super) fn udp_len_max(&self, udp_size: u16) -> usize {
        let ours = self.config.zones.iter().map(|zone| zone.udp_size_max).max().unwrap_or(512);
        usize::from(udp_size.max(512).min(ours))
    }
}

fn limits(input: &mut Input<'_>) -> Limits {
    let mut limits = Limits::default();
    let tight = input.byte();
    let has = |bit: u8| tight & bit != 0;
    if has(0x01) {
        limits.paths_max = 1 + input.below(8) as u32;
    }
    if has(0x02) {
        limits.lookups_max = 1 + input.below(6) as u32;
    }
    if has(0x04) {
        limits.waiters_max = 1 + input.below(8) as u32;
        limits.waiters_per_lookup_max = 1 + input.below(4) as u32;
    }
    if has(0x08) {
        limits.connections_per_upstream_max = input.below(4) as u32;
    }
    if has(0x10) {
        limits.udp_single_rate_max = input.below(8) as u32;
    }
    if has(0x20) {
        limits.entry_bytes_max = 100;
    }
    limits
}

fn forward_zone(input: &mut Input<'_>, at: u16, upstreams: u16) -> ForwardZone {
    let which = input.byte();
    let has = |bit: u8| which & bit != 0;
    let mut used: Vec<UpstreamId> = (0..upstreams).filter(|n| which >> n & 1 == 1).map(UpstreamId).collect();
    if used.is_empty() {
        used.push(UpstreamId(0));
    }
    let rules = ForwardRules {
        policy: input.one_of(&[
            Policy::Sequential,
            Policy::Random,
            Policy::RoundRobin,
            Policy::LeastOutstanding,
        ]),
        transport: input.one_of(&[
            UpstreamTransport::AsClient,
            UpstreamTransport::PreferUdp,
            UpstreamTransport::ForceTcp,
        ]),
        max_connect_attempts: input.one_of(&[None, Some(0), Some(1), Some(10)]),
        failover: if has(0x10) { vec![Rcode::SERVFAIL, Rcode::REFUSED] } else { vec![] },
        failfast: has(0x20),
        max_concurrent: if has(0x40) && has(0x08) { 2 } else { 0 },
        read_timeout: Duration::from_millis(input.one_of(&[2000, 2000, 100, 4000])),
        ..ForwardRules::to(used)
    };
    // A zone keeps its number over reloads, or does not.
    let id = at + if input.one_in(4) { 2 } else { 0 };
    let mut zone = zone(id, (!input.one_in(16)).then_some(rules));
    zone.udp_size_max = input.one_of(&[1232, 512, 4096]);
    zone.log_queries = has(0x80);
    zone.log_errors = has(0x80);
    match (input.below(8), &mut zone.cache) {
        (0, cache) => *cache = None,
        (1, Some(rules)) => (rules.success.ttl_min_s, rules.denial.ttl_min_s) = (0, 0),
        (2, Some(rules)) => (rules.success.ttl_max_s, rules.denial.ttl_max_s) = (2, 1),
        (3, Some(rules)) => rules.success.entries_max = 1,
        (4, Some(rules)) => rules.zones = vec![Name::from_wire(b"\x03www\x01b\x00")],
        _ => {}
    }
    zone
}

fn upstream(input: &mut Input<'_>, n: u8) -> UpstreamConfig {
    // Another address makes it another upstream after a reload.
    let host = if input.one_in(8) { n + 100 } else { n };
    let which = input.byte();
    UpstreamConfig {
        max_fails: u32::from(which & 3),
        probe_transport: if which & 4 == 0 { Transport::Udp } else { Transport::Tcp },
        probe_interval: Duration::from_millis(if which & 8 == 0 { 500 } else { 100 }),
        expire: Duration::from_millis(if which & 16 == 0 { 10_000 } else { 50 }),
        max_age: Duration::from_millis(if which & 32 == 0 { 60_000 } else { 200 }),
        probe_rd: which & 64 == 0,
        ..UpstreamConfig::new(SocketAddr::from(([192, 0, 2, host], 53)))
    }
}
