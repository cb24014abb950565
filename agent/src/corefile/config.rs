//! A Corefile that has been understood: plain data, defaults filled in.
//!
//! Nothing here does anything. Whoever starts the service turns these values into listeners, caches and upstreams. Names and
//! defaults are CoreDNS'; where a value is an `Option`, None means what its comment says, never "forgot to read".

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::address::ListenAddr;
use super::diagnostic::{Diagnostic, Span};

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Corefile {
    /// In the order of the file. Zone selection does not depend on it: the longest suffix wins.
    pub blocks: Vec<ServerBlock>,
    /// The `nodens { … }` block; defaults if there is none.
    pub nodens: NodensOptions,
    /// What somebody should read although the file is taken.
    pub warnings: Vec<Diagnostic>,
}

/// One server block.
#[derive(Clone, Debug)]
pub struct ServerBlock {
    /// At least one.
    pub zones: Vec<ZoneKey>,
    /// Addresses to listen on; empty means all of them.
    pub bind: Vec<Bind>,
    /// None: nothing is cached.
    pub cache: Option<CacheOptions>,
    /// Asked in this order. Empty: nothing answers here, every query gets REFUSED.
    pub forward: Vec<ForwardOptions>,
    /// None: errors of this block are not logged.
    pub errors: Option<ErrorsOptions>,
    /// One rule per name scope, first match wins. Empty: queries are not logged.
    pub log: Vec<LogRule>,
    /// None: this block opens no `/health`.
    pub health: Option<HealthOptions>,
    /// None: this block opens no `/ready`.
    pub ready: Option<ReadyOptions>,
    /// None: this block's queries are not counted in metrics.
    pub prometheus: Option<PrometheusOptions>,
    /// Whether `loop` stands in the block.
    pub loop_detection: bool,
    /// Cap on the EDNS size in requests, in octets; None leaves requests alone.
    pub bufsize: Option<u16>,
    /// None: the file is not watched on this block's behalf.
    pub reload: Option<ReloadOptions>,
    /// The first key.
    pub span: Span,
}

/// One zone of a server block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneKey {
    /// Lower case, with the final dot.
    pub name: String,
    /// None: the default port (`-dns.port`). 0 lets the kernel choose.
    pub port: Option<u16>,
    /// Where it is written.
    pub span: Span,
}

/// One `bind` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// At least one.
    pub targets: Vec<BindTarget>,
    /// Taken out of what `targets` of this line come to.
    pub except: Vec<BindTarget>,
    /// Where it is written.
    pub span: Span,
}

/// What `bind` may name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BindTarget {
    /// This address.
    Address(IpAddr),
    /// Every address of this interface, looked up when the service starts.
    Interface(String),
}

impl Bind {
    /// The addresses this line comes to, given the addresses of interfaces. The error is the name of an interface for which
    /// `interface` knew nothing.
    pub fn addresses(&self, interface: impl Fn(&str) -> Option<Vec<IpAddr>>) -> Result<Vec<IpAddr>, String> {
        let collect = |targets: &[BindTarget]| -> Result<Vec<IpAddr>, String> {
            let mut all = Vec::new();
            for target in targets {
                match target {
                    BindTarget::Address(ip) => all.push(*ip),
                    BindTarget::Interface(name) => all.extend(interface(name).ok_or_else(|| name.clone())?),
                }
            }
            Ok(all)
        };
        let except = collect(&self.except)?;
        let mut all = collect(&self.targets)?;
        all.retain(|ip| !except.contains(ip));
        Ok(all)
    }
}

/// The `cache` plug-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Names below these are cached. Empty: the zones of the server block.
    pub zones: Vec<String>,
    /// Answers that name something.
    pub success: CacheLimits,
    /// NXDOMAIN and empty answers.
    pub denial: CacheLimits,
    /// How long an upstream's failure is remembered; zero: not at all.
    pub servfail: Duration,
    /// Refresh popular entries before they expire.
    pub prefetch: Option<Prefetch>,
    /// Serve expired entries.
    pub serve_stale: Option<ServeStale>,
    /// Zones below which successes are not cached.
    pub disable_success: Vec<String>,
    /// Zones below which denials are not cached.
    pub disable_denial: Vec<String>,
    /// Answer with the TTL as it was stored.
    pub keepttl: bool,
    /// Where it is written.
    pub span: Span,
}

