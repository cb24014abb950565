//! A lookup: one effort to get a response for one question, and the clients that wait for it.
//!
//! | state | meaning | leaves by |
//! | --- | --- | --- |
//! | asking | at least one attempt is out; a timer stands for the next one | a valid response; every attempt refused; the deadline |
//! | pausing | every attempt failed at once; a timer stands for one more | that attempt; the deadline |
//! | over | its waiters have an answer in the queue, its paths and timers are gone | - |
//!
//! A lookup always ends: its deadline is fixed when it begins and is only ever brought forward. Who joins late shares what
//! is left of it, which is never more than the patience that any client has (design §4a).

use super::paths::Attempt;
use super::timers::Timers;
use crate::api::{ClientAddr, FailureCause, Transport};
use crate::cache::Key;
use crate::sim_support::{Fault, Mark, mark, planted};
use crate::slab::{Slab, Ticket};
use crate::time::{Duration, Instant};
use crate::upstream::Order;
use crate::wire::Flags;
use alloc::boxed::Box;
use alloc::vec::Vec;
use hashbrown::HashTable;
use smallvec::SmallVec;

/// The hard cap on a lookup: inside the five seconds that resolvers wait by default.
pub(super) const LOOKUP_TIME_MAX: Duration = Duration::from_millis(4500);
/// The cap while all upstreams of the zone are known to be down: injected Pods wait one second, then ask the next server.
pub(super) const LOOKUP_TIME_ALL_DOWN: Duration = Duration::from_millis(800);

/// One effort.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) key: Key,
    /// RD=0 asks for something else than RD=1 and is kept apart (semantics.md R15).
    pub(super) rd: bool,
    /// Index into the configuration's zones.
    pub(super) zone: usize,
    /// The question in the spelling of the client that came first.
    pub(super) question: Box<[u8]>,
    pub(super) waiters: SmallVec<[Waiter; 1]>,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    pub(super) next_attempt_at: Instant,
    /// Upstreams in the order to ask them; attempt `n` goes to `order[n % len]`.
    pub(super) order: Order,
    pub(super) attempts_made: u32,
    /// How many may be under way or lost.
    pub(super) attempts_max: u32,
    /// Attempts that ended at once: refused, unreachable, not sent.
    pub(super) connects_failed: u32,
    /// When so many have failed, the lookup has: CoreDNS' `max_connect_attempts`.
    pub(super) connects_max: u32,
    /// Times it was sent again because a connection ended.
    pub(super) resends: u32,
    /// The longest wait before something else is tried.
    pub(super) read_timeout: Duration,
    /// How its upstreams are asked.
    pub(super) transport: Transport,
    /// What an answer may still come to, the oldest first.
    pub(super) out: SmallVec<[Attempt; 2]>,
    pub(super) last_cause: FailureCause,
    /// An upstream's UDP answer was truncated and TCP has to do.
    pub(super) truncated: bool,
    /// TCP was tried because something forged or broken came over UDP.
    pub(super) asked_over_tcp: bool,
    /// An upstream refused our OPT: ask without.
    pub(super) without_edns: bool,
}

/// One client that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) client: ClientAddr,
    pub(super) route: usize,
    pub(super) id: u16,
    pub(super) flags: Flags,
    /// The DO bit, if there was an OPT.
    pub(super) do_bit: Option<bool>,
    /// The size in the client's OPT, else 512.
    pub(super) udp_size: u16,
    pub(super) query_len: u16,
    pub(super) asked: Instant,
    /// The client's spelling of the question, where it differs from the lookup's.
    pub(super) spelling: Option<Box<[u8]>>,
}

/// All lookups of a worker.
#[derive(Debug)]
pub(super) struct Lookups {
    slab: Slab<Lookup>,
    by_question: HashTable<u32>,
    /// By slot.
    pub(super) timers: Timers,
    waiters: usize,
}

