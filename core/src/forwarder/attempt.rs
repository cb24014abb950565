//! Attempts: one transmission of a lookup to one upstream, each on a path of its own.
//!
//! A new socket with a random port for every attempt makes a forged reply a guess of port and ID together (RFC 5452 §9.2),
//! and escapes connection-tracking entries that lead to a dead Pod (reliability.md F5).
//!
//! | event | what follows |
//! | --- | --- |
//! | the timer, another upstream is left | ask it as well; earlier attempts stay open, the first valid answer wins |
//! | the timer, all were asked | ask again, if the retry budget allows |
//! | refused or not sent | the next upstream at once; the same one after [`PACE`] |
//! | a truncated answer | the same upstream over TCP |
//! | every attempt refused, [`connects_max`] reached | the lookup fails |

use super::Forwarder;
use super::lookup::Lookup;
use crate::api::{FailureCause, Path, PathEvent, PathRequest, Target, Transmit, Transport};
use crate::cache::Cache;
use crate::config::UpstreamId;
use crate::rng::Rng;
use crate::slab::Ticket;
use crate::time::{Duration, Instant};
use crate::upstream::Wellness;
use crate::wire::{Edns, Flags, HEADER_LEN, Header, put_opt};

/// Transmissions of one lookup (reliability.md F7: six within three seconds survive 10 % loss each way).
pub(super) const ATTEMPTS_MAX: u32 = 6;
/// Paths that one lookup keeps open for late answers; the oldest is closed for the next.
const PATHS_PER_LOOKUP_MAX: usize = 4;
/// Between two attempts at the same upstream that fail at once, so that a dead one is not hammered.
const PACE: Duration = Duration::from_millis(20);
/// Source ports are drawn from here up: above the ports that daemons listen on.
const SOURCE_PORT_MIN: u16 = 16_384;
/// Kubernetes' default NodePort range is left out: a UDP service may be waiting to bind there.
const NODE_PORTS: core::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Draws until the kernel may choose: each draw fails with the share of ports in use.
const PORT_DRAWS_MAX: u8 = 8;

/// Connects that may fail before a lookup gives up, as CoreDNS' `max_connect_attempts`: twice the number of upstreams.
pub(super) fn connects_max(lookup: &Lookup) -> u32 {
    2 * lookup.order.len() as u32
}

/// A path that is open or opening, and the one query that is out on it.
#[derive(Debug)]
pub(super) struct OpenPath {
    pub(super) upstream: UpstreamId,
    pub(super) transport: Transport,
    pub(super) purpose: Purpose,
    /// Our message ID, not the client's.
    pub(super) id: u16,
    pub(super) sent_at: Instant,
    /// Whether the query carries an OPT.
    pub(super) edns: bool,
    /// Replies with another ID that arrived here.
    pub(super) wrong_ids: u8,
    port_draws: u8,
}

/// What a path is for.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Purpose {
    Lookup(Ticket),
    Probe,
}

/// Retransmissions are paid for with lookups: at most a fifth more traffic over time (reliability.md F7), so that loss is
/// survived and an outage is not multiplied by six.
#[derive(Debug)]
pub(super) struct RetryBudget {
    fifths: u32,
}

impl RetryBudget {
    /// A burst of 512 retransmissions.
    const FIFTHS_MAX: u32 = 5 * 512;

    pub(super) const fn new() -> Self {
        RetryBudget { fifths: Self::FIFTHS_MAX }
    }

    pub(super) fn earn(&mut self) {
        self.fifths = (self.fifths + 1).min(Self::FIFTHS_MAX);
    }

    fn spend(&mut self) -> bool {
        let enough = self.fifths >= 5;
        if enough {
            self.fifths -= 5;
        }
        enough
    }
}

impl<C: Cache> Forwarder<C> {
    /// Asks the next upstream in the lookup's order over UDP and sets the timer for the one after it.
    pub(super) fn next_attempt(&mut self, now: Instant, ticket: Ticket) {
        let Some(lookup) = self.lookups.get_mut(ticket) else { return };
        let turn = lookup.attempts_made as usize;
        let upstreams = lookup.order.len();
        let upstream = lookup.order[turn % upstreams];
        // Every upstream may be asked once; asking one again costs budget. The first repetition is always free: without it a single
        // lost datagram would cost the client its patience.
        // Who said "truncated" would only say it again: while TCP is under way nobody is asked twice.
        let pointless = lookup.truncated && turn >= upstreams && !lookup.out.is_empty();
        let paid = !pointless && (turn <= upstreams || self.retry_budget.spend());
        lookup.attempts_made += 1;
        let more = lookup.attempts_made < ATTEMPTS_MAX;
        let another_next = (turn + 1) < upstreams;
        let patience = self.upstreams[usize::from(upstream.0)].rtt;
        let wait = if another_next { patience.hedge_after() } else { patience.retransmit_after() };
        lookup.next_attempt_at = if more { now + wait } else { lookup.deadline };
        if paid {
            if turn > 0 {
                self.stats.upstreams[usize::from(upstream.0)].retransmissions.add(1);
            }
            let out = self.lookups.get(ticket).map(|lookup| &lookup.out[..]).unwrap_or_default();
            if out.len() >= PATHS_PER_LOOKUP_MAX {
                self.close_path(out[0]);
            }
            self.open_attempt(now, ticket, upstream, Transport::Udp);
        }
        self.lookups.arm(ticket);
    }

