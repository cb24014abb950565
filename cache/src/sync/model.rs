//! The lock of the models: a reader/writer lock made of one atomic of loom's.
//!
//! loom has a reader/writer lock of its own, but it lets no other thread run between taking and releasing it unless the
//! holder synchronises with something else meanwhile, and a thread about to try for it is made to wait instead of being
//! refused. A model over it would never see a busy shard. Here both ends are atomic steps, so loom tries every order of
//! them. That the standard library's lock excludes as a lock must is taken for granted.

use loom::sync::atomic::{AtomicIsize, Ordering};
use loom::thread::yield_now;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};

const FREE: isize = 0;
const WRITER: isize = -1;

/// Like `std::sync::RwLock`, without poisoning.
#[derive(Debug)]
pub(crate) struct RwLock<T> {
    /// Readers inside, or [`WRITER`].
    state: AtomicIsize,
    /// Gives safe access; if it were ever found locked, `state` would have let in two who exclude each other.
    data: std::sync::RwLock<T>,
}

#[derive(Debug)]
pub(crate) struct RwLockReadGuard<'l, T> {
    data: Option<std::sync::RwLockReadGuard<'l, T>>,
    state: &'l AtomicIsize,
}

#[derive(Debug)]
pub(crate) struct RwLockWriteGuard<'l, T> {
    data: Option<std::sync::RwLockWriteGuard<'l, T>>,
    state: &'l AtomicIsize,
}

impl<T> RwLock<T> {
    pub(crate) fn new(data: T) -> Self {
        RwLock { state: AtomicIsize::new(FREE), data: std::sync::RwLock::new(data) }
    }

    pub(crate) fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        let mut readers = FREE;
        while let Err(seen) = self.exchange(readers, readers + 1) {
            readers = seen.max(FREE);
            if seen == WRITER {
                yield_now();
            }
        }
        let data = self.data.try_read().expect("no writer is inside");
        Ok(RwLockReadGuard { data: Some(data), state: &self.state })
    }

    pub(crate) fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        loop {
            match self.try_write() {
                Ok(guard) => return Ok(guard),
                Err(_) => yield_now(),
            }
        }
    }

    pub(crate) fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.exchange(FREE, WRITER).map_err(|_| TryLockError::WouldBlock)?;
        let data = self.data.try_write().expect("nobody is inside");
        Ok(RwLockWriteGuard { data: Some(data), state: &self.state })
    }

    fn exchange(&self, from: isize, to: isize) -> Result<isize, isize> {
        self.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed)
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.data.as_ref().expect("a guard that is not dropped")
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.data.as_ref().expect("a guard that is not dropped")
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.data.as_mut().expect("a guard that is not dropped")
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.data = None;
        self.state.fetch_sub(1, Ordering::Release);
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.data = None;
        self.state.store(FREE, Ordering::Release);
    }
}
