//! Models of the shared cache: loom runs each through every order in which its threads can meet.
//!
//! ```text
//! RUSTFLAGS="--cfg nodens_loom" cargo test -p nodens-cache --release --test loom --target-dir target/loom
//! ```
//!
//! What is modelled is the lock's use and the counters, which is all that this crate adds to the core's shard. The visited
//! mark inside a shard is `core`'s atomic even here: it is relaxed, read and written by itself, and nothing is concluded
//! from it about other memory, so no order of it can make an answer wrong.
#![cfg(nodens_loom)]

use loom::sync::Arc;
use loom::thread;
use nodens_cache::SharedCache;
use nodens_core::cache::{AnswerMeta, AnswerRef, Cache, InsertRules, Inserted, Key, KeyFields, Kind};
use nodens_core::wire::{Flags, Question, Rcode};
use nodens_core::{Duration, Instant, Seed, ZoneId};

const SEED: Seed = Seed([9; 32]);
const NOW: Instant = Instant::from_nanos(1_000_000_000);
/// So small that there is one shard, in which all meet.
const BYTES: usize = 128 << 10;
/// The cap of a class: as low as one shard allows.
const ENTRIES_MAX: u32 = 4;

fn cache() -> Arc<SharedCache> {
    Arc::new(SharedCache::new(BYTES, &SEED))
}

fn key(cache: &SharedCache, n: u8) -> Key {
    let message = [&[0u8; 12][..], &[1, b'a' + n, 0, 0, 1, 0, 1]].concat();
    let fields = KeyFields { zone: ZoneId(0), do_bit: false, cd: false };
    Key::new(cache.hash_keys(), fields, &Question::read(&message).expect("a question"))
}

