//! Which parts of two messages are compared: the words of a `MATCH` line.

use super::entry::Entry;
use nodens_core::Transport;
use nodens_testkit::{Reply, msg::Rr, msg::rtype};

/// One word of a `MATCH` line.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Word {
    Opcode,
    Rcode,
    Flags,
    Qname,
    Qtype,
    Question,
    Answer,
    Authority,
    Additional,
    Edns,
    /// All of the above, the spelling of the question included.
    All,
    /// Wherever records are compared, their TTLs are too.
    Ttl,
    /// No OPT record.
    NoEdns,
    /// The DO bit is set.
    Do,
    Udp,
    Tcp,
    /// The INFO-CODE of the extended error (RFC 8914).
    Ede(u16),
    /// The length of the whole message in bytes.
    Size(usize),
}

/// The words without a number, as they are written.
const WORDS: [(&str, Word); 16] = [
    ("opcode", Word::Opcode),
    ("rcode", Word::Rcode),
    ("flags", Word::Flags),
    ("qname", Word::Qname),
    ("qtype", Word::Qtype),
    ("question", Word::Question),
    ("answer", Word::Answer),
    ("authority", Word::Authority),
    ("additional", Word::Additional),
    ("edns", Word::Edns),
    ("all", Word::All),
    ("ttl", Word::Ttl),
    ("noedns", Word::NoEdns),
    ("DO", Word::Do),
    ("UDP", Word::Udp),
    ("TCP", Word::Tcp),
];

/// What `all` stands for, beside the spelling of the question.
const EVERYTHING: [Word; 8] = [
    Word::Opcode,
    Word::Rcode,
    Word::Flags,
    Word::Question,
    Word::Answer,
    Word::Authority,
    Word::Additional,
    Word::Edns,
];

impl Word {
    pub(super) fn from_text(text: &str) -> Option<Word> {
        if let Some(code) = text.strip_prefix("ede=") {
            return code.parse().ok().map(Word::Ede);
        }
        if let Some(len) = text.strip_prefix("size=") {
            return len.parse().ok().map(Word::Size);
        }
        WORDS.iter().find(|(name, _)| *name == text).map(|(_, word)| *word)
    }
}

/// The parts in which `got` differs from what `entry` says; empty if it matches.
pub(super) fn differences(entry: &Entry, got: &Reply, over: Transport) -> Vec<&'static str> {
    let wanted = entry.message();
    let ttls = entry.words.contains(&Word::Ttl);
    let all = if entry.words.contains(&Word::All) { &EVERYTHING[..] } else { &[] };
    let words = all.iter().chain(&entry.words);
    words.filter_map(|word| part(*word, &wanted, got, over, ttls)).collect()
}

/// The name of the part that `word` stands for, if it differs.
fn part(word: Word, wanted: &Reply, got: &Reply, over: Transport, ttls: bool) -> Option<&'static str> {
    let question =
        |reply: &Reply| reply.question.as_ref().map(|q| (q.name.to_lowercase(), q.qtype, q.qclass));
    let qname = |reply: &Reply| question(reply).map(|(name, ..)| name);
    let qtype = |reply: &Reply| question(reply).map(|(_, qtype, _)| qtype);
    let spelling = |reply: &Reply| reply.question.as_ref().map(|q| q.raw.clone());
    let flags = |r: &Reply| [r.qr, r.aa, r.tc, r.rd, r.ra, r.z, r.ad, r.cd];
    let (differs, name) = match word {
        Word::Opcode => (wanted.opcode != got.opcode, "opcode"),
        Word::Rcode => (wanted.rcode != got.rcode, "status"),
        Word::Flags => (flags(wanted) != flags(got), "flags"),
        Word::Qname => (qname(wanted) != qname(got), "name asked for"),
        Word::Qtype => (qtype(wanted) != qtype(got), "type asked for"),
        Word::Question => (question(wanted) != question(got), "question"),
        Word::Answer => (!same_records(&wanted.answers, &got.answers, ttls), "answer section"),
        Word::Authority => (!same_records(&wanted.authority, &got.authority, ttls), "authority section"),
        Word::Additional => (!same_records(&wanted.additional, &got.additional, ttls), "additional section"),
        Word::Edns => (wanted.opt != got.opt, "EDNS"),
        Word::All => (spelling(wanted) != spelling(got), "spelling of the question"),
        Word::Ttl => (false, "TTLs"),
        Word::NoEdns => (got.opt.is_some(), "EDNS, where none should be"),
        Word::Do => (!got.opt.as_ref().is_some_and(|opt| opt.do_bit), "DO bit"),
        Word::Udp => (over != Transport::Udp, "transport, which is not UDP"),
        Word::Tcp => (over != Transport::Tcp, "transport, which is not TCP"),
        Word::Ede(code) => (got.ede() != Some(code), "extended error"),
        Word::Size(len) => (got.raw_len != len, "length in bytes"),
    };
    differs.then_some(name)
}

/// The same records in the same order.
fn same_records(wanted: &[Rr], got: &[Rr], ttls: bool) -> bool {
    let same = |(a, b): (&Rr, &Rr)| {
        a.owner.eq_ignore_ascii_case(&b.owner)
            && (a.rtype, a.class) == (b.rtype, b.class)
            && same_rdata(a, b)
            && (!ttls || a.ttl == b.ttl)
    };
    wanted.len() == got.len() && wanted.iter().zip(got).all(same)
}

/// Names in RDATA may be compressed into the question, so they come in the client's spelling.
fn same_rdata(a: &Rr, b: &Rr) -> bool {
    match a.rtype {
        rtype::NS | rtype::CNAME | rtype::SOA | rtype::PTR | rtype::MX => {
            a.rdata.eq_ignore_ascii_case(&b.rdata)
        }
        _ => a.rdata == b.rdata,
    }
}
