//! What `nodens-admission` can be told to do, one module for each command.

pub mod access;
pub mod serve;
