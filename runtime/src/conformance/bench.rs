//! A server for one test: a scripted upstream behind it, clients in front of it, and what every answer must look like.
//!
//! [`Setup`] is a configuration with CoreDNS' defaults that a row changes where it has to; [`Bench`] is the running server. Each row
//! has its own, so rows can run side by side. [`Row`] is the shape that most rows share: one question, one script. Every answer
//! that is taken through here is held against its query: ID, question bytes, header bits and OPT record follow the same
//! rules whatever the row is about.

use super::harness::{Running, forwarding_to, start_with};
use crate::clients::ClientLimits;
use crate::worker::Runtime;
use nodens_cache::SharedCache;
use nodens_core::cache::Class;
use nodens_core::config::{CacheRules, Limits, UDP_SIZE_DEFAULT, UpstreamConfig};
use nodens_core::stats::{Counter, UpstreamStats, ZoneStats};
use nodens_core::{Config, Duration, Rejection, Seed, Stats, UpstreamId};
use nodens_testkit::msg::Rr;
use nodens_testkit::{Query, Received, Reply, Response, TcpClient, UdpClient, Upstream, answers};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

/// What we advertise in our OPT record unless `bufsize` says otherwise.
pub const OUR_SIZE: u16 = UDP_SIZE_DEFAULT;
/// How long a row waits for an answer: longer than any lookup may take.
pub const PATIENCE: Duration = Duration::from_secs(6);
/// How long a row listens for what must not come.
pub const SILENCE: Duration = Duration::from_millis(60);
/// How long a worker may take to end at the end of a row.
const GRACE: Duration = Duration::from_millis(10);

/// What a row starts its server with.
#[derive(Debug)]
pub struct Setup {
    /// One listener, zone `.`, CoreDNS' cache defaults, the upstreams in their order.
    pub config: Config,
    /// Two, so that the cache is shared; one where a row counts what each worker does by itself.
    pub workers: usize,
    /// What TCP clients of a worker may take; the share of a process by default.
    pub clients: Option<ClientLimits>,
    /// Where to listen.
    pub address: SocketAddr,
    /// The size of the cache.
    pub cache_bytes: usize,
}

impl Setup {
    /// The server in front of these upstreams.
    pub fn new(upstreams: &[&Upstream]) -> Setup {
        let mut config = forwarding_to(upstreams[0].addr());
        config.upstreams = upstreams.iter().map(|upstream| UpstreamConfig::new(upstream.addr())).collect();
        let zone = &mut config.zones[0];
        (zone.log_queries, zone.log_errors) = (false, false);
        if let Some(forward) = &mut zone.forward {
            forward.upstreams = (0..upstreams.len()).map(|n| UpstreamId(n as u16)).collect();
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Setup { config, workers: 2, clients: None, address, cache_bytes: 4 << 20 }
    }

    /// One worker only.
    pub fn one_worker(mut self) -> Setup {
        self.workers = 1;
        self
    }

    /// Changes the zone's `cache`.
    pub fn rules(mut self, change: impl FnOnce(&mut CacheRules)) -> Setup {
        if let Some(rules) = &mut self.config.zones[0].cache {
            change(rules);
        }
        self
    }

    /// Changes the ceilings of each worker.
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Setup {
        change(&mut self.config.limits);
        self
    }

    /// How often an upstream that is not well is probed.
    pub fn probe_interval(mut self, interval: Duration) -> Setup {
        for upstream in &mut self.config.upstreams {
            upstream.probe_interval = interval;
        }
        self
    }

    /// Starts the workers.
    pub fn start<R: Runtime>(self) -> Bench {
        let cache = Arc::new(SharedCache::new(self.cache_bytes, &Seed([1; 32])));
        let clients = self.clients.unwrap_or_else(|| ClientLimits::per_worker(self.workers));
        let running =
            start_with::<R, _>(self.config, Arc::clone(&cache), self.address, self.workers, clients);
        Bench { addr: running.addr, cache, running: Some(running) }
    }
}

/// A running server; its workers end with it, and a worker that failed fails the test.
#[derive(Debug)]
pub struct Bench {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its cache.
    pub cache: Arc<SharedCache>,
    running: Option<Running>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(running) = self.running.take()
            && !thread::panicking()
        {
            running.stop(GRACE);
        }
    }
}

