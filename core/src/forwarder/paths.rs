//! Paths: the ways to upstreams that are open, and the queries that are out on each.
//!
//! | transport | queries on a path | opened | closed |
//! | --- | --- | --- | --- |
//! | UDP | one; under load up to [`UDP_QUERIES_MAX`] within [`UDP_LIFE`] | for the query, from a random port | with its last query |
//! | TCP | many, matched by ID, answered in any order | when the pool grows | when idle for `expire`, when old, when lost |
//!
//! A path that is *retired* gets no new queries but may still bring answers. A query whose lookup is over stays listed on a TCP
//! path as *abandoned*, because the upstream is still at work on it: it counts as load, and its ID is not drawn again.

use super::Forwarder;
use crate::api::{FailureCause, Path, PathRequest, Target, Transmit, Transport};
use crate::cache::Cache;
use crate::config::UpstreamId;
use crate::rng::Rng;
use crate::sim_support::{Fault, Mark, mark, mark_if, planted};
use crate::slab::Ticket;
use crate::time::{Duration, Instant};
use crate::wire::{Edns, Flags, HEADER_LEN, Header, put_opt};
use smallvec::SmallVec;

/// Source ports are drawn from here up: above the ports that daemons listen on.
const SOURCE_PORT_MIN: u16 = 16_384;
/// Kubernetes' default NodePort range is left out: a UDP service may be waiting to bind there.
const NODE_PORTS: core::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Draws until the kernel may choose: each draw fails with the share of ports in use.
const PORT_DRAWS_MAX: u8 = 8;
/// Queries on a UDP path of the pool: few enough that learning its port is worth little (design §4a).
pub(super) const UDP_QUERIES_MAX: u32 = 64;
/// Queries out on one TCP path, abandoned ones included (reliability.md §4). More wait for another path.
pub(super) const TCP_QUERIES_MAX: usize = 256;
/// Life of a UDP path of the pool, for the same reason.
pub(super) const UDP_LIFE: Duration = Duration::from_secs(2);

/// An open path.
#[derive(Debug)]
pub(super) struct OpenPath {
    pub(super) upstream: UpstreamId,
    pub(super) transport: Transport,
    /// UDP always; TCP once the transport has said so. Until then queries wait.
    pub(super) connected: bool,
    /// It gets no new queries.
    pub(super) retired: bool,
    opened_at: Instant,
    /// When it is to be retired.
    pub(super) retire_at: Instant,
    /// When it last brought an answer.
    pub(super) heard_at: Option<Instant>,
    /// Queries sent on it so far.
    pub(super) used: u32,
    /// Replies with an ID that is not out here.
    pub(super) wrong_ids: u8,
    /// Oldest first.
    pub(super) queries: SmallVec<[OutQuery; 1]>,
    /// UDP: IDs of queries that are out no more, answered or given up. A late answer to one of them must not meet another question
    /// (design §4a: port and ID together are one query's).
    spent_ids: SmallVec<[u16; 4]>,
    /// Of the queries answered: when the last of them was sent. What was sent before and is still out has been overtaken.
    pub(super) answered_sent_at: Instant,
    port_draws: u8,
}

/// A query that is out.
#[derive(Copy, Clone, Debug)]
pub(super) struct OutQuery {
    /// Our message ID, not the client's.
    pub(super) id: u16,
    pub(super) purpose: Purpose,
    pub(super) sent_at: Instant,
    /// Whether it carries an OPT.
    pub(super) edns: bool,
}

/// What a query is for.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Purpose {
    Lookup(Ticket),
    Probe,
    /// Its lookup is over.
    Abandoned,
}

impl Purpose {
    pub(super) const fn is_lookup(self) -> bool {
        matches!(self, Purpose::Lookup(_))
    }
}

/// One query on one path: what a lookup remembers of an attempt.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct Attempt {
    pub(super) path: Path,
    pub(super) id: u16,
}

impl OpenPath {
    /// Queries that somebody waits for.
    pub(super) fn live(&self) -> impl Iterator<Item = &OutQuery> {
        self.queries.iter().filter(|query| query.purpose != Purpose::Abandoned)
    }

    /// It was opened or brought an answer at that time or later.
    pub(super) fn is_alive_since(&self, time: Instant) -> bool {
        self.opened_at >= time || self.heard_at.is_some_and(|heard| heard >= time)
    }

    /// Nothing came back since the query was sent.
    pub(super) fn silent_since(&self, sent_at: Instant) -> bool {
        self.heard_at.is_none_or(|heard| heard < sent_at)
    }
}

