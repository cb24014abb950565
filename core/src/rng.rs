//! Randomness that others cannot predict and we can repeat: ChaCha20 over a seed that the driver hands in once.
//!
//! Message IDs and source ports must be unpredictable to an off-path attacker (RFC 5452 §9.2); a simulation must
//! be able to draw the same ones again. A stream cipher keyed by the seed gives both. This is not a general
//! random-number library: 32-bit words, ranges, and child seeds are all the core needs.

/// What all randomness of one part grows from: 32 bytes of the driver's entropy (or of a simulation's seed).
#[derive(Clone)]
pub struct Seed(pub [u8; 32]);

impl core::fmt::Debug for Seed {
    /// Never prints the bytes: they would make the IDs predictable.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A ChaCha20 key stream (RFC 8439 §2.3) read as 32-bit words.
#[derive(Clone)]
pub struct Rng {
    state: [u32; 16],
    block: [u32; 16],
    used: usize,
}

impl core::fmt::Debug for Rng {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Rng(..)")
    }
}

impl Rng {
    /// The stream that belongs to `seed`.
    pub fn new(seed: &Seed) -> Self {
        let mut state = [0u32; 16];
        // "expand 32-byte k"
        state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (word, bytes) in state[4..12].iter_mut().zip(seed.0.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Rng { state, block: [0; 16], used: 16 }
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 16 {
            self.block = chacha20_block(&self.state);
            self.used = 0;
            // A 64-bit block counter: 2^70 bytes, more than a node will ever draw.
            let (low, carry) = self.state[12].overflowing_add(1);
            self.state[12] = low;
            self.state[13] = self.state[13].wrapping_add(u32::from(carry));
        }
        let word = self.block[self.used];
        self.used += 1;
        word
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// The next 16 bits: a message ID.
    pub fn next_u16(&mut self) -> u16 {
        (self.next_u32() >> 16) as u16
    }

    /// A number below `bound`, all equally likely. `bound` must not be zero.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "a range of nothing");
        // Rejection keeps the draw uniform: a bias here would be a gift to whoever guesses ports.
        let zone = u32::MAX - (u32::MAX - bound + 1) % bound;
        loop {
            let draw = self.next_u32();
            if draw <= zone {
                return draw % bound;
            }
        }
    }

    /// A seed for another part, so that its draws do not disturb ours.
    pub fn child(&mut self) -> Seed {
        let mut seed = [0; 32];
        for chunk in seed.as_chunks_mut::<4>().0 {
            *chunk = self.next_u32().to_le_bytes();
        }
        Seed(seed)
    }
}

fn chacha20_block(input: &[u32; 16]) -> [u32; 16] {
    let mut x = *input;
    for _ in 0..10 {
        quarter(&mut x, 0, 4, 8, 12);
        quarter(&mut x, 1, 5, 9, 13);
        quarter(&mut x, 2, 6, 10, 14);
        quarter(&mut x, 3, 7, 11, 15);
        quarter(&mut x, 0, 5, 10, 15);
        quarter(&mut x, 1, 6, 11, 12);
        quarter(&mut x, 2, 7, 8, 13);
        quarter(&mut x, 3, 4, 9, 14);
    }
    for (word, start) in x.iter_mut().zip(input) {
        *word = word.wrapping_add(*start);
    }
    x
}

fn quarter(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8439_2_3_2_block_function() {
        // Key 00..1f, counter 1, nonce 00:00:00:09:00:00:00:4a:00:00:00:00.
        let mut key = [0u8; 32];
        for (i, byte) in key.iter_mut().enumerate() {
            *byte = i as u8;
        }
        let mut rng = Rng::new(&Seed(key));
        rng.state[12..].copy_from_slice(&[1, 0x0900_0000, 0x4a00_0000, 0]);
        assert_eq!(rng.next_u32(), 0xe4e7_f110);
        assert_eq!(rng.next_u32(), 0x1559_3bd1);
        let last = (0..14).map(|_| rng.next_u32()).last();
        assert_eq!(last, Some(0x4e3c_50a2));
    }

    #[test]
    fn below_is_inside_its_range_and_reaches_all_of_it() {
        let mut rng = Rng::new(&Seed([7; 32]));
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[rng.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
    }

    #[test]
    fn a_child_differs_from_its_parent() {
        let mut parent = Rng::new(&Seed([1; 32]));
        let mut child = Rng::new(&parent.child());
        assert_ne!(child.next_u64(), parent.next_u64());
    }
}
