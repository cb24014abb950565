//! From a Corefile that was understood to what the machinery runs.
//!
//! Two results: the [`nodens_core::Config`] that every worker gets, full of indices and without a word of text, and a [`Plan`] for the
//! agent: which sockets to open, what to call things in metrics, how many workers and how much memory. The conversion
//! is pure; what it must know about the machine comes in as an [`Environment`], so tests and `nodens check` make up their own.
//!
//! Listening: a zone without `bind` is served on every address of the machine, which is one listener per address family here,
//! `0.0.0.0` and `[::]`, each for its own family only (and `0.0.0.0` alone where the kernel has no IPv6). So clients' addresses are what they
//! are and never mapped ones. In metrics both are one server, `dns://:53`, as CoreDNS calls it.

mod cgroup;
mod clashes;
mod listeners;
mod machine;
mod upstreams;
mod zone_ids;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodens_core::config::{CacheRules, ForwardZone, KindRules, Limits, UDP_SIZE_DEFAULT};
use nodens_core::wire::Name;
use nodens_core::{Config, UpstreamId};

use crate::admin::Endpoint;
use crate::admin::metrics::{Labels, ZoneLabels};
use crate::corefile::config::{CacheLimits, CacheOptions, NodensOptions, RuntimeChoice, ServerBlock};
use crate::corefile::{Corefile, Diagnostic, ListenAddr, Span};
use crate::loop_check::Check;

pub use machine::{has_ipv6, interface_addresses};
use upstreams::Upstreams;
pub use zone_ids::ZoneIds;

/// TCP connections of this process to one upstream: CoreDNS answers a connection serially, so at 20 ms each these are good for
/// 3 200 misses/s.
const CONNECTIONS_PER_UPSTREAM_MAX: u32 = 64;
/// UDP queries a second of this process to one upstream that get a socket each. Each leaves a connection-tracking entry for 30 s or
/// more where the upstream is a Service's address; more of them would fill the table.
const UDP_SINGLE_RATE_MAX: u32 = 2000;
/// Workers by default, at most: a node's DNS is a guest on its cores, and who needs more can say so.
const WORKERS_DEFAULT_MAX: usize = 4;
/// The part of the memory limit that the cache takes by default: one in this many. The rest is for buffers, connections and the
/// kernel's memory of our sockets.
const CACHE_MEMORY_SHARE: u64 = 4;
/// The least default cache, in bytes: some 20 000 answers.
const CACHE_BYTES_DEFAULT_MIN: u64 = 8 << 20;
/// The largest default cache, in bytes: some 300 000 answers, more than a node asks for within their TTLs.
const CACHE_BYTES_DEFAULT_MAX: u64 = 128 << 20;
/// The default cache where no memory limit is set, in bytes.
const CACHE_BYTES_UNLIMITED: u64 = 32 << 20;

/// What the conversion must know besides the Corefile.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The port of zones that name none (`-dns.port`).
    pub default_port: u16,
    /// The command line's word, which beats the Corefile's.
    pub workers: Option<u16>,
    /// The command line's word, which beats the Corefile's.
    pub runtime: Option<RuntimeChoice>,
    /// CPUs this process may run on.
    pub cores: usize,
    /// Whether the kernel has IPv6.
    pub has_ipv6: bool,
    /// The text of a file under `/proc` or `/sys`; `None` if it cannot be read.
    pub read: &'a dyn Fn(&str) -> Option<String>,
    /// The addresses of an interface; `None` if there is none of that name.
    pub interface: &'a dyn Fn(&str) -> Option<Vec<IpAddr>>,
}

impl Environment<'_> {
    /// This machine, nothing from the command line.
    pub fn of_this_machine() -> Environment<'static> {
        Environment {
            default_port: 53,
            workers: None,
            runtime: None,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            has_ipv6: has_ipv6(),
            read: &|path| std::fs::read_to_string(path).ok(),
            interface: &interface_addresses,
        }
    }
}

