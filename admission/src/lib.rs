//! nodens-admission: which Pods get node-local DNS, how, and why the others do not.
//!
//! The heart is a pure function, [`decide`]; [`review`] wraps it into the API server's AdmissionReview, bytes to bytes. Neither has a clock or
//! does I/O: what they know of the cluster is a [`snapshot`], which the [`cluster`] side keeps true.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod decide;
pub mod names;
pub mod overrides;
pub mod patch;
pub mod pod;
pub mod reason;
pub mod review;
pub mod rollout;
pub mod settings;
pub mod snapshot;
pub mod validate;
