//! Clients' TCP connections: who may have one, for how long, and how much they may make us hold.
//!
//! Bookkeeping without sockets, the same for every runtime. The runtime reports what it accepted, read and wrote; the table
//! cuts bytes into queries, collects answers, and says which connections to read from, to write to and to close. Over
//! a cap the oldest idle connection makes room, so that clients which hoard connections keep nobody else out
//! (RFC 7766 §6.2.3 lets a server close idle connections at any time).

use nodens_core::wire::StreamFraming;
use nodens_core::{ClientAddr, ConnectionId, Duration, Instant, ListenerId};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Connections of all clients to the whole process (reliability.md §4): with some 300 bytes each, all idle, 0.3 MiB.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections of one source address to the whole process: one Pod cannot take more than a sixteenth.
pub const PER_SOURCE_MAX: usize = 64;
/// The least of these that a worker grants: the kernel spreads a client's connections unevenly.
const PER_SOURCE_WORKER_MIN: usize = 16;
/// How long a connection may do nothing. RFC 7766 §6.2.3 asks for some seconds; resolvers reconnect for less than a millisecond.
pub const IDLE: Duration = Duration::from_secs(10);
/// The same, when most connections are taken.
pub const IDLE_CROWDED: Duration = Duration::from_secs(2);
/// From this share of the cap on, in percent, the shorter time holds.
const CROWDED_PERCENT: usize = 80;
/// Queries of one connection that may wait for upstreams; then it is not read from.
pub const PIPELINED_MAX: u32 = 100;
/// Unsent answers, in bytes, from which on a connection is not read from: two of the largest.
pub const UNSENT_HIGH_WATER: usize = 128 * 1024;
/// What all connections of the process together may make us hold in half queries and unsent answers, in bytes. Beyond it
/// the one that holds most is closed. Well-behaved clients hold nothing for longer than a turn.
pub const BYTES_HELD_MAX: usize = 16 * 1024 * 1024;

/// The caps of one worker.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ClientLimits {
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one source address.
    pub per_source_max: usize,
    /// Bytes held for all connections.
    pub bytes_held_max: usize,
}

impl ClientLimits {
    /// The share of one of `workers` workers in what the process allows.
    pub fn per_worker(workers: usize) -> Self {
        let workers = workers.max(1);
        ClientLimits {
            connections_max: (CONNECTIONS_MAX / workers).max(1),
            per_source_max: (PER_SOURCE_MAX / workers).max(PER_SOURCE_WORKER_MIN),
            bytes_held_max: BYTES_HELD_MAX / workers,
        }
    }
}

/// Why a connection was closed.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum CloseReason {
    /// The client finished, and has all its answers.
    Done,
    /// It was idle for too long, or did not read its answers.
    Idle,
    /// It was the oldest idle one when another client needed room.
    Evicted,
    /// It announced a message that cannot be one.
    BadFraming,
    /// It held the most when all together held too much.
    Hoarding,
    /// The transport failed.
    Lost,
}

impl CloseReason {
    /// How many reasons there are.
    pub const COUNT: usize = 6;
    /// All, in the order of their numbers, with the label for metrics.
    pub const LABELS: [&'static str; Self::COUNT] =
        ["done", "idle", "evicted", "bad_framing", "hoarding", "lost"];
}

/// What a runtime should wait for on a connection.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Interest {
    /// Bytes from the client.
    pub read: bool,
    /// Room for bytes to the client.
    pub write: bool,
}

impl Interest {
    /// What a new connection starts with.
    pub const READ: Interest = Interest { read: true, write: false };
}

/// All connections of one worker.
#[derive(Debug)]
pub struct TcpClients {
    limits: ClientLimits,
    connections: HashMap<ConnectionId, Connection>,
    sources: HashMap<IpAddr, usize>,
    last_id: u64,
    bytes_held: usize,
    /// No connection can be idle for too long before this.
    next_check: Option<Instant>,
    changed: Vec<ConnectionId>,
    closed: Vec<(ConnectionId, CloseReason)>,
}

