//! The slow reader: a message decoded whole, with every name written out, by code that shares nothing with the core's.
//!
//! Names are read by hand, so that it is known from which bytes they come, and again by hickory-proto; both must agree. What the core
//! accepts must be what this accepts, and must mean the same.

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::ops::Range;

/// Length of a header in bytes (RFC 1035 §4.1.1).
pub(crate) const HEADER_LEN: usize = 12;
/// Type of the OPT record (RFC 6891 §6.1.1).
pub(crate) const OPT: u16 = 41;

/// A name, written out.
#[derive(Clone, Debug)]
pub(crate) struct ReadName {
    /// Labels with their lengths, the root's zero included.
    pub(crate) wire: Vec<u8>,
    /// The runs of bytes it was read from; the first is where it stands.
    pub(crate) runs: Vec<Range<usize>>,
    /// Where the bytes after it begin.
    pub(crate) end: usize,
}

/// A piece of RDATA.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Part {
    /// A domain name, written out.
    Name(Vec<u8>),
    /// Anything else.
    Bytes(Vec<u8>),
}

/// One record.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// 0 answer, 1 authority, 2 additional.
    pub(crate) section: usize,
    pub(crate) owner: Vec<u8>,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    /// As it stands on the wire.
    pub(crate) ttl: u32,
    pub(crate) rdata: Vec<Part>,
    /// Its bytes in the message.
    pub(crate) range: Range<usize>,
    ttl_at: usize,
    /// The runs that its names are read from beyond where they stand.
    pub(crate) jumps: Vec<Range<usize>>,
}

impl Record {
    /// What must come out again if nothing but the TTL may change.
    pub(crate) fn content(&self) -> (usize, &[u8], u16, u16, &[Part]) {
        (self.section, &self.owner, self.rtype, self.class, &self.rdata)
    }

    /// The TTL as RFC 2181 §8 reads it.
    pub(crate) fn ttl_s(&self) -> u32 {
        if self.ttl >> 31 == 1 { 0 } else { self.ttl }
    }
}

/// Why a message is not sound.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Unsound {
    Malformed,
    BadOpt,
}

/// A whole message.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Name, type and class as they stand.
    pub(crate) question: Vec<u8>,
    pub(crate) records: Vec<Record>,
    /// Where the OPT is among `records`.
    pub(crate) opt: Option<usize>,
    pub(crate) end: usize,
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The question at offset 12, if its name is written out there.
pub(crate) fn plain_question(message: &[u8]) -> Option<Vec<u8>> {
    let mut at = HEADER_LEN;
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1 + len;
        match len {
            0 => break,
            1..=63 => {}
            _ => return None,
        }
    }
    let name_len = at - HEADER_LEN;
    (name_len <= 255).then(|| message.get(HEADER_LEN..at + 4).map(<[u8]>::to_vec)).flatten()
}

/// Type and class of a question.
pub(crate) fn type_and_class(question: &[u8]) -> (u16, u16) {
    let at = question.len() - 4;
    (u16_at(question, at).unwrap_or(0), u16_at(question, at + 2).unwrap_or(0))
}

/// Reads names of one message.
pub(crate) struct Names<'a> {
    bytes: &'a [u8],
    /// The message with a header of label lengths that do not exist, so that hickory refuses pointers into the header as we do.
    for_hickory: Vec<u8>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut for_hickory = bytes.to_vec();
        for_hickory.iter_mut().take(HEADER_LEN).for_each(|byte| *byte = 0x80);
        Names { bytes, for_hickory }
    }

    /// The name at `at`.
    pub(crate) fn read(&self, at: usize) -> Option<ReadName> {
        let by_hand = self.by_hand(at);
        let mut decoder = BinDecoder::new(&self.for_hickory).clone(u16::try_from(at).ok()?);
        let by_hickory = Name::read(&mut decoder).ok();
        match (&by_hand, &by_hickory) {
            (Ok(name), Some(other)) => {
                let labels: Vec<u8> = other
                    .iter()
                    .flat_map(|label| [&[label.len() as u8], label].concat())
                    .chain([0])
                    .collect();
                assert_eq!(name.wire, labels, "two readings of the name at {at}");
                assert_eq!(name.end, decoder.index(), "two ends of the name at {at}");
            }
            (Err(TooManyHops(true)), _) | (Err(TooManyHops(false)), None) => {}
            _ => panic!("the name at {at} is {by_hand:?} by hand and {by_hickory:?} to hickory"),
        }
        by_hand.ok()
    }

    /// RFC 1035 §4.1.4: labels, then the root or a pointer to a name that ends before this one begins.
    fn by_hand(&self, at: usize) -> Result<ReadName, TooManyHops> {
        let refused = TooManyHops(false);
        let (mut start, mut pos, mut limit) = (at, at, usize::MAX);
        let mut name = ReadName { wire: Vec::new(), runs: Vec::new(), end: 0 };
        loop {
            if pos >= limit {
                return Err(refused);
            }
            let len = *self.bytes.get(pos).ok_or(refused)?;
            if len == 0 {
                name.wire.push(0);
                name.runs.push(start..pos + 1);
                name.end = if name.runs.len() == 1 { pos + 1 } else { name.end };
                return Ok(name);
            } else if len < 0x40 {
                name.wire.extend(self.bytes.get(pos..=pos + usize::from(len)).ok_or(refused)?);
                pos += 1 + usize::from(len);
                // One octet is still to come, the root's.
                if name.wire.len() > 254 {
                    return Err(refused);
                }
            } else if len >= 0xc0 {
                let target = usize::from(u16_at(self.bytes, pos).ok_or(refused)? & 0x3fff);
                if target >= start || target < HEADER_LEN {
                    return Err(refused);
                }
                name.runs.push(start..pos + 2);
                name.end = if name.runs.len() == 1 { pos + 2 } else { name.end };
                if name.runs.len() > 127 {
                    return Err(TooManyHops(true));
                }
                (limit, start, pos) = (start, target, target);
            } else {
                return Err(refused);
            }
        }
    }
}

