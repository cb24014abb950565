//! The test kit: everything a black-box test of a DNS forwarder needs around
//! the forwarder itself.
//!
//! Tests drive the system under test only through sockets, signals and
//! output lines. So the kit has its own DNS encoder and parser ([`msg`]),
//! independent of the code under test: a mistake in one cannot hide behind
//! the same mistake in the other. Around it stand scripted servers that may
//! misbehave on purpose ([`upstream`]), blocking clients ([`client`]), a steady
//! stream of questions ([`load`]), child processes ([`process`]), a system call taken away ([`seccomp`]) and a real
//! authoritative server ([`real`]).
//!
//! Misuse of the kit panics with a sentence: its callers are tests. Every
//! blocking call takes or has a time limit, so a broken test fails instead of
//! hanging. The kit is threads and blocking sockets; it shares no runtime with
//! what it tests, and it is not meant to be fast.
//!
//! ```
//! use nodens_testkit::{Action, Query, Upstream, answers, ask_udp};
//! use std::time::Duration;
//!
//! let upstream = Upstream::start(answers(|query| query.response().answer("@ 30 IN A 192.0.2.1")));
//! // A forwarder would stand here, with `upstream.addr()` as its upstream.
//! let query = Query::new("WwW.example.", "A").edns(1232).do_bit().bytes();
//! let reply = ask_udp(upstream.addr(), &query).expect("an answer within 5 s");
//! assert_eq!(reply.answer_lines(), ["WwW.example. A 192.0.2.1"]);
//! assert_eq!(upstream.count_for("www.example.", "A"), 1);
//!
//! upstream.set_handler(|query| match query.qname.as_str() {
//!     "slow.example." => vec![
//!         Action::Delay(Duration::from_millis(50)),
//!         Action::Send(query.response().rcode(2).ede(22).bytes()),
//!     ],
//!     _ => vec![Action::Drop],
//! });
//! let reply = ask_udp(upstream.addr(), &Query::new("slow.example.", "A").bytes());
//! assert_eq!(reply.expect("an answer within 5 s").ede(), Some(22));
//! ```

pub mod client;
pub mod load;
pub mod msg;
pub mod process;
pub mod real;
pub mod seccomp;
pub mod skip;
pub mod upstream;

mod port;

pub use client::{TcpClient, UdpClient, ask_tcp, ask_udp};
pub use load::{Load, Tally};
pub use msg::{Query, Reply, Response};
pub use port::free_port;
pub use process::Process;
pub use real::{RealAuthority, Skipped, sample_zone};
pub use skip::{note, skip, skip_unobtainable};
pub use upstream::{Action, Received, Transport, Upstream, answers};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks even if a test thread panicked meanwhile: the kit must still clean
/// up, and no data here is half-written between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
