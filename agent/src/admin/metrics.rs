//! `/metrics`: the numbers of all workers as one text.
//!
//! [`render`] is a pure function of a [`Snapshot`]: borrowed counters, labels from the Corefile, a few facts about
//! the process. Names and labels are those of CoreDNS and node-cache, so that dashboards and alerts made for them go on working; what
//! CoreDNS has no number for begins with `nodens_`.
//!
//! Two rules keep the text small. A series whose labels all come from the configuration is there from the start, with 0, so that
//! `rate()` sees its first increment. A series with a label that depends on traffic (type, rcode, protocol, family) appears with
//! its first count, as in CoreDNS. No label ever comes from a message: what clients ask for cannot grow the text or break it.
//!
//! A zone that listens on several addresses has one cache and one forward for all of them; its cache metrics carry the first
//! address as `server`. Sums over `server` are therefore right, as they are with CoreDNS.

mod cache;
mod node;
mod own;
mod process;
mod queries;
mod upstreams;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nodens_node::Figures;

use nodens_core::stats::{Counter, Histogram};
use nodens_core::{Config, Stats, ZoneId};
use nodens_runtime::Vitals;

use super::exposition::{Exposition, Kind};
use super::probe::{HealthProbe, PROBE_BOUNDS_US};

pub use process::Process;

/// Counts of microseconds per exported second.
const US_PER_S: f64 = 1e6;

/// All that the text is made of.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// What the workers run; gives the numbers in [`Stats`] their meaning.
    pub config: &'a Config,
    /// What things are called.
    pub labels: &'a Labels,
    /// The workers, each with its counters.
    pub workers: &'a [Worker],
    /// What the shared cache holds.
    pub cache: &'a CacheUsage,
    /// What the control thread counts.
    pub control: &'a Control,
    /// The probes of `/health`; `None` if no block has it.
    pub health: Option<&'a HealthProbe>,
    /// What setting up the node counts; `None` if it is not set up.
    pub node: Option<&'a Figures>,
    /// What was built.
    pub build: Build<'a>,
    /// This process, as the kernel sees it.
    pub process: Process,
}

/// One worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The counters of its Forwarder.
    pub stats: Arc<Stats>,
    /// The counters of its sockets.
    pub vitals: Arc<Vitals>,
    /// How long ago it last went around its loop; `None`: it has ended and another has taken its place. Its counts remain.
    pub heartbeat_age: Option<Duration>,
    /// What drives its sockets: `tokio` or `uring`.
    pub runtime: &'static str,
}

/// The version labels.
#[derive(Copy, Clone, Debug)]
pub struct Build<'a> {
    /// The version of nodens.
    pub version: &'a str,
    /// The commit, or empty.
    pub revision: &'a str,
    /// The compiler; CoreDNS' label for it is `goversion`, and stays so.
    pub rustc: &'a str,
}

/// What the control thread counts.
#[derive(Debug, Default)]
pub struct Control {
    /// Panics that were caught.
    pub panics: Counter,
    /// Reloads that were refused.
    pub reloads_failed: Counter,
    /// Templates and ConfigMaps that could not be used.
    pub templates_failed: Counter,
}

/// What the shared cache holds. Plain numbers: the cache crate's own report is copied into it.
#[derive(Clone, Debug, Default)]
pub struct CacheUsage {
    /// Bytes of all entries.
    pub bytes: u64,
    /// The ceiling.
    pub bytes_max: u64,
    /// Per zone; zones without entries may be missing.
    pub zones: Vec<ZoneUsage>,
}

/// The entries of one zone; arrays are indexed by [`nodens_core::cache::Class`].
#[derive(Copy, Clone, Debug)]
pub struct ZoneUsage {
    /// Which.
    pub zone: ZoneId,
    /// Entries now.
    pub entries: [u64; 2],
    /// Entries that had to go before they expired.
    pub evictions: [u64; 2],
}

/// Names for the indices of a [`Config`].
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// Per listener.
    pub listeners: Vec<ListenerLabels>,
    /// Per zone of [`Config::zones`].
    pub zones: Vec<ZoneLabels>,
}

