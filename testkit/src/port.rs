//! Port numbers nobody else uses.
//!
//! Ports are taken from below the kernel's ephemeral range (32768 and up on
//! Linux): a port that was free a moment ago, or that a test closes and wants
//! back, cannot be handed out to some outgoing socket in between. The start
//! is random, so test binaries running side by side rarely meet.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_240;
const LAST: u16 = 32_000;

/// A port free on 127.0.0.1 for UDP and TCP.
///
/// Nothing holds the port, so another process may take it; see the module
/// text for why that is rare.
pub fn free_port() -> u16 {
    for _ in FIRST..LAST {
        let port = next_port();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        if udp.is_ok() && tcp.is_ok() {
            return port;
        }
    }
    panic!("no port between {FIRST} and {LAST} is free on 127.0.0.1")
}

/// The next candidate; never the same one twice in this process (until the
/// range wraps around).
pub(crate) fn next_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let random = || AtomicU16::new(RandomState::new().build_hasher().finish() as u16);
    let n = NEXT.get_or_init(random).fetch_add(1, Ordering::Relaxed);
    FIRST + n % (LAST - FIRST)
}
