//! Damaged copies of inputs from a fixed seed: what libFuzzer does, without its eyes.

use std::ops::Range;

/// A generator with a seed (SplitMix64), so that a failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// A place in `bytes`, its end included, and a few bytes from there on.
    fn range(&mut self, len: usize) -> Range<usize> {
        let start = self.below(len + 1);
        start..(start + self.below(16)).min(len)
    }
}

/// One to eight changes to one of `inputs`; `words` are inserted whole.
pub(crate) fn mutate(random: &mut Random, inputs: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(8) {
        let place = random.range(bytes.len());
        match random.below(9) {
            0 | 1 if place.start < bytes.len() => bytes[place.start] ^= 1 << random.below(8),
            2 if place.start < bytes.len() => bytes[place.start] = random.byte(),
            3 => bytes.insert(place.start, random.byte()),
            4 => drop(bytes.drain(place)),
            5 => bytes.truncate(place.end),
            // A pointer into the first hundred bytes.
            6 if place.start + 1 < bytes.len() => {
                bytes[place.start..place.start + 2].copy_from_slice(&[0xc0, random.below(100) as u8]);
            }
            7 => {
                let other = &inputs[random.below(inputs.len())];
                let copied = other[random.range(other.len())].to_vec();
                drop(bytes.splice(place, copied));
            }
            _ if !words.is_empty() => {
                let word = words[random.below(words.len())].clone();
                drop(bytes.splice(place.start..place.start, word));
            }
            _ => bytes.push(random.byte()),
        }
    }
    bytes
}
