//! One turn of a worker: what a runtime does around a Forwarder, without the waiting.
//!
//! A runtime waits until a socket has something, then takes a turn: [`Engine::turn`] runs the six steps that
//! `nodens_core` describes, in one place for all runtimes. What arrived goes in through [`Turn`], what is to be sent,
//! opened and closed leaves through the runtime's [`Io`]. Neither decides anything about DNS.

use crate::clients::{ClientLimits, CloseReason, Interest, TcpClients};
use crate::clock::{self, Clock};
use crate::vitals::Vitals;
use nodens_core::cache::Cache;
use nodens_core::wire::MESSAGE_LEN_MAX;
use nodens_core::{
    ClientAddr, ClientQuery, Config, ConnectionId, Duration, Event, Forwarder, Instant, ListenerId, Outcome,
    Path, PathEvent, PathRequest, Seed, Stats, Target, Transport,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// Datagrams or connections a runtime takes from one socket in one turn. Some 0.3 ms of work: long enough to spread a turn's
/// own cost, short enough for everybody else's patience.
pub const BATCH: usize = 64;
/// Queries of one TCP connection in one turn, for the same reason.
pub const QUERIES_PER_TURN: usize = 100;
/// The longest sleep: a worker that takes no turn for several of these hangs.
pub const TICK: Duration = Duration::from_secs(1);
/// How often the Forwarder is told the wall clock; RRSIG validity is in seconds, clock steps are rare.
const WALL_CLOCK_PERIOD: Duration = Duration::from_secs(60);
/// Rounds of draining in one turn. Each exists because the one before had something to report; what is left after so many
/// comes in the next turn, at once.
const DRAIN_ROUNDS_MAX: usize = 16;

/// What a runtime can do for a worker. Nothing here waits; what cannot be done now is reported by the result.
pub trait Io {
    /// Sends a datagram to a client. What the kernel does not take is lost, as on any network.
    fn send_datagram(&mut self, client: &ClientAddr, message: &[u8]);

    /// Opens a path to an upstream. `Err`: it failed already, and the path does not exist.
    fn open_path(&mut self, open: OpenPath) -> Result<(), PathEvent>;

    /// Sends a message on a path. `Err`: the path failed.
    fn send_on_path(&mut self, path: Path, message: Framed<'_>) -> Result<(), PathEvent>;

    /// Closes a path at once. It may be gone already.
    fn close_path(&mut self, path: Path);

    /// Writes to a client's connection as much as it takes now. Nothing: 0. `Err`: the connection is dead.
    fn write_connection(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<usize, ConnectionLost>;

    /// What to wait for on a client's connection from now on.
    fn watch_connection(&mut self, id: ConnectionId, interest: Interest);

    /// Closes a client's connection at once.
    fn close_connection(&mut self, id: ConnectionId);
}

/// A path to open; the fields of [`PathRequest::Open`].
#[derive(Copy, Clone, Debug)]
pub struct OpenPath {
    /// Its name from now on.
    pub path: Path,
    /// UDP or TCP.
    pub transport: Transport,
    /// Where to.
    pub upstream: SocketAddr,
    /// UDP: the port to bind; `None` leaves it to the kernel.
    pub source_port: Option<u16>,
}

/// A client's connection failed while it was written to.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ConnectionLost;

/// A message with room for TCP's length in front, so that both leave in one write (RFC 7766 §8).
#[derive(Copy, Clone, Debug)]
pub struct Framed<'a>(&'a [u8]);

impl<'a> Framed<'a> {
    /// As a datagram.
    pub fn message(self) -> &'a [u8] {
        &self.0[PREFIX..]
    }

    /// As a piece of a stream.
    pub fn on_stream(self) -> &'a [u8] {
        self.0
    }
}

const PREFIX: usize = 2;

/// Where messages are written: the length, then the message.
#[derive(Debug)]
struct Scratch(Box<[u8]>);

impl Scratch {
    fn new() -> Self {
        Scratch(vec![0; PREFIX + MESSAGE_LEN_MAX].into())
    }

    fn space(&mut self) -> &mut [u8] {
        &mut self.0[PREFIX..]
    }

    fn framed(&mut self, len: usize) -> Framed<'_> {
        let prefix = u16::try_from(len).expect("the space is no larger").to_be_bytes();
        self.0[..PREFIX].copy_from_slice(&prefix);
        Framed(&self.0[..PREFIX + len])
    }
}

/// A Forwarder with everything of a worker that is not a socket.
#[derive(Debug)]
pub struct Engine<C> {
    forwarder: Forwarder<C>,
    clients: TcpClients,
    clock: Clock,
    scratch: Scratch,
    events: SyncSender<Event>,
    vitals: Arc<Vitals>,
    wall_clock_due: Instant,
    /// Connections that have more queries than a turn takes.
    carried: Vec<ConnectionId>,
    /// A turn left something to be done at once.
    unfinished: bool,
    wake_at: Instant,
}