impl Lookups {
    pub(super) fn new() -> Self {
        Lookups { slab: Slab::new(), by_question: HashTable::new(), timers: Timers::default(), waiters: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Clients that wait, over all lookups.
    pub(super) fn waiters(&self) -> usize {
        self.waiters
    }

    /// The lookup under way for a question.
    pub(super) fn find(&self, key: &Key, rd: bool) -> Option<Ticket> {
        let same = |slot: &u32| {
            self.slab.at(*slot).is_some_and(|(_, l)| l.rd == rd && l.key.as_bytes() == key.as_bytes())
        };
        let slot = self.by_question.find(key.hash(), same)?;
        self.slab.at(*slot).map(|(ticket, _)| ticket)
    }

    pub(super) fn insert(&mut self, lookup: Lookup) -> Ticket {
        let hash = lookup.key.hash();
        self.waiters += lookup.waiters.len();
        let ticket = self.slab.insert(lookup);
        let slab = &self.slab;
        self.by_question
            .insert_unique(hash, ticket.slot, |slot| slab.at(*slot).map_or(0, |(_, l)| l.key.hash()));
        ticket
    }

    pub(super) fn join(&mut self, ticket: Ticket, waiter: Waiter) {
        if let Some(lookup) = self.slab.get_mut(ticket) {
            lookup.waiters.push(waiter);
            self.waiters += 1;
        }
    }

    /// Brings the deadline forward to `deadline`, if that is earlier: a client that joins has been waiting for longer (after a
    /// reload; any other has only just asked).
    pub(super) fn hurry(&mut self, ticket: Ticket, deadline: Instant) {
        if let Some(lookup) = self.slab.get_mut(ticket)
            && deadline < lookup.deadline
        {
            mark(Mark::JoinedWithLessTime);
            lookup.deadline = deadline;
            self.arm(ticket);
        }
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Lookup> {
        self.slab.get(ticket)
    }

    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Lookup> {
        self.slab.get_mut(ticket)
    }

    pub(super) fn at(&self, slot: u32) -> Option<Ticket> {
        self.slab.at(slot).map(|(ticket, _)| ticket)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Ticket, &mut Lookup)> {
        self.slab.iter_mut()
    }

    /// Takes all lookups out.
    pub(super) fn take_all(&mut self) -> Vec<Lookup> {
        let tickets: Vec<Ticket> = self.slab.iter_mut().map(|(ticket, _)| ticket).collect();
        tickets.into_iter().filter_map(|ticket| self.remove(ticket)).collect()
    }

    /// Takes a lookup out, with its timer and its place in the index.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Lookup> {
        let lookup = self.slab.remove(ticket)?;
        self.timers.clear(ticket.slot);
        self.waiters -= lookup.waiters.len();
        if let Ok(entry) = self.by_question.find_entry(lookup.key.hash(), |slot| *slot == ticket.slot) {
            entry.remove();
        }
        Some(lookup)
    }

    /// Sets the timer to whatever the lookup waits for next.
    pub(super) fn arm(&mut self, ticket: Ticket) {
        let lost =
            |lookup: &&Lookup| planted(Fault::DeadlineLost) && lookup.next_attempt_at >= lookup.deadline;
        if let Some(lookup) = self.slab.get(ticket).filter(|lookup| !lost(lookup)) {
            self.timers.set(ticket.slot, lookup.next_attempt_at.min(lookup.deadline));
        }
    }
}

impl Lookup {
    /// Sets the time for the next attempt; if there may be none, only the deadline is left to wait for.
    pub(super) fn try_again_at(&mut self, at: Instant) {
        self.next_attempt_at = if self.may_attempt() { at } else { self.deadline };
    }

    /// Whether one more attempt is within bounds.
    pub(super) fn may_attempt(&self) -> bool {
        // Saturating: the extra attempt over TCP that a forgery calls for may fail without having been counted as made.
        self.attempts_made.saturating_sub(self.connects_failed) < self.attempts_max
            || planted(Fault::AttemptsUnbounded)
    }

    /// Whether the same client waits already with the same ID: a retransmission, which must not be answered twice. Only the
    /// last few are looked at: a stub that repeats itself does so soon, and a thousand waiters must not cost a million compares.
    pub(super) fn has_waiter(&self, client: &ClientAddr, id: u16) -> bool {
        const LOOK_BACK: usize = 32;
        self.waiters.iter().rev().take(LOOK_BACK).any(|w| w.id == id && w.client == *client)
    }
}
