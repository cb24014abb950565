//! Configurations: the one a world begins with, and those that reloads bring.
//!
//! A plan is a `nodens_core::Config` and what the model needs to know of it in its own terms: which zone a question belongs to.

use crate::draw::{Draw, Part};
use crate::hazards::Hazard;
use crate::options::Options;
use crate::questions::{DOMAINS, DS, QuestionId, Space};
use nodens_core::config::{
    CacheRules, Config, ForwardRules, ForwardZone, KindRules, Limits, Listener, Policy, Route,
    UpstreamConfig, UpstreamTransport,
};
use nodens_core::wire::{Name, Rcode};
use nodens_core::{Duration, Transport, UpstreamId, ZoneId};
use std::net::SocketAddr;
use std::sync::Arc;

/// Addresses that one process listens on; all serve the same zones.
pub const LISTENERS: usize = 2;
/// Upstreams that only a later configuration knows.
pub const SPARE_UPSTREAMS: usize = 2;

/// A configuration and the model's view of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the Forwarder gets.
    pub config: Arc<Config>,
    /// The zone of names in each domain: of most types, and of DS.
    zone_of: [[Option<usize>; 2]; DOMAINS.len()],
    /// Whether names in each domain are forwarded by that zone.
    takes: [[bool; 2]; DOMAINS.len()],
}

/// Where upstream number `n` listens.
pub fn upstream_address(n: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n as u8 + 1], 53))
}

/// Which upstream listens there.
pub fn upstream_number(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => usize::from(v4.ip().octets()[3]) - 1,
        SocketAddr::V6(_) => usize::MAX,
    }
}

/// Draws the configurations of a world, one after the other.
#[derive(Debug)]
pub struct Planner {
    draw: Draw,
    apexes: Vec<&'static str>,
    upstreams: usize,
    next_zone_id: u16,
    entries_max: u32,
}

impl Planner {
    /// For the world of `options`.
    pub fn new(options: &Options) -> Self {
        let mut draw = Draw::part(options.seed, Part::Config);
        let root = if draw.chance(6, 7) { "." } else { DOMAINS[0] };
        let apexes = [root, DOMAINS[1], DOMAINS[2]][..options.zones].to_vec();
        let few = draw.between(1, 12) as u32;
        let entries_max = if options.hazards.has(Hazard::FewEntries) { few } else { 9984 };
        Planner { draw, apexes, upstreams: options.upstreams, next_zone_id: 0, entries_max }
    }

    /// Entries of a class that a zone may keep.
    pub fn entries_max(&self) -> u32 {
        self.entries_max
    }

    /// The first configuration.
    pub fn first(&mut self, options: &Options) -> Plan {
        let upstreams = (0..self.upstreams + SPARE_UPSTREAMS).map(|n| self.upstream(n)).collect();
        let zones = (0..self.apexes.len()).map(|zone| self.zone(options, zone)).collect();
        let limits = self.limits(options);
        let route = |(zone, apex): (usize, &&str)| Route { apex: name(apex), zone };
        let listener = Listener { routes: self.apexes.iter().enumerate().map(route).collect() };
        let listeners = vec![listener; LISTENERS];
        let trust_ad = self.draw.chance(3, 4);
        Plan::new(Config { listeners, zones, upstreams, trust_ad, limits })
    }

    /// The same zones under other rules; with `upstreams`, some of them go elsewhere, which makes them other zones.
    pub fn next(&mut self, options: &Options, old: &Plan, upstreams: bool) -> Plan {
        let mut config = Config::clone(&old.config);
        if upstreams && self.draw.chance(1, 2) {
            let changed = self.draw.below(config.upstreams.len() as u64) as usize;
            config.upstreams[changed] = self.upstream(changed);
        }
        for zone in 0..config.zones.len() {
            match self.draw.below(3) {
                0 => {}
                1 if upstreams => config.zones[zone] = self.zone(options, zone),
                _ => {
                    let id = config.zones[zone].id;
                    let goes_to = config.zones[zone].forward.take().map(|forward| forward.upstreams);
                    let mut changed = self.zone(options, zone);
                    // What a zone's identity stands for: the same question gets the same answer.
                    changed.id = id;
                    if let (Some(forward), Some(goes_to)) = (&mut changed.forward, goes_to) {
                        forward.upstreams = goes_to;
                    }
                    config.zones[zone] = changed;
                }
            }
        }
        Plan::new(config)
    }

    fn zone(&mut self, options: &Options, zone: usize) -> ForwardZone {
        let hazards = options.hazards;
        let id = ZoneId(self.next_zone_id);
        self.next_zone_id += 1;
        let draw = &mut self.draw;
        let mut upstreams: Vec<UpstreamId> = (0..self.upstreams + SPARE_UPSTREAMS)
            .filter(|n| *n < options.upstreams || id.0 as usize >= options.zones)
            .filter(|_| draw.chance(2, 3))
            .map(|n| UpstreamId(n as u16))
            .collect();
        if upstreams.is_empty() {
            upstreams.push(UpstreamId(draw.below(self.upstreams as u64) as u16));
        }
        let mut forward = ForwardRules::to(upstreams);
        forward.policy =
            draw.pick(&[Policy::Random, Policy::RoundRobin, Policy::Sequential, Policy::LeastOutstanding]);
        forward.transport = draw.pick(&[
            UpstreamTransport::AsClient,
            UpstreamTransport::PreferUdp,
            UpstreamTransport::PreferUdp,
            UpstreamTransport::ForceTcp,
        ]);
        forward.read_timeout =
            draw.pick(&[Duration::from_secs(2), Duration::from_secs(2), Duration::from_millis(300)]);
        forward.max_connect_attempts = draw.pick(&[None, None, Some(0), Some(1), Some(5)]);
        if draw.chance(1, 8) {
            forward.except.push(name(DOMAINS[2]));
        }
        if draw.chance(1, 8) {
            forward.from = name(self.apexes[zone]);
        }
        if hazards.has(Hazard::Ceiling) {
            forward.max_concurrent = draw.between(1, 8) as u32;
        }
        forward.failfast = hazards.has(Hazard::Failfast);
        if hazards.has(Hazard::Failover) {
            forward.failover = vec![Rcode::SERVFAIL, Rcode::REFUSED];
        }
        let cached = !hazards.has(Hazard::NoCache) || draw.chance(1, 2);
        ForwardZone {
            id,
            cache: cached.then(|| self.cache_rules()),
            forward: Some(forward),
            udp_size_max: self.draw.pick(&[1232, 1232, 512, 4096]),
            log_queries: self.draw.chance(1, 8),
            log_errors: self.draw.chance(1, 4),
        }
    }

