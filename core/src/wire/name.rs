//! Domain names: on the wire, possibly compressed; and as owned values in canonical form.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// The longest name, with its length bytes and the root's (RFC 1035 §2.3.4).
pub const NAME_LEN_MAX: usize = 255;
/// The longest label.
const LABEL_LEN_MAX: usize = 63;
/// Pointers followed within one name. A name has at most 127 labels and no honest encoder points at a pointer, so
/// more than this many is an attack on our time.
const POINTER_HOPS_MAX: u32 = 127;

/// A name in canonical form: uncompressed wire bytes, ASCII letters in lower case (RFC 4034 §6.1, RFC 4343).
///
/// Wire form, because text is ambiguous: a label may hold any octet, dots included (RFC 2181 §11).
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Name(Box<[u8]>);

/// Why text is not a domain name.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum NameError {
    /// Two dots in a row, or one at the start.
    EmptyLabel,
    /// A label of more than 63 octets.
    LongLabel,
    /// More than 255 octets.
    LongName,
    /// A backslash without what it escapes.
    BadEscape,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::EmptyLabel => "it has an empty label",
            NameError::LongLabel => "it has a label of more than 63 octets",
            NameError::LongName => "it has more than 255 octets",
            NameError::BadEscape => {
                "a backslash must be followed by a character or by three digits up to 255"
            }
        })
    }
}

impl core::error::Error for NameError {}

impl Name {
    /// The root, `.`.
    pub fn root() -> Self {
        Name(Box::new([0]))
    }

    /// Takes uncompressed wire bytes that were checked before, such as a question's name, and lower-cases them.
    pub fn from_wire(wire: &[u8]) -> Self {
        let mut bytes: Box<[u8]> = wire.into();
        bytes.make_ascii_lowercase();
        Name(bytes)
    }

    /// Reads presentation format: `example.com`, `example.com.`, `.`, with `\.` and `\032` escapes.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        if text == "." || text.is_empty() {
            return Ok(Name::root());
        }
        let mut label: Vec<u8> = Vec::new();
        let mut bytes = text.bytes();
        let mut ended = false;
        while let Some(byte) = bytes.next() {
            ended = byte == b'.';
            match byte {
                b'.' => push_label(&mut wire, &mut label)?,
                b'\\' => label.push(unescape(&mut bytes).ok_or(NameError::BadEscape)?),
                _ => label.push(byte.to_ascii_lowercase()),
            }
        }
        if !ended {
            push_label(&mut wire, &mut label)?;
        }
        wire.push(0);
        if wire.len() > NAME_LEN_MAX {
            return Err(NameError::LongName);
        }
        Ok(Name(wire.into_boxed_slice()))
    }

    /// The wire bytes, the root's zero included.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The number of labels, the root not counted.
    pub fn label_count(&self) -> usize {
        labels(&self.0).count()
    }

    /// Whether `name` (canonical wire bytes) is this name or below it.
    pub fn is_suffix_of(&self, name: &[u8]) -> bool {
        let Some(mut skip) = name.len().checked_sub(self.0.len()) else { return false };
        if name[skip..] != *self.0 {
            return false;
        }
        // The match must begin at a label, not in the middle of one.
        let mut rest = name;
        while skip > 0 {
            let step = 1 + usize::from(rest[0]);
            if step > skip {
                return false;
            }
            rest = &rest[step..];
            skip -= step;
        }
        true
    }
}

fn push_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), NameError> {
    match label.len() {
        0 => return Err(NameError::EmptyLabel),
        1..=LABEL_LEN_MAX => wire.push(label.len() as u8),
        _ => return Err(NameError::LongLabel),
    }
    wire.append(label);
    Ok(())
}

/// What follows a backslash: three decimal digits, or the character itself.
fn unescape(bytes: &mut core::str::Bytes<'_>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first.to_ascii_lowercase());
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).ok().map(|octet| octet.to_ascii_lowercase())
}

