//! Models of the shared cache: loom runs each through every order in which its threads can meet.
//!
//! ```text
//! RUSTFLAGS="--cfg nodens_loom" cargo test -p nodens-cache --release --test loom --target-dir target/loom
//! ```
//!
//! A model returns what its threads saw. All that can be seen is compared with the full list of what may be seen: an order
//! that gives anything else fails, and so does a model in which the threads never meet.
//!
//! What is modelled is the use of the locks and the counters, which is all that this crate adds to the core's shard. The
//! visited mark inside a shard is `core`'s atomic even here: it is relaxed, read and written by itself, and
//! nothing is concluded from it about other memory, so no order of it can make an answer wrong.
#![cfg(nodens_loom)]

use loom::sync::Arc;
use loom::thread;
use nodens_cache::SharedCache;
use nodens_core::cache::{AnswerMeta, AnswerRef, Cache, InsertRules, Inserted, Key, KeyFields, Kind};
use nodens_core::wire::{Flags, Question, Rcode};
use nodens_core::{Duration, Instant, Seed, ZoneId};
use std::collections::BTreeSet;
use std::sync::Mutex;

const SEED: Seed = Seed([9; 32]);
const NOW: Instant = Instant::from_nanos(1_000_000_000);
/// So small that there is one shard, in which all meet.
const BYTES: usize = 128 << 10;
/// The cap of a class: as low as one shard allows.
const ENTRIES_MAX: u32 = 4;

/// All that a model can come to.
fn outcomes<T: Ord + Send + 'static>(
    model: impl Fn(Arc<SharedCache>) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let seen = std::sync::Arc::new(Mutex::new(BTreeSet::new()));
    let all = seen.clone();
    loom::model(move || {
        let outcome = model(Arc::new(SharedCache::new(BYTES, &SEED)));
        all.lock().expect("one thread").insert(outcome);
    });
    let mut seen = seen.lock().expect("one thread");
    std::mem::take(&mut *seen).into_iter().collect()
}

/// Runs `work` in a thread of the model.
fn worker<T: 'static>(
    cache: &Arc<SharedCache>,
    work: impl FnOnce(&SharedCache) -> T + 'static,
) -> thread::JoinHandle<T> {
    let cache = cache.clone();
    thread::spawn(move || work(&cache))
}

fn key(cache: &SharedCache, n: u8) -> Key {
    let message = [&[0u8; 12][..], &[1, b'a' + n, 0, 0, 1, 0, 1]].concat();
    let fields = KeyFields { zone: ZoneId(0), do_bit: false, cd: false };
    Key::new(cache.hash_keys(), fields, &Question::read(&message).expect("a question"))
}

/// Stores an answer that says `mark` in its TTL, in its length and in every byte. False if the shard was busy.
fn put(cache: &SharedCache, n: u8, kind: Kind, mark: u8) -> bool {
    match insert(cache, n, kind, mark) {
        Inserted::Stored => true,
        Inserted::Busy => false,
        other => panic!("{other:?}"),
    }
}

fn insert(cache: &SharedCache, n: u8, kind: Kind, mark: u8) -> Inserted {
    let (rcode, flags) = (Rcode::NOERROR, Flags(0));
    let meta = AnswerMeta {
        rcode,
        flags,
        counts: [0; 3],
        kind: Some(kind),
        extended_error: None,
        ttl_s: mark.into(),
    };
    let expires = NOW + Duration::from_secs(mark.into());
    let rules = InsertRules { stored: NOW, expires, entries_max: ENTRIES_MAX };
    cache.insert(&key(cache, n), AnswerRef { meta, bytes: &vec![mark; 10 * usize::from(mark)] }, rules)
}

/// The mark of the answer that is there, which must be whole; 0 if there is none.
fn get(cache: &SharedCache, n: u8) -> u8 {
    let mark = cache.get(&key(cache, n), NOW, |entry| {
        let mark = entry.answer.meta.ttl_s as u8;
        assert_eq!(entry.answer.bytes, vec![mark; 10 * usize::from(mark)], "half of an answer");
        assert_eq!(entry.expires, NOW + Duration::from_secs(mark.into()));
        mark
    });
    mark.unwrap_or(0)
}

#[test]
fn a_reader_sees_the_old_answer_or_the_new_one_and_never_goes_back() {
    let seen = outcomes(|cache| {
        assert!(put(&cache, 0, Kind::Positive, 1));
        let writer = worker(&cache, |cache| put(cache, 0, Kind::NxDomain, 2));
        let reads = [get(&cache, 0), get(&cache, 0)];
        let stored = writer.join().expect("no panic");
        assert_eq!(cache.usage().busy, u64::from(!stored));
        (stored, reads, get(&cache, 0))
    });
    assert_eq!(seen, [(false, [1, 1], 1), (true, [1, 1], 2), (true, [1, 2], 2), (true, [2, 2], 2)]);
}

