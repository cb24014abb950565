//! Orders to a running worker: a new configuration, and which listeners come and go with it.
//!
//! The control thread puts an [`Order`] into the mailbox of every worker; each carries it out between two turns and answers with
//! its new counters. Sockets that stay are not in an order at all, so nothing can happen to them. An order is never
//! replaced by a later one, because it may hold sockets: they are carried out one after the other. When the worker ends, its mailbox
//! closes: what it has not carried out is answered with an error, and its sockets close.

use crate::listen::BoundListener;
use crate::sync::{Mutex, Receiver, SyncSender, sync_channel};
use nodens_core::{Config, ListenerId, Stats};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, PoisonError};
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
    closed: bool,
}

impl Orders {
    /// Puts an order in and wakes the worker. If that has ended, the order is dropped, and its [`InForce`] says so.
    pub fn put(&self, order: Order) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.closed {
            return;
        }
        waiting.orders.push_back(order);
        if let Some(sleeper) = waiting.sleeper.take() {
            sleeper.wake();
        }
    }

    /// No more orders: the worker has ended.
    pub fn close(&self) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.closed = true;
        let never_carried_out = std::mem::take(&mut waiting.orders);
        // The lock first: to drop an order closes sockets.
        drop(waiting);
        drop(never_carried_out);
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

#[cfg(all(test, not(nodens_loom)))]
mod tests {
    use super::*;
    use nodens_core::config::Limits;

    fn order() -> (Order, InForce) {
        let (listeners, zones, upstreams) = (Vec::new(), Vec::new(), Vec::new());
        let config = Config { listeners, zones, upstreams, trust_ad: false, limits: Limits::default() };
        Order::new(Arc::new(config), Vec::new(), Vec::new())
    }

    #[test]
    fn whoever_waits_for_a_worker_that_has_ended_is_told() {
        let orders = Orders::default();
        let (first, in_force) = order();
        orders.put(first);
        assert!(in_force.poll().is_none(), "the worker has not looked yet");
        orders.close();
        let (second, too_late) = order();
        orders.put(second);
        for answer in [in_force.poll(), too_late.poll()] {
            let error = answer.expect("an answer").expect_err("nobody carried it out");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        }
    }
}
