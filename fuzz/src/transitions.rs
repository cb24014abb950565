//! Bytes as transitions: a Forwarder whose clients, upstreams, paths, clock and configuration do what the bytes say.
//!
//! | byte mod 16 | what happens |
//! | --- | --- |
//! | 0-3 | a client asks |
//! | 4-8 | an upstream answers a query that is out, well or badly |
//! | 9 | an upstream answers a path that is gone, or says again what it said |
//! | 10, 11 | a path connects, ends, is refused, cannot be had |
//! | 12, 13 | time passes, and the timer is looked at or not |
//! | 14 | the clock moves to exactly where the Forwarder wants to be woken |
//! | 15 | another configuration |
//!
//! Upstreams sign: the data of a good answer says for which question, DO and CD it was made, and when; the data of a forged one says
//! so. After each step the books must balance. In the end everything falls silent, then everything is well: each query has then been answered
//! exactly once, nothing is left and nothing is waited for.

mod books;
mod peers;
mod shape;

use crate::input::Input;
use books::Books;
use nodens_cache::SharedCache;
use nodens_core::stats::Counter;
use nodens_core::{
    ClientAddr, ClientQuery, ConnectionId, DropReason, Duration, Forwarder, Instant, ListenerId, Outcome,
    Path, PathEvent, PathRequest, Rejection, Seed, Target, Transport,
};
use std::net::SocketAddr;
use std::sync::Arc;

/// Steps that one input can take: enough for several lookups to live and die, short enough to stay fast.
const STEPS_MAX: usize = 400;
/// Longer than any lookup lives, late joins and a reload included.
const SILENCE: Duration = Duration::from_secs(10);
/// Longer than anything idle is kept: connections 10 s by default, retired ones 4.5 s, probes until they are answered.
const CALM: Duration = Duration::from_secs(120);
/// Wake-ups within [`SILENCE`] or [`CALM`] beyond which the Forwarder is taken to spin. Probes of four upstreams every millisecond for
/// ten seconds are the most that is asked for.
const WAKE_UPS_MAX: u32 = 100_000;

/// A path that the Forwarder has asked for.
#[derive(Clone, Debug)]
struct OpenPath {
    path: Path,
    transport: Transport,
    upstream: SocketAddr,
    connected: bool,
    /// Queries that were sent on it and have no good answer yet.
    out: Vec<Vec<u8>>,
    /// The last good answer, to be said twice.
    said: Option<Vec<u8>>,
}

/// Everything around the Forwarder.
struct Stage<'a> {
    input: Input<'a>,
    now: Instant,
    forwarder: Forwarder<SharedCache>,
    shape: shape::Shape,
    open: Vec<OpenPath>,
    /// Paths that are closed: the last few.
    gone: Vec<Path>,
    books: Books,
    next_id: u16,
    buffer: Vec<u8>,
}

/// The target.
pub fn transitions(data: &[u8]) {
    let mut input = Input::new(data);
    let shape = shape::Shape::draw(&mut input);
    let now = crate::world::START;
    let cache_bytes = if input.one_in(2) { 1 << 14 } else { 1 << 20 };
    let cache = Arc::new(SharedCache::new(cache_bytes, &Seed([5; 32])));
    let seed = Seed([input.byte(); 32]);
    let mut forwarder = Forwarder::new(Arc::new(shape.config.clone()), cache, seed, now);
    forwarder.handle_wall_clock(now, crate::world::UNIX_S);
    let mut stage = Stage {
        input,
        now,
        forwarder,
        shape,
        open: Vec::new(),
        gone: Vec::new(),
        books: Books::new(),
        next_id: 0,
        buffer: vec![0; usize::from(u16::MAX)],
    };
    for _ in 0..STEPS_MAX {
        if stage.input.is_empty() {
            break;
        }
        stage.step();
        stage.audit();
    }
    stage.fall_silent();
    stage.calm_down();
}

