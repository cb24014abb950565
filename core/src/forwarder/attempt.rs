//! Attempts: one transmission of a lookup to one upstream.
//!
//! | event | what follows |
//! | --- | --- |
//! | the timer, another upstream is left | ask it as well; earlier attempts stay out, the first valid answer wins |
//! | the timer, all were asked, UDP | ask again, if the retry budget allows |
//! | the timer, all were asked, TCP | wait on while the connection lives; once it is silent, retire it and ask again on another |
//! | refused or not sent | the next upstream at once; the same one after [`PACE`] |
//! | an established connection ended | ask the same upstream again at once: it is nobody's fault and counts as nothing |
//! | a truncated answer | the same upstream over TCP |
//! | every attempt refused, `connects_max` reached | the lookup fails |
//!
//! Over UDP, a new socket with a random port for every attempt makes a forged reply a guess of port and ID together (RFC 5452
//! §9.2), and escapes connection-tracking entries that lead to a dead Pod (reliability.md F5).

use super::Forwarder;
use super::paths::{Attempt, OpenPath, Purpose};
use crate::api::{FailureCause, Path, PathEvent, Transport};
use crate::cache::Cache;
use crate::config::UpstreamId;
use crate::sim_support::{Fault, Mark, mark, mark_if, planted};
use crate::slab::Ticket;
use crate::time::{Duration, Instant};
use crate::upstream::Wellness;

/// Transmissions of one lookup that may be under way or lost (reliability.md F7: six within three seconds survive 10 % loss each
/// way). What was refused at once is counted apart.
pub(super) const ATTEMPTS_MAX: u32 = 6;
/// UDP attempts of one lookup that stay out for late answers; each holds a socket, so the oldest is given up for the next. Over
/// TCP they cost nothing and all stay.
const UDP_OUT_MAX: usize = 4;
/// Times that a lookup is sent again because its connection ended under it. An upstream that ends each connection after an answer
/// may need several.
const RESENDS_MAX: u32 = 32;
/// Between two attempts at the same upstream that fail at once, so that a dead one is not hammered.
const PACE: Duration = Duration::from_millis(20);

/// Retransmissions are paid for with lookups. Each lookup may ask every upstream once and repeat itself once; whatever is more comes
/// out of a budget of a fifth of the lookups over time (reliability.md F7), so that loss is survived and an outage is doubled, not
/// multiplied by six.
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
        if planted(Fault::RetriesUnpaid) {
            return true;
        }
        let enough = self.fifths >= 5;
        if enough {
            self.fifths -= 5;
        }
        enough
    }
}

/// What became of an attempt.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Sending {
    Sent,
    /// The connection carries the lookup's question already.
    UnderWay,
    /// No path can be opened, and none is open that takes it.
    NoPath,
}

impl<C: Cache> Forwarder<C> {
    /// Asks the next upstream in the lookup's order and sets the timer for the one after it.
    pub(super) fn next_attempt(&mut self, now: Instant, ticket: Ticket) {
        let Some(lookup) = self.lookups.get_mut(ticket) else { return };
        let turn = lookup.attempts_made as usize;
        let upstreams = lookup.order.len();
        let upstream = lookup.order[turn % upstreams];
        let transport = lookup.transport;
        // Every upstream may be asked once; asking one again costs budget. The first repetition is always free: without it a single
        // lost datagram would cost the client its patience.
        let paid = turn <= upstreams || self.retry_budget.spend();
        mark_if(!paid, Mark::RetryBudgetSpent);
        lookup.attempts_made += 1;
        let patience = self.upstreams[usize::from(upstream.0)].rtt;
        let another_next = (turn + 1) < upstreams;
        let wait = match transport {
            _ if another_next => patience.hedge_after(),
            Transport::Udp => patience.retransmit_after(),
            Transport::Tcp => patience.stall_after(),
        };
        let wait = wait.min(lookup.read_timeout);
        lookup.try_again_at(now + wait);
        if paid && self.send_attempt(now, ticket, upstream, transport) == Sending::Sent && turn > 0 {
            self.stats.upstreams[usize::from(upstream.0)].retransmissions.add(1);
        }
        self.lookups.arm(ticket);
    }

