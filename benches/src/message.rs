//! Just enough of DNS messages to ask, and to tell what was answered (RFC 1035 §4.1, RFC 6891 §6.1).

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;
/// Type A.
pub const A: u16 = 1;
/// Type PTR.
pub const PTR: u16 = 12;
/// Type TXT.
pub const TXT: u16 = 16;
/// Type AAAA.
pub const AAAA: u16 = 28;
/// Type SRV.
pub const SRV: u16 = 33;
/// Type HTTPS.
pub const HTTPS: u16 = 65;
/// An OPT record that asks for nothing but 1232 bytes.
pub const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// What an answer says.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Verdict {
    /// NOERROR with records.
    Positive,
    /// NOERROR without.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// The server failed.
    ServFail,
    /// REFUSED and the like, or TC.
    Other,
}

/// Writes a query at the end of `out`; returns where its question ends.
pub fn write_query(out: &mut Vec<u8>, id: u16, name: [&[u8]; 2], qtype: u16, edns: bool) -> usize {
    let start = out.len();
    out.extend_from_slice(&id.to_be_bytes());
    // RD; one question; perhaps an OPT.
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    out.extend_from_slice(name[0]);
    out.extend_from_slice(name[1]);
    out.extend_from_slice(&qtype.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    let question_end = out.len() - start;
    if edns {
        out.extend_from_slice(&OPT);
    }
    question_end
}

/// A message's ID.
pub fn id(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*message.first()?, *message.get(1)?]))
}

/// Whether QR is set: a response.
pub fn is_response(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

/// What a response says; `None` if it is shorter than a header.
pub fn verdict(message: &[u8]) -> Option<Verdict> {
    let header = message.get(..HEADER_LEN)?;
    let is_cut = header[2] & 0x02 != 0;
    Some(match header[3] & 0x0f {
        0 if is_cut => Verdict::Other,
        0 if header[6..8] == [0, 0] => Verdict::NoData,
        0 => Verdict::Positive,
        2 => Verdict::ServFail,
        3 => Verdict::NxDomain,
        _ => Verdict::Other,
    })
}

/// Where the name that begins at `at` ends, if it is whole and without compression.
pub fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len if len < 64 => at += usize::from(len) + 1,
            _ => return None,
        }
    }
}

/// Labels in wire form, without the root: `www.example.com`.
pub fn labels(text: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + 1);
    for label in text.split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_laid_out_as_the_rfc_says() {
        let mut out = vec![];
        let end = write_query(&mut out, 0x1234, [&labels("a.bc"), &[0]], AAAA, true);
        assert_eq!(out[..end], *b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x01a\x02bc\0\0\x1c\0\x01");
        assert_eq!((&out[end..], id(&out), is_response(&out)), (&OPT[..], Some(0x1234), false));
        assert_eq!((name_end(&out, HEADER_LEN), name_end(&out[..14], HEADER_LEN)), (Some(end - 4), None));
    }

    #[test]
    fn verdicts_are_told_apart() {
        let response =
            |flags: [u8; 2], answers: u8| verdict(&[0, 0, flags[0], flags[1], 0, 1, 0, answers, 0, 0, 0, 0]);
        assert_eq!(response([0x80, 0], 1), Some(Verdict::Positive));
        assert_eq!(response([0x80, 0], 0), Some(Verdict::NoData));
        assert_eq!(response([0x80, 3], 0), Some(Verdict::NxDomain));
        assert_eq!(response([0x80, 2], 0), Some(Verdict::ServFail));
        assert_eq!(response([0x82, 0], 1), Some(Verdict::Other));
        assert_eq!(verdict(&[0; 11]), None);
    }
}
