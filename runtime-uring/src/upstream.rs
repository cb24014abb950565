//! TCP connections to upstreams. The core decides when one is opened, used and closed; here is how.
//!
//! Upstream sockets for datagrams need nothing of this: they are on the datagram ring (see `sockets` and `udp`).

use crate::stream::Stream;
use crate::worker::Worker;
use nodens_core::cache::Cache;
use nodens_core::wire::StreamFraming;
use nodens_core::{Path, PathEvent};
use nodens_runtime::socket::path_event;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::rc::Rc;
use tokio::task::coop::consume_budget;

/// Bytes that may wait until an upstream reads them: several hundred queries. An upstream that is this far behind is as good as
/// gone.
const UNSENT_MAX: usize = 64 * 1024;
/// Bytes read at once: some dozens of answers. The memory is the kernel's while a connection waits; there are 64 to an upstream at most.
const READ_MAX: usize = 8 * 1024;

/// A TCP connection to an upstream.
pub(crate) struct UpstreamStream {
    stream: Rc<Stream>,
    connected: Cell<bool>,
    unsent: RefCell<Vec<u8>>,
    /// A task waits for room.
    waits_for_room: Cell<bool>,
}

impl UpstreamStream {
    /// Takes a connection in the making.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Rc<Self>> {
        Ok(Rc::new(UpstreamStream {
            stream: Rc::new(Stream::from_std(stream)?),
            connected: Cell::new(false),
            unsent: RefCell::default(),
            waits_for_room: Cell::new(false),
        }))
    }

    /// Sends a query with its length, or keeps what the kernel does not take yet.
    pub(crate) fn send<C: Cache + 'static>(
        self: &Rc<Self>,
        worker: &Rc<Worker<C>>,
        framed: &[u8],
    ) -> Result<(), PathEvent> {
        let mut unsent = self.unsent.borrow_mut();
        let mut written = 0;
        if self.connected.get() && unsent.is_empty() {
            written = match self.stream.write(framed) {
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
            self.wait_for_room(worker);
        }
        Ok(())
    }

    /// Ends the connection.
    pub(crate) fn shut(&self) {
        self.stream.shut();
    }

    fn wait_for_room<C: Cache + 'static>(self: &Rc<Self>, worker: &Rc<Worker<C>>) {
        // Before the connection is there, its own task waits.
        if self.connected.get() && !self.waits_for_room.replace(true) {
            worker.spawn(write_unsent(Rc::clone(self)));
        }
    }

    fn try_write_unsent(&self) {
        let mut unsent = self.unsent.borrow_mut();
        if unsent.is_empty() {
            return;
        }
        match self.stream.write(&unsent) {
            Ok(written) => drop(unsent.drain(..written)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // As in `send`.
            Err(_) => unsent.clear(),
        }
    }

    async fn connected(&self) -> Result<(), PathEvent> {
        self.stream.writable().await.map_err(|e| path_event(&e))?;
        match self.stream.take_error() {
            Ok(None) => {
                self.connected.set(true);
                Ok(())
            }
            Ok(Some(e)) | Err(e) => Err(path_event(&e)),
        }
    }
}

/// Writes what is unsent as the kernel takes it.
async fn write_unsent(upstream: Rc<UpstreamStream>) {
    while !upstream.unsent.borrow().is_empty() {
        if upstream.stream.writable().await.is_err() {
            // The task that reads sees the end, and reports it.
            upstream.shut();
            return;
        }
        upstream.try_write_unsent();
        consume_budget().await;
    }
    upstream.waits_for_room.set(false);
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
    worker.sockets.borrow_mut().close_path(path, &mut worker.datagrams.borrow_mut());
}

/// Returns when the connection is of no more use.
async fn exchange<C: Cache + 'static>(worker: &Rc<Worker<C>>, path: Path, upstream: &Rc<UpstreamStream>) {
    // Queries that did not wait for the connection.
    upstream.try_write_unsent();
    if !upstream.unsent.borrow().is_empty() {
        upstream.wait_for_room(worker);
    }
    let mut framing = StreamFraming::new();
    let mut buffer = Vec::with_capacity(READ_MAX);
    while worker.sockets.borrow().holds(path) {
        let (result, filled) = upstream.stream.read(buffer).await;
        buffer = filled;
        match result {
            Ok(len) if len > 0 => framing.push(&buffer[..len]),
            Ok(_) | Err(_) => return,
        }
        buffer.clear();
        let is_sound = worker.turn(|turn| {
            loop {
                match framing.next_message() {
                    Ok(Some(message)) => turn.response(path, message),
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
        });
        if !is_sound {
            return;
        }
        framing.shrink();
        consume_budget().await;
    }
}