impl Bench {
    /// The workers.
    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs until it is dropped")
    }

    /// Asks over UDP from a fresh port; panics without an answer.
    pub fn ask(&self, query: &Query) -> Reply {
        self.ask_within(query, PATIENCE).unwrap_or_else(|| panic!("no answer to {query:?}"))
    }

    /// The same with a limit of time.
    pub fn ask_within(&self, query: &Query, timeout: Duration) -> Option<Reply> {
        self.ask_from(&UdpClient::new(), query, timeout)
    }

    /// Asks over UDP from a given socket.
    pub fn ask_from(&self, client: &UdpClient, query: &Query, timeout: Duration) -> Option<Reply> {
        let bytes = query.bytes();
        let reply = client.ask(self.addr, &bytes, timeout)?;
        check_frame(&bytes, &reply);
        Some(reply)
    }

    /// Asks over a fresh TCP connection; panics without an answer.
    pub fn ask_tcp(&self, query: &Query) -> Reply {
        let bytes = query.bytes();
        let reply = self.tcp().ask(&bytes, PATIENCE).unwrap_or_else(|| panic!("no answer to {query:?}"));
        check_frame(&bytes, &reply);
        reply
    }

    /// A TCP connection.
    pub fn tcp(&self) -> TcpClient {
        TcpClient::connect(self.addr).expect("the server takes connections")
    }

    /// Sends bytes over UDP and returns what comes back, as it comes.
    pub fn send_raw(&self, bytes: &[u8]) -> Option<Reply> {
        let client = UdpClient::new();
        client.send(self.addr, bytes);
        let (reply, from) = client.recv(PATIENCE)?;
        assert_eq!(from, self.addr, "answers come from where the query went");
        Some(Reply::parse(&reply))
    }

    /// Whether nothing at all comes back to these bytes although the worker that got them goes on serving: a query behind
    /// them from the same port, hence at the same worker, is answered first and alone.
    pub fn is_silent_on(&self, bytes: &[u8]) -> bool {
        let client = UdpClient::new();
        client.send(self.addr, bytes);
        let query = Query::new("still-there.example.", "A").id(0x5171).bytes();
        client.send(self.addr, &query);
        let first = client.recv(PATIENCE).expect("the worker still serves").0;
        first[..2] == query[..2] && client.recv(SILENCE).is_none()
    }

    /// One counter, over all workers.
    pub fn sum(&self, counter: impl Fn(&Stats) -> &Counter) -> u64 {
        self.running().sum(counter)
    }

    /// One counter of the zone, over all workers.
    pub fn zone(&self, counter: impl Fn(&ZoneStats) -> &Counter) -> u64 {
        self.sum(|stats| counter(&stats.zones[0]))
    }

    /// One counter of an upstream, over all workers.
    pub fn upstream(&self, index: usize, counter: impl Fn(&UpstreamStats) -> &Counter) -> u64 {
        self.sum(|stats| counter(&stats.upstreams[index]))
    }

    /// How many upstream messages were rejected for this reason.
    pub fn rejected(&self, reason: Rejection) -> u64 {
        self.sum(|stats| &stats.rejected[reason as usize])
    }

    /// Answers with this RCODE that went out in the zone.
    pub fn responses(&self, rcode: u16) -> u64 {
        let label = nodens_core::stats::rcode_label(rcode);
        self.sum(|stats| &stats.routes[0][0].responses[label])
    }

    /// Answers kept of this class.
    pub fn kept(&self, class: Class) -> u64 {
        let usage = self.cache.usage().table;
        usage.classes.iter().filter(|kept| kept.class == class).map(|kept| kept.entries).sum()
    }

    /// Waits until `holds`; panics with `what` if it does not come true.
    pub fn wait_for(&self, what: &str, holds: impl Fn(&Bench) -> bool) {
        assert!(self.running().wait_until(|_| holds(self)), "waited in vain for: {what}");
    }
}

/// A server in front of one upstream with one script.
#[derive(Debug)]
pub struct Row {
    /// The server; dropped before the upstream.
    pub bench: Bench,
    /// The upstream.
    pub upstream: Ears,
}

/// [`Upstream`] is not `Debug`; this is.
pub struct Ears(pub Upstream);

impl std::fmt::Debug for Ears {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an upstream on {}", self.0.addr())
    }
}

impl std::ops::Deref for Ears {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.0
    }
}

impl Row {
    /// CoreDNS' defaults, two workers.
    pub fn start<R: Runtime>(respond: impl Fn(&Received) -> Response + Send + Sync + 'static) -> Row {
        Row::with::<R>(respond, |setup| setup)
    }

    /// The same, changed.
    pub fn with<R: Runtime>(
        respond: impl Fn(&Received) -> Response + Send + Sync + 'static,
        change: impl FnOnce(Setup) -> Setup,
    ) -> Row {
        Row::behind::<R>(Upstream::start(answers(respond)), change)
    }

    /// A server in front of this upstream.
    pub fn behind<R: Runtime>(upstream: Upstream, change: impl FnOnce(Setup) -> Setup) -> Row {
        let bench = change(Setup::new(&[&upstream])).start::<R>();
        Row { bench, upstream: Ears(upstream) }
    }

