//! Checks 13 to 15: timers, the ends of lookups, and counters that add up.
//!
//! * design §4a: 4.5 s is the hard cap of a lookup, 0.8 s while all its upstreams are known to be down.
//! * Every lookup ends once; then its waiters have answers and its IDs, timers and paths are gone.
//! * examples.md §9.3: queries are answered, dropped or waiting, and the core's own counters say the same.

use crate::failure::{Checked, ensure};
use crate::model::{Flight, Flights, Waiter};
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
    answer_bytes: u64,
    pub(crate) dropped: [u64; DropReason::COUNT],
    pub(crate) rejected: u64,
    /// Messages to upstreams.
    pub(crate) sent: u64,
    /// Paths.
    pub(crate) opened: u64,
    pub(crate) query_events: u64,
    pub(crate) failure_events: u64,
    pub(crate) repetitions_paid: u32,
    pub(crate) second: u64,
    /// Messages to upstreams in the second before the last, in the last, and in this.
    pub(crate) sent_per_second: [u32; 3],
    /// The core's counters at that time.
    base: Totals,
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
    hits_and_misses: u64,
    probes: u64,
}

impl Counted {
    pub(crate) fn answered(&mut self, rcode: u8, len: usize) {
        self.answers[usize::from(rcode)] += 1;
        self.answer_bytes += len as u64;
    }
}

/// The sums over all zones and those upstreams that `counts`.
fn totals(stats: &Stats, counts: impl Fn(usize) -> bool) -> Totals {
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
        cache_requests: stats.zones.iter().map(|zone| zone.cache_requests.get()).sum(),
        hits_and_misses: stats
            .zones
            .iter()
            .map(|zone| zone.hits_success.get() + zone.hits_denial.get() + zone.misses.get())
            .sum(),
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
        let (core, counted) = (totals(stats, |_| true), &host.counted);
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
        check("looks into the cache", core.hits_and_misses, core.cache_requests)?;
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
        let base = totals(host.forwarder.stats(), stays);
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
        debug_assert!(host.flights.is_empty(), "{:?}", Flights::default());
        host.good_at = vec![host.step; plan.config.zones.len()];
        host.plan = plan;
        host.failed.clear();
        host.fresh = false;
    }
}