impl<C: Cache> Engine<C> {
    /// Nothing in flight, nobody connected.
    pub fn new(
        config: Arc<Config>,
        cache: Arc<C>,
        seed: Seed,
        clients: ClientLimits,
        clock: Clock,
        events: SyncSender<Event>,
        vitals: Arc<Vitals>,
    ) -> Self {
        let now = clock.now();
        vitals.turn(now);
        let mut forwarder = Forwarder::new(config, cache, seed, now);
        forwarder.handle_wall_clock(now, clock::unix_seconds());
        Engine {
            forwarder,
            clients: TcpClients::new(clients),
            clock,
            scratch: Scratch::new(),
            events,
            vitals,
            wall_clock_due: now + WALL_CLOCK_PERIOD,
            carried: vec![],
            unfinished: false,
            wake_at: now,
        }
    }

    /// One turn. `arrived` takes what has arrived, at most a [`BATCH`], and hands it in.
    pub fn turn<R>(&mut self, io: &mut impl Io, arrived: impl FnOnce(&mut Turn<'_, C>) -> R) -> R {
        // The clock, once. Before the batch: what is in it came before it was taken.
        let now = self.clock.now();
        self.vitals.turn(now);

        let result = arrived(&mut Turn { engine: self, now });

        if self.forwarder.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.forwarder.handle_timeout(now);
        }
        self.clients.handle_timeout(now);
        if self.wall_clock_due <= now {
            self.wall_clock_due = now + WALL_CLOCK_PERIOD;
            self.forwarder.handle_wall_clock(now, clock::unix_seconds());
        }

        self.unfinished = !self.drain(now, io);
        self.carry_over();
        self.forward_events();

        self.wake_at = self.next_wake(now);
        result
    }

    /// When the next turn is due, even if nothing arrives.
    pub fn wake_at(&self) -> Instant {
        self.wake_at
    }

    /// The worker's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The worker's socket counters, for what only the runtime sees.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// The Forwarder's counters.
    pub fn stats(&self) -> &Arc<Stats> {
        self.forwarder.stats()
    }

    /// Whether nobody waits for anything: a worker that was told to stop may end.
    pub fn is_quiet(&self) -> bool {
        self.forwarder.lookups() == 0 && self.clients.is_quiet()
    }

    /// Starts no lookup any more; see [`Forwarder::wind_down`].
    pub fn wind_down(&mut self) {
        self.forwarder.wind_down();
    }

    /// Does everything the Forwarder wants done. Returns whether it got to the end.
    fn drain(&mut self, now: Instant, io: &mut impl Io) -> bool {
        for _ in 0..DRAIN_ROUNDS_MAX {
            let mut reported = false;
            while let Some(request) = self.forwarder.poll_path() {
                reported |= self.serve_path_request(now, io, request);
            }
            while let Some(transmit) = self.forwarder.poll_transmit(now, self.scratch.space()) {
                let framed = self.scratch.framed(transmit.len);
                match transmit.target {
                    Target::Client(client) => match client.connection {
                        None => io.send_datagram(&client, framed.message()),
                        Some(id) => self.clients.late_answer(id, framed.on_stream()),
                    },
                    Target::Upstream(path) => {
                        if let Err(event) = io.send_on_path(path, framed) {
                            self.forwarder.handle_path_event(now, path, event);
                            reported = true;
                        }
                    }
                }
            }
            // Queries from connections and failures of paths may have given the Forwarder more to send.
            if !self.serve_connections(now, io) && !reported {
                return true;
            }
        }
        false
    }

    /// Returns whether the Forwarder was told something.
    fn serve_path_request(&mut self, now: Instant, io: &mut impl Io, request: PathRequest) -> bool {
        match request {
            PathRequest::Close { path } => io.close_path(path),
            PathRequest::Open { path, transport, upstream, source_port } => {
                if let Err(event) = io.open_path(OpenPath { path, transport, upstream, source_port }) {
                    self.forwarder.handle_path_event(now, path, event);
                    return true;
                }
            }
        }
        false
    }

    /// Looks at every connection on which something happened. Returns whether the Forwarder was given a query.
    fn serve_connections(&mut self, now: Instant, io: &mut impl Io) -> bool {
        let mut asked = false;
        while let Some(id) = self.clients.poll_changed() {
            let mut budget = QUERIES_PER_TURN;
            // Answers going out may make room for more queries.
            while self.write_answers(now, id, io) && self.ask(now, id, &mut budget) {
                asked = true;
            }
            if let Some(interest) = self.clients.settle(id) {
                io.watch_connection(id, interest);
            }
            if budget == 0 && self.clients.wants_to_ask(id) {
                self.carried.push(id);
            }
        }
        while let Some((id, reason)) = self.clients.poll_closed() {
            io.close_connection(id);
            self.vitals.connections_closed[reason as usize].add(1);
        }
        self.vitals.connections.set(self.clients.len() as u64);
        self.vitals.tcp_bytes_held.set(self.clients.bytes_held() as u64);
        asked
    }

