//! Questions whose lookup failed lately, so that the same question does not send the same packets again (RFC 9520 §3.2).
//!
//! | what failed | kept | forgotten early |
//! | --- | --- | --- |
//! | the upstream said REFUSED | 1 s, doubling to 5 s while it lasts | no |
//! | nobody answered, or nobody could be reached | 1 s, doubling to 5 s while it lasts | with the zone's first good reply |
//!
//! SERVFAIL and NOTIMP from an upstream are whole answers and live in the shared cache. This table is one worker's own.

use crate::cache::Key;
use crate::sim_support::{Fault, Mark, mark, mark_if, planted};
use crate::time::{Duration, Instant};
use crate::wire::Rcode;
use alloc::boxed::Box;
use alloc::vec::Vec;
use hashbrown::HashTable;

/// The first time: RFC 9520 §3.2 asks for a second at least.
const KEPT_MIN: Duration = Duration::from_secs(1);
/// The longest: a node's DNS is away for seconds during roll-outs, and must not be away for longer because of us.
const KEPT_MAX: Duration = Duration::from_secs(5);
/// How long after its end a failure is remembered for doubling.
const MEMORY: Duration = Duration::from_secs(10);
/// Entries of one of the two generations. Two of them with names of 40 bytes are about half a megabyte.
const GENERATION_MAX: usize = 2048;

/// What to answer instead of asking again.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct Failure {
    pub(super) rcode: Rcode,
    until: Instant,
    kept: Duration,
    /// The zone's epoch, for failures of our own; `None` if the upstream said so.
    epoch: Option<u32>,
}

type Table = HashTable<(u64, Box<[u8]>, Failure)>;

/// The table: two generations, so that it is bounded without a list of ages.
#[derive(Debug, Default)]
pub(super) struct Failures {
    young: Table,
    old: Table,
    /// Per zone: how often it recovered, and whether it has failures to forget.
    zones: Vec<(u32, bool)>,
}

impl Failures {
    pub(super) fn new(zones: usize) -> Self {
        Failures { zones: alloc::vec![(0, false); zones], ..Failures::default() }
    }

    /// The failure that still stands for `key` in the zone at index `zone`.
    pub(super) fn get(&self, key: &Key, zone: usize, now: Instant) -> Option<Failure> {
        self.find(key).filter(|f| f.until > now && f.epoch.is_none_or(|epoch| epoch == self.zones[zone].0))
    }

    /// Remembers that `key` failed; `own` says that no upstream answered at all.
    pub(super) fn remember(&mut self, key: &Key, zone: usize, rcode: Rcode, own: bool, now: Instant) {
        let current = |f: &Failure| f.epoch.is_none_or(|epoch| epoch == self.zones[zone].0);
        let again = self.find(key).filter(|f| current(f) && now.since(f.until) < MEMORY);
        let kept = again.map_or(KEPT_MIN, |f| (f.kept * 2).min(KEPT_MAX));
        mark_if(again.is_some(), Mark::FailureKeptLonger);
        self.zones[zone].1 |= own;
        let epoch = own.then_some(self.zones[zone].0);
        if self.young.len() >= GENERATION_MAX {
            mark(Mark::FailureGenerationTurned);
            self.old = core::mem::take(&mut self.young);
        }
        let failure = Failure { rcode, until: now + kept, kept, epoch };
        match self.young.find_mut(key.hash(), |(_, bytes, _)| **bytes == *key.as_bytes()) {
            Some((_, _, entry)) => *entry = failure,
            None => {
                let entry = (key.hash(), key.as_bytes().into(), failure);
                self.young.insert_unique(key.hash(), entry, |(hash, ..)| *hash);
            }
        }
    }

    /// The question has been answered: whatever failed before is over.
    pub(super) fn forget(&mut self, key: &Key) {
        for table in [&mut self.young, &mut self.old] {
            if table.is_empty() {
                continue;
            }
            if let Ok(entry) = table.find_entry(key.hash(), |(_, bytes, _)| **bytes == *key.as_bytes()) {
                entry.remove();
            }
        }
    }

    /// The zone answers again: failures of our own are history.
    pub(super) fn recovered(&mut self, zone: usize) {
        let (epoch, failed) = &mut self.zones[zone];
        if *failed && !planted(Fault::FailureOutlivesRecovery) {
            mark(Mark::FailuresForgotten);
            *epoch = epoch.wrapping_add(1);
            *failed = false;
        }
    }

