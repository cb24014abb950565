//! The shared cache with the standard library's locks: how shards are laid out, what a panic leaves, and a short stress run.

use super::*;
use nodens_core::Duration;
use nodens_core::cache::{AnswerMeta, Class, KeyFields, Kind};
use nodens_core::wire::{Flags, Question, Rcode};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const SEED: Seed = Seed([9; 32]);
const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn key(cache: &SharedCache, zone: u16, n: u32) -> Key {
    let mut message = vec![0u8; 12];
    let label = format!("name-{n}");
    message.push(label.len() as u8);
    message.extend(label.as_bytes());
    message.extend(b"\x03svc\x00\x00\x01\x00\x01");
    let fields = KeyFields { zone: ZoneId(zone), do_bit: false, cd: false };
    Key::new(cache.hash_keys(), fields, &Question::read(&message).expect("a question"))
}

fn answer(kind: Kind, ttl_s: u32, bytes: &[u8]) -> AnswerRef<'_> {
    let (rcode, flags) = (Rcode::NOERROR, Flags(0));
    let meta = AnswerMeta { rcode, flags, counts: [0; 3], kind: Some(kind), extended_error: None, ttl_s };
    AnswerRef { meta, bytes }
}

fn rules(entries_max: u32) -> InsertRules {
    InsertRules { stored: NOW, expires: NOW + Duration::from_secs(60), entries_max }
}

fn put(cache: &SharedCache, zone: u16, n: u32, entries_max: u32) -> Inserted {
    cache.insert(&key(cache, zone, n), answer(Kind::Positive, 60, &n.to_be_bytes()), rules(entries_max))
}

fn get(cache: &SharedCache, zone: u16, n: u32) -> Option<Vec<u8>> {
    cache.get(&key(cache, zone, n), NOW, |entry| entry.answer.bytes.to_vec())
}

#[test]
fn a_cache_is_cut_into_shards_of_a_useful_size_within_its_bytes() {
    for (bytes_max, shards) in
        [(0, 1), (100 << 10, 1), (512 << 10, 2), (8 << 20, 32), (16 << 20, 64), (128 << 20, 64)]
    {
        let cache = SharedCache::new(bytes_max, &SEED);
        assert_eq!(cache.cells.len(), shards, "{bytes_max} bytes");
        let usage = cache.usage().table;
        assert_eq!(usage.bytes, 0);
        assert!(usage.bytes_max + shards * size_of::<Cell>() <= bytes_max.max(size_of::<Cell>()));
    }
}

#[test]
fn keys_are_spread_over_all_shards() {
    let cache = SharedCache::new(16 << 20, &SEED);
    for n in 0..6_400 {
        assert_eq!(put(&cache, 0, n, u32::MAX), Inserted::Stored);
    }
    for cell in &cache.cells {
        let entries = cell.read().expect("a sound shard").usage().entries;
        assert!((50..150).contains(&entries), "{entries} of 100");
    }
    for n in 0..6_400 {
        assert_eq!(get(&cache, 0, n).as_deref(), Some(&n.to_be_bytes()[..]));
    }
}

#[test]
fn a62_caps_hold_over_the_whole_cache_and_are_never_below_four_a_shard() {
    let cache = SharedCache::new(16 << 20, &SEED);
    for n in 0..20_000 {
        put(&cache, 0, n, 9_984);
        put(&cache, 1, n, 1);
    }
    let usage = cache.usage().table;
    assert_eq!(usage.classes.len(), 2);
    for class in &usage.classes {
        let cap = if class.zone == ZoneId(0) { 9_984 } else { 64 * 4 };
        assert_eq!((class.class, class.entries), (Class::Success, cap));
        assert_eq!(class.evictions, 20_000 - cap);
    }
}

#[test]
fn a_flushed_zone_is_gone_from_all_shards() {
    let cache = SharedCache::new(16 << 20, &SEED);
    for n in 0..1_000 {
        put(&cache, n as u16 % 2, n, u32::MAX);
    }
    cache.flush_zone(ZoneId(1));
    assert!((0..1_000).all(|n| get(&cache, n as u16 % 2, n).is_some() == (n % 2 == 0)));
    assert_eq!(cache.usage().table.entries, 500);
}

