//! Rows A62, A63, X7 and X8 of semantics.md and what the shard promises about its bounds.

use super::*;
use crate::cache::{AnswerMeta, KeyFields};
use crate::hash::HashKeys;
use crate::rng::Seed;
use crate::time::Duration;
use crate::wire::{Flags, Question, Rcode};
use alloc::collections::BTreeMap;
use alloc::{format, vec};
use proptest::prelude::*;

const BIG: usize = 1 << 30;
const NO_CAP: u32 = u32::MAX;
const HOUR: Duration = Duration::from_secs(3600);
const START: Instant = Instant::from_nanos(1_000_000_000_000);

impl Shard {
    /// Checks everything that should always hold, and counts the memory anew, allocation by allocation.
    fn audit(&self) {
        let live = self.slab.audit();
        assert_eq!(self.all.len() as usize, live.len());
        let by_class: u32 = self.classes.iter().map(|class| class.list.len()).sum();
        assert_eq!(by_class as usize, live.len());
        let round = |len: usize| if len == 0 { 0 } else { len.div_ceil(16) * 16 + 16 };
        let bodies: usize = live
            .iter()
            .map(|i| &self.slab.slots[*i as usize])
            .map(|slot| round(slot.key().len() + slot.answer().len()))
            .sum();
        let others: usize = self.slab.allocations().map(round).iter().sum();
        let classes = round(self.classes.capacity() * size_of::<ClassState>());
        let usage = self.usage();
        assert_eq!(usage.bytes, bodies + others + classes);
        assert!(usage.bytes <= usage.bytes_max, "{usage:?}");
        assert_eq!(usage.entries, live.len() as u64);
    }
}

fn key_in(zone: u16, n: u64) -> Key {
    let mut message = vec![0u8; 12];
    let label = format!("name-{n:016x}");
    message.push(label.len() as u8);
    message.extend(label.as_bytes());
    message.extend(b"\x07cluster\x05local\x00\x00\x01\x00\x01");
    let fields = KeyFields { zone: ZoneId(zone), do_bit: false, cd: false };
    Key::new(&HashKeys::new(&Seed([5; 32])), fields, &Question::read(&message).expect("a question"))
}

fn key(n: u64) -> Key {
    key_in(0, n)
}

fn meta(kind: Kind) -> AnswerMeta {
    let (rcode, flags) = (Rcode::NOERROR, Flags(0));
    AnswerMeta { rcode, flags, counts: [0; 3], kind: Some(kind), extended_error: None, ttl_s: 30 }
}

fn answer(kind: Kind, bytes: &[u8]) -> AnswerRef<'_> {
    AnswerRef { meta: meta(kind), bytes }
}

fn lasting(now: Instant, ttl: Duration) -> InsertRules {
    InsertRules { stored: now, expires: now + ttl, entries_max: 0 }
}

fn put(shard: &mut Shard, n: u64, bytes: &[u8]) -> Inserted {
    shard.insert(&key(n), answer(Kind::Positive, bytes), lasting(START, HOUR), NO_CAP)
}

#[test]
fn what_went_in_comes_out() {
    let mut shard = Shard::new(BIG);
    for n in 0..5_000u64 {
        assert_eq!(put(&mut shard, n, &n.to_be_bytes()), Inserted::Stored);
    }
    for n in 0..5_000u64 {
        let entry = shard.get(&key(n), START).expect("an entry");
        assert_eq!(entry.answer.bytes, n.to_be_bytes());
        assert_eq!((entry.stored, entry.expires), (START, START + HOUR));
        assert_eq!(entry.answer.meta, meta(Kind::Positive));
    }
    assert!(shard.get(&key(5_000), START).is_none());
    assert!(shard.get(&key_in(1, 0), START).is_none());
    shard.audit();
}

