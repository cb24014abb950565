//! The HTTP endpoints of the agent: `/health`, `/ready` and `/metrics`, as CoreDNS has them.
//!
//! All of it runs on the control thread, so a scrape never costs a query anything: the workers' counters are
//! read where they stand ([`nodens_core::Stats`] has one writer and any number of readers). Several server blocks
//! may name the same address; there is one listener per address with everything that was asked for on it.
//! It is no general web server: three fixed answers, nothing is ever read from a request but its first line.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`endpoints`] | which addresses are served now; made equal to what the Corefile wants |
//! | [`listen`] | a reusable listening socket, and what to say when there is none |
//! | [`server`] | connections and their limits |
//! | [`router`] | path to answer, pure |
//! | [`readiness`] | the latch behind `/ready` |
//! | [`probe`] | the agent asking its own `/health`, once a second |
//! | [`metrics`], [`exposition`] | numbers to text |

pub mod endpoints;
pub mod exposition;
pub mod listen;
pub mod metrics;
pub mod probe;
pub mod readiness;
pub mod router;
pub mod server;

#[cfg(test)]
mod strict_parser;

pub use endpoints::{AdminServer, Bound, Endpoint};
pub use metrics::{Snapshot, render};
pub use readiness::Readiness;
pub use router::Router;
