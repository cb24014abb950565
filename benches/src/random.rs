//! Chance from a seed, so that two runs ask the same questions: SplitMix64, and Zipf's law over a small set.

/// A generator; good enough to spread questions, for nothing else.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// Ranks drawn by Zipf's law with exponent 1: rank k (from 0) comes 1/(k+1) as often as rank 0.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// Up to and including each rank, scaled to the whole range of 32 bits.
    cumulative: Box<[u32]>,
}

impl Zipf {
    /// Over this many ranks, at least one.
    pub fn new(ranks: usize) -> Self {
        let total: f64 = (1..=ranks).map(|k| 1.0 / k as f64).sum();
        let mut sum = 0.0;
        let cumulative = (1..=ranks)
            .map(|k| {
                sum += 1.0 / k as f64;
                (sum / total * f64::from(u32::MAX)) as u32
            })
            .collect();
        Zipf { cumulative }
    }

    /// Draws a rank.
    pub fn draw(&self, random: &mut Random) -> usize {
        let point = (random.bits() >> 32) as u32;
        self.cumulative.partition_point(|&up_to| up_to < point).min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_the_law() {
        let (zipf, mut random) = (Zipf::new(100), Random::new(1));
        let mut counts = [0u32; 100];
        (0..200_000).for_each(|_| counts[zipf.draw(&mut random)] += 1);
        // 1/H(100) of 200 000 is 38 555.
        for (rank, expected) in [(0, 38_555.0), (1, 19_277.0), (9, 3_855.0), (99, 385.0)] {
            let ratio = f64::from(counts[rank]) / expected;
            assert!((0.8..1.25).contains(&ratio), "rank {rank}: {} instead of {expected}", counts[rank]);
        }
    }

    #[test]
    fn a_seed_repeats_and_bounds_hold() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        assert!((0..1000).all(|_| one.bits() == other.bits() && one.below(3) < 3 && other.below(3) < 3));
    }
}
