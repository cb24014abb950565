//! RDATA in presentation format, for comparing records as text.
//!
//! The types tests talk about are spelled out; everything else is shown as
//! `\# length hex` (RFC 3597, section 5).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::name::{name_from_wire, read_name};
use super::rtype;

/// The text of the RDATA at `msg[start..end]`.
pub(crate) fn rdata_text(msg: &[u8], start: usize, end: usize, kind: u16) -> Result<String, String> {
    let raw = &msg[start..end];
    let mut fields = Fields { msg: &msg[..end], at: start };
    let text = match kind {
        rtype::A => <[u8; 4]>::try_from(raw).map(|octets| {
            fields.at = end;
            Ipv4Addr::from(octets).to_string()
        }),
        rtype::AAAA => <[u8; 16]>::try_from(raw).map(|octets| {
            fields.at = end;
            Ipv6Addr::from(octets).to_string()
        }),
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME => Ok(fields.name()?),
        rtype::MX => Ok(format!("{} {}", fields.u16()?, fields.name()?)),
        rtype::SRV => Ok(format!("{} {} {} {}", fields.u16()?, fields.u16()?, fields.u16()?, fields.name()?)),
        rtype::SOA => {
            let mut words = vec![fields.name()?, fields.name()?];
            for _ in 0..5 {
                words.push(fields.u32()?.to_string());
            }
            Ok(words.join(" "))
        }
        rtype::TXT => {
            let mut strings = Vec::new();
            while fields.at < end {
                strings.push(fields.string()?);
            }
            Ok(strings.join(" "))
        }
        _ => return Ok(generic_text(raw)),
    };
    let text = text.map_err(|_| format!("the address at {start} has {} octets", raw.len()))?;
    match fields.at == end {
        true => Ok(text),
        false => Err(format!("the rdata at {start} ends at {}, RDLENGTH says {end}", fields.at)),
    }
}

fn generic_text(raw: &[u8]) -> String {
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\# {} {hex}", raw.len()).trim_end().to_string()
}

/// Reads fields from left to right; `msg` ends where the RDATA ends.
struct Fields<'a> {
    msg: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn name(&mut self) -> Result<String, String> {
        let (wire, next) = read_name(self.msg, self.at)?;
        self.at = next;
        Ok(name_from_wire(&wire))
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A character-string, always quoted.
    fn string(&mut self) -> Result<String, String> {
        let [len] = self.array()?;
        let mut text = String::from("\"");
        for &byte in self.take(usize::from(len))? {
            match byte {
                b'"' | b'\\' => {
                    text.push('\\');
                    text.push(char::from(byte));
                }
                0x20..=0x7e => text.push(char::from(byte)),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
        text.push('"');
        Ok(text)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, len: usize) -> Result<&[u8], String> {
        let at = self.at;
        let bytes =
            self.msg.get(at..at + len).ok_or_else(|| format!("the rdata field at {at} is cut off"))?;
        self.at += len;
        Ok(bytes)
    }
}
