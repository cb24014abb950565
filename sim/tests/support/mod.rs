//! A world for one row at a time: real Forwarders, a network that is two closures, and a clock that is ours.
//!
//! The engine in `sim/src` draws its worlds from a seed and finds what nobody thought of; here somebody did think of something, and
//! writes it down: who is silent from when on, and what the clients may have to pay for it. Whatever leaves for an upstream
//! is shown to [`World::network`], which says what comes back and when; whatever is opened is shown to [`World::dial`].
//!
//! Every answer is checked on its way, in every world: somebody asked for it and has no answer yet, under that ID and in
//! that spelling, and an address in it is the one that only a genuine upstream would give for that very question.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod message;

use message::{genuine, is_genuine};
use nodens_cache::SharedCache;
use nodens_core::config::{
    CacheRules, Config, ForwardRules, ForwardZone, Limits, Listener, Route, UpstreamConfig, UpstreamTransport,
};
use nodens_core::wire::Name;
use nodens_core::{
    ClientAddr, ClientQuery, ConnectionId, Forwarder, Instant, ListenerId, Outcome, Path, PathEvent,
    PathRequest, Rejection, Seed, Target, Transport, UpstreamId, ZoneId,
};
use nodens_sim::queue::Queue;
use nodens_testkit::{Query, Reply};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The unit of a world's time is the microsecond.
pub(crate) const MS: u64 = 1000;
/// A second.
pub(crate) const SECOND: u64 = 1000 * MS;
/// To an upstream and back, if a row does not say otherwise.
pub(crate) const ROUND_TRIP: u64 = 200;
/// What the clock shows when a world begins.
const CLOCK_BEGINS_S: u64 = 1_000_000;
/// Turns after which a Forwarder is taken to go round in circles.
const TURNS_MAX: u32 = 10_000;

/// A message that left for an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The worker that sent it.
    pub(crate) worker: usize,
    /// On which of its paths.
    pub(crate) path: Path,
    /// To which upstream, counted from 0.
    pub(crate) upstream: usize,
    /// How.
    pub(crate) transport: Transport,
    /// From which port; for TCP a number that no other connection has.
    pub(crate) port: u32,
    /// When.
    pub(crate) at: u64,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Sent {
    /// A probe asks for the root, which no client here does.
    pub(crate) fn is_probe(&self) -> bool {
        self.bytes[12] == 0
    }

    /// The message ID.
    pub(crate) fn id(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// The genuine answer, in `after`.
    pub(crate) fn answered(&self, after: u64) -> Come {
        vec![(after, What::Message(genuine(&self.bytes, 60)))]
    }
}

/// What comes back, and how long after the query each.
pub(crate) type Come = Vec<(u64, What)>;

/// One thing that comes back.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A message on the same path.
    Message(Vec<u8>),
    /// A report of the transport.
    Report(PathEvent),
}

/// Nothing comes back.
pub(crate) fn silence() -> Come {
    Vec::new()
}

/// The transport reports that nobody listens there: ICMP port unreachable, or RST.
pub(crate) fn refused() -> Come {
    vec![(ROUND_TRIP, What::Report(PathEvent::Refused))]
}

/// This machine could not send it.
pub(crate) fn not_sent() -> Come {
    vec![(0, What::Report(PathEvent::LocalFailure))]
}

/// A path that a worker has open.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Line {
    /// Its name.
    pub(crate) path: Path,
    /// UDP or TCP.
    pub(crate) transport: Transport,
    /// To which upstream.
    pub(crate) upstream: usize,
    /// From which port, or a number that no other connection has.
    pub(crate) port: u32,
    /// When it was opened.
    pub(crate) at: u64,
}

/// A query of a client.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Who asked.
    pub(crate) client: ClientAddr,
    /// What, as it was sent.
    pub(crate) bytes: Vec<u8>,
    /// When.
    pub(crate) at: u64,
    /// When the answer came, and the answer.
    pub(crate) answer: Option<(u64, Vec<u8>)>,
}

impl Ask {
    /// The answer; there must be one.
    pub(crate) fn reply(&self) -> Reply {
        let (_, bytes) = self.answer.as_ref().expect("an answer");
        Reply::parse(bytes)
    }

