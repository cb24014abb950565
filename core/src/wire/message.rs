//! A whole message, walked once and checked everywhere (reliability.md §2.3, V8 and V9).
//!
//! The walk visits every record, checks every name it may have to follow and every length, and remembers where things
//! are. What it does not know it leaves alone: RDATA of types that came after RFC 1035 never holds pointers (RFC 3597
//! §4), so it is opaque.

use super::edns::Edns;
use super::header::{HEADER_LEN, Header, get_u16, get_u32};
use super::name::skip_name;
use super::query::Question;
use core::ops::Range;
use smallvec::SmallVec;

/// Record types that the core must know by number.
pub mod rtype {
    #![allow(missing_docs)]
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const SIG: u16 = 24;
    pub const SRV: u16 = 33;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const TSIG: u16 = 250;
    pub const ANY: u16 = 255;
}

/// The sections that hold records.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub enum Section {
    /// Answer.
    Answer = 0,
    /// Authority.
    Authority = 1,
    /// Additional.
    Additional = 2,
}

/// One record, by offsets into its message.
#[derive(Copy, Clone, Debug)]
pub struct Record {
    /// Where its owner name begins.
    pub owner: usize,
    /// Its section.
    pub section: Section,
    /// Its type.
    pub rtype: u16,
    /// Its class.
    pub class: u16,
    /// Where its TTL is.
    pub ttl_at: usize,
    /// Its TTL in seconds; a set top bit reads as 0 (RFC 2181 §8).
    pub ttl_s: u32,
    /// Where it ends; its RDATA begins 6 bytes after `ttl_at`.
    pub end: usize,
    /// Where the bytes end that its compressed names are read from; 0 if it has none.
    pub reaches: usize,
}

impl Record {
    /// Where its RDATA begins.
    pub fn rdata(&self) -> usize {
        self.ttl_at + 6
    }
}

/// What makes a message unusable.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum MessageFault {
    /// A count, name, length or record that does not fit.
    Malformed,
    /// Two OPT records, an OPT outside the additional section, or EDNS version other than 0.
    BadOpt,
}

/// A checked message.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// All bytes, those after the last record included.
    pub bytes: &'a [u8],
    /// The header.
    pub header: Header,
    /// The only question.
    pub question: Question<'a>,
    /// All records but OPT, in order.
    pub records: SmallVec<[Record; 12]>,
    /// The OPT record and the range of its bytes.
    pub opt: Option<(Edns, Range<usize>)>,
    /// Where the last record ends.
    pub end: usize,
}

impl<'a> Message<'a> {
    /// Walks a message whose question has been read already.
    pub fn walk(
        bytes: &'a [u8],
        header: Header,
        question: Question<'a>,
    ) -> Result<Message<'a>, MessageFault> {
        let [_, answers, authorities, additionals] = header.counts;
        let mut at = HEADER_LEN + question.bytes.len();
        let total = usize::from(answers) + usize::from(authorities) + usize::from(additionals);
        // A record takes 11 bytes at least: what promises more than fits is refused before anything is reserved.
        if total > bytes.len().saturating_sub(at) / 11 {
            return Err(MessageFault::Malformed);
        }
        let mut message = Message { bytes, header, question, records: SmallVec::new(), opt: None, end: at };
        let sections = [
            (Section::Answer, answers),
            (Section::Authority, authorities),
            (Section::Additional, additionals),
        ];
        for (section, count) in sections {
            for _ in 0..count {
                let record =
                    walk_record(bytes, at, section, &message.records).ok_or(MessageFault::Malformed)?;
                if record.rtype == rtype::OPT {
                    message.take_opt(at, &record)?;
                } else {
                    message.records.push(record);
                }
                at = record.end;
            }
        }
        message.end = at;
        Ok(message)
    }

    fn take_opt(&mut self, at: usize, record: &Record) -> Result<(), MessageFault> {
        // The TTL field of an OPT holds flags, so it is read raw, without the rule for top bits.
        let edns = Edns::from_fields(record.class, get_u32(self.bytes, record.ttl_at));
        let owner_is_root = self.bytes[at] == 0;
        if self.opt.is_some() || record.section != Section::Additional || !owner_is_root || edns.version != 0
        {
            return Err(MessageFault::BadOpt);
        }
        self.opt = Some((edns, at..record.end));
        Ok(())
    }

    /// The RCODE, with the OPT record's eight bits above the header's four.
    pub fn rcode(&self) -> super::Rcode {
        let high = self.opt.as_ref().map_or(0, |(edns, _)| u16::from(edns.rcode_high));
        super::Rcode(high << 4 | self.header.flags.rcode_low())
    }

    /// The records of one section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &Record> + Clone {
        self.records.iter().filter(move |record| record.section == section)
    }

    /// Whether the names at two offsets are equal, ASCII case aside.
    pub fn names_equal(&self, a: usize, b: usize) -> bool {
        super::names_equal(self.bytes, a, b)
    }

    /// Whether the name at `ancestor` is the name at `name` or above it.
    pub fn is_ancestor(&self, ancestor: usize, name: usize) -> bool {
        super::name::is_ancestor(self.bytes, ancestor, name)
    }
}

