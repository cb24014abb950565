//! Where the webhook's certificate comes from.
//!
//! * [`files`]: somebody else makes it and mounts it (cert-manager, an operator, the original chart); a new one is taken up within a second.

pub mod files;
pub mod read;
