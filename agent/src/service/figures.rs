//! The numbers of a service and what they mean, for `/metrics` and the demo.
//!
//! A reload exchanges configuration, names and counters at once, so that no page ever pairs the numbers of one configuration with the
//! names of another.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use nodens_cache::SharedCache;
use nodens_core::{Config, Stats};
use nodens_runtime::{Clock, Vitals};

use crate::admin::metrics::{Build, CacheUsage, Control, Labels, Process, Snapshot, Worker, ZoneUsage};
use crate::admin::probe::HealthProbe;

/// What a reload exchanges.
pub(super) struct Current {
    /// What the workers run.
    pub(super) config: Arc<Config>,
    pub(super) labels: Labels,
    pub(super) workers: Vec<Counts>,
    pub(super) probes_health: bool,
}

/// The counters of one worker.
#[derive(Clone)]
pub(super) struct Counts {
    pub(super) stats: Arc<Stats>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) runtime: &'static str,
    /// Another worker has taken its place; what it counted still counts.
    pub(super) ended: bool,
}

/// The numbers of a service; may be read from any thread at any time.
pub struct Figures {
    /// What the control thread counts.
    pub control: Control,
    /// The probes of `/health`.
    pub health: Arc<HealthProbe>,
    /// What setting up the node counts, once it is set up.
    pub node: OnceLock<Arc<nodens_node::Figures>>,
    pub(super) current: ArcSwap<Current>,
    pub(super) cache: Arc<SharedCache>,
    pub(super) clock: Clock,
    pub(super) started: SystemTime,
}

impl Figures {
    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        let now = self.clock.now();
        let current = self.current.load();
        let workers: Vec<_> = current
            .workers
            .iter()
            .map(|counts| Worker {
                stats: Arc::clone(&counts.stats),
                vitals: Arc::clone(&counts.vitals),
                heartbeat_age: (!counts.ended).then(|| counts.vitals.silent_for(now)),
                runtime: counts.runtime,
            })
            .collect();
        crate::admin::render(&Snapshot {
            config: &current.config,
            labels: &current.labels,
            workers: &workers,
            cache: &self.cache_usage(),
            control: &self.control,
            health: current.probes_health.then_some(&*self.health),
            node: self.node.get().map(|node| &**node),
            build: Build {
                version: env!("CARGO_PKG_VERSION"),
                revision: option_env!("NODENS_REVISION").unwrap_or(""),
                rustc: concat!("rustc ", env!("CARGO_PKG_RUST_VERSION")),
            },
            process: Process::read(self.started),
        })
    }

    /// The counters of all workers.
    pub fn stats(&self) -> Vec<Arc<Stats>> {
        self.current.load().workers.iter().map(|counts| Arc::clone(&counts.stats)).collect()
    }

    fn cache_usage(&self) -> CacheUsage {
        let table = self.cache.usage().table;
        let mut zones: Vec<ZoneUsage> = Vec::new();
        for class in &table.classes {
            let at = zones.iter().position(|usage| usage.zone == class.zone).unwrap_or_else(|| {
                zones.push(ZoneUsage { zone: class.zone, entries: [0; 2], evictions: [0; 2] });
                zones.len() - 1
            });
            zones[at].entries[class.class as usize] += class.entries;
            zones[at].evictions[class.class as usize] += class.evictions;
        }
        CacheUsage { bytes: table.bytes as u64, bytes_max: table.bytes_max as u64, zones }
    }
}
