//! Upstream resolvers: they answer, late, wrongly, twice or not at all.
//!
//! What leaves an upstream carries the truth about itself: that it is a genuine answer, and which, or that it is broken. The checks
//! know therefore what the Forwarder must accept and what it must refuse, whatever it looks like.

use crate::answers::forged_body;
use crate::draw::{Draw, Part};
use crate::hazards::Hazard;
use crate::message::{self, Asked, Opt, flag};
use crate::network::Way;
use crate::plan::SPARE_UPSTREAMS;
use crate::questions::QuestionId;
use crate::said::Version;
use crate::world::{Event, MS, SECOND, World};
use nodens_core::{Path, PathEvent};
use smallvec::SmallVec;

/// SYNs that are sent after the first, each after twice the time of the one before; as Linux does.
const SYN_TRIES: u32 = 6;
/// The first retransmission of what is lost on a connection; each later one after twice the time.
const RETRANSMISSION: u64 = 200 * MS;

/// An upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) draw: Draw,
    /// It answers FORMERR to an OPT record.
    pub(crate) refuses_edns: bool,
    /// It answers one query of a connection after the other.
    serial: bool,
    /// Its process is gone but its host is there: port unreachable, connection refused.
    refuses_when_dead: bool,
    /// How long it thinks, at most, in nanoseconds.
    think: u64,
}

/// What a message from an upstream really is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Truth {
    /// An answer from the book.
    Genuine(Version),
    /// An answer to a probe.
    Probe,
    /// Forged or broken.
    Broken,
}

/// A message from an upstream on its way.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) truth: Truth,
}

/// A message and how long after the question it leaves.
type Replies = SmallVec<[(Packet, u64); 2]>;

impl World {
    pub(crate) fn set_up_upstreams(&mut self) {
        let mut draw = Draw::part(self.options.seed, Part::Upstreams);
        for _ in 0..self.options.upstreams + SPARE_UPSTREAMS {
            let mut own = draw.child();
            let half = |own: &mut Draw, exists: bool| own.chance(1, 2) && exists;
            let upstream = Upstream {
                refuses_edns: half(&mut own, self.has(Hazard::FormerrToEdns)),
                serial: half(&mut own, self.has(Hazard::TcpSerial)),
                refuses_when_dead: own.chance(1, 2),
                think: own.pick(&[MS / 10, MS, 20 * MS]),
                draw: own,
            };
            self.upstreams.push(upstream);
        }
    }

    /// An upstream stops being strange about EDNS once everything is healed.
    pub(crate) fn refuses_edns(&self, upstream: usize) -> bool {
        self.upstreams[upstream].refuses_edns && self.has(Hazard::FormerrToEdns)
    }

    /// A datagram leaves for an upstream.
    pub(crate) fn datagram_leaves(&mut self, worker: usize, path: Path, upstream: usize, bytes: &[u8]) {
        let (refused, unreachable, icmp) = (
            self.ratio(Hazard::SendRefused),
            self.ratio(Hazard::Unreachable),
            self.ratio(Hazard::ForgedIcmp),
        );
        if self.draws.host.hit(refused) {
            self.report_later(worker, path, PathEvent::LocalFailure, self.now);
            return;
        }
        let round_trip = self.options.round_trip_us * 1000;
        if self.draws.attacker.hit(icmp) {
            self.report_later(worker, path, PathEvent::Refused, self.now + round_trip / 3);
        }
        let [Some(at), _] = self.cross(upstream, Way::Out, self.now) else { return };
        if self.is_dead(upstream, at) {
            if self.upstreams[upstream].refuses_when_dead {
                self.report_later(worker, path, PathEvent::Refused, at + round_trip / 2);
            }
            return;
        }
        if self.upstreams[upstream].draw.hit(unreachable) {
            self.report_later(worker, path, PathEvent::Refused, at + round_trip / 2);
            return;
        }
        for (packet, after) in self.replies(upstream, bytes, false) {
            let mut to = path;
            let other = self.ratio(Hazard::OtherPath);
            if self.draws.attacker.hit(other)
                && let Some(elsewhere) = self.workers[worker].any_udp_path(upstream, &mut self.draws.attacker)
            {
                to = elsewhere;
            }
            let [first, again] = self.cross(upstream, Way::Back, at + after);
            if let Some(arrives) = again {
                let packet = Packet { bytes: packet.bytes.clone(), truth: packet.truth };
                self.queue.push(arrives, Event::Deliver { worker, path: to, packet });
            }
            if let Some(arrives) = first {
                self.queue.push(arrives, Event::Deliver { worker, path: to, packet });
            }
        }
    }

