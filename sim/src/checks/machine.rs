//! Checks 12 to 15: bytes to upstreams, timers, the ends of lookups, and counters that add up.
//!
//! * design §4a: 4.5 s is the hard cap of a lookup, 0.8 s while all its upstreams are known to be down.
//! * Every lookup ends once; then its waiters have answers and its IDs, timers and paths are gone.
//! * reliability.md F7: what clients ask is not multiplied: bytes to upstreams are bounded by the lookups that asked for them.
//! * examples.md §9.3: queries are answered, dropped or waiting, and the core's own counters say the same.

use crate::failure::{Checked, ensure};
use crate::model::{Flight, Waiter};
use crate::plan::Plan;
use crate::world::World;
use nodens_core::stats::Counter;
use nodens_core::{DropReason, Duration, Instant, Stats};
use std::sync::Arc;

/// The hard cap on a lookup.
const LOOKUP_TIME_MAX: Duration = Duration::from_millis(4500);
/// The cap while all upstreams are down.
pub(crate) const LOOKUP_TIME_ALL_DOWN: Duration = Duration::from_millis(800);
/// With more lookups under way than this, deadlines are looked at now and then.
const FEW_LOOKUPS: usize = 32;

/// What the world counted for one worker since its last configuration; the core must have counted the same.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Queries that could be read.
    pub(crate) queries: u64,
    /// Answers by the low four bits of their RCODE.
    answers: [u64; 16],
    pub(crate) dropped: [u64; DropReason::COUNT],
    pub(crate) rejected: u64,
    /// Messages to upstreams.
    pub(crate) sent: u64,
    /// Paths.
    pub(crate) opened: u64,
    /// Queries answered from the cache, by class.
    pub(crate) hits: [u64; 2],
    /// Answers in zones that log them.
    pub(crate) query_events: u64,
    /// Lookups that failed in zones that log that: so many at least, and so many more where what failed could not be seen.
    failures: u64,
    failures_perhaps: u64,
    /// Events that came.
    pub(crate) seen: Seen,
    /// Bytes of messages to upstreams, probes aside.
    pub(crate) bytes_sent: u64,
    /// And the most that these may be.
    pub(crate) bytes_due: u64,
    pub(crate) repetitions_paid: u32,
    pub(crate) second: u64,
    /// Messages to upstreams in the second before the last, in the last, and in this.
    pub(crate) sent_per_second: [u32; 3],
    /// The core's counters at that time.
    base: Totals,
}

/// Events that a worker told of.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) queries: u64,
    pub(crate) failures: u64,
}

/// Sums over the core's counters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Totals {
    queries: u64,
    answers: u64,
    servfails: u64,
    dropped: [u64; DropReason::COUNT],
    rejected: u64,
    attempts: u64,
    opened: u64,
    cache_requests: u64,
    hits: [u64; 2],
    misses: u64,
    exhausted: u64,
    events_lost: u64,
    probes: u64,
}

impl Counted {
    pub(crate) fn answered(&mut self, rcode: u8) {
        self.answers[usize::from(rcode)] += 1;
    }

    /// A lookup failed, for certain or perhaps; counted if that `is_logged`.
    pub(crate) fn failed(&mut self, is_logged: bool, certain: bool) {
        self.failures += u64::from(is_logged && certain);
        self.failures_perhaps += u64::from(is_logged && !certain);
    }

    /// Invariant 12: for each lookup every upstream may be asked once, and one once more, in no more words than the client's
    /// and an OPT. What goes beyond that is added message by message, and how many these may be `attempts.rs` says.
    pub(crate) fn lookup_begun(&mut self, upstreams: usize, message_bytes_max: u64) {
        self.bytes_due += (upstreams as u64 + 1) * message_bytes_max;
    }

    /// How often the worker had been out of paths when this configuration came.
    pub(crate) fn exhausted(&self) -> u64 {
        self.base.exhausted
    }
}

