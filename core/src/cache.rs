//! The cache as the core sees it: keys, answers in wire form, what may be kept, and one shard of the table.
//!
//! A whole answer is kept per question, never single records: nothing in an answer to one question can be used for another
//! (RFC 2181 §5.4.1 holds by construction). Locks are not here. The shared cache is a crate of its own that puts
//! [`Shard`]s behind locks and implements [`Cache`]; a simulator may implement it in another way.

mod answer;
mod key;
mod policy;
mod shard;
mod sieve;

pub use answer::{Answer, AnswerMeta, AnswerRef, Rendered, ReplyFrame, Ttls, render};
pub use key::{Key, KeyFields};
pub use policy::{Judgement, SOALESS_TTL_MAX_S, answers_question, judge};
pub use shard::{ClassUsage, Prepared, Removed, SWEEP_SLOTS, Shard, ShardUsage};

use crate::hash::HashKeys;
use crate::time::Instant;

/// What kind of answer an entry is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Kind {
    /// NOERROR with what was asked for.
    Positive,
    /// The name exists, the type does not (RFC 2308 §2.2).
    NoData,
    /// The name does not exist (RFC 2308 §2.1).
    NxDomain,
    /// The upstream failed: SERVFAIL, NOTIMP (RFC 9520).
    Failure,
}

/// The two kinds that the Corefile and CoreDNS' metrics tell apart.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Class {
    /// Positive answers.
    Success = 0,
    /// Everything else.
    Denial = 1,
}

impl Kind {
    /// The class it is counted under.
    pub const fn class(self) -> Class {
        match self {
            Kind::Positive => Class::Success,
            Kind::NoData | Kind::NxDomain | Kind::Failure => Class::Denial,
        }
    }
}

/// An entry, borrowed while its shard is held for reading.
#[derive(Copy, Clone, Debug)]
pub struct Entry<'a> {
    /// The answer.
    pub answer: AnswerRef<'a>,
    /// When it was stored.
    pub stored: Instant,
    /// From when on it must not be used.
    pub expires: Instant,
}

/// How an answer is to be stored.
#[derive(Copy, Clone, Debug)]
pub struct InsertRules {
    /// Now.
    pub stored: Instant,
    /// From when on it must not be used.
    pub expires: Instant,
    /// Entries of this zone and class over the whole cache.
    pub entries_max: u32,
}

/// What became of an insert.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Inserted {
    /// It is in.
    Stored,
    /// A fresh answer stays; a failure does not replace it (semantics.md R17).
    Kept,
    /// It would not fit even into an empty shard.
    TooLarge,
    /// The shard was busy; costs one more upstream query, not correctness.
    Busy,
}

/// A table of answers that several Forwarders may share.
pub trait Cache {
    /// The secret that keys are hashed under.
    fn hash_keys(&self) -> &HashKeys;

    /// Finds the entry for `key` that is fresh at `now`, marks it visited and lets `read` look at it. `read` copies what it
    /// needs and returns; a lock may be held meanwhile.
    fn get<R>(&self, key: &Key, now: Instant, read: impl FnOnce(Entry<'_>) -> R) -> Option<R>;

    /// Stores `answer` under `key`, replacing what was there unless [`Inserted::Kept`] says otherwise.
    fn insert(&self, key: &Key, answer: AnswerRef<'_>, rules: InsertRules) -> Inserted;
}
