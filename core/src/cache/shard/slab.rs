//! The slots of a shard and the index that finds them.
//!
//! Slots stand in one vector that grows in small steps, and are used again when their entry has left. What a hit reads is
//! in the slot, one cache line; what only inserts touch is in a [`Seat`] of the same number. The index holds slot
//! numbers under the whole 64-bit hash of their keys; equal hashes are told apart by the keys themselves.
//!
//! It knows nothing of bounds, order or classes: it says what it uses and what growing would cost, and the shard decides.

use super::body::{Prepared, charge};
use crate::cache::sieve::{ALL, NIL, Seat};
use crate::cache::{AnswerMeta, InsertRules};
use crate::sim_support::{Fault, planted};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use hashbrown::HashTable;

/// The slab grows by an eighth of itself: little is held in reserve, and growing costs each entry a few copies over the life
/// of the shard.
const GROWTH_DIVISOR: usize = 8;
/// And by this many slots at least.
const GROWTH_MIN: usize = 8;

/// The index has at least this many places for each slot. Then the marks that removals leave in it are cleaned up in
/// place, never by moving to a larger index, and all its growth happens in [`Slab::grow`], where it is charged.
const PLACES_PER_SLOT: usize = 2;

/// An entry, or room for one.
///
/// `visited` is `core`'s atomic even where the locks around are loom's: nothing depends on the order in which others
/// see it, so there is nothing in it to model.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) stored: Instant,
    pub(super) expires: Instant,
    /// The key, then the answer's bytes. Empty in a free slot.
    body: Box<[u8]>,
    pub(super) meta: AnswerMeta,
    /// Zero in a free slot: a key is never empty.
    key_len: u16,
    visited: AtomicBool,
}

impl Slot {
    fn new(new: Prepared, rules: InsertRules, visited: bool) -> Self {
        Slot {
            hash: new.hash,
            stored: rules.stored,
            expires: rules.expires,
            key_len: new.key_len,
            meta: new.meta,
            body: new.body,
            visited: AtomicBool::new(visited),
        }
    }

    /// Becomes `new`; returns the memory of what it was.
    pub(super) fn fill(&mut self, new: Prepared, rules: InsertRules, visited: bool) -> Box<[u8]> {
        let mut old = core::mem::replace(self, Slot::new(new, rules, visited));
        let same = |old: &Slot, new: &Slot| old.key() == new.key() && old.body.len() == new.body.len();
        if planted(Fault::OldRecordsStay) && same(&old, self) {
            core::mem::swap(&mut old.body, &mut self.body);
        }
        old.body
    }

    pub(super) fn is_live(&self) -> bool {
        self.key_len != 0
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.body[..usize::from(self.key_len)]
    }

    pub(super) fn answer(&self) -> &[u8] {
        &self.body[usize::from(self.key_len)..]
    }

    pub(super) fn charge(&self) -> usize {
        charge(self.body.len())
    }

    /// Reads first: a popular entry's line stays shared between the readers' caches.
    pub(super) fn mark_visited(&self) {
        if !self.visited.load(Relaxed) {
            self.visited.store(true, Relaxed);
        }
    }

    /// Takes the visited mark away and says whether it was set. Only the owner of the shard calls it, so load and
    /// store need not be one step.
    pub(super) fn unmark(&self) -> bool {
        let visited = self.visited.load(Relaxed);
        if visited {
            self.visited.store(false, Relaxed);
        }
        visited
    }
}

/// Slots, seats and index.
#[derive(Debug)]
pub(super) struct Slab {
    index: HashTable<u32>,
    pub(super) slots: Vec<Slot>,
    pub(super) seats: Vec<Seat>,
    /// The first free slot; the next is where the seat's newer neighbour would be.
    free: u32,
}

impl Slab {
    pub(super) const fn new() -> Self {
        Slab { index: HashTable::new(), slots: Vec::new(), seats: Vec::new(), free: NIL }
    }

