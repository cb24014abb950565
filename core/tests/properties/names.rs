//! Compressed names: read as hickory reads them, or refused.

use super::cases;
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use nodens_core::wire::{Header, Message, Question};
use proptest::prelude::*;

/// Where a question's name begins.
const QNAME: usize = 12;

/// A response to `qname` with one record of type A for each of `owners`; gives the message and where the owners stand.
fn message(qname: &[u8], owners: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = vec![0, 0, 0x80, 0, 0, 1, 0, owners.len() as u8, 0, 0, 0, 0];
    bytes.extend(qname);
    bytes.extend([0, 1, 0, 1]);
    let mut places = Vec::new();
    for owner in owners {
        places.push(bytes.len());
        bytes.extend(owner);
        bytes.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    }
    (bytes, places)
}

fn with_walk<R>(bytes: &[u8], look: impl FnOnce(Option<&Message<'_>>) -> R) -> R {
    let header = Header::read(bytes).expect("a header");
    let question = Question::read(bytes).expect("a question");
    look(Message::walk(bytes, header, question).ok().as_ref())
}

/// hickory's reading. It would follow pointers into the header, so it gets one that holds no names.
fn hickory(bytes: &[u8], at: usize) -> Option<Name> {
    let mut bytes = bytes.to_vec();
    bytes[..QNAME].fill(0x80);
    Name::read(&mut BinDecoder::new(&bytes).clone(at as u16)).ok()
}

fn written(labels: &[Vec<u8>]) -> Vec<u8> {
    labels.iter().flat_map(|label| [&[label.len() as u8], &label[..]].concat()).collect()
}

/// Labels of few letters in both cases, and of bytes that read as lengths and pointers into them.
fn labels(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let byte = prop_oneof![Just(b'a'), Just(b'A'), Just(0), Just(1), Just(0xc0), 12..24u8];
    prop::collection::vec(prop::collection::vec(byte, 1..7), count)
}

/// A name: labels, then the root or a pointer somewhere near.
fn owner() -> impl Strategy<Value = Vec<u8>> {
    (labels(0..3), prop::option::of(8..60u8)).prop_map(|(labels, pointer)| {
        let end = pointer.map_or(vec![0], |target| vec![0xc0, target]);
        [written(&labels), end].concat()
    })
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn a_name_is_accepted_if_and_only_if_hickory_reads_it(qlabels in labels(1..5), owner in owner()) {
        let qname = [written(&qlabels), vec![0]].concat();
        let (bytes, places) = message(&qname, &[owner]);
        // There is one record, so no name can be read out of the TTL of another, which only we refuse.
        let accepted = with_walk(&bytes, |message| message.is_some());
        prop_assert_eq!(accepted, hickory(&bytes, places[0]).is_some());
    }

    #[test]
    fn names_are_equal_and_above_each_other_as_hickory_says(
        qlabels in labels(1..5),
        owners in prop::collection::vec(owner(), 1..4),
    ) {
        let qname = [written(&qlabels), vec![0]].concat();
        let (bytes, mut places) = message(&qname, &owners);
        places.push(QNAME);
        with_walk(&bytes, |message| {
            let Some(message) = message else { return Ok(()) };
            let names: Vec<_> =
                places.iter().map(|at| hickory(&bytes, *at).expect("what we accept")).collect();
            for (a, one) in places.iter().zip(&names) {
                for (b, other) in places.iter().zip(&names) {
                    prop_assert_eq!(message.names_equal(*a, *b), one == other);
                    prop_assert_eq!(message.is_ancestor(*a, *b), one.zone_of(other));
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_pointer_to_itself_or_ahead_is_refused(qlabels in labels(1..4), llabels in labels(0..3), ahead in 0..10usize) {
        let qname = [written(&qlabels), vec![0]].concat();
        let prefix = written(&llabels);
        let start = QNAME + qname.len() + 4;
        // At its own name's first byte, at itself, or behind.
        for target in [start, start + prefix.len(), start + prefix.len() + ahead] {
            let owner = [&prefix[..], &(0xc000 | target as u16).to_be_bytes()].concat();
            let (bytes, _) = message(&qname, &[owner]);
            prop_assert!(with_walk(&bytes, |message| message.is_none()), "target {}", target);
        }
    }

    #[test]
    fn rfc1035_2_3_4_a_name_has_255_octets_at_most_however_it_is_written(
        own in 1..64usize,
        lengths in prop::collection::vec(1..64usize, 1..4),
    ) {
        let qname = [written(&lengths.iter().map(|len| vec![b'x'; *len]).collect::<Vec<_>>()), vec![0]].concat();
        // As many labels as make the whole just too long, and one octet less.
        let mut front = Vec::new();
        while front.len() + 1 + own + qname.len() <= 255 {
            front.push(own as u8);
            front.extend(vec![b'y'; own]);
        }
        let whole = front.len() + qname.len();
        let (fits, _) = message(&qname, &[[&front[..], &[0xc0, QNAME as u8]].concat()]);
        prop_assert!(with_walk(&fits, |message| message.is_some()), "{} octets", whole);
        let missing = 255 - whole;
        let more = [&[(missing.max(1)) as u8][..], &vec![b'z'; missing.max(1)], &front, &[0xc0, QNAME as u8]].concat();
        let (too_long, _) = message(&qname, &[more]);
        prop_assert!(with_walk(&too_long, |message| message.is_none()), "{} octets", whole + 1 + missing.max(1));
    }
}
