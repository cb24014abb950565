//! DNS messages as the world's clients and upstreams write and read them.
//!
//! Nothing here comes from `nodens_core::wire`: a second reading of the RFCs, so that one mistake is not made on both sides.
//! Writers append to a buffer that their caller uses again. Readers return `None` for what they cannot read.

use std::fmt::Write as _;

/// Header bits, in octets 2 and 3 (RFC 1035 §4.1.1, RFC 4035 §3.2).
#[allow(missing_docs, reason = "the bits by their usual names")]
pub mod flag {
    pub const QR: u16 = 0x8000;
    pub const OPCODE: u16 = 0x7800;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
}

/// Length of a header.
pub const HEADER: usize = 12;
/// Length of an OPT record without options.
pub const OPT: usize = 11;
/// Length of an OPT record with one extended error without text (RFC 8914 §2).
pub const OPT_WITH_ERROR: usize = OPT + 6;

const OPT_TYPE: u16 = 41;
const EXTENDED_ERROR: u16 = 15;
const CLIENT_SUBNET: u16 = 8;

/// A 16-bit number at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

/// A 32-bit number at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// Appends a header.
pub fn put_header(out: &mut Vec<u8>, id: u16, flags: u16, counts: [u16; 4]) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    counts.iter().for_each(|count| out.extend_from_slice(&count.to_be_bytes()));
}

/// An OPT record's contents.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Opt {
    /// The sender's UDP size.
    pub size: u16,
    /// Upper eight bits of the RCODE.
    pub rcode_high: u8,
    /// EDNS version.
    pub version: u8,
    /// DNSSEC OK.
    pub do_bit: bool,
    /// The extended error's code.
    pub error: Option<u16>,
    /// It has a client subnet option with a scope (RFC 7871).
    pub scoped: bool,
}

impl Opt {
    /// Version 0, no options.
    pub const fn plain(size: u16, do_bit: bool) -> Self {
        Opt { size, rcode_high: 0, version: 0, do_bit, error: None, scoped: false }
    }
}

/// Appends an OPT record.
pub fn put_opt(out: &mut Vec<u8>, opt: Opt) {
    let len = if opt.error.is_some() { 6 } else { 0 } + if opt.scoped { 11 } else { 0 };
    out.push(0);
    out.extend_from_slice(&OPT_TYPE.to_be_bytes());
    out.extend_from_slice(&opt.size.to_be_bytes());
    out.extend_from_slice(&[opt.rcode_high, opt.version, if opt.do_bit { 0x80 } else { 0 }, 0]);
    out.extend_from_slice(&u16::to_be_bytes(len));
    if opt.scoped {
        // Family 1, source prefix 24, scope prefix 24, 3 bytes of address.
        out.extend_from_slice(&CLIENT_SUBNET.to_be_bytes());
        out.extend_from_slice(&[0, 7, 0, 1, 24, 24, 192, 0, 2]);
    }
    if let Some(error) = opt.error {
        out.extend_from_slice(&EXTENDED_ERROR.to_be_bytes());
        out.extend_from_slice(&[0, 2]);
        out.extend_from_slice(&error.to_be_bytes());
    }
}

/// Where the question (at octet 12) ends; `None` if its name is not plain.
pub fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let len = usize::from(*bytes.get(at)?);
        at += 1 + len;
        match len {
            0 => break,
            1..=63 => {}
            _ => return None,
        }
    }
    (at + 4 <= bytes.len()).then_some(at + 4)
}

/// What the Forwarder sent to an upstream: a header, one question, perhaps an OPT, nothing else.
#[derive(Copy, Clone, Debug)]
pub struct Asked<'a> {
    /// Its ID.
    pub id: u16,
    /// Octets 2 and 3.
    pub flags: u16,
    /// The question with its name as spelled.
    pub question: &'a [u8],
    /// Its OPT.
    pub opt: Option<Opt>,
}

/// Reads a query that has nothing but a question and an OPT, and nothing after them.
pub fn read_asked(bytes: &[u8]) -> Option<Asked<'_>> {
    let (id, flags) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?);
    let end = question_end(bytes)?;
    let question = &bytes[HEADER..end];
    let opt = match bytes[4..HEADER] {
        [0, 1, 0, 0, 0, 0, 0, 0] if bytes.len() == end => None,
        [0, 1, 0, 0, 0, 0, 0, 1] => Some(read_opt(&bytes[end..])?),
        _ => return None,
    };
    Some(Asked { id, flags, question, opt })
}

/// Reads an OPT record that is all of `bytes`.
pub fn read_opt(bytes: &[u8]) -> Option<Opt> {
    if bytes.first() != Some(&0) || u16_at(bytes, 1)? != OPT_TYPE {
        return None;
    }
    let options = bytes.get(OPT..)?;
    if usize::from(u16_at(bytes, 9)?) != options.len() {
        return None;
    }
    let mut opt = Opt {
        size: u16_at(bytes, 3)?,
        rcode_high: bytes[5],
        version: bytes[6],
        do_bit: bytes[7] & 0x80 != 0,
        error: None,
        scoped: false,
    };
    let mut rest = options;
    while !rest.is_empty() {
        let len = usize::from(u16_at(rest, 2)?);
        let value = rest.get(4..4 + len)?;
        match u16_at(rest, 0)? {
            EXTENDED_ERROR => opt.error = u16_at(value, 0),
            CLIENT_SUBNET => opt.scoped = value.get(3).is_some_and(|scope| *scope > 0),
            _ => {}
        }
        rest = &rest[4 + len..];
    }
    Some(opt)
}

