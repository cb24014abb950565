//! Chance: one 64-bit seed, and a child of it for each part of the world.
//!
//! Each part draws from its own stream, so that a new draw in one does not disturb the others. Probabilities are
//! ratios of integers: the same seed draws the same world on every machine. This is no cryptography; the
//! Forwarder's own seed is drawn here too, and its generator is the real one.

use nodens_core::Seed;

/// A stream of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Draw(u64);

/// How often something happens: `of` times out of `out_of`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Ratio {
    /// The cases in which it does.
    pub of: u32,
    /// All cases.
    pub out_of: u32,
}

/// The parts that have a stream of their own. The numbers are part of what a seed means: never give one to another part.
#[derive(Copy, Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Part {
    Options = 1,
    Questions = 2,
    Clients = 3,
    Upstreams = 4,
    Network = 5,
    Attacker = 6,
    Host = 7,
    Forwarders = 8,
    Cache = 9,
    Config = 10,
    Busy = 11,
    Recovery = 12,
}

impl Draw {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Draw(seed)
    }

    /// The stream of one part of the world that `seed` makes.
    pub fn part(seed: u64, part: Part) -> Self {
        Draw(mix(seed ^ mix(part as u64)))
    }

    /// A stream that grows from this one.
    pub fn child(&mut self) -> Self {
        Draw(self.bits())
    }

    /// 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply and shift: not exactly uniform, and no loop whose length depends on luck.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    #[inline]
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Whether it happens this time. A ratio of 0 draws nothing.
    #[inline]
    pub fn hit(&mut self, ratio: Ratio) -> bool {
        ratio.of > 0 && self.below(u64::from(ratio.out_of)) < u64::from(ratio.of)
    }

    /// Happens `of` times out of `out_of`.
    #[inline]
    pub fn chance(&mut self, of: u32, out_of: u32) -> bool {
        self.hit(Ratio { of, out_of })
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A number between 1 and `high` whose size is as likely to be small as large: each doubling equally often.
    pub fn skewed(&mut self, high: u64) -> u64 {
        let doublings = 64 - high.leading_zeros();
        let bits = self.below(u64::from(doublings)) as u32;
        let low = 1u64 << bits;
        self.between(low, (2 * low - 1).min(high))
    }

    /// A seed for a part of the core.
    pub fn seed(&mut self) -> Seed {
        let mut bytes = [0; 32];
        for chunk in bytes.as_chunks_mut::<8>().0 {
            *chunk = self.bits().to_le_bytes();
        }
        Seed(bytes)
    }
}

impl Ratio {
    /// So many in a thousand.
    pub const fn per_mille(of: u32) -> Self {
        Ratio { of, out_of: 1000 }
    }
}

/// The output function of splitmix64; also a good mixer for hashes.
#[inline]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_parts_differ() {
        let draw = |part| {
            let mut draw = Draw::part(7, part);
            [draw.bits(), draw.below(1000), draw.between(5, 9)]
        };
        assert_eq!(draw(Part::Clients), draw(Part::Clients));
        assert_ne!(draw(Part::Clients), draw(Part::Host));
    }

    #[test]
    fn ranges_are_reached_and_kept() {
        let mut draw = Draw::new(1);
        let seen = (0..1000).fold([false; 5], |mut seen, _| {
            seen[draw.between(3, 7) as usize - 3] = true;
            seen
        });
        assert_eq!(seen, [true; 5]);
        assert!((0..1000).all(|_| (1..=300).contains(&draw.skewed(300))));
        let hits = (0..10_000).filter(|_| draw.chance(1, 10)).count();
        assert!((900..1100).contains(&hits), "{hits}");
    }
}
