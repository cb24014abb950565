//! What an upstream's message is, whether it may be kept, and for how long: pure functions, rule by rule.
//!
//! | message | kind | lifetime |
//! | --- | --- | --- |
//! | NOERROR that answers the question | positive | the least TTL of all records |
//! | NOERROR that does not, with a SOA of the name's zone | NODATA | the least TTL, the SOA's MINIMUM included (RFC 2308 §5) |
//! | NOERROR with an empty answer and neither SOA nor NS | NODATA | the least TTL, at most [`SOALESS_TTL_MAX_S`] |
//! | NXDOMAIN with a SOA of the name's zone and no answer but a CNAME chain | NXDOMAIN | as NODATA |
//! | SERVFAIL, NOTIMP | failure | `servfail` |
//! | anything else | relayed, not kept | - |
//!
//! The lifetime is then raised to the zone's lower clamp and cut to its upper clamp, which beats the lower (CoreDNS' order),
//! and to what is left of the validity of signatures (semantics.md R8).

use super::Kind;
use crate::config::CacheRules;
use crate::sim_support::{Fault, Mark, mark, planted};
use crate::wire::{Message, Rcode, Record, Section, get_u32, rtype};

/// How long a negative answer without a SOA is kept at most. RFC 2308 §5 would not keep it at all; CoreDNS keeps 5 s.
pub const SOALESS_TTL_MAX_S: u32 = 5;
/// Links of a CNAME chain that are followed. Resolvers stop at 8 to 16.
const CHAIN_MAX: usize = 11;
/// CNAMEs in an answer that are looked at. An honest answer has as many as its chain has links; one with thousands wants to cost
/// us time, for each link is looked for among all of them.
const CNAMES_MAX: usize = 64;

/// What may be done with a message.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Judgement {
    /// It may be kept for this long; the clients see the same number.
    Keep {
        /// What it is.
        kind: Kind,
        /// Its lifetime in seconds, never 0.
        ttl_s: u32,
    },
    /// It goes to those who wait for it, unchanged, and is forgotten.
    Relay,
}

/// Judges a message that passed validation. `rules` are those of its zone, `unix_s` the wall clock.
pub fn judge(message: &Message<'_>, rules: &CacheRules, unix_s: u64) -> Judgement {
    let Some((kind, natural_ttl_s)) = classify(message, rules) else { return Judgement::Relay };
    let Some(signatures_s) = signatures_valid_for_s(message, unix_s) else { return Judgement::Relay };
    let ttl_s = if kind == Kind::Failure {
        natural_ttl_s
    } else {
        let clamp = rules.of(kind.class());
        let ttl_max_s = if planted(Fault::TtlCapIgnored) { u32::MAX } else { clamp.ttl_max_s };
        natural_ttl_s.max(clamp.ttl_min_s).min(ttl_max_s).min(signatures_s)
    };
    if ttl_s == 0 { Judgement::Relay } else { Judgement::Keep { kind, ttl_s } }
}

/// The kind and the lifetime before clamps.
fn classify(message: &Message<'_>, rules: &CacheRules) -> Option<(Kind, u32)> {
    let rcode = message.rcode();
    if rcode == Rcode::SERVFAIL || rcode == Rcode::NOTIMP {
        let ttl_s = if planted(Fault::ServfailKeptLong) { 3600 } else { rules.servfail_ttl_s };
        return Some((Kind::Failure, ttl_s));
    }
    let has_answer = message.section(Section::Answer).next().is_some();
    match rcode {
        Rcode::NOERROR if has_answer && answers_question(message) => {
            Some((Kind::Positive, least_ttl(message)))
        }
        Rcode::NOERROR => {
            if let Some(ttl_s) = negative_ttl(message) {
                return Some((Kind::NoData, ttl_s));
            }
            // NS without SOA is a referral: a resolver that gives one is not configured as one. A SOA of another zone says nothing
            // about this name (reliability.md V13). Relay, keep nothing.
            let elsewhere = |r: &Record| r.rtype == rtype::NS || r.rtype == rtype::SOA;
            let soaless = !has_answer && !message.section(Section::Authority).any(elsewhere);
            mark(if soaless { Mark::NodataWithoutSoa } else { Mark::NeitherAnswerNorDenial });
            let ttl_max_s = if planted(Fault::SoalessNodataKeptLong) { u32::MAX } else { SOALESS_TTL_MAX_S };
            soaless.then(|| (Kind::NoData, least_ttl(message).min(ttl_max_s)))
        }
        // RFC 2308 §2.1, RFC 6604: NXDOMAIN speaks of the chain's last name, so a chain may precede it.
        Rcode::NXDOMAIN if message.section(Section::Answer).all(|r| is_chain_link(r.rtype)) => {
            let soaless = || planted(Fault::SoalessNxdomainKept).then(|| least_ttl(message));
            negative_ttl(message).or_else(soaless).map(|ttl_s| (Kind::NxDomain, ttl_s))
        }
        _ => None,
    }
}

fn is_chain_link(rtype: u16) -> bool {
    matches!(rtype, rtype::CNAME | rtype::DNAME | rtype::RRSIG)
}

