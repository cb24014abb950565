//! Paths to upstreams. The core decides when one is opened, used and closed; here is how.

use crate::worker::Worker;
use nodens_core::cache::Cache;
use nodens_core::wire::StreamFraming;
use nodens_core::{Path, PathEvent};
use nodens_runtime::socket::{path_event, send_now};
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use tokio::io::Interest;
use tokio::net::{TcpStream, UdpSocket};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

/// Bytes that may wait until an upstream reads them: several hundred queries. An upstream that is this far behind is as good as
/// gone.
const UNSENT_MAX: usize = 64 * 1024;

/// Sends a query as a datagram.
pub(crate) fn send_datagram(socket: &UdpSocket, message: &[u8]) -> Result<(), PathEvent> {
    // Straight to the kernel: tokio calls a socket writable only after epoll has said so, and this one is new.
    match send_now(socket, message) {
        Ok(_) => Ok(()),
        // Lost, as on any network; the core will repeat it.
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(e) => Err(path_event(&e)),
    }
}

/// Receives the datagrams of one path until it is closed.
pub(crate) async fn serve_datagrams<C: Cache + 'static>(
    worker: Rc<Worker<C>>,
    path: Path,
    socket: Rc<UdpSocket>,
) {
    while worker.sockets.borrow().holds(path) {
        // An ICMP error comes as an error alone, not as something to read.
        let Ok(ready) = socket.ready(Interest::READABLE | Interest::ERROR).await else { return };
        if ready.is_error() {
            // tokio keeps the mark until it is told that nothing is left.
            let _ = socket.try_io(Interest::ERROR, || io::Result::<()>::Err(ErrorKind::WouldBlock.into()));
            if let Ok(Some(e)) = socket.take_error() {
                worker.turn(|turn| turn.path_event(path, path_event(&e)));
            }
        } else {
            receive_datagram(&worker, path, &socket);
        }
        consume_budget().await;
    }
}

/// One datagram: mostly the first is the only one, and asking for a second would be a system call for nothing.
fn receive_datagram<C: Cache + 'static>(worker: &Rc<Worker<C>>, path: Path, socket: &UdpSocket) {
    let mut buffer = worker.buffer.borrow_mut();
    match socket.try_recv(&mut buffer) {
        Ok(len) => worker.turn(|turn| turn.response(path, &buffer[..len])),
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        Err(e) => worker.turn(|turn| turn.path_event(path, path_event(&e))),
    }
}

/// A TCP connection to an upstream.
#[derive(Debug)]
pub(crate) struct UpstreamStream {
    stream: TcpStream,
    connected: Cell<bool>,
    unsent: RefCell<Vec<u8>>,
    changed: Notify,
}

impl UpstreamStream {
    /// Takes a connection in the making.
    pub(crate) fn new(stream: TcpStream) -> Rc<Self> {
        let (connected, unsent) = (Cell::new(false), RefCell::default());
        Rc::new(UpstreamStream { stream, connected, unsent, changed: Notify::new() })
    }

    /// Sends a query with its length, or keeps what the kernel does not take yet.
    pub(crate) fn send(&self, framed: &[u8]) -> Result<(), PathEvent> {
        let mut unsent = self.unsent.borrow_mut();
        let mut written = 0;
        if self.connected.get() && unsent.is_empty() {
            written = match self.stream.try_write(framed) {
                Ok(written) => written,
                Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
                // The connection has ended, but answers may have arrived before: whoever reads finds them, and then the end.
                Err(_) => framed.len(),
            };
        }
        if unsent.len() + framed.len() - written > UNSENT_MAX {
            return Err(PathEvent::Closed);
        }
        if written < framed.len() {
            unsent.extend_from_slice(&framed[written..]);
            self.changed.notify_one();
        }
        Ok(())
    }

    fn write_unsent(&self) {
        let mut unsent = self.unsent.borrow_mut();
        match self.stream.try_write(&unsent) {
            Ok(written) => drop(unsent.drain(..written)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // As in `send`.
            Err(_) => unsent.clear(),
        }
    }

    async fn connected(&self) -> Result<(), PathEvent> {
        self.stream.writable().await.map_err(|_| PathEvent::LocalFailure)?;
        match self.stream.take_error() {
            Ok(None) => {
                self.connected.set(true);
                Ok(())
            }
            Ok(Some(e)) | Err(e) => Err(path_event(&e)),
        }
    }

    fn interest(&self) -> Interest {
        if self.unsent.borrow().is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        }
    }
}

/// Connects and serves one connection until it is closed, by the upstream or by the core.
pub(crate) async fn serve_stream<C: Cache + 'static>(
    worker: Rc<Worker<C>>,
    path: Path,
    upstream: Rc<UpstreamStream>,
) {
    let end = match upstream.connected().await {
        Ok(()) => {
            worker.turn(|turn| turn.path_event(path, PathEvent::Connected));
            exchange(&worker, path, &upstream).await;
            PathEvent::Closed
        }
        Err(event) => event,
    };
    worker.turn(|turn| turn.path_event(path, end));
    // What the core has not closed by now, it considers closed.
    worker.sockets.borrow_mut().close_path(path);
}

/// Returns when the connection is of no more use.
async fn exchange<C: Cache + 'static>(worker: &Rc<Worker<C>>, path: Path, upstream: &UpstreamStream) {
    let mut framing = StreamFraming::new();
    while worker.sockets.borrow().holds(path) {
        let ready = select! {
            biased;
            () = upstream.changed.notified() => continue,
            ready = upstream.stream.ready(upstream.interest()) => ready,
        };
        let Ok(ready) = ready else { return };
        if ready.is_writable() && !upstream.unsent.borrow().is_empty() {
            upstream.write_unsent();
        }
        if (ready.is_readable() || ready.is_read_closed()) && !receive(worker, path, upstream, &mut framing) {
            return;
        }
        consume_budget().await;
    }
}

/// Reads once and hands in what became whole. Returns whether more can follow.
fn receive<C: Cache + 'static>(
    worker: &Rc<Worker<C>>,
    path: Path,
    upstream: &UpstreamStream,
    framing: &mut StreamFraming,
) -> bool {
    let mut buffer = worker.buffer.borrow_mut();
    match upstream.stream.try_read(&mut buffer) {
        Ok(0) => return false,
        Ok(len) => framing.push(&buffer[..len]),
        Err(e) => return e.kind() == ErrorKind::WouldBlock,
    }
    let is_sound = worker.turn(|turn| {
        loop {
            match framing.next_message() {
                Ok(Some(message)) => turn.response(path, message),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    });
    framing.shrink();
    is_sound
}
