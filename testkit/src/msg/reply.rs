//! A received message, opened up for assertions.
//!
//! The parser is strict about structure (counts, lengths, pointers) because a
//! reply a strict client cannot read is a failed test. It judges nothing
//! else: odd flags, foreign names and a misplaced OPT are shown as they are.

use super::name::{name_from_wire, read_name};
use super::rdata::rdata_text;
use super::{HEADER_LEN, rtype, type_number, type_text};

/// A parsed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The message ID.
    pub id: u16,
    /// QR: this is a response.
    pub qr: bool,
    /// The opcode.
    pub opcode: u8,
    /// AA: authoritative answer.
    pub aa: bool,
    /// TC: truncated.
    pub tc: bool,
    /// RD: recursion desired.
    pub rd: bool,
    /// RA: recursion available.
    pub ra: bool,
    /// The reserved bit, zero in every decent message.
    pub z: bool,
    /// AD: authentic data.
    pub ad: bool,
    /// CD: checking disabled.
    pub cd: bool,
    /// The response code with the extended bits of the OPT record.
    pub rcode: u16,
    /// QDCOUNT.
    pub qdcount: u16,
    /// The first question.
    pub question: Option<Question>,
    /// The answer section.
    pub answers: Vec<Rr>,
    /// The authority section.
    pub authority: Vec<Rr>,
    /// The additional section without OPT.
    pub additional: Vec<Rr>,
    /// The first OPT record.
    pub opt: Option<Opt>,
    /// How many OPT records there are.
    pub opt_count: usize,
    /// OPT is the last record of the message.
    pub opt_is_last: bool,
    /// Length of the whole message.
    pub raw_len: usize,
    /// Bytes behind the last record that no count covers.
    pub trailing: usize,
    /// The message itself.
    pub raw: Vec<u8>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The bytes of the question: name, type, class.
    pub raw: Vec<u8>,
    /// The name as spelled, with the last dot.
    pub name: String,
    /// The type.
    pub qtype: u16,
    /// The class.
    pub qclass: u16,
}

/// A resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rr {
    /// The owner as spelled, with the last dot.
    pub owner: String,
    /// The type.
    pub rtype: u16,
    /// The class.
    pub class: u16,
    /// The TTL in seconds.
    pub ttl: u32,
    /// The rdata in presentation format (`\# length hex` for other types).
    pub rdata: String,
}