    fn cache_rules(&mut self) -> CacheRules {
        let draw = &mut self.draw;
        let entries_max = self.entries_max;
        let mut rules = CacheRules::coredns();
        let mut kind = |ttl_max_s| KindRules {
            entries_max,
            ttl_max_s: draw.pick(&[ttl_max_s, ttl_max_s, 30, 5, 1, 0, 2_000_000_000]),
            ttl_min_s: draw.pick(&[5, 5, 0, 0, 10]),
        };
        rules.success = kind(3600);
        rules.denial = kind(1800);
        rules.servfail_ttl_s = draw.pick(&[5, 5, 1, 0]);
        if draw.chance(1, 8) {
            rules.zones.push(name(DOMAINS[1]));
        }
        rules
    }

    fn upstream(&mut self, n: usize) -> UpstreamConfig {
        let draw = &mut self.draw;
        let mut config = UpstreamConfig::new(upstream_address(n));
        config.max_fails = draw.pick(&[2, 2, 1, 0]);
        config.probe_interval = Duration::from_millis(draw.pick(&[500, 500, 250]));
        config.probe_transport = draw.pick(&[Transport::Udp, Transport::Udp, Transport::Tcp]);
        config.expire = Duration::from_millis(draw.pick(&[10_000, 10_000, 1000, 0]));
        config.max_age = Duration::from_millis(draw.pick(&[60_000, 60_000, 2000]));
        config
    }

    fn limits(&mut self, options: &Options) -> Limits {
        let (hazards, draw) = (options.hazards, &mut self.draw);
        let mut limits = Limits::default();
        if hazards.has(Hazard::FewPaths) {
            limits.paths_max = draw.between(2, 12) as u32;
        }
        if hazards.has(Hazard::FewWaiters) {
            limits.waiters_max = draw.between(2, 20) as u32;
            limits.waiters_per_lookup_max = draw.between(1, 4) as u32;
        }
        if hazards.has(Hazard::FewLookups) {
            limits.lookups_max = draw.between(1, 8) as u32;
        }
        if hazards.has(Hazard::SharedSockets) {
            limits.udp_single_rate_max = draw.between(0, 20) as u32;
        }
        limits.connections_per_upstream_max = draw.pick(&[32, 32, 8, 4]);
        limits.entry_bytes_max = draw.pick(&[16 * 1024, 16 * 1024, 600]);
        limits
    }
}

impl Plan {
    fn new(config: Config) -> Self {
        let routes = &config.listeners[0].routes;
        let served = |apex: &Name| routes.iter().find(|route| route.apex == *apex).map(|route| route.zone);
        let root = served(&Name::root());
        let zone_of = DOMAINS.map(|domain| {
            let own = served(&name(domain)).or(root);
            // RFC 4035 §3.1.4.1: DS stands on the parent's side, so the shortest match has it.
            [own, root.or(own)]
        });
        let takes = std::array::from_fn(|domain| {
            [0, 1].map(|ds| {
                let forward = zone_of[domain][ds].and_then(|zone: usize| config.zones[zone].forward.as_ref());
                let (domain, root) = (name(DOMAINS[domain]), Name::root());
                forward.is_some_and(|f| (f.from == domain || f.from == root) && !f.except.contains(&domain))
            })
        });
        Plan { config: Arc::new(config), zone_of, takes }
    }

    /// The zone that a question belongs to, as an index.
    pub fn zone_of(&self, space: &Space, question: QuestionId) -> Option<usize> {
        self.zone_of[space.name(question).domain][usize::from(Space::qtype(question) == DS)]
    }

    /// The zone of a name in `domain` for any type but DS.
    pub fn zone_of_domain(&self, domain: usize) -> Option<usize> {
        self.zone_of[domain][0]
    }

    /// Whether that zone forwards it.
    pub fn takes(&self, space: &Space, question: QuestionId) -> bool {
        self.takes[space.name(question).domain][usize::from(Space::qtype(question) == DS)]
    }

    /// The rules for keeping answers to a question, if they are kept at all.
    pub fn cache_rules(&self, space: &Space, question: QuestionId, zone: usize) -> Option<&CacheRules> {
        let rules = self.config.zones[zone].cache.as_ref()?;
        let name = space.name(question);
        let listed = |zone: &Name| zone.as_wire() == &name.wire[name.domain_at..];
        (rules.zones.is_empty() || rules.zones.iter().any(listed)).then_some(rules)
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap_or_else(|_| Name::root())
}
