//! The order in which upstreams are asked: always all of them, each once, the well before the others.
//!
//! The records of an answer are not rotated by the core, so there is no rule for that here.

use super::cases;
use nodens_core::config::{Policy, UpstreamConfig};
use nodens_core::rng::Rng;
use nodens_core::upstream::{Upstream, Wellness, order};
use nodens_core::{Seed, UpstreamId};
use proptest::prelude::*;

/// An upstream of a wellness, with so many queries out.
fn upstream((wellness, outstanding): (u8, u32)) -> Upstream {
    let address = "192.0.2.1:53".parse().expect("an address");
    let mut upstream = Upstream::new(UpstreamConfig::new(address));
    // One failure makes suspect, more than two make down.
    (0..wellness * 3 / 2).for_each(|_| upstream.health.failed());
    upstream.outstanding = outstanding;
    upstream
}

fn upstreams() -> impl Strategy<Value = Vec<Upstream>> {
    prop::collection::vec((0..3u8, 0..4u32), 1..16).prop_map(|all| all.into_iter().map(upstream).collect())
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::Sequential),
        Just(Policy::Random),
        Just(Policy::RoundRobin),
        Just(Policy::LeastOutstanding),
    ]
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn every_order_names_each_upstream_once_and_the_well_first(
        all in upstreams(),
        policy in policy(),
        mut turn in any::<u32>(),
        seed in any::<u8>(),
    ) {
        let zone: Vec<_> = (0..all.len() as u16).map(UpstreamId).collect();
        let order = order(policy, &zone, &all, &mut turn, &mut Rng::new(&Seed([seed; 32])));
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        prop_assert_eq!(&sorted, &zone);
        let of = |id: &UpstreamId| &all[usize::from(id.0)];
        let wellness: Vec<Wellness> = order.iter().map(|id| of(id).health.wellness()).collect();
        prop_assert!(wellness.is_sorted(), "{:?}", wellness);
        for pair in order.windows(2).filter(|pair| of(&pair[0]).health.wellness() == of(&pair[1]).health.wellness()) {
            match policy {
                Policy::Sequential => prop_assert!(pair[0] < pair[1]),
                Policy::LeastOutstanding => prop_assert!(of(&pair[0]).outstanding <= of(&pair[1]).outstanding),
                Policy::Random | Policy::RoundRobin => {}
            }
        }
    }

    #[test]
    fn g01_round_robin_gives_each_the_first_place_equally_often_wherever_it_begins(
        count in 1..16usize,
        // Not across the end of the counter, after 4 billion lookups: there one turn is lost.
        mut turn in 0..u32::MAX - 1000,
        rounds in 1..8usize,
    ) {
        let all: Vec<_> = (0..count).map(|_| upstream((0, 0))).collect();
        let zone: Vec<_> = (0..count as u16).map(UpstreamId).collect();
        let mut rng = Rng::new(&Seed([1; 32]));
        let mut firsts = vec![0; count];
        for _ in 0..rounds * count {
            firsts[usize::from(order(Policy::RoundRobin, &zone, &all, &mut turn, &mut rng)[0].0)] += 1;
        }
        prop_assert_eq!(firsts, vec![rounds; count]);
    }
}