/// Bounds for one kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Entries as written (10000 by default); see [`Self::effective_capacity`].
    pub capacity: u32,
    /// Longest time an answer is kept, in seconds.
    pub ttl_max_s: u32,
    /// Shortest time; None: the `ttl_floor` of the `nodens` block.
    pub ttl_min_s: Option<u32>,
}

impl CacheLimits {
    /// Entries that CoreDNS really keeps for this capacity: 256 shards of equal size, each of at least 4.
    pub fn effective_capacity(&self) -> u32 {
        (self.capacity / 256).max(4).saturating_mul(256)
    }
}

/// `prefetch AMOUNT [DURATION [PERCENTAGE%]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// Hits without a gap of `window` that make an entry popular.
    pub amount: u32,
    /// Longest gap between two such hits.
    pub window: Duration,
    /// Part of the TTL that must be left, in percent.
    pub percentage: u8,
}

/// `serve_stale …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeStale {
    /// How long after expiry an entry may be served.
    pub up_to: Duration,
    /// Ask upstream first, for at most this long (zero: as long as upstream takes). None: answer at once, refresh behind.
    pub verify: Option<Duration>,
    /// TTL of a stale answer, in seconds.
    pub response_ttl_s: u32,
    /// After a failed refresh, how long none is tried.
    pub recheck: Duration,
    /// `serve_stale_policy prefer_positive`.
    pub prefer_positive: bool,
}

/// One `forward` stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardOptions {
    /// Names below this are forwarded.
    pub from: String,
    /// 1 to 15, without repetitions, in the order of the file.
    pub to: Vec<Upstream>,
    /// Names below these are not.
    pub except: Vec<String>,
    /// Which upstream is asked.
    pub policy: Policy,
    /// Upstream connections idle for this long are closed.
    pub expire: Duration,
    /// Upstream connections of this age are closed; None: age does not matter.
    pub max_age: Option<Duration>,
    /// Idle connections kept per upstream; None: any number.
    pub max_idle_conns: Option<u32>,
    /// Failed checks in a row that make an upstream unhealthy; 0: none ever is.
    pub max_fails: u32,
    /// How upstreams that failed are checked.
    pub health_check: HealthCheck,
    /// Queries under way at once, more get REFUSED; None: any number.
    pub max_concurrent: Option<u32>,
    /// Connection attempts per query: None for twice the number of upstreams, `Some(0)` for any number.
    pub max_connect_attempts: Option<u32>,
    /// How long a reply may take.
    pub read_timeout: Duration,
    /// Ask over TCP, however the client asked. Beats `prefer_udp`.
    pub force_tcp: bool,
    /// Ask over UDP first, however the client asked.
    pub prefer_udp: bool,
    /// Response codes that hand the query to the next stanza.
    pub next: Vec<u16>,
    /// So does an empty NOERROR.
    pub next_on_nodata: bool,
    /// Response codes that hand the query to the next upstream.
    pub failover: Vec<u16>,
    /// SERVFAIL at once when every upstream is unhealthy.
    pub failfast_all_unhealthy_upstreams: bool,
    /// Local address of upstream sockets.
    pub source_address: Option<IpAddr>,
    /// Where it is written.
    pub span: Span,
}

/// One server that queries are forwarded to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Its address and port.
    pub addr: SocketAddr,
    /// How it is spoken to.
    pub transport: Transport,
    /// The name its certificate must carry.
    pub tls_server_name: Option<String>,
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// DNS over UDP and TCP.
    Dns,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
}

/// Which upstream is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any.
    #[default]
    Random,
    /// In turn.
    RoundRobin,
    /// The first healthy one of the list.
    Sequential,
    /// The one with the fewest queries out; ours, CoreDNS has no such word.
    LeastOutstanding,
}