/// A record of a message, for people and for the question which version an answer carries.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// 1 answer, 2 authority, 3 additional.
    pub section: u8,
    /// The owner, in presentation format.
    pub owner: String,
    /// Its type.
    pub rtype: u16,
    /// Its class.
    pub class: u16,
    /// Its TTL as written.
    pub ttl: u32,
    /// Its data, not decompressed.
    pub data: &'a [u8],
}

/// Reads all records of a message; `None` if they do not parse or bytes are left over.
pub fn read_records(bytes: &[u8]) -> Option<Vec<Seen<'_>>> {
    let mut at = question_end(bytes)?;
    let mut records = Vec::new();
    for section in 1..=3u8 {
        for _ in 0..u16_at(bytes, 4 + 2 * usize::from(section))? {
            let (owner, fixed) = read_name(bytes, at)?;
            let end = fixed + 10 + usize::from(u16_at(bytes, fixed + 8)?);
            records.push(Seen {
                section,
                owner,
                rtype: u16_at(bytes, fixed)?,
                class: u16_at(bytes, fixed + 2)?,
                ttl: u32_at(bytes, fixed + 4)?,
                data: bytes.get(fixed + 10..end)?,
            });
            at = end;
        }
    }
    (at == bytes.len()).then_some(records)
}

/// A name that may be compressed, and where what follows it begins.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut at, mut after, mut text) = (start, None, String::new());
    // An honest name has no more labels and pointers than this.
    for _ in 0..128 {
        let len = usize::from(*bytes.get(at)?);
        if len >= 0xc0 {
            let target = usize::from(u16_at(bytes, at)? & 0x3fff);
            after.get_or_insert(at + 2);
            if target >= at {
                return None;
            }
            at = target;
            continue;
        }
        if len == 0 {
            let text = if text.is_empty() { ".".to_owned() } else { text };
            return Some((text, after.unwrap_or(at + 1)));
        }
        text.push_str(&String::from_utf8_lossy(bytes.get(at + 1..at + 1 + len)?));
        text.push('.');
        at += 1 + len;
    }
    None
}

/// A message in one line, for traces.
pub fn describe(bytes: &[u8]) -> String {
    let (Some(id), Some(flags)) = (u16_at(bytes, 0), u16_at(bytes, 2)) else {
        return format!("{} bytes: {}", bytes.len(), hex(bytes));
    };
    let mut text = format!("id={id:#06x}");
    for (bit, name) in [
        (flag::QR, "qr"),
        (flag::AA, "aa"),
        (flag::TC, "tc"),
        (flag::RD, "rd"),
        (flag::RA, "ra"),
        (flag::AD, "ad"),
        (flag::CD, "cd"),
    ] {
        if flags & bit != 0 {
            let _ = write!(text, " {name}");
        }
    }
    if flags & flag::OPCODE != 0 {
        let _ = write!(text, " opcode={}", (flags & flag::OPCODE) >> 11);
    }
    if flags & flag::QR != 0 {
        let _ = write!(text, " rcode={}", flags & 0xf);
    }
    if let Some((name, after)) = read_name(bytes, HEADER) {
        let qtype = u16_at(bytes, after).unwrap_or(0);
        let shown =
            if name.len() > 48 { format!("{}...", &name[..name.floor_char_boundary(44)]) } else { name };
        let _ = write!(text, " {shown} {}", crate::questions::type_text(qtype));
    }
    match read_records(bytes) {
        Some(records) => {
            for record in records.iter().take(3) {
                let kind = crate::questions::type_text(record.rtype);
                let _ = write!(text, " | {kind} ttl={} {}", record.ttl, hex(record.data));
            }
            if records.len() > 3 {
                let _ = write!(text, " | {} more", records.len() - 3);
            }
        }
        None => {
            let _ = write!(text, " ({} bytes, does not parse)", bytes.len());
        }
    }
    text
}

/// The first bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(16) {
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > 16 {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        put_header(&mut bytes, 7, flag::RD, [1, 0, 0, 1]);
        bytes.extend_from_slice(b"\x02n1\x00\x00\x01\x00\x01");
        let opt = Opt { error: Some(22), scoped: true, ..Opt::plain(1232, true) };
        put_opt(&mut bytes, opt);
        let asked = read_asked(&bytes).expect("a query");
        assert_eq!((asked.id, asked.opt), (7, Some(opt)));
        assert_eq!(read_records(&bytes).map(|records| records.len()), Some(1));
        bytes.push(0);
        assert!(read_asked(&bytes).is_none(), "a byte is left over");
    }
}
