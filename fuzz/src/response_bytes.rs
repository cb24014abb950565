//! Any bytes as an upstream's response.
//!
//! The first byte chooses the client and the transport, the rest is the message. Its question is asked first, so that whatever it says is an
//! answer to something; its ID is made right unless the first byte says otherwise. What is accepted must pass V2 to V11 of reliability.md
//! §2.3 as the slow reader sees them, must reach the client as R25 has it, and may be kept only as the rules allow. What is
//! refused must have changed nothing: a good answer is still taken.

use crate::oracle::{HEADER_LEN, Parsed, Unsound, plain_question, type_and_class, u16_at};
use crate::spec::{Client, check_judgement, check_reply, extended_error, is_scoped};
use crate::world::{Asked, Sent, UNIX_S, World, config};
use nodens_core::cache::{Judgement, judge};
use nodens_core::config::{CacheRules, Limits, UDP_SIZE_DEFAULT, UDP_SIZE_MIN, UpstreamTransport};
use nodens_core::wire::{Header, Message, Question};
use nodens_core::{Duration, Rejection, Transport};

const OVER_TCP: u8 = 0x01;
const OWN_ID: u8 = 0x02;
const EDNS: u8 = 0x04;
const DO: u8 = 0x08;
const CHECKING_DISABLED: u8 = 0x10;
const NO_RECURSION: u8 = 0x20;
const OTHER_QUESTION: u8 = 0x40;
const CLIENT_TCP: u8 = 0x80;

const QR: u16 = 0x8000;
const TC: u16 = 0x0200;
const OPCODE: u16 = 0x7800;

/// Longer than any lookup lives.
const PATIENCE: Duration = Duration::from_secs(10);

/// TTL and MINIMUM of the answer that is good, in seconds.
const GENUINE_TTL_S: u8 = 60;

/// The target.
pub fn response_bytes(data: &[u8]) {
    let Some((choices, message)) = data.split_first() else { return };
    if message.len() > usize::from(u16::MAX) {
        return;
    }
    Case::new(*choices, message).run();
}

/// One query and the response to it.
struct Case {
    choices: u8,
    world: World,
    client_transport: Transport,
    query: Vec<u8>,
    client: Client,
    sent: Sent,
    /// With the ID it came to have.
    message: Vec<u8>,
}

