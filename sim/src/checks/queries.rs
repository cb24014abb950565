//! Checks 10 and 11 for clients' queries: each is answered from what is known, or waits, or starts the only lookup for its question.
//!
//! * RFC 5452 §5: one query out per question, or birthday attacks pay.
//! * RFC 9520 §3.2: a failure is remembered for one second at least; §3.3 and design §4a: for five at most, and not past recovery.
//! * design §4a: over a bound a client gets SERVFAIL (REFUSED for `max_concurrent`), never silence, and it is counted.

use crate::checks::answers::Says;
use crate::failure::{Checked, ensure, fail};
use crate::garbage::{Fate, Garbage};
use crate::message::{HEADER, OPT, flag, u16_at};
use crate::model::{FAILURE_KEPT_MAX, FAILURE_KEPT_MIN, Key, Waiter};
use crate::questions::QuestionId;
use crate::world::World;
use nodens_core::{DropReason, Outcome, UpstreamId};

/// What was known before a query.
pub(crate) struct Before {
    lookups: usize,
    exhausted: u64,
    reasons: Reasons,
}

/// Counters that say why a query was answered at once.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
struct Reasons {
    failure: u64,
    shed: u64,
    all_down: u64,
    ceiling: u64,
}

/// A duplicate is looked for among so many of those who came last.
const LOOK_BACK: usize = 32;
/// Extended errors of our own (RFC 8914).
const CACHED_ERROR: u16 = 13;
const NOT_READY: u16 = 14;
const NO_REACHABLE_AUTHORITY: u16 = 22;

impl World {
    pub(crate) fn before_query(&mut self, worker: usize, number: u32) -> Before {
        let host = &mut self.workers[worker];
        let garbage = self.asks[number as usize].garbage;
        host.counted.queries += u64::from(garbage.is_none_or(Garbage::is_readable));
        Before { lookups: host.forwarder.lookups(), exhausted: host.exhausted(), reasons: reasons(host) }
    }

