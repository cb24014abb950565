//! The conformance suite: black-box tests that every runtime must pass, on real sockets.
//!
//! A runtime's tests call them with their own type; nothing here knows how a runtime waits.

pub mod harness;

pub use harness::{Running, forwarding_to, start, start_with};