impl Case {
    fn new(choices: u8, message: &[u8]) -> Case {
        let has = |choice| choices & choice != 0;
        let transport =
            if has(OVER_TCP) { UpstreamTransport::ForceTcp } else { UpstreamTransport::PreferUdp };
        let mut world = World::new(config(transport));
        let question = plain_question(message).filter(|_| !has(OTHER_QUESTION)).filter(|question| {
            let (qtype, qclass) = type_and_class(question);
            let refused = question.to_ascii_lowercase().windows(9).any(|name| name == b"\x07refused\x00");
            qclass == 1 && !(249..=254).contains(&qtype) && !refused
        });
        let question = question.unwrap_or_else(|| b"\x01a\x00\x00\x01\x00\x01".to_vec());
        let flags =
            if has(NO_RECURSION) { 0 } else { 0x0100 } | if has(CHECKING_DISABLED) { 0x0010 } else { 0 };
        let query = query(&question, flags, has(EDNS).then_some(has(DO)));
        let client_transport = if has(CLIENT_TCP) { Transport::Tcp } else { Transport::Udp };
        assert_eq!(world.ask(client_transport, &query), Asked::Forwarded);
        let sent = world.sent.remove(0);
        let mut message = message.to_vec();
        if !has(OWN_ID) && message.len() >= 2 {
            message[..2].copy_from_slice(&sent.bytes[..2]);
        }
        let len_max = match (client_transport, has(EDNS)) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, true) => usize::from(UDP_SIZE_DEFAULT),
            (Transport::Udp, false) => usize::from(UDP_SIZE_MIN),
        };
        let do_bit = has(EDNS).then_some(has(DO));
        let client =
            Client { id: 0, flags, question, do_bit, udp_size: UDP_SIZE_DEFAULT, len_max, trust_ad: true };
        Case { choices, world, client_transport, query, client, sent, message }
    }

    fn has(&self, choice: u8) -> bool {
        self.choices & choice != 0
    }

    fn run(mut self) {
        let expected = validate(&self.message, &self.sent.bytes);
        let accepted = self.world.reply(self.sent.path, &self.message);
        match expected {
            Err(reason) => {
                assert_eq!(accepted, Err(reason));
                self.refused(reason);
            }
            Ok(Valid::Truncated) => {
                assert_eq!(accepted, Ok(()));
                self.nothing_yet();
            }
            Ok(Valid::Whole(answer)) => {
                assert_eq!(accepted, Ok(()));
                if answer.rcode() == 1 && answer.opt.is_none() {
                    // RFC 6891 §7: asked again without EDNS.
                    let [again] = &self.world.sent[..] else { panic!("not asked again without EDNS") };
                    let again = Parsed::read(&again.bytes).expect("our query is sound");
                    assert!(again.opt.is_none() && again.question == self.client.question);
                    self.nothing_yet();
                } else {
                    self.accepted(&answer);
                }
            }
        }
    }

    /// The client has its answer, and whoever asks next has what may be kept of it.
    fn accepted(&mut self, answer: &Parsed) {
        let rules = CacheRules::coredns();
        let header = Header::read(&self.message).expect("it was read");
        let question = Question::read(&self.message).expect("it was read");
        let message = Message::walk(&self.message, header, question).expect("it was read");
        let judgement = judge(&message, &rules, UNIX_S);
        check_judgement(answer, &rules, judgement);
        let kept = match judgement {
            Judgement::Keep { ttl_s, .. } if !self.has(NO_RECURSION) && !is_scoped(answer) => Some(ttl_s),
            Judgement::Keep { .. } | Judgement::Relay => None,
        };
        let error = extended_error(answer);
        let reply = self.only_answer();
        check_reply(&self.message, kept, error, &self.client, &reply);

        let Some(ttl_s) = kept else {
            let again = self.world.ask(self.client_transport, &self.query);
            // REFUSED is remembered for a second, everything else is asked again.
            let remembered = answer.rcode() == 5 && !self.has(NO_RECURSION);
            assert_eq!(again == Asked::Forwarded, !remembered, "{again:?}");
            return;
        };
        if self.message.len() > Limits::default().entry_bytes_max as usize {
            // With the places of its TTLs it may be too large to be kept.
            return;
        }
        let error = if matches!(answer.rcode(), 2 | 4) { error.or(Some(13)) } else { error };
        for passed_s in [0, 1, ttl_s / 2, ttl_s - 1] {
            self.world.now = crate::world::START + Duration::from_secs(u64::from(passed_s));
            if passed_s >= ttl_s {
                continue;
            }
            let Asked::Answered(hit) = self.world.ask(self.client_transport, &self.query) else {
                panic!("not kept for {passed_s} of {ttl_s} s")
            };
            check_reply(&self.message, Some(ttl_s - passed_s), error, &self.client, &hit);
        }
        self.world.now = crate::world::START + Duration::from_secs(u64::from(ttl_s));
        assert_eq!(self.world.ask(self.client_transport, &self.query), Asked::Forwarded, "kept for too long");
    }

    /// What was refused is as if it had never come.
    fn refused(&mut self, reason: Rejection) {
        assert!(self.world.answers.is_empty(), "refused, and answered all the same");
        if self.has(OVER_TCP) && reason != Rejection::WrongId {
            // The connection is given up; the lookup goes on over another.
            self.nothing_yet();
            return;
        }
        let genuine = self.genuine();
        assert_eq!(self.world.reply(self.sent.path, &genuine), Ok(()), "a good answer after {reason:?}");
        let reply = self.only_answer();
        check_reply(&genuine, Some(GENUINE_TTL_S.into()), None, &self.client, &reply);
    }

    /// The lookup goes on, and ends with an answer, here SERVFAIL, because nobody says any more.
    fn nothing_yet(&mut self) {
        assert!(self.world.answers.is_empty(), "answered too early");
        assert_eq!(self.world.forwarder.lookups(), 1);
        self.world.pass(PATIENCE);
        assert_eq!(self.world.forwarder.lookups(), 0, "a lookup without end");
        let reply = self.only_answer();
        let parsed = Parsed::read(&reply).expect("a sound answer");
        assert_eq!((parsed.id, &parsed.question), (self.client.id, &self.client.question));
        // A truncated answer that TCP cannot complete is passed on as such.
        let truncated = parsed.flags & TC != 0 && parsed.rcode() == 0;
        assert!((parsed.rcode() == 2) != truncated, "RCODE {}", parsed.rcode());
        assert_eq!(parsed.data().count(), 0);
    }

    fn only_answer(&mut self) -> Vec<u8> {
        assert_eq!(self.world.answers.len(), 1, "answers");
        self.world.answers.remove(0)
    }

    /// NODATA, says the root.
    fn genuine(&self) -> Vec<u8> {
        let question = &self.client.question;
        let mut answer = [&self.sent.bytes[..2], &[0x80, 0x80, 0, 1, 0, 0, 0, 1, 0, 0], question].concat();
        // Its SOA: owner, type, class, TTL, length; two names and five numbers.
        answer.extend([0, 0, 6, 0, 1, 0, 0, 0, GENUINE_TTL_S, 0, 22, 0, 0]);
        answer.extend([0; 16]);
        answer.extend([0, 0, 0, GENUINE_TTL_S]);
        answer
    }
}

