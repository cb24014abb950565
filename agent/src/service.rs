//! The DNS service: sockets, workers and the cache they share, started and stopped as one.
//!
//! A reload gives the workers another configuration; sockets that stay, the cache and the counters are not touched.
//!
//! What is slow (files, HTTP, signals, log lines) is the control thread's, in `run`. Both `run` and `demo` start the same
//! service.

mod figures;
mod places;

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use nodens_cache::SharedCache;
use nodens_core::rng::Rng;
use nodens_core::{Config, Event, Seed};
use nodens_runtime::descriptors::{nofile_wanted, paths_per_worker, raise_nofile};
use nodens_runtime::worker::EVENTS_MAX;
use nodens_runtime::{
    BindError, ClientLimits, Clock, InForce, Listeners, Vitals, WorkerFailure, WorkerHandle, WorkerSpec,
};

use crate::admin::metrics::Control;
use crate::build_config::{Built, Plan};
use crate::privilege::Bare;
use crate::runtimes::{self, Starter};
use crate::sockets::{self, Transport};
use figures::{Counts, Current};
use places::Places;

pub use figures::Figures;

/// How long queries in flight may take after the sockets were told to stop; CoreDNS waits as long.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long workers may take for a new configuration. They take it between two turns; one that takes longer hangs.
const ORDER_PATIENCE: Duration = Duration::from_secs(5);
/// How long the last worker waits for the others to leave. They do so within 10 ms; one with a lookup that takes longer does not
/// serve any more either.
const OTHERS_PATIENCE: Duration = Duration::from_millis(100);
/// How often they are looked after meanwhile.
const ORDER_CHECK: Duration = Duration::from_millis(1);

/// A running service.
pub struct Service {
    /// Where it really listened at its start: ports differ from the plan's if those were 0.
    pub addresses: Vec<SocketAddr>,
    /// What drives it.
    pub runtime: &'static str,
    /// Everything that `/metrics` is made of.
    pub figures: Arc<Figures>,
    /// What new workers would run.
    config: Arc<ArcSwap<Config>>,
    places: Places,
    /// The limit of open files.
    nofile: u64,
    /// What starts workers.
    bare: Bare,
    cache: Arc<SharedCache>,
    workers: Vec<WorkerHandle>,
    /// What drives each of them.
    runtimes: Vec<&'static str>,
    /// Orders that are not answered yet, with the number of their worker.
    open_orders: Vec<(usize, InForce)>,
    order_patience: Duration,
    /// When they were told to stop, if one of them is to be the last and was not told yet.
    last_since: Option<Instant>,
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
    /// Binds every socket.
    pub fn bind(plan: &Plan) -> Result<Listeners, StartError> {
        Listeners::bind(&plan.listeners, plan.workers).map_err(StartError::Bind)
    }

    /// Starts every worker. Once it returns, queries are answered.
    pub fn start(
        built: Built,
        listeners: Listeners,
        starter: &Starter,
        bare: Bare,
    ) -> Result<Service, StartError> {
        let Built { mut config, plan, .. } = built;
        let nofile =
            raise_nofile().map_err(|error| StartError::System("cannot read RLIMIT_NOFILE", error))?;
        limit_paths(&mut config, &plan, nofile)?;
        let addresses = listeners.addresses().to_vec();
        let mut chance =
            Rng::new(&entropy().map_err(|error| StartError::System("cannot read /dev/urandom", error))?);
        let cache_bytes = usize::try_from(plan.cache_bytes).unwrap_or(usize::MAX);
        let cache = Arc::new(SharedCache::new(cache_bytes, &chance.child()));
        let config = Arc::new(ArcSwap::from_pointee(config));
        let mut workers = start_workers((starter, bare), &config, &cache, listeners, &mut chance)?;
        let runtimes = vec![starter.name; workers.len()];
        let events = workers.iter_mut().filter_map(WorkerHandle::take_events).collect();
        let figures = Arc::new(Figures {
            control: Control::default(),
            health: Arc::default(),
            node: OnceLock::new(),
            current: ArcSwap::from_pointee(Current {
                config: config.load_full(),
                probes_health: probes_health(&plan),
                labels: plan.labels,
                workers: counters(&workers, &runtimes),
            }),
            cache: Arc::clone(&cache),
            clock: Clock::system(),
            started: SystemTime::now(),
        });
        let places = Places::new(&plan.listeners);
        let runtime = starter.name;
        Ok(Service {
            addresses,
            runtime,
            figures,
            config,
            places,
            nofile,
            bare,
            cache,
            workers,
            runtimes,
            open_orders: Vec::new(),
            order_patience: ORDER_PATIENCE,
            last_since: None,
            events,
        })
    }

