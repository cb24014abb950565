//! What must always hold (examples.md §9.3), one file per group. Each check names the rule it defends.
//!
//! | nr | invariant | file |
//! | --- | --- | --- |
//! | 1-3, 6, 7 | the right answer, to who asked, with the right TTLs, in the right size | `answers.rs` |
//! | 4, 5 | what may be kept and for how long | `keeping.rs` |
//! | 8, 9 | what does not match changes nothing; nothing forged is used; nothing can be guessed | `forgery.rs` |
//! | 10-12 | no needless work, no bound passed | `queries.rs`, `effort.rs`, `attempts.rs` |
//! | 12-15 | bytes to upstreams, timers, ends of lookups, counters | `machine.rs` |
//! | 16 | healed, everything is answered and everything comes to rest | `progress.rs` |
//!
//! The core has no stale answers, so invariant 4 reads: never past the TTL.

pub(crate) mod answers;
pub(crate) mod attempts;
pub(crate) mod effort;
pub(crate) mod forgery;
pub(crate) mod keeping;
pub(crate) mod machine;
pub(crate) mod progress;
pub(crate) mod queries;
