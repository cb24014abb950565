//! The pool: on which path the next query to an upstream goes.
//!
//! TCP: the connection with the fewest queries out. Another one is opened when all are busy and the upstream is known to answer
//! one connection serially (CoreDNS does), or when the oldest query on the least busy one has been out for longer than answers take, up
//! to a ceiling. So a slow answer does not hold up the ones behind it, and an idle node keeps one connection.
//!
//! UDP: a path of its own for each query, until there are so many misses that sockets and connection tracking would suffer;
//! then a set of paths with random ports, each for a short life.

use super::Forwarder;
use super::paths::{OpenPath, TCP_QUERIES_MAX, UDP_QUERIES_MAX};
use crate::api::{Path, Transport};
use crate::cache::Cache;
use crate::config::UpstreamId;
use crate::sim_support::{Fault, Mark, mark, mark_if, planted};
use crate::time::{Duration, Instant};
use alloc::vec::Vec;

/// Patience beyond the smoothed round trip before another connection is opened (design §4a).
const GROW_AFTER: Duration = Duration::from_millis(2);
/// Signs of serial answering that are enough. One may be chance.
const SERIAL_SIGNS: u8 = 2;
/// UDP paths of a pool: with 46 000 ports and 65 536 IDs, guessing both stays out of reach (design §4a).
const UDP_PATHS_MAX: usize = 256;
/// The window in which UDP queries are counted.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// The paths to one upstream that may be shared.
#[derive(Debug, Default)]
pub(super) struct Pool {
    tcp: Vec<Path>,
    udp: Vec<Path>,
    /// How the upstream treats several queries on a connection.
    serial_signs: u8,
    /// It has answered out of order: it works on several at once.
    parallel: bool,
    /// Of the queries that the upstream answered, on whatever path: when the last of them was sent.
    answered_sent_at: Option<Instant>,
    /// UDP queries in this window and in the one before.
    rate: (u32, u32),
    window: Instant,
}

impl Pool {
    /// Whether a path is shared, and lives on when its queries are answered.
    pub(super) fn holds(&self, path: Path) -> bool {
        self.tcp.contains(&path) || self.udp.contains(&path)
    }

    /// Its TCP connections.
    pub(super) fn connections(&self) -> Vec<Path> {
        self.tcp.clone()
    }

    pub(super) fn forget(&mut self, path: Path) {
        self.tcp.retain(|other| *other != path);
        self.udp.retain(|other| *other != path);
    }

    /// Depth 1 is what serves best.
    pub(super) fn is_serial(&self) -> bool {
        !self.parallel && self.serial_signs >= SERIAL_SIGNS
    }

    /// The connection ended with queries unanswered after it had answered others: one at a time, then.
    pub(super) fn ended_early(&mut self) {
        mark(Mark::ConnectionEndedEarly);
        self.serial_signs = SERIAL_SIGNS;
        self.parallel = false;
    }

    /// Learns from an answer: `first` says that no older query was out on its path, `since_last` is the time since the path's
    /// answer before it, while this query was out already, and `apart` is how far apart the two were sent.
    fn learn(&mut self, first: bool, since_last: Option<(Duration, Duration)>, smoothed: Duration) {
        if !first {
            self.parallel = true;
            self.serial_signs = 0;
        } else if let Some((gap, apart)) = since_last
            && gap > apart + smoothed / 4 + Duration::from_micros(500)
        {
            // Sent together and answered one after the other, a good part of a round trip apart.
            self.serial_signs = self.serial_signs.saturating_add(1);
            mark_if(self.is_serial(), Mark::UpstreamIsSerial);
        }
    }

    /// Counts one UDP query and says whether there are more than `rate_max` a second.
    fn is_busy(&mut self, now: Instant, rate_max: u32) -> bool {
        let passed = now.since(self.window);
        if passed >= RATE_WINDOW {
            self.rate = (0, if passed < 2 * RATE_WINDOW { self.rate.0 } else { 0 });
            self.window = now;
        }
        self.rate.0 += 1;
        self.rate.0.max(self.rate.1) > rate_max
    }
}