    pub(crate) fn check_query(
        &mut self,
        worker: usize,
        number: u32,
        before: &Before,
        outcome: Outcome,
    ) -> Checked {
        let host = &mut self.workers[worker];
        match outcome {
            Outcome::Answer { .. } => host.counted.answered(self.out[3] & 0xf),
            Outcome::Drop(reason) => host.counted.dropped[reason as usize] += 1,
            Outcome::Forward => {}
        }
        let Some(question) = self.asks[number as usize].question else {
            return self.check_garbage(worker, number, outcome);
        };
        let (noted, _) = self.cache.take_noted();
        ensure(noted.is_none(), "keeping/query", || format!("query {number} put something into the cache"))?;
        let plan = self.workers[worker].plan.clone();
        let zone = plan.zone_of(&self.space, question);
        self.count_logged(worker, zone, outcome);
        let Some(at) = zone.filter(|_| plan.takes(&self.space, question)) else {
            return match outcome {
                Outcome::Answer { len } => {
                    self.check_answer(worker, number, zone, Says::Local { rcode: 5, error: None }, len)
                }
                _ => {
                    fail("answers/refusal", format!("query {number} is for no zone and came to {outcome:?}"))
                }
            };
        };
        let key = self.key_of(worker, number, question, at);
        match outcome {
            Outcome::Answer { len } => self.check_at_once(worker, number, question, &key, at, before, len),
            Outcome::Forward => self.check_forwarded(worker, number, question, key, at, before),
            Outcome::Drop(reason) => self.check_dropped(worker, number, &key, reason),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what is known about one query")]
    fn check_at_once(
        &mut self,
        worker: usize,
        number: u32,
        question: QuestionId,
        key: &Key,
        zone: usize,
        before: &Before,
        len: usize,
    ) -> Checked {
        let now = self.clock();
        let kept = self.kept_answer(worker, key, question, zone, now);
        let host = &self.workers[worker];
        let config = &host.plan.config;
        let after = reasons(host);
        let context = |text: &str| {
            format!("query {number} for {} at worker {worker}: {text}", self.space.text(question))
        };
        let says = if after == before.reasons {
            let Some(says) = kept else {
                let mixed = self.is_for_others(worker, number, question, key, zone, len);
                let (check, text) = match mixed {
                    true => ("answers/mixed", "answered with what is kept for other DO or CD bits"),
                    false => ("answers/unfounded", "answered at once, and nothing is kept for it"),
                };
                return fail(check, context(text));
            };
            self.summary.hits += 1;
            self.count_hit(worker, key);
            says
        } else {
            ensure(kept.is_none() || self.may_forget, "answers/refusal", || {
                context("refused though a fresh answer is kept")
            })?;
            if after.failure > before.reasons.failure {
                let rcode = u16::from(self.out[3] & 0xf);
                let known = host.failed.get(key).filter(|failed| {
                    let forgotten = failed.own && host.good_at[zone] > failed.step;
                    now.since(failed.at) < FAILURE_KEPT_MAX && !forgotten && rcode == failed.rcode()
                });
                let just_failed = host.unsure && host.flights.find(key).is_some();
                ensure(key.rd && (known.is_some() || just_failed), "keeping/failure", || {
                    let known = host.failed.get(key);
                    context(&format!("answered as failed lately; the model knows of {known:?} at {now:?}"))
                })?;
                Says::Local { rcode, error: Some(CACHED_ERROR) }
            } else if after.shed > before.reasons.shed {
                ensure(self.must_shed(worker, key) || host.unsure, "effort/shed", || {
                    context("shed though no bound was reached")
                })?;
                Says::Local { rcode: 2, error: Some(NOT_READY) }
            } else if after.ceiling > before.reasons.ceiling {
                let most = config.zones[zone].forward.as_ref().map_or(0, |forward| forward.max_concurrent);
                let reached = most > 0 && host.flights.in_zone(zone) >= most as usize;
                ensure(reached || host.unsure, "effort/shed", || {
                    context("refused though max_concurrent was not reached")
                })?;
                Says::Local { rcode: 5, error: None }
            } else {
                let fast = config.zones[zone].forward.as_ref().is_some_and(|forward| forward.failfast);
                ensure(fast && self.all_down(worker, zone), "effort/shed", || {
                    context("refused as if all upstreams were down")
                })?;
                Says::Local { rcode: 2, error: Some(NO_REACHABLE_AUTHORITY) }
            }
        };
        // A bound that this world set so low that one client reaches it.
        self.asks[number as usize].must_succeed &= after.shed == before.reasons.shed;
        self.check_answer(worker, number, Some(zone), says, len)
    }

    fn check_forwarded(
        &mut self,
        worker: usize,
        number: u32,
        question: QuestionId,
        key: Key,
        zone: usize,
        before: &Before,
    ) -> Checked {
        let now = self.clock();
        let text = || format!("query {number} for {} at worker {worker}", self.space.text(question));
        let kept = self.kept_answer(worker, &key, question, zone, now);
        ensure(kept.is_none() || self.may_forget, "effort/cached", || {
            format!("{} went upstream though {kept:?} is kept", text())
        })?;
        let host = &self.workers[worker];
        if let Some(failed) = host.failed.get(&key).filter(|_| key.rd) {
            let stands =
                failed.clean && host.heard_at <= failed.step && now.since(failed.at) < FAILURE_KEPT_MIN;
            ensure(!stands || host.unsure, "keeping/failure", || {
                format!("{} went upstream though it failed less than a second ago ({failed:?})", text())
            })?;
        }
        let begins = host.forwarder.lookups() > before.lookups;
        let under_way = host.flights.find(&key);
        let unsure = host.unsure;
        ensure(!self.must_shed(worker, &key) || unsure, "effort/bounds", || {
            let limits = &host.plan.config.limits;
            format!(
                "{} waits though {} wait for {} lookups already and bounds are {limits:?}",
                text(),
                host.flights.waiting,
                host.flights.len()
            )
        })?;
        match under_way {
            Some(place) if begins => {
                ensure(unsure, "effort/duplicate-lookup", || {
                    format!("{} began a second lookup for one question", text())
                })?;
                // It ended in this turn, and its answers are still to come.
                self.workers[worker].flights.finish(place);
            }
            Some(place) => {
                ensure(!self.waits_already(worker, place, number), "answers/twice", || {
                    format!("{} waits twice in one lookup", text())
                })?;
            }
            None => ensure(begins, "machine/lookup", || format!("{} waits for nothing", text()))?,
        }
        let ceiling =
            host_ceiling(&self.workers[worker].plan.config.zones[zone]).filter(|_| begins && !unsure);
        ensure(
            ceiling.is_none_or(|most| self.workers[worker].flights.in_zone(zone) < most),
            "effort/bounds",
            || format!("{} passed max_concurrent", text()),
        )?;
        let hopeless = self.all_down(worker, zone);
        let place =
            self.wait(worker, key, zone, Waiter { ask: number, asked: now }, hopeless, before.exhausted);
        self.asks[number as usize].waits.push((worker, place));
        Ok(())
    }

    fn check_dropped(&mut self, worker: usize, number: u32, key: &Key, reason: DropReason) -> Checked {
        // The one before it is answered.
        self.asks[number as usize].must_succeed = false;
        let waits = self.workers[worker].flights.find(key).is_some_and(|place| {
            let flight = self.workers[worker].flights.get(place);
            flight
                .is_some_and(|flight| flight.waiters.iter().any(|other| self.same_client(number, other.ask)))
        });
        ensure(reason == DropReason::Duplicate && waits, "answers/dropped", || {
            format!("query {number} at worker {worker} was dropped: {reason:?}")
        })
    }

    /// Whether the same client waits with the same ID, near enough to the end to be seen.
    fn waits_already(&self, worker: usize, place: u32, number: u32) -> bool {
        self.workers[worker].flights.get(place).is_some_and(|flight| {
            flight.waiters.iter().rev().take(LOOK_BACK).any(|other| self.same_client(number, other.ask))
        })
    }

    fn same_client(&self, one: u32, other: u32) -> bool {
        let (one, other) = (&self.asks[one as usize], &self.asks[other as usize]);
        one.client == other.client && one.id == other.id
    }

    /// Whether a bound says that nobody else may wait for `key`.
    fn must_shed(&self, worker: usize, key: &Key) -> bool {
        let host = &self.workers[worker];
        let limits = &host.plan.config.limits;
        let waiters = host.flights.waiting >= limits.waiters_max as usize;
        match host.flights.find(key).and_then(|place| host.flights.get(place)) {
            Some(flight) => waiters || flight.waiters.len() >= limits.waiters_per_lookup_max as usize,
            None => waiters || host.flights.len() >= limits.lookups_max as usize,
        }
    }

    /// An upstream went down: lookups that have no other left are hopeless. If one came back `later` in the same turn, those are that
    /// were under way before; which these are is not known.
    pub(crate) fn note_hopeless(&mut self, worker: usize, later: &[(UpstreamId, bool)]) {
        let now = self.clock();
        let zones = self.workers[worker].plan.config.zones.len();
        let down: Vec<(bool, bool)> = (0..zones)
            .map(|zone| (self.all_down(worker, zone), self.all_down_before(worker, zone, later)))
            .collect();
        for flight in self.workers[worker].flights.iter_mut() {
            let (is_down, was_down) = down[flight.zone];
            flight.was_hopeless |= was_down;
            if is_down {
                flight.hopeless_since.get_or_insert(now);
            }
        }
    }

    /// Whether the worker itself holds all upstreams of a zone to be down.
    pub(crate) fn all_down(&self, worker: usize, zone: usize) -> bool {
        self.all_down_before(worker, zone, &[])
    }

    fn all_down_before(&self, worker: usize, zone: usize, later: &[(UpstreamId, bool)]) -> bool {
        let host = &self.workers[worker];
        let stats = host.forwarder.stats();
        let down = |id: &UpstreamId| match later.iter().find(|(other, _)| other == id) {
            Some((_, goes_down)) => !goes_down,
            None => stats.upstreams[usize::from(id.0)].down.get() == 1,
        };
        let forward = host.plan.config.zones[zone].forward.as_ref();
        forward.is_some_and(|forward| forward.upstreams.iter().all(down))
    }

    fn check_garbage(&mut self, worker: usize, number: u32, outcome: Outcome) -> Checked {
        let ask = &self.asks[number as usize];
        let Some(garbage) = ask.garbage else { return Ok(()) };
        let context = |text: &str| format!("{garbage:?} (query {number}) at worker {worker}: {text}");
        match (garbage.fate(), outcome) {
            (Fate::Dropped, Outcome::Drop(DropReason::Short | DropReason::Response)) => Ok(()),
            (Fate::HeaderOnly(rcode), Outcome::Answer { len: HEADER }) => {
                let sent = u16_at(&ask.bytes, 2).unwrap_or(0);
                let expected = flag::QR | sent & (flag::OPCODE | flag::RD) | rcode;
                let got = (u16_at(&self.out, 0), u16_at(&self.out, 2), &self.out[4..HEADER]);
                ensure(got == (Some(ask.id), Some(expected), &[0; 8]), "answers/garbage", || {
                    context(&format!("answered {:02x?}", &self.out[..HEADER]))
                })
            }
            (Fate::Answered { rcode, opt }, Outcome::Answer { len }) => {
                let zone = match garbage {
                    Garbage::Transfer | Garbage::Chaos => self.zone_of_garbage(worker, number),
                    _ => None,
                };
                ensure(opt || len < ask.question_end + OPT, "answers/opt", || {
                    context("an OPT for what was not understood")
                })?;
                self.count_logged(worker, zone, outcome);
                self.check_answer(worker, number, zone, Says::Local { rcode, error: None }, len)
            }
            _ => fail("answers/garbage", context(&format!("came to {outcome:?}"))),
        }
    }

    /// A query in a zone was dealt with at once: an answer is logged, if the zone's are.
    fn count_logged(&mut self, worker: usize, zone: Option<usize>, outcome: Outcome) {
        let host = &mut self.workers[worker];
        let logs = zone.is_some_and(|zone| host.plan.config.zones[zone].log_queries);
        host.counted.query_events += u64::from(logs && matches!(outcome, Outcome::Answer { .. }));
    }

    /// The zone that the name in a refused query belongs to.
    fn zone_of_garbage(&self, worker: usize, number: u32) -> Option<usize> {
        let mut question = self.asks[number as usize].question_bytes().to_vec();
        let end = question.len();
        question[end - 4..].copy_from_slice(&[0, 1, 0, 1]);
        self.workers[worker].plan.zone_of(&self.space, self.space.find(&question)?)
    }
}

fn host_ceiling(zone: &nodens_core::config::ForwardZone) -> Option<usize> {
    zone.forward.as_ref().map(|forward| forward.max_concurrent as usize).filter(|most| *most > 0)
}

fn reasons(host: &crate::host::Worker) -> Reasons {
    let stats = host.forwarder.stats();
    Reasons {
        failure: stats.failure_hits.get(),
        shed: stats.shed.get(),
        all_down: stats.all_down.get(),
        ceiling: stats.zones.iter().map(|zone| zone.max_concurrent_rejects.get()).sum(),
    }
}