impl Stage<'_> {
    fn step(&mut self) {
        match self.input.below(16) {
            0..=3 => self.ask(),
            4..=8 => self.answer_one(),
            9 => self.answer_nobody(),
            10 | 11 => self.path_event(),
            12 | 13 => self.time_passes(),
            14 => {
                // A turn sends all it has before the clock moves.
                self.drain();
                if let Some((at, _)) = self.forwarder.poll_timeout() {
                    self.now = self.now.max(at);
                    self.wake_up();
                }
            }
            _ => self.reload(),
        }
        // A driver may take in several things before it sends.
        if !self.input.one_in(8) {
            self.drain();
            self.audit_drained();
        }
    }

    fn ask(&mut self) {
        let choices = self.input.byte();
        self.next_id = self.next_id.wrapping_add(1);
        // A retransmission now and then, by the same client with the same ID.
        let id = if choices & 0xe0 == 0xe0 { self.next_id.saturating_sub(1) } else { self.next_id };
        let connection = (choices & 1 == 1).then_some(ConnectionId(7));
        let listener = ListenerId(self.input.below(self.shape.config.listeners.len()) as u16);
        let peer = SocketAddr::from(([10, 0, 0, 1], 1024 + u16::from(choices >> 1 & 1)));
        let client = ClientAddr { listener, peer, local: None, connection };
        let message = self.shape.query(&mut self.input, id);
        let query = ClientQuery { client, message: &message };
        match self.forwarder.handle_query(self.now, query, &mut self.buffer) {
            Outcome::Answer { len } => {
                self.books.answered_at_once(self.now, &message, &self.buffer[..len], client, &self.shape);
            }
            Outcome::Forward => self.books.waits(self.now, client, message),
            Outcome::Drop(DropReason::Duplicate) => self.books.waits_already(client, &message),
            Outcome::Drop(reason) => panic!("a good query is dropped: {reason:?}"),
        }
    }

    /// One of the paths that have something to say.
    fn pick(&mut self, which: impl Fn(&OpenPath) -> bool) -> Option<usize> {
        let count = self.open.iter().filter(|open| which(open)).count();
        let chosen = (count > 0).then(|| self.input.below(count.min(256)))?;
        (0..self.open.len()).filter(|at| which(&self.open[*at])).nth(chosen)
    }

    fn answer_one(&mut self) {
        let Some(at) = self.pick(|open| !open.out.is_empty()) else { return };
        let count = self.open[at].out.len();
        let query = self.input.below(count.min(256));
        let open = &self.open[at];
        let version = self.books.next_version();
        let reply = peers::reply(&mut self.input, &open.out[query], version);
        self.books.said(version, &reply, self.now);
        let (path, transport) = (open.path, open.transport);
        let other = reply.bytes.get(..2);
        if !reply.good && open.out.iter().any(|out| *out != open.out[query] && out.get(..2) == other) {
            // By chance its wrong ID is that of another query on the path.
            return;
        }
        let late_before = self.forwarder.stats().replies_late.get();
        let accepted = self.forwarder.handle_response(self.now, path, &reply.bytes);
        let late = self.forwarder.stats().replies_late.get() > late_before;
        match (reply.good, accepted) {
            (true, Ok(())) => {
                // The path may be closed by now, but that is told later.
                let open = &mut self.open[at];
                open.out.remove(query);
                open.said = Some(reply.bytes);
            }
            // The path was closed a moment ago; over UDP, the lookup is over.
            (true, Err(reason)) => assert!(
                reason == Rejection::UnknownPath
                    || reason == Rejection::WrongId && transport == Transport::Udp,
                "a good answer is refused: {reason:?}"
            ),
            // Nobody waits for it any more, so there is nothing left to compare it with.
            (false, Ok(())) if late => drop(self.open[at].out.remove(query)),
            (false, Ok(())) => panic!("a forged answer is accepted: {:02x?}", reply.bytes),
            (false, Err(_)) => {}
        }
    }

    /// Something arrives that nobody waits for.
    fn answer_nobody(&mut self) {
        if let Some(at) = self.pick(|open| open.said.is_some()) {
            let path = self.open[at].path;
            let said = self.open[at].said.clone().unwrap_or_default();
            // Its ID is out again at most by chance.
            let _ = self.forwarder.handle_response(self.now, path, &said);
        }
        if let Some(path) = self.gone.last().copied() {
            let event = self.input.one_of(&peers::EVENTS);
            self.forwarder.handle_path_event(self.now, path, event);
            let answer = [0; 20];
            assert!(
                self.forwarder.handle_response(self.now, path, &answer).is_err(),
                "an answer on a closed path"
            );
        }
    }

    fn path_event(&mut self) {
        let Some(at) = self.pick(|_| true) else { return };
        let open = &mut self.open[at];
        let event = match (open.transport, open.connected) {
            (Transport::Tcp, false) => self.input.one_of(&[
                PathEvent::Connected,
                PathEvent::Connected,
                PathEvent::Refused,
                PathEvent::LocalFailure,
            ]),
            (Transport::Tcp, true) => self.input.one_of(&[PathEvent::Closed, PathEvent::LocalFailure]),
            (Transport::Udp, _) if open.out.is_empty() => {
                self.input.one_of(&[PathEvent::PortTaken, PathEvent::Refused])
            }
            (Transport::Udp, _) => self.input.one_of(&[PathEvent::Refused, PathEvent::LocalFailure]),
        };
        open.connected |= event == PathEvent::Connected;
        let path = open.path;
        self.forwarder.handle_path_event(self.now, path, event);
    }

    fn time_passes(&mut self) {
        self.drain();
        let unit_ms = self.input.one_of(&[1, 1, 20, 20, 1000]);
        self.now += Duration::from_millis(unit_ms * u64::from(self.input.byte()));
        if !self.input.one_in(3) {
            self.wake_up();
        }
    }

    fn wake_up(&mut self) {
        self.forwarder.handle_timeout(self.now);
        let next = self.forwarder.poll_timeout();
        assert!(
            next.is_none_or(|(at, _)| at > self.now),
            "after a wake-up it wants to be woken at once: {next:?}"
        );
        self.drain();
        self.books.nobody_is_overdue(self.now);
    }

    fn reload(&mut self) {
        self.drain();
        self.shape = shape::Shape::draw(&mut self.input);
        self.books.reloaded(self.shape.config.listeners.len());
        self.forwarder.handle_config(self.now, Arc::new(self.shape.config.clone()));
        // Between two turns; the next begins with sending.
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            while let Some(request) = self.forwarder.poll_path() {
                self.path_request(request);
            }
            let Some(transmit) = self.forwarder.poll_transmit(self.now, &mut self.buffer) else { break };
            let bytes = &self.buffer[..transmit.len];
            match transmit.target {
                Target::Client(client) => self.books.answered(self.now, client, bytes, &self.shape),
                Target::Upstream(path) => {
                    let open = self.open.iter_mut().find(|open| open.path == path);
                    let open = open.unwrap_or_else(|| panic!("a query for {path:?}, which is not open"));
                    assert!(open.connected, "a query on a connection that is not there yet");
                    let same_id = open.out.iter().position(|other| other[..2] == bytes[..2]);
                    if let Some(at) = same_id {
                        // Over UDP a query whose lookup is over is forgotten, and with it its ID.
                        assert_eq!(open.transport, Transport::Udp, "an ID twice on a connection");
                        open.out.remove(at);
                    }
                    open.out.push(bytes.to_vec());
                }
            }
        }
        while self.forwarder.poll_event().is_some() {}
    }

    fn path_request(&mut self, request: PathRequest) {
        match request {
            PathRequest::Open { path, transport, upstream, source_port } => {
                assert!(transport == Transport::Udp || source_port.is_none(), "a source port for TCP");
                let connected = transport == Transport::Udp;
                // Asked for again: its port was taken.
                if self.open.iter().any(|open| open.path == path) {
                    assert!(connected, "a connection is opened twice");
                    return;
                }
                assert!(self.open.iter().all(|open| open.path.slot != path.slot), "a slot with two holders");
                let (out, said) = (Vec::new(), None);
                self.open.push(OpenPath { path, transport, upstream, connected, out, said });
            }
            PathRequest::Close { path } => {
                let at = self.open.iter().position(|open| open.path == path);
                self.open.swap_remove(at.expect("what is closed was open"));
                self.gone.push(path);
            }
        }
    }

    /// The books of both sides agree.
    fn audit(&mut self) {
        let stats = self.forwarder.stats();
        assert_eq!(stats.lookups.get(), self.forwarder.lookups() as u64, "the gauge of lookups");
        let limits = self.shape.config.limits;
        assert!(self.forwarder.lookups() <= limits.lookups_max as usize, "lookups above their ceiling");
        assert!(stats.waiters.get() <= u64::from(limits.waiters_max), "waiters above their ceiling");
        if self.forwarder.lookups() > 0 {
            assert!(self.forwarder.poll_timeout().is_some(), "a lookup and no timer");
        }
    }

    /// The same after a drain, when nothing is on its way between the two.
    fn audit_drained(&mut self) {
        self.audit();
        let stats = self.forwarder.stats();
        assert_eq!(stats.paths.get(), self.open.len() as u64, "the gauge of paths");
        assert!(self.open.len() <= self.shape.config.limits.paths_max as usize, "paths above their ceiling");
        assert_eq!(stats.waiters.get(), self.books.waiting() as u64, "the gauge of waiters");
        assert!(self.forwarder.lookups() <= self.books.questions(), "two lookups for one question");
        // One besides those of the pool: a probe never uses a connection that may be stuck.
        let connections_max = self.shape.config.limits.connections_per_upstream_max.max(1) as usize + 1;
        for upstream in &self.shape.config.upstreams {
            let to_it =
                |open: &&OpenPath| open.transport == Transport::Tcp && open.upstream == upstream.address;
            let connections = self.open.iter().filter(to_it).count();
            assert!(connections <= connections_max, "{connections} connections to {}", upstream.address);
        }
        let counted = stats.routes.iter().flatten().flat_map(|route| &route.responses).map(Counter::get);
        self.books.check_answer_count(counted);
    }

    /// No upstream says anything any more: every query is answered all the same.
    fn fall_silent(&mut self) {
        self.drain();
        self.audit_drained();
        self.pass(SILENCE, false);
        assert_eq!(self.forwarder.lookups(), 0, "lookups that do not end");
        assert_eq!(self.books.waiting(), 0, "queries without an answer");
    }

    /// Every upstream is well: probes are answered, idle connections close, and there is nothing left to wait for.
    fn calm_down(&mut self) {
        self.pass(CALM, true);
        assert!(self.open.is_empty(), "paths that stay open: {:?}", self.open);
        assert_eq!(self.forwarder.poll_timeout(), None, "a timer for nothing");
        self.audit_drained();
    }

    fn pass(&mut self, time: Duration, well: bool) {
        let end = self.now + time;
        let mut wake_ups = 0;
        loop {
            if well {
                self.all_answer();
            }
            let Some((at, _)) = self.forwarder.poll_timeout().filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            self.wake_up();
            self.audit_drained();
            wake_ups += 1;
            assert!(wake_ups < WAKE_UPS_MAX, "it spins");
        }
        self.now = end;
    }

    fn all_answer(&mut self) {
        while let Some(at) = self.open.iter().position(|open| !open.connected || !open.out.is_empty()) {
            let open = &mut self.open[at];
            let path = open.path;
            if open.connected {
                let query = open.out.remove(0);
                let version = self.books.next_version();
                let reply = peers::reply(&mut Input::new(&[]), &query, version);
                self.books.said(version, &reply, self.now);
                let _ = self.forwarder.handle_response(self.now, path, &reply.bytes);
            } else {
                open.connected = true;
                self.forwarder.handle_path_event(self.now, path, PathEvent::Connected);
            }
            self.drain();
        }
    }
}
