//! nodens-core: a DNS forwarder and its cache as a value.
//!
//! A [`Forwarder`] takes queries, replies, connection events and the time as arguments, and gives answers, messages
//! to send and the next wake-up as results. It never touches a socket, a clock, a thread, a file or a source of
//! randomness, and given the same configuration, seed and calls it does the same things. Whoever calls it is a *driver*: the
//! io_uring and epoll runtimes, and the simulator.
//!
//! One turn of a driver:
//!
//! 1. take what has arrived, at most a batch;
//! 2. read the clock once;
//! 3. `handle_query` for each query, send what it answers at once; `handle_response` and `handle_path_event` for the rest;
//! 4. if `poll_timeout`'s instant has passed: `handle_timeout`;
//! 5. drain `poll_path`, then `poll_transmit`, then `poll_event`, each until it returns `None`;
//! 6. ask `poll_timeout` how long to wait, and wait.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`forwarder`] | the state machine: lookups, waiters, attempts |
//! | [`upstream`] | which upstream next, how long to wait for it, whether it is well |
//! | [`cache`] | what may be kept and for how long; one shard of the table; the trait the shared cache implements |
//! | [`wire`] | views over DNS messages, small builders, TCP framing |
//! | [`config`], [`stats`], [`api`] | what goes in besides messages, what is counted, the vocabulary |
//! | [`time`], [`rng`], [`hash`] | time as a number, chance from a seed, a keyed hash |
//! | `sim_support` | marks on rare branches and planted faults, for the simulator alone; in any other build they are nothing |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod api;
pub mod cache;
pub mod config;
pub mod forwarder;
pub mod hash;
pub mod rng;
#[cfg(nodens_sim)]
pub mod sim_support;
#[cfg(not(nodens_sim))]
mod sim_support;
mod slab;
pub mod stats;
pub mod time;
pub mod upstream;
pub mod wire;

pub use api::{
    ClientAddr, ClientQuery, ConnectionId, DropReason, Event, FailureCause, FailureEvent, Outcome, Path,
    PathEvent, PathRequest, QueryEvent, Reason, Rejection, Target, Transmit, Transport,
};
pub use config::{Config, ConfigError, ListenerId, UpstreamId, ZoneId};
pub use forwarder::Forwarder;
pub use rng::Seed;
pub use stats::Stats;
pub use time::{Duration, Instant};