impl<C: Cache> Forwarder<C> {
    /// Opens a path. `None`: as many are open as may be.
    pub(super) fn open_path(
        &mut self,
        now: Instant,
        upstream: UpstreamId,
        transport: Transport,
    ) -> Option<Path> {
        if self.paths.len() >= self.config.limits.paths_max as usize && !self.close_an_idle_path() {
            mark(Mark::PathsExhausted);
            self.stats.paths_exhausted.add(1);
            return None;
        }
        let config = &self.upstreams[usize::from(upstream.0)].config;
        let (retire_at, source_port) = match transport {
            Transport::Udp => (now + UDP_LIFE, Some(draw_port(&mut self.rng))),
            Transport::Tcp => (now + spread(config.max_age, &mut self.rng), None),
        };
        let address = config.address;
        let ticket = self.paths.insert(OpenPath {
            upstream,
            transport,
            connected: transport == Transport::Udp,
            retired: false,
            opened_at: now,
            retire_at,
            heard_at: None,
            used: 0,
            wrong_ids: 0,
            queries: SmallVec::new(),
            spent_ids: SmallVec::new(),
            answered_sent_at: now,
            port_draws: 1,
        });
        let path = Path { slot: ticket.slot, generation: ticket.generation };
        self.path_requests.push_back(PathRequest::Open { path, transport, upstream: address, source_port });
        self.stats.upstreams[usize::from(upstream.0)].paths_opened[transport as usize].add(1);
        self.stats.paths.set(self.paths.len() as u64);
        Some(path)
    }

    /// Closes a path that nobody waits on, to make room for one that somebody needs. Looks through all of them, which only a machine
    /// that has run out of sockets has to do.
    fn close_an_idle_path(&mut self) -> bool {
        let idle = self.paths.iter_mut().find(|(_, open)| open.queries.is_empty()).map(|(ticket, _)| ticket);
        let Some(ticket) = idle else { return false };
        mark(Mark::IdlePathMadeRoom);
        self.close_path(Path { slot: ticket.slot, generation: ticket.generation });
        true
    }

    /// Puts a query on a path, unless that is full: it leaves at once, or when the path is connected.
    pub(super) fn add_query(&mut self, now: Instant, path: Path, purpose: Purpose) -> Option<Attempt> {
        // Far below the number of IDs, so that drawing one always ends soon.
        let open = self.paths.get_mut(path.into()).filter(|open| open.queries.len() < TCP_QUERIES_MAX)?;
        let known = &mut self.upstreams[usize::from(open.upstream.0)];
        let wants_edns = match purpose {
            Purpose::Lookup(ticket) => self.lookups.get(ticket).is_some_and(|lookup| !lookup.without_edns),
            Purpose::Probe | Purpose::Abandoned => false,
        };
        known.health.sent(now);
        let id = loop {
            let id = if planted(Fault::IdNotRandom) { open.used as u16 } else { self.rng.next_u16() };
            // Unique on the path: the ID is all that tells two answers to one question apart.
            if open.queries.iter().all(|query| query.id != id) && !open.spent_ids.contains(&id) {
                break id;
            }
            mark(Mark::IdDrawnAgain);
        };
        open.used += 1;
        known.outstanding += u32::from(purpose.is_lookup());
        open.queries.push(OutQuery { id, purpose, sent_at: now, edns: wants_edns && known.speaks_edns(now) });
        let attempt = Attempt { path, id };
        if open.connected {
            self.sends.push_back(attempt);
        }
        self.tend_path(now, path);
        Some(attempt)
    }

    /// Takes a query off its path.
    pub(super) fn take_query(&mut self, now: Instant, attempt: Attempt) -> Option<OutQuery> {
        let open = self.paths.get_mut(attempt.path.into())?;
        let at = open.queries.iter().position(|query| query.id == attempt.id)?;
        let query = open.queries.remove(at);
        if open.transport == Transport::Udp {
            open.spent_ids.push(query.id);
        }
        self.upstreams[usize::from(open.upstream.0)].outstanding -= u32::from(query.purpose.is_lookup());
        self.tend_path(now, attempt.path);
        Some(query)
    }

    /// The lookup of a query is over.
    pub(super) fn abandon(&mut self, now: Instant, attempt: Attempt) {
        let Some(open) = self.paths.get_mut(attempt.path.into()) else { return };
        let under_way = open.transport == Transport::Tcp && open.connected;
        match open.queries.iter_mut().find(|query| query.id == attempt.id) {
            Some(query) if under_way => {
                let was = core::mem::replace(&mut query.purpose, Purpose::Abandoned);
                self.upstreams[usize::from(open.upstream.0)].outstanding -= u32::from(was.is_lookup());
            }
            Some(_) => {
                self.take_query(now, attempt);
            }
            None => {}
        }
    }

