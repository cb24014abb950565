//! (to come)
use crate::*;
use alloc::sync::Arc;

/// The state machine.
#[derive(Debug)]
pub struct Forwarder<C> {
    cache: Arc<C>,
    stats: Arc<Stats>,
}

impl<C: cache::Cache> Forwarder<C> {
    /// A Forwarder with nothing in flight. `config` must have passed [`Config::check`].
    pub fn new(config: Arc<Config>, cache: Arc<C>, seed: Seed, now: Instant) -> Self {
        let _ = (seed, now);
        Forwarder { cache, stats: Arc::new(Stats::new(&config)) }
    }

    /// A client's query. `response` is where an answer is written; 65 535 bytes for TCP, at least 4096 for UDP.
    pub fn handle_query(&mut self, now: Instant, query: ClientQuery<'_>, response: &mut [u8]) -> Outcome {
        let _ = (now, query, response, &self.cache);
        Outcome::Drop(DropReason::Short)
    }

    /// A message from an upstream.
    pub fn handle_response(&mut self, now: Instant, path: Path, message: &[u8]) -> Result<(), Rejection> {
        let _ = (now, path, message);
        Err(Rejection::UnknownPath)
    }

    /// What a path's transport has to report.
    pub fn handle_path_event(&mut self, now: Instant, path: Path, event: PathEvent) {
        let _ = (now, path, event);
    }

    /// The clock passed what `poll_timeout` asked for. Harmless to call early.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// The wall clock, in seconds since 1970, for RRSIG validity only. Tell it at start and when it was stepped.
    pub fn handle_wall_clock(&mut self, now: Instant, unix_s: u64) {
        let _ = (now, unix_s);
    }

    /// The next path to open or close.
    pub fn poll_path(&mut self) -> Option<PathRequest> {
        None
    }

    /// The next message to send, written to the front of `message` (65 535 bytes).
    pub fn poll_transmit(&mut self, now: Instant, message: &mut [u8]) -> Option<Transmit> {
        let _ = (now, message);
        None
    }

    /// The next thing worth a log line.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When `handle_timeout` wants to be called, and for whom.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        None
    }

    /// How many lookups are in flight: zero means that a drain is complete.
    pub fn lookups(&self) -> usize {
        0
    }

    /// The counters; the returned handle may be read from any thread.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}
