//! What the tasks of one worker share. All of it stays on the worker's thread; a `RefCell` is borrowed for the length of a turn
//! and never across an await.

use crate::sockets::{Sockets, WorkerIo};
use nodens_core::Instant;
use nodens_core::cache::Cache;
use nodens_core::wire::MESSAGE_LEN_MAX;
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

type Panic = Box<dyn Any + Send>;

pub(crate) struct Worker<C> {
    engine: RefCell<Engine<C>>,
    pub(crate) sockets: RefCell<Sockets>,
    /// Where streams and upstream datagrams are received; what a task reads, it hands in before it yields.
    pub(crate) buffer: RefCell<Box<[u8]>>,
    pub(crate) clock: Clock,
    pub(crate) vitals: Arc<Vitals>,
    /// What the timer waits for, and the means to tell it of something earlier.
    armed: Cell<Instant>,
    earlier: Notify,
    panic: Cell<Option<Panic>>,
    panic_seen: Notify,
}

impl<C: Cache + 'static> Worker<C> {
    pub(crate) fn new(engine: Engine<C>) -> Rc<Self> {
        Rc::new(Worker {
            clock: engine.clock(),
            vitals: Arc::clone(engine.vitals()),
            armed: Cell::new(engine.wake_at()),
            engine: RefCell::new(engine),
            sockets: RefCell::default(),
            buffer: RefCell::new(vec![0; MESSAGE_LEN_MAX].into()),
            earlier: Notify::new(),
            panic: Cell::new(None),
            panic_seen: Notify::new(),
        })
    }

    /// One turn of the worker, with what `arrived` hands in.
    pub(crate) fn turn<R>(self: &Rc<Self>, arrived: impl FnOnce(&mut Turn<'_, C>) -> R) -> R {
        let mut engine = self.engine.borrow_mut();
        let result = engine.turn(&mut WorkerIo { worker: self }, arrived);
        if engine.wake_at() < self.armed.get() {
            self.armed.set(engine.wake_at());
            self.earlier.notify_one();
        }
        result
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
                    worker.panic.set(Some(panic));
                    worker.panic_seen.notify_one();
                    Poll::Ready(())
                })
            })
            .await;
        });
        task.abort_handle()
    }

    /// Waits until a task has panicked.
    pub(crate) async fn panicked(&self) -> Panic {
        loop {
            if let Some(panic) = self.panic.take() {
                return panic;
            }
            self.panic_seen.notified().await;
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
