//! `coredns_dns_*`: what clients asked and what they got, per listening address and zone.

use nodens_core::Stats;
use nodens_core::stats::{DURATION_BOUNDS_US, RCODE_LABELS, RouteStats, SIZE_BOUNDS, TYPE_LABELS};

use super::{Snapshot, US_PER_S, sum, total};
use crate::admin::exposition::{Exposition, Kind};

const PROTOCOLS: [&str; 2] = ["udp", "tcp"];
/// The labels of the address families are the numbers that IANA gives them, as in CoreDNS.
const FAMILIES: [&str; 2] = ["1", "2"];
/// The zone label of queries that no server block is for.
const DROPPED: &str = "dropped";

/// One series' worth of labels and where its numbers are.
struct Place<'a> {
    listener: usize,
    route: usize,
    server: &'a str,
    zone: &'a str,
    /// Who answers; nobody does for names outside all zones.
    plugin: &'static str,
}

impl Place<'_> {
    fn stats<'s>(&self, stats: &'s Stats) -> Option<&'s RouteStats> {
        stats.routes.get(self.listener)?.get(self.route)
    }
}

/// Every route that is counted, then for each listener the queries outside its zones, if there were any.
fn places<'a>(snapshot: &Snapshot<'a>) -> Vec<Place<'a>> {
    let mut places = Vec::new();
    for (listener, labels) in snapshot.labels.listeners.iter().enumerate() {
        let server = labels.server.as_str();
        for (route, route_labels) in labels.routes.iter().enumerate().filter(|(_, route)| route.counted) {
            places.push(Place { listener, route, server, zone: &route_labels.zone, plugin: "forward" });
        }
        let outside = Place { listener, route: labels.routes.len(), server, zone: DROPPED, plugin: "" };
        if total(snapshot.workers, |s| outside.stats(s).map(|r| &r.duration)).count() > 0 {
            places.push(outside);
        }
    }
    places
}

pub(super) fn write(snapshot: &Snapshot<'_>, out: &mut Exposition) {
    let places = places(snapshot);
    requests(snapshot, &places, out);
    let workers = snapshot.workers;

    let mut family = out.family(Kind::Counter, "coredns_dns_do_requests_total", "Queries with the DO bit.");
    for place in &places {
        let value = sum(workers, |s| place.stats(s).map(|r| &r.do_requests));
        family.sample(&[("server", place.server), ("zone", place.zone), ("view", "")], value);
    }

    let mut family = out.family(
        Kind::Histogram,
        "coredns_dns_request_duration_seconds",
        "Time from a query to its answer.",
    );
    for place in &places {
        let total = total(workers, |s| place.stats(s).map(|r| &r.duration));
        let labels = [("server", place.server), ("zone", place.zone), ("view", "")];
        family.histogram(&labels, &DURATION_BOUNDS_US, &total.buckets, total.sum, US_PER_S);
    }

    sizes(snapshot, &places, out, "coredns_dns_request_size_bytes", "Sizes of queries.", |r| &r.request_size);
    sizes(snapshot, &places, out, "coredns_dns_response_size_bytes", "Sizes of answers.", |r| {
        &r.response_size
    });
    responses(snapshot, &places, out);
}

fn requests(snapshot: &Snapshot<'_>, places: &[Place<'_>], out: &mut Exposition) {
    let mut family = out.family(Kind::Counter, "coredns_dns_requests_total", "Queries.");
    for place in places {
        for (p, proto) in PROTOCOLS.iter().enumerate() {
            for (f, address_family) in FAMILIES.iter().enumerate() {
                for t in 0..=TYPE_LABELS.len() {
                    let counter = |s| place.stats(s).map(|r| &r.requests[p][f][t]);
                    let value = sum(snapshot.workers, counter);
                    if value == 0 {
                        continue;
                    }
                    let qtype = TYPE_LABELS.get(t).map_or("other", |(_, name)| name);
                    let labels = [
                        ("server", place.server),
                        ("zone", place.zone),
                        ("view", ""),
                        ("proto", proto),
                        ("family", address_family),
                        ("type", qtype),
                    ];
                    family.sample(&labels, value);
                }
            }
        }
    }
}

fn sizes(
    snapshot: &Snapshot<'_>,
    places: &[Place<'_>],
    out: &mut Exposition,
    name: &'static str,
    help: &'static str,
    of: impl Fn(&RouteStats) -> &[nodens_core::stats::Sizes; 2],
) {
    let mut family = out.family(Kind::Histogram, name, help);
    for place in places {
        for (p, proto) in PROTOCOLS.iter().enumerate() {
            let total = total(snapshot.workers, |s| place.stats(s).map(|r| &of(r)[p]));
            if total.count() == 0 {
                continue;
            }
            let labels = [("server", place.server), ("zone", place.zone), ("view", ""), ("proto", *proto)];
            family.histogram(&labels, &SIZE_BOUNDS, &total.buckets, total.sum, 1.0);
        }
    }
}

fn responses(snapshot: &Snapshot<'_>, places: &[Place<'_>], out: &mut Exposition) {
    let mut family = out.family(Kind::Counter, "coredns_dns_responses_total", "Answers by RCODE.");
    for place in places {
        for (i, rcode) in RCODE_LABELS.iter().enumerate() {
            let value = sum(snapshot.workers, |s| place.stats(s).map(|r| &r.responses[i]));
            if value == 0 {
                continue;
            }
            let labels = [
                ("server", place.server),
                ("zone", place.zone),
                ("view", ""),
                ("rcode", rcode),
                ("plugin", place.plugin),
            ];
            family.sample(&labels, value);
        }
    }
}