    /// Takes queries of a connection while it may ask and `budget` lasts. Returns whether there was one.
    fn ask(&mut self, now: Instant, id: ConnectionId, budget: &mut usize) -> bool {
        let before = *budget;
        while *budget > 0 {
            let mut outcome = None;
            let space = self.scratch.space();
            let asked = self.clients.ask(now, id, |client, message| {
                self.vitals.lookout.query(message);
                let result = self.forwarder.handle_query(now, ClientQuery { client, message }, space);
                matches!(outcome.insert(result), Outcome::Forward)
            });
            if !asked {
                break;
            }
            *budget -= 1;
            if let Some(Outcome::Answer { len }) = outcome {
                self.clients.answer(id, self.scratch.framed(len).on_stream());
            }
        }
        *budget < before
    }

    /// Sends what a connection takes. Returns whether nothing is left to send.
    fn write_answers(&mut self, now: Instant, id: ConnectionId, io: &mut impl Io) -> bool {
        loop {
            let unsent = self.clients.unsent(id);
            if unsent.is_empty() {
                return true;
            }
            match io.write_connection(id, unsent) {
                Ok(0) => return false,
                Ok(len) => self.clients.sent(now, id, len),
                Err(ConnectionLost) => {
                    self.clients.close(id, CloseReason::Lost);
                    return false;
                }
            }
        }
    }

    fn carry_over(&mut self) {
        self.unfinished |= !self.carried.is_empty();
        for id in self.carried.drain(..) {
            self.clients.touch(id);
        }
    }

    fn forward_events(&mut self) {
        while let Some(event) = self.forwarder.poll_event() {
            if self.events.try_send(event).is_err() {
                self.vitals.events_dropped.add(1);
            }
        }
    }

    fn next_wake(&self, now: Instant) -> Instant {
        if self.unfinished {
            return now;
        }
        let forwarder = self.forwarder.poll_timeout().map(|(at, _)| at);
        let due = [forwarder, self.clients.poll_timeout(), Some(self.wall_clock_due)];
        due.into_iter().flatten().fold(now + TICK, Instant::min)
    }
}

/// The doors through which what arrived comes in, during one turn.
#[derive(Debug)]
pub struct Turn<'e, C> {
    engine: &'e mut Engine<C>,
    now: Instant,
}

impl<C: Cache> Turn<'_, C> {
    /// A datagram from a client. If there is an answer, it is to be sent at once.
    #[inline]
    pub fn datagram(&mut self, client: ClientAddr, message: &[u8]) -> Option<&[u8]> {
        let Engine { forwarder, scratch, vitals, .. } = &mut *self.engine;
        vitals.lookout.query(message);
        match forwarder.handle_query(self.now, ClientQuery { client, message }, scratch.space()) {
            Outcome::Answer { len } => Some(&scratch.space()[..len]),
            Outcome::Forward | Outcome::Drop(_) => None,
        }
    }

    /// A message from an upstream, without length prefix.
    pub fn response(&mut self, path: Path, message: &[u8]) {
        // A rejected message is counted by the Forwarder, and the wait for a better one goes on.
        let _ = self.engine.forwarder.handle_response(self.now, path, message);
    }

    /// What became of a path.
    pub fn path_event(&mut self, path: Path, event: PathEvent) {
        self.engine.forwarder.handle_path_event(self.now, path, event);
    }

    /// A new configuration. Returns the counters from now on.
    pub fn reconfigure(&mut self, config: Arc<Config>) -> Arc<Stats> {
        // What has happened until now happened under the old one.
        self.engine.forward_events();
        self.engine.forwarder.handle_config(self.now, config);
        Arc::clone(self.engine.stats())
    }

    /// A client connected. `None`: close it, there is no room.
    pub fn connected(&mut self, listener: ListenerId, peer: SocketAddr) -> Option<ConnectionId> {
        let id = self.engine.clients.open(self.now, listener, peer);
        let vitals = &self.engine.vitals;
        if id.is_some() { &vitals.connections_opened } else { &vitals.connections_refused }.add(1);
        id
    }

    /// Bytes from a client's connection.
    pub fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.engine.clients.received(id, bytes);
    }

    /// A client sent its FIN.
    pub fn finished(&mut self, id: ConnectionId) {
        self.engine.clients.finished(id);
    }

    /// A client's connection takes bytes again.
    pub fn writable(&mut self, id: ConnectionId) {
        self.engine.clients.touch(id);
    }

    /// A client's connection is dead.
    pub fn lost(&mut self, id: ConnectionId) {
        self.engine.clients.close(id, CloseReason::Lost);
    }
}
