//! The sockets and threads of a scripted upstream.
//!
//! One thread reads datagrams, one accepts connections and one reads each
//! connection. Closing is exact: a stream has one owner, its reading thread,
//! so that FIN and RST leave when an action says so and not when some copy of
//! the descriptor dies.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use socket2::{Domain, Socket, Type};

use super::action::{Channel, Script, Timer};
use super::{Action, Received, Transport};
use crate::lock;

/// How often the threads of the two listening sockets look whether they
/// shall stop: the price of a stop, paid by every test.
const STOP_POLL: Duration = Duration::from_millis(20);

/// The same for the readers of connections. Stopping wakes them by a shutdown
/// of their stream, so this is only a bound.
const STREAM_POLL: Duration = Duration::from_secs(1);

/// A client that does not read may hold up an answer this long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Room for bursts: a slow thread must not lose the queries of a test.
const UDP_RECEIVE_BUFFER: usize = 4 << 20;

/// Room for every connection a test opens at once.
const TCP_BACKLOG: i32 = 1024;

pub(super) type Handler = dyn Fn(&Received) -> Vec<Action> + Send + Sync;

/// What outlives a stop and restart: script, log and timer.
pub(super) struct State {
    pub(super) handler: RwLock<Arc<Handler>>,
    pub(super) received: Mutex<Vec<Received>>,
    pub(super) arrived: Condvar,
    pub(super) paused: AtomicBool,
    pub(super) panicked: AtomicBool,
    pub(super) connections: AtomicUsize,
    pub(super) timer: Arc<Timer>,
}

impl State {
    fn take(&self, mut received: Received, channel: Channel) {
        {
            let mut log = lock(&self.received);
            received.seq = log.len();
            log.push(received.clone());
            self.arrived.notify_all();
        }
        if self.paused.load(Ordering::SeqCst) {
            return;
        }
        let handler = self.handler.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        self.guarded(|| Script::new(channel, handler(&received)).run(&self.timer));
    }

    /// Remembers a panic of the test's handler; the panic text is already on
    /// stderr, and the upstream fails the test when it is dropped.
    pub(super) fn guarded(&self, work: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.panicked.store(true, Ordering::SeqCst);
        }
    }
}

/// The open sockets of an upstream; dropping them closes everything.
pub(super) struct Sockets {
    pub(super) addr: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    streams: Arc<Streams>,
}

#[derive(Default)]
struct Streams {
    open: Mutex<Vec<Weak<TcpStream>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

impl Sockets {
    pub(super) fn open(addr: SocketAddr, state: &Arc<State>) -> io::Result<Self> {
        let listener = listener(addr)?;
        let addr = listener.local_addr()?;
        let udp = Arc::new(datagrams(addr)?);
        let stop = Arc::new(AtomicBool::new(false));
        let streams = Arc::new(Streams::default());
        let threads = vec![
            thread::spawn({
                let (state, stop) = (state.clone(), stop.clone());
                move || read_datagrams(&udp, &state, &stop)
            }),
            thread::spawn({
                let (state, stop, streams) = (state.clone(), stop.clone(), streams.clone());
                move || accept(&listener, &state, &stop, &streams)
            }),
        ];
        Ok(Self { addr, stop, threads, streams })
    }

    pub(super) fn open_connections(&self) -> usize {
        lock(&self.streams.open).iter().filter(|stream| stream.strong_count() > 0).count()
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // First the accepting thread, so that no connection is added below.
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        for stream in lock(&self.streams.open).drain(..).filter_map(|stream| stream.upgrade()) {
            drop(stream.shutdown(Shutdown::Both));
        }
        for reader in lock(&self.streams.readers).drain(..) {
            drop(reader.join());
        }
    }
}

fn listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // Connections of a stopped upstream may linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // On Linux the receive timeout also ends accept().
    socket.set_read_timeout(Some(STOP_POLL))?;
    socket.bind(&addr.into())?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket.into())
}

fn datagrams(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(STOP_POLL))?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

fn read_datagrams(socket: &Arc<UdpSocket>, state: &State, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::SeqCst) {
        // Errors are timeouts, or ICMP errors of earlier answers.
        let Ok((len, peer)) = socket.recv_from(&mut buffer) else { continue };
        let received = Received::new(buffer[..len].to_vec(), Transport::Udp, peer, None);
        state.take(received, Channel::Udp { socket: Arc::downgrade(socket), peer });
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>, stop: &Arc<AtomicBool>, streams: &Streams) {
    while !stop.load(Ordering::SeqCst) {
        let Ok((stream, peer)) = listener.accept() else { continue };
        let set_up = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(STREAM_POLL)))
            .and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)));
        if set_up.is_err() {
            continue;
        }
        let number = state.connections.fetch_add(1, Ordering::SeqCst);
        let stream = Arc::new(stream);
        let mut open = lock(&streams.open);
        open.retain(|stream| stream.strong_count() > 0);
        open.push(Arc::downgrade(&stream));
        let (state, stop) = (state.clone(), stop.clone());
        let reader = thread::spawn(move || read_stream(stream, peer, number, &state, &stop));
        let mut readers = lock(&streams.readers);
        readers.retain(|reader| !reader.is_finished());
        readers.push(reader);
    }
}

/// Owns the stream: it is closed when this returns.
fn read_stream(stream: Arc<TcpStream>, peer: SocketAddr, number: usize, state: &State, stop: &AtomicBool) {
    let mut len = [0; 2];
    while read_exactly(&stream, &mut len, stop) {
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
        if !read_exactly(&stream, &mut bytes, stop) {
            return;
        }
        let received = Received::new(bytes, Transport::Tcp, peer, Some(number));
        state.take(received, Channel::Tcp(Arc::downgrade(&stream)));
    }
}

/// `false` at the end of the stream and when the upstream stops.
fn read_exactly(mut stream: &TcpStream, buffer: &mut [u8], stop: &AtomicBool) -> bool {
    let mut filled = 0;
    while filled < buffer.len() {
        if stop.load(Ordering::SeqCst) {
            return false;
        }
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return false,
            Ok(n) => filled += n,
            Err(why) if is_timeout(&why) => {}
            Err(_) => return false,
        }
    }
    true
}

fn is_timeout(why: &io::Error) -> bool {
    matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Binds again where an upstream was, waiting for the old sockets to go.
pub(super) fn reopen(addr: SocketAddr, state: &Arc<State>, patience: Duration) -> Sockets {
    let deadline = Instant::now() + patience;
    loop {
        match Sockets::open(addr, state) {
            Ok(sockets) => return sockets,
            Err(why) if Instant::now() >= deadline => panic!("{addr} cannot be bound again: {why}"),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