/// What the agent has to do besides giving the configuration to its workers.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Addresses to listen on; the index is the [`nodens_core::ListenerId`].
    pub listeners: Vec<SocketAddr>,
    /// What things are called in metrics.
    pub labels: Labels,
    /// HTTP endpoints, one per address.
    pub endpoints: Vec<Endpoint>,
    /// Upstreams that may ask us in turn.
    pub loop_checks: Vec<Check>,
    /// How long to go on serving after being told to stop.
    pub lameduck: Duration,
    /// Threads that serve.
    pub workers: usize,
    /// What drives the sockets.
    pub runtime: RuntimeChoice,
    /// Bound of the shared cache.
    pub cache_bytes: u64,
}

/// Both results.
#[derive(Clone, Debug)]
pub struct Built {
    /// For the workers.
    pub config: Config,
    /// For the agent.
    pub plan: Plan,
    /// What somebody should read although it can be served.
    pub warnings: Vec<Diagnostic>,
}

/// Converts. `ids` outlives reloads, so that a zone keeps its cache. The error is everything that is wrong, each with its place.
pub fn build(
    corefile: &Corefile,
    environment: &Environment<'_>,
    ids: &mut ZoneIds,
) -> Result<Built, Vec<Diagnostic>> {
    let mut faults = Vec::new();
    let listeners = listeners::collect(&corefile.blocks, environment, &mut faults);
    let mut warnings = Vec::new();
    clashes::endpoints(&corefile.blocks, &listeners, &mut faults);
    clashes::loops(&corefile.blocks, &listeners, &mut faults, &mut warnings);
    let mut upstreams = Upstreams::default();
    let mut zones = Vec::with_capacity(corefile.blocks.len());
    ids.begin();
    for block in &corefile.blocks {
        match zone(block, &corefile.nodens, &mut upstreams, ids) {
            Ok(zone) => zones.push(zone),
            Err(fault) => faults.push(*fault),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let workers = workers(&corefile.nodens, environment);
    // The Corefile speaks of the process; each worker gets its share.
    for forward in zones.iter_mut().filter_map(|zone: &mut ForwardZone| zone.forward.as_mut()) {
        forward.max_concurrent = forward.max_concurrent.div_ceil(workers as u32);
    }
    let config = Config {
        listeners: listeners.config,
        zones,
        upstreams: upstreams.into_config(),
        trust_ad: corefile.nodens.trust_ad,
        limits: limits(workers),
    };
    if let (Err(error), Some(block)) = (config.check(), corefile.blocks.first()) {
        return Err(vec![Diagnostic::error(&block.span, format!("this cannot be served: {error}"))]);
    }
    let labels = Labels {
        zones: corefile
            .blocks
            .iter()
            .zip(listeners.servers)
            .map(|(b, server)| labels_of(b, server))
            .collect(),
        listeners: listeners.labels,
    };
    let lameduck =
        corefile.blocks.iter().filter_map(|block| block.health.as_ref()).map(|health| health.lameduck);
    let plan = Plan {
        listeners: listeners.addresses,
        labels,
        endpoints: endpoints(&corefile.blocks),
        loop_checks: loop_checks(&corefile.blocks, &config),
        lameduck: lameduck.max().unwrap_or_default(),
        workers,
        runtime: environment.runtime.or(corefile.nodens.runtime).unwrap_or_default(),
        cache_bytes: cache_bytes(&corefile.nodens, environment),
    };
    Ok(Built { config, plan, warnings })
}

/// A fault is boxed because it is large and rare.
type Fault = Box<Diagnostic>;

fn zone(
    block: &ServerBlock,
    nodens: &NodensOptions,
    upstreams: &mut Upstreams,
    ids: &mut ZoneIds,
) -> Result<ForwardZone, Fault> {
    let forward = upstreams.forward(block)?;
    let asked: Vec<_> = forward.iter().flat_map(|rules| upstreams.addresses(&rules.upstreams)).collect();
    let names = block.zones.iter().map(|key| key.name.as_str()).collect();
    let id = ids.of(names, asked).ok_or_else(|| {
        let message = "there have been 65536 different zones since the start";
        Box::new(Diagnostic::error(&block.span, message).help("restart the agent to take the new Corefile"))
    })?;
    Ok(ForwardZone {
        id,
        cache: block.cache.as_ref().map(|cache| cache_rules(cache, nodens)).transpose()?,
        forward,
        udp_size_max: block.bufsize.unwrap_or(UDP_SIZE_DEFAULT),
        log_queries: !block.log.is_empty(),
        log_errors: block.errors.is_some(),
    })
}

fn cache_rules(cache: &CacheOptions, nodens: &NodensOptions) -> Result<CacheRules, Fault> {
    let rules = |limits: &CacheLimits| KindRules {
        entries_max: limits.effective_capacity(),
        ttl_max_s: limits.ttl_max_s,
        ttl_min_s: limits.ttl_min_s.unwrap_or(nodens.ttl_floor_s),
    };
    // Part of a second counts whole: `servfail 500ms` asks for failures to be kept.
    let servfail_s = cache.servfail.as_millis().div_ceil(1000);
    Ok(CacheRules {
        zones: cache.zones.iter().map(|zone| name(zone, &cache.span)).collect::<Result<_, _>>()?,
        success: rules(&cache.success),
        denial: rules(&cache.denial),
        servfail_ttl_s: u32::try_from(servfail_s).unwrap_or(u32::MAX),
    })
}

fn name(text: &str, span: &Span) -> Result<Name, Fault> {
    Name::parse(text)
        .map_err(|error| Box::new(Diagnostic::error(span, format!("`{text}` is not a domain name: {error}"))))
}

fn labels_of(block: &ServerBlock, server: String) -> ZoneLabels {
    let of_block = || block.zones.iter().map(|key| key.name.clone()).collect::<Vec<_>>();
    let cached = block.cache.as_ref().map(|cache| cache.zones.clone()).filter(|zones| !zones.is_empty());
    let mut zones = cached.unwrap_or_else(of_block);
    let mut seen = BTreeSet::new();
    zones.retain(|zone| seen.insert(zone.clone()));
    ZoneLabels { server, zones: zones.join(",") }
}

fn loop_checks(blocks: &[ServerBlock], config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    for (zone, block) in blocks.iter().enumerate().filter(|(_, block)| block.loop_detection) {
        for upstream in config.zones[zone].forward.iter().flat_map(|forward| &forward.upstreams) {
            checks.push(Check {
                zone,
                apex: block.zones[0].name.clone(),
                upstream: *upstream,
                address: config.upstreams[usize::from(upstream.0)].address,
                over_tcp: block.forward.iter().any(|forward| forward.force_tcp),
            });
        }
    }
    checks
}

fn endpoints(blocks: &[ServerBlock]) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut add = |addr: ListenAddr, what: fn(&mut Endpoint)| {
        let at = endpoints.iter().position(|endpoint| endpoint.addr == addr).unwrap_or_else(|| {
            endpoints.push(Endpoint::at(addr));
            endpoints.len() - 1
        });
        what(&mut endpoints[at]);
    };
    for block in blocks {
        if let Some(health) = &block.health {
            add(health.addr, |endpoint| endpoint.health = true);
        }
        if let Some(ready) = &block.ready {
            add(ready.addr, |endpoint| endpoint.ready = true);
        }
        if let Some(prometheus) = &block.prometheus {
            add(prometheus.addr, |endpoint| endpoint.metrics = true);
        }
    }
    endpoints
}

/// One worker's share of what the process may have at an upstream.
fn limits(workers: usize) -> Limits {
    let share = |of_process: u32| of_process.div_ceil(workers as u32);
    Limits {
        connections_per_upstream_max: share(CONNECTIONS_PER_UPSTREAM_MAX),
        udp_single_rate_max: share(UDP_SINGLE_RATE_MAX),
        ..Limits::default()
    }
}

fn workers(nodens: &NodensOptions, environment: &Environment<'_>) -> usize {
    if let Some(workers) = environment.workers.or(nodens.workers) {
        return usize::from(workers).max(1);
    }
    let quota = cgroup::cpu_quota(environment.read).unwrap_or(usize::MAX);
    environment.cores.min(quota).clamp(1, WORKERS_DEFAULT_MAX)
}

fn cache_bytes(nodens: &NodensOptions, environment: &Environment<'_>) -> u64 {
    nodens.cache_bytes.unwrap_or_else(|| match cgroup::memory_limit(environment.read) {
        Some(limit) => (limit / CACHE_MEMORY_SHARE).clamp(CACHE_BYTES_DEFAULT_MIN, CACHE_BYTES_DEFAULT_MAX),
        None => CACHE_BYTES_UNLIMITED,
    })
}

#[cfg(test)]
mod tests;
