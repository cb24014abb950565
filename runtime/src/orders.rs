//! Orders to a running worker: a new configuration, and which listeners come and go with it.
//!
//! The control thread puts an [`Order`] into the mailbox of every worker; each carries it out between two turns and answers with
//! its new counters. Sockets that stay are not in an order at all, so nothing can happen to them. An order is never
//! replaced by a later one, because it may hold sockets: they are carried out one after the other.

use crate::listen::BoundListener;
use nodens_core::{Config, ListenerId, Stats};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// What a worker is to run from now on.
#[derive(Debug)]
pub struct Order {
    /// The configuration. It must pass [`Config::check`], and listeners keep their number (see
    /// [`Forwarder::handle_config`](nodens_core::Forwarder::handle_config)).
    pub config: Arc<Config>,
    /// Listeners to serve in addition.
    pub added: Vec<BoundListener>,
    /// Listeners to serve no longer: no new queries and connections, but answers to those that are in.
    pub gone: Vec<ListenerId>,
    answer: SyncSender<io::Result<Arc<Stats>>>,
}

impl Order {
    /// An order, and where its answer will come.
    pub fn new(config: Arc<Config>, added: Vec<BoundListener>, gone: Vec<ListenerId>) -> (Order, InForce) {
        let (answer, answers) = sync_channel(1);
        (Order { config, added, gone, answer }, InForce(answers))
    }

    /// Whether sockets come or go.
    pub fn changes_listeners(&self) -> bool {
        !self.added.is_empty() || !self.gone.is_empty()
    }

    /// For the worker: the order is carried out, and these are the counters from now on; or it is not, and nothing has changed.
    pub fn answer(self, result: io::Result<Arc<Stats>>) {
        // If nobody waits any more, nobody needs to know.
        let _ = self.answer.send(result);
    }
}

/// A worker's answer to an order, to come.
#[derive(Debug)]
pub struct InForce(Receiver<io::Result<Arc<Stats>>>);

impl InForce {
    /// The new counters once the order is carried out. `None`: not yet. An error also if the worker has ended.
    pub fn poll(&self) -> Option<io::Result<Arc<Stats>>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(io::Error::new(ErrorKind::BrokenPipe, "the worker has ended")))
            }
        }
    }
}

/// A worker's mailbox.
#[derive(Debug, Default)]
pub struct Orders(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    orders: VecDeque<Order>,
    sleeper: Option<Waker>,
}

impl Orders {
    /// Puts an order in and wakes the worker.
    pub fn put(&self, order: Order) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.orders.push_back(order);
        if let Some(sleeper) = waiting.sleeper.take() {
            sleeper.wake();
        }
    }

    /// Waits for the next order; one waiter at a time.
    pub async fn next(&self) -> Order {
        poll_fn(|context| {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match waiting.orders.pop_front() {
                Some(order) => Poll::Ready(order),
                None => {
                    waiting.sleeper = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
