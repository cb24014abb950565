//! The real shared cache behind a thin wrapper: it notes what is kept, and may answer that a lock is in use.

use crate::draw::{Draw, Ratio};
use nodens_cache::{SharedCache, Usage};
use nodens_core::cache::{AnswerRef, Cache, Entry, InsertRules, Inserted, Key, Kind};
use nodens_core::hash::HashKeys;
use nodens_core::{Instant, Seed, ZoneId};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One insert, as the Forwarder asked for it.
#[derive(Clone, Debug)]
pub struct Noted {
    /// The key's zone.
    pub zone: ZoneId,
    /// The key's question: name in lower case, type, class.
    pub question: Vec<u8>,
    /// The key's DO bit.
    pub do_bit: bool,
    /// The key's CD bit.
    pub cd: bool,
    /// What kind of answer.
    pub kind: Option<Kind>,
    /// Since when it is kept.
    pub stored: Instant,
    /// Until when.
    pub expires: Instant,
    /// Its bytes, TTL offsets included.
    pub bytes: usize,
    /// What became of it.
    pub inserted: Inserted,
}

/// The cache that a world's Forwarders share.
#[derive(Debug)]
pub struct SimCache {
    inner: SharedCache,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    draw: Draw,
    busy: Ratio,
    noted: Vec<Noted>,
}

impl SimCache {
    /// A cache of at most `bytes_max` bytes; `busy` is how often its lock is in use.
    pub fn new(bytes_max: usize, seed: &Seed, busy: Ratio, draw: Draw) -> Self {
        let state = State { draw, busy, noted: Vec::new() };
        SimCache { inner: SharedCache::new(bytes_max, seed), state: Mutex::new(state) }
    }

    /// The last insert since this was asked last, and whether there was more than one.
    pub fn take_noted(&self) -> (Option<Noted>, bool) {
        let mut state = self.state();
        let several = state.noted.len() > 1;
        let noted = state.noted.pop();
        state.noted.clear();
        (noted, several)
    }

    /// From now on the lock is always free.
    pub fn heal(&self) {
        self.state().busy.of = 0;
    }

    /// What it holds.
    pub fn usage(&self) -> Usage {
        self.inner.usage()
    }

    /// Forgets a zone.
    pub fn flush_zone(&self, zone: ZoneId) {
        self.inner.flush_zone(zone);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache for SimCache {
    fn hash_keys(&self) -> &HashKeys {
        self.inner.hash_keys()
    }

    fn get<R>(&self, key: &Key, now: Instant, read: impl FnOnce(Entry<'_>) -> R) -> Option<R> {
        self.inner.get(key, now, read)
    }

    fn insert(&self, key: &Key, answer: AnswerRef<'_>, rules: InsertRules) -> Inserted {
        let mut state = self.state();
        let busy = state.busy;
        let inserted =
            if state.draw.hit(busy) { Inserted::Busy } else { self.inner.insert(key, answer, rules) };
        let mut question = key.qname().to_vec();
        question.extend_from_slice(&key.qtype().to_be_bytes());
        question.extend_from_slice(&key.qclass().to_be_bytes());
        state.noted.push(Noted {
            zone: key.zone(),
            question,
            do_bit: key.do_bit(),
            cd: key.cd(),
            kind: answer.meta.kind,
            stored: rules.stored,
            expires: rules.expires,
            bytes: answer.bytes.len(),
            inserted,
        });
        inserted
    }
}
