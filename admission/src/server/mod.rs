//! The HTTP side: what API servers, kubelets and Prometheus talk to.
//!
//! [`serve`](serve::serve) knows connections, their deadlines and their number; [`webhook`] answers reviews, [`probes`] answers kubelets and
//! Prometheus. Nothing here knows what a Pod is.

mod body;
mod life;
pub mod limits;
pub mod listen;
pub mod probes;
pub mod serve;
mod watched;
pub mod webhook;