    /// Lookups that reached the upstream. What a slow machine makes of one lookup beyond that, retransmissions and the probes that
    /// follow a silence, may be on its way when a row looks; then our own books have to do.
    pub fn asked(&self) -> u64 {
        let repeated = self.bench.upstream(0, |stats| &stats.retransmissions);
        let probes = self.bench.upstream(0, |stats| &stats.probes);
        if repeated + probes == 0 {
            return self.upstream.count() as u64;
        }
        self.bench.upstream(0, |stats| &stats.attempts) - repeated
    }

    /// Asks twice, from two ports, one after the other.
    pub fn ask_twice(&self, query: &Query) -> [Reply; 2] {
        [self.bench.ask(query), self.bench.ask(query)]
    }

    /// Asks twice; the second answer must be the first's, from the cache. Returns the second.
    pub fn expect_kept(&self, query: &Query) -> Reply {
        let before = self.asked();
        let [first, second] = self.ask_twice(query);
        assert_eq!(self.asked() - before, 1, "the second answer comes from the cache");
        assert_eq!(without_ttls(&first), without_ttls(&second), "both answers say the same");
        second
    }

    /// Asks twice; both must reach the upstream, nothing may be in the cache. Returns the second answer.
    pub fn expect_relayed(&self, query: &Query) -> Reply {
        let before = self.asked();
        let [first, second] = self.ask_twice(query);
        assert_eq!(self.asked() - before, 2, "neither answer comes from the cache");
        assert_eq!(without_ttls(&first), without_ttls(&second), "both answers say the same");
        assert_eq!(self.bench.cache.usage().table.entries, 0, "nothing is kept");
        second
    }
}

/// An answer as lines, TTLs aside.
pub fn without_ttls(reply: &Reply) -> (u16, Vec<String>, Vec<String>, Vec<String>) {
    let lines = |records: &[Rr]| records.iter().map(Rr::line).collect::<Vec<_>>();
    (reply.rcode, lines(&reply.answers), lines(&reply.authority), lines(&reply.additional))
}

/// All TTLs of an answer.
pub fn ttls(reply: &Reply) -> Vec<u32> {
    let records = reply.answers.iter().chain(&reply.authority).chain(&reply.additional);
    records.map(|rr| rr.ttl).collect()
}

/// All TTLs are `ttl_s`, or one second less: the second may have changed meanwhile.
#[track_caller]
pub fn assert_ttls(reply: &Reply, ttl_s: u32) {
    let ttls = ttls(reply);
    assert!(!ttls.is_empty(), "there are records");
    assert!(ttls.iter().all(|t| *t == ttl_s || *t + 1 == ttl_s), "{ttls:?}, expected {ttl_s}");
}

/// Waits.
pub fn sleep_ms(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

/// What holds for every answer to every query (semantics.md R4, R5, R9; design §4a).
#[track_caller]
pub fn check_frame(query: &[u8], reply: &Reply) {
    let asked = Reply::parse(query);
    assert!(reply.qr, "an answer is a response");
    assert_eq!(reply.id, asked.id, "B20: the ID is the query's");
    assert_eq!(reply.opcode, asked.opcode, "the opcode is the query's");
    assert_eq!(reply.rd, asked.rd, "B19: RD is the query's");
    assert!(!reply.aa, "B17: a forwarder is no authority");
    assert!(!reply.z, "the reserved bit is zero");
    assert_eq!(reply.trailing, 0, "nothing stands behind the last record");
    let Some(question) = &asked.question else { return };
    if asked.qdcount == 1 && asked.opcode == 0 && reply.rcode != nodens_testkit::msg::rcode::FORMERR {
        let answered = reply.question.as_ref().map(|question| &question.raw);
        assert_eq!(answered, Some(&question.raw), "B21: the question is the query's, byte by byte");
        assert_eq!(reply.cd, asked.cd, "CD is the query's");
    }
    if asked.opt_count <= 1 {
        check_opt(&asked, reply);
    }
}

fn check_opt(asked: &Reply, reply: &Reply) {
    match (&asked.opt, &reply.opt) {
        (None, opt) => assert!(opt.is_none(), "B14: no OPT to a client that sent none"),
        // A message that cannot be read may be answered without looking for an OPT.
        (Some(_), None) => assert!(matches!(reply.rcode, 1 | 4), "B15: an OPT to a client that sent one"),
        (Some(theirs), Some(ours)) => {
            assert_eq!(reply.opt_count, 1, "one OPT");
            assert!(reply.opt_is_last, "B15: the OPT is the last record");
            assert_eq!((ours.size, ours.version), (OUR_SIZE, 0), "B13: the size is ours");
            assert_eq!(ours.do_bit, theirs.do_bit, "B13: DO is the query's");
            let foreign = ours.options.iter().find(|(code, _)| *code != 15);
            assert_eq!(foreign, None, "B22: no option is echoed");
        }
    }
}
