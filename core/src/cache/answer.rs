//! An upstream's answer, kept so that serving it is a copy and a few patches (semantics.md §3.3, R3 to R10).
//!
//! The bytes after the question stay as the upstream sent them. Compression pointers in them reach back into the question
//! and beyond; every client's question for this answer has the same length, so they stay true. The OPT record is
//! cut out and the places of the TTLs are noted. Serving writes a header, the client's own spelling of the
//! question, the bytes, the TTLs, and an OPT record of our own if the client sent one.

use super::Kind;
use crate::sim_support::{Fault, Mark, mark, planted};
use crate::wire::{
    Edns, Flags, HEADER_LEN, Header, Message, OPT_LEN, Rcode, Record, Section, get_u16, put_opt,
};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What of an answer is not bytes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct AnswerMeta {
    /// The RCODE, extended bits included.
    pub rcode: Rcode,
    /// RA and AD as the upstream set them; no other bit.
    pub flags: Flags,
    /// ANCOUNT, NSCOUNT, ARCOUNT without OPT.
    pub counts: [u16; 3],
    /// Its kind, if it may be cached.
    pub kind: Option<Kind>,
    /// The extended error the upstream gave (RFC 8914), to be passed on to clients that speak EDNS.
    pub extended_error: Option<u16>,
    /// The lifetime it began with, in seconds.
    pub ttl_s: u32,
}

impl AnswerMeta {
    /// An answer of our own making, without records.
    pub const fn local(rcode: Rcode, extended_error: Option<u16>) -> Self {
        AnswerMeta { rcode, flags: Flags(0), counts: [0; 3], kind: None, extended_error, ttl_s: 0 }
    }
}

/// An answer and its bytes, borrowed.
#[derive(Copy, Clone, Debug)]
pub struct AnswerRef<'a> {
    /// What is not bytes.
    pub meta: AnswerMeta,
    /// First the offsets of the TTLs, two bytes each, then the records they count into.
    pub bytes: &'a [u8],
}

/// An answer that owns its bytes.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What is not bytes.
    pub meta: AnswerMeta,
    bytes: Box<[u8]>,
}

/// What to write into the TTL fields.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Ttls {
    /// The same number of seconds into all of them.
    Flat(u32),
    /// What the upstream wrote: the answer was not cached.
    Verbatim,
}

/// The client's side of an answer.
#[derive(Copy, Clone, Debug)]
pub struct ReplyFrame<'a> {
    /// The ID of the client's query.
    pub id: u16,
    /// The header bits of the client's query: RD and CD are copied, AD says that AD is wanted.
    pub query_flags: Flags,
    /// The question with the client's spelling.
    pub question: &'a [u8],
    /// Whether the client sent an OPT, and its DO bit.
    pub do_bit: Option<bool>,
    /// What we advertise in our OPT, in bytes.
    pub udp_size: u16,
    /// The most the client can take, in bytes.
    pub len_max: usize,
    /// Whether AD may be passed on.
    pub trust_ad: bool,
}

impl Answer {
    /// Takes an answer out of a checked message. Offsets are 16 bits wide, which is what a message can be long.
    pub fn from_message(message: &Message<'_>, meta: AnswerMeta) -> Self {
        let body_start = HEADER_LEN + message.question.bytes.len();
        let mut meta = meta;
        let kept = kept_records(message);
        meta.counts = [Section::Answer, Section::Authority, Section::Additional]
            .map(|section| kept.iter().filter(|record| record.section == section).count() as u16);
        // Everything up to the OPT, and what of the records after it can be moved over its place.
        let (cut, moved) = match &message.opt {
            Some((_, opt)) => (opt.start, opt.end - opt.start),
            None => (message.end, 0),
        };
        let end = kept.last().map_or(body_start, |record| record.end);
        let mut bytes = Vec::with_capacity(2 * kept.len() + (end - body_start));
        for record in kept {
            let shift = if record.owner >= cut { moved } else { 0 };
            bytes.extend_from_slice(&((record.ttl_at - shift - body_start) as u16).to_be_bytes());
        }
        bytes.extend_from_slice(&message.bytes[body_start..end.min(cut)]);
        if end > cut {
            bytes.extend_from_slice(&message.bytes[cut + moved..end]);
        }
        Answer { meta, bytes: bytes.into_boxed_slice() }
    }

    /// Borrows it.
    pub fn as_ref(&self) -> AnswerRef<'_> {
        AnswerRef { meta: self.meta, bytes: &self.bytes }
    }
}

/// The records that can be kept: all of them, except those after an OPT from the first whose names are read from where the OPT or
/// what follows it stands, because moving would bend the pointer. They are additional data, which a server may leave
/// out (RFC 2181 §9), and an OPT that is not the last record is rare enough.
fn kept_records<'m>(message: &'m Message<'_>) -> &'m [Record] {
    let records = &message.records[..];
    let Some((_, opt)) = &message.opt else { return records };
    let Some(bent) = records.iter().position(|r| r.owner >= opt.end && r.reaches > opt.start) else {
        return records;
    };
    mark(Mark::RecordsBehindOptLeftOut);
    &records[..bent]
}

