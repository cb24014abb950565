//! The reference model: what the cache may hold, and who waits for what, in the simplest terms that decide every case.
//!
//! One table of the last answer kept per key, one table of lookups per worker. No bytes, no pools, no timers: those are the
//! core's business. The model is told what went in (a query, an answer that was accepted) and what came out, and says what was
//! allowed. Where the core is free (eviction from a small cache, the exact moment at which a failure is forgotten), the model
//! says "may", elsewhere "must".

use crate::questions::QuestionId;
use crate::said::{Nature, Version};
use nodens_core::cache::Kind;
use nodens_core::config::CacheRules;
use nodens_core::{Duration, Instant, ZoneId};
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// RFC 9520 §3.2 lets a failure stand for up to five minutes; design §4a for five seconds.
pub const FAILURE_KEPT_MAX: Duration = Duration::from_secs(5);
/// RFC 9520 §3.2: at least one second.
pub const FAILURE_KEPT_MIN: Duration = Duration::from_secs(1);

/// A key as the model sees it: zone, question, DO, CD, and RD for what is in flight.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub struct Key {
    /// The forward zone's identity.
    pub zone: ZoneId,
    /// The question.
    pub question: QuestionId,
    /// DNSSEC records wanted.
    pub do_bit: bool,
    /// Validation not wanted.
    pub cd: bool,
    /// Recursion desired; answers to others are not kept.
    pub rd: bool,
}

/// A map that nobody's luck can reorder: it is never walked, and its hash has no secret.
pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

