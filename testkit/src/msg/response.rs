//! Responses of scripted upstreams, well-behaved or not.
//!
//! A response starts as a copy of the query's ID, opcode, RD, CD and question
//! (QR and RA set, AA clear: what a recursive upstream says) and everything
//! can be changed from there. Owners equal to the question's name become a
//! pointer to it, as real servers do; all else is uncompressed unless
//! [`compress_all`](Response::compress_all) is asked for.

use std::collections::HashMap;

use super::query::write_option;
use super::read_name;
use super::zone_line::{Part, Record};
use super::{DEFAULT_EDNS_SIZE, HEADER_LEN, class, name_to_wire, option_code, rtype, type_number};

/// The pointer to the name of the first question.
const QNAME_POINTER: [u8; 2] = [0xc0, HEADER_LEN as u8];

/// A response under construction; see the module text for the defaults.
#[derive(Clone, Debug)]
pub struct Response {
    id: u16,
    flags: u16,
    rcode: u16,
    qname: Vec<u8>,
    question: Option<Vec<u8>>,
    sections: [Vec<Record>; 3],
    claimed_ancount: Option<u16>,
    opt: Option<ResponseOpt>,
    compression: Compression,
    trailing: Vec<u8>,
}

#[derive(Clone, Debug)]
struct ResponseOpt {
    size: u16,
    version: u8,
    do_bit: bool,
    options: Vec<(u16, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Question,
    All,
}

impl Response {
    /// A response to `query`. Of a query too broken to read only the ID is
    /// taken over.
    pub fn to(query: &[u8]) -> Self {
        let word = |n: usize| query.get(2 * n..2 * n + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        let question = read_name(query, HEADER_LEN)
            .ok()
            .filter(|_| word(2) > 0)
            .and_then(|(name, end)| Some((name, query.get(end..end + 4)?)));
        let (qname, question) = match question {
            Some((name, fixed)) => (name.clone(), Some([&name[..], fixed].concat())),
            None => (vec![0], None),
        };
        Self {
            id: word(0),
            // QR and RA, with opcode, RD and CD of the query.
            flags: 0x8080 | word(1) & 0x7910,
            rcode: 0,
            qname,
            question,
            sections: [Vec::new(), Vec::new(), Vec::new()],
            claimed_ancount: None,
            opt: None,
            compression: Compression::Question,
            trailing: Vec::new(),
        }
    }

    /// Sets the ID.
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// Sets the response code; codes above 15 need [`edns`](Self::edns).
    pub fn rcode(mut self, rcode: u16) -> Self {
        self.rcode = rcode;
        self
    }

    /// Sets or clears QR.
    pub fn qr(self, on: bool) -> Self {
        self.flag(0x8000, on)
    }

    /// Sets the opcode.
    pub fn opcode(mut self, opcode: u8) -> Self {
        self.flags = self.flags & !0x7800 | u16::from(opcode & 15) << 11;
        self
    }

    /// Sets AA.
    pub fn aa(self) -> Self {
        self.flag(0x0400, true)
    }

    /// Sets TC.
    pub fn tc(self) -> Self {
        self.flag(0x0200, true)
    }

    /// Sets or clears RD (copied from the query by default).
    pub fn rd(self, on: bool) -> Self {
        self.flag(0x0100, on)
    }

    /// Sets or clears RA (set by default).
    pub fn ra(self, on: bool) -> Self {
        self.flag(0x0080, on)
    }

    /// Sets or clears the reserved Z bit.
    pub fn z(self, on: bool) -> Self {
        self.flag(0x0040, on)
    }

    /// Sets or clears AD.
    pub fn ad(self, on: bool) -> Self {
        self.flag(0x0020, on)
    }

    /// Sets or clears CD (copied from the query by default).
    pub fn cd(self, on: bool) -> Self {
        self.flag(0x0010, on)
    }

    /// Adds an answer, as a zone line: `a.example. 300 IN A 192.0.2.1`; the
    /// name `@` is the name of the query's question.
    pub fn answer(self, line: &str) -> Self {
        self.record(0, line)
    }

    /// Adds an authority record, as a zone line.
    pub fn authority(self, line: &str) -> Self {
        self.record(1, line)
    }

    /// Adds an additional record, as a zone line; it goes before OPT.
    pub fn additional(self, line: &str) -> Self {
        self.record(2, line)
    }

    /// Claims this ANCOUNT whatever number of answers is written.
    pub fn claimed_ancount(mut self, n: u16) -> Self {
        self.claimed_ancount = Some(n);
        self
    }

    /// Replaces the question, class IN.
    pub fn question(mut self, name: &str, qtype: &str) -> Self {
        let mut question = name_to_wire(name);
        question.extend_from_slice(&type_number(qtype).to_be_bytes());
        question.extend_from_slice(&class::IN.to_be_bytes());
        self.question = Some(question);
        self
    }

    /// Replaces the class of the question.
    pub fn question_class(mut self, qclass: u16) -> Self {
        let question = self.question.as_mut().expect("question_class needs a question");
        let at = question.len() - 2;
        question[at..].copy_from_slice(&qclass.to_be_bytes());
        self
    }

    /// Leaves the question section empty.
    pub fn no_question(mut self) -> Self {
        self.question = None;
        self
    }

    /// Adds an OPT record.
    pub fn edns(mut self, size: u16, do_bit: bool) -> Self {
        let opt = self.opt_mut();
        opt.size = size;
        opt.do_bit = do_bit;
        self
    }

    /// Sets the EDNS version (adds the OPT record if there is none yet).
    pub fn edns_version(mut self, version: u8) -> Self {
        self.opt_mut().version = version;
        self
    }

    /// Adds an EDNS option (and the OPT record if there is none yet).
    pub fn option(mut self, code: u16, data: impl AsRef<[u8]>) -> Self {
        self.opt_mut().options.push((code, data.as_ref().to_vec()));
        self
    }

    /// Adds an extended DNS error without text (RFC 8914).
    pub fn ede(self, code: u16) -> Self {
        self.option(option_code::EXTENDED_ERROR, code.to_be_bytes())
    }

    /// Compresses every name that may be compressed.
    pub fn compress_all(mut self) -> Self {
        self.compression = Compression::All;
        self
    }

    /// Compresses no name at all.
    pub fn no_compression(mut self) -> Self {
        self.compression = Compression::None;
        self
    }

    /// Appends bytes behind the message that no count covers.
    pub fn trailing(mut self, bytes: &[u8]) -> Self {
        self.trailing = bytes.to_vec();
        self
    }

    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        assert!(self.rcode < 16 || self.opt.is_some(), "rcode {} needs an OPT record: .edns(..)", self.rcode);
        let [answers, authority, additional] = &self.sections;
        let mut out = Vec::with_capacity(512);
        let words = [
            self.id,
            self.flags | self.rcode & 15,
            u16::from(self.question.is_some()),
            self.claimed_ancount.unwrap_or(answers.len() as u16),
            authority.len() as u16,
            additional.len() as u16 + u16::from(self.opt.is_some()),
        ];
        for word in words {
            out.extend_from_slice(&word.to_be_bytes());
        }
        let mut names = Names::new(self.compression);
        if let Some(question) = &self.question {
            let (name, fixed) = question.split_at(question.len() - 4);
            names.write(&mut out, name);
            out.extend_from_slice(fixed);
        }
        for record in self.sections.iter().flatten() {
            self.write_record(&mut out, &mut names, record);
        }
        if let Some(opt) = &self.opt {
            opt.write(&mut out, (self.rcode >> 4) as u8);
        }
        out.extend_from_slice(&self.trailing);
        out
    }

