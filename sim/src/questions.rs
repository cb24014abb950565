//! What can be asked in a world: a small set of names under a few domains, and some types.
//!
//! Everything else speaks of questions by number, so that the model can be tables. A name carries its number
//! in its first label; whoever receives a query reads it from there and compares the rest.

use crate::draw::{Draw, Part};

/// The types that are asked for; the first two are what a resolver's `getaddrinfo` asks.
pub const TYPES: [u16; 8] = [A, AAAA, TXT, SRV, ANY, CNAME, DS, UNKNOWN];
#[allow(missing_docs, reason = "record types by their usual names")]
pub const A: u16 = 1;
#[allow(missing_docs, reason = "record types by their usual names")]
pub const CNAME: u16 = 5;
/// IPv6 addresses.
pub const AAAA: u16 = 28;
/// Text.
pub const TXT: u16 = 16;
/// Services.
pub const SRV: u16 = 33;
/// Delegation signer: goes to the parent's side of a zone cut.
pub const DS: u16 = 43;
/// Whatever there is.
pub const ANY: u16 = 255;
/// A type for private use, which nobody knows (RFC 3597).
pub const UNKNOWN: u16 = 65_300;

/// The domains that names are under. The last one belongs to no zone unless the root is served.
pub const DOMAINS: [&str; 4] = ["example.", "cluster.local.", "stub.test.", "elsewhere."];

/// A question by number: name and type.
pub type QuestionId = u32;

/// One name.
#[derive(Debug)]
pub struct WorldName {
    /// Uncompressed, in lower case.
    pub wire: Box<[u8]>,
    /// Index into [`DOMAINS`].
    pub domain: usize,
    /// Where its domain begins in `wire`.
    pub domain_at: usize,
}

/// All names of a world.
#[derive(Debug)]
pub struct Space {
    /// By number.
    pub names: Vec<WorldName>,
}

/// A name in wire form, from text without escapes.
pub fn wire(text: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

impl Space {
    /// Draws the names of a world.
    pub fn draw(seed: u64, names: usize) -> Self {
        let mut draw = Draw::part(seed, Part::Questions);
        let names = (0..names).map(|n| draw_name(&mut draw, n)).collect();
        Space { names }
    }

    /// How many questions there are.
    pub fn len(&self) -> usize {
        self.names.len() * TYPES.len()
    }

    /// Never: a world has a name.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a question.
    pub fn name(&self, question: QuestionId) -> &WorldName {
        &self.names[question as usize / TYPES.len()]
    }

    /// The type of a question.
    pub fn qtype(question: QuestionId) -> u16 {
        TYPES[question as usize % TYPES.len()]
    }

    /// The number of a question.
    pub fn id(name: usize, type_index: usize) -> QuestionId {
        (name * TYPES.len() + type_index) as QuestionId
    }

    /// Which question these bytes are (name, type and class IN, in any spelling).
    pub fn find(&self, question: &[u8]) -> Option<QuestionId> {
        let (name, fields) = question.split_at(question.len().checked_sub(4)?);
        let label = name.get(1..1 + usize::from(*name.first()?))?;
        let digits = label.get(1..)?;
        let number = digits.iter().try_fold(0usize, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0'))
        })?;
        let known = self.names.get(number)?;
        let qtype = u16::from_be_bytes([fields[0], fields[1]]);
        let type_index = TYPES.iter().position(|known| *known == qtype)?;
        (fields[2..] == [0, 1] && known.wire.eq_ignore_ascii_case(name))
            .then(|| Space::id(number, type_index))
    }

    /// A question for people.
    pub fn text(&self, question: QuestionId) -> String {
        let mut text = String::new();
        let mut rest = &self.name(question).wire[..];
        while let [len, after @ ..] = rest
            && *len > 0
        {
            let (label, next) = after.split_at(usize::from(*len));
            text.push_str(&String::from_utf8_lossy(label));
            text.push('.');
            rest = next;
        }
        format!("{text} {}", type_text(Self::qtype(question)))
    }
}

fn draw_name(draw: &mut Draw, n: usize) -> WorldName {
    let domain = draw.pick(&[0, 0, 0, 1, 1, 2, 3]);
    let mut wire_bytes = wire(&format!("n{n}"));
    wire_bytes.pop();
    // Some names are long, so that not all questions have about the same length.
    for _ in 0..draw.pick(&[0, 0, 0, 1, 1, 3]) {
        let len = draw.between(1, 63) as u8;
        wire_bytes.push(len);
        wire_bytes.extend((0..len).map(|_| b'a' + draw.below(26) as u8));
    }
    let domain_at = wire_bytes.len();
    wire_bytes.extend(wire(DOMAINS[domain]));
    WorldName { wire: wire_bytes.into_boxed_slice(), domain, domain_at }
}

/// A type's usual name.
pub fn type_text(qtype: u16) -> String {
    let known = match qtype {
        A => "A",
        CNAME => "CNAME",
        AAAA => "AAAA",
        TXT => "TXT",
        SRV => "SRV",
        DS => "DS",
        ANY => "ANY",
        2 => "NS",
        6 => "SOA",
        41 => "OPT",
        _ => return format!("TYPE{qtype}"),
    };
    known.to_owned()
}
