//! What a client must get when an upstream has said something: rule R25, an answer patched as bytes against the same answer decoded
//! and patched as values.
//!
//! | of the answer | rule |
//! | --- | --- |
//! | ID, RD, CD, question and its spelling | the client's (R4, R5) |
//! | QR | 1; AA, Z and opcode 0 |
//! | RA | the upstream's, and 1 in an empty NOERROR |
//! | AD | the upstream's, if it is trusted and the client set DO or AD |
//! | RCODE | the upstream's; SERVFAIL in place of one above 15 for a client without EDNS (R6) |
//! | records | the upstream's in its order, cut at a record's end if they do not fit (R10) |
//! | TC | 1 if one of the answer or authority section was cut |
//! | TTLs | all the same number, or as they came (R7) |
//! | OPT | ours, last, if the client sent one (R9) |

use crate::oracle::{OPT, Parsed, Record};
use nodens_core::cache::{Judgement, Kind, SOALESS_TTL_MAX_S};
use nodens_core::config::CacheRules;

/// Length of an OPT without options.
const OPT_LEN: usize = 11;
/// Length of an option that holds an extended error without text (RFC 8914 §2).
const EDE_LEN: usize = 6;
/// Option code of extended errors.
const OPTION_EDE: u16 = 15;

const QR: u16 = 0x8000;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const AD: u16 = 0x0020;
const CD: u16 = 0x0010;

/// The client's side.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: u16,
    /// Octets 2 and 3 of its query.
    pub(crate) flags: u16,
    /// Its question as it spelled it.
    pub(crate) question: Vec<u8>,
    /// Whether it sent an OPT, and that one's DO bit.
    pub(crate) do_bit: Option<bool>,
    /// What we advertise to it, in bytes.
    pub(crate) udp_size: u16,
    /// The most it can take, in bytes.
    pub(crate) len_max: usize,
    pub(crate) trust_ad: bool,
}

/// The records of an answer that can be kept when its OPT is cut out: all, but of those after the OPT only the ones before the first
/// whose names are read from the OPT or from what follows it.
fn kept(answer: &Parsed) -> Vec<&Record> {
    let opt = answer.opt.map(|at| answer.records[at].range.clone());
    let bent = |record: &&Record| {
        opt.as_ref().is_none_or(|opt| {
            record.range.start < opt.start || record.jumps.iter().all(|run| run.end <= opt.start)
        })
    };
    answer.data().take_while(bent).collect()
}

/// Panics unless `reply` is what `client` must get of the upstream's message. `ttl_s`: in all records; `None`: as they came.
pub(crate) fn check_reply(
    upstream: &[u8],
    ttl_s: Option<u32>,
    extended_error: Option<u16>,
    client: &Client,
    reply: &[u8],
) {
    // Names may be read out of the question, so the upstream's message is decoded with the client's spelling in it.
    let mut respelled = upstream.to_vec();
    respelled[12..12 + client.question.len()].copy_from_slice(&client.question);
    let answer = Parsed::read(&respelled).expect("what was accepted reads with the client's spelling too");
    let got = Parsed::read(reply).unwrap_or_else(|fault| panic!("{fault:?}: {reply:02x?}"));
    let kept = kept(&answer);

    assert_eq!(got.end, reply.len(), "bytes after the last record");
    assert_eq!((got.id, &got.question), (client.id, &client.question), "ID and question");
    let rcode = answer.rcode();
    let rcode_seen = if rcode > 15 && client.do_bit.is_none() { 2 } else { rcode };
    assert_eq!(got.rcode(), rcode_seen, "RCODE");

    let extended_error = extended_error.filter(|_| client.do_bit.is_some());
    let opt_len = match (client.do_bit, extended_error) {
        (None, _) => 0,
        (Some(_), None) => OPT_LEN,
        (Some(_), Some(_)) => OPT_LEN + EDE_LEN,
    };
    let mut room = client.len_max.saturating_sub(12 + client.question.len() + opt_len);
    let fitting = kept.iter().take_while(|record| {
        let fits = record.range.len() <= room;
        room = room.saturating_sub(record.range.len());
        fits
    });
    let fitting: Vec<&Record> = fitting.copied().collect();
    let given: Vec<&Record> = got.data().collect();
    assert_eq!(given.len(), fitting.len(), "number of records of {}", kept.len());
    for (given, wanted) in given.iter().zip(&fitting) {
        assert_eq!(given.content(), wanted.content());
        assert_eq!(given.ttl, ttl_s.unwrap_or(wanted.ttl), "TTL");
    }
    assert!(
        reply.len() <= client.len_max,
        "{} bytes for a client that takes {}",
        reply.len(),
        client.len_max
    );

    let cut = kept[fitting.len()..].iter().any(|record| record.section < 2);
    let empty_noerror = rcode == 0 && !kept.iter().any(|record| record.section == 0);
    let wants_ad = client.do_bit == Some(true) || client.flags & AD != 0;
    let flags = QR
        | client.flags & (RD | CD)
        | answer.flags & RA
        | if empty_noerror { RA } else { 0 }
        | if client.trust_ad && wants_ad { answer.flags & AD } else { 0 }
        | if cut { TC } else { 0 }
        | rcode_seen & 15;
    assert_eq!(got.flags, flags, "flags {:04x}, not {flags:04x}", got.flags);

    let Some(do_bit) = client.do_bit else {
        assert!(got.opt.is_none(), "an OPT for a client that sent none");
        return;
    };
    let at = got.opt.expect("an OPT for a client that sent one");
    let opt = &got.records[at];
    assert_eq!((at + 1, opt.rtype, opt.class), (got.records.len(), OPT, client.udp_size), "place and size");
    let ttl = u32::from(rcode_seen >> 4) << 24 | if do_bit { 0x8000 } else { 0 };
    assert_eq!(opt.ttl, ttl, "extended RCODE, version, DO");
    let options: Vec<_> =
        extended_error.map(|code| (OPTION_EDE, code.to_be_bytes().to_vec())).into_iter().collect();
    assert_eq!(got.options(), options, "options");
}

