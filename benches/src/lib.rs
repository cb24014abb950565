//! nodens-benches: what nodens costs, measured beside a bare socket server and beside other resolvers in the same run.
//!
//! A figure in microseconds says little about another machine, or about this one an hour later. So every figure here comes
//! with what the best echo program cost in the same run, and is meant to be read as a ratio to it.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`load`] | the load generator: stub resolvers on many sockets, latencies, the server's CPU time per answer |
//! | [`traffic`] | what they ask: a node's mix, cached names only, or new names only |
//! | [`floor`] and [`echo`] | programs that only send back what they get: what a socket server costs without DNS |
//! | [`peers`] | nodens, unbound, dnsdist and node-cache under the same load |
//! | [`upstream`] | the authority behind them, which answers from a template |
//! | [`results`] | tables and the plot |
//! | [`process`] | children on a core of their own, and what they used |
//! | [`histogram`], [`batch`], [`message`], [`random`], [`args`] | tools |
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

pub mod args;
pub mod batch;
pub mod echo;
pub mod floor;
pub mod histogram;
pub mod load;
pub mod message;
pub mod peers;
pub mod process;
pub mod random;
pub mod results;
pub mod traffic;
pub mod upstream;
