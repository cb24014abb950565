//! The DNS service: sockets, workers and the cache they share, started and stopped as one.
//!
//! What is slow (files, HTTP, signals, log lines) is the control thread's, in `run`. Both `run` and `demo` start the same
//! service.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use nodens_cache::SharedCache;
use nodens_core::rng::Rng;
use nodens_core::{Config, Event, Seed};
use nodens_runtime::descriptors::{nofile_wanted, paths_per_worker, raise_nofile};
use nodens_runtime::worker::EVENTS_MAX;
use nodens_runtime::{BindError, ClientLimits, Clock, Listeners, WorkerFailure, WorkerHandle, WorkerSpec};

use crate::admin::metrics::{Build, CacheUsage, Control, Labels, Process, Snapshot, Worker, ZoneUsage};
use crate::admin::probe::HealthProbe;
use crate::build_config::Built;
use crate::runtimes::Starter;

/// How long queries in flight may take after the sockets were told to stop; CoreDNS waits as long.
pub const GRACE: Duration = Duration::from_secs(5);

/// A running service.
pub struct Service {
    /// Where it really listens: ports differ from the plan's if those were 0.
    pub addresses: Vec<SocketAddr>,
    /// What drives it.
    pub runtime: &'static str,
    /// Everything that `/metrics` is made of.
    pub figures: Arc<Figures>,
    workers: Vec<WorkerHandle>,
    events: Vec<Receiver<Event>>,
}

/// Why the service could not be started; says what to do.
#[derive(Debug)]
pub enum StartError {
    /// A socket.
    Bind(BindError),
    /// The limit of open files.
    Descriptors {
        /// What it is.
        limit: u64,
        /// What it should be for these workers and addresses.
        wanted: u64,
    },
    /// Something that every Linux has.
    System(&'static str, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind(error) => error.fmt(f),
            StartError::Descriptors { limit, wanted } => write!(
                f,
                "the limit of {limit} open files leaves no socket for upstreams; \
                 raise it (RLIMIT_NOFILE, `ulimit -Hn`) to {wanted} or more, or ask for fewer `-workers`"
            ),
            StartError::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Service {
    /// Binds every socket, then starts every worker. Once it returns, queries are answered.
    pub fn start(built: Built, starter: &Starter) -> Result<Service, StartError> {
        let Built { mut config, plan, .. } = built;
        let nofile =
            raise_nofile().map_err(|error| StartError::System("cannot read RLIMIT_NOFILE", error))?;
        config.limits.paths_max =
            config.limits.paths_max.min(paths_per_worker(nofile, plan.workers, plan.listeners.len()));
        if config.limits.paths_max == 0 {
            let wanted = nofile_wanted(plan.workers, plan.listeners.len());
            return Err(StartError::Descriptors { limit: nofile, wanted });
        }
        let listeners = Listeners::bind(&plan.listeners, plan.workers).map_err(StartError::Bind)?;
        let addresses = listeners.addresses().to_vec();
        let mut chance =
            Rng::new(&entropy().map_err(|error| StartError::System("cannot read /dev/urandom", error))?);
        let cache_bytes = usize::try_from(plan.cache_bytes).unwrap_or(usize::MAX);
        let cache = Arc::new(SharedCache::new(cache_bytes, &chance.child()));
        let config = Arc::new(config);
        let mut workers = start_workers(starter, &config, &cache, listeners, &mut chance)?;
        let events = workers.iter_mut().filter_map(WorkerHandle::take_events).collect();
        let figures = Arc::new(Figures {
            config,
            labels: plan.labels,
            workers: workers
                .iter()
                .map(|worker| (Arc::clone(&worker.stats), Arc::clone(&worker.vitals)))
                .collect(),
            cache,
            clock: Clock::system(),
            control: Control::default(),
            health: Arc::default(),
            probes_health: plan.endpoints.iter().any(|endpoint| endpoint.health),
            runtime: starter.name,
            started: SystemTime::now(),
        });
        Ok(Service { addresses, runtime: starter.name, figures, workers, events })
    }

    /// Takes what the workers have to say, without waiting: of each at most what its channel holds, for a busy worker may fill it
    /// as fast as we empty it, and the control thread has more to do.
    pub fn drain_events(&mut self, mut take: impl FnMut(&Event)) {
        for events in &self.events {
            events.try_iter().take(EVENTS_MAX).for_each(|event| take(&event));
        }
    }

    /// A worker that ended although nobody asked it to.
    pub fn dead_worker(&mut self) -> Option<WorkerFailure> {
        let index = self.workers.iter().position(WorkerHandle::is_finished)?;
        let worker = self.workers.swap_remove(index);
        let id = worker.id;
        let gone = || WorkerFailure::Io { id, error: io::Error::other("its thread ended") };
        Some(worker.join().err().unwrap_or_else(gone))
    }

    /// Asks all workers to finish what they have begun.
    pub fn stop(&self) {
        self.workers.iter().for_each(|worker| worker.stop(GRACE));
    }

    /// Whether all workers have ended.
    pub fn is_stopped(&self) -> bool {
        self.workers.iter().all(WorkerHandle::is_finished)
    }

    /// The addresses of the upstreams, by their index in the configuration.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.figures.config.upstreams.iter().map(|upstream| upstream.address).collect()
    }
}

fn start_workers(
    starter: &Starter,
    config: &Arc<Config>,
    cache: &Arc<SharedCache>,
    listeners: Listeners,
    chance: &mut Rng,
) -> Result<Vec<WorkerHandle>, StartError> {
    let config = Arc::new(ArcSwap::new(Arc::clone(config)));
    let per_worker = listeners.into_workers();
    let clients = ClientLimits::per_worker(per_worker.len());
    let clock = Clock::system();
    let mut workers = Vec::with_capacity(per_worker.len());
    for (id, listeners) in per_worker.into_iter().enumerate() {
        let spec = WorkerSpec {
            id,
            config: Arc::clone(&config),
            cache: Arc::clone(cache),
            seed: chance.child(),
            listeners,
            clients,
            clock,
        };
        let worker =
            (starter.start)(spec).map_err(|error| StartError::System("cannot start a worker", error))?;
        workers.push(worker);
    }
    Ok(workers)
}

/// 32 bytes that nobody can guess.
fn entropy() -> io::Result<Seed> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(Seed(seed))
}