impl<C: Cache> Forwarder<C> {
    /// The path for the next query to `upstream`. `None`: no path may be opened. `alive_since`: it goes there again, so a connection
    /// must have shown since then that it lives; one that has been idle may have died with the one before (reliability.md F4).
    pub(super) fn path_for(
        &mut self,
        now: Instant,
        upstream: UpstreamId,
        transport: Transport,
        alive_since: Option<Instant>,
    ) -> Option<Path> {
        match transport {
            Transport::Udp => self.udp_path(now, upstream),
            Transport::Tcp => self.tcp_path(now, upstream, alive_since),
        }
    }

    fn tcp_path(&mut self, now: Instant, upstream: UpstreamId, alive_since: Option<Instant>) -> Option<Path> {
        let index = usize::from(upstream.0);
        self.retire_old(now, index);
        let max = self.config.limits.connections_per_upstream_max.max(1) as usize;
        if self.pools[index].tcp.len() >= max {
            self.close_a_silent_connection(now, index);
        }
        let pool = &self.pools[index];
        let load =
            |path: &&Path| self.paths.get((**path).into()).map_or(usize::MAX, |open| open.queries.len());
        let usable = |path: &&Path| {
            let open = self.paths.get((**path).into()).filter(|open| !open.retired);
            open.is_some_and(|open| alive_since.is_none_or(|since| open.is_alive_since(since)))
        };
        let has_room = |path: &&Path| load(path) < TCP_QUERIES_MAX;
        let best = pool.tcp.iter().filter(usable).filter(has_room).min_by_key(load).copied();
        // All retired and still owing answers: better the least busy of them than none.
        let any = best.or_else(|| pool.tcp.iter().filter(has_room).min_by_key(load).copied());
        mark_if(best.is_none() && any.is_some(), Mark::OnlyRetiredConnections);
        let full = pool.tcp.len() >= max;
        let grow = best
            .and_then(|path| self.paths.get(path.into()))
            .is_none_or(|open| self.is_held_up(now, index, open));
        mark_if(grow && full, Mark::PoolFull);
        if grow
            && (!full || planted(Fault::PoolUnbounded))
            && let Some(path) = self.open_path(now, upstream, Transport::Tcp)
        {
            mark_if(best.is_some(), Mark::PoolGrewForHeldUp);
            self.pools[index].tcp.push(path);
            return Some(path);
        }
        self.stats.upstreams[index].connections_reused.add(u64::from(any.is_some()));
        any
    }

    /// Makes room in a full pool: closes the first connection that was retired, brought nothing for the time of a stall, and stayed
    /// silent while the upstream answered on another path what was sent later. What is out on it has been asked again when it was
    /// retired, or will be with the lookup's next attempt. From an upstream that is slow with everything, the answers may still come.
    fn close_a_silent_connection(&mut self, now: Instant, upstream: usize) {
        let patience = self.upstreams[upstream].rtt.stall_after();
        let overtaken_by = self.pools[upstream].answered_sent_at;
        let silent = |path: &&Path| {
            let open = self.paths.get((**path).into()).filter(|open| open.retired);
            let oldest = open.and_then(|open| Some((open, open.queries.first()?.sent_at)));
            oldest.is_some_and(|(open, sent_at)| {
                open.silent_since(sent_at) && overtaken_by > Some(sent_at) && now.since(sent_at) >= patience
            })
        };
        if let Some(path) = self.pools[upstream].tcp.iter().find(silent).copied() {
            mark(Mark::SilentConnectionMadeRoom);
            self.close_path(path);
        }
    }

    /// Whether a query would wait behind others on the least busy connection.
    fn is_held_up(&self, now: Instant, upstream: usize, open: &OpenPath) -> bool {
        // What was overtaken is slow for reasons of its own and holds up nobody.
        let Some(oldest) = open.queries.iter().find(|query| query.sent_at >= open.answered_sent_at) else {
            return false;
        };
        self.pools[upstream].is_serial()
            || now.since(oldest.sent_at) > self.upstreams[upstream].rtt.smoothed() + GROW_AFTER
    }