fn labels(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let (len, rest) = wire.split_first()?;
        if *len == 0 || rest.len() < usize::from(*len) {
            return None;
        }
        let (label, rest) = rest.split_at(usize::from(*len));
        wire = rest;
        Some(label)
    })
}

impl fmt::Display for Name {
    /// Presentation format, absolute, with everything that is not printable ASCII escaped: safe in logs and metrics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == [0] {
            return f.write_str(".");
        }
        for label in labels(&self.0) {
            for byte in label {
                match byte {
                    b'.' | b'\\' | b'"' => write!(f, "\\{}", char::from(*byte))?,
                    0x21..=0x7e => write!(f, "{}", char::from(*byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in a message, within a name, that follows compression pointers.
struct Labels<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    /// The next label; `None` at the root or at anything that [`skip_name`] would have refused.
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let len = usize::from(*self.message.get(self.at)?);
            match len {
                0 => return None,
                1..=LABEL_LEN_MAX => {
                    let label = self.message.get(self.at + 1..self.at + 1 + len)?;
                    self.at += 1 + len;
                    return Some(label);
                }
                _ => {
                    let target = pointer_target(self.message, self.at)?;
                    if target >= self.at {
                        return None;
                    }
                    self.at = target;
                }
            }
        }
    }
}

fn pointer_target(message: &[u8], at: usize) -> Option<usize> {
    let bytes = message.get(at..at + 2)?;
    (bytes[0] & 0xc0 == 0xc0).then(|| usize::from(bytes[0] & 0x3f) << 8 | usize::from(bytes[1]))
}

/// Whether the names at `a` and `b` of `message` are equal, ASCII case aside. Both must have been checked by a walk.
pub fn names_equal(message: &[u8], a: usize, b: usize) -> bool {
    if a == b {
        return true;
    }
    let mut left = Labels { message, at: a };
    let mut right = Labels { message, at: b };
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(l), Some(r)) if l.eq_ignore_ascii_case(r) => {}
            _ => return false,
        }
    }
}

/// Whether the name at `ancestor` is the name at `name` or above it, ASCII case aside.
pub(super) fn is_ancestor(message: &[u8], ancestor: usize, name: usize) -> bool {
    let depth = |at| Labels { message, at }.count();
    let Some(skip) = depth(name).checked_sub(depth(ancestor)) else { return false };
    let below = Labels { message, at: name }.skip(skip);
    below.zip(Labels { message, at: ancestor }).all(|(l, r)| l.eq_ignore_ascii_case(r))
}

