//! A new configuration while queries are in flight.
//!
//! The cache stays, and so does what is known about upstreams that stay. Everything in flight is asked again under the new
//! configuration, because its zone may go elsewhere now: no client is answered by the old configuration once the new
//! one is in force, and none is left without an answer. Counters go on from where they were.

use super::finish::Finished;
use super::lookup::{Lookups, Waiter};
use super::pool::Pool;
use super::probe::Probes;
use super::route::RouteTable;
use super::{AskedBefore, Failures, Forwarder};
use crate::api::{ClientQuery, Outcome, Path};
use crate::cache::Cache;
use crate::config::Config;
use crate::sim_support::{Fault, Mark, mark, mark_if, planted};
use crate::stats::Stats;
use crate::time::Instant;
use crate::upstream::Upstream;
use crate::wire::{Edns, Flags, HEADER_LEN, Header, MESSAGE_LEN_MAX, put_opt};
use alloc::sync::Arc;
use alloc::vec::Vec;

impl<C: Cache> Forwarder<C> {
    pub(super) fn reconfigure(&mut self, now: Instant, config: Arc<Config>) {
        if let Err(error) = config.check() {
            panic!("a Forwarder was given a configuration that does not pass its check: {error}");
        }
        let waiting = self.take_all_waiters();
        self.close_all_paths();
        let stats = Stats::new(&config);
        stats.adopt(&self.stats, &self.config, &config);
        let mut known: Vec<Upstream> = core::mem::take(&mut self.upstreams);
        self.upstreams = config
            .upstreams
            .iter()
            .map(|wanted| {
                let kept = known.iter().position(|upstream| upstream.config == *wanted);
                kept.map_or_else(|| Upstream::new(wanted.clone()), |at| known.swap_remove(at).at_rest())
            })
            .collect();
        self.stats = Arc::new(stats);
        self.routes = config.listeners.iter().map(RouteTable::new).collect();
        self.turns = alloc::vec![0; config.zones.len()];
        self.in_flight = alloc::vec![0; config.zones.len()];
        self.probes = Probes::new(self.upstreams.len());
        self.pools = config.upstreams.iter().map(|_| Pool::default()).collect();
        self.failures = Failures::new(config.zones.len());
        self.config = config;
        self.replies.retain(|(client, _)| usize::from(client.listener.0) < self.routes.len());
        self.ask_again(now, waiting);
    }

    /// Everyone who waits for a lookup, or for an answer that was not fetched yet.
    fn take_all_waiters(&mut self) -> Vec<(Waiter, Vec<u8>)> {
        let mut waiting = Vec::new();
        mark_if(!self.finished.is_empty(), Mark::ReloadBeforeAnswersWereFetched);
        let finished = core::mem::take(&mut self.finished).into_iter().map(Finished::into_unanswered);
        let lookups =
            self.lookups.take_all().into_iter().map(|lookup| (lookup.waiters.into_vec(), lookup.question));
        for (waiters, question) in finished.chain(lookups) {
            for waiter in waiters {
                let bytes = query_of(&waiter, waiter.spelling.as_deref().unwrap_or(&question));
                waiting.push((waiter, bytes));
            }
        }
        self.lookups = Lookups::new();
        if planted(Fault::ReloadForgetsClients) {
            waiting.clear();
        }
        waiting
    }

    fn close_all_paths(&mut self) {
        let open: Vec<Path> = self
            .paths
            .iter_mut()
            .map(|(ticket, _)| Path { slot: ticket.slot, generation: ticket.generation })
            .collect();
        for path in open {
            self.close_path(path);
        }
        self.sends.clear();
    }

    fn ask_again(&mut self, now: Instant, waiting: Vec<(Waiter, Vec<u8>)>) {
        let mut out = alloc::vec![0; MESSAGE_LEN_MAX];
        for (waiter, message) in waiting {
            // The socket it came in on is gone; nobody could hear the answer.
            if usize::from(waiter.client.listener.0) >= self.routes.len() {
                mark(Mark::ReloadTookListener);
                continue;
            }
            self.asked_before = Some(AskedBefore { at: waiter.asked, query_len: waiter.query_len });
            let query = ClientQuery { client: waiter.client, message: &message };
            if let Outcome::Answer { len } = self.answer_or_forward(now, &query, &mut out) {
                mark(Mark::ReloadAnsweredAtOnce);
                self.replies.push_back((waiter.client, out[..len].into()));
            }
        }
        self.asked_before = None;
    }
}

/// The client's query as it must have been, as far as it matters.
fn query_of(waiter: &Waiter, question: &[u8]) -> Vec<u8> {
    let kept = Flags::RD | Flags::AD | Flags::CD;
    let additionals = u16::from(waiter.do_bit.is_some());
    let mut bytes = alloc::vec![0; HEADER_LEN + question.len() + crate::wire::OPT_LEN];
    Header { id: waiter.id, flags: Flags(waiter.flags.0 & kept), counts: [1, 0, 0, additionals] }
        .write(&mut bytes);
    let mut end = HEADER_LEN + question.len();
    bytes[HEADER_LEN..end].copy_from_slice(question);
    if let Some(do_bit) = waiter.do_bit {
        let edns = Edns { udp_size: waiter.udp_size, rcode_high: 0, version: 0, do_bit };
        end = put_opt(&mut bytes, end, edns, None);
    }
    bytes.truncate(end);
    bytes
}
