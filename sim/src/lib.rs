//! nodens-sim: the core in a world where time, chance and every fault are ours.
//!
//! Real Forwarders over one real cache, driven by one thread against simulated clients, upstreams, network, machine and attacker. One
//! 64-bit seed decides everything; a failure is a seed, and a seed is a failure that can be looked at as often as one likes.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`hazards`], [`profiles`], [`options`] | what can be out of the ordinary, and which of it exists in a world |
//! | [`draw`], [`queue`], [`trace`] | chance, time, and what happened as a number |
//! | [`questions`], [`message`] | names and messages, written and read without the core's help |
//! | [`said`] | every answer that an upstream ever made up, with its number |
//! | [`model`] | what the cache may hold and who waits |
//! | [`plan`] | configurations |
//! | [`world`] | the loop; clients, host, upstreams, network, attacker and the checks are its private rooms |
//! | [`runner`], [`report`], [`mod@shrink`], [`cli`] | many worlds, and what is told about one that failed |
//! | `planted`, `marks` | whether the worlds see deliberate faults, and which rare branches they reach; under `--cfg nodens_sim` |
//! | [`scenario`] | scripted worlds in the `.rpl` language, one file per rule, for people to read |
#![forbid(unsafe_code)]

mod answers;
mod attacker;
pub mod cache;
mod checks;
pub mod cli;
mod clients;
pub mod draw;
pub mod failure;
mod garbage;
pub mod hazards;
mod host;
#[cfg(nodens_sim)]
pub mod marks;
pub mod message;
pub mod model;
mod network;
pub mod options;
pub mod plan;
#[cfg(nodens_sim)]
pub mod planted;
pub mod profiles;
pub mod questions;
pub mod queue;
pub mod report;
pub mod runner;
pub mod said;
pub mod scenario;
pub mod shrink;
pub mod trace;
mod turn;
mod upstreams;
pub mod world;
