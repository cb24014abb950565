//! Sound responses drawn from decisions: any order of types, names written out or compressed in any legal way, an OPT anywhere in
//! the additional section.

use crate::input::Input;

/// Records of a message at most.
const RECORDS_MAX: usize = 40;
/// A name this long is not made longer.
const NAME_LEN_MAX: usize = 120;

/// Names to ask for, in one spelling of many.
const QNAMES: [&[u8]; 6] = [
    b"\x00",
    b"\x01a\x00",
    b"\x03wWw\x07eXample\x00",
    b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00",
    b"\x04_dns\x04_udp\x01a\x00",
    b"\x3fabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk\x00",
];
/// Types to ask for and to answer with: with names in their RDATA, without, unknown.
const TYPES: [u16; 16] = [1, 28, 5, 6, 2, 12, 15, 16, 33, 39, 46, 14, 26, 257, 65, 65_280];
/// TTLs that rules turn on, in seconds.
const TTLS: [u32; 10] = [0, 1, 5, 30, 300, 3600, 86_400, 0x7fff_ffff, 0x8000_0000, u32::MAX];

/// A message under construction.
struct Builder<'i, 'a> {
    input: &'i mut Input<'a>,
    bytes: Vec<u8>,
    /// Where names begin that can be pointed to, and how long they are written out.
    names: Vec<(usize, usize)>,
}

/// A response with one question. It is sound by construction.
pub(crate) fn response(input: &mut Input<'_>) -> Vec<u8> {
    let flags = 0x8000 | input.word() & 0x05b0;
    let rcode = u16::from(input.one_of(&[0u8, 0, 0, 2, 3, 5, 9, 15]));
    let qname = input.one_of(&QNAMES);
    let qtype = input.one_of(&TYPES);
    let mut bytes = vec![0; 12];
    bytes[2..4].copy_from_slice(&(flags | rcode).to_be_bytes());
    bytes[5] = 1;
    let mut builder = Builder { input, bytes, names: Vec::new() };
    let mut at = 0;
    while qname[at] != 0 {
        builder.names.push((12 + at, qname.len() - at));
        at += 1 + usize::from(qname[at]);
    }
    builder.bytes.extend(qname);
    builder.bytes.extend([(qtype >> 8) as u8, qtype as u8, 0, 1]);
    let mut counts = [0u16; 3];
    let mut section = 0;
    let mut has_opt = false;
    for _ in 0..RECORDS_MAX {
        if builder.input.is_empty() {
            break;
        }
        match builder.input.below(12) {
            0 => section = (section + 1).min(2),
            1 if !has_opt => {
                section = 2;
                has_opt = true;
                builder.opt();
                counts[section] += 1;
            }
            _ => {
                builder.record(qtype);
                counts[section] += 1;
            }
        }
    }
    for (section, count) in counts.iter().enumerate() {
        builder.bytes[6 + 2 * section..8 + 2 * section].copy_from_slice(&count.to_be_bytes());
    }
    builder.bytes
}

impl Builder<'_, '_> {
    fn record(&mut self, qtype: u16) {
        self.name();
        let rtype = if self.input.one_in(2) { qtype } else { self.input.one_of(&TYPES) };
        self.bytes.extend(rtype.to_be_bytes());
        self.bytes.extend([0, if self.input.one_in(40) { 3 } else { 1 }]);
        let ttl = self.input.one_of(&TTLS);
        self.bytes.extend(ttl.to_be_bytes());
        let len_at = self.bytes.len();
        self.bytes.extend([0, 0]);
        match rtype {
            2 | 5 | 12 | 39 => self.name(),
            6 => {
                self.name();
                self.name();
                self.octets(20);
            }
            14 => {
                self.name();
                self.name();
            }
            15 => {
                self.octets(2);
                self.name();
            }
            26 => {
                self.octets(2);
                self.name();
                self.name();
            }
            33 => {
                self.octets(6);
                self.name();
            }
            1 => self.octets(4),
            28 => self.octets(16),
            46 => self.octets(20),
            _ => {
                let len = usize::from(self.input.byte());
                self.octets(len);
            }
        }
        let len = (self.bytes.len() - len_at - 2) as u16;
        self.bytes[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
    }

    /// Labels, then the root or a pointer to a name that stands before.
    fn name(&mut self) {
        let start = self.bytes.len();
        let mut written = Vec::new();
        for _ in 0..self.input.below(4) {
            let len = 1 + self.input.below(7);
            written.push(self.bytes.len());
            self.bytes.push(len as u8);
            let label = self.input.take(len);
            self.bytes.extend(label);
            self.bytes.resize(self.bytes.len() + len - label.len(), b'x');
        }
        let labels_len = self.bytes.len() - start;
        let pointed = if self.names.is_empty() || self.input.one_in(3) {
            None
        } else {
            let at = self.input.below(self.names.len().min(256));
            Some(self.names[at]).filter(|(at, len)| *at < 0x4000 && len + labels_len <= NAME_LEN_MAX)
        };
        let rest_len = match pointed {
            Some((at, len)) => {
                self.bytes.extend((0xc000 | at as u16).to_be_bytes());
                // A pointer can be pointed to as well.
                self.names.push((self.bytes.len() - 2, len));
                len
            }
            None => {
                self.bytes.push(0);
                1
            }
        };
        let labels_end = start + labels_len;
        self.names.extend(written.into_iter().map(|at| (at, labels_end - at + rest_len)));
    }

    fn octets(&mut self, len: usize) {
        let given = self.input.take(len);
        self.bytes.extend(given);
        self.bytes.resize(self.bytes.len() + len - given.len(), 0);
    }

    fn opt(&mut self) {
        let size = self.input.word();
        self.bytes.extend([0, 0, 41]);
        self.bytes.extend(size.to_be_bytes());
        // Upper bits of the RCODE, version, DO and what is reserved beside it.
        let (high, flags) = (self.input.one_of(&[0, 0, 0, 1, 0xff]), self.input.byte());
        self.bytes.extend([high, 0, flags, 0]);
        let len_at = self.bytes.len();
        self.bytes.extend([0, 0]);
        for _ in 0..self.input.below(3) {
            let code = self.input.one_of(&[15, 8, 10, 3]);
            let len = self.input.below(8);
            self.bytes.extend([0, code, 0, len as u8]);
            self.octets(len);
        }
        let len = (self.bytes.len() - len_at - 2) as u16;
        self.bytes[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
    }
}
