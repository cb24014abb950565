//! What a hit costs without a socket: `handle_query` over the shared cache, in nanoseconds.
//!
//! `cargo bench -p nodens-benches` prints a line per case. With `--once CASE COUNT` it runs one case so often and prints nothing: that
//! is what `benches/instructions` counts the instructions of. A plain program, not criterion: the gate counts instructions, which have
//! no noise to do statistics about, and criterion's tree of crates would be larger than that of nodens itself.
#![expect(clippy::print_stdout, reason = "a program that prints what it finds")]

use nodens_benches::message::{A, TXT, labels, write_query};
use nodens_benches::upstream;
use nodens_cache::SharedCache;
use nodens_core::config::{
    CacheRules, Config, ForwardRules, ForwardZone, Limits, Listener, Route, UpstreamConfig,
};
use nodens_core::wire::Name;
use nodens_core::{
    ClientAddr, ClientQuery, ConnectionId, Forwarder, Instant, ListenerId, Outcome, PathEvent, PathRequest,
    Seed, Target, Transport, UpstreamId, ZoneId,
};
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
/// Hits of a timed case: some tenths of a second.
const HITS: usize = 2_000_000;
/// Times that a case is timed; the fastest counts, for what disturbs can only slow down.
const REPEATS: usize = 5;
const TTL_S: u32 = 3600;
/// The longest DNS message.
const MESSAGE_LEN_MAX: usize = 65_535;

/// Names of the cases, as `--once` takes them.
const CASES: [&str; 5] = ["one-name", "1000-names", "nxdomain", "edns", "tcp-10k"];

struct Case {
    forwarder: Forwarder<SharedCache>,
    client: ClientAddr,
    queries: Vec<Vec<u8>>,
    response: Vec<u8>,
}

impl Case {
    fn new(name: &str) -> Option<Self> {
        let query = |name: &str, qtype: u16, edns: bool| {
            let mut query = vec![];
            write_query(&mut query, 77, [&labels(name), &[0]], qtype, edns);
            query
        };
        let numbered = |n: usize| query(&format!("svc-{n}.default.svc.cluster.local"), A, false);
        let (queries, is_tcp) = match name {
            "one-name" => (vec![numbered(0)], false),
            "1000-names" => ((0..1000).map(numbered).collect(), false),
            "nxdomain" => (vec![query("www.example.com.default.svc.cluster.local", A, false)], false),
            "edns" => (vec![query("svc-0.default.svc.cluster.local", A, true)], false),
            "tcp-10k" => (vec![query("a.big.example.com", TXT, false)], true),
            _ => return None,
        };
        let cache = Arc::new(SharedCache::new(32 << 20, &Seed([1; 32])));
        let connection = is_tcp.then_some(ConnectionId(1));
        let peer = SocketAddr::from(([10, 0, 0, 1], 40_000));
        let mut case = Case {
            forwarder: Forwarder::new(Arc::new(config()), cache, Seed([2; 32]), NOW),
            client: ClientAddr { listener: ListenerId(0), peer, local: None, connection },
            queries,
            response: vec![0; MESSAGE_LEN_MAX],
        };
        for index in 0..case.queries.len() {
            case.fill(index);
            assert!(case.hit(index) > 12, "{name}: what was just answered is a hit");
        }
        Some(case)
    }

    /// Asks, plays the upstream, and lets the answer go to the client: then it is in the cache.
    fn fill(&mut self, index: usize) {
        let query = ClientQuery { client: self.client, message: &self.queries[index] };
        let outcome = self.forwarder.handle_query(NOW, query, &mut self.response);
        assert_eq!(outcome, Outcome::Forward, "the cache is empty");
        let mut answered = false;
        loop {
            while let Some(request) = self.forwarder.poll_path() {
                if let PathRequest::Open { path, transport: Transport::Tcp, .. } = request {
                    self.forwarder.handle_path_event(NOW, path, PathEvent::Connected);
                }
            }
            let Some(transmit) = self.forwarder.poll_transmit(NOW, &mut self.response) else { break };
            match transmit.target {
                Target::Client(_) => answered = true,
                Target::Upstream(path) => {
                    let mut reply = vec![];
                    let is_tcp = self.client.connection.is_some();
                    upstream::answer(&self.response[..transmit.len], TTL_S, is_tcp, &mut reply);
                    self.forwarder.handle_response(NOW, path, &reply).expect("a sound reply");
                }
            }
        }
        assert!(answered, "the lookup is over");
    }

    fn hit(&mut self, index: usize) -> usize {
        let query = ClientQuery { client: self.client, message: &self.queries[index] };
        match self.forwarder.handle_query(NOW, black_box(query), &mut self.response) {
            Outcome::Answer { len } => black_box(len),
            other => panic!("no hit: {other:?}"),
        }
    }

    fn run(&mut self, hits: usize) {
        let mut index = 0;
        for _ in 0..hits {
            black_box(self.hit(index));
            // A stride that meets all names in no order the processor could guess from.
            index = (index + 619) % self.queries.len();
        }
    }
}

/// One listener, one zone with room for everything, one upstream.
fn config() -> Config {
    Config {
        listeners: vec![Listener { routes: vec![Route { apex: Name::root(), zone: 0 }] }],
        zones: vec![ForwardZone {
            id: ZoneId(0),
            cache: Some(CacheRules::coredns()),
            forward: Some(ForwardRules::to(vec![UpstreamId(0)])),
            udp_size_max: 1232,
            log_queries: false,
            log_errors: false,
        }],
        upstreams: vec![UpstreamConfig::new(SocketAddr::from(([192, 0, 2, 1], 53)))],
        trust_ad: true,
        limits: Limits::default(),
    }
}

fn main() {
    let words: Vec<_> = std::env::args().collect();
    if let Some(at) = words.iter().position(|word| word == "--once") {
        let case = words.get(at + 1).and_then(|name| Case::new(name));
        let hits = words.get(at + 2).and_then(|count| count.parse().ok());
        let (Some(mut case), Some(hits)) = (case, hits) else {
            panic!("--once takes a case ({}) and a count", CASES.join(", "))
        };
        case.run(hits);
        return;
    }
    // `cargo bench` says `--bench`. `cargo test` runs this too, and then it only shows that every case is a hit.
    let hits = if words.iter().any(|word| word == "--bench") { HITS } else { 100 };
    println!("{:12} ns per hit", "case");
    for name in CASES {
        let mut case = Case::new(name).expect("a known case");
        let times = (0..REPEATS).map(|_| {
            let begin = std::time::Instant::now();
            case.run(hits);
            begin.elapsed().as_nanos() as f64 / hits as f64
        });
        println!("{name:12} {:.0}", times.fold(f64::INFINITY, f64::min));
    }
}
