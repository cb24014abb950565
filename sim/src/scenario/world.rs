//! What surrounds the Forwarder in a scenario: clients that wait, upstreams that have been asked, a clock that steps turn.
//!
//! What holds for every answer is checked here, whatever the scenario looks at: it goes to a client that waits, once, with that
//! client's ID and its spelling of the question; it can be parsed to its last byte; over UDP it is no longer than the client can
//! take; it has an OPT only if the query had one. Timers must ring when they said, and never twice for one instant.

use nodens_cache::SharedCache;
use nodens_core::{
    ClientAddr, ClientQuery, Config, ConnectionId, DropReason, Forwarder, Instant, ListenerId, Outcome, Path,
    PathEvent, PathRequest, Rejection, Seed, Target, Transport,
};
use nodens_testkit::Reply;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Where the monotonic clock starts. Any number will do; a large one shows who confuses it with the wall clock.
const START: Instant = Instant::from_nanos(1_000_000_000_000);
/// What the wall clock says then: 2026-01-01 00:00:00 UTC. Signatures in scenarios are dated around it.
const START_UNIX_S: u64 = 1_767_225_600;
/// All clients ask from this port; their IDs tell them apart.
const CLIENT_PORT: u16 = 33_333;
/// The least a UDP client can take (RFC 1035 §4.2.1), whatever its OPT says (RFC 6891 §6.2.3).
const UDP_SIZE_MIN: u16 = 512;
/// The largest message there is.
const MESSAGE_BYTES_MAX: usize = 65_535;

/// A query that reached an upstream.
#[derive(Clone, Debug)]
pub(super) struct OutQuery {
    pub(super) path: Path,
    pub(super) transport: Transport,
    pub(super) upstream: IpAddr,
    pub(super) bytes: Vec<u8>,
    pub(super) message: Reply,
    /// A step or a range has dealt with it.
    pub(super) seen: bool,
    /// Its upstream says nothing to it by itself.
    pub(super) ignored: bool,
    /// The Forwarder has taken an answer to it.
    pub(super) answered: bool,
}

/// An answer that reached a client.
#[derive(Clone, Debug)]
pub(super) struct ClientAnswer {
    pub(super) client: IpAddr,
    pub(super) transport: Transport,
    pub(super) message: Reply,
}

/// A client's query that has no answer yet.
#[derive(Debug)]
struct Waiting {
    client: ClientAddr,
    query: Reply,
}

pub(super) struct World {
    now: Instant,
    unix_s: u64,
    listeners: usize,
    forwarder: Forwarder<SharedCache>,
    open: BTreeMap<u32, (Path, Transport, IpAddr)>,
    refusing: Vec<(IpAddr, Transport)>,
    waiting: Vec<Waiting>,
    connections: u64,
    buffer: Vec<u8>,
    /// Everything that was asked, the oldest first.
    pub(super) out_queries: Vec<OutQuery>,
    /// What no step has looked at.
    pub(super) answers: VecDeque<ClientAnswer>,
}

impl World {
    pub(super) fn new(config: Config, cache_bytes: usize) -> World {
        let listeners = config.listeners.len();
        let cache = SharedCache::new(cache_bytes, &Seed([1; 32]));
        let mut forwarder = Forwarder::new(Arc::new(config), Arc::new(cache), Seed([2; 32]), START);
        forwarder.handle_wall_clock(START, START_UNIX_S);
        World {
            now: START,
            unix_s: START_UNIX_S,
            listeners,
            forwarder,
            open: BTreeMap::new(),
            refusing: Vec::new(),
            waiting: Vec::new(),
            connections: 0,
            buffer: vec![0; MESSAGE_BYTES_MAX],
            out_queries: Vec::new(),
            answers: VecDeque::new(),
        }
    }

