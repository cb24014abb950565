//! The smallest world a Forwarder can live in: a clock that we turn, clients and upstreams that are function calls, and a
//! cache of one shard. Everything that the Forwarder wants to send is collected; a test says what comes back.
#![allow(dead_code, reason = "each test file uses its part")]

use nodens_core::cache::{AnswerRef, Cache, Entry, InsertRules, Inserted, Key, Shard};
use nodens_core::config::{
    CacheRules, Config, ForwardRules, ForwardZone, Limits, Listener, Policy, Route, UpstreamConfig,
    UpstreamTransport,
};
use nodens_core::hash::HashKeys;
use nodens_core::wire::Name;
use nodens_core::{
    ClientAddr, ClientQuery, ConnectionId, Duration, Forwarder, Instant, ListenerId, Outcome, Path,
    PathEvent, PathRequest, Rejection, Seed, Target, Transport, UpstreamId, ZoneId,
};
use nodens_testkit::{Query, Reply, Response};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// One shard, one thread.
pub(crate) struct OneShard {
    keys: HashKeys,
    shard: Mutex<Shard>,
}

impl Cache for OneShard {
    fn hash_keys(&self) -> &HashKeys {
        &self.keys
    }

    fn get<R>(&self, key: &Key, now: Instant, read: impl FnOnce(Entry<'_>) -> R) -> Option<R> {
        self.shard.lock().expect("one thread").get(key, now).map(read)
    }

    fn insert(&self, key: &Key, answer: AnswerRef<'_>, rules: InsertRules) -> Inserted {
        self.shard.lock().expect("one thread").insert(key, answer, rules, rules.entries_max)
    }
}

/// A query that went out to an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) path: Path,
    pub(crate) transport: Transport,
    pub(crate) upstream: SocketAddr,
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: Instant,
}

impl Sent {
    pub(crate) fn reply(&self) -> Response {
        Response::to(&self.bytes)
    }
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) forwarder: Forwarder<OneShard>,
    /// Open paths, with the source port of UDP ones.
    pub(crate) open: HashMap<u32, (Path, Transport, SocketAddr, Option<u16>)>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) answers: Vec<(ClientAddr, Vec<u8>)>,
    pub(crate) events: Vec<nodens_core::Event>,
    /// Whatever a test puts aside.
    pub(crate) kept: Vec<Sent>,
    /// Whether TCP connects at once; else a test says when.
    pub(crate) connects: bool,
    /// Upstreams whose host answers "port unreachable".
    pub(crate) refusing: Vec<SocketAddr>,
}

pub(crate) fn upstream(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 53))
}

/// One listener, zone `.`, CoreDNS' cache defaults, `upstreams` upstreams asked in order.
pub(crate) fn config(upstreams: u8) -> Config {
    Config {
        listeners: vec![Listener { routes: vec![Route { apex: Name::root(), zone: 0 }] }],
        zones: vec![ForwardZone {
            id: ZoneId(0),
            cache: Some(CacheRules::coredns()),
            forward: Some(ForwardRules {
                policy: Policy::Sequential,
                transport: UpstreamTransport::PreferUdp,
                ..ForwardRules::to((0..u16::from(upstreams)).map(UpstreamId).collect())
            }),
            udp_size_max: 1232,
            log_queries: false,
            log_errors: true,
        }],
        upstreams: (1..=upstreams).map(|n| UpstreamConfig::new(upstream(n))).collect(),
        trust_ad: true,
        limits: Limits::default(),
    }
}

/// As [`config`], over TCP alone.
pub(crate) fn over_tcp(upstreams: u8) -> Config {
    let mut config = config(upstreams);
    for zone in &mut config.zones {
        zone.forward.as_mut().expect("a forward").transport = UpstreamTransport::ForceTcp;
    }
    for upstream in &mut config.upstreams {
        upstream.probe_transport = Transport::Tcp;
    }
    config
}

/// A query for one of many names.
pub(crate) fn name(n: u32) -> Query {
    Query::new(&format!("n{n}.example.org."), "A").id(n as u16)
}

