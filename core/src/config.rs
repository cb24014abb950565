//! What the operator asked for, validated and immutable.
//!
//! The agent builds a [`Config`] from the Corefile; [`Config::check`] refuses what cannot work, with the place
//! of the fault. Nothing here parses text. Every limit is a named constant with its reason; what an operator
//! may want to change is a field.

use crate::api::Transport;
use crate::cache::Class;
use crate::time::Duration;
use crate::wire::{Name, Rcode};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// The largest UDP reply we send and the size we advertise upstream, unless `bufsize` says otherwise: fits an
/// IPv6 path of 1280 bytes without fragments (RFC 9715).
pub const UDP_SIZE_DEFAULT: u16 = 1232;
/// The least a UDP client must be able to take (RFC 1035 §4.2.1), and the lower end of `bufsize`.
pub const UDP_SIZE_MIN: u16 = 512;
/// The upper end of `bufsize`; also the largest UDP query that is read (RFC 5625 §4.4.1).
pub const UDP_SIZE_MAX: u16 = 4096;
/// Upstreams of one zone; CoreDNS allows as many.
pub const UPSTREAMS_MAX: usize = 15;

/// Which socket address a query came in on: an index into [`Config::listeners`].
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct ListenerId(pub u16);

/// The lasting identity of a forward zone; part of every cache key. The agent keeps it the same across reloads
/// as long as the zone's upstreams stay the same, and never gives it to another zone.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct ZoneId(pub u16);

/// An index into [`Config::upstreams`].
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct UpstreamId(pub u16);

/// The whole configuration of a Forwarder.
#[derive(Clone, Debug)]
pub struct Config {
    /// What each listening address serves; indexed by [`ListenerId`].
    pub listeners: Vec<Listener>,
    /// The Corefile's server blocks.
    pub zones: Vec<ForwardZone>,
    /// All upstreams of all zones, each once; indexed by [`UpstreamId`].
    pub upstreams: Vec<UpstreamConfig>,
    /// Whether an upstream's AD bit may reach clients that asked for it.
    pub trust_ad: bool,
    /// Ceilings on what peers can make us hold.
    pub limits: Limits,
}

/// The zones that one listening address serves.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// Longest suffix wins; order does not matter.
    pub routes: Vec<Route>,
}

/// One zone name of a server block on one listener.
#[derive(Clone, Debug)]
pub struct Route {
    /// The zone's name.
    pub apex: Name,
    /// Index into [`Config::zones`].
    pub zone: usize,
}

/// A part of the name space and what happens to its queries: one server block.
#[derive(Clone, Debug)]
pub struct ForwardZone {
    /// See [`ZoneId`].
    pub id: ZoneId,
    /// `cache`; without it every query goes upstream.
    pub cache: Option<CacheRules>,
    /// `forward`; without it every query is refused.
    pub forward: Option<ForwardRules>,
    /// `bufsize`, in bytes: the most we send over UDP and advertise upstream.
    pub udp_size_max: u16,
    /// `log`: one [`Event::Query`](crate::Event) per query.
    pub log_queries: bool,
    /// `errors`: one [`Event::Failure`](crate::Event) per failed lookup.
    pub log_errors: bool,
}

/// `cache`.
#[derive(Clone, Debug)]
pub struct CacheRules {
    /// Only names under these are cached; empty means all.
    pub zones: Vec<Name>,
    /// `success CAPACITY [TTL [MINTTL]]`.
    pub success: KindRules,
    /// `denial CAPACITY [TTL [MINTTL]]`.
    pub denial: KindRules,
    /// `servfail DURATION`: how long an upstream's SERVFAIL or NOTIMP is kept; zero keeps none.
    pub servfail_ttl_s: u32,
}

/// The bounds of one kind of answer.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct KindRules {
    /// Entries of this kind in this zone, over the whole cache. A ceiling beside the ceiling in bytes.
    pub entries_max: u32,
    /// Upper clamp of the TTL, in seconds. Beats `ttl_min_s`.
    pub ttl_max_s: u32,
    /// Lower clamp of the TTL, in seconds.
    pub ttl_min_s: u32,
}

impl CacheRules {
    /// The bounds of one class.
    pub const fn of(&self, class: Class) -> KindRules {
        match class {
            Class::Success => self.success,
            Class::Denial => self.denial,
        }
    }

