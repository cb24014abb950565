//! The primitives that this crate synchronises with, and nothing else of the kind is used in it.
//!
//! Under `--cfg nodens_loom` they are loom's, which runs a model through every order in which its threads can meet
//! (`tests/loom.rs`). The cfg is our own: `--cfg loom` would switch off parts of other crates in the same build. The
//! models' lock does not know poisoning; that is tested with the standard library's lock alone.

#[cfg(nodens_loom)]
mod model;

#[cfg(not(nodens_loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{
        RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};
#[cfg(nodens_loom)]
pub(crate) use {
    loom::sync::atomic::{AtomicU64, Ordering},
    model::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// How often an insert tries for a shard that is in use. Readers hold it for the time of a copy, 0.1 µs, and a pause takes 10 to
/// 40 ns: this is some 2 µs at most. Who still has the shard then was interrupted inside, and is not worth waiting for.
#[cfg(not(nodens_loom))]
pub(crate) const WRITE_ATTEMPTS: u32 = 64;
/// Enough for the model to see a second attempt succeed and fail; each more multiplies the orders.
#[cfg(nodens_loom)]
pub(crate) const WRITE_ATTEMPTS: u32 = 2;

/// Not loom's: that one makes the others run first, and then nobody would ever find a shard busy twice.
#[cfg(nodens_loom)]
pub(crate) fn spin_loop() {}

#[cfg(not(nodens_loom))]
pub(crate) fn clear_poison<T>(lock: &RwLock<T>) {
    lock.clear_poison();
}
#[cfg(nodens_loom)]
pub(crate) fn clear_poison<T>(_: &RwLock<T>) {}
