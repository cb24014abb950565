//! What clients should not send, and what the RFCs say about it.

use crate::draw::Draw;
use crate::message::{self, Opt, flag};

/// A query that is none, or that no cache can answer.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Garbage {
    /// Fewer bytes than a header: there is nothing to answer to.
    Short,
    /// QR is set: answering could start a loop (RUSTSEC-2023-0041).
    Response,
    /// Another opcode: NOTIMP (RFC 8906 §3.1.4).
    Opcode(u8),
    /// No question: FORMERR.
    NoQuestion,
    /// Two questions: FORMERR (RFC 9619).
    TwoQuestions,
    /// A name that points: FORMERR.
    BadName,
    /// Two OPT records: FORMERR (RFC 6891 §6.1.1).
    TwoOpts,
    /// An EDNS version that does not exist: BADVERS (RFC 6891 §6.1.3).
    Version,
    /// Signed end to end: NOTIMP.
    Signed,
    /// A zone transfer: REFUSED.
    Transfer,
    /// Class CHAOS: REFUSED.
    Chaos,
}

/// What must become of it.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Fate {
    /// Nothing is sent.
    Dropped,
    /// A header with this RCODE and nothing else.
    HeaderOnly(u16),
    /// An answer without records; `opt` says whether the client's OPT counts as understood.
    Answered { rcode: u16, opt: bool },
}

/// The bytes of one.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) question_end: usize,
    pub(crate) opt: Option<Opt>,
}

const TSIG: u16 = 250;
const AXFR: u16 = 252;

impl Garbage {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let opcode = draw.between(1, 15) as u8;
        draw.pick(&[
            Garbage::Short,
            Garbage::Response,
            Garbage::Opcode(opcode),
            Garbage::NoQuestion,
            Garbage::TwoQuestions,
            Garbage::BadName,
            Garbage::TwoOpts,
            Garbage::Version,
            Garbage::Signed,
            Garbage::Transfer,
            Garbage::Chaos,
        ])
    }

    pub(crate) fn fate(self) -> Fate {
        match self {
            Garbage::Short | Garbage::Response => Fate::Dropped,
            Garbage::Opcode(_) => Fate::HeaderOnly(4),
            Garbage::NoQuestion | Garbage::TwoQuestions | Garbage::BadName => Fate::HeaderOnly(1),
            Garbage::TwoOpts => Fate::Answered { rcode: 1, opt: false },
            Garbage::Version => Fate::Answered { rcode: 16, opt: true },
            Garbage::Signed => Fate::Answered { rcode: 4, opt: false },
            Garbage::Transfer | Garbage::Chaos => Fate::Answered { rcode: 5, opt: true },
        }
    }

    /// Whether it can be read, although it is refused.
    pub(crate) fn is_readable(self) -> bool {
        matches!(self, Garbage::Transfer | Garbage::Chaos)
    }

    pub(crate) fn write(self, id: u16, name: &[u8]) -> Written {
        let mut bytes = Vec::with_capacity(80);
        let flags = flag::RD
            | match self {
                Garbage::Response => flag::QR,
                Garbage::Opcode(opcode) => u16::from(opcode) << 11,
                _ => 0,
            };
        let counts = match self {
            Garbage::NoQuestion => [0, 0, 0, 0],
            Garbage::TwoQuestions => [2, 0, 0, 0],
            Garbage::TwoOpts => [1, 0, 0, 2],
            Garbage::Version | Garbage::Signed => [1, 0, 0, 1],
            _ => [1, 0, 0, 0],
        };
        message::put_header(&mut bytes, id, flags, counts);
        let qtype: u16 = if self == Garbage::Transfer { AXFR } else { 1 };
        let class: u16 = if self == Garbage::Chaos { 3 } else { 1 };
        if self == Garbage::BadName {
            bytes.extend_from_slice(&[0xc0, 12]);
        } else if self != Garbage::NoQuestion {
            bytes.extend_from_slice(name);
        }
        let question_end = bytes.len() + 4;
        bytes.extend_from_slice(&qtype.to_be_bytes());
        bytes.extend_from_slice(&class.to_be_bytes());
        let mut opt = None;
        match self {
            Garbage::Short => bytes.truncate(11),
            Garbage::TwoQuestions => {
                bytes.extend_from_slice(name);
                bytes.extend_from_slice(&[0, 1, 0, 1]);
            }
            Garbage::TwoOpts => {
                message::put_opt(&mut bytes, Opt::plain(1232, false));
                message::put_opt(&mut bytes, Opt::plain(1232, false));
            }
            Garbage::Version => {
                opt = Some(Opt::plain(1232, true));
                message::put_opt(&mut bytes, Opt { version: 1, ..Opt::plain(1232, true) });
            }
            Garbage::Signed => {
                bytes.push(0);
                bytes.extend_from_slice(&TSIG.to_be_bytes());
                bytes.extend_from_slice(&[0, 255, 0, 0, 0, 0, 0, 0]);
            }
            _ => {}
        }
        let question_end = question_end.min(bytes.len());
        Written { bytes, question_end, opt }
    }
}
