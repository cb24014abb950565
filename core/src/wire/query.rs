//! A client's query, read as far as we need it: header, question, OPT. No allocation, no copy.

use super::edns::Edns;
use super::header::{Flags, HEADER_LEN, Header, get_u16, get_u32};
use super::name::{NAME_LEN_MAX, skip_name};
use super::rtype;

/// Records that a query may carry in its additional section: an OPT and one more. CoreDNS draws the line there too.
const ADDITIONAL_MAX: u16 = 2;
/// Records in the answer and in the authority section of a query (an IXFR carries one SOA).
const ANSWER_MAX: u16 = 1;

/// The question of a message, by view.
#[derive(Copy, Clone, Debug)]
pub struct Question<'a> {
    /// Name, type and class as sent: the client's spelling.
    pub bytes: &'a [u8],
    /// The type asked for.
    pub qtype: u16,
    /// The class asked for.
    pub qclass: u16,
}

impl<'a> Question<'a> {
    /// Reads the question at offset 12. `None` if the name is not plain: a name in a query's question has nothing before it
    /// that it could point to.
    pub fn read(message: &'a [u8]) -> Option<Question<'a>> {
        let mut at = HEADER_LEN;
        loop {
            let len = usize::from(*message.get(at)?);
            at += 1 + len;
            if len > 63 || at - HEADER_LEN > NAME_LEN_MAX {
                return None;
            }
            if len == 0 {
                break;
            }
        }
        let bytes = message.get(HEADER_LEN..at + 4)?;
        Some(Question { bytes, qtype: get_u16(message, at), qclass: get_u16(message, at + 2) })
    }

    /// The name's wire bytes in the sender's spelling.
    pub fn qname(&self) -> &'a [u8] {
        &self.bytes[..self.bytes.len() - 4]
    }

    /// Whether `other` asks the same: same type and class, same name but for ASCII case (RFC 4343).
    pub fn same_as(&self, other: &[u8]) -> bool {
        // Type and class hold no letters in the types we meet often, but compare them exactly all the same.
        let name_len = self.bytes.len() - 4;
        other.len() == self.bytes.len()
            && other[name_len..] == self.bytes[name_len..]
            && other[..name_len].eq_ignore_ascii_case(&self.bytes[..name_len])
    }
}

/// A query that we can answer or forward.
#[derive(Copy, Clone, Debug)]
pub struct QueryView<'a> {
    /// Its header.
    pub header: Header,
    /// Its only question.
    pub question: Question<'a>,
    /// Its OPT record.
    pub edns: Option<Edns>,
}

