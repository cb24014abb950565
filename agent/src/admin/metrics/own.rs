//! `nodens_*`: what CoreDNS has no number for.

use nodens_core::stats::Counter;
use nodens_core::{DropReason, Rejection, Stats};
use nodens_runtime::{CloseReason, Vitals};

use super::{Snapshot, Worker, sum};
use crate::admin::exposition::{Exposition, Kind};

/// Name, help and where the number is.
type Simple<T> = (&'static str, &'static str, fn(&T) -> &Counter);

const COUNTERS: [Simple<Stats>; 7] = [
    ("nodens_coalesced_total", "Queries that joined a lookup already under way.", |s| &s.coalesced),
    ("nodens_failure_cache_hits_total", "Queries answered from the table of recent failures.", |s| {
        &s.failure_hits
    }),
    ("nodens_shed_total", "Queries answered with SERVFAIL because a ceiling was reached.", |s| &s.shed),
    ("nodens_upstream_replies_late_total", "Replies that came after their lookup had ended.", |s| {
        &s.replies_late
    }),
    (
        "nodens_upstream_trailing_bytes_total",
        "Replies with bytes after their last record, which were cut off.",
        |s| &s.trailing_bytes_cut,
    ),
    (
        "nodens_upstream_sockets_exhausted_total",
        "Upstream sockets that were needed while the ceiling was reached.",
        |s| &s.paths_exhausted,
    ),
    ("nodens_truncated_total", "Answers that had to be truncated.", |s| &s.truncated),
];

const GAUGES: [Simple<Stats>; 3] = [
    ("nodens_lookups", "Lookups in flight.", |s| &s.lookups),
    ("nodens_waiters", "Clients waiting for a lookup.", |s| &s.waiters),
    ("nodens_upstream_sockets", "Upstream sockets open.", |s| &s.paths),
];

const SOCKETS: [Simple<Vitals>; 4] = [
    ("nodens_tcp_connections_opened_total", "TCP connections accepted from clients.", |v| {
        &v.connections_opened
    }),
    (
        "nodens_tcp_connections_refused_total",
        "TCP connections turned away because all others were busy.",
        |v| &v.connections_refused,
    ),
    ("nodens_accept_failures_total", "TCP connections that could not be accepted.", |v| &v.accept_failures),
    ("nodens_udp_send_failures_total", "UDP answers that the kernel did not take.", |v| &v.udp_send_failures),
];

pub(super) fn write(snapshot: &Snapshot<'_>, out: &mut Exposition) {
    let workers = snapshot.workers;
    for (name, help, counter) in COUNTERS {
        out.counter(name, help, sum(workers, |s| Some(counter(s))));
    }
    for (name, help, gauge) in GAUGES {
        out.gauge(name, help, sum(workers, |s| Some(gauge(s))));
    }

    let mut family =
        out.family(Kind::Counter, "nodens_queries_dropped_total", "Queries that got no answer, by reason.");
    for (i, reason) in DropReason::LABELS.iter().enumerate() {
        family.sample(&[("reason", reason)], sum(workers, |s| s.dropped.get(i)));
    }
    let mut family = out.family(
        Kind::Counter,
        "nodens_upstream_replies_rejected_total",
        "Messages from upstreams that were not accepted, by reason.",
    );
    for (i, reason) in Rejection::LABELS.iter().enumerate() {
        family.sample(&[("reason", reason)], sum(workers, |s| s.rejected.get(i)));
    }

    let skipped: u64 = (0..snapshot.config.zones.len())
        .map(|z| sum(workers, |s| s.zones.get(z).map(|zone| &zone.insert_skipped)))
        .sum();
    out.counter(
        "nodens_cache_insert_skipped_total",
        "Answers not kept because the shard was busy; each costs one more upstream query.",
        skipped,
    );
    out.gauge("nodens_cache_bytes", "Bytes of all cache entries.", snapshot.cache.bytes);
    out.gauge("nodens_cache_bytes_max", "The ceiling of nodens_cache_bytes.", snapshot.cache.bytes_max);

    let mut family = out.family(
        Kind::Gauge,
        "nodens_worker_heartbeat_age_seconds",
        "How long ago a worker last went around its loop.",
    );
    for (i, worker) in workers.iter().enumerate() {
        if let Some(age) = worker.heartbeat_age {
            family.sample(&[("worker", &i.to_string())], age.as_secs_f64());
        }
    }
    let mut family =
        out.family(Kind::Gauge, "nodens_runtime", "Workers by what drives their sockets: epoll or io_uring.");
    for name in ["tokio", "uring"] {
        let count = workers.iter().filter(|w| w.runtime == name && w.heartbeat_age.is_some()).count();
        family.sample(&[("name", name)], count);
    }
    let lost = sum(workers, |s| Some(&s.events_lost)) + vital(workers, |v| &v.events_dropped);
    out.counter(
        "nodens_log_events_lost_total",
        "Log events dropped because they came faster than they could be written.",
        lost,
    );
    sockets(workers, out);
}

fn sockets(workers: &[Worker], out: &mut Exposition) {
    let open = vital(workers, |v| &v.connections);
    out.gauge("nodens_tcp_connections", "TCP connections of clients that are open now.", open);
    out.gauge(
        "nodens_tcp_bytes_held",
        "Bytes of half queries and unsent answers held for TCP clients.",
        vital(workers, |v| &v.tcp_bytes_held),
    );
    for (name, help, counter) in SOCKETS {
        out.counter(name, help, vital(workers, counter));
    }
    let mut family = out.family(
        Kind::Counter,
        "nodens_tcp_connections_closed_total",
        "TCP connections of clients that ended, by reason.",
    );
    for (i, reason) in CloseReason::LABELS.iter().enumerate() {
        family.sample(&[("reason", reason)], vital(workers, |v| &v.connections_closed[i]));
    }
}

/// The sum of one socket counter over all workers.
fn vital(workers: &[Worker], counter: impl Fn(&Vitals) -> &Counter) -> u64 {
    workers.iter().map(|worker| counter(&worker.vitals).get()).sum()
}