impl<'a> AnswerRef<'a> {
    fn record_count(&self) -> usize {
        self.meta.counts.iter().map(|count| usize::from(*count)).sum()
    }

    fn ttl_offsets(&self) -> &'a [[u8; 2]] {
        self.bytes[..2 * self.record_count()].as_chunks().0
    }

    fn body(&self) -> &'a [u8] {
        &self.bytes[2 * self.record_count()..]
    }

    /// How many records fit into `room` bytes, and how many bytes they take.
    fn fitting(&self, room: usize) -> (usize, usize) {
        let (body, mut used) = (self.body(), 0);
        for (n, offset) in self.ttl_offsets().iter().enumerate() {
            let ttl_at = usize::from(u16::from_be_bytes(*offset));
            let end = ttl_at + 6 + usize::from(get_u16(body, ttl_at + 4));
            if end > room {
                return (n, used);
            }
            used = end;
        }
        (self.record_count(), used)
    }
}

/// What was written for a client.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Rendered {
    /// Length in bytes.
    pub len: usize,
    /// Records were left out and TC is set.
    pub truncated: bool,
    /// The RCODE that the client sees.
    pub rcode: Rcode,
}

/// Writes the answer for one client into `out`.
///
/// Records that do not fit are left out from the end; TC is set if one of the answer or authority section is missing,
/// not for additional data alone (RFC 2181 §9). `out` must hold the header, the question and an OPT with an
/// extended error at least: 512 bytes always do.
pub fn render(answer: AnswerRef<'_>, ttls: Ttls, frame: &ReplyFrame<'_>, out: &mut [u8]) -> Rendered {
    let meta = &answer.meta;
    let extended_error = meta.extended_error.filter(|_| frame.do_bit.is_some());
    let opt_len = match (frame.do_bit, extended_error) {
        (None, _) => 0,
        (Some(_), None) => OPT_LEN,
        (Some(_), Some(_)) => OPT_LEN + 6,
    };
    let body_start = HEADER_LEN + frame.question.len();
    let room = frame.len_max.min(out.len()).saturating_sub(body_start + opt_len);
    let mut body = answer.body();
    let mut kept = answer.ttl_offsets();
    let mut counts = meta.counts;
    let mut truncated = false;
    if body.len() > room {
        let (records, used) = answer.fitting(room);
        (body, kept) = (&body[..used], &kept[..records]);
        truncated = cut_counts(&mut counts, records);
        mark(if truncated { Mark::Truncated } else { Mark::AdditionalsLeftOut });
    }

    let copied = if planted(Fault::CdNotCopied) { Flags::RD } else { Flags::RD | Flags::CD };
    let mut flags = Flags::QR | (frame.query_flags.0 & copied) | (meta.flags.0 & Flags::RA);
    // glibc takes an empty NOERROR with AA=0, RA=0 and no additional records for a lame server's and asks the next one. Clients of a
    // forwarder do get recursion, so RA=1 is the truth, and AA=1 (CoreDNS' way out) would not be.
    if meta.rcode == Rcode::NOERROR && meta.counts[0] == 0 {
        flags |= Flags::RA;
    }
    let wants_ad = frame.do_bit == Some(true) || frame.query_flags.has(Flags::AD);
    if frame.trust_ad && (wants_ad || planted(Fault::AdUninvited)) {
        flags |= meta.flags.0 & Flags::AD;
    }
    if truncated && !planted(Fault::TruncationUntold) {
        flags |= Flags::TC;
    }
    // Without an OPT there is nowhere to put the upper bits (semantics.md R6).
    let rcode = if meta.rcode.0 > 15 && frame.do_bit.is_none() { Rcode::SERVFAIL } else { meta.rcode };
    let softened = rcode == Rcode::NXDOMAIN && planted(Fault::NxdomainSoftened);
    let rcode = if softened { Rcode::NOERROR } else { rcode };
    flags |= rcode.0 & 0x0f;
    let additionals = counts[2] + u16::from(frame.do_bit.is_some());
    Header { id: frame.id, flags: Flags(flags), counts: [1, counts[0], counts[1], additionals] }.write(out);
    out[HEADER_LEN..body_start].copy_from_slice(frame.question);
    let body_end = body_start + body.len();
    out[body_start..body_end].copy_from_slice(body);
    if let Ttls::Flat(ttl_s) = ttls {
        for offset in kept {
            let at = body_start + usize::from(u16::from_be_bytes(*offset));
            out[at..at + 4].copy_from_slice(&ttl_s.to_be_bytes());
        }
    }
    let Some(do_bit) = frame.do_bit else { return Rendered { len: body_end, truncated, rcode } };
    let edns = Edns { udp_size: frame.udp_size, rcode_high: (rcode.0 >> 4) as u8, version: 0, do_bit };
    Rendered { len: put_opt(out, body_end, edns, extended_error), truncated, rcode }
}

/// Lowers the section counts to the first `records` records; true if answer or authority lost one.
fn cut_counts(counts: &mut [u16; 3], records: usize) -> bool {
    let before = *counts;
    let mut left = records as u16;
    for count in counts.iter_mut() {
        *count = left.min(*count);
        left -= *count;
    }
    before[..2] != counts[..2]
}