/// The least TTL of all records; [`SOALESS_TTL_MAX_S`] if there are none.
fn least_ttl(message: &Message<'_>) -> u32 {
    let mut ttls = message.records.iter().map(|record| record.ttl_s);
    let least = if planted(Fault::FirstTtlTaken) { ttls.next() } else { ttls.min() };
    least.unwrap_or(SOALESS_TTL_MAX_S)
}

/// The lifetime of a negative answer: needs a SOA whose owner is the name denied or above it.
fn negative_ttl(message: &Message<'_>) -> Option<u32> {
    let soa = message.section(Section::Authority).find(|r| r.rtype == rtype::SOA)?;
    let qname = crate::wire::HEADER_LEN;
    let end = chain_end(message).unwrap_or(qname);
    if !message.is_ancestor(soa.owner, qname) && !message.is_ancestor(soa.owner, end) {
        return None;
    }
    // The walk made sure that a SOA ends in five 32-bit numbers; MINIMUM is the last.
    let minimum = get_u32(message.bytes, soa.end - 4);
    let minimum = if minimum > i32::MAX as u32 { 0 } else { minimum };
    let minimum = if planted(Fault::SoaMinimumIgnored) { u32::MAX } else { minimum };
    Some(least_ttl(message).min(minimum))
}

/// Whether the answer section answers the question, as CoreDNS decides it (semantics.md §1.3.4): whoever asks for a type gets
/// it at the end of a chain without forks and loops, in whatever order the records stand.
pub fn answers_question(message: &Message<'_>) -> bool {
    let qtype = message.question.qtype;
    let qname = crate::wire::HEADER_LEN;
    let has = |name: usize, wanted: u16| {
        in_class(message)
            .any(|r| (wanted == rtype::ANY || r.rtype == wanted) && message.names_equal(r.owner, name))
    };
    match qtype {
        rtype::ANY => has(qname, rtype::ANY),
        rtype::CNAME => matches!(target_of(message, qname), Link::To(_)),
        // What signs or denies a CNAME stands beside it (RFC 4034 §2.5).
        rtype::RRSIG | NSEC if has(qname, qtype) => true,
        _ => chain_end(message).is_some_and(|end| has(end, qtype)),
    }
}

const NSEC: u16 = 47;

fn in_class<'m>(message: &'m Message<'_>) -> impl Iterator<Item = &'m Record> {
    message.section(Section::Answer).filter(|r| r.class == message.question.qclass)
}

/// The last name of the CNAME chain that begins at the question; `None` for forks, loops and chains that are too long.
fn chain_end(message: &Message<'_>) -> Option<usize> {
    let mut name = crate::wire::HEADER_LEN;
    if in_class(message).filter(|r| r.rtype == rtype::CNAME).count() > CNAMES_MAX {
        mark(Mark::ChainNotFollowed);
        return None;
    }
    for _ in 0..=CHAIN_MAX {
        match target_of(message, name) {
            Link::End => return Some(name),
            Link::To(target) => name = target,
            Link::Fork => {
                mark(Mark::ChainForked);
                return None;
            }
        }
    }
    mark(Mark::ChainNotFollowed);
    None
}

enum Link {
    End,
    To(usize),
    /// RFC 2181 §10.1: two CNAMEs with different targets at one name are an error.
    Fork,
}

fn target_of(message: &Message<'_>, name: usize) -> Link {
    let mut link = Link::End;
    for record in in_class(message).filter(|r| r.rtype == rtype::CNAME) {
        if !message.names_equal(record.owner, name) {
            continue;
        }
        match link {
            Link::To(target) if message.names_equal(target, record.rdata()) => {}
            Link::End => link = Link::To(record.rdata()),
            Link::To(_) | Link::Fork => return Link::Fork,
        }
    }
    link
}

/// For how many seconds all signatures stay valid; `None` if one is not valid now. Only asked of answers with DO, as CoreDNS does:
/// without it nobody is going to verify them.
fn signatures_valid_for_s(message: &Message<'_>, unix_s: u64) -> Option<u32> {
    let signed = message.opt.as_ref().is_some_and(|(edns, _)| edns.do_bit);
    let mut least = u32::MAX;
    if !signed {
        return Some(least);
    }
    for record in message.records.iter().filter(|r| r.rtype == rtype::RRSIG) {
        let rdata = record.rdata();
        // RFC 4034 §3.1: eighteen octets stand before the signer's name.
        if record.end < rdata + 18 {
            return None;
        }
        // RFC 4034 §3.1.5: serial arithmetic, so that 2106 is no special year.
        let now = unix_s as u32;
        let left = get_u32(message.bytes, rdata + 8).wrapping_sub(now) as i32;
        let since = now.wrapping_sub(get_u32(message.bytes, rdata + 12)) as i32;
        if left < 0 || since < 0 {
            mark(Mark::SignatureNotValidNow);
            return None;
        }
        // One that ends this second still counts for this second.
        least = least.min(left.max(1) as u32);
    }
    Some(least)
}