    fn find(&self, key: &Key) -> Option<Failure> {
        let same = |(_, bytes, _): &(u64, Box<[u8]>, Failure)| **bytes == *key.as_bytes();
        let entry = self.young.find(key.hash(), same).or_else(|| self.old.find(key.hash(), same));
        entry.map(|(_, _, failure)| *failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::KeyFields;
    use crate::config::ZoneId;
    use crate::hash::HashKeys;
    use crate::rng::Seed;
    use crate::wire::Question;

    fn key(n: u32) -> Key {
        let mut message = Vec::from([0u8; 12]);
        message.push(4);
        message.extend(n.to_be_bytes());
        message.extend([0, 0, 1, 0, 1]);
        let fields = KeyFields { zone: ZoneId(0), do_bit: false, cd: false };
        Key::new(&HashKeys::new(&Seed([0; 32])), fields, &Question::read(&message).expect("a question"))
    }

    fn s(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn rfc9520_3_2_a_failure_doubles_from_one_second_to_five() {
        let mut failures = Failures::new(1);
        let mut now = s(100);
        for kept in [1, 2, 4, 5, 5] {
            failures.remember(&key(1), 0, Rcode::SERVFAIL, true, now);
            now += Duration::from_secs(kept) - Duration::from_nanos(1);
            assert!(failures.get(&key(1), 0, now).is_some(), "{kept}");
            now += Duration::from_nanos(1);
            assert!(failures.get(&key(1), 0, now).is_none(), "{kept}");
        }
        failures.remember(&key(1), 0, Rcode::SERVFAIL, true, now + Duration::from_secs(60));
        assert!(failures.get(&key(1), 0, now + Duration::from_secs(61)).is_none());
    }

    #[test]
    fn doubling_ends_ten_seconds_after_the_failure_did() {
        for (pause, kept) in [(MEMORY - Duration::from_nanos(1), 2), (MEMORY, 1)] {
            let mut failures = Failures::new(1);
            failures.remember(&key(1), 0, Rcode::SERVFAIL, true, s(0));
            let again = s(0) + KEPT_MIN + pause;
            failures.remember(&key(1), 0, Rcode::SERVFAIL, true, again);
            let stands = failures.get(&key(1), 0, again + KEPT_MIN).is_some();
            assert_eq!(stands, kept > 1, "after {pause:?}");
        }
    }

    #[test]
    fn as_many_failures_as_a_generation_holds_are_all_remembered() {
        let mut failures = Failures::new(1);
        let all = GENERATION_MAX as u32;
        (0..all).for_each(|n| failures.remember(&key(n), 0, Rcode::SERVFAIL, true, s(0)));
        assert!((0..all).all(|n| failures.get(&key(n), 0, s(0)).is_some()));
    }

    #[test]
    fn recovery_forgets_our_own_failures_and_not_the_upstreams_word() {
        let mut failures = Failures::new(2);
        failures.remember(&key(1), 0, Rcode::SERVFAIL, true, s(0));
        failures.remember(&key(2), 0, Rcode::REFUSED, false, s(0));
        failures.remember(&key(3), 1, Rcode::SERVFAIL, true, s(0));
        failures.recovered(0);
        let stands = |n, zone| failures.get(&key(n), zone, s(0)).is_some();
        assert!(!stands(1, 0) && stands(2, 0) && stands(3, 1));
    }

    #[test]
    fn what_was_answered_in_between_begins_at_one_second_again() {
        let mut failures = Failures::new(1);
        failures.remember(&key(1), 0, Rcode::SERVFAIL, true, s(0));
        failures.recovered(0);
        failures.remember(&key(1), 0, Rcode::SERVFAIL, true, s(1));
        assert!(failures.get(&key(1), 0, s(2)).is_none());
        failures.remember(&key(2), 0, Rcode::REFUSED, false, s(0));
        failures.forget(&key(2));
        failures.remember(&key(2), 0, Rcode::REFUSED, false, s(1));
        assert!(failures.get(&key(2), 0, s(2)).is_none());
    }

    #[test]
    fn a_flood_of_failures_stays_bounded() {
        let mut failures = Failures::new(1);
        for n in 0..50_000 {
            failures.remember(&key(n), 0, Rcode::SERVFAIL, true, s(0));
        }
        assert!(failures.young.len() + failures.old.len() <= 2 * GENERATION_MAX);
        assert!(failures.get(&key(49_999), 0, s(0)).is_some());
    }
}
