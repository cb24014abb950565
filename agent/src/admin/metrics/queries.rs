//! `coredns_dns_*`: what clients asked and what they got, per listening address and zone.

use nodens_core::stats::{
    Counter, DURATION_BOUNDS_US, Histogram, RCODE_LABELS, RouteStats, SIZE_BOUNDS, Sizes, TYPE_LABELS,
};

use super::{Snapshot, Total, US_PER_S};
use crate::admin::exposition::{Exposition, Kind};

const PROTOCOLS: [&str; 2] = ["udp", "tcp"];
/// The labels of the address families are the numbers that IANA gives them, as in CoreDNS.
const FAMILIES: [&str; 2] = ["1", "2"];
/// The zone label of queries that no server block is for.
const DROPPED: &str = "dropped";

/// The labels of a series and where its numbers are.
struct Place<'a> {
    server: &'a str,
    zone: &'a str,
    /// Who answers; nobody does for names outside all zones.
    plugin: &'static str,
    /// Listener and route. Several only for wildcards: `:53` is one server for CoreDNS and one listener per family here.
    at: Vec<(usize, usize)>,
}

impl Place<'_> {
    fn sum(&self, snapshot: &Snapshot<'_>, counter: impl Fn(&RouteStats) -> &Counter) -> u64 {
        self.stats(snapshot).map(|stats| counter(stats).get()).sum()
    }

    fn total<const N: usize>(
        &self,
        snapshot: &Snapshot<'_>,
        histogram: impl Fn(&RouteStats) -> &Histogram<N>,
    ) -> Total {
        let mut total = Total::of_buckets(N);
        self.stats(snapshot).for_each(|stats| total.add(histogram(stats)));
        total
    }

    fn stats<'s>(&'s self, snapshot: &'s Snapshot<'_>) -> impl Iterator<Item = &'s RouteStats> {
        snapshot.workers.iter().flat_map(|worker| {
            self.at.iter().filter_map(|(listener, route)| worker.stats.routes.get(*listener)?.get(*route))
        })
    }
}

/// Every route that is counted, then the queries outside the zones of a listener, if there were any.
fn places<'a>(snapshot: &Snapshot<'a>) -> Vec<Place<'a>> {
    let mut places: Vec<Place<'a>> = Vec::new();
    let mut add = |server: &'a str, zone: &'a str, plugin: &'static str, at: (usize, usize)| match places
        .iter_mut()
        .find(|place| (place.server, place.zone) == (server, zone))
    {
        Some(place) => place.at.push(at),
        None => places.push(Place { server, zone, plugin, at: vec![at] }),
    };
    for (l, listener) in snapshot.labels.listeners.iter().enumerate() {
        for (r, route) in listener.routes.iter().enumerate().filter(|(_, route)| route.counted) {
            add(&listener.server, &route.zone, "forward", (l, r));
        }
        add(&listener.server, DROPPED, "", (l, listener.routes.len()));
    }
    places.retain(|place| place.zone != DROPPED || place.total(snapshot, |r| &r.duration).count() > 0);
    places
}

pub(super) fn write(snapshot: &Snapshot<'_>, out: &mut Exposition) {
    let places = places(snapshot);
    requests(snapshot, &places, out);

    let mut family = out.family(Kind::Counter, "coredns_dns_do_requests_total", "Queries with the DO bit.");
    for place in &places {
        let value = place.sum(snapshot, |r| &r.do_requests);
        family.sample(&[("server", place.server), ("zone", place.zone), ("view", "")], value);
    }

    let mut family = out.family(
        Kind::Histogram,
        "coredns_dns_request_duration_seconds",
        "Time from a query to its answer.",
    );
    for place in &places {
        let total = place.total(snapshot, |r| &r.duration);
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
                    let value = place.sum(snapshot, |r| &r.requests[p][f][t]);
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
    of: impl Fn(&RouteStats) -> &[Sizes; 2],
) {
    let mut family = out.family(Kind::Histogram, name, help);
    for place in places {
        for (p, proto) in PROTOCOLS.iter().enumerate() {
            let total = place.total(snapshot, |r| &of(r)[p]);
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
            let value = place.sum(snapshot, |r| &r.responses[i]);
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