    fn write_record(&self, out: &mut Vec<u8>, names: &mut Names, record: &Record) {
        let asked = self.question.as_ref().map(|question| &question[..question.len() - 4]);
        match self.compression {
            Compression::Question
                if record.owner.len() > 1
                    && asked.is_some_and(|name| name.eq_ignore_ascii_case(&record.owner)) =>
            {
                out.extend_from_slice(&QNAME_POINTER);
            }
            _ => names.write(out, &record.owner),
        }
        out.extend_from_slice(&record.fixed_fields());
        let length_at = out.len();
        out.extend_from_slice(&[0, 0]);
        for part in &record.rdata {
            match part {
                Part::OldName(name) => names.write(out, name),
                Part::Bytes(bytes) | Part::NewName(bytes) => out.extend_from_slice(bytes),
            }
        }
        let len = out.len() - length_at - 2;
        let len = u16::try_from(len).unwrap_or_else(|_| panic!("an rdata of {len} octets is too long"));
        out[length_at..length_at + 2].copy_from_slice(&len.to_be_bytes());
    }

    fn flag(mut self, bit: u16, on: bool) -> Self {
        self.flags = if on { self.flags | bit } else { self.flags & !bit };
        self
    }

    fn record(mut self, section: usize, line: &str) -> Self {
        self.sections[section].push(Record::from_line(line, &self.qname));
        self
    }

    fn opt_mut(&mut self) -> &mut ResponseOpt {
        self.opt.get_or_insert(ResponseOpt {
            size: DEFAULT_EDNS_SIZE,
            version: 0,
            do_bit: false,
            options: Vec::new(),
        })
    }
}

impl ResponseOpt {
    fn write(&self, out: &mut Vec<u8>, extended_rcode: u8) {
        let mut rdata = Vec::new();
        for (code, data) in &self.options {
            write_option(&mut rdata, *code, data);
        }
        out.push(0);
        out.extend_from_slice(&rtype::OPT.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&[extended_rcode, self.version, u8::from(self.do_bit) << 7, 0]);
        out.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        out.extend_from_slice(&rdata);
    }
}

/// Where each name and each tail of a name was first written.
struct Names {
    /// `None`: write every name in full.
    seen: Option<HashMap<Vec<u8>, usize>>,
}

impl Names {
    fn new(compression: Compression) -> Self {
        Self { seen: (compression == Compression::All).then(HashMap::new) }
    }

    fn write(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        let Some(seen) = &mut self.seen else {
            out.extend_from_slice(name);
            return;
        };
        let mut rest = name;
        while rest[0] != 0 {
            // Spelling counts here: a pointer must not change the case.
            if let Some(at) = seen.get(rest) {
                out.extend_from_slice(&(0xc000 | *at as u16).to_be_bytes());
                return;
            }
            // Pointers have 14 bits.
            if out.len() < 0x4000 {
                seen.insert(rest.to_vec(), out.len());
            }
            let (label, tail) = rest.split_at(1 + usize::from(rest[0]));
            out.extend_from_slice(label);
            rest = tail;
        }
        out.push(0);
    }
}
