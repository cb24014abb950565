//! The test kit: everything a black-box test of a DNS forwarder needs around
//! the forwarder itself.
//!
//! Tests drive the system under test only through sockets, signals and
//! output lines. So the kit has its own DNS encoder and parser ([`msg`]),
//! independent of the code under test: a mistake in one cannot hide behind
//! the same mistake in the other. Around it stand scripted servers that may
//! misbehave on purpose ([`upstream`]), blocking clients ([`client`]), child
//! processes ([`process`]) and a real authoritative server ([`real`]).
//!
//! Misuse of the kit panics with a sentence: its callers are tests. Every
//! blocking call takes or has a time limit, so a broken test fails instead of
//! hanging. The kit is threads and blocking sockets; it shares no runtime with
//! what it tests, and it is not meant to be fast.

pub mod client;
pub mod msg;
pub mod process;
pub mod real;
pub mod upstream;

mod port;

pub use client::{TcpClient, UdpClient, ask_tcp, ask_udp};
pub use msg::{Query, Reply, Response};
pub use port::free_port;
pub use process::Process;
pub use real::{RealAuthority, Skipped, sample_zone};
pub use upstream::{Action, Received, Transport, Upstream, answers};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks even if a test thread panicked meanwhile: the kit must still clean
/// up, and no data here is half-written between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
