//! Where the webhook's certificate comes from.
//!
//! * [`files`]: somebody else makes it and mounts it (cert-manager, an operator, the original chart); a new one is taken up within a second.
//! * [`keeper`]: an authority of our own, in a Secret, with a leaf for each replica in its memory. [`rotation`] is the state machine, pure;
//!   [`store`] is where it reads and writes, [`authority`] makes the certificates, [`secret`] spells them.

pub mod authority;
pub mod files;
pub mod keeper;
pub mod read;
pub mod rotation;
pub mod secret;
pub mod store;