#[derive(Debug)]
struct Connection {
    client: ClientAddr,
    framing: StreamFraming,
    /// No whole query is waiting in `framing`.
    drained: bool,
    /// The client sent its FIN.
    finished: bool,
    /// Queries that wait for an answer from the core.
    pipelined: u32,
    unsent: Vec<u8>,
    /// Bytes at the front of `unsent` that the kernel has taken.
    sent: usize,
    /// The last whole query or the last byte of an answer that went out. Half a query is no activity.
    active: Instant,
    /// What of `bytes_held` is its share.
    held: usize,
    /// It is in `changed`.
    listed: bool,
    interest: Interest,
}

impl Connection {
    fn is_idle(&self) -> bool {
        self.pipelined == 0 && self.unsent_len() == 0 && self.drained
    }

    fn unsent_len(&self) -> usize {
        self.unsent.len() - self.sent
    }

    fn may_ask(&self) -> bool {
        self.pipelined < PIPELINED_MAX && self.unsent_len() < UNSENT_HIGH_WATER
    }
}

impl TcpClients {
    /// No connections.
    pub fn new(limits: ClientLimits) -> Self {
        TcpClients {
            limits,
            connections: HashMap::new(),
            sources: HashMap::new(),
            last_id: 0,
            bytes_held: 0,
            next_check: None,
            changed: vec![],
            closed: vec![],
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether no connection waits for anything.
    pub fn is_quiet(&self) -> bool {
        self.connections.values().all(Connection::is_idle)
    }

    /// What all connections make us hold, in bytes.
    pub fn bytes_held(&self) -> usize {
        self.bytes_held
    }

    /// A client connected. `None`: there is no room, and nobody idle to make some; close it.
    pub fn open(&mut self, now: Instant, listener: ListenerId, peer: SocketAddr) -> Option<ConnectionId> {
        let source = peer.ip();
        if self.sources.get(&source).is_some_and(|count| *count >= self.limits.per_source_max) {
            let oldest = self.oldest_idle(|client| client.peer.ip() == source)?;
            self.close(oldest, CloseReason::Evicted);
        }
        if self.connections.len() >= self.limits.connections_max {
            let oldest = self.oldest_idle(|_| true)?;
            self.close(oldest, CloseReason::Evicted);
        }
        self.last_id += 1;
        let id = ConnectionId(self.last_id);
        let client = ClientAddr { listener, peer, local: None, connection: Some(id) };
        *self.sources.entry(source).or_default() += 1;
        self.connections.insert(
            id,
            Connection {
                client,
                framing: StreamFraming::new(),
                drained: true,
                finished: false,
                pipelined: 0,
                unsent: vec![],
                sent: 0,
                active: now,
                held: 0,
                listed: false,
                interest: Interest::READ,
            },
        );
        // Crossing into the crowd shortens everybody's time.
        let deadline = now + self.idle_limit();
        self.next_check = Some(self.next_check.map_or(deadline, |check| check.min(deadline)));
        Some(id)
    }

    fn oldest_idle(&self, wanted: impl Fn(&ClientAddr) -> bool) -> Option<ConnectionId> {
        // A walk over at most 1024 connections, only when a cap is reached: cheaper than an order kept at every query.
        let candidates = self.connections.iter().filter(|(_, c)| c.is_idle() && wanted(&c.client));
        candidates.min_by_key(|(id, c)| (c.active, **id)).map(|(id, _)| *id)
    }

    /// Bytes came from the client.
    pub fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.framing.push(bytes);
        connection.drained = false;
        self.touch(id);
        self.recount(id);
    }

    /// The client will send nothing more; it still gets what it asked for (RFC 7766 §6.2.4: half-closed is no reason to drop).
    pub fn finished(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.finished = true;
            self.touch(id);
        }
    }

    /// Gives the next query of a connection to `handle`, if there is one and it may be asked now. `handle` says whether the answer
    /// comes later.
    pub fn ask(
        &mut self,
        now: Instant,
        id: ConnectionId,
        handle: impl FnOnce(ClientAddr, &[u8]) -> bool,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if connection.drained || !connection.may_ask() {
            return false;
        }
        match connection.framing.next_message() {
            Ok(Some(message)) => {
                connection.active = now;
                connection.pipelined += u32::from(handle(connection.client, message));
                self.recount(id);
                true
            }
            Ok(None) => {
                connection.drained = true;
                connection.framing.shrink();
                false
            }
            Err(_) => {
                self.close(id, CloseReason::BadFraming);
                false
            }
        }
    }