fn walk_record(bytes: &[u8], at: usize, section: Section, before: &[Record]) -> Option<Record> {
    let mut jumps = Jumps { before, own_ttl: 0..0, reaches: 0, into_ttl: false };
    let fixed = skip_name(bytes, at, |run| jumps.note(&run))?;
    jumps.own_ttl = fixed + 4..fixed + 8;
    if bytes.len() < fixed + 10 {
        return None;
    }
    let rtype = get_u16(bytes, fixed);
    let rdata = fixed + 10;
    let end = rdata + usize::from(get_u16(bytes, fixed + 8));
    if end > bytes.len() {
        return None;
    }
    if let Some(name) = names_in_rdata(rtype) {
        // Names may not run past their RDATA, so the message is cut there for the check.
        let inside = &bytes[..end];
        let mut pos = rdata + name.skip;
        for _ in 0..name.count {
            pos = skip_name(inside, pos, |run| jumps.note(&run))?;
        }
        if pos + name.rest != end {
            return None;
        }
    }
    if jumps.into_ttl {
        return None;
    }
    let ttl = get_u32(bytes, fixed + 4);
    let ttl_s = if ttl > i32::MAX as u32 { 0 } else { ttl };
    let class = get_u16(bytes, fixed + 2);
    Some(Record { owner: at, section, rtype, class, ttl_at: fixed + 4, ttl_s, end, reaches: jumps.reaches })
}

/// What a record's compression pointers lead to.
struct Jumps<'a> {
    before: &'a [Record],
    /// Where the record's own TTL is, which names in its RDATA could point to.
    own_ttl: Range<usize>,
    reaches: usize,
    /// A label is read out of a TTL: no encoder does that, and the name would change when the TTL does.
    into_ttl: bool,
}

impl Jumps<'_> {
    fn note(&mut self, run: &Range<usize>) {
        self.reaches = self.reaches.max(run.end);
        let next = self.before.partition_point(|record| record.ttl_at + 4 <= run.start);
        self.into_ttl |= self.before.get(next).is_some_and(|record| record.ttl_at < run.end)
            || run.start < self.own_ttl.end && self.own_ttl.start < run.end;
    }
}

/// Where names stand in the RDATA of a type: after `skip` bytes, `count` of them, then `rest` bytes.
struct NamesIn {
    skip: usize,
    count: usize,
    rest: usize,
}

