//! What an answer is filed under (semantics.md R1).
//!
//! Zone, type, class, DO and CD, and the name in canonical wire form. Not in the key: ID, AD, transport, EDNS size, options
//! and the client's spelling. The bytes are the identity; the hash only says where to look.

use crate::config::ZoneId;
use crate::hash::HashKeys;
use crate::sim_support::{Fault, planted};
use crate::wire::{NAME_LEN_MAX, Name, Question};

/// Bytes before the name: zone, type, class, flags.
const PREFIX_LEN: usize = 7;
const DO: u8 = 1;
const CD: u8 = 2;

/// The parts of a key that are not the question's name.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct KeyFields {
    /// The forward zone the answer belongs to.
    pub zone: ZoneId,
    /// DNSSEC records are wanted.
    pub do_bit: bool,
    /// Validation by the upstream is not wanted.
    pub cd: bool,
}

/// A key with its hash, built on the stack from the client's question.
#[derive(Clone)]
pub struct Key {
    hash: u64,
    len: u16,
    bytes: [u8; PREFIX_LEN + NAME_LEN_MAX],
}

impl Key {
    /// The key of `question` in `zone`.
    pub fn new(keys: &HashKeys, fields: KeyFields, question: &Question<'_>) -> Self {
        let qname = question.qname();
        let mut bytes = [0; PREFIX_LEN + NAME_LEN_MAX];
        let zone = if planted(Fault::ZoneNotInKey) { 0 } else { fields.zone.0 };
        bytes[..2].copy_from_slice(&zone.to_be_bytes());
        bytes[2..4].copy_from_slice(&question.qtype.to_be_bytes());
        bytes[4..6].copy_from_slice(&question.qclass.to_be_bytes());
        let do_bit = fields.do_bit && !planted(Fault::DoNotInKey);
        let cd = fields.cd && !planted(Fault::CdNotInKey);
        bytes[6] = if do_bit { DO } else { 0 } | if cd { CD } else { 0 };
        let len = PREFIX_LEN + qname.len();
        let name = &mut bytes[PREFIX_LEN..len];
        name.copy_from_slice(qname);
        name.make_ascii_lowercase();
        Key { hash: keys.hash(&bytes[..len]), len: len as u16, bytes }
    }

    /// Where to look.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The identity.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The canonical name's wire bytes.
    pub fn qname(&self) -> &[u8] {
        &self.bytes[PREFIX_LEN..usize::from(self.len)]
    }

    /// The type asked for.
    pub fn qtype(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// The class asked for.
    pub fn qclass(&self) -> u16 {
        u16::from_be_bytes([self.bytes[4], self.bytes[5]])
    }

    /// The zone.
    pub fn zone(&self) -> ZoneId {
        ZoneId(u16::from_be_bytes([self.bytes[0], self.bytes[1]]))
    }

    /// Whether DNSSEC records are wanted.
    pub fn do_bit(&self) -> bool {
        self.bytes[6] & DO != 0
    }

    /// Whether the upstream's validation is not wanted.
    pub fn cd(&self) -> bool {
        self.bytes[6] & CD != 0
    }

    /// The name as an owned value.
    pub fn name(&self) -> Name {
        Name::from_wire(self.qname())
    }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} TYPE{} in zone {}", self.name(), self.qtype(), self.zone().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;
    use alloc::vec::Vec;

    fn key(qname: &[u8], qtype: u16, qclass: u16, zone: u16, do_bit: bool, cd: bool) -> Key {
        let bytes = [qname, &qtype.to_be_bytes(), &qclass.to_be_bytes()].concat();
        let mut message = Vec::from([0u8; 12]);
        message.extend(&bytes);
        let question = Question::read(&message).expect("a question");
        Key::new(&HashKeys::new(&Seed([3; 32])), KeyFields { zone: ZoneId(zone), do_bit, cd }, &question)
    }

    #[test]
    fn a42_b01_to_b05_each_part_separates() {
        let base = key(b"\x01a\x00", 1, 1, 0, false, false);
        let others = [
            key(b"\x01b\x00", 1, 1, 0, false, false),
            key(b"\x01a\x00", 28, 1, 0, false, false),
            key(b"\x01a\x00", 1, 3, 0, false, false),
            key(b"\x01a\x00", 1, 1, 1, false, false),
            key(b"\x01a\x00", 1, 1, 0, true, false),
            key(b"\x01a\x00", 1, 1, 0, false, true),
        ];
        for other in others {
            assert_ne!(other.as_bytes(), base.as_bytes());
            assert_ne!(other.hash(), base.hash());
        }
    }

    #[test]
    fn b21_spelling_does_not_separate() {
        let a = key(b"\x03wWw\x01A\x00", 1, 1, 0, false, false);
        let b = key(b"\x03WwW\x01a\x00", 1, 1, 0, false, false);
        assert_eq!((a.as_bytes(), a.hash()), (b.as_bytes(), b.hash()));
    }

    #[test]
    fn rfc4343_only_ascii_letters_are_folded() {
        let a = key(b"\x02\xc3\xa9\x00", 1, 1, 0, false, false);
        let b = key(b"\x02\xc3\x89\x00", 1, 1, 0, false, false);
        assert_ne!(a.as_bytes(), b.as_bytes());
    }
}