    /// Sends a lookup's question to `upstream`, unless it is out on that very connection already: nothing gets lost there, so asking
    /// twice would get nothing sooner, and count twice when the connection is refused.
    pub(super) fn send_attempt(
        &mut self,
        now: Instant,
        ticket: Ticket,
        upstream: UpstreamId,
        transport: Transport,
    ) -> Sending {
        let oldest = self.oldest_beyond_udp_out_max(ticket).filter(|_| transport == Transport::Udp);
        if let Some(oldest) = oldest {
            mark(Mark::OldestAttemptGivenUp);
            self.abandon(now, oldest);
            if let Some(lookup) = self.lookups.get_mut(ticket) {
                lookup.out.retain(|attempt| *attempt != oldest);
            }
        }
        let same_port = planted(Fault::SamePortAgain) && transport == Transport::Udp;
        let earlier = self.lookups.get(ticket).and_then(|lookup| lookup.out.first()).filter(|_| same_port);
        let own = earlier
            .map(|attempt| attempt.path)
            .or_else(|| self.path_for_a_repetition(now, ticket, transport, upstream));
        let again =
            self.lookups.get(ticket).filter(|l| l.attempts_made as usize > l.order.len() || l.resends > 0);
        let alive_since = again.map(|lookup| lookup.started);
        let path = own.or_else(|| self.path_for(now, upstream, transport, alive_since));
        let out = self.lookups.get(ticket).map(|lookup| &lookup.out[..]).unwrap_or_default();
        if transport == Transport::Tcp && out.iter().any(|attempt| Some(attempt.path) == path) {
            return Sending::UnderWay;
        }
        let attempt = path.and_then(|path| self.add_query(now, path, Purpose::Lookup(ticket)));
        let Some(lookup) = self.lookups.get_mut(ticket) else { return Sending::NoPath };
        let Some(attempt) = attempt else {
            lookup.last_cause = FailureCause::Local;
            return Sending::NoPath;
        };
        lookup.out.push(attempt);
        self.stats.upstreams[usize::from(upstream.0)].attempts.add(1);
        Sending::Sent
    }

    /// The UDP attempt that is given up for another one.
    fn oldest_beyond_udp_out_max(&self, ticket: Ticket) -> Option<Attempt> {
        let over_udp = |attempt: &&Attempt| {
            self.paths.get(attempt.path.into()).is_some_and(|open| open.transport == Transport::Udp)
        };
        let mut out = self.lookups.get(ticket)?.out.iter().filter(over_udp);
        let oldest = out.next();
        oldest.filter(|_| out.count() + 1 >= UDP_OUT_MAX).copied()
    }

    /// An upstream is asked again over UDP: from a new port even where sockets are shared, because connection tracking may lead all of
    /// those to a Pod that is gone (reliability.md F5).
    fn path_for_a_repetition(
        &mut self,
        now: Instant,
        ticket: Ticket,
        transport: Transport,
        upstream: UpstreamId,
    ) -> Option<Path> {
        let lookup = self.lookups.get(ticket)?;
        let again = lookup.attempts_made as usize > lookup.order.len();
        (again && transport == Transport::Udp).then(|| self.open_path(now, upstream, Transport::Udp))?
    }

    /// What the transport of a path reports.
    pub(super) fn path_reported(&mut self, now: Instant, path: Path, event: PathEvent) {
        match event {
            PathEvent::Connected => self.connected(now, path),
            PathEvent::PortTaken => self.draw_again(now, path),
            PathEvent::Refused | PathEvent::Closed => self.path_lost(now, path, FailureCause::Refused),
            PathEvent::LocalFailure => self.path_lost(now, path, FailureCause::Local),
        }
    }

    /// A path ended with whatever was out on it.
    pub(super) fn path_lost(&mut self, now: Instant, path: Path, cause: FailureCause) {
        let Some(lost) = self.close_path(path) else { return };
        let established = lost.transport == Transport::Tcp && lost.heard_at.is_some();
        if established && cause == FailureCause::Refused && !lost.queries.is_empty() {
            self.pools[usize::from(lost.upstream.0)].ended_early();
        }
        // What this machine could not send, what may have been forged, and the end of a connection that served say nothing about
        // the upstream. Nor does a connection that only a forgery called for: an upstream need not speak TCP until it truncates.
        let called_for = lost.live().any(|query| self.is_called_for(&lost, query.purpose));
        if cause == FailureCause::Refused && !established && called_for {
            self.upstream_failed(now, lost.upstream);
        } else if cause == FailureCause::Local {
            self.upstreams[usize::from(lost.upstream.0)].health.never_sent();
        }
        // What we gave up ourselves was not refused, and `max_connect_attempts` counts only what was.
        let again = established || cause == FailureCause::TimedOut;
        for query in lost.live() {
            match query.purpose {
                Purpose::Lookup(ticket) if again => self.send_again(now, ticket, &lost, cause),
                Purpose::Lookup(ticket) => self.attempt_failed(now, ticket, cause),
                Purpose::Probe => self.probe_ended(lost.upstream),
                Purpose::Abandoned => {}
            }
        }
    }

    fn is_called_for(&self, lost: &OpenPath, purpose: Purpose) -> bool {
        let Purpose::Lookup(ticket) = purpose else { return true };
        let wants_tcp = |l: &super::lookup::Lookup| l.truncated || l.transport == Transport::Tcp;
        lost.transport == Transport::Udp || self.lookups.get(ticket).is_some_and(wants_tcp)
    }

    /// The connection under a query ended after it had served others, or was silent and given up: the same question on another one.
    fn send_again(&mut self, now: Instant, ticket: Ticket, lost: &OpenPath, cause: FailureCause) {
        let Some(lookup) = self.lookups.get_mut(ticket) else { return };
        mark(Mark::SentAgainElsewhere);
        lookup.resends += 1;
        let enough = lookup.resends > RESENDS_MAX;
        mark_if(enough, Mark::ResendsUsedUp);
        if enough || self.send_attempt(now, ticket, lost.upstream, lost.transport) == Sending::NoPath {
            self.attempt_failed(now, ticket, cause);
        }
    }

