//! The memory of entries: what an entry to be is made of, and what becomes of one that was.
//!
//! Allocating and freeing are the two slow steps of an insert. Both are made into values here, so that whoever keeps a
//! shard behind a lock does the first before taking it and the second after letting it go.

use crate::cache::{AnswerMeta, AnswerRef, Key};
use crate::config::ZoneId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use smallvec::SmallVec;

/// What allocators put before a block and round it to: 16 bytes each with glibc, musl's is smaller.
const ALLOCATION_ROUND: usize = 16;
const ALLOCATION_OVERHEAD: usize = 16;

/// Most bodies that an insert hands back to be freed elsewhere. An ordinary insert removes one or two; a large answer that
/// pushes out dozens frees the others on the spot.
const REMOVED_MAX: usize = 8;

/// What an allocation of `len` bytes costs; nothing if there is none.
pub(super) const fn charge(len: usize) -> usize {
    if len == 0 { 0 } else { len.next_multiple_of(ALLOCATION_ROUND) + ALLOCATION_OVERHEAD }
}

/// An entry that is ready to be put into a [`Shard`](super::Shard): its memory is allocated and filled.
#[derive(Debug)]
pub struct Prepared {
    pub(super) hash: u64,
    pub(super) zone: ZoneId,
    pub(super) key_len: u16,
    pub(super) meta: AnswerMeta,
    /// The key, then the answer's bytes.
    pub(super) body: Box<[u8]>,
}

impl Prepared {
    /// Copies `key` and `answer` into memory of their own.
    pub fn new(key: &Key, answer: AnswerRef<'_>) -> Self {
        let key_bytes = key.as_bytes();
        let mut body = Vec::with_capacity(key_bytes.len() + answer.bytes.len());
        body.extend_from_slice(key_bytes);
        body.extend_from_slice(answer.bytes);
        Prepared {
            hash: key.hash(),
            zone: key.zone(),
            key_len: key_bytes.len() as u16,
            meta: answer.meta,
            body: body.into_boxed_slice(),
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.body[..usize::from(self.key_len)]
    }

    pub(super) fn charge(&self) -> usize {
        charge(self.body.len())
    }
}

/// Memory that an insert no longer needs. To be dropped after the shard's lock is released.
#[derive(Debug, Default)]
pub struct Removed(SmallVec<[Box<[u8]>; REMOVED_MAX]>);

impl Removed {
    pub(super) fn push(&mut self, body: Box<[u8]>) {
        if self.0.len() < REMOVED_MAX {
            self.0.push(body);
        }
    }
}
