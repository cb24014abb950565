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
use nodens_core::cache::Cache;
use nodens_runtime::departure::{self, Departure, Step};
use nodens_runtime::worker::{Runtime, WorkerHandle, WorkerSetup, WorkerSpec, launch};
use std::io;
use std::rc::Rc;
use tokio::select;
use tokio::task::LocalSet;
use worker::Worker;

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

    let stop = select! {
        stop = stop.requested() => stop,
        panic = worker.panicked() => std::panic::resume_unwind(panic),
    };

    let mut departure = Departure::new(stop, worker.clock.now());
    loop {
        match departure.step(worker.clock.now(), worker.is_quiet()) {
            Step::GoOn => {}
            Step::WindDown => worker.wind_down(),
            Step::Retire => {
                worker.sockets.borrow().listeners().for_each(Listener::retire);
                continue;
            }
            Step::End => return Ok(()),
        }
        select! {
            () = tokio::time::sleep(departure::CHECK) => {}
            panic = worker.panicked() => std::panic::resume_unwind(panic),
        }
    }
}
