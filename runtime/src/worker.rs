//! Starting, watching, reconfiguring and stopping a worker.
//!
//! A worker is one thread with its own sockets and Forwarder. The agent gives it a [`WorkerSpec`] and keeps a
//! [`WorkerHandle`]. Nothing that happens inside can get lost: an I/O error at start is returned by
//! [`Runtime::start`], and a panic comes out of [`WorkerHandle::join`].

use crate::clients::ClientLimits;
use crate::clock::Clock;
use crate::listen::BoundListener;
use crate::orders::{InForce, Order, Orders};
use crate::sync::Mutex;
use crate::turn::Engine;
use crate::vitals::Vitals;
use arc_swap::ArcSwap;
use nodens_core::cache::Cache;
use nodens_core::{Config, Duration, Event, Instant, ListenerId, Seed, Stats};
use std::any::Any;
use std::future::poll_fn;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::{fmt, io};

/// Events a worker may be ahead of whoever formats them. At most 0.4 MiB each worker; more are dropped and counted, because a
/// slow log must not slow down answers.
pub const EVENTS_MAX: usize = 1024;

/// A way to drive Forwarders.
pub trait Runtime {
    /// What it is called in logs, flags and metrics.
    const NAME: &'static str;

    /// Starts one worker and returns once it serves.
    fn start<C: Cache + Send + Sync + 'static>(spec: WorkerSpec<C>) -> io::Result<WorkerHandle>;
}

/// Everything a worker needs.
#[derive(Debug)]
pub struct WorkerSpec<C> {
    /// Its number, from 0.
    pub id: usize,
    /// The configuration; read at start.
    pub config: Arc<ArcSwap<Config>>,
    /// The cache, shared with all workers.
    pub cache: Arc<C>,
    /// Its randomness. No two workers may have the same.
    pub seed: Seed,
    /// Its sockets, one per listener of the configuration.
    pub listeners: Vec<BoundListener>,
    /// Its share of what TCP clients may take.
    pub clients: ClientLimits,
    /// The clock; the same for all workers, since they share the cache.
    pub clock: Clock,
}

/// What a runtime's worker thread starts from.
#[derive(Debug)]
pub struct WorkerSetup<C> {
    /// The Forwarder and its surroundings.
    pub engine: Engine<C>,
    /// The sockets to serve.
    pub listeners: Vec<BoundListener>,
    /// Tells when to stop.
    pub stop: Arc<StopSignal>,
    /// New configurations, one after the other.
    pub orders: Arc<Orders>,
    /// To be called once the sockets are being served.
    pub started: Started,
}

/// The worker's word that it serves.
#[derive(Debug)]
pub struct Started(SyncSender<io::Result<()>>);

impl Started {
    /// Lets [`Runtime::start`] return.
    pub fn report(self) {
        // If nobody waits any more, nobody needs to know.
        let _ = self.0.send(Ok(()));
    }
}

/// Starts the thread of a worker. `body` is the runtime's own part: it serves until it is told to stop.
pub fn launch<C, F>(spec: WorkerSpec<C>, body: F) -> io::Result<WorkerHandle>
where
    C: Cache + Send + Sync + 'static,
    F: FnOnce(WorkerSetup<C>) -> io::Result<()> + Send + 'static,
{
    let WorkerSpec { id, config, cache, seed, listeners, clients, clock } = spec;
    let vitals = Arc::new(Vitals::default());
    let stop = Arc::new(StopSignal::default());
    let orders = Arc::new(Orders::default());
    let (events_in, events) = sync_channel(EVENTS_MAX);
    let engine = Engine::new(config.load_full(), cache, seed, clients, clock, events_in, Arc::clone(&vitals));
    let stats = Arc::clone(engine.stats());
    let (report, outcome) = sync_channel(1);
    let setup = WorkerSetup {
        engine,
        listeners,
        stop: Arc::clone(&stop),
        orders: Arc::clone(&orders),
        started: Started(report),
    };
    let mailbox = CloseAtEnd(Arc::clone(&orders));
    let thread = thread::Builder::new().name(format!("nodens-worker-{id}")).spawn(move || {
        let _mailbox = mailbox;
        body(setup)
    })?;
    let handle = WorkerHandle { id, stats, vitals, clock, events: Some(events), stop, orders, thread };
    match outcome.recv() {
        Ok(Ok(())) => Ok(handle),
        Ok(Err(error)) => Err(error),
        // The thread ended before it served anything; its result says why.
        Err(_) => Err(match handle.join() {
            Ok(()) => io::Error::other("the worker ended before it served"),
            Err(WorkerFailure::Io { error, .. }) => error,
            Err(panic) => io::Error::other(panic.to_string()),
        }),
    }
}

