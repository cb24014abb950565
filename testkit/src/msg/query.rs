//! Queries, legal and illegal.
//!
//! The name is written exactly as spelled; nothing is normalised or checked.
//! The default is what a stub resolver sends: a random-looking ID, RD set,
//! class IN, no EDNS.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use super::name::name_to_wire;
use super::zone_line::Record;
use super::{DEFAULT_EDNS_SIZE, class, option_code, rtype, type_number};

/// A query under construction; see the module text for the defaults.
#[derive(Clone, Debug)]
pub struct Query {
    id: u16,
    flags: u16,
    name: Vec<u8>,
    qtype: u16,
    qclass: u16,
    questions: u16,
    claimed_qdcount: Option<u16>,
    records: [Vec<Record>; 3],
    opts: u16,
    opt: OptFields,
    pad_to: Option<usize>,
    trailing: Vec<u8>,
}

#[derive(Clone, Debug)]
struct OptFields {
    owner: Vec<u8>,
    size: u16,
    version: u8,
    do_bit: bool,
    options: Vec<(u16, Vec<u8>)>,
}

impl Query {
    /// A query for `name` (presentation format) and a type by mnemonic or
    /// `TYPEnnn`.
    pub fn new(name: &str, qtype: &str) -> Self {
        Self {
            id: RandomState::new().build_hasher().finish() as u16,
            flags: 0x0100,
            name: name_to_wire(name),
            qtype: type_number(qtype),
            qclass: class::IN,
            questions: 1,
            claimed_qdcount: None,
            records: [Vec::new(), Vec::new(), Vec::new()],
            opts: 0,
            opt: OptFields {
                owner: vec![0],
                size: DEFAULT_EDNS_SIZE,
                version: 0,
                do_bit: false,
                options: Vec::new(),
            },
            pad_to: None,
            trailing: Vec::new(),
        }
    }

    /// Sets the message ID.
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// Sets or clears QR; with `true` this is a response sent as a query.
    pub fn qr(self, on: bool) -> Self {
        self.flag(0x8000, on)
    }

    /// Sets or clears AA.
    pub fn aa(self, on: bool) -> Self {
        self.flag(0x0400, on)
    }

    /// Sets or clears TC.
    pub fn tc(self, on: bool) -> Self {
        self.flag(0x0200, on)
    }

    /// Sets or clears RD (set by default).
    pub fn rd(self, on: bool) -> Self {
        self.flag(0x0100, on)
    }

    /// Sets or clears RA.
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

    /// Sets or clears CD.
    pub fn cd(self, on: bool) -> Self {
        self.flag(0x0010, on)
    }

    /// Sets the opcode.
    pub fn opcode(mut self, opcode: u8) -> Self {
        self.flags = self.flags & !0x7800 | u16::from(opcode & 15) << 11;
        self
    }

    /// Sets the class of the question.
    pub fn class(mut self, qclass: u16) -> Self {
        self.qclass = qclass;
        self
    }

    /// Replaces the name by raw bytes, for names no encoder would write.
    pub fn raw_name(mut self, bytes: &[u8]) -> Self {
        self.name = bytes.to_vec();
        self
    }

    /// Writes the question `n` times, with a QDCOUNT that says so.
    pub fn qdcount(mut self, n: u16) -> Self {
        self.questions = n;
        self
    }

    /// Claims this QDCOUNT whatever number of questions is written.
    pub fn claimed_qdcount(mut self, n: u16) -> Self {
        self.claimed_qdcount = Some(n);
        self
    }

    /// Adds an OPT record with this payload size, DO clear.
    pub fn edns(mut self, size: u16) -> Self {
        self.opt.size = size;
        self.with_opt()
    }

    /// Sets DO (adds the OPT record if there is none yet).
    pub fn do_bit(mut self) -> Self {
        self.opt.do_bit = true;
        self.with_opt()
    }

    /// Adds an OPT record if there is none yet and clears DO.
    pub fn dono(mut self) -> Self {
        self.opt.do_bit = false;
        self.with_opt()
    }