/// The extended error that an upstream's message passes on: its first.
pub(crate) fn extended_error(answer: &Parsed) -> Option<u16> {
    let first = |(code, value): &(u16, Vec<u8>)| {
        (*code == OPTION_EDE && value.len() >= 2).then(|| u16::from_be_bytes([value[0], value[1]]))
    };
    answer.options().iter().find_map(first)
}

/// Whether an answer was tailored to a client subnet that we did not send (RFC 7871 §7.3).
pub(crate) fn is_scoped(answer: &Parsed) -> bool {
    answer.options().iter().any(|(code, value)| *code == 8 && value.len() >= 4 && value[3] > 0)
}

/// Panics if a judgement breaks a rule that needs no look at chains and signatures (semantics.md R3, R7; RFC 2308 §5).
pub(crate) fn check_judgement(answer: &Parsed, rules: &CacheRules, judgement: Judgement) {
    let rcode = answer.rcode();
    let (qtype, _) = crate::oracle::type_and_class(&answer.question);
    let least = answer.data().map(Record::ttl_s).min();
    let soa = answer.data().find(|record| record.section == 1 && record.rtype == 6);
    let Judgement::Keep { kind, ttl_s } = judgement else {
        let plain = rcode == 0 && qtype != 255 && answer.data().any(|r| is_the_answer(answer, r, qtype));
        let chain = answer.data().any(|r| matches!(r.rtype, 5 | 46));
        let lives = least.unwrap_or(0).max(rules.success.ttl_min_s).min(rules.success.ttl_max_s) > 0;
        assert!(!plain || chain || !lives, "a plain answer is not kept");
        return;
    };
    assert!(ttl_s > 0, "kept for no time");
    let within = |clamp: nodens_core::config::KindRules, natural: u32| {
        let longest = natural.max(clamp.ttl_min_s).min(clamp.ttl_max_s);
        assert!(ttl_s <= longest, "{kind:?} is kept for {ttl_s} s, not {longest} s");
    };
    match kind {
        Kind::Failure => {
            assert!(matches!(rcode, 2 | 4), "RCODE {rcode} kept as a failure");
            assert_eq!(ttl_s, rules.servfail_ttl_s, "a failure's time");
        }
        Kind::Positive => {
            assert_eq!(rcode, 0, "a positive answer with an error");
            let asked_for = |r: &Record| r.section == 0 && (r.rtype == qtype || qtype == 255);
            assert!(answer.data().any(asked_for), "a positive answer without what was asked for");
            within(rules.success, least.unwrap_or(0));
        }
        Kind::NoData | Kind::NxDomain => {
            assert_eq!(rcode, if kind == Kind::NoData { 0 } else { 3 });
            let minimum = soa.map(|soa| match soa.rdata.last() {
                Some(crate::oracle::Part::Bytes(numbers)) => {
                    u32::from_be_bytes(numbers[16..20].try_into().expect("four bytes"))
                }
                _ => 0,
            });
            let minimum = minimum.map(|s| if s >> 31 == 1 { 0 } else { s });
            let natural = least.unwrap_or(SOALESS_TTL_MAX_S);
            match (minimum, kind) {
                (Some(minimum), _) => {
                    assert!(soa.is_some_and(|soa| denies_here(answer, soa)), "a SOA of another zone");
                    within(rules.denial, natural.min(minimum));
                }
                (None, Kind::NoData) => {
                    let referral = answer.data().any(|r| r.section == 1 && r.rtype == 2);
                    let has_answer = answer.data().any(|r| r.section == 0);
                    assert!(!referral && !has_answer, "a referral or an answer to something else is kept");
                    within(rules.denial, natural.min(SOALESS_TTL_MAX_S));
                }
                (None, _) => panic!("NXDOMAIN without a SOA is kept"),
            }
        }
    }
}

fn is_the_answer(answer: &Parsed, record: &Record, qtype: u16) -> bool {
    let (_, qclass) = crate::oracle::type_and_class(&answer.question);
    record.section == 0
        && (record.rtype, record.class) == (qtype, qclass)
        && record.owner.eq_ignore_ascii_case(answer.qname())
}

/// Whether a SOA's owner is at or above the question's name or the target of one of the answer's CNAMEs.
fn denies_here(answer: &Parsed, soa: &Record) -> bool {
    let targets =
        answer.data().filter(|r| r.section == 0 && r.rtype == 5).filter_map(|r| match &r.rdata[..] {
            [crate::oracle::Part::Name(target)] => Some(&target[..]),
            _ => None,
        });
    targets.chain([answer.qname()]).any(|name| is_at_or_below(name, &soa.owner))
}

fn is_at_or_below(mut name: &[u8], zone: &[u8]) -> bool {
    loop {
        if name.eq_ignore_ascii_case(zone) {
            return true;
        }
        match name.first() {
            None | Some(0) => return false,
            Some(len) => name = &name[1 + usize::from(*len)..],
        }
    }
}