#[test]
fn an_insert_does_not_wait_for_a_busy_shard() {
    let cache = SharedCache::new(0x10_0000, &SEED);
    assert_eq!(put(&cache, 0, 1, u32::MAX), Inserted::Stored);
    let inserted = cache.get(&key(&cache, 0, 1), NOW, |_| put(&cache, 0, 1, u32::MAX));
    assert_eq!(inserted, Some(Inserted::Busy));
    assert_eq!(cache.usage().busy, 1);
    assert_eq!(put(&cache, 0, 1, u32::MAX), Inserted::Stored);
}

#[test]
fn a_panic_while_writing_empties_one_shard_and_the_service_goes_on() {
    let cache = SharedCache::new(16 << 20, &SEED);
    for n in 0..1_000 {
        put(&cache, 0, n, u32::MAX);
    }
    let poison = |n| {
        let cell = cache.cell(&key(&cache, 0, n));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _shard = cell.write();
            std::panic::resume_unwind(Box::new("a bug, for the test"));
        }));
        assert!(panicked.is_err());
    };
    poison(1);
    assert_eq!(get(&cache, 0, 1), None);
    let entries = cache.usage().table.entries;
    assert!((900..1_000).contains(&entries), "{entries}");
    assert_eq!(put(&cache, 0, 1, u32::MAX), Inserted::Stored);
    assert!(get(&cache, 0, 1).is_some());
    assert_eq!((cache.usage().resets, cache.usage().table.entries), (1, entries + 1));

    poison(2);
    cache.flush_zone(ZoneId(0));
    assert_eq!(put(&cache, 0, 2, u32::MAX), Inserted::Stored);
    assert_eq!(cache.usage().resets, 2);
}

#[test]
fn a_panicking_reader_harms_nobody() {
    let cache = SharedCache::new(16 << 20, &SEED);
    put(&cache, 0, 1, u32::MAX);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        cache.get(&key(&cache, 0, 1), NOW, |_| std::panic::resume_unwind(Box::new("a bug, for the test")))
    }));
    assert!(panicked.is_err());
    assert!(get(&cache, 0, 1).is_some());
    assert_eq!(put(&cache, 0, 1, u32::MAX), Inserted::Stored);
    assert_eq!(cache.usage().resets, 0);
}

/// Threads that insert, replace, evict and read at once for a moment. Each answer says in every byte and in its TTL what it
/// belongs to, so a torn or foreign one would be seen.
#[test]
fn stress_answers_are_whole_and_the_figures_add_up() {
    const THREADS: usize = 4;
    const NAMES: u32 = 500;
    let cache = SharedCache::new(600 << 10, &SEED);
    let (stop, hits, stored) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let start = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u32 {
            let (cache, stop, hits, stored, start) = (&cache, &stop, &hits, &stored, &start);
            scope.spawn(move || {
                start.wait();
                let mut state = thread + 1;
                while !stop.load(Relaxed) {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let name = (state >> 16) % NAMES;
                    let key = key(cache, 0, name);
                    let fill = (name % 251) as u8;
                    let whole = cache.get(&key, NOW, |entry| {
                        let meta = entry.answer.meta;
                        meta.ttl_s == name && entry.answer.bytes.iter().all(|byte| *byte == fill)
                    });
                    match whole {
                        Some(whole) => {
                            assert!(whole, "name {name} has the answer of another");
                            hits.fetch_add(1, Relaxed);
                        }
                        None => {
                            let bytes = vec![fill; (state >> 8) as usize % 3_000];
                            let kind = if name.is_multiple_of(3) { Kind::NxDomain } else { Kind::Positive };
                            let inserted = cache.insert(&key, answer(kind, name, &bytes), rules(150));
                            stored.fetch_add(u64::from(inserted == Inserted::Stored), Relaxed);
                        }
                    }
                }
            });
        }
        start.wait();
        std::thread::sleep(std::time::Duration::from_millis(300));
        stop.store(true, Relaxed);
    });
    let usage = cache.usage();
    assert!(hits.into_inner() > 0 && usage.table.evictions() > 0, "{usage:?}");
    assert!(usage.table.bytes <= usage.table.bytes_max);
    let present = (0..NAMES).filter(|n| get(&cache, 0, *n).is_some()).count() as u64;
    assert_eq!(present, usage.table.entries);
    // Two threads may have stored the same name: then the second took the place of the first.
    assert!(usage.table.entries + usage.table.evictions() <= stored.into_inner());
    assert_eq!(usage.resets, 0);
}