/// One listener.
#[derive(Clone, Debug)]
pub struct ListenerLabels {
    /// `dns://127.0.0.1:53`; `dns://:53` for a wildcard.
    pub server: String,
    /// Per route of the listener.
    pub routes: Vec<RouteLabels>,
}

/// One zone name on one listener.
#[derive(Clone, Debug)]
pub struct RouteLabels {
    /// `cluster.local.`
    pub zone: String,
    /// The plug-ins of its server block.
    pub plugins: Vec<&'static str>,
    /// Whether the block has `prometheus`; without it CoreDNS counts nothing for the block.
    pub counted: bool,
}

/// One server block.
#[derive(Clone, Debug)]
pub struct ZoneLabels {
    /// The first listener of the block.
    pub server: String,
    /// What its cache is restricted to: `cluster.local.` or several joined by commas.
    pub zones: String,
}

/// The text of `/metrics`.
pub fn render(snapshot: &Snapshot<'_>) -> String {
    let mut out = Exposition::default();
    about(snapshot, &mut out);
    queries::write(snapshot, &mut out);
    cache::write(snapshot, &mut out);
    upstreams::write(snapshot, &mut out);
    node::write(snapshot, &mut out);
    own::write(snapshot, &mut out);
    snapshot.process.write(&mut out);
    out.finish()
}

fn about(snapshot: &Snapshot<'_>, out: &mut Exposition) {
    let Build { version, revision, rustc } = snapshot.build;
    let labels = [("version", version), ("revision", revision), ("goversion", rustc)];
    out.family(
        Kind::Gauge,
        "coredns_build_info",
        "Always 1; the labels say what was built. goversion names the Rust compiler.",
    )
    .sample(&labels, 1);
    out.counter("coredns_panics_total", "Panics that were caught.", snapshot.control.panics.get());
    let failed = snapshot.control.reloads_failed.get();
    out.counter(
        "coredns_reload_failed_total",
        "Reloads that were refused; the old configuration stayed.",
        failed,
    );
    plugins(snapshot, out);
    if let Some(probe) = snapshot.health {
        let mut family = out.family(
            Kind::Histogram,
            "coredns_health_request_duration_seconds",
            "How long the agent's own request for /health took.",
        );
        let buckets: Vec<u64> = probe.duration.buckets.iter().map(Counter::get).collect();
        family.histogram(&[], &PROBE_BOUNDS_US, &buckets, probe.duration.sum.get(), US_PER_S);
        let failures = probe.failures.get();
        out.counter(
            "coredns_health_request_failures_total",
            "Own requests for /health that failed.",
            failures,
        );
    }
}

fn plugins(snapshot: &Snapshot<'_>, out: &mut Exposition) {
    let mut family =
        out.family(Kind::Gauge, "coredns_plugin_enabled", "1 for each plug-in of each server block.");
    // The two families of a wildcard are one server.
    let mut seen = BTreeSet::new();
    for listener in &snapshot.labels.listeners {
        for route in listener.routes.iter().filter(|route| route.counted) {
            for name in &route.plugins {
                if seen.insert((&listener.server, &route.zone, name)) {
                    let (server, zone) = (listener.server.as_str(), route.zone.as_str());
                    family.sample(&[("server", server), ("zone", zone), ("view", ""), ("name", name)], 1);
                }
            }
        }
    }
}

/// The sum of one counter over all workers; a worker that does not have it (yet) counts as 0.
fn sum<'a>(workers: &'a [Worker], counter: impl Fn(&'a Stats) -> Option<&'a Counter>) -> u64 {
    workers.iter().filter_map(|worker| counter(&worker.stats)).map(Counter::get).sum()
}

/// A histogram summed over workers: counts per bucket and the sum.
struct Total {
    buckets: Vec<u64>,
    sum: u64,
}

impl Total {
    fn of_buckets(count: usize) -> Self {
        Total { buckets: vec![0; count], sum: 0 }
    }

    fn add<const N: usize>(&mut self, histogram: &Histogram<N>) {
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.get();
        }
        self.sum += histogram.sum.get();
    }

    fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests;
