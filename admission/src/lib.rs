//! nodens-admission: which Pods get node-local DNS, how, and why the others do not.
#![forbid(unsafe_code)]