/// What passes V2 to V11.
enum Valid {
    Truncated,
    Whole(Box<Parsed>),
}

/// V2 to V11 of reliability.md §2.3, in their order.
fn validate(message: &[u8], sent: &[u8]) -> Result<Valid, Rejection> {
    if message.len() < HEADER_LEN {
        return Err(Rejection::Short);
    }
    let word = |n: usize| u16_at(message, 2 * n).unwrap_or(0);
    if message[..2] != sent[..2] {
        return Err(Rejection::WrongId);
    }
    if word(1) & QR == 0 {
        return Err(Rejection::NotAResponse);
    }
    if word(1) & OPCODE != 0 {
        return Err(Rejection::WrongOpcode);
    }
    let asked = plain_question(sent).expect("our query");
    let name_len = asked.len() - 4;
    let same = plain_question(message).filter(|question| {
        question.len() == asked.len()
            && question[..name_len].eq_ignore_ascii_case(&asked[..name_len])
            && question[name_len..] == asked[name_len..]
    });
    if word(2) != 1 || same.is_none() {
        return Err(Rejection::WrongQuestion);
    }
    if word(1) & TC != 0 {
        return Ok(Valid::Truncated);
    }
    let parsed = Parsed::read(message).map_err(|unsound| match unsound {
        Unsound::Malformed => Rejection::Malformed,
        Unsound::BadOpt => Rejection::BadOpt,
    })?;
    if parsed.data().any(|record| record.section == 0 && record.class != 1) {
        return Err(Rejection::WrongClass);
    }
    Ok(Valid::Whole(Box::new(parsed)))
}

/// A client's query with the ID 0.
fn query(question: &[u8], flags: u16, do_bit: Option<bool>) -> Vec<u8> {
    let [high, low] = flags.to_be_bytes();
    let mut query = [&[0, 0, high, low, 0, 1, 0, 0, 0, 0, 0, u8::from(do_bit.is_some())], question].concat();
    if let Some(do_bit) = do_bit {
        query.extend([0, 0, 41, 0x10, 0, 0, 0, u8::from(do_bit) << 7, 0, 0, 0]);
    }
    query
}
