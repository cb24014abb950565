//! `coredns_forward_*` and `coredns_proxy_*`: the upstreams, by address.
//!
//! The same address may be an upstream of several zones with different settings; for a dashboard it is one server, and two
//! series with the same labels would be a broken text. So upstreams are summed by address.

use std::net::SocketAddr;

use nodens_core::stats::{Counter, DURATION_BOUNDS_US, RCODE_LABELS, UpstreamStats};
use nodens_core::{Stats, Transport};

use super::{Snapshot, Total, US_PER_S, sum};
use crate::admin::exposition::{Exposition, Kind};

/// `proxy_name` of everything that the forward plug-in asks.
const PROXY: &str = "forward";

/// An address and the indices that stand for it.
struct Peer {
    to: String,
    indices: Vec<usize>,
}

impl Peer {
    fn stats<'s>(&self, stats: &'s Stats) -> impl Iterator<Item = &'s UpstreamStats> {
        self.indices.iter().filter_map(|i| stats.upstreams.get(*i))
    }

    fn sum(&self, snapshot: &Snapshot<'_>, counter: impl Fn(&UpstreamStats) -> &Counter) -> u64 {
        let all = snapshot.workers.iter().flat_map(|worker| self.stats(&worker.stats));
        all.map(|stats| counter(stats).get()).sum()
    }

    /// Replies with one RCODE.
    fn replies(&self, snapshot: &Snapshot<'_>, rcode: usize) -> Total {
        let mut total = Total::of_buckets(DURATION_BOUNDS_US.len() + 1);
        let all = snapshot.workers.iter().flat_map(|worker| self.stats(&worker.stats));
        all.for_each(|stats| total.add(&stats.duration[rcode]));
        total
    }
}

fn peers(snapshot: &Snapshot<'_>) -> Vec<Peer> {
    let mut peers: Vec<(SocketAddr, Peer)> = Vec::new();
    for (i, upstream) in snapshot.config.upstreams.iter().enumerate() {
        match peers.iter_mut().find(|(address, _)| *address == upstream.address) {
            Some((_, peer)) => peer.indices.push(i),
            None => {
                let peer = Peer { to: upstream.address.to_string(), indices: vec![i] };
                peers.push((upstream.address, peer));
            }
        }
    }
    peers.into_iter().map(|(_, peer)| peer).collect()
}

pub(super) fn write(snapshot: &Snapshot<'_>, out: &mut Exposition) {
    let peers = peers(snapshot);
    forward(snapshot, &peers, out);

    let mut family = out.family(
        Kind::Histogram,
        "coredns_proxy_request_duration_seconds",
        "Time from a message to an upstream to its reply.",
    );
    for (peer, rcode, label) in with_rcodes(&peers) {
        let total = peer.replies(snapshot, rcode);
        if total.count() > 0 {
            let labels = [("proxy_name", PROXY), ("to", &peer.to), ("rcode", label)];
            family.histogram(&labels, &DURATION_BOUNDS_US, &total.buckets, total.sum, US_PER_S);
        }
    }
    let mut family = out.family(
        Kind::Counter,
        "coredns_proxy_healthcheck_failures_total",
        "Probes of an upstream that failed.",
    );
    for peer in &peers {
        let value = peer.sum(snapshot, |s| &s.probe_failures);
        family.sample(&[("proxy_name", PROXY), ("to", &peer.to)], value);
    }

    let mut family = out.family(
        Kind::Counter,
        "coredns_proxy_conn_cache_hits_total",
        "Queries that went out on a connection that was open already.",
    );
    for peer in &peers {
        let value = peer.sum(snapshot, |s| &s.connections_reused);
        family.sample(&[("proxy_name", PROXY), ("to", &peer.to), ("proto", "tcp")], value);
    }
    let mut family = out.family(
        Kind::Counter,
        "coredns_proxy_conn_cache_misses_total",
        "Sockets opened to an upstream; over UDP one per attempt is meant to be.",
    );
    for peer in &peers {
        for (transport, proto) in [(Transport::Udp, "udp"), (Transport::Tcp, "tcp")] {
            let value = peer.sum(snapshot, |s| &s.paths_opened[transport as usize]);
            family.sample(&[("proxy_name", PROXY), ("to", &peer.to), ("proto", proto)], value);
        }
    }

    let mut family = out.family(
        Kind::Counter,
        "nodens_upstream_retransmissions_total",
        "Attempts beyond a lookup's first.",
    );
    for peer in &peers {
        family.sample(&[("to", &peer.to)], peer.sum(snapshot, |s| &s.retransmissions));
    }
    let mut family = out.family(Kind::Counter, "nodens_upstream_probes_total", "Probes sent to an upstream.");
    for peer in &peers {
        family.sample(&[("to", &peer.to)], peer.sum(snapshot, |s| &s.probes));
    }
    // Each worker judges for itself, so the number of workers is part of the picture.
    let mut family = out.family(
        Kind::Gauge,
        "nodens_upstream_down",
        "How many workers hold the upstream for down; 0 is well.",
    );
    for peer in &peers {
        let down = snapshot.workers.iter().filter(|w| peer.stats(&w.stats).any(|s| s.down.get() > 0)).count();
        family.sample(&[("to", &peer.to)], down);
    }
}

/// What CoreDNS counts for the plug-in as a whole, and the names that it had before 1.11, which many dashboards still ask for.
fn forward(snapshot: &Snapshot<'_>, peers: &[Peer], out: &mut Exposition) {
    let all_down = sum(snapshot.workers, |s| Some(&s.all_down));
    out.counter(
        "coredns_forward_healthcheck_broken_total",
        "Lookups that began while all upstreams of their zone were down.",
        all_down,
    );
    let rejects: u64 = (0..snapshot.config.zones.len())
        .map(|z| sum(snapshot.workers, |s| s.zones.get(z).map(|zone| &zone.max_concurrent_rejects)))
        .sum();
    out.counter(
        "coredns_forward_max_concurrent_rejects_total",
        "Queries turned away by max_concurrent.",
        rejects,
    );
    let mut family = out.family(
        Kind::Counter,
        "coredns_forward_requests_total",
        "Messages sent to an upstream, probes not counted.",
    );
    for peer in peers {
        family.sample(&[("to", &peer.to)], peer.sum(snapshot, |s| &s.attempts));
    }
    let mut family =
        out.family(Kind::Counter, "coredns_forward_responses_total", "Replies of an upstream by RCODE.");
    for (peer, rcode, label) in with_rcodes(peers) {
        let count = peer.replies(snapshot, rcode).count();
        if count > 0 {
            family.sample(&[("to", &peer.to), ("rcode", label)], count);
        }
    }
}

fn with_rcodes(peers: &[Peer]) -> impl Iterator<Item = (&Peer, usize, &'static str)> {
    peers.iter().flat_map(|peer| RCODE_LABELS.iter().enumerate().map(move |(i, label)| (peer, i, *label)))
}
