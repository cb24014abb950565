//! What the tasks of one worker share. All of it stays on the worker's thread; a `RefCell` is borrowed for the length of a turn
//! and never across an await.

use crate::datagrams::Datagrams;
use crate::ring::RingError;
use crate::sockets::{Sockets, WorkerIo};
use nodens_core::cache::Cache;
use nodens_core::{Instant, Path};
use nodens_runtime::{Clock, Engine, Turn, Vitals};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use tokio::select;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};

/// Why a worker cannot go on.
pub(crate) enum Failure {
    /// The ring failed.
    Ring(RingError),
    /// A task panicked.
    Panic(Box<dyn Any + Send>),
}

pub(crate) struct Worker<C> {
    engine: RefCell<Engine<C>>,
    pub(crate) datagrams: RefCell<Datagrams>,
    /// Wakes the task of the datagram ring, when another task's turn has collected arrivals.
    pub(crate) arrived: Notify,
    pub(crate) sockets: RefCell<Sockets>,
    /// Paths whose sockets are to receive (again), with the next submit.
    pub(crate) unarmed: RefCell<Vec<Path>>,
    pub(crate) clock: Clock,
    pub(crate) vitals: Arc<Vitals>,
    /// What the timer waits for, and the means to tell it of something earlier.
    armed: Cell<Instant>,
    earlier: Notify,
    failure: Cell<Option<Failure>>,
    failed: Notify,
}

impl<C: Cache + 'static> Worker<C> {
    pub(crate) fn new(engine: Engine<C>, datagrams: Datagrams) -> Rc<Self> {
        Rc::new(Worker {
            clock: engine.clock(),
            vitals: Arc::clone(engine.vitals()),
            armed: Cell::new(engine.wake_at()),
            engine: RefCell::new(engine),
            datagrams: RefCell::new(datagrams),
            arrived: Notify::new(),
            sockets: RefCell::default(),
            unarmed: RefCell::default(),
            earlier: Notify::new(),
            failure: Cell::new(None),
            failed: Notify::new(),
        })
    }

    /// One turn of the worker, with what `arrived` hands in. What it sends leaves at its end, all at once.
    pub(crate) fn turn<R>(self: &Rc<Self>, arrived: impl FnOnce(&mut Turn<'_, C>) -> R) -> R {
        let mut engine = self.engine.borrow_mut();
        let result = engine.turn(&mut WorkerIo { worker: self }, arrived);
        if engine.wake_at() < self.armed.get() {
            self.armed.set(engine.wake_at());
            self.earlier.notify_one();
        }
        drop(engine);
        self.submit();
        result
    }

    /// Submits what waits for the datagram ring.
    pub(crate) fn submit(&self) {
        let mut datagrams = self.datagrams.borrow_mut();
        self.sockets.borrow_mut().arm(&mut self.unarmed.borrow_mut(), &mut datagrams);
        if let Err(error) = datagrams.submit() {
            self.fail(Failure::Ring(error));
        }
        let lost = datagrams.take_send_failures();
        if lost > 0 {
            self.vitals.udp_send_failures.add(lost);
        }
        if datagrams.has_arrived() {
            self.arrived.notify_one();
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.engine.borrow().is_quiet()
    }

    /// Starts no lookup any more.
    pub(crate) fn wind_down(&self) {
        self.engine.borrow_mut().wind_down();
    }

    /// Starts a task of this worker. If it panics, the worker ends with that panic: tokio alone would keep it to itself.
    pub(crate) fn spawn(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) -> AbortHandle {
        let worker = Rc::clone(self);
        let task = spawn_local(async move {
            let mut future = pin!(future);
            poll_fn(|context| {
                catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))).unwrap_or_else(|panic| {
                    worker.fail(Failure::Panic(panic));
                    Poll::Ready(())
                })
            })
            .await;
        });
        task.abort_handle()
    }

    /// Ends the worker.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.set(Some(failure));
        self.failed.notify_one();
    }

    /// Waits until the worker cannot go on.
    pub(crate) async fn failed(&self) -> Failure {
        loop {
            if let Some(failure) = self.failure.take() {
                return failure;
            }
            self.failed.notified().await;
        }
    }
}

/// Takes the turns that are due when nothing arrives.
pub(crate) async fn keep_time<C: Cache + 'static>(worker: Rc<Worker<C>>) {
    /// Later than anything a turn can ask for.
    const NEVER: Instant = Instant::from_nanos(u64::MAX);
    loop {
        let wait = worker.armed.get() - worker.clock.now();
        if wait.is_zero() {
            worker.armed.set(NEVER);
            worker.turn(|_| ());
            // A turn with more to do at once lets the others go first.
            tokio::task::yield_now().await;
            continue;
        }
        select! {
            () = tokio::time::sleep(wait) => {}
            () = worker.earlier.notified() => {}
        }
    }
}