    /// From query to answer.
    pub(crate) fn took(&self) -> u64 {
        self.answer.as_ref().expect("an answer").0 - self.at
    }
}

/// A worker: a Forwarder and what its driver keeps.
pub(crate) struct Worker {
    /// The real thing.
    pub(crate) forwarder: Forwarder<SharedCache>,
    /// Open paths by slot.
    pub(crate) lines: HashMap<u32, Line>,
    /// It does not run: what arrives waits.
    pub(crate) stopped: bool,
    inbox: Vec<Event>,
    upstreams: Vec<SocketAddr>,
}

enum Event {
    Ask(usize),
    Come {
        path: Path,
        what: What,
    },
    /// A query of another node, which knows us as an upstream.
    Relayed {
        from: usize,
        path: Path,
        bytes: Vec<u8>,
    },
}

/// What became of the queries of a while.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Queries.
    pub(crate) asked: usize,
    /// Without any answer.
    pub(crate) lost: usize,
    /// Answered with SERVFAIL.
    pub(crate) failed: usize,
    /// From query to answer, sorted.
    took: Vec<u64>,
}

impl Figures {
    /// So many of a hundred waited no longer than this.
    pub(crate) fn percentile(&self, percent: usize) -> u64 {
        self.took[(self.took.len() * percent).div_ceil(100) - 1]
    }

    /// The longest wait.
    pub(crate) fn slowest(&self) -> u64 {
        self.percentile(100)
    }

    /// Every query has an answer, and none is a failure.
    pub(crate) fn assert_all_well(&self) {
        assert!(self.asked > 0 && self.lost == 0 && self.failed == 0, "{self}");
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Figures { asked, lost, failed, .. } = self;
        let [p50, p99, most] =
            [50, 99, 100].map(|n| if self.took.is_empty() { 0 } else { self.percentile(n) });
        write!(
            f,
            "{asked} asked, {lost} lost, {failed} failed; p50 {p50} us, p99 {p99} us, slowest {most} us"
        )
    }
}

type Network = Box<dyn FnMut(&Sent) -> Come>;
type Dial = Box<dyn FnMut(&Line) -> Option<(u64, PathEvent)>>;

/// Everything.
pub(crate) struct World {
    /// The time, in microseconds.
    pub(crate) now: u64,
    /// The workers.
    pub(crate) workers: Vec<Worker>,
    /// What comes back for a message that leaves.
    pub(crate) network: Network,
    /// What the transport reports for a path that is opened.
    pub(crate) dial: Dial,
    /// Everything that left for an upstream.
    pub(crate) sent: Vec<Sent>,
    /// Everything that clients asked.
    pub(crate) asks: Vec<Ask>,
    /// Upstreams that are really other workers: their address, and the worker.
    pub(crate) nodes: HashMap<SocketAddr, usize>,
    waiting: HashMap<(SocketAddr, u16), usize>,
    queue: Queue<(usize, Event)>,
    connections: u32,
    /// Where Forwarders write.
    out: Vec<u8>,
}

/// Where upstream `n` listens.
pub(crate) fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n as u8 + 1], 53))
}

/// One zone, the root's, with CoreDNS' defaults and so many upstreams, asked over UDP.
pub(crate) fn config(upstreams: usize) -> Config {
    let mut forward = ForwardRules::to((0..upstreams as u16).map(UpstreamId).collect());
    forward.transport = UpstreamTransport::PreferUdp;
    Config {
        listeners: vec![Listener { routes: vec![Route { apex: Name::root(), zone: 0 }] }],
        zones: vec![ForwardZone {
            id: ZoneId(0),
            cache: Some(CacheRules::coredns()),
            forward: Some(forward),
            udp_size_max: 1232,
            log_queries: false,
            log_errors: false,
        }],
        upstreams: (0..upstreams).map(|n| UpstreamConfig::new(address(n))).collect(),
        trust_ad: true,
        limits: Limits::default(),
    }
}

/// The same with `force_tcp`.
pub(crate) fn over_tcp(mut config: Config) -> Config {
    for zone in &mut config.zones {
        zone.forward.as_mut().expect("forwards").transport = UpstreamTransport::ForceTcp;
    }
    for upstream in &mut config.upstreams {
        upstream.probe_transport = Transport::Tcp;
    }
    config
}