/// The sums over those zones and upstreams that count.
fn totals(stats: &Stats, zone_counts: impl Fn(usize) -> bool, counts: impl Fn(usize) -> bool) -> Totals {
    let zones = || stats.zones.iter().enumerate().filter(|(n, _)| zone_counts(*n)).map(|(_, zone)| zone);
    let routes = || stats.routes.iter().flatten();
    let upstreams = || stats.upstreams.iter().enumerate().filter(|(n, _)| counts(*n)).map(|(_, u)| u);
    let answers = |rcode: usize| routes().map(|route| route.responses[rcode].get()).sum::<u64>();
    Totals {
        queries: routes().flat_map(|route| route.requests.iter().flatten().flatten()).map(Counter::get).sum(),
        answers: (0..17).map(answers).sum(),
        servfails: answers(2),
        dropped: std::array::from_fn(|reason| stats.dropped[reason].get()),
        rejected: stats.rejected.iter().map(Counter::get).sum(),
        attempts: upstreams().map(|upstream| upstream.attempts.get()).sum(),
        opened: upstreams().flat_map(|upstream| &upstream.paths_opened).map(Counter::get).sum(),
        cache_requests: zones().map(|zone| zone.cache_requests.get()).sum(),
        hits: [
            zones().map(|zone| zone.hits_success.get()).sum(),
            zones().map(|zone| zone.hits_denial.get()).sum(),
        ],
        misses: zones().map(|zone| zone.misses.get()).sum(),
        exhausted: stats.paths_exhausted.get(),
        events_lost: stats.events_lost.get(),
        probes: upstreams().map(|upstream| upstream.probes.get()).sum(),
    }
}

/// When a lookup must be over.
pub(crate) fn deadline(flight: &Flight) -> Instant {
    let usual = flight.started + LOOKUP_TIME_MAX;
    let hopeless = flight.hopeless_since.map(|since| since.max(flight.started + LOOKUP_TIME_ALL_DOWN));
    hopeless.map_or(usual, |hopeless| hopeless.min(usual))
}

impl World {
    /// Everything that a turn left to send has been sent: who was promised an answer in this turn has one.
    pub(crate) fn drained(&mut self, worker: usize) -> Checked {
        self.adopt_orphans(worker);
        let host = &mut self.workers[worker];
        for place in std::mem::take(&mut host.flights.over) {
            let left = host.flights.get(place).map_or(0, |flight| flight.waiters.len());
            ensure(left == 0, "answers/lost", || {
                let flight = host.flights.get(place);
                format!("worker {worker}: a lookup is over and {left} of its clients got nothing: {flight:?}")
            })?;
            host.flights.forget(place);
        }
        for place in std::mem::take(&mut host.tentative) {
            if let Some(flight) = host.flights.get_mut(place).filter(|flight| !flight.over) {
                flight.accepted.clear();
            }
        }
        host.unsure = false;
        host.fresh = true;
        host.heard_in_turn = false;
        host.refused_in_turn = 0;
        let (lookups, waiters) = (host.forwarder.lookups(), host.forwarder.stats().waiters.get());
        ensure(lookups == host.flights.len(), "machine/lookups", || {
            format!("worker {worker} has {lookups} lookups, {} are under way", host.flights.len())
        })?;
        ensure(waiters == host.flights.waiting as u64, "answers/lost", || {
            format!("worker {worker} counts {waiters} waiting clients, {} wait", host.flights.waiting)
        })
    }

    /// A turn is over.
    pub(crate) fn check_turn(&mut self, worker: usize) -> Checked {
        let now = self.clock();
        let host = &self.workers[worker];
        if self.summary.events.is_multiple_of(16) || self.may_forget {
            self.check_cache_bounds()?;
        }
        if host.flights.is_empty() {
            return Ok(());
        }
        let next = host.forwarder.poll_timeout().map(|(at, _)| at);
        ensure(next.is_some(), "machine/timer", || {
            format!("worker {worker} has {} lookups and asks for no timer", host.flights.len())
        })?;
        if host.flights.len() > FEW_LOOKUPS && !host.step.is_multiple_of(64) {
            return Ok(());
        }
        for (_, flight) in host.flights.iter() {
            let deadline = deadline(flight);
            ensure(deadline > now, "machine/deadline", || {
                format!("worker {worker}: a lookup has no end at {now:?}: {flight:?}")
            })?;
            ensure(next.is_some_and(|at| at <= deadline), "machine/timer", || {
                format!("worker {worker} wakes at {next:?}, after the end of {flight:?}")
            })?;
        }
        Ok(())
    }

