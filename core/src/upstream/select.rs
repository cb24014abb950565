//! In which order a lookup asks its zone's upstreams.

use super::{Upstream, Wellness};
use crate::config::{Policy, UpstreamId};
use crate::rng::Rng;
use smallvec::SmallVec;

/// Upstreams in the order in which to ask them.
pub type Order = SmallVec<[UpstreamId; 4]>;

/// The order for one lookup. `turn` is the zone's round-robin counter.
///
/// The policy decides among the equally well; those that are not well come last, because asking them first would cost every
/// client the patience for a hedge.
pub fn order(policy: Policy, zone: &[UpstreamId], all: &[Upstream], turn: &mut u32, rng: &mut Rng) -> Order {
    let mut order = Order::from_slice(zone);
    match policy {
        Policy::Sequential => {}
        Policy::Random => shuffle(&mut order, rng),
        Policy::LeastOutstanding => {
            shuffle(&mut order, rng);
            order.sort_by_key(|id| all.get(usize::from(id.0)).map_or(u32::MAX, |u| u.outstanding));
        }
        // As CoreDNS: the next in turn, then the others as configured.
        Policy::RoundRobin => {
            *turn = turn.wrapping_add(1);
            let first = *turn as usize % order.len();
            order[..=first].rotate_right(1);
        }
    }
    order.sort_by_key(|id| all.get(usize::from(id.0)).map_or(Wellness::Down, |u| u.health.wellness()));
    order
}

fn shuffle(order: &mut Order, rng: &mut Rng) {
    for last in (1..order.len()).rev() {
        order.swap(last, rng.below(last as u32 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamConfig;
    use crate::rng::Seed;
    use alloc::vec::Vec;

    fn setup() -> (Vec<UpstreamId>, Vec<Upstream>, Rng) {
        let address = "127.0.0.1:53".parse().expect("an address");
        let all = (0..3).map(|_| Upstream::new(UpstreamConfig::new(address))).collect();
        ((0..3).map(UpstreamId).collect(), all, Rng::new(&Seed([1; 32])))
    }

    fn ids(order: &Order) -> Vec<u16> {
        order.iter().map(|id| id.0 + 1).collect()
    }

    #[test]
    fn g01_round_robin_takes_the_next_then_the_others_as_configured() {
        let (zone, all, mut rng) = setup();
        let mut turn = 0;
        let mut next = || ids(&order(Policy::RoundRobin, &zone, &all, &mut turn, &mut rng));
        assert_eq!((next(), next(), next()), ([2, 1, 3].into(), [3, 1, 2].into(), [1, 2, 3].into()));
    }

    #[test]
    fn g02_random_starts_with_each_about_equally_often() {
        let (zone, all, mut rng) = setup();
        let mut firsts = [0; 3];
        for _ in 0..3000 {
            firsts[usize::from(order(Policy::Random, &zone, &all, &mut 0, &mut rng)[0].0)] += 1;
        }
        assert!(firsts.iter().all(|n| (900..1100).contains(n)), "{firsts:?}");
    }

    #[test]
    fn least_outstanding_is_what_it_says() {
        let (zone, mut all, mut rng) = setup();
        (all[0].outstanding, all[1].outstanding, all[2].outstanding) = (2, 0, 1);
        assert_eq!(ids(&order(Policy::LeastOutstanding, &zone, &all, &mut 0, &mut rng)), [2, 3, 1]);
    }

    #[test]
    fn those_that_are_not_well_come_last() {
        let (zone, mut all, mut rng) = setup();
        (0..3).for_each(|_| all[0].health.failed());
        all[1].health.failed();
        assert_eq!(ids(&order(Policy::Sequential, &zone, &all, &mut 0, &mut rng)), [3, 2, 1]);
    }
}