    /// Whether answers for a name (canonical wire bytes) are kept.
    pub fn covers(&self, qname: &[u8]) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|zone| zone.is_suffix_of(qname))
    }

    /// CoreDNS' defaults: 9984 entries and 3600 s for answers, 1800 s for negatives, at least 5 s, SERVFAIL 5 s.
    pub const fn coredns() -> Self {
        CacheRules {
            zones: Vec::new(),
            success: KindRules { entries_max: 9984, ttl_max_s: 3600, ttl_min_s: 5 },
            denial: KindRules { entries_max: 9984, ttl_max_s: 1800, ttl_min_s: 5 },
            servfail_ttl_s: 5,
        }
    }
}

/// `forward`.
#[derive(Clone, Debug)]
pub struct ForwardRules {
    /// Names outside are refused.
    pub from: Name,
    /// `except`: names under these are refused too, `from` itself aside.
    pub except: Vec<Name>,
    /// In the order of the Corefile, at most [`UPSTREAMS_MAX`].
    pub upstreams: Vec<UpstreamId>,
    /// Which upstream is asked first.
    pub policy: Policy,
    /// Queries in flight for this zone and worker; 0 means no ceiling but [`Limits::lookups_max`].
    pub max_concurrent: u32,
    /// UDP or TCP to the upstreams.
    pub transport: UpstreamTransport,
    /// Attempts that may be refused before a lookup fails; `None`: twice the number of upstreams.
    pub max_connect_attempts: Option<u32>,
    /// `failover`: with these RCODEs the next upstream is asked before the answer is given.
    pub failover: Vec<Rcode>,
    /// `failfast_all_unhealthy_upstreams`: SERVFAIL at once while all are down.
    pub failfast: bool,
    /// `read_timeout`: an upstream is not waited for longer than this before something else is tried.
    pub read_timeout: Duration,
}

impl ForwardRules {
    /// CoreDNS' defaults for `forward . UPSTREAMS…`.
    pub fn to(upstreams: Vec<UpstreamId>) -> Self {
        ForwardRules {
            from: Name::root(),
            except: Vec::new(),
            upstreams,
            policy: Policy::Random,
            max_concurrent: 0,
            transport: UpstreamTransport::AsClient,
            max_connect_attempts: None,
            failover: Vec::new(),
            failfast: false,
            read_timeout: Duration::from_secs(2),
        }
    }

    /// Whether a name (canonical wire bytes) goes to these upstreams.
    pub fn takes(&self, qname: &[u8]) -> bool {
        let excepted = || self.except.iter().any(|zone| zone.is_suffix_of(qname));
        self.from.is_suffix_of(qname) && (self.from.as_wire() == qname || !excepted())
    }
}

/// How a zone's upstreams are asked.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum UpstreamTransport {
    /// As the client asked us (RFC 5625 §4.4.1).
    AsClient,
    /// `prefer_udp`: over UDP, over TCP only what was truncated.
    PreferUdp,
    /// `force_tcp`.
    ForceTcp,
}

/// The order in which upstreams are asked.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Policy {
    /// A random order for each lookup; CoreDNS' default.
    Random,
    /// The next one in turn first, then the others as configured.
    RoundRobin,
    /// Always as configured.
    Sequential,
    /// The one with the fewest queries out first: one that is slow or silent gets fewer.
    LeastOutstanding,
}

/// One upstream resolver.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct UpstreamConfig {
    /// Where it listens, for UDP and TCP.
    pub address: SocketAddr,
    /// It is down when more attempts or probes than this failed in a row; 0 never calls it down.
    pub max_fails: u32,
    /// `health_check`: time between two probes of an upstream that is not well.
    pub probe_interval: Duration,
    /// The name probes ask for, type NS.
    pub probe_name: Name,
    /// The RD bit of probes.
    pub probe_rd: bool,
    /// Probes go over the transport that serves: TCP with `force_tcp`.
    pub probe_transport: Transport,
    /// `expire`: an idle TCP connection is closed after this.
    pub expire: Duration,
    /// `max_age`: a TCP connection gets no new queries after this, a quarter more or less.
    pub max_age: Duration,
}

