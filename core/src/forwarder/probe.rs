//! Probes: small queries to an upstream that is not well, until it answers again.
//!
//! Nothing is sent to an upstream that is well. Any valid reply to a probe, whatever its RCODE, shows that it lives (CoreDNS
//! `health_check`).

use super::Forwarder;
use super::lookup::LOOKUP_TIME_ALL_DOWN;
use super::paths::{OpenPath, Purpose};
use super::timers::Timers;
use crate::api::{Event, FailureCause, Path};
use crate::cache::Cache;
use crate::config::{UpstreamConfig, UpstreamId};
use crate::sim_support::{Fault, Mark, mark, planted};
use crate::time::Instant;
use crate::upstream::Wellness;
use crate::wire::Name;
use alloc::vec::Vec;

/// Type NS, class IN: what CoreDNS asks.
const NS_IN: [u8; 4] = [0, 2, 0, 1];

/// The probes of a worker: at most one out per upstream.
#[derive(Debug)]
pub(super) struct Probes {
    /// By upstream: when the next one is due.
    pub(super) timers: Timers,
    out: Vec<Option<Path>>,
    probing: Vec<bool>,
}

impl Probes {
    pub(super) fn new(upstreams: usize) -> Self {
        Probes {
            timers: Timers::default(),
            out: alloc::vec![None; upstreams],
            probing: alloc::vec![false; upstreams],
        }
    }
}

/// The question of a probe, in wire form.
pub(super) fn question(config: &UpstreamConfig) -> Vec<u8> {
    [Name::as_wire(&config.probe_name), &NS_IN].concat()
}

impl<C: Cache> Forwarder<C> {
    /// Sends the first probe now and one every interval, unless that is under way already.
    pub(super) fn start_probing(&mut self, now: Instant, upstream: UpstreamId) {
        let index = usize::from(upstream.0);
        if !self.probes.probing[index] {
            self.probes.probing[index] = true;
            self.send_probe(now, upstream);
        }
    }

    fn send_probe(&mut self, now: Instant, upstream: UpstreamId) {
        let index = usize::from(upstream.0);
        // Always a fresh path: a connection that is stuck must not speak for the upstream.
        let path = self.open_path(now, upstream, self.upstreams[index].config.probe_transport);
        self.probes.out[index] = path.filter(|path| self.add_query(now, *path, Purpose::Probe).is_some());
        self.stats.upstreams[index].probes.add(u64::from(self.probes.out[index].is_some()));
        self.probes.timers.set(u32::from(upstream.0), now + self.upstreams[index].config.probe_interval);
    }

    /// The interval is over: what has not answered has failed, and the next probe goes out.
    pub(super) fn probe_timed_out(&mut self, now: Instant, upstream: u32) {
        let index = upstream as usize;
        let upstream = UpstreamId(upstream as u16);
        if let Some(path) = self.probes.out[index].take() {
            self.close_path(path);
            self.stats.upstreams[index].probe_failures.add(1);
            self.upstream_failed(now, upstream);
        }
        self.send_probe(now, upstream);
    }

    /// A probe was refused; the next one comes with the timer.
    pub(super) fn probe_ended(&mut self, upstream: UpstreamId) {
        let index = usize::from(upstream.0);
        mark(Mark::ProbeRefused);
        self.probes.out[index] = None;
        self.stats.upstreams[index].probe_failures.add(1);
    }

    /// A valid reply came from an upstream, to whatever: it is well.
    pub(super) fn upstream_answered(&mut self, now: Instant, upstream: UpstreamId) {
        let index = usize::from(upstream.0);
        let before = self.upstreams[index].health.wellness();
        if before != Wellness::Down || !planted(Fault::DownForGood) {
            self.upstreams[index].health.answered();
        }
        if before == Wellness::Up {
            return;
        }
        self.probes.probing[index] = false;
        if !planted(Fault::ProbesGoOn) {
            self.probes.timers.clear(u32::from(upstream.0));
        }
        if let Some(path) = self.probes.out[index].take() {
            self.close_path(path);
        }
        if before == Wellness::Down && !planted(Fault::DownForGood) {
            mark(Mark::UpstreamBack);
            self.stats.upstreams[index].down.set(0);
            self.push_event(Event::Upstream { upstream, down: false });
            self.close_silent_connections(now, upstream);
        }
        for zone in 0..self.config.zones.len() {
            let uses =
                self.config.zones[zone].forward.as_ref().is_some_and(|f| f.upstreams.contains(&upstream));
            if uses {
                self.failures.recovered(zone);
            }
        }
    }

    /// It was down and lives: connections that were silent meanwhile lead to what died, and only keep new ones from being opened. What
    /// is out on them is asked again.
    fn close_silent_connections(&mut self, now: Instant, upstream: UpstreamId) {
        for path in self.pools[usize::from(upstream.0)].connections() {
            let silent =
                |open: &OpenPath| open.queries.first().is_none_or(|query| open.silent_since(query.sent_at));
            if self.paths.get(path.into()).is_some_and(silent) {
                mark(Mark::SilentConnectionEnded);
                self.path_lost(now, path, FailureCause::TimedOut);
            }
        }
    }

    /// An attempt or a probe failed at this upstream.
    pub(super) fn upstream_failed(&mut self, now: Instant, upstream: UpstreamId) {
        let index = usize::from(upstream.0);
        let before = self.upstreams[index].health.wellness();
        self.upstreams[index].health.failed();
        let after = self.upstreams[index].health.wellness();
        if after == Wellness::Up {
            return;
        }
        self.start_probing(now, upstream);
        if before != Wellness::Down && after == Wellness::Down {
            mark(Mark::UpstreamDown);
            self.stats.upstreams[index].down.set(1);
            self.push_event(Event::Upstream { upstream, down: true });
            self.shorten_hopeless_lookups(now);
        }
    }

    /// Brings the deadlines of lookups forward whose upstreams are now all down.
    fn shorten_hopeless_lookups(&mut self, now: Instant) {
        let upstreams = &self.upstreams;
        let mut shortened = Vec::new();
        for (ticket, lookup) in self.lookups.iter_mut() {
            let hopeless = lookup
                .order
                .iter()
                .all(|id| upstreams[usize::from(id.0)].health.wellness() == Wellness::Down);
            if hopeless {
                mark(Mark::HopelessLookupShortened);
                lookup.deadline = lookup.deadline.min((lookup.started + LOOKUP_TIME_ALL_DOWN).max(now));
                shortened.push(ticket);
            }
        }
        for ticket in shortened {
            self.lookups.arm(ticket);
        }
    }
}
