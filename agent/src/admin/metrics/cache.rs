//! `coredns_cache_*`: per zone with a cache.

use nodens_core::stats::{Counter, ZoneStats};

use super::{Snapshot, ZoneLabels, ZoneUsage, sum};
use crate::admin::exposition::{Exposition, Kind};

/// The values of the label `type`, indexed by [`nodens_core::cache::Class`].
const CLASSES: [&str; 2] = ["success", "denial"];

/// Index into the configuration's zones, and what the zone is called.
type Zone<'a> = (usize, &'a ZoneLabels);

/// Name, help and where the number is.
type Simple = (&'static str, &'static str, fn(&ZoneStats) -> &Counter);

pub(super) fn write(snapshot: &Snapshot<'_>, out: &mut Exposition) {
    let zones: Vec<Zone<'_>> = snapshot
        .labels
        .zones
        .iter()
        .enumerate()
        .filter(|(z, _)| snapshot.config.zones.get(*z).is_some_and(|zone| zone.cache.is_some()))
        .collect();

    let mut family = out.family(
        Kind::Gauge,
        "coredns_cache_entries",
        "Entries in the cache now, expired ones that were not yet swept included.",
    );
    by_class(snapshot, &zones, |usage| usage.entries, |labels, value| family.sample(labels, value));
    let mut family = out.family(
        Kind::Counter,
        "coredns_cache_evictions_total",
        "Entries that had to make room before they expired.",
    );
    by_class(snapshot, &zones, |usage| usage.evictions, |labels, value| family.sample(labels, value));

    let mut family =
        out.family(Kind::Counter, "coredns_cache_hits_total", "Queries answered from the cache.");
    for (z, zone) in &zones {
        let hits: [fn(&ZoneStats) -> &Counter; 2] = [|s| &s.hits_success, |s| &s.hits_denial];
        for (class, hits) in CLASSES.iter().zip(hits) {
            let value = sum(snapshot.workers, |s| s.zones.get(*z).map(hits));
            let labels = [("server", &*zone.server), ("type", *class), ("zones", &*zone.zones), ("view", "")];
            family.sample(&labels, value);
        }
    }

    let counters: [Simple; 3] = [
        ("coredns_cache_requests_total", "Queries that looked into the cache.", |s| &s.cache_requests),
        ("coredns_cache_misses_total", "Queries that were not in the cache.", |s| &s.misses),
        (
            "coredns_cache_drops_total",
            "Upstream answers that were not kept because they did not fit the question.",
            |s| &s.drops,
        ),
    ];
    for (name, help, counter) in counters {
        let mut family = out.family(Kind::Counter, name, help);
        for (z, zone) in &zones {
            let value = sum(snapshot.workers, |s| s.zones.get(*z).map(counter));
            family.sample(&[("server", &zone.server), ("zones", &zone.zones), ("view", "")], value);
        }
    }
}

fn by_class(
    snapshot: &Snapshot<'_>,
    zones: &[Zone<'_>],
    numbers: impl Fn(&ZoneUsage) -> [u64; 2],
    mut sample: impl FnMut(&[(&str, &str)], u64),
) {
    for (z, zone) in zones {
        let id = snapshot.config.zones[*z].id;
        let usage = snapshot.cache.zones.iter().find(|usage| usage.zone == id);
        let values = usage.map_or([0; 2], &numbers);
        for (class, value) in CLASSES.iter().zip(values) {
            sample(&[("server", &zone.server), ("type", class), ("zones", &zone.zones), ("view", "")], value);
        }
    }
}