    /// A client's query. The reason, if it is dropped.
    pub(super) fn ask(
        &mut self,
        client: IpAddr,
        listener: u16,
        over: Transport,
        bytes: &[u8],
    ) -> Result<Option<DropReason>, String> {
        if usize::from(listener) >= self.listeners {
            return Err(format!("there is no listener {listener}; the Corefile has {}", self.listeners));
        }
        self.connections += 1;
        let client = ClientAddr {
            listener: ListenerId(listener),
            peer: SocketAddr::new(client, CLIENT_PORT),
            local: None,
            connection: (over == Transport::Tcp).then_some(ConnectionId(self.connections)),
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let query = ClientQuery { client, message: bytes };
        let outcome = self.forwarder.handle_query(self.now, query, &mut buffer);
        self.buffer = buffer;
        if !matches!(outcome, Outcome::Drop(_)) {
            self.waiting.push(Waiting { client, query: readable(bytes) });
        }
        let dropped = match outcome {
            Outcome::Answer { len } => {
                self.answer_arrived(client, len)?;
                None
            }
            Outcome::Drop(reason) => Some(reason),
            Outcome::Forward => None,
        };
        self.drain()?;
        Ok(dropped)
    }

    /// An upstream's answer to `out_queries[index]`. The reason, if it is not taken.
    pub(super) fn reply(&mut self, index: usize, bytes: &[u8]) -> Result<Option<Rejection>, String> {
        let accepted = self.forwarder.handle_response(self.now, self.out_queries[index].path, bytes);
        self.out_queries[index].answered |= accepted.is_ok();
        self.drain()?;
        Ok(accepted.err())
    }

    /// From now on sockets to `upstream` (of one transport, or of both) are refused, or no longer. What is open is refused at once.
    pub(super) fn refuse(
        &mut self,
        upstream: IpAddr,
        over: Option<Transport>,
        refuses: bool,
    ) -> Result<(), String> {
        let chosen = |transport| over.is_none_or(|over| over == transport);
        self.refusing.retain(|(host, transport)| *host != upstream || !chosen(*transport));
        let both = [Transport::Udp, Transport::Tcp].into_iter();
        self.refusing.extend(both.filter(|over| refuses && chosen(*over)).map(|over| (upstream, over)));
        if refuses {
            self.report(PathEvent::Refused, |over, to| chosen(over) && to == upstream)
        } else {
            Ok(())
        }
    }

    /// `upstream` closes its TCP connections.
    pub(super) fn close(&mut self, upstream: IpAddr) -> Result<(), String> {
        self.report(PathEvent::Closed, |over, to| over == Transport::Tcp && to == upstream)
    }

    fn report(
        &mut self,
        event: PathEvent,
        concerns: impl Fn(Transport, IpAddr) -> bool,
    ) -> Result<(), String> {
        let paths: Vec<Path> =
            self.open.values().filter(|(_, over, to)| concerns(*over, *to)).map(|(path, ..)| *path).collect();
        for path in paths {
            self.open.remove(&path.slot);
            self.forwarder.handle_path_event(self.now, path, event);
            self.drain()?;
        }
        Ok(())
    }

    /// Whether the socket that a query left by is still open.
    pub(super) fn is_open(&self, query: &OutQuery) -> bool {
        self.open.get(&query.path.slot).is_some_and(|(path, ..)| *path == query.path)
    }

    /// Sets the wall clock forward, or back.
    pub(super) fn step_wall_clock(&mut self, by_s: i64) {
        self.unix_s = self.unix_s.saturating_add_signed(by_s);
        self.forwarder.handle_wall_clock(self.now, self.unix_s + self.now.seconds_since(START));
    }

    /// How long until the next timer.
    pub(super) fn until_timer(&self) -> Option<Duration> {
        self.forwarder.poll_timeout().map(|(at, _)| at.since(self.now))
    }

    /// Lets time pass, but not beyond the next timer; what is left of it comes back.
    pub(super) fn pass(&mut self, time: Duration) -> Result<Duration, String> {
        let Some((at, reason)) = self.forwarder.poll_timeout().filter(|(at, _)| *at <= self.now + time)
        else {
            self.now += time;
            return Ok(Duration::ZERO);
        };
        if at < self.now {
            return Err(format!("a timer ({reason:?}) was due {:?} ago", self.now.since(at)));
        }
        let left = time.saturating_sub(at.since(self.now));
        self.now = at;
        self.forwarder.handle_timeout(at);
        if let Some((next, reason)) = self.forwarder.poll_timeout()
            && next <= at
        {
            return Err(format!("a timer ({reason:?}) wants to ring again at the same instant"));
        }
        self.drain()?;
        Ok(left)
    }

    fn drain(&mut self) -> Result<(), String> {
        loop {
            while let Some(request) = self.forwarder.poll_path() {
                self.path_requested(request);
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let transmit = self.forwarder.poll_transmit(self.now, &mut buffer);
            self.buffer = buffer;
            match transmit.map(|transmit| (transmit.target, transmit.len)) {
                None => break,
                Some((Target::Client(client), len)) => self.answer_arrived(client, len)?,
                Some((Target::Upstream(path), len)) => self.query_arrived(path, len)?,
            }
        }
        while self.forwarder.poll_event().is_some() {}
        Ok(())
    }

    fn path_requested(&mut self, request: PathRequest) {
        match request {
            PathRequest::Open { path, transport, upstream, .. } => {
                if self.refusing.contains(&(upstream.ip(), transport)) {
                    self.forwarder.handle_path_event(self.now, path, PathEvent::Refused);
                    return;
                }
                self.open.insert(path.slot, (path, transport, upstream.ip()));
                if transport == Transport::Tcp {
                    self.forwarder.handle_path_event(self.now, path, PathEvent::Connected);
                }
            }
            PathRequest::Close { path } => {
                self.open.remove(&path.slot);
            }
        }
    }

    fn query_arrived(&mut self, path: Path, len: usize) -> Result<(), String> {
        let bytes = self.buffer[..len].to_vec();
        let message = Reply::try_parse(&bytes).map_err(|why| format!("a query to an upstream: {why}"))?;
        let Some((open, transport, upstream)) = self.open.get(&path.slot).copied() else {
            return Err("a query was sent on a path that is not open".into());
        };
        if open != path {
            return Err("a query was sent on a path that is somebody else's by now".into());
        }
        let (seen, ignored, answered) = (false, false, false);
        self.out_queries.push(OutQuery {
            path,
            transport,
            upstream,
            bytes,
            message,
            seen,
            ignored,
            answered,
        });
        Ok(())
    }

    fn answer_arrived(&mut self, client: ClientAddr, len: usize) -> Result<(), String> {
        let message =
            Reply::try_parse(&self.buffer[..len]).map_err(|why| format!("an answer to a client: {why}"))?;
        let waits = |waiting: &Waiting| waiting.client == client && waiting.query.id == message.id;
        let Some(at) = self.waiting.iter().position(waits) else {
            return Err(format!(
                "{} got an answer with ID {} that it does not wait for",
                client.peer, message.id
            ));
        };
        let query = self.waiting.remove(at).query;
        if message.trailing > 0 {
            return Err(format!("an answer has {} bytes behind its last record", message.trailing));
        }
        let question = |message: &Reply| message.question.as_ref().map(|question| question.raw.clone());
        if message.question.is_some() && question(&message) != question(&query) {
            return Err("an answer does not repeat its client's question byte by byte".into());
        }
        if message.opt.is_some() && query.opt.is_none() {
            return Err("an answer has an OPT although the query had none (RFC 6891 §6.1.1)".into());
        }
        let size = query.opt.map_or(UDP_SIZE_MIN, |opt| opt.size.max(UDP_SIZE_MIN));
        if client.transport() == Transport::Udp && len > usize::from(size) {
            return Err(format!("an answer of {len} bytes goes to a client that takes {size} over UDP"));
        }
        let (transport, client) = (client.transport(), client.peer.ip());
        self.answers.push_back(ClientAnswer { client, transport, message });
        Ok(())
    }
}

/// A query as far as it can be read: what is too broken to answer with its question has a header alone.
fn readable(bytes: &[u8]) -> Reply {
    let header = [bytes.first_chunk::<4>().copied().unwrap_or_default().as_slice(), &[0; 8]].concat();
    Reply::try_parse(bytes).unwrap_or_else(|_| Reply::parse(&header))
}