#[test]
fn a62_entries_stay_within_the_bound_and_evictions_count() {
    const CAP: u32 = 100;
    let mut shard = Shard::new(BIG);
    for n in 0..CAP as u64 + 25 {
        let rules = lasting(START, HOUR);
        shard.insert(&key(n), answer(Kind::NxDomain, b"no"), rules, CAP);
        shard.insert(&key_in(1, n), answer(Kind::Positive, b"yes"), rules, NO_CAP);
    }
    shard.audit();
    let usage = shard.usage();
    assert_eq!(
        usage.classes,
        [
            ClassUsage { zone: ZoneId(0), class: Class::Denial, entries: CAP.into(), evictions: 25 },
            ClassUsage { zone: ZoneId(1), class: Class::Success, entries: u64::from(CAP) + 25, evictions: 0 },
        ]
    );
    assert_eq!(usage.evictions(), 25);
    // The oldest left.
    assert!(shard.get(&key(24), START).is_none());
    assert!(shard.get(&key(25), START).is_some());
}

#[test]
fn a62_a_lowered_cap_is_reached_over_the_next_inserts() {
    let mut shard = Shard::new(BIG);
    for n in 0..100 {
        put(&mut shard, n, b"x");
    }
    for n in 100..140 {
        shard.insert(&key(n), answer(Kind::Positive, b"x"), lasting(START, HOUR), 10);
    }
    assert_eq!(shard.usage().entries, 10);
    shard.audit();
}

#[test]
fn a63_reinserting_at_capacity_evicts_nobody() {
    let mut shard = Shard::new(64 << 10);
    let mut stored = 0;
    while shard.usage().evictions() == 0 {
        put(&mut shard, stored, &[7; 100]);
        stored += 1;
    }
    let present: Vec<u64> = (0..stored).filter(|n| shard.get(&key(*n), START).is_some()).collect();
    let before = shard.usage();
    for n in &present {
        assert_eq!(put(&mut shard, *n, &[8; 100]), Inserted::Stored);
    }
    assert_eq!(shard.usage(), before);
    for n in present {
        assert_eq!(shard.get(&key(n), START).expect("an entry").answer.bytes, [8; 100]);
    }
    shard.audit();
}

#[test]
fn x7_the_hot_set_survives_a_flood_of_names_asked_once() {
    const HOT: u64 = 1_000;
    let mut shard = Shard::new(1 << 20);
    for n in 0..HOT {
        put(&mut shard, n, &[1; 100]);
        assert!(shard.get(&key(n), START).is_some());
    }
    for n in 0..100_000 {
        shard.insert(&key(HOT + n), answer(Kind::NxDomain, &[2; 80]), lasting(START, HOUR), NO_CAP);
        // The hot names are asked for now and then, in an order of their own.
        shard.get(&key(n * 7 % HOT), START);
    }
    shard.audit();
    assert!(shard.usage().evictions() > 90_000, "the flood did not fill the shard");
    let left = (0..HOT).filter(|n| shard.get(&key(*n), START).is_some()).count() as u64;
    assert!(left * 1_000 >= HOT * 999, "{left} of {HOT} are left");
}

#[test]
fn x7_a_flood_in_one_class_at_its_cap_does_not_touch_the_other() {
    let mut shard = Shard::new(BIG);
    for n in 0..50 {
        put(&mut shard, n, b"x");
    }
    for n in 0..1_000 {
        shard.insert(&key(100 + n), answer(Kind::NxDomain, b"no"), lasting(START, HOUR), 40);
    }
    assert!((0..50).all(|n| shard.get(&key(n), START).is_some()));
    assert_eq!(shard.usage().entries, 90);
    shard.audit();
}

#[test]
fn x8_bytes_stay_within_the_bound_from_small_to_large_to_small() {
    const BOUND: usize = 256 << 10;
    let mut shard = Shard::new(BOUND);
    let mut entries = Vec::new();
    for (round, len) in [20usize, 4_096, 60_000, 20].into_iter().enumerate() {
        for n in 0..3_000 {
            let inserted = put(&mut shard, round as u64 * 10_000 + n, &vec![3; len]);
            assert_eq!(inserted, Inserted::Stored, "{len} bytes");
            assert!(shard.usage().bytes <= BOUND);
            if n % 100 == 0 {
                shard.audit();
            }
        }
        entries.push(shard.usage().entries);
    }
    // The bound is used, not only kept: a small entry costs some 170 bytes, and a slab made for them is kept for large ones.
    assert!(entries[0] > 1_200, "{entries:?}");
    assert!(entries[1] > 25, "{entries:?}");
    assert!(entries[2] >= 1, "{entries:?}");
    assert_eq!(entries[3], entries[0], "what large entries pushed out fits again");
}

