//! Clients' connections: accept, read, write. Who may stay and what is sent is decided in `nodens_runtime::clients`.
//!
//! Waiting goes through tokio-uring's ring; writing does not wait, so it is a plain system call. A request on tokio-uring's ring
//! is not cancelled when its future is dropped: it keeps its buffer and its share of the socket until it completes. So each
//! socket is shut down when it is closed, which completes every request on it.

use crate::worker::Worker;
use io_uring::{cqueue, opcode, types};
use nix::libc::POLLOUT;
use nodens_core::cache::Cache;
use nodens_core::{ConnectionId, Duration, ListenerId};
use nodens_runtime::Interest as Wish;
use nodens_runtime::socket::{is_exhaustion, part, send_now};
use socket2::SockRef;
use std::cell::Cell;
use std::io;
use std::net::{self, Shutdown};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio_uring::net::{TcpListener, TcpStream};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

/// How long accepting pauses when the process has no descriptors or memory left. Connections wait in the backlog meanwhile; UDP
/// goes on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes that a quiet connection reads at once. The memory is the kernel's while it waits, a megabyte for all connections
/// of a process; most queries are shorter than a tenth of it.
const READ_QUIET: usize = 1024;
/// The same for a connection that filled that: a batch of ordinary queries, not more than a turn should take.
const READ_BUSY: usize = 16 * 1024;

/// A connection on tokio-uring's ring.
pub(crate) struct Stream(TcpStream);

impl Stream {
    /// Takes over a socket, which becomes a blocking one: on others the ring reports "would block" instead of waiting.
    pub(crate) fn from_std(stream: net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Stream(TcpStream::from_std(stream)))
    }

    /// Reads into a buffer as far as it has room.
    pub(crate) async fn read(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.0.read(buffer).await
    }

    /// Writes what the kernel takes now.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        send_now(self, bytes)
    }

    /// Waits until the kernel takes bytes, or the connection is made, or dead.
    pub(crate) async fn writable(self: &Rc<Self>) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(self.0.as_raw_fd()), POLLOUT as u32).build();
        UnsubmittedOneshot::new(Rc::clone(self), Polled, poll).submit().await
    }

    /// The error that the socket has noted, as after connecting.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(self).take_error()
    }

    /// Ends the connection, and with it every request on it.
    pub(crate) fn shut(&self) {
        // An error means that there is no connection.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the stream's, which is borrowed for as long.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// A finished poll. The stream that the ring kept open for it is let go.
struct Polled;

impl OneshotOutputTransform for Polled {
    type Output = io::Result<()>;
    type StoredData = Rc<Stream>;

    fn transform_oneshot_output(self, _: Rc<Stream>, completion: cqueue::Entry) -> io::Result<()> {
        match completion.result() {
            code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
            _ => Ok(()),
        }
    }
}

/// A client's connection.
pub(crate) struct ClientStream {
    stream: Rc<Stream>,
    wish: Cell<Wish>,
    /// Reading is wished for again.
    read_again: Notify,
    /// A task waits for room.
    waits_for_room: Cell<bool>,
}

impl ClientStream {
    fn new(stream: Stream) -> Rc<Self> {
        Rc::new(ClientStream {
            stream: Rc::new(stream),
            wish: Cell::new(Wish::READ),
            read_again: Notify::new(),
            waits_for_room: Cell::new(false),
        })
    }

    /// Writes what the kernel takes now.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    /// Changes what is waited for.
    pub(crate) fn watch<C: Cache + 'static>(
        self: &Rc<Self>,
        worker: &Rc<Worker<C>>,
        id: ConnectionId,
        wish: Wish,
    ) {
        self.wish.set(wish);
        if wish.read {
            self.read_again.notify_one();
        }
        if wish.write && !self.waits_for_room.replace(true) {
            worker.spawn(wait_for_room(Rc::clone(worker), id, Rc::clone(self)));
        }
    }

    /// Ends the connection.
    pub(crate) fn shut(&self) {
        part(&*self.stream);
        self.stream.shut();
    }
}

/// Accepts connections until the listener is retired, which shuts it down.
pub(crate) async fn accept<C: Cache + 'static>(
    worker: Rc<Worker<C>>,
    id: ListenerId,
    listener: TcpListener,
    retired: Rc<Cell<bool>>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit(&worker, id, Stream(stream), peer),
            Err(_) if retired.get() => return,
            Err(e) => {
                worker.vitals.accept_failures.add(1);
                // Everything else is a connection that died in the backlog.
                if is_exhaustion(&e) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        consume_budget().await;
    }
}

/// Takes the connections that the kernel has completed by now.
pub(crate) fn accept_rest<C: Cache + 'static>(
    worker: &Rc<Worker<C>>,
    id: ListenerId,
    listener: &net::TcpListener,
) {
    while let Ok((stream, peer)) = listener.accept() {
        if let Ok(stream) = Stream::from_std(stream) {
            admit(worker, id, stream, peer);
        }
    }
}

/// Ends a listener for all who share it.
pub(crate) fn shut(listener: &net::TcpListener) {
    // It can only fail if it does not listen any more.
    let _ = SockRef::from(listener).shutdown(Shutdown::Both);
}

fn admit<C: Cache + 'static>(worker: &Rc<Worker<C>>, id: ListenerId, stream: Stream, peer: net::SocketAddr) {
    // Answers are whole messages; none should wait for the acknowledgement of the one before.
    let _ = SockRef::from(&stream).set_tcp_nodelay(true);
    if let Some(connection) = worker.turn(|turn| turn.connected(id, peer)) {
        let client = ClientStream::new(stream);
        let task = worker.spawn(read(Rc::clone(worker), connection, Rc::clone(&client)));
        worker.sockets.borrow_mut().add_connection(connection, client, task);
    }
}

/// Reads from a connection until it ends.
async fn read<C: Cache + 'static>(worker: Rc<Worker<C>>, id: ConnectionId, client: Rc<ClientStream>) {
    let mut buffer = Vec::with_capacity(READ_QUIET);
    while worker.sockets.borrow().holds_connection(id) {
        if !client.wish.get().read {
            client.read_again.notified().await;
            continue;
        }
        let (result, filled) = client.stream.read(buffer).await;
        buffer = filled;
        match result {
            Ok(0) => return worker.turn(|turn| turn.finished(id)),
            Ok(len) => worker.turn(|turn| turn.received(id, &buffer[..len])),
            Err(_) => return worker.turn(|turn| turn.lost(id)),
        }
        let is_full = buffer.len() == buffer.capacity();
        let room = if is_full { READ_BUSY } else { READ_QUIET };
        if room == buffer.capacity() {
            buffer.clear();
        } else {
            buffer = Vec::with_capacity(room);
        }
        // One busy connection does not keep the others waiting for ever.
        consume_budget().await;
    }
}

/// Tells when a connection takes bytes again, as long as that is wished for.
async fn wait_for_room<C: Cache + 'static>(
    worker: Rc<Worker<C>>,
    id: ConnectionId,
    client: Rc<ClientStream>,
) {
    while client.wish.get().write && worker.sockets.borrow().holds_connection(id) {
        if client.stream.writable().await.is_err() {
            worker.turn(|turn| turn.lost(id));
        } else {
            worker.turn(|turn| turn.writable(id));
        }
        consume_budget().await;
    }
    client.waits_for_room.set(false);
}