/// Stores an answer that says `mark` in its TTL, in its length and in every byte.
fn put(cache: &SharedCache, n: u8, kind: Kind, mark: u8) -> Inserted {
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

/// The mark of the answer that is there, which must be whole.
fn get(cache: &SharedCache, n: u8) -> Option<u8> {
    cache.get(&key(cache, n), NOW, |entry| {
        let mark = entry.answer.meta.ttl_s as u8;
        assert_eq!(entry.answer.bytes, vec![mark; 10 * usize::from(mark)], "half of an answer");
        assert_eq!(entry.expires, NOW + Duration::from_secs(mark.into()));
        mark
    })
}

#[test]
fn a_reader_sees_the_old_answer_or_the_new_one_and_never_goes_back() {
    loom::model(|| {
        let cache = cache();
        assert_eq!(put(&cache, 0, Kind::Positive, 1), Inserted::Stored);
        let writer = {
            let cache = cache.clone();
            thread::spawn(move || put(&cache, 0, Kind::NxDomain, 2))
        };
        let first = get(&cache, 0);
        let second = get(&cache, 0);
        assert!(first == Some(1) || (first, second) == (Some(2), Some(2)), "{first:?}, then {second:?}");
        let after = match writer.join().expect("no panic") {
            Inserted::Stored => 2,
            Inserted::Busy => 1,
            other => panic!("{other:?}"),
        };
        assert_eq!(get(&cache, 0), Some(after));
        assert!(second == Some(1) || second == Some(after));
    });
}

#[test]
fn two_workers_insert_the_same_name_while_a_third_reads() {
    loom::model(|| {
        let cache = cache();
        let workers = [1, 2].map(|mark| {
            let cache = cache.clone();
            thread::spawn(move || put(&cache, 0, Kind::Positive, mark))
        });
        let seen = get(&cache, 0);
        assert!(matches!(seen, None | Some(1 | 2)));
        let inserted = workers.map(|worker| worker.join().expect("no panic"));
        let stored = inserted.iter().filter(|inserted| **inserted == Inserted::Stored).count();
        let usage = cache.usage();
        assert_eq!(usage.busy, 2 - stored as u64, "each insert is stored or counted as busy");
        assert_eq!(usage.table.entries, stored.min(1) as u64, "the second takes the place of the first");
        assert_eq!(usage.table.evictions(), 0);
        match (inserted, get(&cache, 0)) {
            ([Inserted::Stored, Inserted::Busy], left) => assert_eq!(left, Some(1)),
            ([Inserted::Busy, Inserted::Stored], left) => assert_eq!(left, Some(2)),
            ([Inserted::Stored, Inserted::Stored], left) => assert!(left.is_some()),
            // The reader may have been in the way of both.
            ([Inserted::Busy, Inserted::Busy], left) => assert_eq!(left, None),
            (other, _) => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_failure_never_displaces_an_answer_whoever_comes_first() {
    loom::model(|| {
        let cache = cache();
        let failure = {
            let cache = cache.clone();
            thread::spawn(move || put(&cache, 0, Kind::Failure, 1))
        };
        let good = put(&cache, 0, Kind::Positive, 2);
        let failure = failure.join().expect("no panic");
        assert!(failure != Inserted::TooLarge && good != Inserted::Kept);
        if good == Inserted::Stored {
            assert_eq!(get(&cache, 0), Some(2));
        }
    });
}

#[test]
fn the_figures_are_exact_after_inserts_that_met() {
    loom::model(|| {
        let cache = cache();
        let other = {
            let cache = cache.clone();
            thread::spawn(move || [put(&cache, 0, Kind::Positive, 1), put(&cache, 1, Kind::NxDomain, 2)])
        };
        let mine = [put(&cache, 2, Kind::Positive, 3), put(&cache, 3, Kind::NxDomain, 4)];
        let theirs = other.join().expect("no panic");
        let inserted = [theirs, mine].concat();

        let alone = SharedCache::new(BYTES, &SEED);
        for (n, inserted) in (0..).zip(&inserted) {
            let kind = if n % 2 == 0 { Kind::Positive } else { Kind::NxDomain };
            if *inserted == Inserted::Stored {
                put(&alone, n, kind, n + 1);
            }
        }
        let (usage, expected) = (cache.usage(), alone.usage());
        assert_eq!(usage.table.bytes, expected.table.bytes);
        assert_eq!(usage.table.entries, expected.table.entries);
        assert_eq!(usage.table.classes.len(), expected.table.classes.len());
        let busy = inserted.iter().filter(|inserted| **inserted == Inserted::Busy).count();
        assert_eq!(usage.busy, busy as u64);
        assert_eq!(usage.table.entries + usage.busy, 4);
    });
}

#[test]
fn a_reader_of_an_entry_that_is_being_evicted_gets_all_of_it_or_nothing() {
    loom::model(|| {
        let cache = cache();
        for n in 0..ENTRIES_MAX as u8 {
            assert_eq!(put(&cache, n, Kind::Positive, 1), Inserted::Stored);
        }
        let writer = {
            let cache = cache.clone();
            thread::spawn(move || put(&cache, 10, Kind::Positive, 2))
        };
        let seen = get(&cache, 0);
        assert!(matches!(seen, None | Some(1)));
        let stored = writer.join().expect("no panic") == Inserted::Stored;
        let usage = cache.usage();
        assert_eq!(usage.table.entries, u64::from(ENTRIES_MAX));
        assert_eq!(usage.table.evictions(), u64::from(stored));
        assert_eq!(get(&cache, 10).is_some(), stored);
    });
}

#[test]
fn a_scrape_sees_each_shard_between_two_inserts() {
    loom::model(|| {
        let cache = cache();
        let writer = {
            let cache = cache.clone();
            thread::spawn(move || {
                put(&cache, 0, Kind::Positive, 1);
                put(&cache, 1, Kind::Positive, 1);
            })
        };
        let usage = cache.usage().table;
        assert_eq!(usage.entries, usage.classes.iter().map(|class| class.entries).sum::<u64>());
        assert_eq!(usage.bytes == 0, usage.classes.is_empty());
        writer.join().expect("no panic");
    });
}

#[test]
fn a_zone_that_is_flushed_while_a_worker_inserts_keeps_at_most_what_came_after() {
    loom::model(|| {
        let cache = cache();
        assert_eq!(put(&cache, 0, Kind::Positive, 1), Inserted::Stored);
        let worker = {
            let cache = cache.clone();
            thread::spawn(move || put(&cache, 1, Kind::Positive, 2))
        };
        cache.flush_zone(ZoneId(0));
        worker.join().expect("no panic");
        assert_eq!(get(&cache, 0), None);
        assert_eq!(cache.usage().table.entries, u64::from(get(&cache, 1).is_some()));
    });
}
