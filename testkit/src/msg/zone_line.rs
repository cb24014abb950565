//! Records written as zone-file lines: `owner ttl class type rdata`.
//!
//! One line is one record; all names are absolute and `@` is the name of the
//! question. No `$ORIGIN`, no brackets, no defaults: a test should show the
//! record it means. Types the parser does not know are written as in RFC 3597:
//! `TYPE65280 \# 3 c00001`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::name::{try_name_to_wire, unescape};
use super::types::try_type_number;
use super::{class, rtype};

/// A record ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) owner: Vec<u8>,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) rdata: Vec<Part>,
}

/// Whether [`Response`](super::Response) and [`Query`](super::Query) will take this record; the error is a sentence. For lines that a
/// person wrote into a file, where a panic could not say which line it was.
pub fn check_record(line: &str) -> Result<(), String> {
    Record::try_from_line(line, b"\0").map(drop)
}

/// A piece of RDATA; names are apart so that a writer may compress them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    /// A name in a type of RFC 1035, which may be compressed.
    OldName(Vec<u8>),
    /// A name that must not be compressed (RFC 3597, section 4).
    NewName(Vec<u8>),
}

impl Record {
    /// Parses a line; panics with a sentence if it is wrong.
    pub(crate) fn from_line(line: &str, qname: &[u8]) -> Self {
        Self::try_from_line(line, qname).unwrap_or_else(|why| panic!("the record '{line}' is wrong: {why}"))
    }

    /// The record without any compression.
    pub(crate) fn uncompressed(&self) -> Vec<u8> {
        let rdata: Vec<u8> = self.rdata.iter().flat_map(Part::bytes).copied().collect();
        let mut out = self.owner.clone();
        out.extend_from_slice(&self.fixed_fields());
        out.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        out.extend_from_slice(&rdata);
        out
    }

    /// Type, class and TTL as on the wire.
    pub(crate) fn fixed_fields(&self) -> [u8; 8] {
        let ([t0, t1], [c0, c1]) = (self.rtype.to_be_bytes(), self.class.to_be_bytes());
        let [l0, l1, l2, l3] = self.ttl.to_be_bytes();
        [t0, t1, c0, c1, l0, l1, l2, l3]
    }

    fn try_from_line(line: &str, qname: &[u8]) -> Result<Self, String> {
        let mut words = Words { rest: line };
        let owner = match words.next_word("an owner")? {
            "@" => qname.to_vec(),
            name => try_name_to_wire(name)?,
        };
        let ttl = words.number("a TTL")?;
        let class = match words.next_word("a class")? {
            "IN" => class::IN,
            "CH" => class::CH,
            other => other
                .strip_prefix("CLASS")
                .and_then(|n| n.parse().ok())
                .ok_or_else(|| format!("'{other}' is no class"))?,
        };
        let type_word = words.next_word("a type")?;
        let rtype = try_type_number(type_word).ok_or_else(|| format!("'{type_word}' is no type"))?;
        let rdata = words.rdata(rtype, qname)?;
        match words.rest.trim() {
            "" => Ok(Self { owner, rtype, class, ttl, rdata }),
            rest => Err(format!("'{rest}' is left over behind the rdata")),
        }
    }
}

impl Part {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) | Self::OldName(bytes) | Self::NewName(bytes) => bytes,
        }
    }
}