/// The types whose RDATA may hold compressed names at a fixed place: those of RFC 1035, and of the later ones that RFC 3597 §4
/// tells receivers to expect it from all but SIG, NXT and NAPTR, which nobody compresses.
fn names_in_rdata(rtype: u16) -> Option<NamesIn> {
    let (skip, count, rest) = match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
        2..=5 | 7..=9 | 12 | 39 => (0, 1, 0),
        rtype::SOA => (0, 2, 20),
        // MINFO, RP
        14 | 17 => (0, 2, 0),
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => (2, 1, 0),
        // PX
        26 => (2, 2, 0),
        rtype::SRV => (6, 1, 0),
        _ => return None,
    };
    Some(NamesIn { skip, count, rest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// A reply to `a. IN A` whose records are given raw.
    fn walk(counts: [u16; 4], records: &[u8]) -> Result<(usize, u16), MessageFault> {
        let mut bytes = Vec::from([0u8; 12]);
        Header { id: 1, flags: super::super::Flags(0x8003), counts }.write(&mut bytes);
        bytes.extend(b"\x01a\x00\x00\x01\x00\x01");
        bytes.extend(records);
        let header = Header::read(&bytes).expect("a header");
        let question = Question::read(&bytes).expect("a question");
        Message::walk(&bytes, header, question).map(|m| (m.records.len(), m.rcode().0))
    }

    const A: &[u8] = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01";
    const OPT: &[u8] = b"\x00\x00\x29\x04\xd0\x01\x00\x00\x00\x00\x00";

    #[test]
    fn records_and_the_extended_rcode_are_read() {
        assert_eq!(walk([1, 1, 0, 1], &[A, OPT].concat()), Ok((1, 0x13)));
    }

    #[test]
    fn counts_that_cannot_fit_are_refused_before_any_allocation() {
        assert_eq!(walk([1, u16::MAX, 0, 0], A), Err(MessageFault::Malformed));
        assert_eq!(walk([1, 2, 0, 0], A), Err(MessageFault::Malformed));
    }

    #[test]
    fn only_one_opt_in_the_additional_section_at_version_0() {
        assert_eq!(walk([1, 0, 0, 2], &[OPT, OPT].concat()), Err(MessageFault::BadOpt));
        assert_eq!(walk([1, 1, 0, 0], OPT), Err(MessageFault::BadOpt));
        let mut version_1 = OPT.to_vec();
        version_1[6] = 1;
        assert_eq!(walk([1, 0, 0, 1], &version_1), Err(MessageFault::BadOpt));
    }

    #[test]
    fn names_in_rdata_must_fill_it_exactly_and_not_loop() {
        let cname = |rdata: &[u8]| {
            let mut record = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00".to_vec();
            record.push(rdata.len() as u8);
            record.extend(rdata);
            walk([1, 1, 0, 0], &record)
        };
        assert!(cname(b"\x01b\xc0\x0c").is_ok());
        assert!(cname(b"\x01b\x00\x00").is_err()); // a byte too many
        assert!(cname(b"\x01b").is_err()); // runs past its end
        assert!(cname(b"\xc0\x1f").is_err()); // points at itself: 12 + 7 + 12 = 31
    }

    #[test]
    fn a_name_may_not_be_read_out_of_a_ttl() {
        // The first record's TTL, at 25, reads as the label "\0\0<".
        let pointing = b"\xc0\x19\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01";
        let mut ttl = A.to_vec();
        ttl[6] = 3;
        assert_eq!(walk([1, 2, 0, 0], &[&ttl[..], pointing].concat()), Err(MessageFault::Malformed));
        // A CNAME whose target is read out of its own TTL, at 25: the root, until the TTL falls.
        let own = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x02\xc0\x19";
        assert_eq!(walk([1, 1, 0, 0], own), Err(MessageFault::Malformed));
    }

    #[test]
    fn rfc3597_unknown_rdata_is_opaque() {
        let mut record = b"\xc0\x0c\xff\x00\x00\x01\x00\x00\x00\x3c\x00\x02\xc0\x0c".to_vec();
        assert!(walk([1, 1, 0, 0], &record).is_ok());
        let last = record.len() - 1;
        record[last] = 0xff;
        assert!(walk([1, 1, 0, 0], &record).is_ok());
    }

    #[test]
    fn rfc2181_8_a_ttl_with_the_top_bit_is_zero() {
        let mut bytes = Vec::from([0u8; 12]);
        Header { id: 1, flags: super::super::Flags(0x8000), counts: [1, 1, 0, 0] }.write(&mut bytes);
        bytes.extend(
            b"\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x80\x00\x00\x01\x00\x04\xc0\x00\x02\x01",
        );
        let header = Header::read(&bytes).expect("a header");
        let question = Question::read(&bytes).expect("a question");
        let message = Message::walk(&bytes, header, question).expect("a message");
        assert_eq!(message.records[0].ttl_s, 0);
    }
}