/// Why a query cannot be processed, and what is left of it to answer with.
#[derive(Copy, Clone, Debug)]
pub enum QueryFault<'a> {
    /// Fewer than twelve bytes.
    Short,
    /// QR is set.
    Response,
    /// Another opcode than QUERY: NOTIMP (RFC 8906 §3.1.4).
    Opcode(Header),
    /// Not exactly one question, two OPTs, or bytes that do not parse: FORMERR.
    Format(Header, Option<Question<'a>>),
    /// An EDNS version that does not exist yet: BADVERS (RFC 6891 §6.1.3).
    Version(Header, Question<'a>, Edns),
    /// Signed end to end (TSIG, SIG(0)); a forwarder that writes its own queries cannot carry it: NOTIMP.
    Signed(Header, Question<'a>),
}

impl<'a> QueryView<'a> {
    /// Reads a query. Bytes after the last counted record are ignored, as everybody does.
    pub fn read(message: &'a [u8]) -> Result<QueryView<'a>, QueryFault<'a>> {
        let header = Header::read(message).ok_or(QueryFault::Short)?;
        if header.flags.has(Flags::QR) {
            return Err(QueryFault::Response);
        }
        if header.flags.opcode() != 0 {
            return Err(QueryFault::Opcode(header));
        }
        let [questions, answers, authorities, additionals] = header.counts;
        if questions != 1 || answers > ANSWER_MAX || authorities > ANSWER_MAX || additionals > ADDITIONAL_MAX
        {
            return Err(QueryFault::Format(header, None));
        }
        let question = Question::read(message).ok_or(QueryFault::Format(header, None))?;
        let mut view = QueryView { header, question, edns: None };
        let mut at = HEADER_LEN + question.bytes.len();
        for _ in 0..answers + authorities {
            at = Extra::read(message, at).ok_or(QueryFault::Format(header, Some(question)))?.end;
        }
        for _ in 0..additionals {
            let extra = Extra::read(message, at).ok_or(QueryFault::Format(header, Some(question)))?;
            at = extra.end;
            match extra.rtype {
                rtype::OPT if view.edns.is_some() || !extra.owner_is_root => {
                    return Err(QueryFault::Format(header, Some(question)));
                }
                rtype::OPT => view.edns = Some(Edns::from_fields(extra.class, extra.ttl)),
                rtype::TSIG | rtype::SIG => return Err(QueryFault::Signed(header, question)),
                _ => {}
            }
        }
        match view.edns {
            Some(edns) if edns.version != 0 => Err(QueryFault::Version(header, question, edns)),
            _ => Ok(view),
        }
    }
}

/// One record after the question.
struct Extra {
    rtype: u16,
    class: u16,
    ttl: u32,
    owner_is_root: bool,
    end: usize,
}

impl Extra {
    fn read(message: &[u8], at: usize) -> Option<Extra> {
        // The common case, an OPT, has the root as its owner: one zero byte.
        let fixed = if *message.get(at)? == 0 { at + 1 } else { skip_name(message, at, |_| {})? };
        if message.len() < fixed + 10 {
            return None;
        }
        let end = fixed + 10 + usize::from(get_u16(message, fixed + 8));
        (end <= message.len()).then(|| Extra {
            rtype: get_u16(message, fixed),
            class: get_u16(message, fixed + 2),
            ttl: get_u32(message, fixed + 4),
            owner_is_root: fixed == at + 1,
            end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn query(tail: &[u8], counts: [u16; 4]) -> Vec<u8> {
        let mut bytes = Vec::from([0u8; 12]);
        Header { id: 7, flags: Flags(Flags::RD), counts }.write(&mut bytes);
        bytes.extend(b"\x01A\x02bC\x00\x00\x01\x00\x01");
        bytes.extend(tail);
        bytes
    }

    const OPT: &[u8] = b"\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";

    #[test]
    fn a_query_with_edns_is_read() {
        let bytes = query(OPT, [1, 0, 0, 1]);
        let view = QueryView::read(&bytes).expect("a query");
        assert_eq!(view.question.qname(), b"\x01A\x02bC\x00");
        assert_eq!(view.edns, Some(Edns { udp_size: 4096, rcode_high: 0, version: 0, do_bit: true }));
        assert!(view.question.same_as(b"\x01a\x02Bc\x00\x00\x01\x00\x01"));
        assert!(!view.question.same_as(b"\x01a\x02Bc\x00\x00\x1c\x00\x01"));
    }

    #[test]
    fn faults_are_told_apart() {
        let two_opts = [OPT, OPT].concat();
        let version_1 = b"\x00\x00\x29\x10\x00\x00\x01\x00\x00\x00\x00";
        let mut status = query(b"", [1, 0, 0, 0]);
        status[2] = 2 << 3;
        assert!(matches!(QueryView::read(&[0; 11]), Err(QueryFault::Short)));
        assert!(matches!(QueryView::read(&query(b"", [0, 0, 0, 0])), Err(QueryFault::Format(_, None))));
        assert!(matches!(QueryView::read(&query(b"", [2, 0, 0, 0])), Err(QueryFault::Format(_, None))));
        assert!(matches!(
            QueryView::read(&query(&two_opts, [1, 0, 0, 2])),
            Err(QueryFault::Format(_, Some(_)))
        ));
        assert!(matches!(
            QueryView::read(&query(&OPT[..9], [1, 0, 0, 1])),
            Err(QueryFault::Format(_, Some(_)))
        ));
        assert!(matches!(QueryView::read(&query(version_1, [1, 0, 0, 1])), Err(QueryFault::Version(..))));
        assert!(matches!(QueryView::read(&status), Err(QueryFault::Opcode(_))));
    }

    #[test]
    fn a_question_that_points_somewhere_is_refused() {
        let mut bytes = query(b"", [1, 0, 0, 0]);
        bytes[12] = 0xc0;
        assert!(matches!(QueryView::read(&bytes), Err(QueryFault::Format(_, None))));
    }
}
