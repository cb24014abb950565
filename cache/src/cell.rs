//! One shard behind its lock.
//!
//! Readers wait for a writer, because a writer is short: its entry is ready before it takes the lock, and what it removed is
//! freed after. A writer does not wait for readers: a waiting writer would make the readers behind it wait as well, which is
//! worse for the service than one answer that is not kept.

use crate::sync::{
    AtomicU64, Ordering::Relaxed, RwLock, RwLockReadGuard, RwLockWriteGuard, WRITE_ATTEMPTS, clear_poison,
    spin_loop,
};
use nodens_core::cache::Shard;
use std::sync::TryLockError;

/// A shard, its lock and the counters of the lock.
///
/// Aligned so that no two cells share a cache line: 64 bytes wide, and fetched in pairs by common processors.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Cell {
    shard: RwLock<Shard>,
    bytes_max: usize,
    busy: AtomicU64,
    resets: AtomicU64,
}

impl Cell {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Cell {
            shard: RwLock::new(Shard::new(bytes_max)),
            bytes_max,
            busy: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        }
    }

    /// The shard for reading. `None` if a writer has panicked inside: what it left half done must not be looked at. The next
    /// writer makes a new shard.
    pub(crate) fn read(&self) -> Option<RwLockReadGuard<'_, Shard>> {
        self.shard.read().ok()
    }

    /// The shard for writing, unless others keep it in use; that is counted.
    pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, Shard>> {
        for attempt in 1..=WRITE_ATTEMPTS {
            match self.shard.try_write() {
                Ok(shard) => return Some(shard),
                Err(TryLockError::Poisoned(poisoned)) => return Some(self.reset(poisoned.into_inner())),
                Err(TryLockError::WouldBlock) if attempt < WRITE_ATTEMPTS => spin_loop(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.busy.fetch_add(1, Relaxed);
        None
    }

    /// The shard for writing, however long it takes. Not for workers.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Shard> {
        self.shard.write().unwrap_or_else(|poisoned| self.reset(poisoned.into_inner()))
    }

    /// Starts anew after a panic: an empty shard costs some upstream queries, a broken one could cost the service.
    fn reset<'c>(&self, mut shard: RwLockWriteGuard<'c, Shard>) -> RwLockWriteGuard<'c, Shard> {
        *shard = Shard::new(self.bytes_max);
        clear_poison(&self.shard);
        self.resets.fetch_add(1, Relaxed);
        shard
    }

    pub(crate) fn busy(&self) -> u64 {
        self.busy.load(Relaxed)
    }

    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Relaxed)
    }
}