#[test]
fn x8_a_slot_is_used_again_where_growing_would_pass_the_bound() {
    for bound in (2_000..12_000).step_by(7) {
        let mut shard = Shard::new(bound);
        for n in 0..200 {
            put(&mut shard, n, &[0; 50]);
        }
        shard.audit();
        assert!(shard.usage().entries >= 1);
    }
}

#[test]
fn x8_what_would_not_fit_into_an_empty_shard_is_refused_and_pushes_nobody_out() {
    let mut shard = Shard::new(8 << 10);
    assert_eq!(put(&mut shard, 1, b"small"), Inserted::Stored);
    assert_eq!(put(&mut shard, 2, &[0; 8 << 10]), Inserted::TooLarge);
    assert_eq!(put(&mut shard, 1, &[0; 8 << 10]), Inserted::TooLarge);
    assert_eq!(shard.get(&key(1), START).expect("an entry").answer.bytes, b"small");
    assert_eq!(
        Shard::new(0).insert(&key(1), answer(Kind::Positive, b""), lasting(START, HOUR), 1),
        Inserted::TooLarge
    );
    shard.audit();
    // The largest that fits takes the place of all others.
    let largest = (0..8 << 10).rev().find(|len| put(&mut shard, 3, &vec![0; *len]) == Inserted::Stored);
    assert!(largest > Some(6_000), "{largest:?}");
    assert_eq!(shard.usage().entries, 1);
    shard.audit();
}

#[test]
fn an_entry_is_fresh_until_the_instant_it_expires() {
    let mut shard = Shard::new(BIG);
    let ttl = Duration::from_secs(5);
    shard.insert(&key(1), answer(Kind::Positive, b"x"), lasting(START, ttl), NO_CAP);
    assert!(shard.get(&key(1), START + Duration::from_nanos(4_999_999_999)).is_some());
    assert!(shard.get(&key(1), START + ttl).is_none());
    shard.insert(&key(2), answer(Kind::Positive, b"x"), lasting(START, Duration::ZERO), NO_CAP);
    assert!(shard.get(&key(2), START).is_none());
}

#[test]
fn expired_entries_leave_before_fresh_ones_and_are_no_evictions() {
    let mut shard = Shard::new(64 << 10);
    let mut filled = 0;
    while shard.usage().evictions() == 0 {
        let ttl = if filled % 2 == 0 { Duration::from_secs(5) } else { HOUR };
        shard.insert(&key(filled), answer(Kind::Positive, &[0; 100]), lasting(START, ttl), NO_CAP);
        filled += 1;
    }
    let later = START + Duration::from_secs(6);
    for n in 0..filled / 3 {
        shard.insert(&key(10_000 + n), answer(Kind::Positive, &[0; 100]), lasting(later, HOUR), NO_CAP);
    }
    let usage = shard.usage();
    assert!(usage.expired >= filled / 2 - 1, "{usage:?}");
    assert!(usage.evictions() <= 1, "{usage:?}");
    shard.audit();
}

#[test]
fn what_has_expired_when_it_is_evicted_is_no_eviction() {
    let mut shard = Shard::new(BIG);
    for n in 0..100 {
        shard.insert(&key(n), answer(Kind::Positive, b"x"), lasting(START, Duration::from_secs(5)), NO_CAP);
    }
    // The cap makes four leave beside those that the look for expired ones finds.
    let later = START + Duration::from_secs(5);
    shard.insert(&key(100), answer(Kind::Positive, b"x"), lasting(later, HOUR), 10);
    let usage = shard.usage();
    assert_eq!((usage.entries, usage.expired, usage.evictions()), (93, 8, 0));
}

#[test]
fn r17_a_failure_replaces_an_answer_that_has_expired_but_is_still_there() {
    let mut shard = Shard::new(BIG);
    for n in 0..100 {
        shard.insert(&key(n), answer(Kind::Positive, b"x"), lasting(START, Duration::from_secs(5)), NO_CAP);
    }
    let later = START + Duration::from_secs(5);
    for n in (0..100).rev() {
        let inserted = shard.insert(&key(n), answer(Kind::Failure, b"bad"), lasting(later, HOUR), NO_CAP);
        assert_eq!(inserted, Inserted::Stored);
    }
    shard.audit();
}

