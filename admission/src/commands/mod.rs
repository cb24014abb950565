//! What `nodens-admission` can be told to do, one module for each command.

pub mod access;
pub mod audit;
pub mod checks;
mod cidr;
pub mod deployed;
pub mod explain;
pub mod files;
pub mod inject;
pub mod injectors;
pub mod list_injected;
mod network_policies;
pub mod nodes;
pub mod operator;
pub mod pods;
pub mod policy;
pub mod policy_controller;
pub mod preflight;
pub mod serve;
mod signals;
pub mod table;
pub mod uninstall;

/// The first of a list, for a line that people read.
fn shorten(all: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