    /// Opens a path to `upstream` for a lookup and queues its query. False if no more paths may be open.
    pub(super) fn open_attempt(
        &mut self,
        now: Instant,
        ticket: Ticket,
        upstream: UpstreamId,
        transport: Transport,
    ) -> bool {
        let opened = self.open_path(now, upstream, transport, Purpose::Lookup(ticket));
        let Some(lookup) = self.lookups.get_mut(ticket) else { return false };
        let Some(path) = opened else {
            lookup.last_cause = FailureCause::Local;
            return false;
        };
        lookup.out.push(path);
        self.stats.upstreams[usize::from(upstream.0)].attempts.add(1);
        true
    }

    /// Opens a path; a UDP path can be sent on at once, a TCP path when it is connected.
    pub(super) fn open_path(
        &mut self,
        now: Instant,
        upstream: UpstreamId,
        transport: Transport,
        purpose: Purpose,
    ) -> Option<Path> {
        if self.paths.len() >= self.config.limits.paths_max as usize {
            self.stats.paths_exhausted.add(1);
            return None;
        }
        let known = &mut self.upstreams[usize::from(upstream.0)];
        let edns = known.speaks_edns(now);
        let address = known.config.address;
        known.health.sent(now);
        let ticket = self.paths.insert(OpenPath {
            upstream,
            transport,
            purpose,
            id: self.rng.next_u16(),
            sent_at: now,
            edns,
            wrong_ids: 0,
            port_draws: 1,
        });
        let path = Path { slot: ticket.slot, generation: ticket.generation };
        let source_port = match transport {
            Transport::Udp => Some(draw_port(&mut self.rng)),
            Transport::Tcp => None,
        };
        self.path_requests.push_back(PathRequest::Open { path, transport, upstream: address, source_port });
        if transport == Transport::Udp {
            self.sends.push_back(path);
        }
        self.stats.paths.set(self.paths.len() as u64);
        Some(path)
    }

    /// Forgets a path and has its socket closed.
    pub(super) fn close_path(&mut self, path: Path) -> Option<OpenPath> {
        let open = self.paths.remove(path.into())?;
        self.path_requests.push_back(PathRequest::Close { path });
        self.stats.paths.set(self.paths.len() as u64);
        if let Purpose::Lookup(ticket) = open.purpose
            && let Some(lookup) = self.lookups.get_mut(ticket)
        {
            lookup.out.retain(|other| *other != path);
        }
        Some(open)
    }

    /// What the transport of a path reports.
    pub(super) fn path_reported(&mut self, now: Instant, path: Path, event: PathEvent) {
        let Some(open) = self.paths.get_mut(path.into()) else { return };
        match event {
            PathEvent::Connected => {
                open.sent_at = now;
                self.sends.push_back(path);
            }
            PathEvent::PortTaken => {
                open.port_draws += 1;
                let source_port =
                    if open.port_draws > PORT_DRAWS_MAX { None } else { Some(draw_port(&mut self.rng)) };
                let upstream = self.upstreams[usize::from(open.upstream.0)].config.address;
                let transport = open.transport;
                self.path_requests.push_back(PathRequest::Open { path, transport, upstream, source_port });
            }
            PathEvent::Refused => self.attempt_failed(now, path, FailureCause::Refused),
            // An upstream that closes after it answered has nothing more to say; one that closes before it is a failed attempt.
            PathEvent::Closed => self.attempt_failed(now, path, FailureCause::Refused),
            PathEvent::LocalFailure => self.attempt_failed(now, path, FailureCause::Local),
        }
    }

