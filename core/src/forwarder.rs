//! The Forwarder: takes clients' queries, answers from the cache, asks upstreams for the rest.
//!
//! This file is the table of contents: the state, the verbs, and where each is carried out. See the crate's first page
//! for a driver's turn.
//!
//! The invariant that makes it simple: every verb leaves the machine complete. After a `handle_*` call everything that
//! should happen now waits in three queues (paths, messages, events), and everything that should happen later has
//! a timer. A driver that is late costs time, never correctness; one that calls early costs nothing.

mod attempt;
mod failures;
mod finish;
mod lookup;
mod paths;
mod pool;
mod probe;
mod query;
mod reload;
mod response;
mod route;
mod timers;

use crate::api::{
    ClientAddr, ClientQuery, Event, Outcome, Path, PathEvent, PathRequest, Reason, Rejection, Target,
    Transmit,
};
use crate::cache::Cache;
use crate::config::Config;
use crate::rng::{Rng, Seed};
use crate::sim_support::{Mark, mark};
use crate::slab::Slab;
use crate::stats::Stats;
use crate::time::Instant;
use crate::upstream::Upstream;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use attempt::RetryBudget;
use failures::Failures;
use finish::Finished;
use lookup::Lookups;
use paths::{Attempt, OpenPath};
use pool::Pool;
use probe::Probes;
use route::RouteTable;
use timers::Timers;

/// Events that wait for the driver; beyond it the newest are lost. A driver drains them every turn, so this is one turn's worth.
const EVENTS_MAX: usize = 1024;

/// The state machine of one worker.
#[derive(Debug)]
pub struct Forwarder<C> {
    config: Arc<Config>,
    cache: Arc<C>,
    stats: Arc<Stats>,
    rng: Rng,
    wall: WallClock,
    /// Per listener: which zone a name belongs to.
    routes: Vec<RouteTable>,
    /// Per zone: the round-robin turn, and lookups in flight.
    turns: Vec<u32>,
    in_flight: Vec<u32>,

    upstreams: Vec<Upstream>,
    probes: Probes,
    lookups: Lookups,
    paths: Slab<OpenPath>,
    /// By slot.
    path_timers: Timers,
    /// Per upstream.
    pools: Vec<Pool>,
    retry_budget: RetryBudget,
    failures: Failures,

    path_requests: VecDeque<PathRequest>,
    /// Queries that can leave.
    sends: VecDeque<Attempt>,
    /// Answers for clients.
    finished: VecDeque<Finished>,
    /// Answers that are written already: what a reload could answer at once.
    replies: VecDeque<(ClientAddr, Box<[u8]>)>,
    events: VecDeque<Event>,
    /// Set while a reload asks again what was asked, and counted, before.
    asked_before: Option<AskedBefore>,
    /// No lookup is started any more.
    is_winding_down: bool,
}

/// What a query that is asked again brings along: its client has been waiting since then.
#[derive(Copy, Clone, Debug)]
struct AskedBefore {
    at: Instant,
    query_len: u16,
}

impl<C: Cache> Forwarder<C> {
    /// A Forwarder with nothing in flight.
    ///
    /// # Panics
    ///
    /// If `config` does not pass [`Config::check`]: the caller's mistake, not a peer's.
    pub fn new(config: Arc<Config>, cache: Arc<C>, seed: Seed, now: Instant) -> Self {
        if let Err(error) = config.check() {
            panic!("a Forwarder was given a configuration that does not pass its check: {error}");
        }
        let upstreams: Vec<_> = config.upstreams.iter().cloned().map(Upstream::new).collect();
        Forwarder {
            cache,
            stats: Arc::new(Stats::new(&config)),
            rng: Rng::new(&seed),
            wall: WallClock { at: now, unix_s: 0 },
            routes: config.listeners.iter().map(RouteTable::new).collect(),
            turns: alloc::vec![0; config.zones.len()],
            in_flight: alloc::vec![0; config.zones.len()],
            probes: Probes::new(upstreams.len()),
            upstreams,
            lookups: Lookups::new(),
            paths: Slab::new(),
            path_timers: Timers::default(),
            pools: config.upstreams.iter().map(|_| Pool::default()).collect(),
            retry_budget: RetryBudget::new(),
            failures: Failures::new(config.zones.len()),
            path_requests: VecDeque::new(),
            sends: VecDeque::new(),
            finished: VecDeque::new(),
            replies: VecDeque::new(),
            asked_before: None,
            is_winding_down: false,
            events: VecDeque::new(),
            config,
        }
    }

