//! SipHash-1-3 under a secret key: where a question's shard and table slot come from.
//!
//! An unkeyed hash lets whoever chooses names choose collisions (semantics.md §4.1 row 1), so the key is drawn
//! once per process. One compression round and three at the end are what Rust's own maps use against the
//! same attack. The hash decides only *where* to look; identity is always the full compare of the key.

use crate::rng::{Rng, Seed};

/// The secret key of one cache.
#[derive(Clone)]
pub struct HashKeys {
    k0: u64,
    k1: u64,
}

impl core::fmt::Debug for HashKeys {
    /// Never prints the key: it would make collisions computable.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKeys(..)")
    }
}

impl HashKeys {
    /// The key that belongs to `seed`.
    pub fn new(seed: &Seed) -> Self {
        let mut rng = Rng::new(seed);
        HashKeys { k0: rng.next_u64(), k1: rng.next_u64() }
    }

    /// The 64-bit hash of `bytes`.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut v = [
            self.k0 ^ 0x736f_6d65_7073_6575,
            self.k1 ^ 0x646f_7261_6e64_6f6d,
            self.k0 ^ 0x6c79_6765_6e65_7261,
            self.k1 ^ 0x7465_6462_7974_6573,
        ];
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            absorb(&mut v, u64::from_le_bytes(*word));
        }
        let mut last = [0u8; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = bytes.len() as u8;
        absorb(&mut v, u64::from_le_bytes(last));
        v[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

#[inline]
fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    v[0] ^= word;
}

#[inline]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::hash::Hasher as _;

    /// The standard library still ships SipHash-1-3 behind its (deprecated) `DefaultHasher`, keyed with zeroes.
    #[test]
    fn agrees_with_the_standard_library_for_the_zero_key() {
        let keys = HashKeys { k0: 0, k1: 0 };
        for len in 0..64u8 {
            let bytes: std::vec::Vec<u8> = (0..len).collect();
            let mut std_hasher = std::hash::DefaultHasher::new();
            std_hasher.write(&bytes);
            assert_eq!(keys.hash(&bytes), std_hasher.finish(), "{len} bytes");
        }
    }

    #[test]
    fn another_key_gives_another_hash() {
        let a = HashKeys::new(&Seed([1; 32])).hash(b"kubernetes");
        let b = HashKeys::new(&Seed([2; 32])).hash(b"kubernetes");
        assert_ne!(a, b);
    }
}
