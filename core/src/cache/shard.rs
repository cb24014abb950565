//! One shard of the cache: a bounded table of answers with a single owner.
//!
//! An index of 32-bit numbers points into a slab of slots; each slot owns one allocation with the key's bytes and
//! the answer's. Looking up needs `&self` only: a hit copies nothing, moves nothing and at most sets a visited mark, so
//! that readers can share the shard. There are no locks and no clock here; whoever shares a shard between threads puts a lock
//! around it, prepares entries before taking it ([`Prepared`]) and frees memory after ([`Removed`]).
//!
//! Two bounds hold after every insert (semantics.md R19):
//!
//! * **bytes**: slab, index, class table and all entries, each rounded up as allocators do. What would pass the bound is not
//!   allocated; instead entries leave, or their slots are used again. While the slab or the index grows, its old
//!   memory exists for a moment beside the new: that is not charged, and is one slab of one shard.
//! * **entries per zone and class**, as the Corefile has them: a class at its cap evicts within itself.
//!
//! Expired entries leave first as far as a short look goes: each insert examines [`SWEEP_SLOTS`] slots with a hand that goes
//! round the slab. Then SIEVE decides (the `sieve` module). The slab never shrinks; a shard that once held many small
//! entries keeps their slots, about 90 bytes each, and that memory stays charged.

mod body;
mod slab;
#[cfg(test)]
mod tests;
mod usage;

pub use body::{Prepared, Removed};
pub use usage::{ClassUsage, ShardUsage};

use super::sieve::{ALL, CLASS, List};
use super::{AnswerRef, Class, Entry, InsertRules, Inserted, Key, Kind};
use crate::config::ZoneId;
use crate::sim_support::{Fault, Mark, mark, planted};
use crate::time::Instant;
use alloc::vec::Vec;
use body::charge;
use slab::Slab;

/// Slots that each insert examines for expired entries. At four, a shard that sees as many inserts as it has slots is
/// looked through four times, for about one cache line each.
pub const SWEEP_SLOTS: usize = 4;

/// Most entries that an insert evicts because their class is over its cap. It is one unless a reload lowered the cap;
/// then the class comes down over the next inserts instead of holding the shard.
const CLASS_EVICTIONS_MAX: usize = 4;

/// Classes that are added to the table at a time: a shard meets two per zone, and most nodes have a few zones.
const CLASS_STEP: usize = 4;

/// A bounded table of answers.
pub struct Shard {
    slab: Slab,
    /// All entries.
    all: List,
    classes: Vec<ClassState>,
    bytes_max: usize,
    /// Charge of the bodies of all entries.
    body_bytes: usize,
    /// The next slot to examine for expiry.
    sweep_hand: usize,
    expired: u64,
}

/// The entries of one zone and class. A state whose zone was flushed has none and may become another's.
#[derive(Debug)]
struct ClassState {
    of: Option<(ZoneId, Class)>,
    list: List,
    evictions: u64,
}

impl Shard {
    /// An empty shard that will use at most `bytes_max` bytes. It allocates nothing yet.
    pub const fn new(bytes_max: usize) -> Self {
        Shard {
            slab: Slab::new(),
            all: List::new(ALL),
            classes: Vec::new(),
            bytes_max,
            body_bytes: 0,
            sweep_hand: 0,
            expired: 0,
        }
    }