    /// A TCP connection is asked for: `tries` SYNs were lost before this one.
    pub(crate) fn connection_asked(&mut self, worker: usize, path: Path, upstream: usize, tries: u32) {
        if self.workers[worker].line(path).is_none() {
            return;
        }
        let (refuse, silent, stall) =
            (self.ratio(Hazard::TcpRefuse), self.ratio(Hazard::TcpNoAnswer), self.ratio(Hazard::TcpStall));
        let at = self.now + self.options.round_trip_us * 1000;
        let dead = self.is_dead(upstream, self.now);
        let lost = self.is_silent(upstream, Way::Out, self.now) || self.is_silent(upstream, Way::Back, at);
        let own = &mut self.upstreams[upstream];
        if own.draw.hit(refuse) || (dead && own.refuses_when_dead) {
            self.report_later(worker, path, PathEvent::Refused, at);
        } else if dead || lost || own.draw.hit(silent) {
            if tries == SYN_TRIES {
                self.report_later(worker, path, PathEvent::Refused, at);
            } else {
                let again = self.now + (SECOND << tries);
                self.queue.push(again, Event::Connect { worker, path, upstream, tries: tries + 1 });
            }
        } else {
            let stalls = own.draw.hit(stall);
            if let Some(line) = self.workers[worker].line_mut(path) {
                line.stalled = stalls;
            }
            self.report_later(worker, path, PathEvent::Connected, at);
        }
    }

    /// A message leaves for an upstream on a connection: `tries` times it was lost before. TCP sends it again until it arrives; but
    /// an upstream that died knows nothing of the connection, and one that is swallowed leads to nobody.
    pub(crate) fn message_leaves(
        &mut self,
        worker: usize,
        path: Path,
        upstream: usize,
        bytes: &[u8],
        tries: u32,
    ) {
        let half = self.options.round_trip_us * 500;
        let swallow = self.ratio(Hazard::TcpSwallowed);
        let dead = self.is_dead(upstream, self.now);
        let silent = self.is_silent(upstream, Way::Out, self.now)
            || self.is_silent(upstream, Way::Back, self.now + half);
        let swallowed = self.upstreams[upstream].draw.hit(swallow);
        let Some(line) = self.workers[worker].line_mut(path) else { return };
        line.stalled |= swallowed;
        if line.stalled {
            return;
        }
        if dead {
            line.stalled = true;
            if self.upstreams[upstream].refuses_when_dead {
                self.report_later(worker, path, PathEvent::Closed, self.now + 2 * half);
            }
            return;
        }
        if silent {
            let again = self.now + (RETRANSMISSION << tries.min(12));
            let bytes = bytes.to_vec();
            self.queue.push(again, Event::Again { worker, path, upstream, bytes, tries: tries + 1 });
            return;
        }
        let mut at = self.now + half;
        if self.upstreams[upstream].serial {
            at = at.max(line.busy_until);
        }
        for (packet, after) in self.replies(upstream, bytes, true) {
            let leaves = at + after;
            if let Some(line) = self.workers[worker].line_mut(path) {
                line.busy_until = leaves;
            }
            self.queue.push(leaves, Event::StreamBack { worker, path, upstream, packet });
        }
    }

    /// Puts a message on the stream back to a worker: whole, in pieces, or not to its end.
    pub(crate) fn stream_back(&mut self, worker: usize, path: Path, upstream: usize, packet: Packet) {
        let (short, bytewise, closes, bad) = (
            self.ratio(Hazard::TcpCutShort),
            self.ratio(Hazard::TcpBytewise),
            self.ratio(Hazard::TcpCloses),
            self.ratio(Hazard::TcpBadLength),
        );
        let own = &mut self.upstreams[upstream].draw;
        let (short, bytewise, closes, bad) =
            (own.hit(short), own.hit(bytewise), own.hit(closes), own.hit(bad));
        let piece = if bytewise { own.between(1, 40) as usize } else { usize::MAX };
        let mut stream = Vec::with_capacity(packet.bytes.len() + 2);
        if bad {
            // A length that holds no header (RFC 7766 §8).
            stream.extend_from_slice(&[0, 5, 1, 2, 3, 4, 5]);
        } else {
            stream.extend_from_slice(&(packet.bytes.len() as u16).to_be_bytes());
            stream.extend_from_slice(&packet.bytes);
        }
        if short {
            stream.truncate(stream.len() / 2);
        }
        let Some(line) = self.workers[worker].line_mut(path) else { return };
        if line.stalled {
            return;
        }
        // A stream keeps its order.
        let mut arrives = (self.now + self.options.round_trip_us * 500).max(line.arrives_until + 1);
        line.truths.push_back(packet.truth);
        for bytes in stream.chunks(piece.min(stream.len()).max(1)) {
            self.queue.push(arrives, Event::Piece { worker, path, bytes: bytes.to_vec() });
            arrives += 20_000;
        }
        line.arrives_until = arrives;
        if short || closes {
            line.stalled = true;
            self.report_later(worker, path, PathEvent::Closed, arrives);
        }
    }

    fn report_later(&mut self, worker: usize, path: Path, event: PathEvent, at: u64) {
        self.queue.push(at, Event::Report { worker, path, event });
    }

