//! nodens-sim: the core in a world where time, chance and every fault are ours.
//!
//! - `scenario`: scripted worlds in the `.rpl` language, one file per rule, for people to read.
#![forbid(unsafe_code)]

pub mod scenario;