/// `health_check DURATION [no_rec] [domain NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Time between two checks.
    pub interval: Duration,
    /// The RD bit of the check.
    pub recursion_desired: bool,
    /// The name asked for; its type is NS.
    pub domain: String,
}

/// The `errors` plug-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorsOptions {
    /// First match wins.
    pub consolidate: Vec<Consolidate>,
}

/// `consolidate DURATION REGEXP [LEVEL] [show_first]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consolidate {
    /// How long errors are collected.
    pub period: Duration,
    /// What they match.
    pub pattern: String,
    /// `error`, `warning`, `info` or `debug`.
    pub level: &'static str,
    /// Print the first one at once.
    pub show_first: bool,
}

/// One scope of the `log` plug-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRule {
    /// Queries for names below this are logged.
    pub scope: String,
    /// None: CoreDNS' default (common) format.
    pub format: Option<String>,
    /// Empty: every answer.
    pub classes: Vec<LogClass>,
}

/// What kind of answer is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogClass {
    /// Answers that name something.
    Success,
    /// NXDOMAIN and empty answers.
    Denial,
    /// SERVFAIL, REFUSED and the like.
    Error,
}

/// The `health` plug-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthOptions {
    /// Where `/health` is.
    pub addr: ListenAddr,
    /// How long the service goes on after it was told to stop.
    pub lameduck: Duration,
    /// Where it is written.
    pub span: Span,
}

/// The `ready` plug-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyOptions {
    /// Where `/ready` is.
    pub addr: ListenAddr,
    /// `monitor continuously`: becoming unready again is reported.
    pub continuously: bool,
    /// Where it is written.
    pub span: Span,
}

/// The `prometheus` plug-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusOptions {
    /// Where `/metrics` is.
    pub addr: ListenAddr,
    /// Where it is written.
    pub span: Span,
}

/// The `reload` plug-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadOptions {
    /// Time between two looks at the file.
    pub interval: Duration,
    /// Spread of that time, at most half of it.
    pub jitter: Duration,
}

/// The `nodens { … }` block: what CoreDNS has no word for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodensOptions {
    /// Threads that serve; None: as many as cores and CPU quota allow, at most 4.
    pub workers: Option<u16>,
    /// What drives the sockets; None: `auto`, unless the command line says otherwise.
    pub runtime: Option<RuntimeChoice>,
    /// Bound of the shared cache in bytes; None: a quarter of the memory limit, within 8 to 128 MiB.
    pub cache_bytes: Option<u64>,
    /// The cluster's domain, lower case, with the final dot.
    pub cluster_domain: String,
    /// Shortest time an answer is kept where `cache` says nothing else, in seconds.
    pub ttl_floor_s: u32,
    /// Whether the upstream's AD bit is passed on.
    pub trust_ad: bool,
    /// `aa coredns`: the AA bit as CoreDNS sets it.
    pub aa_coredns: bool,
    /// Rotate the addresses of an answer.
    pub rotate: bool,
    /// Answer names that cannot exist in a cluster.
    pub impossible_names: bool,
    /// Queries per second that one client may ask; None: any number.
    pub client_rate: Option<u32>,
    /// Where it is written, if it is.
    pub span: Option<Span>,
}

impl Default for NodensOptions {
    fn default() -> Self {
        Self {
            workers: None,
            runtime: None,
            cache_bytes: None,
            cluster_domain: "cluster.local.".into(),
            ttl_floor_s: 5,
            trust_ad: true,
            aa_coredns: false,
            rotate: true,
            impossible_names: false,
            client_rate: None,
            span: None,
        }
    }
}

/// What drives the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// Whichever works best here.
    #[default]
    Auto,
    /// io_uring.
    Uring,
    /// epoll, through tokio.
    Tokio,
}

impl RuntimeChoice {
    /// The names in the Corefile and on the command line.
    pub const NAMES: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("uring", Self::Uring), ("tokio", Self::Tokio)];
}