    /// The entry under `key` if it is fresh at `now`; marks it visited.
    pub fn get(&self, key: &Key, now: Instant) -> Option<Entry<'_>> {
        self.get_hashed(key.hash(), key.as_bytes(), now)
    }

    fn get_hashed(&self, hash: u64, key: &[u8], now: Instant) -> Option<Entry<'_>> {
        let slot = &self.slab.slots[self.slab.find(hash, key)? as usize];
        if slot.expires <= now && !planted(Fault::ExpiredEntryServed) {
            return None;
        }
        slot.mark_visited();
        let answer = AnswerRef { meta: slot.meta, bytes: slot.answer() };
        Some(Entry { answer, stored: slot.stored, expires: slot.expires })
    }

    /// Stores `answer` under `key`. `class_entries_max` is how many entries of its zone and class this shard may hold;
    /// `rules.entries_max`, which is about the whole cache, is not looked at.
    pub fn insert(
        &mut self,
        key: &Key,
        answer: AnswerRef<'_>,
        rules: InsertRules,
        class_entries_max: u32,
    ) -> Inserted {
        self.insert_prepared(Prepared::new(key, answer), rules, class_entries_max, &mut Removed::default())
    }

    /// As [`insert`](Self::insert), without allocating an entry or freeing one.
    ///
    /// An answer without a [`Kind`] must not be cached; it is the caller's mistake, and it is not stored.
    pub fn insert_prepared(
        &mut self,
        new: Prepared,
        rules: InsertRules,
        class_entries_max: u32,
        removed: &mut Removed,
    ) -> Inserted {
        let now = rules.stored;
        debug_assert!(new.meta.kind.is_some(), "only answers of a kind may be cached");
        let Some(kind) = new.meta.kind else {
            removed.push(new.body);
            return Inserted::Kept;
        };
        self.sweep(now, removed);
        let found = self.slab.find(new.hash, new.key());
        if let Some(index) = found {
            let old = &self.slab.slots[index as usize];
            // R17: a failure tells nothing about the name that a fresh answer does not tell better.
            if kind == Kind::Failure && old.expires > now && old.meta.kind != Some(Kind::Failure) {
                mark(Mark::AnswerKeptOverFailure);
                removed.push(new.body);
                return Inserted::Kept;
            }
        }
        let of = (new.zone, kind.class());
        if self.bytes_when_empty(of) + new.charge() > self.bytes_max {
            mark(Mark::AnswerTooLargeForShard);
            removed.push(new.body);
            return Inserted::TooLarge;
        }
        if let Some(index) = found {
            if self.fits_in_place(index, of, &new) {
                self.replace(index, new, rules, removed);
                return Inserted::Stored;
            }
            mark(Mark::ReplacedElsewhere);
            self.remove(index, removed);
        }

        let class = self.class_index(of);
        self.evict_in_class(class, class_entries_max.max(1), now, removed);
        if !self.make_room(new.charge(), now, removed) {
            removed.push(new.body);
            return Inserted::TooLarge;
        }
        self.body_bytes += new.charge();
        // Who asks again for a name whose answer has just run out has shown that it is in use.
        let index = self.slab.add(new, rules, found.is_some());
        self.slab.seats[index as usize].class = class as u32;
        self.all.push(&mut self.slab.seats, index);
        self.classes[class].list.push(&mut self.slab.seats, index);
        Inserted::Stored
    }

    /// Forgets a zone: its entries and its figures. For zones that a reload has removed; nothing is counted as evicted. Takes
    /// time in proportion to the zone's entries.
    pub fn flush_zone(&mut self, zone: ZoneId) {
        for class in 0..self.classes.len() {
            if self.classes[class].of.is_some_and(|(of, _)| of == zone) {
                while let Some(index) = self.classes[class].list.oldest() {
                    self.remove(index, &mut Removed::default());
                }
                self.classes[class] = ClassState { of: None, list: List::new(CLASS), evictions: 0 };
            }
        }
    }

    /// What the shard holds.
    pub fn usage(&self) -> ShardUsage {
        let mut usage = ShardUsage::default();
        self.add_usage_to(&mut usage);
        usage
    }

    /// Adds what the shard holds to a sum.
    pub fn add_usage_to(&self, sum: &mut ShardUsage) {
        sum.bytes += self.bytes();
        sum.bytes_max += self.bytes_max;
        sum.expired += self.expired;
        for state in &self.classes {
            if let Some((zone, class)) = state.of {
                let entries = u64::from(state.list.len());
                sum.add_class(ClassUsage { zone, class, entries, evictions: state.evictions });
            }
        }
    }

    /// Memory in use.
    fn bytes(&self) -> usize {
        self.fixed_bytes() + self.body_bytes
    }

    /// Memory that stays when all entries leave.
    fn fixed_bytes(&self) -> usize {
        self.slab.bytes() + charge(self.classes.capacity() * size_of::<ClassState>())
    }

    /// What would be in use if an entry of `of` were to be stored and all others had left for it.
    fn bytes_when_empty(&self, of: (ZoneId, Class)) -> usize {
        let mut bytes = self.fixed_bytes();
        if self.classes.len() == self.classes.capacity() && self.known_class(of).is_none() {
            bytes += charge(CLASS_STEP * size_of::<ClassState>());
        }
        if self.slab.slots.capacity() == 0 {
            bytes += self.slab.growth_bytes();
        }
        bytes
    }

    /// Whether `new` can take the place of the entry at `index`: of the same class and, if larger, with room for it. A zone is
    /// part of the key, so it is the same.
    fn fits_in_place(&self, index: u32, of: (ZoneId, Class), new: &Prepared) -> bool {
        let slot = &self.slab.slots[index as usize];
        let class = self.slab.seats[index as usize].class;
        self.classes[class as usize].of == Some(of)
            && self.bytes() - slot.charge() + new.charge() <= self.bytes_max
    }

    /// Puts `new` where the entry at `index` is. Nobody is evicted (row A63).
    fn replace(&mut self, index: u32, new: Prepared, rules: InsertRules, removed: &mut Removed) {
        let slot = &mut self.slab.slots[index as usize];
        self.body_bytes = self.body_bytes - slot.charge() + new.charge();
        removed.push(slot.fill(new, rules, true));
    }

    /// Evicts until one more entry fits into the class.
    fn evict_in_class(&mut self, class: usize, entries_max: u32, now: Instant, removed: &mut Removed) {
        for _ in 0..CLASS_EVICTIONS_MAX {
            let list = &mut self.classes[class].list;
            if list.len() < entries_max || planted(Fault::ClassCapIgnored) {
                return;
            }
            let Some(victim) = list.victim(&self.slab.seats, |i| self.slab.slots[i as usize].unmark()) else {
                return;
            };
            self.evict(victim, now, removed);
        }
    }

    /// Evicts until there is a slot and `charge` bytes are free. False only if the shard is empty and still too small, which
    /// the caller has excluded.
    fn make_room(&mut self, charge: usize, now: Instant, removed: &mut Removed) -> bool {
        let bytes_max = if planted(Fault::CacheBytesExceeded) { 4 * self.bytes_max } else { self.bytes_max };
        loop {
            let bytes = self.bytes() + charge;
            if bytes <= bytes_max {
                if self.slab.has_room() {
                    return true;
                }
                if bytes + self.slab.growth_bytes() <= bytes_max {
                    self.slab.grow();
                    debug_assert!(self.bytes() + charge <= bytes_max, "growth was charged too little");
                    return true;
                }
            }
            let victim = self.all.victim(&self.slab.seats, |i| self.slab.slots[i as usize].unmark());
            let Some(victim) = victim else { return false };
            self.evict(victim, now, removed);
        }
    }

    /// Removes an entry to make room and counts it.
    fn evict(&mut self, index: u32, now: Instant, removed: &mut Removed) {
        if self.slab.slots[index as usize].expires <= now {
            self.expired += 1;
        } else {
            mark(Mark::FreshEntryEvicted);
            let class = self.slab.seats[index as usize].class;
            self.classes[class as usize].evictions += 1;
        }
        self.remove(index, removed);
    }

    /// Removes what has expired among the next few slots.
    fn sweep(&mut self, now: Instant, removed: &mut Removed) {
        for _ in 0..SWEEP_SLOTS.min(self.slab.slots.len()) {
            self.sweep_hand =
                if self.sweep_hand + 1 < self.slab.slots.len() { self.sweep_hand + 1 } else { 0 };
            let slot = &self.slab.slots[self.sweep_hand];
            if slot.is_live() && slot.expires <= now {
                self.expired += 1;
                self.remove(self.sweep_hand as u32, removed);
            }
        }
    }

    fn remove(&mut self, index: u32, removed: &mut Removed) {
        self.all.unlink(&mut self.slab.seats, index);
        let class = self.slab.seats[index as usize].class;
        self.classes[class as usize].list.unlink(&mut self.slab.seats, index);
        self.body_bytes -= self.slab.slots[index as usize].charge();
        removed.push(self.slab.remove(index));
    }

    fn known_class(&self, of: (ZoneId, Class)) -> Option<usize> {
        // A handful of zones: walking them is cheaper than hashing.
        self.classes.iter().position(|state| state.of == Some(of))
    }

    /// The state of a class, made if it is not there.
    fn class_index(&mut self, of: (ZoneId, Class)) -> usize {
        if let Some(class) = self.known_class(of) {
            return class;
        }
        if let Some(unused) = self.classes.iter().position(|state| state.of.is_none()) {
            self.classes[unused].of = Some(of);
            return unused;
        }
        if self.classes.len() == self.classes.capacity() {
            self.classes.reserve_exact(CLASS_STEP);
        }
        self.classes.push(ClassState { of: Some(of), list: List::new(CLASS), evictions: 0 });
        self.classes.len() - 1
    }
}

impl core::fmt::Debug for Shard {
    /// The figures, not the contents: those may be a megabyte.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Shard").field(&self.usage()).finish()
    }
}