/// An OPT record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opt {
    /// The UDP payload size.
    pub size: u16,
    /// The EDNS version.
    pub version: u8,
    /// DO: DNSSEC OK.
    pub do_bit: bool,
    /// The options in their order.
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Reply {
    /// Parses a message; panics with the reason and the bytes if it is
    /// malformed.
    pub fn parse(bytes: &[u8]) -> Self {
        Self::try_parse(bytes).unwrap_or_else(|why| panic!("malformed message: {why}: {bytes:02x?}"))
    }

    /// Parses a message.
    pub fn try_parse(bytes: &[u8]) -> Result<Self, String> {
        let header =
            bytes.get(..HEADER_LEN).ok_or_else(|| format!("{} bytes hold no header", bytes.len()))?;
        let word = |n: usize| u16::from_be_bytes([header[2 * n], header[2 * n + 1]]);
        let flags = word(1);
        let mut reader = Reader { msg: bytes, at: HEADER_LEN };
        let mut question = None;
        for _ in 0..word(2) {
            let found = reader.question()?;
            question.get_or_insert(found);
        }
        let mut reply = Self {
            id: word(0),
            qr: flags & 0x8000 != 0,
            opcode: (flags >> 11 & 15) as u8,
            aa: flags & 0x0400 != 0,
            tc: flags & 0x0200 != 0,
            rd: flags & 0x0100 != 0,
            ra: flags & 0x0080 != 0,
            z: flags & 0x0040 != 0,
            ad: flags & 0x0020 != 0,
            cd: flags & 0x0010 != 0,
            rcode: flags & 15,
            qdcount: word(2),
            question,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            opt: None,
            opt_count: 0,
            opt_is_last: false,
            raw_len: bytes.len(),
            trailing: 0,
            raw: bytes.to_vec(),
        };
        for _ in 0..word(3) {
            reply.answers.push(reader.record()?.shown()?);
        }
        for _ in 0..word(4) {
            reply.authority.push(reader.record()?.shown()?);
        }
        for _ in 0..word(5) {
            let record = reader.record()?;
            reply.opt_is_last = record.rtype == rtype::OPT;
            if reply.opt_is_last {
                reply.take_opt(&record)?;
            } else {
                reply.additional.push(record.shown()?);
            }
        }
        reply.trailing = bytes.len() - reader.at;
        Ok(reply)
    }

    /// The rdata of all answers of this type, in their order.
    pub fn rdatas(&self, kind: &str) -> Vec<&str> {
        let kind = type_number(kind);
        self.answers.iter().filter(|rr| rr.rtype == kind).map(|rr| rr.rdata.as_str()).collect()
    }

    /// The answers as lines without TTL: `a.example. A 192.0.2.1`.
    pub fn answer_lines(&self) -> Vec<String> {
        self.answers.iter().map(Rr::line).collect()
    }

    /// The lowest TTL of the answer section.
    pub fn min_answer_ttl(&self) -> Option<u32> {
        self.answers.iter().map(|rr| rr.ttl).min()
    }

    /// The data of the first EDNS option with this code.
    pub fn option(&self, code: u16) -> Option<&[u8]> {
        let options = &self.opt.as_ref()?.options;
        options.iter().find(|(found, _)| *found == code).map(|(_, data)| data.as_slice())
    }

    /// The INFO-CODE of the extended DNS error (RFC 8914), if there is one.
    pub fn ede(&self) -> Option<u16> {
        let data = self.option(super::option_code::EXTENDED_ERROR)?;
        Some(u16::from_be_bytes([*data.first()?, *data.get(1)?]))
    }

    fn take_opt(&mut self, record: &RawRecord<'_>) -> Result<(), String> {
        self.opt_count += 1;
        if self.opt.is_some() {
            return Ok(());
        }
        let [extended_rcode, version, flags, _] = record.ttl.to_be_bytes();
        self.rcode |= u16::from(extended_rcode) << 4;
        let mut options = Vec::new();
        let mut reader = Reader { msg: &record.msg[..record.end], at: record.start };
        while reader.at < record.end {
            let (code, len) = (reader.u16()?, reader.u16()?);
            options.push((code, reader.take(usize::from(len))?.to_vec()));
        }
        self.opt = Some(Opt { size: record.class, version, do_bit: flags & 0x80 != 0, options });
        Ok(())
    }
}

impl Rr {
    /// The record as a line without TTL and class: `a.example. A 192.0.2.1`.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.owner, type_text(self.rtype), self.rdata)
    }
}

struct RawRecord<'a> {
    msg: &'a [u8],
    owner: Vec<u8>,
    rtype: u16,
    class: u16,
    ttl: u32,
    start: usize,
    end: usize,
}

impl RawRecord<'_> {
    fn shown(&self) -> Result<Rr, String> {
        Ok(Rr {
            owner: name_from_wire(&self.owner),
            rtype: self.rtype,
            class: self.class,
            ttl: self.ttl,
            rdata: rdata_text(self.msg, self.start, self.end, self.rtype)?,
        })
    }
}

struct Reader<'a> {
    msg: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn question(&mut self) -> Result<Question, String> {
        let start = self.at;
        let name = self.name()?;
        let (qtype, qclass) = (self.u16()?, self.u16()?);
        let raw = self.msg[start..self.at].to_vec();
        Ok(Question { raw, name: name_from_wire(&name), qtype, qclass })
    }

    fn record(&mut self) -> Result<RawRecord<'a>, String> {
        let owner = self.name()?;
        let (rtype, class) = (self.u16()?, self.u16()?);
        let ttl = u32::from(self.u16()?) << 16 | u32::from(self.u16()?);
        let len = usize::from(self.u16()?);
        let start = self.at;
        self.take(len)?;
        Ok(RawRecord { msg: self.msg, owner, rtype, class, ttl, start, end: self.at })
    }

    fn name(&mut self) -> Result<Vec<u8>, String> {
        let (wire, next) = read_name(self.msg, self.at)?;
        self.at = next;
        Ok(wire)
    }

    fn u16(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (at, msg) = (self.at, self.msg);
        let bytes = msg
            .get(at..at + len)
            .ok_or_else(|| format!("{len} octets at {at} run past the end ({})", msg.len()))?;
        self.at += len;
        Ok(bytes)
    }
}
