//! The sockets of a start that finds its addresses free: bound before anything else is done.
//!
//! Where nobody serves, every moment until the sockets are bound is one in which Pods are refused. What takes time at a start (trying out
//! packet rules, io_uring, the interface: some 20 ms) comes after, and queries wait in the sockets meanwhile. Where another
//! agent serves it is the other way round: what the kernel gives to our sockets is answered late, so they are bound when
//! they are served at once.
//!
//! The Corefile is read for this, and again when it is its turn: then it may name the interface that was made in between, and its
//! mistakes are told.

use std::net::SocketAddr;

use nodens_runtime::Listeners;
use nodens_runtime::listen::held_by_others;

use super::load;
use crate::build_config::{Environment, Plan};
use crate::cli::RunOptions;
use crate::privilege;

/// Sockets that are bound and not served yet.
pub(super) struct Claim {
    addresses: Vec<SocketAddr>,
    workers: usize,
    listeners: Listeners,
}

impl Claim {
    /// Binds what the Corefile names, if it can be read, all of it is free, and nothing fails: whatever is in the way is found again
    /// later, and told then.
    pub(super) fn stake(options: &RunOptions, environment: &Environment<'_>) -> Option<Claim> {
        let (built, _) = load(options.corefile_path(), environment).ok()?;
        let Plan { listeners: addresses, workers, .. } = built.plan;
        if !held_by_others(&addresses).is_empty() {
            return None;
        }
        let bind = || Listeners::bind(&addresses, workers);
        let listeners = privilege::as_owner_of_sockets(options.user, bind).ok()?;
        Some(Claim { addresses, workers, listeners })
    }

    /// The sockets, if they are those of this plan. If not they are closed.
    pub(super) fn into_listeners(self, plan: &Plan) -> Option<Listeners> {
        let fits = self.addresses == plan.listeners && self.workers == plan.workers;
        fits.then_some(self.listeners)
    }
}
