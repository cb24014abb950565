//! The twelve octets that every message begins with (RFC 1035 §4.1.1).

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 12;

/// Reads a big-endian 16-bit number. `at + 2` must lie inside; callers have checked the length.
#[inline]
pub fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a big-endian 32-bit number. `at + 4` must lie inside.
#[inline]
pub fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes a big-endian 16-bit number.
#[inline]
pub fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A response code, extended bits included (RFC 1035 §4.1.1, RFC 6891 §6.1.3).
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Rcode = Rcode(0);
    /// The query could not be read.
    pub const FORMERR: Rcode = Rcode(1);
    /// No answer could be had.
    pub const SERVFAIL: Rcode = Rcode(2);
    /// The name does not exist.
    pub const NXDOMAIN: Rcode = Rcode(3);
    /// The kind of query is not supported.
    pub const NOTIMP: Rcode = Rcode(4);
    /// The query is not for this server.
    pub const REFUSED: Rcode = Rcode(5);
    /// The EDNS version is not supported.
    pub const BADVERS: Rcode = Rcode(16);
}

/// Octets 2 and 3 of a header.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// A response.
    pub const QR: u16 = 0x8000;
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;
    /// Recursion available.
    pub const RA: u16 = 0x0080;
    /// Authentic data (RFC 4035 §3.2.3).
    pub const AD: u16 = 0x0020;
    /// Checking disabled (RFC 4035 §3.2.2).
    pub const CD: u16 = 0x0010;
    /// Where the opcode is.
    pub const OPCODE: u16 = 0x7800;

    /// Whether a bit is set.
    #[inline]
    pub const fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }

    /// The opcode: 0 is QUERY.
    pub const fn opcode(self) -> u8 {
        ((self.0 & Self::OPCODE) >> 11) as u8
    }

    /// The low four bits of the RCODE.
    pub const fn rcode_low(self) -> u16 {
        self.0 & 0x000f
    }
}

/// A header, read.
#[derive(Copy, Clone, Debug)]
pub struct Header {
    /// Message ID.
    pub id: u16,
    /// Octets 2 and 3.
    pub flags: Flags,
    /// QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT.
    pub counts: [u16; 4],
}

impl Header {
    /// Reads the first twelve bytes; `None` if there are fewer.
    #[inline]
    pub fn read(message: &[u8]) -> Option<Header> {
        let b: &[u8; HEADER_LEN] = message.first_chunk()?;
        Some(Header {
            id: get_u16(b, 0),
            flags: Flags(get_u16(b, 2)),
            counts: [get_u16(b, 4), get_u16(b, 6), get_u16(b, 8), get_u16(b, 10)],
        })
    }

    /// Writes twelve bytes to the front of `out`.
    #[inline]
    pub fn write(&self, out: &mut [u8]) {
        put_u16(out, 0, self.id);
        put_u16(out, 2, self.flags.0);
        for (i, count) in self.counts.iter().enumerate() {
            put_u16(out, 4 + 2 * i, *count);
        }
    }
}