impl World {
    pub(crate) fn new(config: Config) -> World {
        let now = Instant::from_nanos(1_000_000_000_000);
        let cache = OneShard { keys: HashKeys::new(&Seed([5; 32])), shard: Mutex::new(Shard::new(1 << 20)) };
        let mut forwarder = Forwarder::new(Arc::new(config), Arc::new(cache), Seed([6; 32]), now);
        forwarder.handle_wall_clock(now, 1_790_000_000);
        World {
            now,
            forwarder,
            open: HashMap::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
            kept: Vec::new(),
            connects: true,
            refusing: Vec::new(),
        }
    }

    pub(crate) fn client(port: u16) -> ClientAddr {
        let peer = SocketAddr::from(([10, 0, 0, 1], port));
        ClientAddr { listener: ListenerId(0), peer, local: None, connection: None }
    }

    pub(crate) fn tcp_client(port: u16) -> ClientAddr {
        ClientAddr { connection: Some(ConnectionId(u64::from(port))), ..World::client(port) }
    }

    /// A query from a client of its own; the answer if it came at once.
    pub(crate) fn ask(&mut self, client: ClientAddr, query: &Query) -> Option<Reply> {
        self.ask_bytes(client, &query.bytes())
    }

    pub(crate) fn ask_bytes(&mut self, client: ClientAddr, bytes: &[u8]) -> Option<Reply> {
        let mut out = vec![0; 65_535];
        let outcome = self.forwarder.handle_query(self.now, ClientQuery { client, message: bytes }, &mut out);
        self.drain();
        match outcome {
            Outcome::Answer { len } => Some(Reply::parse(&out[..len])),
            Outcome::Drop(_) | Outcome::Forward => None,
        }
    }

    /// An upstream's message on the path of `sent`.
    pub(crate) fn deliver(&mut self, sent: &Sent, bytes: &[u8]) -> Result<(), Rejection> {
        let accepted = self.forwarder.handle_response(self.now, sent.path, bytes);
        self.drain();
        accepted
    }

    /// The next query that went out, as it was sent; panics if there is none.
    pub(crate) fn next_sent(&mut self) -> Sent {
        assert!(!self.sent.is_empty(), "nothing was sent");
        self.sent.remove(0)
    }

    /// The only answer that was sent, parsed.
    pub(crate) fn only_answer(&mut self) -> Reply {
        assert_eq!(self.answers.len(), 1, "answers");
        Reply::parse(&self.answers.remove(0).1)
    }

    /// Lets time pass, waking the Forwarder exactly when it asked for it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.forwarder.poll_timeout().filter(|(at, _)| *at <= end) {
            assert!(at >= self.now, "a wake-up in the past");
            self.now = at;
            self.forwarder.handle_timeout(self.now);
            let next = self.forwarder.poll_timeout();
            assert!(next.is_none_or(|(next, _)| next > self.now), "asks for the same instant again");
            self.drain();
        }
        self.now = end;
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    pub(crate) fn drain(&mut self) {
        loop {
            while let Some(request) = self.forwarder.poll_path() {
                self.path(request);
            }
            let mut out = vec![0; 65_535];
            let Some(transmit) = self.forwarder.poll_transmit(self.now, &mut out) else { break };
            out.truncate(transmit.len);
            match transmit.target {
                Target::Client(client) => self.answers.push((client, out)),
                Target::Upstream(path) => {
                    let (open, transport, upstream, _) = self.open[&path.slot];
                    assert_eq!(open, path, "sends on a path that is not open");
                    self.sent.push(Sent { path, transport, upstream, bytes: out, at: self.now });
                }
            }
        }
        while let Some(event) = self.forwarder.poll_event() {
            self.events.push(event);
        }
    }

    fn path(&mut self, request: PathRequest) {
        match request {
            PathRequest::Open { path, transport, upstream, source_port } => {
                self.open.insert(path.slot, (path, transport, upstream, source_port));
                if self.refusing.contains(&upstream) {
                    self.open.remove(&path.slot);
                    self.forwarder.handle_path_event(self.now, path, PathEvent::Refused);
                } else if transport == Transport::Tcp && self.connects {
                    self.forwarder.handle_path_event(self.now, path, PathEvent::Connected);
                }
            }
            PathRequest::Close { path } => {
                self.open.remove(&path.slot);
            }
        }
    }
}
