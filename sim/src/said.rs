//! What upstreams have said: every answer that one of them ever made up, with its number.
//!
//! The number is the version: no two answers are alike, and the record data of each carries it. So the model can tell of any bytes
//! that a client got which answer they are, who gave it, when, and whether it may still be used. The book keeps
//! an answer's records as bytes with the places of TTLs and ends, and what RFC 2308 and the zone's rules make of it, computed
//! from what was drawn and not from the bytes: a second opinion to `nodens_core::cache::judge`.

use crate::message::{self, Opt, flag};
use crate::questions::QuestionId;
use std::ops::Range;

/// The number of an answer.
pub type Version = u32;
/// What an attacker's records carry.
pub const FORGED: Version = u32::MAX;

/// How long an answer may be kept, before the zone's clamps, in seconds.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Nature {
    /// It answers the question.
    Positive(u32),
    /// It denies the name or the type (RFC 2308 §2).
    Denial(u32),
    /// SERVFAIL, NOTIMP: as long as the zone's `servfail` (RFC 9520).
    Failure,
    /// Not to be kept.
    Relay,
}

/// One record's place in an answer's bytes, counted from the first byte after the question.
#[derive(Copy, Clone, Debug)]
pub struct Mark {
    /// Where its TTL is.
    pub ttl_at: u16,
    /// Where it ends.
    pub end: u16,
}

/// What an answer is, besides its records.
#[derive(Clone, Debug)]
pub struct Facts {
    /// To which question.
    pub question: QuestionId,
    /// By which upstream.
    pub upstream: usize,
    /// When, in nanoseconds.
    pub at: u64,
    /// The query's OPT record: its DO bit.
    pub asked_do: Option<bool>,
    /// The query's CD bit.
    pub asked_cd: bool,
    /// The query's RD bit.
    pub asked_rd: bool,
    /// RCODE, extended bits included.
    pub rcode: u16,
    /// RA and AD.
    pub flags: u16,
    /// Cut short with TC: good for nothing but asking again over TCP.
    pub truncated: bool,
    /// How long it may be kept.
    pub nature: Nature,
    /// Records per section, without OPT.
    pub counts: [u16; 3],
    /// Its OPT.
    pub opt: Option<Opt>,
    /// How many of its additional records the OPT stands before.
    pub opt_before: u16,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Said {
    /// What it is.
    pub facts: Facts,
    bytes: Range<usize>,
    marks: Range<usize>,
}

/// All answers of a world.
#[derive(Debug, Default)]
pub struct Book {
    said: Vec<Said>,
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    /// Where the answer that is being written begins.
    begun: (usize, usize),
}

impl Book {
    /// The number that the next answer gets.
    pub fn next(&self) -> Version {
        self.said.len() as Version
    }

    /// An answer by number.
    pub fn said(&self, version: Version) -> Option<&Said> {
        self.said.get(version as usize)
    }

    /// Begins an answer: records are added next.
    pub fn begin(&mut self) {
        self.bytes.truncate(self.begun.0);
        self.marks.truncate(self.begun.1);
    }

    /// Adds a record; `owner` and `data` as they stand on the wire.
    pub fn record(&mut self, owner: &[u8], rtype: u16, class: u16, ttl: u32, data: &[u8]) {
        self.bytes.extend_from_slice(owner);
        self.bytes.extend_from_slice(&rtype.to_be_bytes());
        self.bytes.extend_from_slice(&class.to_be_bytes());
        let ttl_at = (self.bytes.len() - self.begun.0) as u16;
        self.bytes.extend_from_slice(&ttl.to_be_bytes());
        self.bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(data);
        self.marks.push(Mark { ttl_at, end: (self.bytes.len() - self.begun.0) as u16 });
    }

    /// How many bytes of records were added since the beginning.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.begun.0
    }

    /// Whether no record was added since the beginning.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many records were added since the beginning.
    pub fn records(&self) -> usize {
        self.marks.len() - self.begun.1
    }

    /// Leaves of the records added since the beginning the first `records` and so many bytes of the next.
    pub fn cut(&mut self, records: usize, torn_bytes: usize) {
        let end =
            |count: usize| match count.checked_sub(1).and_then(|last| self.marks.get(self.begun.1 + last)) {
                Some(mark) => self.begun.0 + usize::from(mark.end),
                None => self.begun.0,
            };
        let torn = (end(records) + torn_bytes).min(end(records + 1).max(end(records)));
        self.marks.truncate(self.begun.1 + records);
        self.bytes.truncate(torn);
    }

    /// How many of the records added since the beginning fit into so many bytes.
    pub fn fitting(&self, bytes: usize) -> usize {
        self.marks[self.begun.1..].iter().take_while(|mark| usize::from(mark.end) <= bytes).count()
    }

    /// Ends the answer; it gets its number.
    pub fn end(&mut self, facts: Facts) -> Version {
        let version = self.next();
        let (bytes, marks) = (self.begun.0..self.bytes.len(), self.begun.1..self.marks.len());
        self.begun = (bytes.end, marks.end);
        self.said.push(Said { facts, bytes, marks });
        version
    }

    /// An answer's records as bytes.
    pub fn body(&self, said: &Said) -> &[u8] {
        &self.bytes[said.bytes.clone()]
    }

    /// The places of an answer's records.
    pub fn marks(&self, said: &Said) -> &[Mark] {
        &self.marks[said.marks.clone()]
    }

    /// Writes the answer as its upstream sends it.
    pub fn write(&self, version: Version, id: u16, question: &[u8], out: &mut Vec<u8>) {
        let Some(said) = self.said(version) else { return };
        let facts = &said.facts;
        let mut flags = flag::QR | facts.flags | (facts.rcode & 0xf);
        flags |= if facts.asked_rd { flag::RD } else { 0 };
        flags |= if facts.asked_cd { flag::CD } else { 0 };
        flags |= if facts.truncated { flag::TC } else { 0 };
        let additionals = facts.counts[2] + u16::from(facts.opt.is_some());
        message::put_header(out, id, flags, [1, facts.counts[0], facts.counts[1], additionals]);
        out.extend_from_slice(question);
        let (body, marks) = (self.body(said), self.marks(said));
        let Some(opt) = facts.opt else {
            out.extend_from_slice(body);
            return;
        };
        let before = marks.len() - usize::from(facts.opt_before.min(facts.counts[2]));
        let cut = before.checked_sub(1).map_or(0, |last| usize::from(marks[last].end));
        out.extend_from_slice(&body[..cut]);
        message::put_opt(out, Opt { rcode_high: (facts.rcode >> 4) as u8, ..opt });
        out.extend_from_slice(&body[cut..]);
    }
}