/// A query for the `n`th name.
pub(crate) fn name(n: usize) -> Query {
    Query::new(&format!("n{n}.example.org."), "A").id((n as u16).wrapping_mul(0x9e37))
}

/// A new cache.
pub(crate) fn cache() -> Arc<SharedCache> {
    Arc::new(SharedCache::new(8 << 20, &Seed([5; 32])))
}

impl World {
    /// One worker.
    pub(crate) fn new(config: Config) -> World {
        World::of([(config, cache())])
    }

    /// Several workers, each with its configuration and its cache, or share of one.
    pub(crate) fn of(workers: impl IntoIterator<Item = (Config, Arc<SharedCache>)>) -> World {
        let now = instant(0);
        let worker = |(n, (config, cache)): (usize, (Config, Arc<SharedCache>))| {
            let upstreams = config.upstreams.iter().map(|upstream| upstream.address).collect();
            let mut forwarder = Forwarder::new(Arc::new(config), cache, Seed([n as u8 + 1; 32]), now);
            forwarder.handle_wall_clock(now, 1_790_000_000);
            Worker { forwarder, lines: HashMap::new(), stopped: false, inbox: Vec::new(), upstreams }
        };
        World {
            now: 0,
            workers: workers.into_iter().enumerate().map(worker).collect(),
            network: Box::new(|sent| sent.answered(ROUND_TRIP)),
            dial: Box::new(|line| {
                (line.transport == Transport::Tcp).then_some((ROUND_TRIP, PathEvent::Connected))
            }),
            sent: Vec::new(),
            asks: Vec::new(),
            nodes: HashMap::new(),
            waiting: HashMap::new(),
            queue: Queue::new(),
            connections: 1 << 16,
            out: vec![0; 65_535],
        }
    }

    /// What the workers' clock shows.
    pub(crate) fn clock(&self) -> Instant {
        instant(self.now)
    }

    /// A client's query arrives at `at`, from a port of its own. Returns its place in [`World::asks`].
    pub(crate) fn ask_at(&mut self, at: u64, query: &Query) -> usize {
        let n = self.asks.len();
        let ip = IpAddr::from([10, 0, (n / 50_000) as u8, 1]);
        let peer = SocketAddr::new(ip, (n % 50_000) as u16 + 1024);
        let client = ClientAddr { listener: ListenerId(0), peer, local: None, connection: None };
        self.ask_from(at, n % self.workers.len(), client, query.bytes())
    }

    /// The same over TCP.
    pub(crate) fn ask_over_tcp_at(&mut self, at: u64, query: &Query) -> usize {
        let n = self.ask_at(at, query);
        self.asks[n].client.connection = Some(ConnectionId(n as u64));
        n
    }

    /// A query from this client at this worker.
    pub(crate) fn ask_from(&mut self, at: u64, worker: usize, client: ClientAddr, bytes: Vec<u8>) -> usize {
        let n = self.asks.len();
        self.asks.push(Ask { client, bytes, at, answer: None });
        self.queue.push(at, (worker, Event::Ask(n)));
        n
    }

    /// A query arrives now.
    pub(crate) fn ask(&mut self, query: &Query) -> usize {
        let n = self.ask_at(self.now, query);
        self.run_until(self.now);
        n
    }

    /// From `from` until `until`, a query for a name of its own every `every`.
    pub(crate) fn load(&mut self, from: u64, until: u64, every: u64) {
        for at in (from..until).step_by(every as usize) {
            let query = name(self.asks.len());
            self.ask_at(at, &query);
        }
    }

