//! The parts of the agent that are a library: what can be tested without starting it.

pub mod admin;
pub mod build_config;
pub mod cli;
pub mod corefile;
pub mod demo;
pub mod doctor;
pub mod log;
pub mod loop_check;
pub mod node;
pub mod privilege;
pub mod reload;
pub mod run;
pub mod runtimes;
pub mod service;
mod sockets;
mod takeover;
pub mod template;
