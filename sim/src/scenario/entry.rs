//! An entry: one message as a scenario writes it, what of it is compared, and its bytes.
//!
//! Bytes are written, and answers read, by the test kit's codec, so that a mistake in the core's own cannot hide.

use super::matching::Word;
use nodens_testkit::{Query, Reply, Response};

/// Header bits by their names.
pub(super) const FLAGS: [(&str, u16); 8] = [
    ("QR", 0x8000),
    ("AA", 0x0400),
    ("TC", 0x0200),
    ("RD", 0x0100),
    ("RA", 0x0080),
    ("Z", 0x0040),
    ("AD", 0x0020),
    ("CD", 0x0010),
];
/// Opcodes by their names.
pub(super) const OPCODES: [(&str, u8); 4] = [("QUERY", 0), ("STATUS", 2), ("NOTIFY", 4), ("UPDATE", 5)];
/// Response codes by their names; any other is written `RCODEnn`.
pub(super) const RCODES: [(&str, u16); 8] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("BADVERS", 16),
    ("BADCOOKIE", 23),
];

/// One message of a scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) line: usize,
    /// What is compared.
    pub(super) words: Vec<Word>,
    pub(super) flags: u16,
    pub(super) opcode: u8,
    pub(super) rcode: u16,
    /// The ID, if it matters.
    pub(super) id: Option<u16>,
    pub(super) copy_id: bool,
    pub(super) copy_query: bool,
    /// The upstream got the query and says nothing.
    pub(super) do_not_answer: bool,
    /// Every name that may be compressed is.
    pub(super) compress: bool,
    /// Bytes after the last record.
    pub(super) trailing: Vec<u8>,
    pub(super) question: Option<Question>,
    /// Answer, authority, additional: zone lines.
    pub(super) sections: [Vec<String>; 3],
    pub(super) edns: Option<EdnsLine>,
    /// The whole message, given in hexadecimal.
    pub(super) raw: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: String,
    pub(super) qtype: String,
    pub(super) qclass: u16,
}

#[derive(Clone, Debug)]
pub(super) struct EdnsLine {
    pub(super) size: u16,
    pub(super) do_bit: bool,
    pub(super) version: u8,
    pub(super) options: Vec<(u16, Vec<u8>)>,
}

impl Default for EdnsLine {
    fn default() -> Self {
        EdnsLine {
            size: nodens_testkit::msg::DEFAULT_EDNS_SIZE,
            do_bit: false,
            version: 0,
            options: Vec::new(),
        }
    }
}

impl Entry {
    /// The client's query, with `id` unless the entry names one.
    pub(super) fn query_bytes(&self, id: u16) -> Vec<u8> {
        let id = self.id.unwrap_or(id);
        if let Some(raw) = &self.raw {
            return with_id(raw, id);
        }
        let set = |bit| self.flags & bit != 0;
        let mut query = self
            .base_query()
            .id(id)
            .opcode(self.opcode)
            .qr(set(0x8000))
            .aa(set(0x0400))
            .tc(set(0x0200))
            .rd(set(0x0100))
            .ra(set(0x0080))
            .z(set(0x0040))
            .ad(set(0x0020))
            .cd(set(0x0010));
        let [answers, authority, additional] = &self.sections;
        query = answers.iter().fold(query, |query, line| query.answer(line));
        query = authority.iter().fold(query, |query, line| query.authority(line));
        query = additional.iter().fold(query, |query, line| query.additional(line));
        if let Some(edns) = &self.edns {
            query = query.edns(edns.size).edns_version(edns.version);
            if edns.do_bit {
                query = query.do_bit();
            }
            query = edns.options.iter().fold(query, |query, (code, data)| query.option(*code, data));
        }
        query.trailing(&self.trailing).bytes()
    }

    /// What an upstream answers to `query`.
    pub(super) fn reply_bytes(&self, query: &[u8]) -> Vec<u8> {
        let asked_id = query.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        let id = self.id.unwrap_or(if self.copy_id { asked_id } else { 0 });
        if let Some(raw) = &self.raw {
            return with_id(raw, id);
        }
        self.response_to(self.copy_query.then_some(query), id)
    }

    /// The message that the entry's lines describe, opened up for comparing.
    pub(super) fn message(&self) -> Reply {
        Reply::parse(&self.response_to(None, 0))
    }

    /// A response with the question of `query`, or the entry's own, or none.
    fn response_to(&self, query: Option<&[u8]>, id: u16) -> Vec<u8> {
        let own = self.question.as_ref().map(|_| self.base_query().bytes());
        self.fill(match query.or(own.as_deref()) {
            Some(query) => Response::to(query).id(id),
            None => Response::to(&[0; 12]).id(id).no_question(),
        })
    }

    fn fill(&self, response: Response) -> Vec<u8> {
        let set = |bit| self.flags & bit != 0;
        let mut response = response
            .opcode(self.opcode)
            .rcode(self.rcode)
            .qr(set(0x8000))
            .rd(set(0x0100))
            .ra(set(0x0080))
            .z(set(0x0040))
            .ad(set(0x0020))
            .cd(set(0x0010));
        if set(0x0400) {
            response = response.aa();
        }
        if set(0x0200) {
            response = response.tc();
        }
        let [answers, authority, additional] = &self.sections;
        response = answers.iter().fold(response, |response, line| response.answer(line));
        response = authority.iter().fold(response, |response, line| response.authority(line));
        response = additional.iter().fold(response, |response, line| response.additional(line));
        if let Some(edns) = &self.edns {
            response = response.edns(edns.size, edns.do_bit).edns_version(edns.version);
            response =
                edns.options.iter().fold(response, |response, (code, data)| response.option(*code, data));
        }
        if self.compress {
            response = response.compress_all();
        }
        response.trailing(&self.trailing).bytes()
    }

    /// The entry's question, or the root's, as a query.
    fn base_query(&self) -> Query {
        match &self.question {
            Some(question) => Query::new(&question.name, &question.qtype).class(question.qclass),
            None => Query::new(".", "A").qdcount(0),
        }
    }
}

fn with_id(raw: &[u8], id: u16) -> Vec<u8> {
    let mut bytes = raw.to_vec();
    if let Some(place) = bytes.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
    bytes
}
