//! What happened, in numbers that only grow.
//!
//! Each Forwarder owns one [`Stats`] and is its only writer; the control thread reads it whenever somebody
//! scrapes. A counter is therefore an atomic that is loaded and stored, never a read-modify-write: as cheap as a
//! plain integer, and nothing has to be copied or published. Names and labels of the exported metrics are the
//! agent's business.

use crate::config::Config;
use alloc::vec::Vec;
#[cfg(not(nodens_loom))]
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
// The models of `nodens-runtime` look at how counters are handed over (`runtime/tests/loom.rs`).
#[cfg(nodens_loom)]
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. To be called by the owner of the [`Stats`] only: two writers would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The present value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram with fixed upper bounds; the last bucket is +Inf. Buckets are not cumulative here.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// Observations per bucket.
    pub buckets: [Counter; N],
    /// The sum of what was observed, in the unit of the bounds.
    pub sum: Counter,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Histogram { buckets: core::array::from_fn(|_| Counter::default()), sum: Counter::default() }
    }
}

/// Upper bounds of durations, in microseconds: 0.25 ms doubling 16 times, as CoreDNS has them, then +Inf.
pub const DURATION_BOUNDS_US: [u64; 16] = {
    let mut bounds = [0; 16];
    let mut i = 0;
    while i < 16 {
        bounds[i] = 250 << i;
        i += 1;
    }
    bounds
};

/// Upper bounds of message sizes in bytes, as CoreDNS has them, then +Inf.
pub const SIZE_BOUNDS: [u64; 14] =
    [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000];

/// Durations in microseconds.
pub type Durations = Histogram<17>;
/// Sizes in bytes.
pub type Sizes = Histogram<15>;

impl<const N: usize> Histogram<N> {
    /// Counts `value` in the first bucket whose bound is not below it.
    #[inline]
    pub fn observe(&self, value: u64, bounds: &[u64]) {
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.buckets[bucket.min(N - 1)].add(1);
        self.sum.add(value);
    }

    /// How many values were observed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }
}

