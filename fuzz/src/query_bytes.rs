//! Any bytes as a client's query, over UDP and over TCP.
//!
//! What is wrong with them is found out here once more, slowly and by other code, and decides what must come back. A good query must
//! reach the upstream as ours: one question, the client's RD and CD, an OPT of our own. What the upstream then says must
//! reach the client, and the same query must be answered from the cache.

use crate::oracle::{HEADER_LEN, Names, OPT, Parsed, plain_question, type_and_class, u16_at};
use crate::spec::{Client, check_reply};
use crate::world::{Asked, REFUSED_ZONE, World, config};
use hickory_proto::op::Message;
use nodens_core::config::{UDP_SIZE_DEFAULT, UDP_SIZE_MIN, UpstreamTransport};
use nodens_core::{DropReason, Transport};

const QR: u16 = 0x8000;
const RD: u16 = 0x0100;
const AD: u16 = 0x0020;
const CD: u16 = 0x0010;
const OPCODE: u16 = 0x7800;

const NOERROR: u16 = 0;
const FORMERR: u16 = 1;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
const BADVERS: u16 = 16;

/// TTL and MINIMUM of the SOA that the upstream's NXDOMAIN brings, in seconds.
const SOA_TTL_S: u32 = 30;

/// What must become of a query.
enum Expected {
    Dropped(DropReason),
    /// A header alone.
    Bare(u16),
    /// The question, an OPT for who sent one, no records.
    Empty(u16, Option<bool>),
    Forwarded(Option<(u16, bool)>),
}

/// The target.
pub fn query_bytes(data: &[u8]) {
    if data.len() > usize::from(u16::MAX) {
        return;
    }
    for transport in [Transport::Udp, Transport::Tcp] {
        check(data, transport);
    }
}

fn check(data: &[u8], transport: Transport) {
    let mut world = World::new(config(UpstreamTransport::AsClient));
    let asked = world.ask(transport, data);
    match (expected(data), asked) {
        (Expected::Dropped(reason), Asked::Dropped(dropped)) => assert_eq!(reason, dropped),
        (Expected::Bare(rcode), Asked::Answered(reply)) => {
            let flags = QR | u16_at(data, 2).unwrap_or(0) & (OPCODE | RD) | rcode;
            let header = [&data[..2], &flags.to_be_bytes(), &[0; 8]].concat();
            assert_eq!(reply, header);
        }
        (Expected::Empty(rcode, do_bit), Asked::Answered(reply)) => {
            check_empty(data, rcode, do_bit, &reply);
            assert!(world.sent.is_empty(), "refused and forwarded all the same");
        }
        (Expected::Forwarded(edns), Asked::Forwarded) => forwarded(&mut world, data, transport, edns),
        (_, asked) => panic!("{asked:?} for {data:02x?}"),
    }
}

/// The rules for queries (reliability.md §2.3, semantics.md L13 and L20 to L23).
fn expected(data: &[u8]) -> Expected {
    let word = |n: usize| u16_at(data, 2 * n).unwrap_or(0);
    if data.len() < HEADER_LEN {
        return Expected::Dropped(DropReason::Short);
    }
    if word(1) & QR != 0 {
        return Expected::Dropped(DropReason::Response);
    }
    if word(1) & OPCODE != 0 {
        return Expected::Bare(NOTIMP);
    }
    let [questions, answers, authorities, additionals] = [2, 3, 4, 5].map(word);
    if questions != 1 || answers > 1 || authorities > 1 || additionals > 2 {
        return Expected::Bare(FORMERR);
    }
    let Some(question) = plain_question(data) else { return Expected::Bare(FORMERR) };
    let names = Names::new(data);
    let mut at = HEADER_LEN + question.len();
    let mut opt = None;
    for n in 0..answers + authorities + additionals {
        let record = names.read(at).and_then(|owner| {
            let fixed = data.get(owner.end..owner.end + 10)?;
            let end = owner.end + 10 + usize::from(u16_at(fixed, 8)?);
            data.get(..end)?;
            Some((u16_at(fixed, 0)?, u16_at(fixed, 2)?, [fixed[4], fixed[5], fixed[6]], end))
        });
        let Some((rtype, class, [_, version, flags], end)) = record else {
            return Expected::Empty(FORMERR, None);
        };
        let in_additional = n >= answers + authorities;
        match rtype {
            OPT if in_additional && (opt.is_some() || data[at] != 0) => {
                return Expected::Empty(FORMERR, None);
            }
            OPT if in_additional => opt = Some((class, version, flags & 0x80 != 0)),
            // SIG(0), TSIG
            24 | 250 if in_additional => return Expected::Empty(NOTIMP, None),
            _ => {}
        }
        at = end;
    }
    let do_bit = opt.map(|(_, _, do_bit)| do_bit);
    if opt.is_some_and(|(_, version, _)| version != 0) {
        return Expected::Empty(BADVERS, do_bit);
    }
    let (qtype, qclass) = type_and_class(&question);
    let qname = question[..question.len() - 4].to_ascii_lowercase();
    // DS stands on the parent's side, and the parent of `refused.` is the root.
    let refused = qname.ends_with(REFUSED_ZONE) && is_below(&qname, REFUSED_ZONE) && qtype != 43;
    if qclass != 1 || (249..=254).contains(&qtype) || refused {
        return Expected::Empty(REFUSED, do_bit);
    }
    Expected::Forwarded(opt.map(|(size, _, do_bit)| (size, do_bit)))
}