    /// Adds an EDNS option.
    pub fn option(mut self, code: u16, data: impl AsRef<[u8]>) -> Self {
        self.opt.options.push((code, data.as_ref().to_vec()));
        self.with_opt()
    }

    /// Sets the EDNS version.
    pub fn edns_version(mut self, version: u8) -> Self {
        self.opt.version = version;
        self.with_opt()
    }

    /// Gives the OPT record an owner other than the root, which RFC 6891
    /// (6.1.2) forbids.
    pub fn opt_owner(mut self, name: &str) -> Self {
        self.opt.owner = name_to_wire(name);
        self.with_opt()
    }

    /// Writes the OPT record twice, which RFC 6891 (6.1.1) forbids.
    pub fn two_opts(mut self) -> Self {
        self.opts = 2;
        self
    }

    /// Makes the message exactly `len` bytes long with a padding option
    /// (RFC 7830). Panics in [`bytes`](Self::bytes) if it is already longer.
    pub fn pad_to(mut self, len: usize) -> Self {
        self.pad_to = Some(len);
        self.with_opt()
    }

    /// Puts a record (a zone line) into the answer section.
    pub fn answer(self, line: &str) -> Self {
        self.record(0, line)
    }

    /// Puts a record (a zone line) into the authority section.
    pub fn authority(self, line: &str) -> Self {
        self.record(1, line)
    }

    /// Puts a record (a zone line) into the additional section, before OPT.
    pub fn additional(self, line: &str) -> Self {
        self.record(2, line)
    }

    /// Appends bytes behind the message that no count covers.
    pub fn trailing(mut self, bytes: &[u8]) -> Self {
        self.trailing = bytes.to_vec();
        self
    }

    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        let Some(len) = self.pad_to else { return self.write(None) };
        let unpadded = self.write(Some(0)).len();
        let missing = len.checked_sub(unpadded);
        let missing = missing.unwrap_or_else(|| panic!("{unpadded} bytes cannot be padded to {len}"));
        self.write(Some(missing))
    }

    fn write(&self, padding: Option<usize>) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let [answers, authority, additional] = &self.records;
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        let counts = [
            self.claimed_qdcount.unwrap_or(self.questions),
            answers.len() as u16,
            authority.len() as u16,
            additional.len() as u16 + self.opts,
        ];
        for count in counts {
            out.extend_from_slice(&count.to_be_bytes());
        }
        for _ in 0..self.questions {
            out.extend_from_slice(&self.name);
            out.extend_from_slice(&self.qtype.to_be_bytes());
            out.extend_from_slice(&self.qclass.to_be_bytes());
        }
        for record in self.records.iter().flatten() {
            out.extend_from_slice(&record.uncompressed());
        }
        for n in 0..self.opts {
            self.opt.write(&mut out, padding.filter(|_| n == 0));
        }
        out.extend_from_slice(&self.trailing);
        out
    }

    fn flag(mut self, bit: u16, on: bool) -> Self {
        self.flags = if on { self.flags | bit } else { self.flags & !bit };
        self
    }

    fn with_opt(mut self) -> Self {
        self.opts = self.opts.max(1);
        self
    }

    fn record(mut self, section: usize, line: &str) -> Self {
        self.records[section].push(Record::from_line(line, &self.name));
        self
    }
}

impl OptFields {
    fn write(&self, out: &mut Vec<u8>, padding: Option<usize>) {
        let mut rdata = Vec::new();
        for (code, data) in &self.options {
            write_option(&mut rdata, *code, data);
        }
        if let Some(len) = padding {
            write_option(&mut rdata, option_code::PADDING, &vec![0; len]);
        }
        out.extend_from_slice(&self.owner);
        out.extend_from_slice(&rtype::OPT.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&[0, self.version, u8::from(self.do_bit) << 7, 0]);
        out.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        out.extend_from_slice(&rdata);
    }
}

/// Writes one EDNS option (RFC 6891, 6.1.2).
pub(crate) fn write_option(out: &mut Vec<u8>, code: u16, data: &[u8]) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}
