//! What a hit costs: nanoseconds for hashing the question, finding the entry and copying its bytes out.
//!
//! `cargo run --release -p nodens-cache --example hit_cost`
//!
//! One thread alone, then two at once, over a set of names that fits the processor's caches and one that does not; last with a
//! writer that inserts as a node with many misses does. At the end: what an insert of a new name costs when the cache is full. A help for thinking, not a gate: it measures time on whatever machine it runs on.
#![expect(clippy::print_stdout, reason = "an example that prints its findings")]

use nodens_cache::SharedCache;
use nodens_core::cache::{AnswerMeta, AnswerRef, Cache, InsertRules, Key, KeyFields, Kind};
use nodens_core::wire::{Flags, Question, Rcode};
use nodens_core::{Duration, Instant, Seed, ZoneId};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const ANSWER: [u8; 100] = [7; 100];
const LOOKUPS: u32 = 4_000_000;
const PAUSE_PER_INSERT: std::time::Duration = std::time::Duration::from_micros(20);

fn question(n: u32) -> Vec<u8> {
    let label = format!("service-{n}");
    [
        &[0u8; 12][..],
        &[label.len() as u8],
        label.as_bytes(),
        b"\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01",
    ]
    .concat()
}

fn key(cache: &SharedCache, message: &[u8]) -> Key {
    let fields = KeyFields { zone: ZoneId(0), do_bit: false, cd: false };
    Key::new(cache.hash_keys(), fields, &Question::read(message).expect("a question"))
}

fn put(cache: &SharedCache, key: &Key) {
    let meta = AnswerMeta {
        rcode: Rcode::NOERROR,
        flags: Flags(0),
        counts: [0; 3],
        kind: Some(Kind::Positive),
        extended_error: None,
        ttl_s: 30,
    };
    let rules = InsertRules { stored: NOW, expires: NOW + Duration::from_secs(30), entries_max: u32::MAX };
    black_box(cache.insert(key, AnswerRef { meta, bytes: &ANSWER }, rules));
}

/// Looks up and copies; returns the time of one hit in nanoseconds.
fn hits(cache: &SharedCache, messages: &[Vec<u8>], seed: u32) -> f64 {
    let mut out = [0u8; 512];
    let mut state = seed;
    let mut found = 0;
    let start = std::time::Instant::now();
    for _ in 0..LOOKUPS {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = key(cache, &messages[(state >> 8) as usize % messages.len()]);
        let copied = cache.get(&key, NOW, |entry| {
            out[..entry.answer.bytes.len()].copy_from_slice(entry.answer.bytes);
        });
        found += u32::from(copied.is_some());
        black_box(&out);
    }
    let nanoseconds = start.elapsed().as_nanos() as f64 / f64::from(LOOKUPS);
    assert_eq!(found, LOOKUPS, "all of it should be hits");
    nanoseconds
}

/// The part of a hit that the cache has no influence on: reading the question, building its key, hashing it.
fn hashes(cache: &SharedCache, messages: &[Vec<u8>]) -> f64 {
    let mut state = 1u32;
    let start = std::time::Instant::now();
    for _ in 0..LOOKUPS {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        black_box(key(cache, &messages[(state >> 8) as usize % messages.len()]).hash());
    }
    start.elapsed().as_nanos() as f64 / f64::from(LOOKUPS)
}

/// Inserts new names into a full cache; returns the time of one insert in nanoseconds, its key included.
fn insert_when_full() -> f64 {
    const INSERTS: u32 = 200_000;
    let cache = SharedCache::new(8 << 20, &Seed([1; 32]));
    let messages: Vec<Vec<u8>> = (0..2 * INSERTS).map(question).collect();
    let (before, measured) = messages.split_at(INSERTS as usize);
    before.iter().for_each(|message| put(&cache, &key(&cache, message)));
    assert!(cache.usage().table.evictions() > 0, "the cache should be full");
    let start = std::time::Instant::now();
    measured.iter().for_each(|message| put(&cache, &key(&cache, message)));
    start.elapsed().as_nanos() as f64 / f64::from(INSERTS)
}

fn main() {
    println!("names   threads  ns per hit (each thread)");
    for names in [1, 1_000, 50_000] {
        let cache = SharedCache::new(64 << 20, &Seed([1; 32]));
        let messages: Vec<Vec<u8>> = (0..names).map(question).collect();
        for message in &messages {
            put(&cache, &key(&cache, message));
        }
        let (cache, messages) = (&cache, &messages);
        println!("{names:<7} 1        {:.0} of it for the key and its hash", hashes(cache, messages));
        println!("{names:<7} 1        {:.0}", hits(cache, messages, 1));
        std::thread::scope(|scope| {
            let threads = [1, 2].map(|seed| scope.spawn(move || hits(cache, messages, seed)));
            let [a, b] = threads.map(|thread| thread.join().expect("no panic"));
            println!("{names:<7} 2        {a:.0} {b:.0}");
        });
        let stop = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let (mut n, begin) = (0, std::time::Instant::now());
                while !stop.load(Relaxed) {
                    put(cache, &key(cache, &messages[n as usize % messages.len()]));
                    n += 1;
                    while begin.elapsed() < PAUSE_PER_INSERT * n {
                        std::hint::spin_loop();
                    }
                }
                f64::from(n) / begin.elapsed().as_secs_f64()
            });
            let nanoseconds = hits(cache, messages, 1);
            stop.store(true, Relaxed);
            let rate = writer.join().expect("no panic");
            println!(
                "{names:<7} 1        {nanoseconds:.0} beside {rate:.0} inserts/s; busy {}",
                cache.usage().busy
            );
        });
    }
    println!("an insert into a full cache: {:.0} ns", insert_when_full());
}
