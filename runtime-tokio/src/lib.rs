//! nodens-runtime-tokio: drives Forwarders with epoll, through tokio.
//!
//! One thread per worker with a current-thread tokio runtime: nothing is stolen, nothing is `Send`, nothing is locked. Each
//! socket has a local task that waits for it, takes a turn of the worker (see `nodens_runtime::turn`) and sends what
//! comes out. Sockets are tried first and waited for only when they would block. This is a production runtime, not a
//! fallback: container runtimes block io_uring by default.
//!
//! | module | what it is |
//! | --- | --- |
//! | `worker` | what the tasks of a worker share: the engine, the timer, panics |
//! | `listeners` | serving an address, and ceasing to: at start and with a new configuration |
//! | `udp` | clients' datagrams: the hot path |
//! | `stream` | clients' connections |
//! | `upstream` | paths to upstreams |
//! | `sockets` | all of them as the engine's `Io` |
#![forbid(unsafe_code)]

mod listeners;
mod sockets;
mod stream;
mod udp;
mod upstream;
mod worker;

use listeners::Listener;
use nodens_core::Duration;
use nodens_core::cache::Cache;
use nodens_runtime::worker::{Runtime, WorkerHandle, WorkerSetup, WorkerSpec, launch};
use std::io;
use std::rc::Rc;
use tokio::select;
use tokio::task::LocalSet;
use worker::Worker;

/// How long a retired UDP socket is still read from: a datagram past the kernel's choice of a socket arrives within this.
const UDP_LAST_CALL: Duration = Duration::from_millis(10);
/// How often a worker that is ending looks whether it may.
const DRAIN_CHECK: Duration = Duration::from_millis(2);

/// The epoll runtime.
#[derive(Debug)]
pub struct Tokio;

impl Runtime for Tokio {
    const NAME: &'static str = "tokio";

    fn start<C: Cache + Send + Sync + 'static>(spec: WorkerSpec<C>) -> io::Result<WorkerHandle> {
        launch(spec, |setup| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
            LocalSet::new().block_on(&runtime, serve(setup))
        })
    }
}

/// The life of a worker: serve until told to stop, then finish what was begun.
async fn serve<C: Cache + 'static>(setup: WorkerSetup<C>) -> io::Result<()> {
    let WorkerSetup { engine, listeners, stop, orders, started } = setup;
    let worker = Worker::new(engine);
    listeners::serve(&worker, listeners)?;
    worker.spawn(worker::keep_time(Rc::clone(&worker)));
    worker.spawn(listeners::follow_orders(Rc::clone(&worker), orders));
    started.report();

    let deadline = select! {
        deadline = stop.requested() => deadline,
        panic = worker.panicked() => std::panic::resume_unwind(panic),
    };

    worker.sockets.borrow().listeners().for_each(Listener::retire);
    let last_call = worker.clock.now() + UDP_LAST_CALL;
    loop {
        let now = worker.clock.now();
        if now >= deadline || (now >= last_call && worker.is_quiet()) {
            return Ok(());
        }
        select! {
            () = tokio::time::sleep(DRAIN_CHECK) => {}
            panic = worker.panicked() => std::panic::resume_unwind(panic),
        }
    }
}
