//! Clients' connections: accept, read, write. Who may stay and what is sent is decided in `nodens_runtime::clients`.

use crate::worker::Worker;
use nodens_core::cache::Cache;
use nodens_core::{ConnectionId, Duration, ListenerId};
use nodens_runtime::Interest as Wish;
use nodens_runtime::socket::{is_exhaustion, part};
use std::cell::Cell;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use tokio::io::{Interest, Ready};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::{Notify, watch};
use tokio::task::coop::consume_budget;

/// How long accepting pauses when the process has no descriptors or memory left. Connections wait in the backlog meanwhile; UDP
/// goes on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes read from a connection at once: a batch of ordinary queries, not more than a turn should take.
const READ_MAX: usize = 16 * 1024;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct ClientStream {
    stream: TcpStream,
    wish: Cell<Wish>,
    changed: Notify,
}

impl ClientStream {
    fn new(stream: TcpStream) -> Rc<Self> {
        Rc::new(ClientStream { stream, wish: Cell::new(Wish::READ), changed: Notify::new() })
    }

    /// Writes what the kernel takes now.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    /// Changes what the connection's task waits for.
    pub(crate) fn watch(&self, wish: Wish) {
        self.wish.set(wish);
        self.changed.notify_one();
    }

    async fn ready(&self) -> io::Result<Ready> {
        let interest = match self.wish.get() {
            Wish { read: true, write: true } => Interest::READABLE | Interest::WRITABLE,
            Wish { read: true, write: false } => Interest::READABLE,
            Wish { read: false, write: true } => Interest::WRITABLE,
            Wish { read: false, write: false } => pending().await,
        };
        self.stream.ready(interest).await
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        part(&self.stream);
    }
}

/// Accepts connections until the listener is retired; those which the kernel has completed by then are still taken.
pub(crate) async fn accept<C: Cache + 'static>(
    worker: Rc<Worker<C>>,
    id: ListenerId,
    listener: TcpListener,
    mut retired: watch::Receiver<bool>,
) {
    loop {
        let accepted = select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = retired.wait_for(|retired| *retired) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Answers are whole messages; none should wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                if let Some(connection) = worker.turn(|turn| turn.connected(id, peer)) {
                    let stream = ClientStream::new(stream);
                    let task = worker.spawn(serve(Rc::clone(&worker), connection, Rc::clone(&stream)));
                    worker.sockets.borrow_mut().add_connection(connection, stream, task);
                }
            }
            Err(e) => {
                worker.vitals.accept_failures.add(1);
                // Everything else is a connection that died in the backlog.
                if is_exhaustion(&e) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves one connection until it is closed.
async fn serve<C: Cache + 'static>(worker: Rc<Worker<C>>, id: ConnectionId, client: Rc<ClientStream>) {
    while worker.sockets.borrow().holds_connection(id) {
        let ready = select! {
            biased;
            () = client.changed.notified() => continue,
            ready = client.ready() => ready,
        };
        let Ok(ready) = ready else {
            worker.turn(|turn| turn.lost(id));
            return;
        };
        if client.wish.get().write && ready.is_writable() {
            worker.turn(|turn| turn.writable(id));
        }
        if client.wish.get().read && (ready.is_readable() || ready.is_read_closed()) {
            read(&worker, id, &client);
        }
        // One busy connection does not keep the others waiting for ever.
        consume_budget().await;
    }
}

fn read<C: Cache + 'static>(worker: &Rc<Worker<C>>, id: ConnectionId, client: &ClientStream) {
    let mut buffer = worker.buffer.borrow_mut();
    match client.stream.try_read(&mut buffer[..READ_MAX]) {
        Ok(0) => worker.turn(|turn| turn.finished(id)),
        Ok(len) => worker.turn(|turn| turn.received(id, &buffer[..len])),
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        Err(_) => worker.turn(|turn| turn.lost(id)),
    }
}