    /// Retires connections that have lived long enough: behind a Service's address, a new one finds the Pods that are there now.
    fn retire_old(&mut self, now: Instant, upstream: usize) {
        let old: Vec<Path> = self.pools[upstream]
            .tcp
            .iter()
            .copied()
            .filter(|path| self.paths.get((*path).into()).is_some_and(|open| open.retire_at <= now))
            .collect();
        for path in old {
            mark(Mark::ConnectionGrewOld);
            self.retire(now, path);
        }
    }

    fn udp_path(&mut self, now: Instant, upstream: UpstreamId) -> Option<Path> {
        let index = usize::from(upstream.0);
        if !self.pools[index].is_busy(now, self.config.limits.udp_single_rate_max) {
            return self.open_path(now, upstream, Transport::Udp);
        }
        let fresh = |open: &OpenPath| !open.retired && open.used < UDP_QUERIES_MAX && now < open.retire_at;
        if self.pools[index].udp.len() >= UDP_PATHS_MAX {
            let at = self.rng.below(UDP_PATHS_MAX as u32) as usize;
            let path = self.pools[index].udp[at];
            if self.paths.get(path.into()).is_some_and(fresh) {
                mark(Mark::UdpPathShared);
                return Some(path);
            }
            // Its life is over; it leaves the pool, and closes with its last answer.
            mark(Mark::UdpPathReplaced);
            self.pools[index].forget(path);
            self.retire(now, path);
        }
        if let Some(path) = self.open_path(now, upstream, Transport::Udp) {
            self.pools[index].udp.push(path);
            return Some(path);
        }
        self.pools[index].udp.iter().find(|path| self.paths.get((**path).into()).is_some_and(fresh)).copied()
    }

    /// Notes an answer on a path: the path lives, and how the upstream treats several queries at once shows.
    pub(super) fn path_heard(&mut self, now: Instant, path: Path, id: u16) {
        let Some(open) = self.paths.get_mut(path.into()) else { return };
        let last = open.heard_at.replace(now);
        let Some(at) = open.queries.iter().position(|query| query.id == id) else { return };
        let sent_at = open.queries[at].sent_at;
        let apart = sent_at.since(open.answered_sent_at);
        open.answered_sent_at = open.answered_sent_at.max(sent_at);
        let pool = &mut self.pools[usize::from(open.upstream.0)];
        pool.answered_sent_at = pool.answered_sent_at.max(Some(sent_at));
        if open.transport == Transport::Tcp {
            let since_last = last.filter(|last| sent_at < *last).map(|last| (now.since(last), apart));
            let index = usize::from(open.upstream.0);
            self.pools[index].learn(at == 0, since_last, self.upstreams[index].rtt.smoothed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn serial_answers_are_noticed_and_one_out_of_order_disproves_it() {
        let mut pool = Pool::default();
        pool.learn(true, None, ms(20));
        pool.learn(true, Some((ms(20), ms(1))), ms(20));
        assert!(!pool.is_serial());
        pool.learn(true, Some((ms(20), ms(1))), ms(20));
        assert!(pool.is_serial());
        pool.learn(false, Some((ms(1), ms(1))), ms(20));
        assert!(!pool.is_serial());
    }

    #[test]
    fn answers_that_come_as_far_apart_as_they_were_asked_are_no_sign() {
        let mut pool = Pool::default();
        (0..100).for_each(|_| pool.learn(true, Some((ms(1), ms(1))), ms(20)));
        assert!(!pool.is_serial());
    }

    #[test]
    fn the_rate_is_that_of_the_last_second_or_two() {
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let mut pool = Pool::default();
        assert!(!(0..100).any(|n| pool.is_busy(at(n), 100)));
        assert!(pool.is_busy(at(101), 100));
        assert!(pool.is_busy(at(1_200), 100), "the second before was busy");
        assert!(!pool.is_busy(at(9_000), 100));
    }
}