#[test]
fn r17_a_failure_replaces_no_fresh_answer() {
    let rules = |now| lasting(now, Duration::from_secs(5));
    let late = START + Duration::from_secs(5);
    for held in [Kind::Positive, Kind::NoData, Kind::NxDomain] {
        let mut shard = Shard::new(BIG);
        shard.insert(&key(1), answer(held, b"good"), rules(START), NO_CAP);
        assert_eq!(
            shard.insert(&key(1), answer(Kind::Failure, b"bad"), rules(START), NO_CAP),
            Inserted::Kept
        );
        assert_eq!(shard.get(&key(1), START).expect("an entry").answer.bytes, b"good");
        assert_eq!(
            shard.insert(&key(1), answer(Kind::Failure, b"bad"), rules(late), NO_CAP),
            Inserted::Stored
        );
        assert_eq!(shard.get(&key(1), late).expect("an entry").answer.bytes, b"bad");
        shard.audit();
    }
}

#[test]
fn r17_everything_else_replaces() {
    let kinds = [Kind::Positive, Kind::NoData, Kind::NxDomain, Kind::Failure];
    for (held, new) in kinds.iter().flat_map(|held| kinds.map(|new| (*held, new))) {
        if new == Kind::Failure && held != Kind::Failure {
            continue;
        }
        let mut shard = Shard::new(BIG);
        shard.insert(&key(1), answer(held, b"old"), lasting(START, HOUR), NO_CAP);
        assert_eq!(
            shard.insert(&key(1), answer(new, b"newer"), lasting(START, HOUR), NO_CAP),
            Inserted::Stored
        );
        let entry = shard.get(&key(1), START).expect("an entry");
        assert_eq!((entry.answer.bytes, entry.answer.meta.kind), (&b"newer"[..], Some(new)));
        let usage = shard.usage();
        assert_eq!((usage.entries, usage.evictions()), (1, 0), "{held:?} by {new:?}");
        let counted = usage.classes.iter().find(|class| class.entries == 1).expect("a class");
        assert_eq!(counted.class, new.class());
        shard.audit();
    }
}

#[test]
fn colliding_hashes_are_told_apart() {
    let mut shard = Shard::new(BIG);
    for n in 0..100u64 {
        let bytes = n.to_be_bytes();
        let mut new = Prepared::new(&key(n), answer(Kind::Positive, &bytes));
        new.hash = 7;
        shard.insert_prepared(new, lasting(START, HOUR), NO_CAP, &mut Removed::default());
    }
    shard.audit();
    for n in 0..100u64 {
        let entry = shard.get_hashed(7, key(n).as_bytes(), START).expect("an entry");
        assert_eq!(entry.answer.bytes, n.to_be_bytes());
    }
    assert!(shard.get_hashed(7, key(100).as_bytes(), START).is_none());
}

#[test]
fn a_flushed_zone_is_gone_and_its_place_is_used_again() {
    let mut shard = Shard::new(BIG);
    for zone in 0..300 {
        shard.insert(&key_in(0, zone), answer(Kind::Positive, b"x"), lasting(START, HOUR), NO_CAP);
        shard.insert(&key_in(1 + zone as u16, 1), answer(Kind::NxDomain, b"x"), lasting(START, HOUR), NO_CAP);
        shard.flush_zone(ZoneId(1 + zone as u16));
        assert!(shard.get(&key_in(1 + zone as u16, 1), START).is_none());
    }
    assert_eq!(shard.usage().entries, 300);
    assert_eq!(shard.usage().classes.len(), 1);
    assert_eq!(shard.classes.len(), 2);
    shard.audit();
}