    /// After a change: closes a path that is of no use any more, or sets the time to look at it again.
    pub(super) fn tend_path(&mut self, now: Instant, path: Path) {
        let Some(open) = self.paths.get(path.into()) else { return };
        let empty = open.queries.is_empty();
        let pooled = self.pools[usize::from(open.upstream.0)].holds(path);
        let expire = self.upstreams[usize::from(open.upstream.0)].config.expire;
        let useless = empty && open.used > 0 && (!pooled || open.retired);
        if useless && planted(Fault::PathLeaked) {
            self.path_timers.clear(path.slot);
            return;
        }
        if useless {
            self.close_path(path);
            return;
        }
        match open.transport {
            // Its end is fixed, whatever is still put on it for want of another.
            _ if open.retired => {}
            Transport::Udp => self.path_timers.set(path.slot, open.retire_at),
            Transport::Tcp => self.path_timers.set(path.slot, now + expire),
        }
    }

    /// The timer of a path rang: nothing was sent or heard on it for `expire`, or its life is over.
    pub(super) fn path_timed_out(&mut self, now: Instant, slot: u32) {
        let Some((ticket, open)) = self.paths.at(slot) else { return };
        let path = Path { slot: ticket.slot, generation: ticket.generation };
        if open.retired || open.live().next().is_none() {
            mark_if(!open.queries.is_empty(), Mark::PathEndedOwingAnswers);
            // Whatever is still out on it has waited long enough; its lookups go elsewhere.
            self.path_lost(now, path, FailureCause::TimedOut);
        } else {
            self.retire(now, path);
        }
    }

    /// No new queries on this path. What is out on it may still be answered, for as long as a lookup lasts; then it closes, so that
    /// retired paths cannot keep new ones from being opened.
    pub(super) fn retire(&mut self, now: Instant, path: Path) {
        let Some(open) = self.paths.get_mut(path.into()).filter(|open| !open.retired) else { return };
        mark_if(!open.queries.is_empty(), Mark::PathRetiredWithQueriesOut);
        open.retired = true;
        self.path_timers.set(path.slot, now + super::lookup::LOOKUP_TIME_MAX);
        self.tend_path(now, path);
    }

    /// Forgets a path and has its socket closed. Its queries come back, for whoever wants to ask again.
    pub(super) fn close_path(&mut self, path: Path) -> Option<OpenPath> {
        let open = self.paths.remove(path.into())?;
        self.path_timers.clear(path.slot);
        self.path_requests.push_back(PathRequest::Close { path });
        self.pools[usize::from(open.upstream.0)].forget(path);
        self.stats.paths.set(self.paths.len() as u64);
        for query in open.live() {
            self.upstreams[usize::from(open.upstream.0)].outstanding -= u32::from(query.purpose.is_lookup());
            if let Purpose::Lookup(ticket) = query.purpose
                && let Some(lookup) = self.lookups.get_mut(ticket)
            {
                lookup.out.retain(|attempt| *attempt != Attempt { path, id: query.id });
            }
        }
        Some(open)
    }

    /// A drawn port was in use. If even the kernel finds none, this machine has none left.
    pub(super) fn draw_again(&mut self, now: Instant, path: Path) {
        let Some(open) = self.paths.get_mut(path.into()) else { return };
        if open.transport == Transport::Tcp || open.port_draws > PORT_DRAWS_MAX {
            mark(Mark::NoPortLeft);
            self.path_lost(now, path, FailureCause::Local);
            return;
        }
        open.port_draws += 1;
        mark(if open.port_draws > PORT_DRAWS_MAX { Mark::PortLeftToKernel } else { Mark::PortDrawnAgain });
        let source_port =
            if open.port_draws > PORT_DRAWS_MAX { None } else { Some(draw_port(&mut self.rng)) };
        let upstream = self.upstreams[usize::from(open.upstream.0)].config.address;
        let transport = open.transport;
        self.path_requests.push_back(PathRequest::Open { path, transport, upstream, source_port });
    }

    /// A TCP path is connected: what waited leaves now.
    pub(super) fn connected(&mut self, now: Instant, path: Path) {
        let Some(open) = self.paths.get_mut(path.into()) else { return };
        if open.connected {
            return;
        }
        open.connected = true;
        for query in &mut open.queries {
            query.sent_at = now;
            self.sends.push_back(Attempt { path, id: query.id });
        }
    }

