//! Lifetimes: the least TTL between the clamps, never more, and falling by the second.

use super::{cases, walk};
use crate::world::{World, config};
use nodens_core::cache::{Judgement, Kind, judge};
use nodens_core::config::{CacheRules, KindRules};
use nodens_testkit::{Query, Response};
use proptest::prelude::*;

/// Some day in 2026; only signatures would depend on it.
const TODAY: u64 = 1_790_000_000;

/// TTLs near the numbers that rules turn on, and any.
fn ttl() -> impl Strategy<Value = u32> {
    prop_oneof![0..8u32, 3598..3602u32, (1u32 << 31) - 2..(1 << 31) + 2, any::<u32>()]
}

/// RFC 2181 §8.
fn as_read(ttl: u32) -> u32 {
    if ttl >> 31 == 1 { 0 } else { ttl }
}

fn clamps() -> impl Strategy<Value = KindRules> {
    (prop_oneof![0..10u32, any::<u32>()], prop_oneof![0..10u32, 3600..7200u32])
        .prop_map(|(ttl_min_s, ttl_max_s)| KindRules { entries_max: 10, ttl_max_s, ttl_min_s })
}

fn clamped(natural: u32, clamp: KindRules) -> u32 {
    natural.max(clamp.ttl_min_s).min(clamp.ttl_max_s)
}

fn positive(ttls: &[u32]) -> Response {
    let query = Query::new("www.example.", "A").bytes();
    ttls.iter().enumerate().fold(Response::to(&query), |response, (n, ttl)| match n % 3 {
        0 => response.answer(&format!("@ {ttl} IN A 192.0.2.1")),
        1 => response.authority(&format!("example. {ttl} IN NS ns.example.")),
        _ => response.additional(&format!("ns.example. {ttl} IN A 192.0.2.2")),
    })
}

/// The kind and lifetime of what is kept; 0 if it is not.
fn kept(response: &Response, rules: &CacheRules) -> (Option<Kind>, u32) {
    match judge(&walk(&response.bytes()), rules, TODAY) {
        Judgement::Keep { kind, ttl_s } => (Some(kind), ttl_s),
        Judgement::Relay => (None, 0),
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_positive_answer_lives_for_its_least_ttl_between_the_clamps(
        ttls in prop::collection::vec(ttl(), 1..12),
        success in clamps(),
    ) {
        let rules = CacheRules { success, ..CacheRules::coredns() };
        let least = ttls.iter().map(|ttl| as_read(*ttl)).min().unwrap_or(0);
        let (kind, ttl_s) = kept(&positive(&ttls), &rules);
        prop_assert_eq!(ttl_s, clamped(least, success));
        prop_assert_eq!(kind.is_some(), ttl_s > 0);
    }

    #[test]
    fn rfc2308_5_a_negative_answer_lives_for_the_lesser_of_soa_ttl_and_minimum_between_the_clamps(
        soa_ttl in ttl(),
        minimum in ttl(),
        nxdomain in any::<bool>(),
        denial in clamps(),
    ) {
        let rules = CacheRules { denial, ..CacheRules::coredns() };
        let response = Response::to(&Query::new("www.example.", "A").bytes())
            .rcode(if nxdomain { 3 } else { 0 })
            .authority(&format!("example. {soa_ttl} IN SOA a. b. 1 2 3 4 {minimum}"));
        let (kind, ttl_s) = kept(&response, &rules);
        prop_assert_eq!(ttl_s, clamped(as_read(soa_ttl).min(as_read(minimum)), denial));
        let wanted = if nxdomain { Kind::NxDomain } else { Kind::NoData };
        prop_assert_eq!(kind, (ttl_s > 0).then_some(wanted));
    }

    #[test]
    fn a_longer_ttl_never_shortens_a_life(
        ttls in prop::collection::vec(0..5000u32, 1..8),
        which in any::<prop::sample::Index>(),
        more in 1..5000u32,
    ) {
        let rules = CacheRules::coredns();
        let mut longer = ttls.clone();
        longer[which.index(ttls.len())] += more;
        prop_assert!(kept(&positive(&longer), &rules).1 >= kept(&positive(&ttls), &rules).1);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_ttl_falls_with_each_second_and_ends_with_the_last(
        ttl_s in 1..4000u32,
        mut moments_ms in prop::collection::vec(0..4_100_000u64, 1..12),
    ) {
        moments_ms.sort_unstable();
        let lifetime_s = u64::from(clamped(ttl_s, CacheRules::coredns().success));
        let mut world = World::new(config(1));
        let query = Query::new("www.example.", "A");
        prop_assert!(world.ask(World::client(1), &query).is_none());
        let sent = world.next_sent();
        let answer = sent.reply().answer(&format!("@ {ttl_s} IN A 192.0.2.1"));
        world.deliver(&sent, &answer.bytes()).expect("accepted");
        prop_assert_eq!(world.only_answer().min_answer_ttl().map(u64::from), Some(lifetime_s));
        let start = world.now;
        for at_ms in moments_ms {
            world.pass_ms(at_ms - (world.now - start).as_millis() as u64);
            let hit = world.ask(World::client(2), &query);
            if at_ms >= 1000 * lifetime_s {
                prop_assert!(hit.is_none(), "{} ms after an answer for {} s", at_ms, lifetime_s);
                break;
            }
            let left_s = hit.expect("a hit").min_answer_ttl().map(u64::from);
            prop_assert_eq!(left_s, Some(lifetime_s - at_ms / 1000));
        }
    }
}