    /// An attempt ended without an answer: try another way at once, or give up.
    pub(super) fn attempt_failed(&mut self, now: Instant, path: Path, cause: FailureCause) {
        let Some(open) = self.close_path(path) else { return };
        // What this machine could not send, and what may have been forged, says nothing about the upstream. Nor does a connection
        // that was tried because of a forgery: an upstream need not speak TCP until it truncates.
        let uncalled_for = open.transport == Transport::Tcp
            && matches!(open.purpose, Purpose::Lookup(t) if self.lookups.get(t).is_some_and(|l| !l.truncated));
        if cause == FailureCause::Refused && !uncalled_for {
            self.upstream_failed(now, open.upstream);
        }
        let Purpose::Lookup(ticket) = open.purpose else {
            self.probe_ended(open.upstream);
            return;
        };
        let Some(lookup) = self.lookups.get_mut(ticket) else { return };
        lookup.last_cause = cause;
        lookup.connects_failed += 1;
        let gave_up = lookup.connects_failed >= connects_max(lookup) || lookup.attempts_made >= ATTEMPTS_MAX;
        if !gave_up {
            // The next in the order; if that is a repetition, not at once.
            let repeats = lookup.attempts_made as usize >= lookup.order.len();
            let at = if repeats { now + PACE } else { now };
            lookup.next_attempt_at = lookup.next_attempt_at.min(at);
            if at == now {
                self.next_attempt(now, ticket);
            } else {
                self.lookups.arm(ticket);
            }
        } else if lookup.out.is_empty() {
            self.fail_lookup(now, ticket);
        }
    }

    /// The timer of a lookup rang: its deadline, or its next attempt.
    pub(super) fn lookup_timed_out(&mut self, now: Instant, slot: u32) {
        let Some(ticket) = self.lookups.at(slot) else { return };
        let Some(lookup) = self.lookups.get(ticket) else { return };
        for path in lookup.out.clone() {
            if let Some(open) = self.paths.get(path.into()) {
                self.listen_to(now, open.upstream);
            }
        }
        let Some(lookup) = self.lookups.get(ticket) else { return };
        if now >= lookup.deadline {
            self.fail_lookup(now, ticket);
        } else if lookup.attempts_made < ATTEMPTS_MAX {
            self.next_attempt(now, ticket);
        } else {
            // Nothing is left but to wait; a timer that stayed where it is would ring for ever.
            if let Some(lookup) = self.lookups.get_mut(ticket) {
                lookup.next_attempt_at = lookup.deadline;
            }
            self.lookups.arm(ticket);
        }
    }

    /// The query for the next path that is ready for it.
    pub(super) fn next_upstream_query(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        loop {
            let path = self.sends.pop_front()?;
            let Some(open) = self.paths.get_mut(path.into()) else { continue };
            open.sent_at = now;
            let len = match open.purpose {
                Purpose::Lookup(ticket) => {
                    let Some(lookup) = self.lookups.get(ticket) else { continue };
                    let mut flags = if lookup.rd { Flags::RD } else { 0 };
                    flags |= if lookup.key.cd() { Flags::CD } else { 0 };
                    // AD asks for the truth about AD, so that a shared answer can tell it to whoever wants it (B07).
                    let udp_size = self.config.zones[lookup.zone].udp_size_max;
                    let edns = open.edns.then_some((udp_size, lookup.key.do_bit()));
                    write_query(open.id, flags | Flags::AD, &lookup.question, edns, out)
                }
                Purpose::Probe => {
                    let config = &self.upstreams[usize::from(open.upstream.0)].config;
                    let flags = if config.probe_rd { Flags::RD } else { 0 };
                    write_query(open.id, flags, &super::probe::question(config), None, out)
                }
            };
            return Some(Transmit { target: Target::Upstream(path), len });
        }
    }

    /// Looks whether an upstream has been silent for too long; if so, it is probed from now on.
    pub(super) fn listen_to(&mut self, now: Instant, upstream: UpstreamId) {
        let health = &mut self.upstreams[usize::from(upstream.0)].health;
        health.listen(now);
        if health.wellness() != Wellness::Up {
            self.start_probing(now, upstream);
        }
    }
}

fn draw_port(rng: &mut Rng) -> u16 {
    let skipped = NODE_PORTS.end() - NODE_PORTS.start() + 1;
    let port = SOURCE_PORT_MIN + rng.below(u32::from(u16::MAX - SOURCE_PORT_MIN - skipped) + 1) as u16;
    if port < *NODE_PORTS.start() { port } else { port + skipped }
}

/// Writes a query of ours; `edns` is the size we advertise and the DO bit. Returns its length.
fn write_query(id: u16, flags: u16, question: &[u8], edns: Option<(u16, bool)>, out: &mut [u8]) -> usize {
    Header { id, flags: Flags(flags), counts: [1, 0, 0, u16::from(edns.is_some())] }.write(out);
    let end = HEADER_LEN + question.len();
    out[HEADER_LEN..end].copy_from_slice(question);
    let Some((udp_size, do_bit)) = edns else { return end };
    put_opt(out, end, Edns { udp_size, rcode_high: 0, version: 0, do_bit }, None)
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
    fn the_budget_adds_a_fifth_at_most() {
        let mut budget = RetryBudget::new();
        while budget.spend() {}
        (0..100).for_each(|_| budget.earn());
        let spent = (0..100).filter(|_| budget.spend()).count();
        assert_eq!(spent, 20);
    }
}