/// However a worker ends, by a panic too, nobody shall wait for it to carry out an order.
struct CloseAtEnd(Arc<Orders>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A running worker, as the control thread sees it.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Its number.
    pub id: usize,
    /// The counters of its Forwarder; after a new configuration these are the ones that [`InForce`] brought.
    pub stats: Arc<Stats>,
    /// Its signs of life and socket counters.
    pub vitals: Arc<Vitals>,
    clock: Clock,
    events: Option<Receiver<Event>>,
    stop: Arc<StopSignal>,
    orders: Arc<Orders>,
    thread: JoinHandle<io::Result<()>>,
}

impl WorkerHandle {
    /// The worker's events, once: whoever takes them formats them. Untaken, they are dropped and counted.
    pub fn take_events(&mut self) -> Option<Receiver<Event>> {
        self.events.take()
    }

    /// How long ago its last turn began. A healthy worker stays below a few [`TICK`](crate::turn::TICK)s.
    pub fn silent_for(&self) -> Duration {
        self.vitals.silent_for(self.clock.now())
    }

    /// Whether its thread has ended: after a stop as wished, at any other time by a failure that `join` explains.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Gives it a new configuration, the sockets to serve in addition, and the listeners to serve no longer. Clients do not
    /// notice: what is in flight is asked again under the new configuration, the other sockets are not touched.
    pub fn reconfigure(
        &self,
        config: Arc<Config>,
        added: Vec<BoundListener>,
        gone: Vec<ListenerId>,
    ) -> InForce {
        let (order, in_force) = Order::new(config, added, gone);
        self.orders.put(order);
        in_force
    }

    /// Asks it to end, while others go on serving its addresses: no new queries from now on, lookups in flight are finished, but no
    /// later than after `grace`.
    pub fn stop(&self, grace: Duration) {
        self.stop.request(Stop { deadline: self.clock.now() + grace, is_last: false });
    }

    /// Asks it to end, while nobody else serves its addresses: at a moment when nothing is in flight, if there is one soon (see
    /// [`departure`](crate::departure)), and no later than after `grace`.
    pub fn stop_last(&self, grace: Duration) {
        self.stop.request(Stop { deadline: self.clock.now() + grace, is_last: true });
    }

    /// Waits until it has ended, and says how.
    pub fn join(self) -> Result<(), WorkerFailure> {
        match self.thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(WorkerFailure::Io { id: self.id, error }),
            Err(payload) => Err(WorkerFailure::Panic { id: self.id, message: panic_message(&*payload) }),
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// How a worker ended against our will.
#[derive(Debug)]
pub enum WorkerFailure {
    /// The kernel refused something it needs.
    Io {
        /// Which worker.
        id: usize,
        /// What was refused.
        error: io::Error,
    },
    /// A fault of ours.
    Panic {
        /// Which worker.
        id: usize,
        /// The panic's message.
        message: String,
    },
}

impl fmt::Display for WorkerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerFailure::Io { id, error } => write!(f, "worker {id} cannot go on: {error}"),
            WorkerFailure::Panic { id, message } => {
                write!(f, "worker {id} panicked, which is a defect of nodens, please report it: {message}")
            }
        }
    }
}

impl std::error::Error for WorkerFailure {}

/// The wish that a worker ends.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Stop {
    /// By when it must have ended.
    pub deadline: Instant,
    /// Nobody else serves its addresses.
    pub is_last: bool,
}

/// The wish to stop, from any thread to a worker that may be asleep.
#[derive(Debug, Default)]
pub struct StopSignal(Mutex<StopState>);

#[derive(Debug, Default)]
struct StopState {
    wish: Option<Stop>,
    sleeper: Option<Waker>,
}

impl StopSignal {
    /// Asks the worker to end. A second wish can only shorten the time.
    pub fn request(&self, stop: Stop) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = state.wish.map_or(stop.deadline, |earlier| earlier.deadline.min(stop.deadline));
        state.wish = Some(Stop { deadline, ..stop });
        if let Some(sleeper) = state.sleeper.take() {
            sleeper.wake();
        }
    }

    /// The wish, if there is one.
    pub fn wish(&self) -> Option<Stop> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wish
    }

    /// Waits for the wish; one waiter at a time.
    pub async fn requested(&self) -> Stop {
        poll_fn(|context| self.poll_requested(context)).await
    }

    fn poll_requested(&self, context: &mut Context<'_>) -> Poll<Stop> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.wish {
            Some(stop) => Poll::Ready(stop),
            None => {
                state.sleeper = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
