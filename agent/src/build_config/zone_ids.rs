//! Lasting numbers for zones.
//!
//! A zone's number is part of every cache key. The same zone with the same upstreams keeps it over a reload, and with it
//! its cached answers; a zone that asks somebody else gets a new one, so that no answer of the old upstreams is ever served
//! for it. A number is never given twice in the life of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nodens_core::ZoneId;

/// What makes a zone the same: its names, whom it asks, and, where a file has several such blocks, which of them it is.
type Identity = (BTreeSet<String>, BTreeSet<SocketAddr>, usize);

/// All numbers that were ever given. One per process.
#[derive(Debug, Default)]
pub struct ZoneIds {
    given: BTreeMap<Identity, ZoneId>,
    /// Zones that had their turn in this conversion.
    taken: BTreeSet<ZoneId>,
}

impl ZoneIds {
    /// A new conversion begins: each number may be used once more.
    pub(super) fn begin(&mut self) {
        self.taken.clear();
    }

    /// The number of a zone; `None` if all were given.
    pub(super) fn of(&mut self, names: Vec<&str>, upstreams: Vec<SocketAddr>) -> Option<ZoneId> {
        let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
        let upstreams: BTreeSet<SocketAddr> = upstreams.into_iter().collect();
        let mut identity = (names, upstreams, 0);
        loop {
            let next = self.given.len();
            match self.given.get(&identity) {
                Some(id) if self.taken.insert(*id) => return Some(*id),
                // A second block that is alike, on another address.
                Some(_) => identity.2 += 1,
                None => {
                    let id = ZoneId(u16::try_from(next).ok()?);
                    self.given.insert(identity, id);
                    self.taken.insert(id);
                    return Some(id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(last: u8) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([10, 0, 0, last], 53))]
    }

    #[test]
    fn m82_the_same_zone_keeps_its_number_and_another_never_gets_it() {
        let mut ids = ZoneIds::default();
        ids.begin();
        let first = ids.of(vec!["a.", "b."], upstream(1)).expect("a number");
        let other = ids.of(vec!["."], upstream(1)).expect("a number");
        assert_ne!(first, other);
        ids.begin();
        assert_eq!(ids.of(vec!["b.", "a."], upstream(1)), Some(first));
        let moved = ids.of(vec!["."], upstream(2)).expect("a number");
        assert!(moved != first && moved != other);
        ids.begin();
        assert_eq!(ids.of(vec!["."], upstream(1)), Some(other));
    }

    #[test]
    fn blocks_that_are_alike_differ() {
        let mut ids = ZoneIds::default();
        ids.begin();
        let first = ids.of(vec!["."], upstream(1)).expect("a number");
        let second = ids.of(vec!["."], upstream(1)).expect("a number");
        assert_ne!(first, second);
        ids.begin();
        assert_eq!(ids.of(vec!["."], upstream(1)), Some(first));
        assert_eq!(ids.of(vec!["."], upstream(1)), Some(second));
    }

    #[test]
    fn numbers_end_without_wrapping() {
        let mut ids = ZoneIds::default();
        ids.begin();
        for i in 0..=u16::MAX {
            assert_eq!(ids.of(vec![&i.to_string()], vec![]), Some(ZoneId(i)));
        }
        assert_eq!(ids.of(vec!["one more"], vec![]), None);
    }
}
