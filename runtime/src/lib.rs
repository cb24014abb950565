//! nodens-runtime: what every runtime must do, and what all of them share.
//!
//! A runtime is a way to wait for sockets: epoll through tokio, or io_uring. It starts *workers*: threads that each own
//! their sockets and one Forwarder, and share nothing but the cache. This crate holds the contract as types
//! ([`Runtime`], [`WorkerSpec`], [`WorkerHandle`]), the turn as code ([`Engine::turn`]), and the sockets with the reason for each
//! of their options. It makes no decision about DNS, and it never waits: a runtime does that.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`worker`] | starting, watching and stopping a worker |
//! | [`departure`] | when a worker that was told to end gives up its sockets |
//! | [`orders`] | a new configuration for a running worker |
//! | [`turn`] | one turn of a worker, between a Forwarder and a runtime's [`Io`] |
//! | [`clients`] | clients' TCP connections: who may have one, for how long, holding how much |
//! | [`listen`] | binding every address once per worker, and saying what to do when that fails |
//! | [`socket`], [`packet_info`] | sockets and their options; answering from the address that was asked |
//! | [`clock`], [`vitals`], [`descriptors`] | time, signs of life, how many sockets there may be |
#![forbid(unsafe_code)]

pub mod clients;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod departure;
pub mod descriptors;
pub mod listen;
pub mod orders;
pub mod packet_info;
pub mod socket;
mod sync;
pub mod turn;
pub mod vitals;
pub mod worker;

pub use clients::{ClientLimits, CloseReason, Interest, TcpClients};
pub use clock::Clock;
pub use listen::{BindError, BoundListener, Listeners};
pub use orders::{InForce, Order, Orders};
pub use turn::{Engine, Framed, Io, Turn};
pub use vitals::{Lookout, Vitals};
pub use worker::{Runtime, Stop, StopSignal, WorkerFailure, WorkerHandle, WorkerSetup, WorkerSpec};