#[test]
fn two_workers_insert_the_same_name_while_a_third_reads() {
    let seen = outcomes(|cache| {
        let workers = [1, 2].map(|mark| worker(&cache, move |cache| put(cache, 0, Kind::Positive, mark)));
        let read = get(&cache, 0);
        let [first, second] = workers.map(|worker| worker.join().expect("no panic"));
        let usage = cache.usage();
        assert_eq!(usage.table.entries, u64::from(first || second), "one name, one entry");
        assert_eq!(usage.table.evictions(), 0, "to be replaced is not to be evicted");
        assert_eq!(usage.busy, u64::from(!first) + u64::from(!second));
        let left = get(&cache, 0);
        let may_be_left = match (first, second) {
            (true, true) => left == 1 || left == 2,
            (true, false) => left == 1,
            (false, true) => left == 2,
            (false, false) => left == 0,
        };
        assert!(may_be_left, "{first} {second} {left}");
        assert!(read == 0 || (read == 1 && first) || (read == 2 && second), "an answer that nobody stored");
        (first, second)
    });
    // The reader may be in the way of both.
    assert_eq!(seen, [(false, false), (false, true), (true, false), (true, true)]);
}

#[test]
fn a_failure_never_displaces_an_answer_whoever_comes_first() {
    let seen = outcomes(|cache| {
        let failure = worker(&cache, |cache| insert(cache, 0, Kind::Failure, 1));
        let good = put(&cache, 0, Kind::Positive, 2);
        let failure = failure.join().expect("no panic");
        (good, format!("{failure:?}"), get(&cache, 0))
    });
    let expected = [(false, "Stored", 1), (true, "Busy", 2), (true, "Kept", 2), (true, "Stored", 2)];
    assert_eq!(seen, expected.map(|(good, failure, left)| (good, failure.to_owned(), left)));
}

#[test]
fn the_figures_are_exact_after_inserts_that_met() {
    let seen = outcomes(|cache| {
        let other =
            worker(&cache, |cache| [put(cache, 0, Kind::Positive, 1), put(cache, 1, Kind::NxDomain, 2)]);
        let mine = [put(&cache, 2, Kind::Positive, 3), put(&cache, 3, Kind::NxDomain, 4)];
        let stored = [other.join().expect("no panic"), mine].concat();

        let alone = SharedCache::new(BYTES, &SEED);
        for (n, stored) in (0..).zip(&stored) {
            let kind = if n % 2 == 0 { Kind::Positive } else { Kind::NxDomain };
            assert!(!stored || put(&alone, n, kind, n + 1));
        }
        let (usage, expected) = (cache.usage(), alone.usage().table);
        assert_eq!((usage.table.bytes, usage.table.entries), (expected.bytes, expected.entries));
        assert_eq!(usage.table.evictions(), 0);
        assert_eq!(usage.table.entries + usage.busy, 4, "each insert is stored or counted as busy");
        usage.busy
    });
    // All four cannot be refused: somebody is inside whenever somebody is refused.
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn a_reader_of_an_entry_that_is_being_evicted_gets_all_of_it_or_nothing() {
    let seen = outcomes(|cache| {
        for n in 0..ENTRIES_MAX as u8 {
            assert!(put(&cache, n, Kind::Positive, 1));
        }
        let writer = worker(&cache, |cache| put(cache, 10, Kind::Positive, 2));
        let read = get(&cache, 0);
        let stored = writer.join().expect("no panic");
        let usage = cache.usage().table;
        assert_eq!((usage.entries, usage.evictions()), (ENTRIES_MAX.into(), stored.into()));
        (stored, read, get(&cache, 10))
    });
    // The reader's mark saves the entry if it comes in time; then another leaves.
    assert_eq!(seen, [(false, 1, 0), (true, 0, 2), (true, 1, 2)]);
}

#[test]
fn a_scrape_sees_each_shard_between_two_inserts() {
    let seen = outcomes(|cache| {
        let writer =
            worker(&cache, |cache| [put(cache, 0, Kind::Positive, 1), put(cache, 1, Kind::NxDomain, 1)]);
        let usage = cache.usage().table;
        assert_eq!(usage.bytes == 0, usage.classes.is_empty());
        assert_eq!(usage.entries, usage.classes.len() as u64);
        writer.join().expect("no panic");
        usage.entries
    });
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn a_flush_takes_what_came_before_it_and_leaves_what_comes_after() {
    let seen = outcomes(|cache| {
        assert!(put(&cache, 0, Kind::Positive, 1));
        let worker = worker(&cache, |cache| put(cache, 1, Kind::Positive, 2));
        cache.flush_zone(ZoneId(0));
        let stored = worker.join().expect("no panic");
        assert_eq!(get(&cache, 0), 0);
        let left = get(&cache, 1);
        assert_eq!(cache.usage().table.entries, u64::from(left != 0));
        (stored, left)
    });
    assert_eq!(seen, [(false, 0), (true, 0), (true, 2)]);
}