    /// An attempt ended at once without an answer: try another way, or give up.
    pub(super) fn attempt_failed(&mut self, now: Instant, ticket: Ticket, cause: FailureCause) {
        let Some(lookup) = self.lookups.get_mut(ticket) else { return };
        lookup.last_cause = cause;
        lookup.connects_failed += 1;
        if lookup.connects_failed < lookup.connects_max && !planted(Fault::GivenUpAtOnce) {
            // The next in the order; if that is a repetition, not at once.
            if (lookup.attempts_made as usize) < lookup.order.len() {
                self.next_attempt(now, ticket);
            } else {
                lookup.try_again_at(lookup.next_attempt_at.min(now + PACE));
                self.lookups.arm(ticket);
            }
        } else if lookup.out.is_empty() {
            mark(Mark::EveryAttemptRefused);
            self.fail_lookup(now, ticket);
        }
    }

    /// The timer of a lookup rang: its deadline, or its next attempt.
    pub(super) fn lookup_timed_out(&mut self, now: Instant, slot: u32) {
        let Some(ticket) = self.lookups.at(slot) else { return };
        let Some(lookup) = self.lookups.get(ticket) else { return };
        for attempt in lookup.out.clone() {
            if let Some(upstream) = self.paths.get(attempt.path.into()).map(|open| open.upstream) {
                self.listen_to(now, upstream);
            }
        }
        let Some(lookup) = self.lookups.get(ticket) else { return };
        if now >= lookup.deadline {
            self.fail_lookup(now, ticket);
        } else if now < lookup.next_attempt_at {
            self.lookups.arm(ticket);
        } else if !lookup.may_attempt() {
            self.wait_for_the_deadline(ticket);
        } else if lookup.transport == Transport::Tcp
            && lookup.attempts_made as usize >= lookup.order.len()
            && !lookup.out.is_empty()
        {
            self.wait_or_move_on(now, ticket);
        } else {
            self.next_attempt(now, ticket);
        }
    }

    fn wait_for_the_deadline(&mut self, ticket: Ticket) {
        mark(Mark::OnlyTheDeadlineLeft);
        if let Some(lookup) = self.lookups.get_mut(ticket) {
            lookup.next_attempt_at = lookup.deadline;
        }
        self.lookups.arm(ticket);
    }

    /// Over TCP nothing gets lost on a connection that lives, so asking again would only add load. One that is silent is retired
    /// with its first time-out, and everything that is out on it is asked again (reliability.md F4).
    fn wait_or_move_on(&mut self, now: Instant, ticket: Ticket) {
        let Some(lookup) = self.lookups.get(ticket) else { return };
        let silent: smallvec::SmallVec<[Path; 2]> =
            lookup.out.iter().filter(|attempt| self.is_silent(attempt)).map(|attempt| attempt.path).collect();
        let waits = silent.len() < lookup.out.len();
        for path in silent {
            self.retire_silent(now, path, ticket);
        }
        if waits {
            let Some(lookup) = self.lookups.get_mut(ticket) else { return };
            let upstream = lookup.order[lookup.attempts_made.saturating_sub(1) as usize % lookup.order.len()];
            lookup.try_again_at(now + self.upstreams[usize::from(upstream.0)].rtt.stall_after());
            self.lookups.arm(ticket);
        } else {
            self.next_attempt(now, ticket);
        }
    }

    fn is_silent(&self, attempt: &Attempt) -> bool {
        let Some(open) = self.paths.get(attempt.path.into()) else { return true };
        open.queries.iter().any(|query| query.id == attempt.id && open.silent_since(query.sent_at))
    }

    /// Retires a connection and asks everything on it again elsewhere, except for `own`, which its caller looks after. What is
    /// answered late on it is still taken.
    fn retire_silent(&mut self, now: Instant, path: Path, own: Ticket) {
        let Some(open) = self.paths.get(path.into()).filter(|open| !open.retired) else { return };
        let mut others: smallvec::SmallVec<[Ticket; 8]> = open
            .live()
            .filter_map(|query| match query.purpose {
                Purpose::Lookup(ticket) if ticket != own => Some(ticket),
                Purpose::Lookup(_) | Purpose::Probe | Purpose::Abandoned => None,
            })
            .collect();
        mark(if others.is_empty() {
            Mark::SilentConnectionRetired
        } else {
            Mark::SilentConnectionHeldOthers
        });
        others.sort_unstable_by_key(|ticket| ticket.slot);
        others.dedup();
        self.retire(now, path);
        for ticket in others {
            if self.lookups.get(ticket).is_some_and(super::lookup::Lookup::may_attempt) {
                self.next_attempt(now, ticket);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_fifth_of_what_is_earned() {
        let mut budget = RetryBudget::new();
        while budget.spend() {}
        (0..100).for_each(|_| budget.earn());
        let spent = (0..100).filter(|_| budget.spend()).count();
        assert_eq!(spent, 20);
    }
}