/// The numbers of a service and what they mean; may be read from any thread at any time.
pub struct Figures {
    /// What the workers run.
    pub config: Arc<Config>,
    /// What the control thread counts.
    pub control: Control,
    /// The probes of `/health`.
    pub health: Arc<HealthProbe>,
    labels: Labels,
    workers: Vec<(Arc<nodens_core::Stats>, Arc<nodens_runtime::Vitals>)>,
    cache: Arc<SharedCache>,
    clock: Clock,
    probes_health: bool,
    runtime: &'static str,
    started: SystemTime,
}

impl Figures {
    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        let now = self.clock.now();
        let workers: Vec<_> = self
            .workers
            .iter()
            .map(|(stats, vitals)| Worker {
                stats: Arc::clone(stats),
                vitals: Arc::clone(vitals),
                heartbeat_age: vitals.silent_for(now),
            })
            .collect();
        crate::admin::render(&Snapshot {
            config: &self.config,
            labels: &self.labels,
            workers: &workers,
            cache: &self.cache_usage(),
            control: &self.control,
            health: self.probes_health.then_some(&*self.health),
            build: Build {
                version: env!("CARGO_PKG_VERSION"),
                revision: option_env!("NODENS_REVISION").unwrap_or(""),
                rustc: concat!("rustc ", env!("CARGO_PKG_RUST_VERSION")),
            },
            runtime: self.runtime,
            process: Process::read(self.started),
        })
    }

    /// The counters of all workers.
    pub fn stats(&self) -> Vec<Arc<nodens_core::Stats>> {
        self.workers.iter().map(|(stats, _)| Arc::clone(stats)).collect()
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