    /// Lets everything happen that is due until `end`.
    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            while self.queue.next_at().is_some_and(|at| at <= self.now) {
                if let Some((_, (worker, event))) = self.queue.pop() {
                    self.happen(worker, event);
                }
            }
            for worker in 0..self.workers.len() {
                self.wake(worker);
            }
        }
        self.now = end;
    }

    /// Lets `time` pass.
    pub(crate) fn pass(&mut self, time: u64) {
        self.run_until(self.now + time);
    }

    /// The machine is suspended: time passes and nobody runs. What was due comes afterwards.
    pub(crate) fn suspend(&mut self, time: u64) {
        self.now += time;
    }

    /// A worker runs again and takes what has arrived meanwhile.
    pub(crate) fn resume(&mut self, worker: usize) {
        self.workers[worker].stopped = false;
        for event in std::mem::take(&mut self.workers[worker].inbox) {
            self.happen(worker, event);
        }
        self.wake(worker);
    }

    /// Lets time pass until nothing is left to happen, as it must once all is well: nobody waits, nothing is open.
    pub(crate) fn come_to_rest(&mut self) {
        self.pass(90 * SECOND);
        for worker in &self.workers {
            let (lookups, next) = (worker.forwarder.lookups(), worker.forwarder.poll_timeout());
            let waiters = worker.forwarder.stats().waiters.get();
            assert_eq!((lookups, waiters, worker.lines.len(), next), (0, 0, 0, None), "no rest");
        }
    }

    /// What became of the queries of some time.
    pub(crate) fn figures(&self, asked: std::ops::Range<u64>) -> Figures {
        let mut figures = Figures::default();
        for ask in self.asks.iter().filter(|ask| asked.contains(&ask.at)) {
            figures.asked += 1;
            let Some((at, bytes)) = &ask.answer else {
                figures.lost += 1;
                continue;
            };
            figures.failed += usize::from(bytes[3] & 0xf == 2);
            figures.took.push(at - ask.at);
        }
        figures.took.sort_unstable();
        figures
    }

    /// What became of all.
    pub(crate) fn all_figures(&self) -> Figures {
        self.figures(0..u64::MAX)
    }

    /// Messages to upstreams without probes.
    pub(crate) fn questions(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| !sent.is_probe())
    }

    /// Something arrives on the path of `sent` now, whatever became of it.
    pub(crate) fn deliver(&mut self, sent: &Sent, bytes: &[u8]) -> Result<(), Rejection> {
        let now = self.clock();
        let accepted = self.workers[sent.worker].forwarder.handle_response(now, sent.path, bytes);
        self.drain(sent.worker);
        accepted
    }

    fn next_at(&self) -> Option<u64> {
        let running = self.workers.iter().filter(|worker| !worker.stopped);
        let timers = running.filter_map(|worker| worker.forwarder.poll_timeout());
        timers.map(|(at, _)| micros(at)).chain(self.queue.next_at()).min()
    }

    fn wake(&mut self, worker: usize) {
        let now = self.clock();
        let Worker { forwarder, stopped, .. } = &mut self.workers[worker];
        if !*stopped && forwarder.poll_timeout().is_some_and(|(at, _)| at <= now) {
            forwarder.handle_timeout(now);
            assert!(
                forwarder.poll_timeout().is_none_or(|(at, _)| at > now),
                "asks for the same moment again"
            );
            self.drain(worker);
        }
    }

    fn happen(&mut self, worker: usize, event: Event) {
        let now = self.clock();
        let host = &mut self.workers[worker];
        if host.stopped {
            host.inbox.push(event);
            return;
        }
        match event {
            Event::Ask(n) => {
                let client = self.asks[n].client;
                self.waiting.insert((client.peer, id_of(&self.asks[n].bytes)), n);
                let message = self.asks[n].bytes.clone();
                self.take_query(worker, client, &message);
            }
            Event::Relayed { from, path, bytes } => {
                // The other node's port stands for its path.
                let peer = SocketAddr::from(([172, 16, 0, from as u8], path.slot as u16));
                let client = ClientAddr { listener: ListenerId(0), peer, local: None, connection: None };
                self.take_query(worker, client, &bytes);
            }
            // What comes on a path that is closed finds no socket.
            Event::Come { path, .. } if !host.lines.values().any(|line| line.path == path) => {}
            Event::Come { path, what: What::Message(bytes) } => {
                // Whether it is accepted is the row's business, and shows in what the client gets.
                let _: Result<(), Rejection> = host.forwarder.handle_response(now, path, &bytes);
            }
            Event::Come { path, what: What::Report(event) } => {
                host.forwarder.handle_path_event(now, path, event);
            }
        }
        self.drain(worker);
    }

    fn take_query(&mut self, worker: usize, client: ClientAddr, message: &[u8]) {
        let query = ClientQuery { client, message };
        let now = self.clock();
        let mut out = std::mem::take(&mut self.out);
        if let Outcome::Answer { len } = self.workers[worker].forwarder.handle_query(now, query, &mut out) {
            self.answer(client, &out[..len]);
        }
        self.out = out;
    }

    /// Carries out everything that a worker wants to have done.
    pub(crate) fn drain(&mut self, worker: usize) {
        let now = self.clock();
        let mut out = std::mem::take(&mut self.out);
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "worker {worker} always has something more to send");
            while let Some(request) = self.workers[worker].forwarder.poll_path() {
                self.carry_out(worker, request);
            }
            while self.workers[worker].forwarder.poll_event().is_some() {}
            let Some(transmit) = self.workers[worker].forwarder.poll_transmit(now, &mut out) else { break };
            let bytes = &out[..transmit.len];
            match transmit.target {
                Target::Client(client) => self.answer(client, bytes),
                Target::Upstream(path) => self.leave(worker, path, bytes.to_vec()),
            }
        }
        self.out = out;
    }

    fn leave(&mut self, worker: usize, path: Path, bytes: Vec<u8>) {
        let line = self.workers[worker].lines[&path.slot];
        assert_eq!(line.path, path, "sends on a path that is not open");
        let to = self.workers[worker].upstreams[line.upstream];
        if let Some(node) = self.nodes.get(&to) {
            let event = Event::Relayed { from: worker, path, bytes: bytes.clone() };
            self.queue.push(self.now + ROUND_TRIP / 2, (*node, event));
        }
        let Line { upstream, transport, port, .. } = line;
        let sent = Sent { worker, path, upstream, transport, port, at: self.now, bytes };
        if !self.nodes.contains_key(&to) {
            for (after, what) in (self.network)(&sent) {
                self.queue.push(self.now + after, (worker, Event::Come { path, what }));
            }
        }
        self.sent.push(sent);
    }

    fn carry_out(&mut self, worker: usize, request: PathRequest) {
        match request {
            PathRequest::Open { path, transport, upstream, source_port } => {
                self.connections += 1;
                let port = source_port.map_or(self.connections, u32::from);
                let host = &mut self.workers[worker];
                let known = host.upstreams.iter().position(|known| *known == upstream);
                let upstream = known.expect("an upstream of the configuration");
                let taken = host.lines.values().any(|line| line.port == port && line.path != path);
                let line = Line { path, transport, upstream, port, at: self.now };
                host.lines.insert(path.slot, line);
                let report = if taken { Some((0, PathEvent::PortTaken)) } else { (self.dial)(&line) };
                if let Some((0, event)) = report {
                    let now = self.clock();
                    self.workers[worker].forwarder.handle_path_event(now, path, event);
                } else if let Some((after, event)) = report {
                    let event = Event::Come { path, what: What::Report(event) };
                    self.queue.push(self.now + after, (worker, event));
                }
            }
            PathRequest::Close { path } => {
                let line = self.workers[worker].lines.remove(&path.slot);
                assert_eq!(line.map(|line| line.path), Some(path), "closes what is not open");
            }
        }
    }

    fn answer(&mut self, client: ClientAddr, bytes: &[u8]) {
        if let IpAddr::V4(ip) = client.peer.ip()
            && let [172, 16, 0, node] = ip.octets()
        {
            let (node, slot) = (usize::from(node), u32::from(client.peer.port()));
            if let Some(line) = self.workers[node].lines.get(&slot) {
                let event = Event::Come { path: line.path, what: What::Message(bytes.to_vec()) };
                self.queue.push(self.now + ROUND_TRIP / 2, (node, event));
            }
            return;
        }
        let n = self.waiting.remove(&(client.peer, id_of(bytes)));
        let n = n.unwrap_or_else(|| panic!("{client:?} gets what it did not ask for, or twice: {bytes:?}"));
        let ask = &mut self.asks[n];
        assert_eq!(ask.client, client, "the answer goes elsewhere");
        is_genuine(&ask.bytes, bytes);
        ask.answer = Some((self.now, bytes.to_vec()));
    }
}

fn id_of(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// The world's time as the Forwarders see it.
pub(crate) fn instant(us: u64) -> Instant {
    Instant::from_nanos(1000 * (CLOCK_BEGINS_S * SECOND + us))
}

/// The first microsecond that is not before `at`.
fn micros(at: Instant) -> u64 {
    at.as_nanos().div_ceil(1000).saturating_sub(CLOCK_BEGINS_S * SECOND)
}
