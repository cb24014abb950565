//! Who asked and has no answer, what upstreams said and when: against this every answer is checked.

use super::peers::{FORGED, Reply, do_bit, is_made_for};
use super::shape::Shape;
use crate::oracle::{Parsed, Part, plain_question, u16_at};
use nodens_core::{ClientAddr, Duration, Instant};

/// No client waits for longer than this for a Forwarder that is woken in time.
const WAIT_MAX: Duration = Duration::from_millis(4500);
/// The largest lower clamp in the configurations that are drawn, in seconds.
const TTL_FLOOR_S: u32 = 5;
const RD: u16 = 0x0100;
const CD: u16 = 0x0010;
const TC: u16 = 0x0200;

/// A query that was taken in.
#[derive(Debug)]
struct Waiting {
    client: ClientAddr,
    message: Vec<u8>,
    since: Instant,
    /// What lookups are told apart by: the question without case, RD, CD and DO.
    key: Vec<u8>,
}

/// The books.
#[derive(Debug)]
pub(super) struct Books {
    waiting: Vec<Waiting>,
    /// By version: when it was said, and the TTL of its records.
    said: Vec<(Instant, u32)>,
    /// Answers given, until the first reload: with a route its counters go.
    answers: Option<u64>,
}

fn question(message: &[u8]) -> Vec<u8> {
    plain_question(message).expect("queries here are sound")
}

/// The DO bit of an answer's OPT, if it has one.
fn do_bit_given(reply: &Parsed) -> Option<bool> {
    reply.opt.map(|at| reply.records[at].ttl & 0x8000 != 0)
}

impl Books {
    pub(super) fn new() -> Self {
        Books { waiting: Vec::new(), said: Vec::new(), answers: Some(0) }
    }

    pub(super) fn next_version(&self) -> u16 {
        self.said.len() as u16
    }