    /// The core's counters and the world's.
    pub(crate) fn check_counts(&self, worker: usize) -> Checked {
        let host = &self.workers[worker];
        let stats = host.forwarder.stats();
        let (core, counted) = (totals(stats, |_| true, |_| true), &host.counted);
        let base = &counted.base;
        let check = |name: &str, core: u64, world: u64| {
            ensure(core == world, "machine/counters", || {
                format!("worker {worker} counts {core} {name}, the world {world}")
            })
        };
        check("queries", core.queries - base.queries, counted.queries)?;
        check("answers", core.answers - base.answers, counted.answers.iter().sum())?;
        check("SERVFAIL answers", core.servfails - base.servfails, counted.answers[2])?;
        for reason in 0..DropReason::COUNT {
            let label = DropReason::LABELS[reason];
            check(label, core.dropped[reason] - base.dropped[reason], counted.dropped[reason])?;
        }
        check("rejected messages", core.rejected - base.rejected, counted.rejected)?;
        check("opened paths", core.opened - base.opened, counted.opened)?;
        let [success, denial] = core.hits;
        check("looks into the cache", core.cache_requests, success + denial + core.misses)?;
        // What a small cache has forgotten may have been asked for again, and the same answer may have come at once.
        if !self.may_forget {
            check("answers with data from the cache", success - base.hits[0], counted.hits[0])?;
            check("denials and failures from the cache", denial - base.hits[1], counted.hits[1])?;
        }
        if core.events_lost == base.events_lost {
            check("queries that it logs", counted.seen.queries, counted.query_events)?;
            let most = counted.failures + counted.failures_perhaps;
            ensure((counted.failures..=most).contains(&counted.seen.failures), "machine/counters", || {
                let (seen, least) = (counted.seen.failures, counted.failures);
                format!("worker {worker} logs {seen} failed lookups, of {least} to {most}")
            })?;
        }
        let (sent, due) = (counted.bytes_sent, counted.bytes_due);
        ensure(sent <= due, "effort/amplification", || {
            format!(
                "worker {worker} sent {sent} bytes to upstreams; {due} are the most for what clients asked"
            )
        })?;
        check("open paths", stats.paths.get(), host.lines.iter().flatten().count() as u64)?;
        // What was to be sent on a connection that never came about was an attempt and no message.
        let out = core.attempts + core.probes - base.attempts - base.probes;
        ensure(counted.sent <= out, "machine/counters", || {
            format!("worker {worker} sent {} messages and counts {out}", counted.sent)
        })
    }

    /// A worker is about to take a new configuration: counting begins anew, from what its counters keep.
    pub(crate) fn count_anew(&mut self, worker: usize, plan: &Plan) {
        let host = &mut self.workers[worker];
        let stays = |n: usize| plan.config.upstreams.contains(&host.plan.config.upstreams[n]);
        let zone_stays =
            |n: usize| plan.config.zones.iter().any(|zone| zone.id == host.plan.config.zones[n].id);
        let base = totals(host.forwarder.stats(), zone_stays, stays);
        let repetitions_paid = host.counted.repetitions_paid;
        host.counted = Counted { base, repetitions_paid, ..Counted::default() };
    }

    /// A worker has taken a new configuration.
    pub(crate) fn reconfigured(&mut self, worker: usize, plan: Arc<Plan>) {
        let host = &mut self.workers[worker];
        let flights = host.flights.take_all();
        host.orphans = flights.into_iter().flat_map(|flight| flight.waiters).collect::<Vec<Waiter>>();
        for waiter in &host.orphans {
            for wait in &mut self.asks[waiter.ask as usize].waits {
                if wait.0 == worker {
                    wait.1 = crate::checks::answers::ORPHAN;
                }
            }
        }
        host.good_at = vec![host.step; plan.config.zones.len()];
        host.plan = plan;
        host.failed.clear();
        host.fresh = false;
    }
}
