//! nodens-runtime-uring: drives Forwarders with io_uring.
//!
//! One thread per worker with a tokio-uring loop, and beside it a ring of our own for datagrams: multishot receives into
//! shared buffers, answers collected in slots, one entry into the kernel per turn. The loop waits for that ring as for any
//! descriptor, and its own ring carries the streams. What a turn is stands in `nodens_runtime::turn`; nothing here decides
//! anything about DNS.
//!
//! | module | what it is |
//! | --- | --- |
//! | `worker` | what the tasks of a worker share: the engine, the timer, failures |
//! | `listeners` | serving an address, and ceasing to: at start and with a new configuration |
//! | `udp` | the datagram ring's task: the hot path |
//! | `datagrams` | the datagram ring, safe to use; how everything is got back from the kernel |
//! | `buffers`, `slots` | memory that is lent to the kernel |
//! | `address` | addresses as the kernel writes them |
//! | `stream`, `upstream` | TCP: clients, upstreams |
//! | `sockets` | all sockets as the engine's `Io` |
//! | `ring` | set-up, restrictions, errors |
//! | `probe` | whether all of this works here, and if not, why |
//!
//! Unsafe code is in `datagrams`, `buffers` and `slots`, and for one borrowed descriptor in `stream`; each block says why it is sound.

mod address;
mod buffers;
mod datagrams;
mod listeners;
mod probe;
mod ring;
mod slots;
mod sockets;
mod stream;
mod udp;
mod upstream;
mod worker;

pub use probe::{Cause, Unavailable, probe};
pub use ring::{RingError, ring_error};

use datagrams::Datagrams;
use nodens_core::cache::Cache;
use nodens_runtime::departure::{self, Departure, Step};
use nodens_runtime::worker::{Runtime, WorkerHandle, WorkerSetup, WorkerSpec, launch};
use std::io;
use std::rc::Rc;
use tokio::select;
use worker::{Failure, Worker};

/// The io_uring runtime.
#[derive(Debug)]
pub struct Uring;

impl Runtime for Uring {
    const NAME: &'static str = "uring";

    fn start<C: Cache + Send + Sync + 'static>(spec: WorkerSpec<C>) -> io::Result<WorkerHandle> {
        launch(spec, |setup| {
            let runtime = ring::stream_runtime().map_err(|e| RingError::new("set up a ring", e))?;
            match runtime.block_on(serve(setup)) {
                Err(error) if ring_error(&error).is_some() => {
                    // tokio-uring waits for its requests when it is dropped, for ever if its ring has failed too. All
                    // sockets are shut; what is left is some memory.
                    std::mem::forget(runtime);
                    Err(error)
                }
                ended => ended,
            }
        })
    }
}

/// The life of a worker: serve until told to stop, then finish what was begun.
async fn serve<C: Cache + 'static>(setup: WorkerSetup<C>) -> io::Result<()> {
    let WorkerSetup { engine, listeners, stop, orders, started } = setup;
    let worker = Worker::new(engine, Datagrams::new()?);
    listeners::serve(&worker, listeners)?;
    worker.spawn(udp::serve(Rc::clone(&worker)));
    worker.spawn(worker::keep_time(Rc::clone(&worker)));
    worker.spawn(listeners::follow_orders(Rc::clone(&worker), orders));
    started.report();

    let stop = select! {
        stop = stop.requested() => stop,
        failure = worker.failed() => return give_up(&worker, failure),
    };

    let mut departure = Departure::new(stop, worker.clock.now());
    loop {
        match departure.step(worker.clock.now(), worker.is_quiet()) {
            Step::GoOn => {}
            Step::WindDown => worker.wind_down(),
            Step::Retire => {
                let listeners = worker.sockets.borrow().listeners.clone();
                listeners.iter().for_each(|listener| listener.retire(&worker));
                continue;
            }
            Step::End => {
                worker.datagrams.borrow_mut().close();
                return Ok(());
            }
        }
        select! {
            () = tokio::time::sleep(departure::CHECK) => {}
            failure = worker.failed() => return give_up(&worker, failure),
        }
    }
}

/// Ends a worker that cannot go on.
fn give_up<C: Cache + 'static>(worker: &Worker<C>, failure: Failure) -> io::Result<()> {
    match failure {
        Failure::Panic(panic) => std::panic::resume_unwind(panic),
        Failure::Ring(error) => {
            worker.datagrams.borrow_mut().close();
            worker.sockets.borrow_mut().abandon();
            Err(error.into())
        }
    }
}
