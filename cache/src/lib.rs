//! nodens-cache: the cache that all workers share, and the only place where they meet.
//!
//! The kernel spreads one name's queries over all workers, so a cache per worker would learn everything once per worker.
//! [`SharedCache`] is a power of two of the core's shards, each behind a reader/writer lock. A hit takes the read side, lets the
//! caller copy what it needs, and leaves; it writes the lock word and, seldom, a visited mark. An insert brings a finished
//! entry and gives up if the shard stays busy: that costs one more upstream query, not correctness.
//!
//! What may be cached, for how long, what leaves first: all that is `nodens_core::cache`. Here is only what
//! concerns threads. `tests/loom.rs` runs it through every order of its steps.
#![forbid(unsafe_code)]

mod cell;
mod sync;
#[cfg(all(test, not(nodens_loom)))]
mod tests;

use cell::Cell;
use nodens_core::cache::{
    AnswerRef, Cache, Entry, InsertRules, Inserted, Key, Prepared, Removed, ShardUsage,
};
use nodens_core::hash::HashKeys;
use nodens_core::{Instant, Seed, ZoneId};

/// Shards of a cache that is large enough. With eight workers that all hit, two meet in a shard once in some hundred
/// lookups, and then for the time of a copy.
const SHARDS_MAX: usize = 64;

/// Bytes that a shard has at least: the largest answer, 64 KiB, must fit in beside the slots of many small ones.
const SHARD_BYTES_MIN: usize = 256 << 10;

/// Entries that a class may have in a shard at least, however small its cap. CoreDNS does the same with its own shards.
const SHARD_ENTRIES_MIN: u32 = 4;

/// Where in a key's hash the number of its shard is. A shard's index takes its places from the lowest bits and its tags from
/// the seven highest (on 32-bit machines from bit 25 on), so these are left over.
const SHARD_HASH_SHIFT: u32 = 40;

/// The cache that all workers share.
#[derive(Debug)]
pub struct SharedCache {
    cells: Box<[Cell]>,
    keys: HashKeys,
}

/// What the cache holds and how often its locks were in the way.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub struct Usage {
    /// The sum over all shards. They are looked at one after the other, so it is no snapshot: entries that come and go
    /// meanwhile are in it or not.
    pub table: ShardUsage,
    /// Answers that were not kept because their shard was busy.
    pub busy: u64,
    /// Shards that were emptied because a thread had panicked while it changed them. Anything but 0 is a bug.
    pub resets: u64,
}

impl SharedCache {
    /// An empty cache that will use at most `bytes_max` bytes, and nearly none at first. `seed` makes the secret that keys are
    /// hashed under; draw it anew for each process.
    pub fn new(bytes_max: usize, seed: &Seed) -> Self {
        let mut shards = SHARDS_MAX;
        while shards > 1 && bytes_max / shards < SHARD_BYTES_MIN {
            shards /= 2;
        }
        let shard_bytes = (bytes_max / shards).saturating_sub(size_of::<Cell>());
        let cells = (0..shards).map(|_| Cell::new(shard_bytes)).collect();
        SharedCache { cells, keys: HashKeys::new(seed) }
    }

    /// What it holds now. Locks one shard at a time.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for cell in &self.cells {
            if let Some(shard) = cell.read() {
                shard.add_usage_to(&mut usage.table);
            }
            usage.busy += cell.busy();
            usage.resets += cell.resets();
        }
        usage
    }

    /// Forgets a zone, its figures included: for zones that a reload has removed. Waits for one shard after the other and holds it
    /// for as long as its entries take to free, so it is for the control thread.
    pub fn flush_zone(&self, zone: ZoneId) {
        for cell in &self.cells {
            cell.write().flush_zone(zone);
        }
    }

    fn cell(&self, key: &Key) -> &Cell {
        &self.cells[(key.hash() >> SHARD_HASH_SHIFT) as usize & (self.cells.len() - 1)]
    }

    /// One shard's part of a cap that is about the whole cache.
    fn class_entries_max(&self, entries_max: u32) -> u32 {
        entries_max.div_ceil(self.cells.len() as u32).max(SHARD_ENTRIES_MIN)
    }
}

impl Cache for SharedCache {
    fn hash_keys(&self) -> &HashKeys {
        &self.keys
    }

    fn get<R>(&self, key: &Key, now: Instant, read: impl FnOnce(Entry<'_>) -> R) -> Option<R> {
        let shard = self.cell(key).read()?;
        shard.get(key, now).map(read)
    }

    fn insert(&self, key: &Key, answer: AnswerRef<'_>, rules: InsertRules) -> Inserted {
        let new = Prepared::new(key, answer);
        let mut removed = Removed::default();
        let Some(mut shard) = self.cell(key).try_write() else { return Inserted::Busy };
        let class_entries_max = self.class_entries_max(rules.entries_max);
        let inserted = shard.insert_prepared(new, rules, class_entries_max, &mut removed);
        // The lock first, then the memory.
        drop(shard);
        drop(removed);
        inserted
    }
}