    /// An answer, with its length prefix, that came at once.
    pub fn answer(&mut self, id: ConnectionId, framed: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.unsent.extend_from_slice(framed);
        self.touch(id);
        self.recount(id);
    }

    /// An answer that came later. The client may be gone; then nothing happens.
    pub fn late_answer(&mut self, id: ConnectionId, framed: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.pipelined = connection.pipelined.saturating_sub(1);
        }
        self.answer(id, framed);
    }

    /// What waits to be sent on a connection.
    pub fn unsent(&self, id: ConnectionId) -> &[u8] {
        self.connections.get(&id).map_or(&[], |c| &c.unsent[c.sent..])
    }

    /// The kernel took `len` of them.
    pub fn sent(&mut self, now: Instant, id: ConnectionId, len: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.sent += len;
        connection.active = now;
        if connection.sent == connection.unsent.len() {
            // An idle connection holds no buffer.
            (connection.unsent, connection.sent) = (vec![], 0);
        } else if connection.sent >= UNSENT_HIGH_WATER {
            connection.unsent.drain(..connection.sent);
            connection.sent = 0;
        }
        self.recount(id);
    }

    /// Ends a connection and reports it through [`poll_closed`](Self::poll_closed).
    pub fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.bytes_held -= connection.held;
        let source = connection.client.peer.ip();
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
        self.closed.push((id, reason));
    }

    /// Puts a connection on the list of those to look at before the turn ends.
    pub fn touch(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.listed
        {
            connection.listed = true;
            self.changed.push(id);
        }
    }

    /// The next connection to look at: take its queries, send its answers, then [`settle`](Self::settle) it.
    pub fn poll_changed(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.changed.pop() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.listed = false;
                return Some(id);
            }
        }
        None
    }

    /// After a connection was looked at: closes it if it is done, else says what to wait for, if that is something new.
    pub fn settle(&mut self, id: ConnectionId) -> Option<Interest> {
        let connection = self.connections.get_mut(&id)?;
        if connection.finished && connection.is_idle() {
            self.close(id, CloseReason::Done);
            return None;
        }
        let interest = Interest {
            read: !connection.finished && connection.drained && connection.may_ask(),
            write: connection.unsent_len() > 0,
        };
        let is_new = interest != connection.interest;
        connection.interest = interest;
        is_new.then_some(interest)
    }

    /// Whether a connection has queries that it may ask: the turn had to stop early.
    pub fn wants_to_ask(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|c| !c.drained && c.may_ask())
    }

    /// The next connection that ended and whose socket is to be closed now.
    pub fn poll_closed(&mut self) -> Option<(ConnectionId, CloseReason)> {
        self.closed.pop()
    }

    /// Closes what has been idle for too long. Harmless to call early.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_check.is_none_or(|check| now < check) {
            return;
        }
        let limit = self.idle_limit();
        let deadline = |c: &Connection| {
            // The core answers within 4.5 s; while it works, the connection is not idle even in a crowd.
            c.active + if c.pipelined > 0 { IDLE } else { limit }
        };
        let expired: Vec<_> =
            self.connections.iter().filter(|(_, c)| deadline(c) <= now).map(|(id, _)| *id).collect();
        for id in expired {
            self.close(id, CloseReason::Idle);
        }
        self.next_check = self.connections.values().map(deadline).min();
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_check
    }

    fn idle_limit(&self) -> Duration {
        let crowded = self.connections.len() * 100 > self.limits.connections_max * CROWDED_PERCENT;
        if crowded { IDLE_CROWDED } else { IDLE }
    }

    fn recount(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let held = connection.framing.pending() + connection.unsent_len();
        self.bytes_held = self.bytes_held - connection.held + held;
        connection.held = held;
        while self.bytes_held > self.limits.bytes_held_max {
            let Some((id, _)) = self.connections.iter().max_by_key(|(_, c)| c.held) else { return };
            self.close(*id, CloseReason::Hoarding);
        }
    }
}

#[cfg(test)]
mod tests;