    /// The slot of `key`.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let is_it = |index: &u32| {
            let slot = &self.slots[*index as usize];
            slot.hash == hash && slot.key() == key
        };
        self.index.find(hash, is_it).copied()
    }

    /// Memory in use, without the bodies.
    pub(super) fn bytes(&self) -> usize {
        Self::slots_bytes(self.slots.capacity()) + charge(self.index.allocation_size())
    }

    /// Whether an entry can be added without growing.
    pub(super) fn has_room(&self) -> bool {
        self.free != NIL || self.slots.len() < self.slots.capacity()
    }

    /// By how much [`bytes`](Self::bytes) will rise if it grows.
    pub(super) fn growth_bytes(&self) -> usize {
        let capacity = self.grown_capacity();
        let index_bytes = charge(self.index.allocation_size()).max(charge(index_size(capacity)));
        (Self::slots_bytes(capacity) + index_bytes) - self.bytes()
    }

    /// Makes room for some more entries.
    pub(super) fn grow(&mut self) {
        let capacity = self.grown_capacity();
        self.slots.reserve_exact(capacity - self.slots.len());
        self.seats.reserve_exact(capacity - self.seats.len());
        let places = capacity * PLACES_PER_SLOT;
        if buckets(places) > self.index.num_buckets() {
            let slots = &self.slots;
            self.index.reserve(places - self.index.len(), |index| slots[*index as usize].hash);
        }
    }

    /// Adds an entry; there must be room.
    pub(super) fn add(&mut self, new: Prepared, rules: InsertRules, visited: bool) -> u32 {
        let hash = new.hash;
        let index = self.free;
        let index = if index == NIL {
            assert!(self.has_room(), "the slab grows in `grow` only");
            self.slots.push(Slot::new(new, rules, visited));
            self.seats.push(Seat::EMPTY);
            (self.slots.len() - 1) as u32
        } else {
            self.free = self.seats[index as usize].links[ALL].newer;
            self.slots[index as usize].fill(new, rules, visited);
            index
        };
        let slots = &self.slots;
        self.index.insert_unique(hash, index, |index| slots[*index as usize].hash);
        index
    }

    /// Frees a slot; returns the memory of its entry.
    pub(super) fn remove(&mut self, index: u32) -> Box<[u8]> {
        let slot = &mut self.slots[index as usize];
        match self.index.find_entry(slot.hash, |other| *other == index) {
            Ok(place) => drop(place.remove()),
            Err(_) => unreachable!("every live slot is in the index"),
        }
        slot.key_len = 0;
        self.seats[index as usize] = Seat::EMPTY;
        self.seats[index as usize].links[ALL].newer = self.free;
        self.free = index;
        core::mem::take(&mut slot.body)
    }

    fn grown_capacity(&self) -> usize {
        let capacity = self.slots.capacity();
        capacity + (capacity / GROWTH_DIVISOR).max(GROWTH_MIN)
    }

    fn slots_bytes(capacity: usize) -> usize {
        charge(capacity * size_of::<Slot>()) + charge(capacity * size_of::<Seat>())
    }
}

/// Buckets that hashbrown takes for this many places: a power of two, an eighth of it empty.
fn buckets(places: usize) -> usize {
    (places * 8 / 7).next_power_of_two()
}

/// The allocation of an index for so many slots: each bucket a number and a control byte, and room for alignment and for one
/// group of control bytes more.
fn index_size(slots: usize) -> usize {
    const ALIGNMENT_AND_GROUP: usize = 32;
    buckets(slots * PLACES_PER_SLOT) * (size_of::<u32>() + 1) + ALIGNMENT_AND_GROUP
}

#[cfg(test)]
impl Slab {
    /// Numbers of the live slots as the index has them, and as the free list leaves them.
    pub(super) fn audit(&self) -> Vec<u32> {
        let mut indexed: Vec<u32> = self.index.iter().copied().collect();
        indexed.sort_unstable();
        let live: Vec<u32> =
            (0..self.slots.len() as u32).filter(|i| self.slots[*i as usize].is_live()).collect();
        assert_eq!(indexed, live, "the index holds the live slots, each once");
        let mut free = 0;
        let mut at = self.free;
        while at != NIL {
            assert!(!self.slots[at as usize].is_live(), "a free slot is not live");
            at = self.seats[at as usize].links[ALL].newer;
            free += 1;
        }
        assert_eq!(free + live.len(), self.slots.len(), "every slot is live or free");
        for index in &live {
            let slot = &self.slots[*index as usize];
            assert_eq!(self.find(slot.hash, slot.key()), Some(*index), "a live slot is found by its key");
        }
        live
    }

    /// The three allocations in bytes, computed anew.
    pub(super) fn allocations(&self) -> [usize; 3] {
        [
            self.slots.capacity() * size_of::<Slot>(),
            self.seats.capacity() * size_of::<Seat>(),
            self.index.allocation_size(),
        ]
    }
}
