//! Check 16: once everything is healed, every query is answered in time, and when nobody asks any more everything comes to rest.
//!
//! * design §4a: Pods wait one second for an answer, then ask the next server.
//! * RFC 9520 §3.2: what failed during the faults may stand for five seconds more; so long nothing is promised.

use crate::draw::mix;
use crate::failure::{Checked, ensure};
use crate::hazards::Hazard;
use crate::questions::Space;
use crate::world::{Event, MS, SECOND, World};

/// Queries in the second phase that are judged. Before them others come, until what is promised begins.
pub(crate) const RECOVERY_QUERIES: u32 = 16;
/// Nothing is promised for so long after the healing: what was in flight may end with a failure within 4.5 s, which is remembered for 5.
const GRACE: u64 = 10 * SECOND;
/// And for so long where paths were too few: who waits for those of a lookup in flight may wait for as long again, and fail.
const GRACE_STARVED: u64 = 15 * SECOND;
/// When everything must have come to rest: recovery takes half a minute, and idle connections are closed some seconds later. Who
/// still asks for time then would do so for ever.
pub(crate) const REST_WITHIN: u64 = 600 * SECOND;
/// What a client waits.
const PATIENCE: u64 = SECOND;

impl World {
    /// A client asks in the second phase.
    pub(crate) fn recover(&mut self, left: u32) {
        let draw = &mut self.draws.recovery;
        let client = draw.below(self.clients.len() as u64) as u32;
        let name = draw.below(self.space.names.len() as u64) as usize;
        let gap = draw.between(200, 900) * MS;
        let number = self.ask(client, Space::id(name, 0), false);
        let starved = self.workers.iter().any(|host| host.forwarder.stats().paths_exhausted.get() > 0);
        let grace = if starved { GRACE_STARVED } else { GRACE };
        let judged = self.now > self.healed_at + grace;
        self.asks[number as usize].must_succeed = judged;
        let left = left - u32::from(judged);
        if left > 0 {
            self.queue.push(self.now + gap, Event::Recover(left));
        }
    }

    /// The world is over.
    pub(crate) fn check_rest(&mut self) -> Checked {
        for worker in 0..self.workers.len() {
            self.check_worker_at_rest(worker)?;
            self.check_counts(worker)?;
        }
        self.check_cache_bounds()?;
        for (number, ask) in self.asks.iter().enumerate() {
            ensure(ask.waits.is_empty(), "progress/answered", || {
                format!("query {number} still waits at {:?}", ask.waits)
            })?;
            let gone = ask.client.connection.is_some_and(|id| !self.connections[id.0 as usize].open);
            if !ask.must_succeed || gone {
                continue;
            }
            let took = ask.answered_at.map(|at| at - ask.sent_at);
            ensure(took.is_some_and(|took| took <= PATIENCE), "progress/in-time", || {
                format!("query {number}, asked at {} ms, was answered after {took:?} ns", ask.sent_at / MS)
            })?;
            ensure(ask.rcode != Some(2) && !self.is_refused(ask), "progress/succeeds", || {
                format!("query {number}, asked at {} ms, failed although all is well", ask.sent_at / MS)
            })?;
        }
        self.trace.fold(mix(self.summary.queries));
        Ok(())
    }

    /// REFUSED, though its question is for a zone.
    fn is_refused(&self, ask: &crate::clients::Ask) -> bool {
        let taken = |question| {
            let mut plans = self.workers.iter().filter(|host| host.serves()).map(|host| &host.plan);
            plans.all(|plan| {
                plan.takes(&self.space, question) && plan.zone_of(&self.space, question).is_some()
            })
        };
        ask.rcode == Some(5) && !self.has(Hazard::Ceiling) && ask.question.is_some_and(taken)
    }

    fn check_worker_at_rest(&self, worker: usize) -> Checked {
        let host = &self.workers[worker];
        let stats = host.forwarder.stats();
        let (lookups, waiters) = (host.forwarder.lookups(), stats.waiters.get());
        let paths = host.lines.iter().flatten().count();
        let next = host.forwarder.poll_timeout();
        ensure(lookups == 0 && waiters == 0 && paths == 0 && next.is_none(), "progress/rest", || {
            format!(
                "worker {worker} has {lookups} lookups, {waiters} waiters, {paths} paths and asks for {next:?}"
            )
        })
    }
}
