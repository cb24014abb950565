//! Keys: equal if and only if zone, type, class, DO, CD and the name without case are (semantics.md R1).

use super::cases;
use nodens_core::cache::{Key, KeyFields};
use nodens_core::hash::HashKeys;
use nodens_core::wire::Question;
use nodens_core::{Seed, ZoneId};
use proptest::prelude::*;

/// What a key is made from.
#[derive(Clone, Eq, PartialEq, Debug)]
struct Parts {
    qname: Vec<u8>,
    qtype: u16,
    qclass: u16,
    zone: u16,
    do_bit: bool,
    cd: bool,
}

impl Parts {
    /// With the name in lower case: what two equal keys have in common.
    fn canonical(&self) -> Parts {
        Parts { qname: self.qname.to_ascii_lowercase(), ..self.clone() }
    }

    fn key(&self) -> Key {
        let mut message = vec![0; 12];
        message.extend(&self.qname);
        message.extend(self.qtype.to_be_bytes());
        message.extend(self.qclass.to_be_bytes());
        let fields = KeyFields { zone: ZoneId(self.zone), do_bit: self.do_bit, cd: self.cd };
        Key::new(&HashKeys::new(&Seed([3; 32])), fields, &Question::read(&message).expect("a question"))
    }
}

/// Names of few letters, so that equal ones are drawn; bytes beyond ASCII, whose case is none.
fn qname() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'a'), Just(b'A'), Just(b'@'), Just(b'`'), Just(0xe9), Just(0xc9), Just(0)];
    let label = prop::collection::vec(byte, 1..3);
    prop::collection::vec(label, 0..3).prop_map(|labels| {
        labels.iter().flat_map(|label| [&[label.len() as u8], &label[..]].concat()).chain([0]).collect()
    })
}

fn parts() -> impl Strategy<Value = Parts> {
    let number = || prop_oneof![Just(0u16), Just(1), Just(256), Just(0x4141), Just(0x6161)];
    (qname(), number(), number(), number(), any::<bool>(), any::<bool>())
        .prop_map(|(qname, qtype, qclass, zone, do_bit, cd)| Parts { qname, qtype, qclass, zone, do_bit, cd })
}

/// Another one, or the same but for one part, or the same in another spelling.
fn two() -> impl Strategy<Value = (Parts, Parts)> {
    (parts(), parts(), 0..8).prop_map(|(one, other, which)| {
        let mut two = one.clone();
        match which {
            0 => two = other,
            1 => two.qtype = other.qtype,
            2 => two.qclass = other.qclass,
            3 => two.zone = other.zone,
            4 => two.do_bit = other.do_bit,
            5 => two.cd = other.cd,
            6 => two.qname = other.qname,
            _ => two.qname.make_ascii_uppercase(),
        }
        (one, two)
    })
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn r01_two_keys_are_equal_if_and_only_if_their_parts_are_but_for_case((one, two) in two()) {
        let same = one.canonical() == two.canonical();
        let (a, b) = (one.key(), two.key());
        prop_assert_eq!(a.as_bytes() == b.as_bytes(), same);
        // 64 bits: two different keys of one run do not meet.
        prop_assert_eq!(a.hash() == b.hash(), same);
    }

    #[test]
    fn a_key_tells_what_it_was_made_from(parts in parts()) {
        let key = parts.key();
        let canonical = parts.canonical();
        prop_assert_eq!(key.qname(), &canonical.qname[..]);
        prop_assert_eq!((key.qtype(), key.qclass(), key.zone()), (parts.qtype, parts.qclass, ZoneId(parts.zone)));
        prop_assert_eq!((key.do_bit(), key.cd()), (parts.do_bit, parts.cd));
    }
}