    /// Gives all workers another configuration, which must have been built for as many workers as there are. Once it returns
    /// nothing is answered by the old one, but for what the returned lines say. After an error the old one is in force as
    /// before.
    pub async fn reconfigure(&mut self, built: Built) -> Result<Vec<String>, StartError> {
        let Built { mut config, mut plan, .. } = built;
        limit_paths(&mut config, &plan, self.nofile)?;
        let change = {
            let current = self.figures.current.load();
            let running = (&*current.config, &current.labels);
            self.places.arrange(&plan.listeners, &mut config, &mut plan.labels, running)
        };
        if let Err(error) = config.check() {
            return Err(StartError::System("this cannot be served", io::Error::other(error.to_string())));
        }
        let added = Listeners::bind_at(&change.added, self.workers.len()).map_err(StartError::Bind)?;
        let config = Arc::new(config);
        // An earlier order that is still open is overtaken: a worker carries them out one after the other.
        self.open_orders.clear();
        for (worker, added) in self.workers.iter().zip(added.into_workers()) {
            let in_force = worker.reconfigure(Arc::clone(&config), added, change.gone.clone());
            self.open_orders.push((worker.id, in_force));
        }
        let mut refusals = self.await_answers().await;
        if refusals.len() == self.workers.len() {
            let first = refusals.swap_remove(0).1;
            return Err(StartError::System("the workers refused", first));
        }
        self.places = change.places;
        self.config.store(Arc::clone(&config));
        self.figures.current.store(Arc::new(Current {
            config,
            probes_health: probes_health(&plan),
            labels: plan.labels,
            workers: counters(&self.workers, &self.runtimes),
        }));
        let late = self.open_orders.iter().map(|(worker, _)| {
            format!(
                "worker {worker} has not taken the new configuration within {:?}; it answers by the old one until it runs \
                 again",
                self.order_patience
            )
        });
        Ok(refusals.iter().map(refused).chain(late).collect())
    }

    /// Waits until every order is answered, but not for ever. Returns who refused, and why.
    async fn await_answers(&mut self) -> Vec<(usize, io::Error)> {
        let begun = std::time::Instant::now();
        let mut refusals = self.take_answers();
        while !self.open_orders.is_empty() && begun.elapsed() < self.order_patience {
            tokio::time::sleep(ORDER_CHECK).await;
            refusals.extend(self.take_answers());
        }
        refusals
    }

    /// Takes the answers that have come, and with them the workers' new counters.
    fn take_answers(&mut self) -> Vec<(usize, io::Error)> {
        let mut refusals = Vec::new();
        let workers = &mut self.workers;
        self.open_orders.retain(|(id, in_force)| match in_force.poll() {
            None => true,
            Some(Ok(stats)) => {
                if let Some(worker) = workers.iter_mut().find(|worker| worker.id == *id) {
                    worker.stats = stats;
                }
                false
            }
            Some(Err(error)) => {
                // One that has ended is replaced, and its successor starts with the newest configuration.
                if error.kind() != io::ErrorKind::BrokenPipe {
                    refusals.push((*id, error));
                }
                false
            }
        });
        refusals
    }