/// Not a name. `true`: only because it is a chain of more pointers than a name can have labels, which hickory does not mind.
#[derive(Copy, Clone, Debug)]
struct TooManyHops(bool);

impl Parsed {
    /// Reads a message with one plain question; what the header says about the other sections is checked against the bytes.
    pub(crate) fn read(bytes: &[u8]) -> Result<Parsed, Unsound> {
        let question = plain_question(bytes).ok_or(Unsound::Malformed)?;
        let word = |n: usize| u16_at(bytes, 2 * n).ok_or(Unsound::Malformed);
        let counts = [word(3)?, word(4)?, word(5)?].map(usize::from);
        let mut at = HEADER_LEN + question.len();
        if counts.iter().sum::<usize>() > (bytes.len() - at) / 11 {
            return Err(Unsound::Malformed);
        }
        let mut parsed =
            Parsed { id: word(0)?, flags: word(1)?, question, records: Vec::new(), opt: None, end: at };
        let names = Names::new(bytes);
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                let record = parsed.read_record(&names, at, section).ok_or(Unsound::Malformed)?;
                at = record.range.end;
                if record.rtype == OPT {
                    let version = record.ttl >> 16 & 0xff;
                    let plain_root = bytes[record.range.start] == 0;
                    if parsed.opt.is_some() || section != 2 || !plain_root || version != 0 {
                        return Err(Unsound::BadOpt);
                    }
                    parsed.opt = Some(parsed.records.len());
                }
                parsed.records.push(record);
            }
        }
        parsed.end = at;
        Ok(parsed)
    }

    fn read_record(&self, names: &Names<'_>, at: usize, section: usize) -> Option<Record> {
        let bytes = names.bytes;
        let owner = names.read(at)?;
        let fixed = owner.end;
        let rdata_at = fixed + 10;
        let end = rdata_at + usize::from(u16_at(bytes, fixed + 8)?);
        bytes.get(..end)?;
        let rtype = u16_at(bytes, fixed)?;
        let mut jumps = owner.runs[1..].to_vec();
        let mut rdata = Vec::new();
        let mut pos = rdata_at;
        for field in layout(rtype) {
            match *field {
                Field::Name => {
                    let name = names.read(pos).filter(|name| name.end <= end)?;
                    jumps.extend_from_slice(&name.runs[1..]);
                    pos = name.end;
                    rdata.push(Part::Name(name.wire));
                }
                Field::Octets(n) => {
                    rdata.push(Part::Bytes(bytes.get(pos..pos + n)?.to_vec()));
                    pos += n;
                }
            }
        }
        if layout(rtype).is_empty() {
            rdata.push(Part::Bytes(bytes[rdata_at..end].to_vec()));
        } else if pos != end {
            return None;
        }
        // A name may not be read out of a TTL, this record's or an earlier one's: TTLs change. An OPT has none.
        let ttls = self.records.iter().filter(|record| record.rtype != OPT).map(|record| record.ttl_at);
        let own = (rtype != OPT).then_some(fixed + 4);
        if ttls.chain(own).any(|ttl| jumps.iter().any(|run| run.start < ttl + 4 && ttl < run.end)) {
            return None;
        }
        let class = u16_at(bytes, fixed + 2)?;
        let ttl = u32_at(bytes, fixed + 4)?;
        Some(Record {
            section,
            owner: owner.wire,
            rtype,
            class,
            ttl,
            rdata,
            range: at..end,
            ttl_at: fixed + 4,
            jumps,
        })
    }

    /// The RCODE with the OPT's bits above the header's.
    pub(crate) fn rcode(&self) -> u16 {
        self.opt.map_or(0, |at| (self.records[at].ttl >> 24) as u16) << 4 | self.flags & 15
    }

    /// The options of the OPT that are whole, in order.
    pub(crate) fn options(&self) -> Vec<(u16, Vec<u8>)> {
        let Some(at) = self.opt else { return Vec::new() };
        let [Part::Bytes(rdata)] = &self.records[at].rdata[..] else { return Vec::new() };
        let mut options = Vec::new();
        let mut at = 0;
        while let (Some(code), Some(len)) = (u16_at(rdata, at), u16_at(rdata, at + 2)) {
            let Some(value) = rdata.get(at + 4..at + 4 + usize::from(len)) else { break };
            options.push((code, value.to_vec()));
            at += 4 + usize::from(len);
        }
        options
    }

    /// All records but the OPT.
    pub(crate) fn data(&self) -> impl Iterator<Item = &Record> + Clone {
        self.records.iter().filter(|record| record.rtype != OPT)
    }

    pub(crate) fn qname(&self) -> &[u8] {
        &self.question[..self.question.len() - 4]
    }
}

enum Field {
    Name,
    Octets(usize),
}

/// What the RDATA of a type holds, where that may be a compressed name: RFC 1035 §3.3 and RFC 3597 §4, SIG, NXT and NAPTR left out. No
/// fields: one string of octets.
fn layout(rtype: u16) -> &'static [Field] {
    use Field::{Name, Octets};
    match rtype {
        // NS, MD, MF, CNAME; MB, MG, MR; PTR; DNAME
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 39 => &[Name],
        // SOA
        6 => &[Name, Name, Octets(20)],
        // MINFO, RP
        14 | 17 => &[Name, Name],
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => &[Octets(2), Name],
        // PX
        26 => &[Octets(2), Name, Name],
        // SRV
        33 => &[Octets(6), Name],
        _ => &[],
    }
}
