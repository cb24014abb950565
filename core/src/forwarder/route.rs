//! Which forward zone a name belongs to on one listener: the longest suffix wins.
//!
//! A name has few labels and a Corefile few zone depths, so one look-up per depth that occurs finds the zone, whatever
//! the number of zones.

use crate::config::Listener;
use crate::wire::{Name, rtype};
use alloc::vec::Vec;
use hashbrown::HashTable;

/// The zones of one listener.
#[derive(Debug)]
pub(super) struct RouteTable {
    routes: Vec<(Name, usize)>,
    by_name: HashTable<u32>,
    /// Label counts that occur, the largest first.
    depths: Vec<usize>,
}

/// A zone found: `route` is the place in the listener's list, `zone` the place in the configuration's.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct Found {
    pub(super) route: usize,
    pub(super) zone: usize,
}

/// Labels of the longest name.
const LABELS_MAX: usize = 128;

impl RouteTable {
    pub(super) fn new(listener: &Listener) -> Self {
        let routes: Vec<_> = listener.routes.iter().map(|r| (r.apex.clone(), r.zone)).collect();
        let mut depths: Vec<_> = routes.iter().map(|(apex, _)| apex.label_count()).collect();
        depths.sort_unstable_by(|a, b| b.cmp(a));
        depths.dedup();
        let mut by_name = HashTable::with_capacity(routes.len());
        for (index, (apex, _)) in routes.iter().enumerate() {
            by_name
                .insert_unique(hash(apex.as_wire()), index as u32, |i| hash(routes[*i as usize].0.as_wire()));
        }
        RouteTable { routes, by_name, depths }
    }

    /// How many zones there are; also the place in the statistics for names that no zone matches.
    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }

    /// The zone of `qname`, wire bytes in any spelling.
    ///
    /// DS records stand on the parent's side of a cut, so their queries go to the shortest match (RFC 4035 §3.1.4.1, and CoreDNS).
    #[inline]
    pub(super) fn find(&self, qname: &[u8], qtype: u16) -> Option<Found> {
        if let [0] = self.depths[..] {
            return Some(self.found(0));
        }
        let mut starts = [0u8; LABELS_MAX];
        let (mut labels, mut at) = (0, 0);
        while qname[at] != 0 {
            starts[labels] = at as u8;
            labels += 1;
            at += 1 + usize::from(qname[at]);
        }
        starts[labels] = at as u8;
        let match_at = |depth: &usize| {
            let suffix = &qname[usize::from(starts[labels.checked_sub(*depth)?])..];
            let same = |i: &u32| self.routes[*i as usize].0.as_wire().eq_ignore_ascii_case(suffix);
            self.by_name.find(hash(suffix), same).map(|i| self.found(*i as usize))
        };
        if qtype == rtype::DS {
            self.depths.iter().rev().find_map(match_at)
        } else {
            self.depths.iter().find_map(match_at)
        }
    }

    fn found(&self, route: usize) -> Found {
        Found { route, zone: self.routes[route].1 }
    }
}

/// FNV-1a over lower-cased bytes. The operator chooses the zones and look-ups insert nothing, so no secret is needed here.
fn hash(wire: &[u8]) -> u64 {
    wire.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Route;

    fn table(zones: &[&str]) -> RouteTable {
        let route = |(zone, name): (usize, &&str)| Route { apex: Name::parse(name).expect("a name"), zone };
        RouteTable::new(&Listener { routes: zones.iter().enumerate().map(route).collect() })
    }

    fn zone(table: &RouteTable, name: &str, qtype: u16) -> Option<usize> {
        table.find(Name::parse(name).expect("a name").as_wire(), qtype).map(|found| found.zone)
    }

    #[test]
    fn the_longest_suffix_wins() {
        let table = table(&[".", "cluster.local.", "a.cluster.local.", "10.in-addr.arpa."]);
        assert_eq!(zone(&table, "x.y.cluster.local", 1), Some(1));
        assert_eq!(zone(&table, "a.cluster.local", 1), Some(2));
        assert_eq!(zone(&table, "xa.cluster.local", 1), Some(1));
        assert_eq!(zone(&table, "1.10.in-addr.arpa", 12), Some(3));
        assert_eq!(zone(&table, "example.com", 1), Some(0));
        assert_eq!(zone(&table, ".", 1), Some(0));
        assert_eq!(table.find(b"\x01A\x07CLUSTER\x05Local\x00", 1).map(|f| f.zone), Some(2));
    }

    #[test]
    fn a_name_outside_all_zones_finds_none() {
        let table = table(&["cluster.local."]);
        assert_eq!(zone(&table, "local", 1), None);
        assert_eq!(zone(&table, "example.com", 1), None);
    }

    #[test]
    fn ds_goes_to_the_shortest_match() {
        let table = table(&["local.", "cluster.local."]);
        assert_eq!(zone(&table, "cluster.local", 43), Some(0));
    }

    #[test]
    fn the_deepest_name_has_room() {
        let name = [[1, b'a']; 127].concat();
        let mut wire = name;
        wire.push(0);
        assert_eq!(table(&["a.", "b."]).find(&wire, 1).map(|f| f.zone), Some(0));
    }
}