    /// Looks after workers that were late with a new configuration; returns what there is to say.
    pub fn tend_orders(&mut self) -> Vec<String> {
        let open = self.open_orders.len();
        let refusals = self.take_answers();
        if self.open_orders.len() < open {
            let current = self.figures.current.load_full();
            let mut workers = counters(&self.workers, &self.runtimes);
            workers.extend(current.workers.iter().filter(|counts| counts.ended).cloned());
            self.publish(&current, workers);
        }
        refusals.iter().map(refused).collect()
    }

    /// Shows the counters of `workers` from now on.
    fn publish(&self, current: &Current, workers: Vec<Counts>) {
        self.figures.current.store(Arc::new(Current {
            config: Arc::clone(&current.config),
            labels: current.labels.clone(),
            probes_health: current.probes_health,
            workers,
        }));
    }

    /// What the workers show of themselves.
    pub fn vitals(&self) -> Vec<Arc<Vitals>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.vitals)).collect()
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// Takes what the workers have to say, without waiting: of each at most what its channel holds, for a busy worker may fill it
    /// as fast as we empty it, and the control thread has more to do.
    pub fn drain_events(&mut self, mut take: impl FnMut(&Event)) {
        for events in &self.events {
            events.try_iter().take(EVENTS_MAX).for_each(|event| take(&event));
        }
    }

    /// Looks for a worker that ended although nobody asked it to. One whose ring failed is replaced by another on the other runtime:
    /// the sockets are bound anew, its peers never stopped serving, and the text says so. Anything else is the end.
    pub fn tend_workers(&mut self) -> Option<Result<String, WorkerFailure>> {
        let index = self.workers.iter().position(WorkerHandle::is_finished)?;
        let dead = self.workers.remove(index);
        let runtime = self.runtimes.remove(index);
        drop(self.events.remove(index));
        let (id, stats, vitals) = (dead.id, Arc::clone(&dead.stats), Arc::clone(&dead.vitals));
        let gone = || WorkerFailure::Io { id, error: io::Error::other("its thread ended") };
        let failure = dead.join().err().unwrap_or_else(gone);
        let Some(starter) = runtimes::instead_after(&failure) else { return Some(Err(failure)) };
        let mut worker = match self.start_another(id, &starter) {
            Ok(worker) => worker,
            Err(error) => {
                return Some(Err(WorkerFailure::Io { id, error: io::Error::other(error.to_string()) }));
            }
        };
        self.events.extend(worker.take_events());
        self.workers.push(worker);
        self.runtimes.push(starter.name);
        let current = self.figures.current.load_full();
        let mut workers = counters(&self.workers, &self.runtimes);
        let ended = Counts { stats, vitals, runtime, ended: true };
        workers.extend(current.workers.iter().filter(|counts| counts.ended).cloned().chain([ended]));
        self.publish(&current, workers);
        Some(Ok(format!("{failure}; worker {id} goes on with runtime {}", starter.name)))
    }

    fn start_another(&self, id: usize, starter: &Starter) -> Result<WorkerHandle, StartError> {
        let listeners =
            Listeners::bind_at(&self.places.open(&self.addresses), 1).map_err(StartError::Bind)?;
        let spec = WorkerSpec {
            id,
            config: Arc::clone(&self.config),
            cache: Arc::clone(&self.cache),
            seed: entropy().map_err(|error| StartError::System("cannot read /dev/urandom", error))?,
            listeners: listeners.into_workers().into_iter().flatten().collect(),
            clients: ClientLimits::per_worker(self.workers.len() + 1),
            clock: Clock::system(),
        };
        start_worker(starter, self.bare, spec)
    }

    /// Where it listens now.
    pub fn open_addresses(&self) -> Vec<SocketAddr> {
        self.places.open(&self.addresses).into_iter().map(|(_, address)| address).collect()
    }

    /// Asks all workers to finish what they have begun. If nobody else serves these addresses one worker is the last and serves until
    /// the others have gone; [`tend_stop`](Self::tend_stop) looks after that.
    pub fn stop(&mut self) {
        let shared = sockets::shared(Transport::Udp, &self.open_addresses(), self.workers.len());
        let is_alone = shared.is_empty();
        self.last_since = is_alone.then(Instant::now);
        self.workers.iter().skip(usize::from(is_alone)).for_each(|worker| worker.stop(GRACE));
    }

    /// Tells the last worker that it is the last, once it is. Returns whether all have ended.
    pub fn tend_stop(&mut self) -> bool {
        if let (Some(since), [last, others @ ..]) = (self.last_since, &*self.workers)
            && (others.iter().all(WorkerHandle::is_finished) || since.elapsed() >= OTHERS_PATIENCE)
        {
            last.stop_last(GRACE.saturating_sub(since.elapsed()));
            self.last_since = None;
        }
        self.workers.iter().all(WorkerHandle::is_finished)
    }

    /// The addresses of the upstreams, by their index in the configuration.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.figures.current.load().config.upstreams.iter().map(|upstream| upstream.address).collect()
    }
}