/// The types that CoreDNS names in its metrics; all others share the last label, `other`.
pub const TYPE_LABELS: [(u16, &str); 22] = [
    (1, "A"),
    (28, "AAAA"),
    (33, "SRV"),
    (12, "PTR"),
    (65, "HTTPS"),
    (16, "TXT"),
    (5, "CNAME"),
    (15, "MX"),
    (6, "SOA"),
    (2, "NS"),
    (255, "ANY"),
    (43, "DS"),
    (48, "DNSKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (50, "NSEC3"),
    (52, "TLSA"),
    (64, "SVCB"),
    (35, "NAPTR"),
    (39, "DNAME"),
    (257, "CAA"),
    (251, "IXFR"),
];

/// Index of the label of `qtype` in `requests`: a place in [`TYPE_LABELS`], or its length for `other`.
#[inline]
pub fn type_label(qtype: u16) -> usize {
    TYPE_LABELS.iter().position(|(t, _)| *t == qtype).unwrap_or(TYPE_LABELS.len())
}

/// RCODEs with a label of their own: 0 to 15 by number; everything above shares the last.
pub const RCODE_LABELS: [&str; 17] = [
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
    "NOTZONE",
    "RESERVED11",
    "RESERVED12",
    "RESERVED13",
    "RESERVED14",
    "RESERVED15",
    "BADVERS",
];

/// Index of the label of `rcode` in [`RCODE_LABELS`].
#[inline]
pub fn rcode_label(rcode: u16) -> usize {
    usize::from(rcode).min(RCODE_LABELS.len() - 1)
}

/// All numbers of one Forwarder.
#[derive(Debug)]
pub struct Stats {
    /// Per listener and route, in the order of the configuration; the last of each listener is for names that
    /// no zone of it matches (zone label `dropped`).
    pub routes: Vec<Vec<RouteStats>>,
    /// Per forward zone.
    pub zones: Vec<ZoneStats>,
    /// Per upstream.
    pub upstreams: Vec<UpstreamStats>,
    /// Queries that got no answer, by reason; indexed by [`DropReason`](crate::DropReason).
    pub dropped: [Counter; crate::DropReason::COUNT],
    /// Upstream messages that were not accepted, by reason; indexed by [`Rejection`](crate::Rejection).
    pub rejected: [Counter; crate::Rejection::COUNT],
    /// Answers over TCP to lookups that were over: another upstream was faster.
    pub replies_late: Counter,
    /// Bytes after the last record of a reply were cut off.
    pub trailing_bytes_cut: Counter,
    /// Answers that had to be truncated.
    pub truncated: Counter,
    /// Queries that joined a lookup already under way.
    pub coalesced: Counter,
    /// Queries answered from the table of recent failures.
    pub failure_hits: Counter,
    /// Lookups shed because a ceiling was reached, or the end is near; the client got SERVFAIL.
    pub shed: Counter,
    /// All upstreams of a zone were down when a lookup started.
    pub all_down: Counter,
    /// An upstream socket was needed and `paths_max` were open already.
    pub paths_exhausted: Counter,
    /// Events that were lost because the driver did not drain them.
    pub events_lost: Counter,
    /// Lookups in flight (gauge).
    pub lookups: Counter,
    /// Clients waiting (gauge).
    pub waiters: Counter,
    /// Upstream sockets open (gauge).
    pub paths: Counter,
}

/// One route of one listener: what CoreDNS labels with `server` and `zone`.
#[derive(Debug, Default)]
pub struct RouteStats {
    /// Queries, `[transport][family][type]`: UDP 0, TCP 1; IPv4 0, IPv6 1; [`type_label`].
    pub requests: [[[Counter; TYPE_LABELS.len() + 1]; 2]; 2],
    /// Queries with the DO bit.
    pub do_requests: Counter,
    /// Answers by [`rcode_label`].
    pub responses: [Counter; RCODE_LABELS.len()],
    /// From query to answer, in microseconds.
    pub duration: Durations,
    /// Query sizes, `[transport]`.
    pub request_size: [Sizes; 2],
    /// Answer sizes, `[transport]`.
    pub response_size: [Sizes; 2],
}

/// One forward zone.
#[derive(Debug, Default)]
pub struct ZoneStats {
    /// Queries that looked into the cache.
    pub cache_requests: Counter,
    /// Positive answers from the cache.
    pub hits_success: Counter,
    /// Negative answers and failures from the cache.
    pub hits_denial: Counter,
    /// Queries that were not in the cache.
    pub misses: Counter,
    /// Replies with another question than was asked (CoreDNS `drops`).
    pub drops: Counter,
    /// Inserts given up because the shard's lock was busy.
    pub insert_skipped: Counter,
    /// `max_concurrent` turned a query away.
    pub max_concurrent_rejects: Counter,
}

/// One upstream.
#[derive(Debug, Default)]
pub struct UpstreamStats {
    /// From sending to a valid reply, by [`rcode_label`], in microseconds.
    pub duration: [Durations; RCODE_LABELS.len()],
    /// Messages sent, probes not counted.
    pub attempts: Counter,
    /// Paths opened, `[transport]`: UDP 0, TCP 1.
    pub paths_opened: [Counter; 2],
    /// Queries that went out on a connection that was open already.
    pub connections_reused: Counter,
    /// Attempts beyond the first of a lookup.
    pub retransmissions: Counter,
    /// Probes sent.
    pub probes: Counter,
    /// Probes that failed.
    pub probe_failures: Counter,
    /// 1 while the upstream counts as down (gauge).
    pub down: Counter,
}

impl Stats {
    /// All zero, shaped for `config`.
    pub fn new(config: &Config) -> Self {
        Stats {
            routes: config
                .listeners
                .iter()
                .map(|l| (0..=l.routes.len()).map(|_| RouteStats::default()).collect())
                .collect(),
            zones: config.zones.iter().map(|_| ZoneStats::default()).collect(),
            upstreams: config.upstreams.iter().map(|_| UpstreamStats::default()).collect(),
            dropped: Default::default(),
            rejected: Default::default(),
            replies_late: Counter::default(),
            trailing_bytes_cut: Counter::default(),
            truncated: Counter::default(),
            coalesced: Counter::default(),
            failure_hits: Counter::default(),
            shed: Counter::default(),
            all_down: Counter::default(),
            paths_exhausted: Counter::default(),
            events_lost: Counter::default(),
            lookups: Counter::default(),
            waiters: Counter::default(),
            paths: Counter::default(),
        }
    }
}

impl Stats {
    /// Goes on from the counts of another configuration: routes of the same listener and name, zones of the same identity,
    /// upstreams with the same settings. Gauges begin anew.
    pub fn adopt(&self, old: &Stats, old_config: &Config, new_config: &Config) {
        for (l, listener) in new_config.listeners.iter().enumerate() {
            let Some(before) = old_config.listeners.get(l) else { continue };
            for (r, route) in listener.routes.iter().enumerate() {
                if let Some(at) = before.routes.iter().position(|known| known.apex == route.apex) {
                    self.routes[l][r].adopt(&old.routes[l][at]);
                }
            }
            self.routes[l][listener.routes.len()].adopt(&old.routes[l][before.routes.len()]);
        }
        for (z, zone) in new_config.zones.iter().enumerate() {
            if let Some(at) = old_config.zones.iter().position(|known| known.id == zone.id) {
                self.zones[z].adopt(&old.zones[at]);
            }
        }
        for (u, upstream) in new_config.upstreams.iter().enumerate() {
            if let Some(at) = old_config.upstreams.iter().position(|known| known == upstream) {
                self.upstreams[u].adopt(&old.upstreams[at]);
            }
        }
        adopt_all(&self.dropped, &old.dropped);
        adopt_all(&self.rejected, &old.rejected);
        for (new, old) in [
            (&self.replies_late, &old.replies_late),
            (&self.trailing_bytes_cut, &old.trailing_bytes_cut),
            (&self.truncated, &old.truncated),
            (&self.coalesced, &old.coalesced),
            (&self.failure_hits, &old.failure_hits),
            (&self.shed, &old.shed),
            (&self.all_down, &old.all_down),
            (&self.paths_exhausted, &old.paths_exhausted),
            (&self.events_lost, &old.events_lost),
        ] {
            new.add(old.get());
        }
    }
}

fn adopt_all(new: &[Counter], old: &[Counter]) {
    for (new, old) in new.iter().zip(old) {
        new.add(old.get());
    }
}

impl<const N: usize> Histogram<N> {
    fn adopt(&self, old: &Self) {
        adopt_all(&self.buckets, &old.buckets);
        self.sum.add(old.sum.get());
    }
}

impl RouteStats {
    fn adopt(&self, old: &Self) {
        for (new, old) in self.requests.iter().flatten().zip(old.requests.iter().flatten()) {
            adopt_all(new, old);
        }
        self.do_requests.add(old.do_requests.get());
        adopt_all(&self.responses, &old.responses);
        self.duration.adopt(&old.duration);
        for transport in 0..2 {
            self.request_size[transport].adopt(&old.request_size[transport]);
            self.response_size[transport].adopt(&old.response_size[transport]);
        }
    }
}

impl ZoneStats {
    fn adopt(&self, old: &Self) {
        for (new, old) in [
            (&self.cache_requests, &old.cache_requests),
            (&self.hits_success, &old.hits_success),
            (&self.hits_denial, &old.hits_denial),
            (&self.misses, &old.misses),
            (&self.drops, &old.drops),
            (&self.insert_skipped, &old.insert_skipped),
            (&self.max_concurrent_rejects, &old.max_concurrent_rejects),
        ] {
            new.add(old.get());
        }
    }
}

impl UpstreamStats {
    fn adopt(&self, old: &Self) {
        for (new, old) in self.duration.iter().zip(&old.duration) {
            new.adopt(old);
        }
        adopt_all(&self.paths_opened, &old.paths_opened);
        for (new, old) in [
            (&self.attempts, &old.attempts),
            (&self.connections_reused, &old.connections_reused),
            (&self.retransmissions, &old.retransmissions),
            (&self.probes, &old.probes),
            (&self.probe_failures, &old.probe_failures),
        ] {
            new.add(old.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let h = Durations::default();
        h.observe(250, &DURATION_BOUNDS_US);
        h.observe(251, &DURATION_BOUNDS_US);
        h.observe(u64::from(u32::MAX), &DURATION_BOUNDS_US);
        assert_eq!((h.buckets[0].get(), h.buckets[1].get(), h.buckets[16].get()), (1, 1, 1));
        assert_eq!(h.count(), 3);
    }

    #[test]
    fn every_type_has_a_label() {
        assert_eq!(TYPE_LABELS[type_label(28)].1, "AAAA");
        assert_eq!(type_label(65_280), TYPE_LABELS.len());
    }
}