#[test]
fn the_index_does_not_grow_by_coming_and_going() {
    let mut shard = Shard::new(32 << 10);
    for n in 0..1_000 {
        put(&mut shard, n, &[0; 60]);
    }
    let before = shard.slab.allocations();
    for n in 1_000..200_000 {
        put(&mut shard, n, &[0; 60]);
    }
    assert_eq!(shard.slab.allocations(), before);
    shard.audit();
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_slot_is_one_cache_line() {
    assert_eq!(size_of::<slab::Slot>(), 64);
}

#[derive(Clone, Debug)]
enum Step {
    Insert { zone: u16, name: u64, kind: Kind, len: usize, ttl_s: u64, cap: u32 },
    Get { zone: u16, name: u64 },
    Wait { seconds: u64 },
    Flush { zone: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        4 => Just(Kind::Positive),
        2 => Just(Kind::NxDomain),
        1 => Just(Kind::NoData),
        1 => Just(Kind::Failure)
    ];
    let len = prop_oneof![8 => 0..300usize, 1 => 300..5_000usize, 1 => 30_000..70_000usize];
    let cap = prop_oneof![4 => Just(NO_CAP), 1 => 0..12u32];
    prop_oneof![
        12 => (0..3u16, 0..60u64, kind, len, 0..20u64, cap).prop_map(|(zone, name, kind, len, ttl_s, cap)| {
            Step::Insert { zone, name, kind, len, ttl_s, cap }
        }),
        12 => (0..3u16, 0..60u64).prop_map(|(zone, name)| Step::Get { zone, name }),
        2 => (0..8u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => (0..3u16).prop_map(|zone| Step::Flush { zone }),
    ]
}

/// What a map without bounds would hold.
type Model = BTreeMap<(u16, u64), (Vec<u8>, Kind, Instant)>;

fn run(bound: usize, steps: Vec<Step>) {
    let (mut shard, mut model, mut now) = (Shard::new(bound), Model::new(), START);
    // While nothing had to leave and nothing was refused, the shard must hold all that the model holds.
    let mut complete = true;
    for (serial, step) in steps.into_iter().enumerate() {
        match step {
            Step::Wait { seconds } => now += Duration::from_secs(seconds),
            Step::Flush { zone } => {
                shard.flush_zone(ZoneId(zone));
                model.retain(|(of, _), _| *of != zone);
            }
            Step::Get { zone, name } => {
                let found = shard.get(&key_in(zone, name), now);
                let fresh = model.get(&(zone, name)).filter(|(_, _, expires)| *expires > now);
                match (found, fresh) {
                    (Some(entry), Some((bytes, kind, expires))) => {
                        assert_eq!(entry.answer.bytes, bytes);
                        assert_eq!((entry.answer.meta.kind, entry.expires), (Some(*kind), *expires));
                    }
                    (Some(_), None) => panic!("an entry that nobody stored, or that has expired"),
                    (None, fresh) => assert!(!complete || fresh.is_none(), "an entry was lost"),
                }
            }
            Step::Insert { zone, name, kind, len, ttl_s, cap } => {
                let bytes: Vec<u8> = (0..len).map(|i| (serial * 31 + i) as u8).collect();
                let rules = lasting(now, Duration::from_secs(ttl_s));
                let held = model.get(&(zone, name)).filter(|(_, _, expires)| *expires > now);
                let keeps = kind == Kind::Failure && held.is_some_and(|(_, held, _)| *held != Kind::Failure);
                let evicted = shard.usage().evictions();
                match shard.insert(&key_in(zone, name), answer(kind, &bytes), rules, cap) {
                    Inserted::Stored => {
                        assert!(!keeps || !complete, "a failure replaced a fresh answer");
                        model.insert((zone, name), (bytes, kind, rules.expires));
                    }
                    Inserted::Kept => assert!(keeps),
                    Inserted::TooLarge => assert!(len + 2_000 > bound / 2, "{len} bytes are not too large"),
                    Inserted::Busy => panic!("a shard has no lock to be busy"),
                }
                // A flush may take a zone's evictions out of the sum, an insert never does.
                complete &= shard.usage().evictions() == evicted;
            }
        }
        shard.audit();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map_without_bounds(
        bound in prop_oneof![Just(BIG), 4_000..40_000usize, 100_000..200_000usize],
        steps in prop::collection::vec(step(), 1..250),
    ) {
        run(bound, steps);
    }
}
