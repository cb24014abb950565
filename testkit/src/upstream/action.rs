//! What a scripted upstream does with a query, step by step.
//!
//! The steps before the first delay run at once in the receiving thread; the
//! rest of a list waits in one timer thread, so a delayed answer holds up
//! nobody else. Lists that overlap on one TCP connection interleave at their
//! delays: two byte-by-byte answers at once would mix.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::lock;

/// One step of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends a message; over TCP with its length prefix.
    Send(Vec<u8>),
    /// Waits before the next step.
    Delay(Duration),
    /// UDP: sends a message from another source port.
    SendFromOtherPort(Vec<u8>),
    /// UDP: sends a message from 127.0.0.2 and the upstream's port.
    SendFromOtherAddress(Vec<u8>),
    /// Does nothing and ends the list: silence.
    Drop,
    /// TCP: closes the connection (FIN).
    Close,
    /// TCP: aborts the connection (RST).
    Reset,
    /// TCP: sends a message with its length prefix, one byte at a time.
    SendByteByByte(Vec<u8>, Duration),
    /// Sends bytes as they are, over TCP without a length prefix.
    SendRaw(Vec<u8>),
}

/// The way back to the client of one query.
#[derive(Clone)]
pub(super) enum Channel {
    Udp { socket: Weak<UdpSocket>, peer: SocketAddr },
    Tcp(Weak<TcpStream>),
}

/// Steps that are left of a list.
pub(super) struct Script {
    channel: Channel,
    steps: VecDeque<Action>,
}

impl Script {
    pub(super) fn new(channel: Channel, actions: Vec<Action>) -> Self {
        let mut steps = VecDeque::new();
        for action in actions {
            match action {
                Action::SendByteByByte(bytes, gap) => {
                    for byte in framed(&bytes) {
                        steps.push_back(Action::SendRaw(vec![byte]));
                        steps.push_back(Action::Delay(gap));
                    }
                }
                other => steps.push_back(other),
            }
        }
        Self { channel, steps }
    }

    /// Runs the steps up to the next delay and hands the rest to the timer.
    pub(super) fn run(mut self, timer: &Timer) {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Action::Delay(pause) => return timer.add(Instant::now() + pause, self),
                Action::Drop => return,
                step => self.channel.step(&step),
            }
        }
    }
}

impl Channel {
    fn step(&self, step: &Action) {
        match self {
            // A socket that is gone was closed by the test.
            Self::Udp { socket, peer } => {
                if let Some(socket) = socket.upgrade() {
                    udp_step(&socket, *peer, step);
                }
            }
            Self::Tcp(stream) => {
                if let Some(stream) = stream.upgrade() {
                    tcp_step(&stream, step);
                }
            }
        }
    }
}

// Failing sends are not reported: the client went away, which tests do on
// purpose; what the client saw is asserted at the client.
fn udp_step(socket: &UdpSocket, peer: SocketAddr, step: &Action) {
    match step {
        Action::Send(bytes) | Action::SendRaw(bytes) => drop(socket.send_to(bytes, peer)),
        Action::SendFromOtherPort(bytes) => {
            let ip = socket.local_addr().expect("a bound socket has an address").ip();
            let other = UdpSocket::bind((ip, 0)).expect("another port of the upstream's address");
            drop(other.send_to(bytes, peer));
        }
        Action::SendFromOtherAddress(bytes) => {
            let port = socket.local_addr().expect("a bound socket has an address").port();
            let other = other_address((Ipv4Addr::new(127, 0, 0, 2), port).into());
            let other = other.expect("SendFromOtherAddress needs 127.0.0.2 on the loopback interface");
            drop(other.send_to(bytes, peer));
        }
        other => panic!("{other:?} makes no sense over UDP"),
    }
}

/// Shared, because two answers may leave from the same address at once.
fn other_address(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

fn tcp_step(mut stream: &TcpStream, step: &Action) {
    match step {
        Action::Send(bytes) => drop(stream.write_all(&framed(bytes))),
        Action::SendRaw(bytes) => drop(stream.write_all(bytes)),
        Action::Close => drop(stream.shutdown(Shutdown::Both)),
        Action::Reset => {
            // With linger 0 the close sends RST. The close itself happens
            // when the reader, woken by the shutdown, lets go of the stream.
            drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
            drop(stream.shutdown(Shutdown::Read));
        }
        other => panic!("{other:?} makes no sense over TCP"),
    }
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a TCP message has at most 65535 octets");
    [&len.to_be_bytes(), bytes].concat()
}

/// Scripts waiting for their time.
#[derive(Default)]
pub(super) struct Timer {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    due: BinaryHeap<Reverse<Due>>,
    added: u64,
    stopped: bool,
}

/// Ordered by time, then by arrival.
struct Due {
    at: Instant,
    order: u64,
    script: Script,
}

impl Timer {
    fn add(&self, at: Instant, script: Script) {
        let mut waiting = lock(&self.waiting);
        waiting.added += 1;
        let order = waiting.added;
        waiting.due.push(Reverse(Due { at, order, script }));
        self.changed.notify_one();
    }

    /// Runs scripts when they are due, until stopped.
    pub(super) fn run(self: &Arc<Self>, mut guarded: impl FnMut(Script)) {
        while let Some(script) = self.next_due() {
            guarded(script);
        }
    }

    pub(super) fn stop(&self) {
        lock(&self.waiting).stopped = true;
        self.changed.notify_all();
    }

    fn next_due(&self) -> Option<Script> {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.stopped {
                return None;
            }
            let now = Instant::now();
            let pause = match waiting.due.peek() {
                Some(Reverse(first)) if first.at <= now => {
                    return waiting.due.pop().map(|Reverse(due)| due.script);
                }
                Some(Reverse(first)) => first.at - now,
                // Nothing to do: any pause will do, `add` ends it.
                None => Duration::from_secs(60),
            };
            let woken = self.changed.wait_timeout(waiting, pause);
            waiting = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}
