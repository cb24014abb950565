//! The conformance suite: black-box tests that every runtime must pass, on real sockets.
//!
//! A runtime's tests say [`conformance_suite!`](crate::conformance_suite) with their own type and get one test per row of
//! semantics.md §1.8 and reliability.md §0.1; nothing here knows how a runtime waits. Each row starts a server of its own on
//! loopback, in front of a scripted upstream, and looks at what clients and upstream get to see, and at counters.
//!
//! | module | rows |
//! | --- | --- |
//! | [`cacheability`] | A: what is kept, for how long |
//! | [`keys`] | B: what separates answers; header bits and options |
//! | [`front_end`] | L: queries good and bad; truncation; addresses |
//! | [`forged`] | forged and broken upstream replies |
//! | [`failures`] | upstreams that fail and come back; limits |
//! | [`selection`] | G, H, J: which upstream, how often, over what; probes |
//! | [`transport`] | G, H, I, J over TCP; peers that misbehave on a connection |
//! | [`load`] | many at once |
//! | [`tcp`] | clients over TCP |
//! | [`reload`] | a new configuration for running workers |
//! | [`contract`] | the worker contract: signs of life, events, stopping, panics |
//!
//! Rows that tell time wait two seconds at most and use small TTLs. Not here: what only the core decides (its own tests), and
//! what takes longer (the soak).

pub mod bench;
pub mod cacheability;
pub mod contract;
pub mod failures;
pub mod forged;
pub mod front_end;
pub mod harness;
pub mod keys;
pub mod load;
pub mod reload;
pub mod selection;
pub mod suite;
pub mod tcp;
pub mod transport;

pub use harness::{Running, forwarding_to, start, start_with};