/// Checks the name at `at` of `message` and returns where the bytes after it begin. `jumped` is told each run of bytes that
/// the name is read from after a pointer.
///
/// `None` if it does not fit RFC 1035 §3.1 and §4.1.4: a label of another kind, more than 255 octets, a pointer that leads
/// into the header or to anything but a name that stands wholly before, or the message's end in its middle.
pub(super) fn skip_name(message: &[u8], at: usize, mut jumped: impl FnMut(Range<usize>)) -> Option<usize> {
    let mut pos = at;
    let mut run = at;
    // Where the bytes begin that led here by a pointer: a prior name (RFC 1035 §4.1.4) ends before them. So each hop leads
    // further back, and a walk ends.
    let mut limit = usize::MAX;
    let mut end = None;
    let mut name_len = 1;
    let mut hops = 0;
    loop {
        if pos >= limit {
            return None;
        }
        let len = usize::from(*message.get(pos)?);
        match len {
            0 => {
                if end.is_some() {
                    jumped(run..pos + 1);
                }
                return Some(end.unwrap_or(pos + 1));
            }
            1..=LABEL_LEN_MAX => {
                name_len += 1 + len;
                if name_len > NAME_LEN_MAX {
                    return None;
                }
                pos += 1 + len;
            }
            _ => {
                let target = pointer_target(message, pos)?;
                hops += 1;
                if target < super::HEADER_LEN || hops > POINTER_HOPS_MAX {
                    return None;
                }
                if end.is_some() {
                    jumped(run..pos + 2);
                }
                end.get_or_insert(pos + 2);
                (limit, pos, run) = (run, target, target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn presentation_format_round_trips() {
        for text in [
            ".",
            "example.com.",
            "a\\.b.c.",
            "\\000\\255x.y.",
            "_dns._udp.kube-dns.kube-system.svc.cluster.local.",
        ] {
            assert_eq!(name(text).to_string(), text);
        }
        assert_eq!(name("ExAmple.COM"), name("example.com."));
    }

    #[test]
    fn rfc2181_11_names_that_look_alike_as_text_differ() {
        assert_ne!(name("a\\.b."), name("a.b."));
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        let long = vec!["a"; 64].concat();
        assert_eq!(Name::parse("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(Name::parse(".a"), Err(NameError::EmptyLabel));
        assert_eq!(Name::parse(&long), Err(NameError::LongLabel));
        assert_eq!(Name::parse("a\\"), Err(NameError::BadEscape));
        assert_eq!(Name::parse("\\999"), Err(NameError::BadEscape));
        assert_eq!(Name::parse(&vec!["abc"; 64].join(".")), Err(NameError::LongName));
    }

    #[test]
    fn a_suffix_begins_at_a_label() {
        let zone = name("cluster.local");
        assert!(zone.is_suffix_of(name("a.cluster.local").as_wire()));
        assert!(zone.is_suffix_of(zone.as_wire()));
        assert!(Name::root().is_suffix_of(zone.as_wire()));
        assert!(!zone.is_suffix_of(name("xcluster.local").as_wire()));
        assert!(!zone.is_suffix_of(name("local").as_wire()));
        // The bytes of the zone inside a label: \007cluster\005local.
        assert!(!zone.is_suffix_of(name("x\\007cluster\\005local").as_wire()));
    }

    #[test]
    fn pointers_must_lead_strictly_backwards_and_never_into_the_header() {
        let mut message = vec![0; 12];
        message.extend(b"\x01a\x00"); // 12: "a."
        message.extend(b"\x01b\xc0\x0c"); // 15: "b.a."
        message.extend(b"\xc0\x13"); // 19: itself
        message.extend(b"\xc0\x17\xc0\x15"); // 21: forward; 23: back to 21
        message.extend(b"\xc0\x02"); // 25: header
        let mut jumps = vec![];
        assert_eq!(skip_name(&message, 15, |run| jumps.push(run)), Some(19));
        assert_eq!(jumps.first(), Some(&(12..15)));
        for at in [19, 21, 23, 25] {
            assert_eq!(skip_name(&message, at, |_| {}), None, "at {at}");
        }
        assert!(names_equal(&message, 12, 17));
        assert!(is_ancestor(&message, 12, 15));
        assert!(!is_ancestor(&message, 15, 12));
    }

    #[test]
    fn a_pointer_leads_to_a_name_that_ends_before() {
        let mut message = vec![0; 12];
        message.extend(b"\x03\x01a\x00\xc0\x0d"); // 12: a label, then a pointer to what is inside the label
        message.extend(b"\x05x\xc0\x12xx\x00"); // 18: a label with a pointer to it inside, at 20
        for at in [12, 20] {
            assert_eq!(skip_name(&message, at, |_| {}), None, "at {at}");
        }
    }

    #[test]
    fn a_name_of_256_octets_is_refused() {
        let mut message = vec![0; 12];
        for _ in 0..4 {
            message.push(62);
            message.extend([b'x'; 62]);
        }
        message.extend(b"\x02aa\x00"); // 4*63 + 3 + 1 = 256
        assert_eq!(skip_name(&message, 12, |_| {}), None);
        let shorter = message.len() - 4;
        message.truncate(shorter);
        message.extend(b"\x01a\x00"); // 255
        assert!(skip_name(&message, 12, |_| {}).is_some());
    }
}
