//! One Forwarder over a real cache, with one client at a time and an upstream that the target plays.

use nodens_cache::SharedCache;
use nodens_core::config::{
    CacheRules, ForwardRules, ForwardZone, Limits, Listener, Route, UDP_SIZE_DEFAULT, UpstreamConfig,
    UpstreamTransport,
};
use nodens_core::wire::Name;
use nodens_core::{
    ClientAddr, ClientQuery, Config, ConnectionId, Duration, Forwarder, Instant, ListenerId, Outcome, Path,
    PathEvent, PathRequest, Rejection, Seed, Target, Transport, UpstreamId, ZoneId,
};
use std::net::SocketAddr;
use std::sync::Arc;

/// Two weeks after the machine started, so that no time before now has to be below zero.
pub(crate) const START: Instant = Instant::from_nanos(1_209_600_000_000_000);
/// The wall clock at [`START`]; only signatures depend on it.
pub(crate) const UNIX_S: u64 = 1_790_000_000;
/// Bytes of the cache: enough for everything a target stores.
const CACHE_BYTES: usize = 1 << 20;
/// The zone under the root: its own name depth, no `forward`.
pub(crate) const REFUSED_ZONE: &[u8] = b"\x07refused\x00";

/// A client on UDP or TCP.
pub(crate) fn client(transport: Transport) -> ClientAddr {
    let connection = (transport == Transport::Tcp).then_some(ConnectionId(1));
    let peer = SocketAddr::from(([10, 0, 0, 1], 40_000));
    ClientAddr { listener: ListenerId(0), peer, local: None, connection }
}

/// A zone with CoreDNS' defaults and these upstreams.
pub(crate) fn zone(id: u16, forward: Option<ForwardRules>) -> ForwardZone {
    ForwardZone {
        id: ZoneId(id),
        cache: Some(CacheRules::coredns()),
        forward,
        udp_size_max: UDP_SIZE_DEFAULT,
        log_queries: false,
        log_errors: false,
    }
}

/// The root goes to one upstream, everything under `refused.` is refused.
pub(crate) fn config(transport: UpstreamTransport) -> Config {
    let forward = ForwardRules { transport, ..ForwardRules::to(vec![UpstreamId(0)]) };
    let refused = Name::from_wire(REFUSED_ZONE);
    let routes = vec![Route { apex: Name::root(), zone: 0 }, Route { apex: refused, zone: 1 }];
    Config {
        listeners: vec![Listener { routes }],
        zones: vec![zone(0, Some(forward)), zone(1, None)],
        upstreams: vec![UpstreamConfig::new(SocketAddr::from(([192, 0, 2, 1], 53)))],
        trust_ad: true,
        limits: Limits::default(),
    }
}

/// A query on its way to the upstream.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) path: Path,
    pub(crate) bytes: Vec<u8>,
}

/// The Forwarder, and what it has sent and nobody has looked at.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) forwarder: Forwarder<SharedCache>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) answers: Vec<Vec<u8>>,
    open: Vec<Path>,
    out: Vec<u8>,
}

/// What became of a query.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Asked {
    Answered(Vec<u8>),
    Forwarded,
    Dropped(nodens_core::DropReason),
}

impl World {
    pub(crate) fn new(config: Config) -> World {
        let cache = Arc::new(SharedCache::new(CACHE_BYTES, &Seed([5; 32])));
        let mut forwarder = Forwarder::new(Arc::new(config), cache, Seed([6; 32]), START);
        forwarder.handle_wall_clock(START, UNIX_S);
        World {
            now: START,
            forwarder,
            sent: Vec::new(),
            answers: Vec::new(),
            open: Vec::new(),
            out: vec![0; usize::from(u16::MAX)],
        }
    }

    pub(crate) fn ask(&mut self, transport: Transport, message: &[u8]) -> Asked {
        let query = ClientQuery { client: client(transport), message };
        let outcome = self.forwarder.handle_query(self.now, query, &mut self.out);
        let asked = match outcome {
            Outcome::Answer { len } => Asked::Answered(self.out[..len].to_vec()),
            Outcome::Forward => Asked::Forwarded,
            Outcome::Drop(reason) => Asked::Dropped(reason),
        };
        self.drain();
        asked
    }

    pub(crate) fn reply(&mut self, path: Path, message: &[u8]) -> Result<(), Rejection> {
        let accepted = self.forwarder.handle_response(self.now, path, message);
        self.drain();
        accepted
    }

    /// Lets time pass and wakes the Forwarder when it wants to be woken.
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

    /// Connects what is to be connected and collects what is sent.
    fn drain(&mut self) {
        loop {
            while let Some(request) = self.forwarder.poll_path() {
                match request {
                    PathRequest::Open { path, transport, .. } => {
                        self.open.push(path);
                        if transport == Transport::Tcp {
                            self.forwarder.handle_path_event(self.now, path, PathEvent::Connected);
                        }
                    }
                    PathRequest::Close { path } => {
                        let at = self.open.iter().position(|open| *open == path);
                        self.open.swap_remove(at.expect("what is closed was open"));
                    }
                }
            }
            let Some(transmit) = self.forwarder.poll_transmit(self.now, &mut self.out) else { break };
            let bytes = self.out[..transmit.len].to_vec();
            match transmit.target {
                Target::Client(_) => self.answers.push(bytes),
                Target::Upstream(path) => {
                    assert!(self.open.contains(&path), "sends on a path that is not open");
                    self.sent.push(Sent { path, bytes });
                }
            }
        }
        while self.forwarder.poll_event().is_some() {}
        assert_eq!(self.forwarder.stats().paths.get(), self.open.len() as u64, "the gauge of open paths");
    }
}