/// The words of a line, from left to right.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn rdata(&mut self, kind: u16, qname: &[u8]) -> Result<Vec<Part>, String> {
        if self.rest.trim_start().starts_with("\\#") {
            return Ok(vec![Part::Bytes(self.generic()?)]);
        }
        Ok(match kind {
            rtype::A => vec![Part::Bytes(self.parsed::<Ipv4Addr>("an IPv4 address")?.octets().to_vec())],
            rtype::AAAA => vec![Part::Bytes(self.parsed::<Ipv6Addr>("an IPv6 address")?.octets().to_vec())],
            rtype::NS | rtype::CNAME | rtype::PTR => vec![Part::OldName(self.name(qname)?)],
            rtype::DNAME => vec![Part::NewName(self.name(qname)?)],
            rtype::MX => {
                let preference = self.number::<u16>("a preference")?;
                vec![Part::Bytes(preference.to_be_bytes().to_vec()), Part::OldName(self.name(qname)?)]
            }
            rtype::SRV => {
                let mut bytes = Vec::new();
                for what in ["a priority", "a weight", "a port"] {
                    bytes.extend_from_slice(&self.number::<u16>(what)?.to_be_bytes());
                }
                vec![Part::Bytes(bytes), Part::NewName(self.name(qname)?)]
            }
            rtype::SOA => {
                let (mname, rname) = (self.name(qname)?, self.name(qname)?);
                let mut bytes = Vec::new();
                for what in ["a serial", "a refresh", "a retry", "an expire", "a minimum"] {
                    bytes.extend_from_slice(&self.number::<u32>(what)?.to_be_bytes());
                }
                vec![Part::OldName(mname), Part::OldName(rname), Part::Bytes(bytes)]
            }
            rtype::TXT => vec![Part::Bytes(self.strings()?)],
            rtype::RRSIG => self.rrsig(qname)?,
            _ => return Err("the rdata of this type must be written as '\\# length hex'".into()),
        })
    }

    fn rrsig(&mut self, qname: &[u8]) -> Result<Vec<Part>, String> {
        let covered = self.next_word("the type covered")?;
        let covered = try_type_number(covered).ok_or_else(|| format!("'{covered}' is no type"))?;
        let mut head = covered.to_be_bytes().to_vec();
        head.push(self.number("an algorithm")?);
        head.push(self.number("a label count")?);
        head.extend_from_slice(&self.number::<u32>("the original TTL")?.to_be_bytes());
        for what in ["the expiration", "the inception"] {
            head.extend_from_slice(&time(self.next_word(what)?)?.to_be_bytes());
        }
        head.extend_from_slice(&self.number::<u16>("a key tag")?.to_be_bytes());
        let signer = self.name(qname)?;
        let signature = base64(std::mem::take(&mut self.rest))?;
        Ok(vec![Part::Bytes(head), Part::NewName(signer), Part::Bytes(signature)])
    }

    fn strings(&mut self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        while !self.rest.trim_start().is_empty() {
            let string = self.string()?;
            let len = u8::try_from(string.len()).map_err(|_| "a string is longer than 255 octets")?;
            out.push(len);
            out.extend_from_slice(&string);
        }
        if out.is_empty() { Err("a string is missing".into()) } else { Ok(out) }
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        self.rest = self.rest.trim_start();
        let quoted = self.rest.starts_with('"');
        let text = self.rest;
        let mut bytes = text.bytes().skip(usize::from(quoted));
        let mut string = Vec::new();
        let closed = loop {
            match bytes.next() {
                None => break !quoted,
                Some(b'"') if quoted => break true,
                Some(b' ' | b'\t') if !quoted => break true,
                Some(b'\\') => string.push(unescape(&mut bytes)?),
                Some(byte) => string.push(byte),
            }
        };
        let left = bytes.len();
        self.rest = text.get(text.len() - left..).ok_or("a quote stands inside a character")?;
        if closed { Ok(string) } else { Err("a quote is not closed".into()) }
    }

    fn generic(&mut self) -> Result<Vec<u8>, String> {
        self.next_word("\\#")?;
        let len: usize = self.number("the length of the rdata")?;
        let digits: String = std::mem::take(&mut self.rest).split_whitespace().collect();
        let bytes = hex(&digits)?;
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(format!("the rdata has {} octets but claims {len}", bytes.len())),
        }
    }

    fn name(&mut self, qname: &[u8]) -> Result<Vec<u8>, String> {
        match self.next_word("a name")? {
            "@" => Ok(qname.to_vec()),
            name => try_name_to_wire(name),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        self.parsed(what)
    }

    fn parsed<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        let word = self.next_word(what)?;
        word.parse().map_err(|_| format!("'{word}' is not {what}"))
    }

    fn next_word(&mut self, what: &str) -> Result<&'a str, String> {
        let text = self.rest.trim_start();
        let end = text.find([' ', '\t']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        if word.is_empty() { Err(format!("{what} is missing")) } else { Ok(word) }
    }
}

fn hex(digits: &str) -> Result<Vec<u8>, String> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("'{digits}' is not hexadecimal octets"));
    }
    let pairs = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
    pairs.collect::<Result<_, _>>().map_err(|why| why.to_string())
}

fn base64(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(format!("'{}' is not base64", char::from(byte))),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Ok(out)
}

/// Seconds since 1970, given so or as `YYYYMMDDHHmmSS` (RFC 4034, 3.2).
fn time(word: &str) -> Result<u32, String> {
    let wrong = || format!("'{word}' is no time (seconds or YYYYMMDDHHmmSS)");
    if word.len() != 14 {
        return word.parse().map_err(|_| wrong());
    }
    let part = |from, to| word.get(from..to).and_then(|s: &str| s.parse::<i64>().ok()).ok_or_else(wrong);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    // Days from the civil calendar, with years that begin in March so that
    // the leap day is the last of its year.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + part(8, 10)?) * 60 + part(10, 12)?) * 60 + part(12, 14)?;
    // Signature times count modulo 2^32 (RFC 4034, 3.1.5).
    Ok(seconds.rem_euclid(1 << 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::{Record, base64, time};

    #[test]
    fn times_and_base64_match_known_values() {
        assert_eq!(time("20040509183619"), Ok(1_084_127_779));
        assert_eq!(time("20240229000000"), Ok(1_709_164_800));
        assert_eq!(time("12345"), Ok(12345));
        assert!(time("soon").is_err());
        assert_eq!(base64("bm9k ZW5z"), Ok(b"nodens".to_vec()));
        assert_eq!(base64("bm9kZQ=="), Ok(b"node".to_vec()));
        assert!(base64("*").is_err());
    }

    #[test]
    fn a_wrong_line_is_an_error() {
        for line in [
            "a. 1 IN",
            "a. 1 IN A 192.0.2",
            "a. 1 IN A 192.0.2.1 extra",
            "a. x IN A 192.0.2.1",
            "a. 1 XX A 192.0.2.1",
            "a. 1 IN TXT \"open",
            "a. 1 IN TXT",
            "a. 1 IN TYPE65280 c000",
            "a. 1 IN TYPE65280 \\# 3 c000",
            "a. 1 IN TYPE65280 \\# 2 c00",
        ] {
            assert!(Record::try_from_line(line, b"\0").is_err(), "{line} was taken");
        }
    }
}