/// A multiply-and-rotate hash.
#[derive(Default)]
pub struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        crate::draw::mix(self.0)
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }
    fn write_u16(&mut self, n: u16) {
        self.write_u64(u64::from(n));
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// What the cache keeps under a key.
#[derive(Copy, Clone, Debug)]
pub struct Kept {
    /// Which answer.
    pub version: Version,
    /// What kind.
    pub kind: Kind,
    /// Since when.
    pub stored: Instant,
    /// From when on it must not be used.
    pub expires: Instant,
    /// The TTL it began with.
    pub ttl_s: u32,
}

impl Kept {
    /// The TTL that clients must see at `now`: what is left, to the second below (RFC 2181 §8, semantics.md R3).
    pub fn ttl_left_s(&self, now: Instant) -> u32 {
        self.ttl_s - now.seconds_since(self.stored) as u32
    }
}

/// The lifetime of an answer under a zone's rules; `None`: it is relayed and forgotten.
pub fn lifetime(nature: Nature, rules: &CacheRules) -> Option<(Kind, u32)> {
    let (kind, ttl_s) = match nature {
        // Beats nothing and is beaten by nothing: `servfail` is its only rule.
        Nature::Failure => (Kind::Failure, rules.servfail_ttl_s),
        Nature::Positive(ttl) => {
            (Kind::Positive, ttl.max(rules.success.ttl_min_s).min(rules.success.ttl_max_s))
        }
        Nature::Denial(ttl) => (Kind::NoData, ttl.max(rules.denial.ttl_min_s).min(rules.denial.ttl_max_s)),
        Nature::Relay => return None,
    };
    (ttl_s > 0).then_some((kind, ttl_s))
}

/// A lookup that some worker has under way.
#[derive(Debug)]
pub struct Flight {
    /// Never given twice.
    pub serial: u32,
    /// What it is about.
    pub key: Key,
    /// The zone's place in the worker's configuration.
    pub zone: usize,
    /// Clients that wait, in the order in which they came.
    pub waiters: VecDeque<Waiter>,
    /// When the one that has waited longest asked.
    pub started: Instant,
    /// Since when all its upstreams have been known to be down, if they were.
    pub hopeless_since: Option<Instant>,
    /// It may have been hopeless for a moment within a turn, which brought its deadline forward.
    pub was_hopeless: bool,
    /// Messages sent for it.
    pub sends: u32,
    /// How often a path ended on which it was out: an upper bound of its refused attempts.
    pub refusals: u32,
    /// Messages that may be sent for it besides the usual ones, because something came to nothing.
    pub excuses: u32,
    /// Connections that ended under it, or may have: what was still to be written cannot be seen.
    pub ended_under_it: u32,
    /// Messages of it that must have been paid for out of the retry budget.
    pub paid: u32,
    /// The most that a message for it may have, in bytes: its question and an OPT.
    pub bytes_max: u64,
    /// How often its worker had been out of paths before it began.
    pub exhausted_before: u64,
    /// A client was answered that waited for it.
    pub told: bool,
    /// Something forged or broken came for it over UDP.
    pub forged: bool,
    /// An upstream's answer over UDP was truncated; `None`: its or that of another lookup that asked in the same words.
    pub truncated: Option<bool>,
    /// The answer that ended it, and the TTL that its clients see (`None`: the upstream's). If it is not over yet: answers of which
    /// each ended it or another lookup that asked in the same words.
    pub accepted: SmallVec<[(Version, Option<u32>); 1]>,
    /// Whether it is over; waiters that are left get their answers in this turn.
    pub over: bool,
}

/// A client that waits.
#[derive(Copy, Clone, Debug)]
pub struct Waiter {
    /// The query, by number.
    pub ask: u32,
    /// When the Forwarder got it.
    pub asked: Instant,
}

/// The lookups of one worker.
#[derive(Debug, Default)]
pub struct Flights {
    slots: Vec<Option<Flight>>,
    free: Vec<u32>,
    index: Map<Key, u32>,
    serial: u32,
    /// Clients that wait for lookups that are not over.
    pub waiting: usize,
    /// Places of those that are over and have waiters that were not answered yet.
    pub over: Vec<u32>,
}

impl Flights {
    /// How many are under way.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The place of the one under way for a key.
    pub fn find(&self, key: &Key) -> Option<u32> {
        self.index.get(key).copied()
    }

    /// By place.
    pub fn get(&self, at: u32) -> Option<&Flight> {
        self.slots.get(at as usize)?.as_ref()
    }

    /// By place.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut Flight> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// All, with their places; those that are over included.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Flight)> {
        self.slots.iter().enumerate().filter_map(|(at, flight)| Some((at as u32, flight.as_ref()?)))
    }

    /// All; those that are over included.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.slots.iter_mut().flatten()
    }

    /// How many have begun.
    pub fn begun(&self) -> u32 {
        self.serial
    }

    /// Lookups under way in a zone.
    pub fn in_zone(&self, zone: usize) -> usize {
        self.iter().filter(|(_, flight)| flight.zone == zone && !flight.over).count()
    }

    /// Begins a lookup.
    pub fn begin(&mut self, key: Key, zone: usize, waiter: Waiter, hopeless: bool) -> u32 {
        self.serial += 1;
        let flight = Flight {
            serial: self.serial,
            key,
            zone,
            waiters: VecDeque::from([waiter]),
            started: waiter.asked,
            hopeless_since: hopeless.then_some(waiter.asked),
            was_hopeless: false,
            sends: 0,
            refusals: 0,
            excuses: 0,
            ended_under_it: 0,
            paid: 0,
            bytes_max: 0,
            exhausted_before: 0,
            told: false,
            forged: false,
            truncated: Some(false),
            accepted: SmallVec::new(),
            over: false,
        };
        self.waiting += 1;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(flight);
                at
            }
            None => {
                self.slots.push(Some(flight));
                self.slots.len() as u32 - 1
            }
        };
        self.index.insert(key, at);
        at
    }

    /// One more client waits.
    pub fn join(&mut self, at: u32, waiter: Waiter) {
        let Some(flight) = self.get_mut(at) else { return };
        flight.waiters.push_back(waiter);
        flight.started = flight.started.min(waiter.asked);
        self.waiting += 1;
    }

    /// A lookup is over.
    pub fn finish(&mut self, at: u32) {
        let Some(flight) = self.slots[at as usize].as_mut().filter(|flight| !flight.over) else { return };
        flight.over = true;
        self.waiting -= flight.waiters.len();
        if self.index.get(&flight.key) == Some(&at) {
            self.index.remove(&flight.key);
        }
        self.over.push(at);
    }

    /// Forgets a lookup that is over.
    pub fn forget(&mut self, at: u32) {
        if self.slots[at as usize].take().is_some() {
            self.free.push(at);
        }
    }

    /// Takes all lookups out, the oldest first: a new configuration asks them again.
    pub fn take_all(&mut self) -> Vec<Flight> {
        let mut flights: Vec<Flight> = self.slots.iter_mut().filter_map(Option::take).collect();
        flights.sort_by_key(|flight| flight.serial);
        let serial = self.serial;
        *self = Flights { serial, ..Flights::default() };
        flights
    }
}

/// A question that failed lately at one worker.
#[derive(Copy, Clone, Debug)]
pub struct Failed {
    /// When.
    pub at: Instant,
    /// The worker's count of steps then.
    pub step: u64,
    /// No upstream answered; else an upstream refused.
    pub own: bool,
    /// Nothing else in that turn could have made it forgotten.
    pub clean: bool,
}

impl Failed {
    /// What clients are told meanwhile.
    pub fn rcode(&self) -> u16 {
        if self.own { 2 } else { 5 }
    }
}
