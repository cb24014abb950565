//! Gradual rollout: a percentage of the owners, not of the Pods, so that one ReplicaSet's Pods are all alike. The same owner
//! falls on the same side on every replica and after every restart, and raising the percentage only adds owners.

/// Steps of the rollout.
const STEPS: u64 = 100;

/// Whether the owner with this UID belongs to the first `percent` of all.
pub fn admits(percent: u8, owner: &str) -> bool {
    mix(owner.bytes()) % STEPS < u64::from(percent)
}

/// FNV-1a, then the finalizer of splitmix64, without which UIDs that differ in their last digits only would cluster. Not
/// secret and not keyed: every replica and every version must agree.
pub(crate) fn mix(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let hash = bytes.into_iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(number: u32) -> String {
        format!("6f2c1f3e-7c1d-4a0e-9d7e-{number:012}")
    }

    #[test]
    fn the_share_is_as_asked_and_the_ends_are_exact() {
        for percent in [0_u8, 1, 10, 50, 99, 100] {
            let admitted = (0..20_000).filter(|&n| admits(percent, &uid(n))).count();
            let expected = usize::from(percent) * 200;
            // Five standard deviations of a binomial with 20 000 draws.
            assert!(admitted.abs_diff(expected) <= 354, "{percent} %: {admitted} of 20000");
            assert!(!matches!(percent, 0 | 100) || admitted == expected, "{percent} %: {admitted}");
        }
    }

    #[test]
    fn a_higher_percentage_only_adds_owners() {
        for owner in (0..500).map(uid) {
            let from = (0..=100).find(|&percent| admits(percent, &owner)).expect("100 % admits all");
            assert!((from..=100).all(|percent| admits(percent, &owner)), "{owner}");
        }
    }

    #[test]
    fn owners_keep_their_side_across_versions() {
        // Computed by another implementation, in Python; a change of the function would move owners while a rollout is under way.
        let first: Vec<u32> = (0..1_000).filter(|&n| admits(1, &uid(n))).take(3).collect();
        assert_eq!(first, FIRST_OF_ONE_PERCENT);
    }

    const FIRST_OF_ONE_PERCENT: [u32; 3] = [77, 131, 677];
}