    /// A client's query, whole, without TCP's length prefix.
    ///
    /// `response` is where an answer is written: 65 535 bytes for TCP, at least 4096 for UDP. What is answered from the cache or
    /// refused is answered by return value, without a queue and without an allocation.
    #[inline]
    pub fn handle_query(&mut self, now: Instant, query: ClientQuery<'_>, response: &mut [u8]) -> Outcome {
        self.answer_or_forward(now, &query, response)
    }

    /// A message from an upstream.
    ///
    /// # Errors
    ///
    /// Why it was not accepted. That is information: it has been counted, and the lookup goes on waiting.
    pub fn handle_response(&mut self, now: Instant, path: Path, message: &[u8]) -> Result<(), Rejection> {
        let accepted = self.accept_response(now, path, message);
        if let Err(rejection) = accepted {
            self.stats.rejected[rejection as usize].add(1);
        }
        accepted
    }

    /// What a path's transport has to report.
    pub fn handle_path_event(&mut self, now: Instant, path: Path, event: PathEvent) {
        self.path_reported(now, path, event);
    }

    /// The clock reached what `poll_timeout` asked for. Harmless to call early.
    pub fn handle_timeout(&mut self, now: Instant) {
        // Probes first: one that fails may bring the deadlines of lookups forward to now.
        while let Some(upstream) = self.probes.timers.pop(now) {
            self.probe_timed_out(now, upstream);
        }
        while let Some(slot) = self.lookups.timers.pop(now) {
            self.lookup_timed_out(now, slot);
        }
        while let Some(slot) = self.path_timers.pop(now) {
            self.path_timed_out(now, slot);
        }
    }

    /// A new configuration is in force from now on. The cache stays; what is in flight is asked again under it.
    ///
    /// Listeners keep their [`ListenerId`](crate::ListenerId): one that is gone leaves an empty place behind.
    /// [`stats`](Self::stats) is another handle afterwards.
    ///
    /// # Panics
    ///
    /// If `config` does not pass [`Config::check`].
    pub fn handle_config(&mut self, now: Instant, config: Arc<Config>) {
        self.reconfigure(now, config);
    }

    /// The wall clock, in seconds since 1970: only the validity of signatures depends on it. To be told at start, and once in a while
    /// because wall clocks are stepped.
    pub fn handle_wall_clock(&mut self, now: Instant, unix_s: u64) {
        self.wall = WallClock { at: now, unix_s };
    }

    /// The next path to open or close.
    pub fn poll_path(&mut self) -> Option<PathRequest> {
        self.path_requests.pop_front()
    }

    /// The next message to send, written to the front of `message` (65 535 bytes).
    pub fn poll_transmit(&mut self, now: Instant, message: &mut [u8]) -> Option<Transmit> {
        if let Some((client, bytes)) = self.replies.pop_front() {
            message[..bytes.len()].copy_from_slice(&bytes);
            return Some(Transmit { target: Target::Client(client), len: bytes.len() });
        }
        if let Some(answer) = self.next_answer(now, message) {
            return Some(answer);
        }
        self.next_upstream_query(message)
    }

    /// The next thing worth a log line.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` wants to be called, and for whom; `None` while there is nothing to wait for.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let lookup = self.lookups.timers.next().map(|at| (at, Reason::Lookup));
        let probe = self.probes.timers.next().map(|at| (at, Reason::UpstreamProbe));
        let path = self.path_timers.next().map(|at| (at, Reason::PathIdle));
        [lookup, probe, path].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Starts no lookup any more, for good: what is in the cache is answered as before, lookups under way go on and take further
    /// clients, and the rest gets SERVFAIL with the extended error "not ready" at once, so that resolvers ask their next
    /// server. For the last moments before nobody serves.
    pub fn wind_down(&mut self) {
        self.is_winding_down = true;
    }

    /// How many lookups are in flight: zero means that a drain is complete.
    pub fn lookups(&self) -> usize {
        self.lookups.len()
    }

    /// The counters. The handle may be read from any thread.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            mark(Mark::EventLost);
            self.stats.events_lost.add(1);
        }
    }
}

/// What the wall clock said, and when it said so.
#[derive(Copy, Clone, Debug)]
struct WallClock {
    at: Instant,
    unix_s: u64,
}

impl WallClock {
    fn unix_s(&self, now: Instant) -> u64 {
        self.unix_s.saturating_add(now.seconds_since(self.at))
    }
}