/// What descriptors leave for upstreams.
fn limit_paths(config: &mut Config, plan: &Plan, nofile: u64) -> Result<(), StartError> {
    let paths_max = paths_per_worker(nofile, plan.workers, plan.listeners.len());
    config.limits.paths_max = config.limits.paths_max.min(paths_max);
    if config.limits.paths_max == 0 {
        let wanted = nofile_wanted(plan.workers, plan.listeners.len());
        return Err(StartError::Descriptors { limit: nofile, wanted });
    }
    Ok(())
}

fn counters(workers: &[WorkerHandle], runtimes: &[&'static str]) -> Vec<Counts> {
    let counts = |(worker, runtime): (&WorkerHandle, &&'static str)| Counts {
        stats: Arc::clone(&worker.stats),
        vitals: Arc::clone(&worker.vitals),
        runtime,
        ended: false,
    };
    workers.iter().zip(runtimes).map(counts).collect()
}

/// A worker that goes on as before, although others have changed.
fn refused((worker, error): &(usize, io::Error)) -> String {
    format!(
        "worker {worker} cannot serve the new configuration and goes on with the old one: {error}; restart the agent if \
         another reload does not help"
    )
}

fn probes_health(plan: &Plan) -> bool {
    plan.endpoints.iter().any(|endpoint| endpoint.health)
}

fn start_workers(
    (starter, bare): (&Starter, Bare),
    config: &Arc<ArcSwap<Config>>,
    cache: &Arc<SharedCache>,
    listeners: Listeners,
    chance: &mut Rng,
) -> Result<Vec<WorkerHandle>, StartError> {
    let per_worker = listeners.into_workers();
    let clients = ClientLimits::per_worker(per_worker.len());
    let clock = Clock::system();
    let mut workers = Vec::with_capacity(per_worker.len());
    for (id, listeners) in per_worker.into_iter().enumerate() {
        let spec = WorkerSpec {
            id,
            config: Arc::clone(config),
            cache: Arc::clone(cache),
            seed: chance.child(),
            listeners,
            clients,
            clock,
        };
        workers.push(start_worker(starter, bare, spec)?);
    }
    Ok(workers)
}

/// A worker has the privileges of the thread that starts it, and it needs none.
fn start_worker(
    starter: &Starter,
    bare: Bare,
    spec: WorkerSpec<SharedCache>,
) -> Result<WorkerHandle, StartError> {
    let started = bare.run(|| (starter.start)(spec)).flatten();
    started.map_err(|error| StartError::System("cannot start a worker", error))
}

/// 32 bytes that nobody can guess.
pub(crate) fn entropy() -> io::Result<Seed> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(Seed(seed))
}

#[cfg(test)]
mod tests;
