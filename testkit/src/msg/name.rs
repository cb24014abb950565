//! Names between presentation format and the wire (RFC 1035, 4.1.4 and 5.1).
//!
//! The spelling is kept both ways. Reading follows compression pointers, but
//! only backwards, so that a looping message ends as an error.

/// The uncompressed wire form of a name in presentation format.
///
/// A missing last dot is added: the kit knows no relative names. Panics on
/// names that have no wire form; see `Query::raw_name` for illegal ones.
pub fn name_to_wire(text: &str) -> Vec<u8> {
    try_name_to_wire(text).unwrap_or_else(|why| panic!("'{text}' is no domain name: {why}"))
}

/// The presentation format (spelling kept, with the last dot) of an
/// uncompressed wire name.
pub fn name_from_wire(wire: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = wire;
    while let Some((&len, tail)) = rest.split_first() {
        if len == 0 {
            break;
        }
        let (label, tail) = tail.split_at(usize::from(len).min(tail.len()));
        for &byte in label {
            match byte {
                b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                    text.push('\\');
                    text.push(char::from(byte));
                }
                0x21..=0x7e => text.push(char::from(byte)),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
        text.push('.');
        rest = tail;
    }
    if text.is_empty() { ".".to_string() } else { text }
}

/// As [`name_to_wire`], for text that a person wrote; the error is a sentence.
pub fn try_name_to_wire(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Err("it is empty (the root is '.')".into());
    }
    if text == "." {
        return Ok(vec![0]);
    }
    let mut wire = Vec::with_capacity(text.len() + 2);
    let mut label: Vec<u8> = Vec::new();
    let mut bytes = text.bytes();
    let mut ended_with_dot = false;
    while let Some(byte) = bytes.next() {
        ended_with_dot = byte == b'.';
        match byte {
            b'.' => push_label(&mut wire, &mut label)?,
            b'\\' => label.push(unescape(&mut bytes)?),
            _ => label.push(byte),
        }
    }
    if !ended_with_dot {
        push_label(&mut wire, &mut label)?;
    }
    wire.push(0);
    if wire.len() > 255 {
        return Err(format!("{} octets on the wire, at most 255 are allowed", wire.len()));
    }
    Ok(wire)
}

/// Reads the name at `start`, following pointers. Returns its uncompressed
/// wire form and the offset behind it.
pub(crate) fn read_name(msg: &[u8], start: usize) -> Result<(Vec<u8>, usize), String> {
    let mut wire = Vec::new();
    let mut at = start;
    let mut end = None;
    // Every pointer must point before the place where the part that held it
    // began: strictly falling, so the walk ends.
    let mut floor = start;
    loop {
        let len = *msg.get(at).ok_or_else(|| format!("the name at {start} runs past the end"))?;
        match len {
            0 => {
                wire.push(0);
                return Ok((wire, end.unwrap_or(at + 1)));
            }
            1..=63 => {
                let label = msg
                    .get(at..=at + usize::from(len))
                    .ok_or_else(|| format!("the label at {at} runs past the end"))?;
                wire.extend_from_slice(label);
                at += 1 + usize::from(len);
            }
            0xc0..=0xff => {
                let low = *msg.get(at + 1).ok_or_else(|| format!("the pointer at {at} is cut off"))?;
                let target = usize::from(len & 0x3f) << 8 | usize::from(low);
                if target >= floor {
                    return Err(format!("the pointer at {at} does not point backwards (to {target})"));
                }
                end.get_or_insert(at + 2);
                floor = target;
                at = target;
            }
            _ => return Err(format!("the label type of octet {len:#04x} at {at} is unknown")),
        }
        if wire.len() > 255 {
            return Err(format!("the name at {start} is longer than 255 octets"));
        }
    }
}

/// The octet behind a backslash: `\.` or `\046`.
pub(crate) fn unescape(bytes: &mut impl Iterator<Item = u8>) -> Result<u8, String> {
    let first = bytes.next().ok_or("it ends in a backslash")?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit).ok_or("an escape needs three digits")?;
        value = value * 10 + u32::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| format!("the escape \\{value} is no octet"))
}

fn push_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), String> {
    match label.len() {
        0 => return Err("it has an empty label".into()),
        1..=63 => {}
        n => return Err(format!("a label of {n} octets, at most 63 are allowed")),
    }
    wire.push(label.len() as u8);
    wire.append(label);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{name_from_wire, name_to_wire, read_name, try_name_to_wire};

    #[test]
    fn spelling_and_escapes_survive_the_round_trip() {
        for text in [".", "ExAmple.COM.", "a\\.b.example.", "\\000\\255.x.", "_http._tcp.web."] {
            assert_eq!(name_from_wire(&name_to_wire(text)), text);
        }
        assert_eq!(name_to_wire("a.b"), name_to_wire("a.b."));
        assert_eq!(name_to_wire("Ab."), b"\x02Ab\0");
    }

    #[test]
    fn names_without_a_wire_form_are_refused() {
        let long_label = format!("{}.", "a".repeat(64));
        let long_name = "abcdefghi.".repeat(26);
        for text in ["", "a..b.", ".a.", "a\\", "a\\25", "a\\256.", &long_label, &long_name] {
            assert!(try_name_to_wire(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn pointers_are_followed_backwards_only() {
        let msg = b"\x01a\0\x01b\xc0\x00";
        assert_eq!(read_name(msg, 3).unwrap(), (b"\x01b\x01a\0".to_vec(), 7));
        assert!(read_name(b"\xc0\x00", 0).is_err(), "a pointer to itself");
        assert!(read_name(b"\x01a\xc0\x00", 0).is_err(), "a loop over a label");
        assert!(read_name(b"\x01a\xc0\x05\x00\x00", 0).is_err(), "a pointer forwards");
        assert!(read_name(b"\x05ab", 0).is_err(), "a label cut off");
        assert!(read_name(b"\x40", 0).is_err(), "an unknown label type");
    }
}