impl UpstreamConfig {
    /// An upstream with CoreDNS' defaults: `max_fails 2`, `. IN NS` every 0.5 s while it is not well.
    pub fn new(address: SocketAddr) -> Self {
        UpstreamConfig {
            address,
            max_fails: 2,
            probe_interval: Duration::from_millis(500),
            probe_name: Name::root(),
            probe_rd: true,
            probe_transport: Transport::Udp,
            expire: Duration::from_secs(10),
            max_age: Duration::from_secs(60),
        }
    }
}

/// Ceilings per worker. The defaults follow reliability.md §4: 4096 lookups of at most 1.5 KiB are 6 MiB.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Limits {
    /// Lookups in flight; above it a miss is answered with SERVFAIL.
    pub lookups_max: u32,
    /// Clients waiting for one lookup; above it a client is answered with SERVFAIL, never with silence.
    pub waiters_per_lookup_max: u32,
    /// Clients waiting for all lookups together.
    pub waiters_max: u32,
    /// Upstream sockets open at once. The agent lowers it to what RLIMIT_NOFILE leaves.
    pub paths_max: u32,
    /// TCP connections to one upstream. The agent divides design's 64 per process by the workers.
    pub connections_per_upstream_max: u32,
    /// UDP queries a second to one upstream that each get a socket of their own; above it sockets are shared. 2000 per process.
    pub udp_single_rate_max: u32,
    /// The largest answer that is kept, in bytes; a larger one is relayed uncached.
    pub entry_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            lookups_max: 4096,
            waiters_per_lookup_max: 1024,
            waiters_max: 16_384,
            paths_max: 8192,
            connections_per_upstream_max: 32,
            udp_single_rate_max: 1000,
            entry_bytes_max: 16 * 1024,
        }
    }
}

/// The configuration contradicts itself: the agent's fault or the operator's, never a peer's.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct ConfigError {
    /// Where, as a path of fields: `zones[2].forward.upstreams`.
    pub place: String,
    /// What is wrong there.
    pub fault: &'static str,
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// Refuses a configuration that the core could not run: dangling indices, empty or double entries.
    pub fn check(&self) -> Result<(), ConfigError> {
        use alloc::format;
        let fault = |place: String, fault| Err(ConfigError { place, fault });
        for (l, listener) in self.listeners.iter().enumerate() {
            for (r, route) in listener.routes.iter().enumerate() {
                let place = || format!("listeners[{l}].routes[{r}]");
                if route.zone >= self.zones.len() {
                    return fault(place(), "names a zone that does not exist");
                }
                if listener.routes[..r].iter().any(|other| other.apex == route.apex) {
                    return fault(place(), "serves the same zone name twice");
                }
            }
        }
        for (z, zone) in self.zones.iter().enumerate() {
            let place = |field: &str| format!("zones[{z}].{field}");
            if self.zones[..z].iter().any(|other| other.id == zone.id) {
                return fault(place("id"), "belongs to two zones");
            }
            if !(UDP_SIZE_MIN..=UDP_SIZE_MAX).contains(&zone.udp_size_max) {
                return fault(place("udp_size_max"), "must be within 512 and 4096");
            }
            let ttl_max_s = i32::MAX as u32;
            let too_long = |rules: &KindRules| rules.ttl_max_s > ttl_max_s || rules.ttl_min_s > ttl_max_s;
            if zone.cache.as_ref().is_some_and(|c| too_long(&c.success) || too_long(&c.denial)) {
                return fault(place("cache"), "has a TTL above 2147483647 s, which clients read as 0");
            }
            let Some(forward) = &zone.forward else { continue };
            if forward.upstreams.is_empty() || forward.upstreams.len() > UPSTREAMS_MAX {
                return fault(place("forward.upstreams"), "must name 1 to 15 upstreams");
            }
            if forward.read_timeout.is_zero() {
                return fault(place("forward.read_timeout"), "must be positive");
            }
            if forward.upstreams.iter().any(|id| usize::from(id.0) >= self.upstreams.len()) {
                return fault(place("forward.upstreams"), "names an upstream that does not exist");
            }
        }
        if self.upstreams.iter().any(|upstream| upstream.probe_interval.is_zero()) {
            return fault(String::from("upstreams"), "must leave time between two probes");
        }
        if self.limits.lookups_max == 0 || self.limits.paths_max == 0 || self.limits.waiters_max == 0 {
            return fault(String::from("limits"), "must not be zero");
        }
        Ok(())
    }
}