    /// The next query that can leave.
    pub(super) fn next_upstream_query(&mut self, out: &mut [u8]) -> Option<Transmit> {
        loop {
            let attempt = self.sends.pop_front()?;
            let Some(open) = self.paths.get(attempt.path.into()) else {
                mark(Mark::PathGoneBeforeSending);
                continue;
            };
            let Some(query) = open.queries.iter().find(|query| query.id == attempt.id) else { continue };
            let len = match query.purpose {
                Purpose::Lookup(ticket) => {
                    let Some(lookup) = self.lookups.get(ticket) else { continue };
                    let mut flags = if lookup.rd { Flags::RD } else { 0 };
                    flags |= if lookup.key.cd() { Flags::CD } else { 0 };
                    // AD asks for the truth about AD, so that a shared answer can tell it to whoever wants it (B07).
                    let udp_size = self.config.zones[lookup.zone].udp_size_max;
                    let edns = query.edns.then_some((udp_size, lookup.key.do_bit()));
                    write_query(query.id, flags | Flags::AD, &lookup.question, edns, out)
                }
                Purpose::Probe => {
                    let config = &self.upstreams[usize::from(open.upstream.0)].config;
                    let flags = if config.probe_rd { Flags::RD } else { 0 };
                    write_query(query.id, flags, &super::probe::question(config), None, out)
                }
                Purpose::Abandoned => continue,
            };
            return Some(Transmit { target: Target::Upstream(attempt.path), len });
        }
    }
}

fn draw_port(rng: &mut Rng) -> u16 {
    let skipped = NODE_PORTS.end() - NODE_PORTS.start() + 1;
    let port = SOURCE_PORT_MIN + rng.below(u32::from(u16::MAX - SOURCE_PORT_MIN - skipped) + 1) as u16;
    if port < *NODE_PORTS.start() { port } else { port + skipped }
}

/// A quarter more or less, so that connections that were opened together do not end together.
fn spread(time: Duration, rng: &mut Rng) -> Duration {
    time * (750 + rng.below(501)) / 1000
}

/// Writes a query of ours; `edns` is the size we advertise and the DO bit. Returns its length.
fn write_query(id: u16, flags: u16, question: &[u8], edns: Option<(u16, bool)>, out: &mut [u8]) -> usize {
    Header { id, flags: Flags(flags), counts: [1, 0, 0, u16::from(edns.is_some())] }.write(out);
    let end = HEADER_LEN + question.len();
    out[HEADER_LEN..end].copy_from_slice(question);
    let Some((udp_size, do_bit)) = edns else { return end };
    let len = put_opt(out, end, Edns { udp_size, rcode_high: 0, version: 0, do_bit }, None);
    if planted(Fault::QueriesPadded) {
        // RFC 7830's option, 12, with 400 bytes, and the OPT's length.
        out[len..len + 404].fill(0);
        out[len..len + 4].copy_from_slice(&[0, 12, 1, 144]);
        out[len - 2..len].copy_from_slice(&[1, 148]);
        return len + 404;
    }
    len
}

impl From<Path> for Ticket {
    fn from(path: Path) -> Ticket {
        Ticket { slot: path.slot, generation: path.generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    #[test]
    fn ports_are_spread_over_their_range_and_avoid_node_ports() {
        let mut rng = Rng::new(&Seed([9; 32]));
        let ports: alloc::vec::Vec<u16> = (0..100_000).map(|_| draw_port(&mut rng)).collect();
        assert!(ports.iter().all(|p| *p >= SOURCE_PORT_MIN && !NODE_PORTS.contains(p)));
        assert!(ports.contains(&SOURCE_PORT_MIN) && ports.contains(&u16::MAX));
        let low = ports.iter().filter(|p| **p < 30_000).count() as f64 / 100_000.0;
        assert!((low - 13_616.0 / 46_384.0).abs() < 0.01, "{low}");
    }

    #[test]
    fn ages_are_spread_by_a_quarter() {
        let mut rng = Rng::new(&Seed([1; 32]));
        let ages: alloc::vec::Vec<_> =
            (0..1000).map(|_| spread(Duration::from_secs(60), &mut rng).as_secs()).collect();
        assert!(ages.iter().all(|age| (45..=75).contains(age)));
        assert!(ages.iter().any(|age| *age < 48) && ages.iter().any(|age| *age > 72));
    }
}