fn is_below(mut name: &[u8], zone: &[u8]) -> bool {
    while name.len() > zone.len() {
        name = &name[1 + usize::from(name[0])..];
    }
    name == zone
}

fn check_empty(query: &[u8], rcode: u16, do_bit: Option<bool>, reply: &[u8]) {
    let question = plain_question(query).expect("it was read");
    let flags = u16_at(query, 2).unwrap_or(0);
    // An upstream's answer without a record, as far as the rules for what a client gets go.
    let mut empty = [&[0; 4][..], &[0, 1, 0, 0, 0, 0, 0, 0], &question].concat();
    empty[3] = (rcode & 15) as u8;
    if rcode > 15 {
        empty[11] = 1;
        empty.extend([0, 0, OPT as u8, 0, 0, (rcode >> 4) as u8, 0, 0, 0, 0, 0]);
    }
    let client = Client {
        id: u16_at(query, 0).unwrap_or(0),
        flags,
        question,
        do_bit,
        udp_size: UDP_SIZE_DEFAULT,
        len_max: usize::from(UDP_SIZE_MIN),
        trust_ad: true,
    };
    check_reply(&empty, None, None, &client, reply);
    assert_ne!(rcode, NOERROR);
    assert!(reply.len() <= query.len(), "a refusal of {} bytes for {}", reply.len(), query.len());
    let message = Message::from_vec(reply).expect("hickory reads it");
    assert_eq!(u16::from(message.metadata.response_code), rcode);
}

/// A good query goes to the upstream as ours, its answer comes back, and the second time it comes from the cache.
fn forwarded(world: &mut World, query: &[u8], transport: Transport, edns: Option<(u16, bool)>) {
    let question = plain_question(query).expect("it was read");
    let flags = u16_at(query, 2).unwrap_or(0);
    let [sent] = &world.sent[..] else { panic!("sent {} times", world.sent.len()) };
    let sent = sent.clone();
    world.sent.clear();
    let ours = Parsed::read(&sent.bytes).expect("our query is sound");
    assert_eq!(ours.end, sent.bytes.len());
    assert_eq!(ours.question, question, "the question in the client's spelling");
    assert_eq!(ours.flags, flags & (RD | CD) | AD, "RD and CD are the client's, AD is asked for");
    let do_bit = edns.is_some_and(|(_, do_bit)| do_bit);
    let opt = ours.opt.map(|at| (ours.records[at].class, ours.records[at].ttl, ours.records.len()));
    assert_eq!(opt, Some((UDP_SIZE_DEFAULT, if do_bit { 0x8000 } else { 0 }, 1)), "an OPT of ours alone");
    assert!(ours.options().is_empty(), "an option was copied");
    Message::from_vec(&sent.bytes).expect("hickory reads our query");

    let answer = nxdomain(&sent.bytes, &question);
    world.reply(sent.path, &answer).expect("a good answer");
    let size = edns.map_or(UDP_SIZE_MIN, |(size, _)| size.clamp(UDP_SIZE_MIN, UDP_SIZE_DEFAULT));
    let client = Client {
        id: u16_at(query, 0).unwrap_or(0),
        flags,
        question,
        do_bit: edns.map(|(_, do_bit)| do_bit),
        udp_size: UDP_SIZE_DEFAULT,
        len_max: if transport == Transport::Tcp { usize::from(u16::MAX) } else { usize::from(size) },
        trust_ad: true,
    };
    let [reply] = &world.answers[..] else { panic!("answered {} times", world.answers.len()) };
    // An answer to a query without RD is not kept, and its TTLs are what they were; here that is the same number.
    check_reply(&answer, Some(SOA_TTL_S), None, &client, reply);
    Message::from_vec(reply).expect("hickory reads it");

    match world.ask(transport, query) {
        Asked::Answered(hit) if flags & RD != 0 => check_reply(&answer, Some(SOA_TTL_S), None, &client, &hit),
        Asked::Forwarded if flags & RD == 0 => {}
        asked => panic!("the second time: {asked:?}"),
    }
}

/// The name does not exist, says the root.
fn nxdomain(query: &[u8], question: &[u8]) -> Vec<u8> {
    let mut answer = query[..12 + question.len()].to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | NXDOMAIN as u8;
    answer[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    // The root's SOA: owner, type, class, TTL, length; two names and five numbers.
    answer.extend([0, 0, 6, 0, 1]);
    answer.extend(SOA_TTL_S.to_be_bytes());
    answer.extend([0, 22, 0, 0]);
    answer.extend([0; 16]);
    answer.extend(SOA_TTL_S.to_be_bytes());
    answer
}