    /// Everything that an upstream sends in reply to one query, with how long after the query each leaves.
    fn replies(&mut self, upstream: usize, bytes: &[u8], tcp: bool) -> Replies {
        let mut replies = Replies::new();
        // The checks have read it already; what they could not read ended the world.
        let Some(asked) = message::read_asked(bytes) else { return replies };
        let slow = self.ratio(Hazard::Slow);
        let twice = self.ratio(Hazard::AnswersTwice);
        let mute = self.ratio(Hazard::Mute);
        let own = &mut self.upstreams[upstream];
        let mut after = own.draw.below(own.think);
        if own.draw.hit(slow) {
            after += own.draw.between(200 * MS, 5 * SECOND);
        }
        let Some(question) = self.space.find(asked.question) else {
            let mut bytes = Vec::with_capacity(32);
            message::put_header(&mut bytes, asked.id, flag::QR | flag::RA, [1, 0, 0, 0]);
            bytes.extend_from_slice(asked.question);
            replies.push((Packet { bytes, truth: Truth::Probe }, after));
            return replies;
        };
        if own.draw.hit(mute) {
            return replies;
        }
        self.broken_replies(upstream, &asked, question, after, &mut replies);
        for n in 0..2 {
            if n > 0 && !self.upstreams[upstream].draw.hit(twice) {
                break;
            }
            let version = self.make_answer(upstream, question, &asked, tcp);
            let bytes = self.written(upstream, version, &asked);
            replies.push((Packet { bytes, truth: Truth::Genuine(version) }, after + n * MS));
        }
        replies
    }

    /// The bytes of a genuine answer, with liberties that an upstream may take.
    fn written(&mut self, upstream: usize, version: Version, asked: &Asked<'_>) -> Vec<u8> {
        let (case, trailing) = (self.ratio(Hazard::WrongCase), self.ratio(Hazard::TrailingBytes));
        let draw = &mut self.upstreams[upstream].draw;
        let mut bytes = Vec::with_capacity(128);
        if draw.hit(case) {
            // RFC 4343: case does not matter, so an answer in another spelling is an answer.
            let (name, fields) = asked.question.split_at(asked.question.len() - 4);
            let flip = |byte: &u8| if byte.is_ascii_alphabetic() { byte ^ 0x20 } else { *byte };
            let question: Vec<u8> = name.iter().map(flip).chain(fields.iter().copied()).collect();
            self.book.write(version, asked.id, &question, &mut bytes);
        } else {
            self.book.write(version, asked.id, asked.question, &mut bytes);
        }
        if draw.hit(trailing) {
            bytes.extend_from_slice(&[0xee; 7]);
        }
        bytes
    }

    /// What comes before the genuine answer and must not be taken for it.
    fn broken_replies(
        &mut self,
        upstream: usize,
        asked: &Asked<'_>,
        question: QuestionId,
        after: u64,
        replies: &mut Replies,
    ) {
        for hazard in [
            Hazard::WrongId,
            Hazard::WrongQuestion,
            Hazard::NotAResponse,
            Hazard::WrongClass,
            Hazard::Malformed,
            Hazard::BadOpt,
        ] {
            let ratio = self.ratio(hazard);
            let draw = &mut self.upstreams[upstream].draw;
            if draw.hit(ratio) {
                let bytes = broken_reply(draw, hazard, asked, question);
                replies.push((Packet { bytes, truth: Truth::Broken }, after / 2));
            }
        }
    }
}

/// A reply with one thing wrong.
fn broken_reply(draw: &mut Draw, hazard: Hazard, asked: &Asked<'_>, question: QuestionId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    let id = match hazard {
        Hazard::WrongId => asked.id ^ draw.between(1, 0xffff) as u16,
        _ => asked.id,
    };
    let mut flags = flag::QR | flag::RA;
    if hazard == Hazard::NotAResponse {
        flags = draw.pick(&[flag::RA, flag::QR | 2 << 11, flag::QR | 4 << 11]);
    }
    message::put_header(&mut bytes, id, flags, [1, 1, 0, 0]);
    bytes.extend_from_slice(asked.question);
    let records = bytes.len();
    bytes.extend_from_slice(&forged_body(question));
    match hazard {
        Hazard::WrongQuestion => match draw.below(4) {
            // Another name, another type, another class, no question at all.
            0 => bytes[message::HEADER + 1] ^= 0x11,
            1 => bytes[records - 3] ^= 0x20,
            2 => bytes[records - 1] = 3,
            _ => {
                bytes.truncate(message::HEADER);
                bytes[5] = 0;
                bytes[7] = 0;
            }
        },
        Hazard::WrongClass => bytes[records + 5] = 3,
        Hazard::Malformed => match draw.below(6) {
            0 => bytes.truncate(records + 9),
            1 => bytes[6] = 0xff,
            2 => bytes[records + 1] = records as u8,
            3 => bytes[records + 10] = 0xff,
            4 => bytes.truncate(message::HEADER - 1),
            _ => bytes[records] = 0x40,
        },
        Hazard::BadOpt => {
            let opts = draw.between(1, 2);
            let version = if opts == 1 { 1 } else { 0 };
            for _ in 0..opts {
                message::put_opt(&mut bytes, Opt { version, ..Opt::plain(1232, false) });
            }
            bytes[11] = opts as u8;
        }
        _ => {}
    }
    bytes
}
