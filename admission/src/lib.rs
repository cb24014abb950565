//! nodens-admission: which Pods get node-local DNS, how, and why the others do not.
//!
//! The heart is a pure function, [`decide`]; [`review`] wraps it into the API server's AdmissionReview, bytes to bytes. Neither has a clock or
//! does I/O: what they know of the cluster is a [`snapshot`], which the [`cluster`] side keeps true.
//! Around it: [`server`] speaks HTTP, [`reviewer`] joins the two, [`certificates`] keeps the TLS identity in [`tls`] good, and [`commands`]
//! are what can be typed.

#![forbid(unsafe_code)]

pub mod certificates;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod decide;
pub mod duration;
pub mod explain;
pub mod family;
pub mod flags;
pub mod inject;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod names;
pub mod overrides;
pub mod patch;
pub mod pod;
pub mod policy;
pub mod readiness;
pub mod reason;
pub mod review;
pub mod reviewer;
pub mod rollout;
pub mod server;
pub mod settings;
pub mod snapshot;
pub mod tls;
pub mod validate;
