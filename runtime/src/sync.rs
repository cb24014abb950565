//! The primitives through which a worker and the control thread meet.
//!
//! Under `--cfg nodens_loom` they are loom's or stand-ins made of them, which run a model through every order in which its
//! threads can meet (`tests/loom.rs`). What is modelled is what this crate has written: the mailbox of [`orders`](crate::orders), the
//! wish to stop, and the way of a worker's counters to whoever reads them. Two things are taken for granted and stay the
//! standard library's: the channel by which a worker says that it serves, and the one of its events.

#[cfg(nodens_loom)]
mod model;

#[cfg(not(nodens_loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::AtomicU64,
    mpsc::{Receiver, SyncSender, sync_channel},
};
#[cfg(nodens_loom)]
pub(crate) use {
    loom::sync::{Mutex, atomic::AtomicU64},
    model::{Receiver, SyncSender, sync_channel},
};
