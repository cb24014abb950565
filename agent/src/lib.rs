//! The parts of the agent that are a library: what can be tested without starting it.

pub mod admin;
pub mod build_config;
pub mod cli;
pub mod corefile;
pub mod log;