    pub(super) fn said(&mut self, version: u16, reply: &Reply, now: Instant) {
        assert_eq!(usize::from(version), self.said.len());
        self.said.push((now, reply.ttl_s));
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn waits(&mut self, now: Instant, client: ClientAddr, message: Vec<u8>) {
        let mut key = question(&message);
        let do_bit = do_bit(&message, &key) == Some(true);
        key.make_ascii_lowercase();
        key.extend([message[2] & 1, message[3] & 0x10, u8::from(do_bit)]);
        self.waiting.push(Waiting { client, message, since: now, key });
    }

    /// A query was dropped as a retransmission: there must be one like it.
    pub(super) fn waits_already(&self, client: ClientAddr, message: &[u8]) {
        let same = |other: &Waiting| {
            other.client == client
                && other.message[..2] == message[..2]
                && question(&other.message).eq_ignore_ascii_case(&question(message))
        };
        assert!(self.waiting.iter().any(same), "dropped as a duplicate of nothing");
    }

    /// Whoever asked on a socket that is gone cannot hear an answer.
    pub(super) fn reloaded(&mut self, listeners: usize) {
        self.waiting.retain(|waiting| usize::from(waiting.client.listener.0) < listeners);
        self.answers = None;
    }

    /// How many different questions are waited for, DO, CD and RD being part of them.
    pub(super) fn questions(&self) -> usize {
        let mut asked: Vec<&[u8]> = self.waiting.iter().map(|waiting| &waiting.key[..]).collect();
        asked.sort_unstable();
        asked.dedup();
        asked.len()
    }

    pub(super) fn check_answer_count(&self, counted: impl Iterator<Item = u64>) {
        if let Some(answers) = self.answers {
            assert_eq!(counted.sum::<u64>(), answers, "answers counted and answers given");
        }
    }

    pub(super) fn nobody_is_overdue(&self, now: Instant) {
        let overdue = self.waiting.iter().find(|waiting| waiting.since + WAIT_MAX <= now);
        assert!(overdue.is_none(), "it waits since {:?}: {overdue:?}", overdue.map(|w| now.since(w.since)));
    }

    /// An answer through `poll_transmit`: somebody waits for exactly this, and now does no more.
    pub(super) fn answered(&mut self, now: Instant, client: ClientAddr, reply: &[u8], shape: &Shape) {
        let parsed = Parsed::read(reply).unwrap_or_else(|fault| panic!("{fault:?}: {reply:02x?}"));
        let is_his = |waiting: &Waiting| {
            let flags = u16_at(&waiting.message, 2).unwrap_or(0);
            waiting.client == client
                && waiting.message[..2] == reply[..2]
                && question(&waiting.message) == parsed.question
                && (flags ^ parsed.flags) & (RD | CD) == 0
                && do_bit(&waiting.message, &parsed.question) == do_bit_given(&parsed)
        };
        let at = self.waiting.iter().position(is_his);
        let at =
            at.unwrap_or_else(|| panic!("an answer for somebody who does not wait for it: {reply:02x?}"));
        let waiting = self.waiting.remove(at);
        self.check(now, &waiting.message, &parsed, reply.len(), client, shape);
    }

    /// An answer by return value.
    pub(super) fn answered_at_once(
        &mut self,
        now: Instant,
        query: &[u8],
        reply: &[u8],
        client: ClientAddr,
        shape: &Shape,
    ) {
        let parsed = Parsed::read(reply).unwrap_or_else(|fault| panic!("{fault:?}: {reply:02x?}"));
        assert_eq!((&query[..2], question(query)), (&reply[..2], parsed.question.clone()));
        let flags = u16_at(query, 2).unwrap_or(0);
        assert_eq!((flags ^ parsed.flags) & (RD | CD), 0, "RD and CD are the client's");
        assert_eq!(
            do_bit(query, &parsed.question),
            do_bit_given(&parsed),
            "an OPT for who sent one, with its DO"
        );
        self.check(now, query, &parsed, reply.len(), client, shape);
    }

    /// What holds of every answer, whatever way it came.
    fn check(
        &mut self,
        now: Instant,
        query: &[u8],
        reply: &Parsed,
        len: usize,
        client: ClientAddr,
        shape: &Shape,
    ) {
        self.answers = self.answers.map(|answers| answers + 1);
        assert_eq!(reply.end, len, "bytes after the last record");
        assert!(reply.flags & 0x8000 != 0 && reply.flags & 0x7c40 == 0, "flags {:04x}", reply.flags);
        if client.connection.is_none() {
            let name_len = reply.question.len();
            let size = reply.opt.and_then(|_| u16_at(query, 12 + name_len + 3)).unwrap_or(512);
            assert!(len <= shape.udp_len_max(size), "{len} bytes for a client that takes {size}");
        } else {
            assert!(reply.flags & TC == 0, "truncated over TCP");
        }
        let opt = do_bit(query, &reply.question);
        let cd = query[3] & 0x10 != 0;
        for record in reply.data() {
            let data = match &record.rdata[..] {
                [Part::Bytes(data)] => &data[..],
                [Part::Name(_), Part::Name(_), Part::Bytes(numbers)] => &numbers[..4],
                other => panic!("nobody said {other:?}"),
            };
            assert_ne!(data[0], FORGED, "a forged answer has reached a client");
            let version = u16_at(data, 2).unwrap_or(u16::MAX);
            let made_for_this = is_made_for(data, &reply.question, opt == Some(true), cd, version);
            assert!(made_for_this, "{data:02x?} was said to another question, or with another DO or CD");
            let (said, ttl_s) = self.said[usize::from(version)];
            let passed_s = now.since(said).as_secs();
            let longest_s = u64::from(ttl_s.max(TTL_FLOOR_S));
            assert!(
                passed_s == 0 || u64::from(record.ttl) + passed_s <= longest_s,
                "a TTL of {} s, {passed_s} s after one of {ttl_s} s was said",
                record.ttl
            );
            assert!(u64::from(record.ttl) <= longest_s);
        }
    }
}
