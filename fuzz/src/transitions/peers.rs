//! What upstreams say: good answers that are signed, and such as must not be believed.

use crate::input::Input;
use crate::oracle::{plain_question, type_and_class};
use nodens_core::PathEvent;

/// Everything that can be reported of a path.
pub(super) const EVENTS: [PathEvent; 5] = [
    PathEvent::Connected,
    PathEvent::PortTaken,
    PathEvent::Refused,
    PathEvent::Closed,
    PathEvent::LocalFailure,
];
/// The first byte of a forged answer's data; a good one's has three bits at most.
pub(super) const FORGED: u8 = 0xee;
/// TTLs of answers, in seconds.
const TTLS_S: [u32; 5] = [30, 0, 1, 7, 100_000];

/// What an upstream said.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    /// It passes validation.
    pub(super) good: bool,
    /// The TTL of its records.
    pub(super) ttl_s: u32,
}

/// In a signature: the query had no OPT. Who refuses ours is asked without, and then DO cannot be said.
const NO_OPT: u8 = 0x04;

/// Four bytes that say what an answer was made for, and which it is: DO and CD, a sum over name and type, its version.
fn signature(question: &[u8], do_bit: Option<bool>, cd: bool, version: u16) -> [u8; 4] {
    let sum = question.iter().fold(7u8, |sum, byte| sum.wrapping_mul(31) ^ byte.to_ascii_lowercase());
    let [high, low] = version.to_be_bytes();
    let what = do_bit.map_or(NO_OPT, u8::from) | u8::from(cd) << 1;
    [what, sum, high, low]
}

/// Whether signed data was made for a question with these bits.
pub(super) fn is_made_for(data: &[u8], question: &[u8], do_bit: bool, cd: bool, version: u16) -> bool {
    [Some(do_bit), None].into_iter().any(|do_bit| data == signature(question, do_bit, cd, version))
}

/// Whether a query has an OPT, and that one's DO bit: ours and our clients' have no other record.
pub(super) fn do_bit(query: &[u8], question: &[u8]) -> Option<bool> {
    (query[11] == 1).then(|| query[12 + question.len() + 7] & 0x80 != 0)
}

/// The answer to `query` that the bytes choose; for the zero byte it is a good one with data.
pub(super) fn reply(input: &mut Input<'_>, query: &[u8], version: u16) -> Reply {
    let question = plain_question(query).expect("our queries are sound");
    let choices = input.byte();
    let kind = choices % 16;
    let ttl_s = TTLS_S[usize::from(choices / 16) % TTLS_S.len()];
    let opt = do_bit(query, &question);
    let cd = query[3] & 0x10 != 0;
    let mut bytes =
        [&query[..2], &[0x80 | query[2] & 1, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], &question[..]].concat();
    let mut signed = signature(&question, opt, cd, version);
    if matches!(kind, 10..=15) {
        signed[0] = FORGED;
    }
    match kind {
        // NXDOMAIN, NODATA
        1 | 2 => {
            bytes[3] |= if kind == 1 { 3 } else { 0 };
            soa(&mut bytes, ttl_s, signed);
        }
        // SERVFAIL, REFUSED, FORMERR, NOTIMP
        3 => bytes[3] |= 2,
        4 => bytes[3] |= 5,
        5 => bytes[3] |= 1,
        6 => bytes[3] |= 4,
        // Truncated, with half a record.
        7 => {
            bytes[2] |= 2;
            bytes[7] = 1;
            bytes.extend([0xc0, 12, 0]);
        }
        // More than fits into 512 bytes.
        8 => (0..60).for_each(|_| answer(&mut bytes, &question, ttl_s, signed)),
        _ => answer(&mut bytes, &question, ttl_s, signed),
    }
    // An OPT, but not with the FORMERR that says that there should be none.
    if opt.is_some() && !matches!(kind, 5 | 7) {
        bytes[11] += 1;
        bytes.extend([0, 0, 41, 4, 208, 0, 0, query[12 + question.len() + 7] & 0x80, 0, 0, 0]);
    }
    match kind {
        // The question in another spelling is the same question.
        9 => bytes[12..12 + question.len() - 4].make_ascii_uppercase(),
        10 => bytes[0] ^= 0x55,
        11 => bytes[12 + question.len() - 4] ^= 0x40,
        12 => bytes[2] &= 0x7f,
        13 => bytes[2] |= 0x10,
        14 => bytes[7] = 200,
        15 => bytes.truncate(11),
        _ => {}
    }
    Reply { bytes, good: kind < 10, ttl_s }
}

fn count(bytes: &mut [u8], at: usize) {
    bytes[at] += 1;
}

fn answer(bytes: &mut Vec<u8>, question: &[u8], ttl_s: u32, signed: [u8; 4]) {
    let (qtype, _) = type_and_class(question);
    count(bytes, 7);
    bytes.extend([0xc0, 12]);
    // A probe asks for NS, which holds a name.
    let rtype = if qtype == 2 { 1 } else { qtype };
    bytes.extend(rtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl_s.to_be_bytes());
    bytes.extend([0, 4]);
    bytes.extend(signed);
}

/// The root's SOA; the signature is its serial.
fn soa(bytes: &mut Vec<u8>, ttl_s: u32, signed: [u8; 4]) {
    count(bytes, 9);
    bytes.extend([0, 0, 6, 0, 1]);
    bytes.extend(ttl_s.to_be_bytes());
    bytes.extend([0, 22, 0, 0]);
    bytes.extend(signed);
    bytes.extend([0; 12]);
    bytes.extend(ttl_s.to_be_bytes());
}
