//! Serving an address, and ceasing to: at start, and when a new configuration comes.
//!
//! An address that is no longer served is left as a worker is that ends: no new queries and connections from the moment the
//! order is carried out, what the kernel has queued is still read, and what is in flight is answered. Connections that clients
//! have open stay theirs until they are idle; the sockets that stay are not touched.

use crate::worker::Worker;
use crate::{stream, udp};
use nodens_core::cache::Cache;
use nodens_core::{Config, Duration, ListenerId, Stats};
use nodens_runtime::socket::retire_udp_listener;
use nodens_runtime::{BoundListener, Orders};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How long answers can still leave from an address that is no longer served: longer than any lookup takes.
const LAST_ANSWERS: Duration = Duration::from_secs(6);

/// Serves these addresses in addition.
pub(crate) fn serve<C: Cache + 'static>(
    worker: &Rc<Worker<C>>,
    listeners: Vec<BoundListener>,
) -> io::Result<()> {
    let opened = listeners
        .into_iter()
        .map(|listener| {
            let (id, is_wildcard) = (listener.id, listener.is_wildcard());
            let tcp = TcpListener::from_std(listener.tcp)?;
            Ok((id, is_wildcard, Rc::new(UdpSocket::from_std(listener.udp)?), tcp))
        })
        .collect::<io::Result<Vec<_>>>()?;
    for (id, is_wildcard, socket, tcp) in opened {
        let datagrams = if is_wildcard {
            worker.spawn(udp::serve_wildcard(Rc::clone(worker), id, Rc::clone(&socket)))
        } else {
            worker.spawn(udp::serve(Rc::clone(worker), id, Rc::clone(&socket)))
        };
        let (retired, is_retired) = watch::channel(false);
        worker.spawn(stream::accept(Rc::clone(worker), id, tcp, is_retired));
        worker.sockets.borrow_mut().add_listener(id, Listener { socket, datagrams, retired });
    }
    Ok(())
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
    // Their tasks run after this one, under the new configuration.
    serve(worker, added)?;
    let stats = worker.turn(|turn| turn.reconfigure(config));
    for id in gone {
        let left = worker.sockets.borrow().listener(*id).map(|listener| {
            listener.retire();
            Rc::clone(&listener.socket)
        });
        let Some(socket) = left else { continue };
        let (worker, id) = (Rc::clone(worker), *id);
        worker.clone().spawn(async move {
            tokio::time::sleep(LAST_ANSWERS).await;
            worker.sockets.borrow_mut().remove_listener(id, &socket);
        });
    }
    Ok(stats)
}

/// The datagram socket of an address, and the means to end what serves the address.
pub(crate) struct Listener {
    pub(crate) socket: Rc<UdpSocket>,
    datagrams: AbortHandle,
    retired: watch::Sender<bool>,
}

impl Listener {
    /// No more queries and connections; what is queued is still taken.
    pub(crate) fn retire(&self) {
        self.retired.send_replace(true);
        // If it fails, the queue of this socket is lost when it closes, as it would be without the attempt.
        let _ = retire_udp_listener(&*self.socket);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.datagrams.abort();
    }
}
