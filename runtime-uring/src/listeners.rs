//! Serving an address, and ceasing to: at start, and when a new configuration comes.
//!
//! An address that is no longer served is left as a worker is that ends: no new queries and connections from the moment the
//! order is carried out, what the kernel has queued is still read, and what is in flight is answered. Connections that clients
//! have open stay theirs until they are idle; the sockets that stay are not touched.

use crate::stream;
use crate::worker::Worker;
use nodens_core::cache::Cache;
use nodens_core::{Config, Duration, ListenerId, Stats};
use nodens_runtime::socket::retire_udp_listener;
use nodens_runtime::{BoundListener, Orders};
use std::cell::Cell;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

/// How long answers can still leave from an address that is no longer served: longer than any lookup takes.
const LAST_ANSWERS: Duration = Duration::from_secs(6);

/// An address that is served.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) id: ListenerId,
    /// The datagram socket's place with the ring.
    pub(crate) place: u16,
    datagrams: Rc<UdpSocket>,
    streams: Rc<TcpListener>,
    retired: Rc<Cell<bool>>,
}

impl Listener {
    /// No more queries and connections; what is queued is still taken.
    pub(crate) fn retire<C: Cache + 'static>(&self, worker: &Rc<Worker<C>>) {
        if !self.retired.replace(true) {
            stream::accept_rest(worker, self.id, &self.streams);
            stream::shut(&self.streams);
            // If it fails, the queue of this socket is lost when it closes, as it would be without the attempt.
            let _ = retire_udp_listener(&*self.datagrams);
        }
    }

    /// Leaves the address to others at once, although a ring that has failed still holds the sockets.
    pub(crate) fn abandon(&self) {
        self.retired.set(true);
        stream::shut(&self.streams);
        let _ = retire_udp_listener(&*self.datagrams);
    }
}

/// Serves these addresses in addition; all or none.
pub(crate) fn serve<C: Cache + 'static>(worker: &Rc<Worker<C>>, bound: Vec<BoundListener>) -> io::Result<()> {
    let mut opened: Vec<(Listener, tokio_uring::net::TcpListener)> = vec![];
    for listener in bound {
        match open(worker, listener) {
            Ok(listener) => opened.push(listener),
            Err(e) => {
                let mut datagrams = worker.datagrams.borrow_mut();
                opened.iter().for_each(|(listener, _)| datagrams.remove_listener(listener.place));
                return Err(e);
            }
        }
    }
    for (listener, streams) in opened {
        let retired = Rc::clone(&listener.retired);
        worker.spawn(stream::accept(Rc::clone(worker), listener.id, streams, retired));
        worker.sockets.borrow_mut().listeners.push(listener);
    }
    worker.submit();
    Ok(())
}

fn open<C: Cache + 'static>(
    worker: &Rc<Worker<C>>,
    bound: BoundListener,
) -> io::Result<(Listener, tokio_uring::net::TcpListener)> {
    let (id, is_wildcard) = (bound.id, bound.is_wildcard());
    let streams = tokio_uring::net::TcpListener::from_std(bound.tcp.try_clone()?);
    let (datagrams, retired) = (Rc::new(bound.udp), Rc::new(Cell::new(false)));
    let place = worker.datagrams.borrow_mut().add_listener(id, Rc::clone(&datagrams) as _, is_wildcard)?;
    Ok((Listener { id, place, datagrams, streams: Rc::new(bound.tcp), retired }, streams))
}

/// Carries out orders until the worker ends.
pub(crate) async fn follow_orders<C: Cache + 'static>(worker: Rc<Worker<C>>, orders: Arc<Orders>) {
    loop {
        let mut order = orders.next().await;
        let added = std::mem::take(&mut order.added);
        let result = carry_out(&worker, added, &order.gone, Arc::clone(&order.config));
        order.answer(result);
    }
}

fn carry_out<C: Cache + 'static>(
    worker: &Rc<Worker<C>>,
    added: Vec<BoundListener>,
    gone: &[ListenerId],
    config: Arc<Config>,
) -> io::Result<Arc<Stats>> {
    // A listener that comes may have the number of one that goes.
    let leaving: Vec<Listener> = worker
        .sockets
        .borrow()
        .listeners
        .iter()
        .filter(|listener| gone.contains(&listener.id))
        .cloned()
        .collect();
    // What they receive is handed in after this, under the new configuration.
    serve(worker, added)?;
    let stats = worker.turn(|turn| turn.reconfigure(config));
    for listener in leaving {
        listener.retire(worker);
        let worker = Rc::clone(worker);
        worker.clone().spawn(async move {
            tokio::time::sleep(LAST_ANSWERS).await;
            worker.sockets.borrow_mut().listeners.retain(|other| other.place != listener.place);
            worker.datagrams.borrow_mut().remove_listener(listener.place);
            worker.submit();
        });
    }
    Ok(stats)
}
