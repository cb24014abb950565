//! Blocking DNS clients over UDP and TCP.
//!
//! They behave as the test says, well or badly: chunked streams, half-written
//! messages, many messages before the first answer. Nothing is retried and
//! truncation is not followed; every wait has a time limit.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::msg::Reply;

/// The time limit of [`ask_udp`] and [`ask_tcp`], and of connecting and
/// writing.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest receive timeout the system takes.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// Room for a burst of answers to a client that sends first and reads later.
const UDP_RECEIVE_BUFFER: usize = 4 << 20;

/// Asks over UDP from a fresh port of 127.0.0.1, with a limit of 5 s.
pub fn ask_udp(server: SocketAddr, query: &[u8]) -> Option<Reply> {
    UdpClient::new().ask(server, query, DEFAULT_TIMEOUT)
}

/// Asks over a fresh TCP connection, with a limit of 5 s; `None` also if the
/// connection is refused or closed.
pub fn ask_tcp(server: SocketAddr, query: &[u8]) -> Option<Reply> {
    TcpClient::connect(server).ok()?.ask(query, DEFAULT_TIMEOUT)
}

/// A UDP socket that sends and receives DNS messages.
pub struct UdpClient {
    socket: UdpSocket,
}

impl UdpClient {
    /// A client on a fresh port of 127.0.0.1.
    pub fn new() -> Self {
        Self::bind((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// A client on a given local address, such as 127.0.0.7:0.
    pub fn bind(local: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None)
            .and_then(|socket| socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER).map(|()| socket))
            .and_then(|socket| socket.bind(&local.into()).map(|()| socket));
        Self {
            socket: socket.unwrap_or_else(|why| panic!("no client can be bound to {local}: {why}")).into(),
        }
    }

    /// Where the client is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    /// Sends a message.
    pub fn send(&self, server: SocketAddr, bytes: &[u8]) {
        self.socket.send_to(bytes, server).unwrap_or_else(|why| panic!("sending to {server} failed: {why}"));
    }

    /// Receives the next message from anybody.
    pub fn recv(&self, timeout: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; 65_536];
        loop {
            self.socket.set_read_timeout(Some(left(deadline))).expect("a timeout can be set");
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => return Some((buffer[..len].to_vec(), from)),
                // An ICMP error of an earlier send, or a signal.
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends a query and waits for the answer with its ID from `server`;
    /// other messages are dropped. Panics on a malformed answer.
    pub fn ask(&self, server: SocketAddr, query: &[u8], timeout: Duration) -> Option<Reply> {
        self.ask_raw(server, query, timeout).map(|bytes| Reply::parse(&bytes))
    }

    /// Like [`ask`](Self::ask), with the answer as bytes.
    pub fn ask_raw(&self, server: SocketAddr, query: &[u8], timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        self.send(server, query);
        loop {
            let (bytes, from) = self.recv(deadline.saturating_duration_since(Instant::now()))?;
            if from == server && bytes.get(..2) == query.get(..2) {
                return Some(bytes);
            }
        }
    }
}

impl Default for UdpClient {
    fn default() -> Self {
        Self::new()
    }
}

/// How a TCP connection ended, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server closed it (FIN).
    Closed,
    /// The server aborted it (RST).
    Reset,
    /// It is still open.
    Open,
}

/// A TCP connection that sends and receives DNS messages.
pub struct TcpClient {
    stream: TcpStream,
    /// Bytes received and not yet taken.
    buffer: Vec<u8>,
    end: End,
}

impl TcpClient {
    /// Connects, with a limit of 5 s.
    pub fn connect(server: SocketAddr) -> io::Result<Self> {
        Self::connected(TcpStream::connect_timeout(&server, DEFAULT_TIMEOUT)?)
    }

    /// Connects from a given local address (port 0: any free one).
    pub fn connect_from(local: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.bind(&local.into())?;
        socket.connect_timeout(&server.into(), DEFAULT_TIMEOUT)?;
        Self::connected(socket.into())
    }

    /// The local end of the connection.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }

    /// Sends a message with its length prefix.
    pub fn send_framed(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(&framed(bytes))
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a message with its length prefix in segments of `chunk_len`
    /// bytes, with a pause between them so that they are read apart.
    pub fn send_in_chunks(&mut self, bytes: &[u8], chunk_len: usize) -> io::Result<()> {
        for chunk in framed(bytes).chunks(chunk_len) {
            self.stream.write_all(chunk)?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Receives the next message, without its length prefix. `None` if the
    /// time is up or the connection ends before the message does; what came
    /// of it is kept for the next call.
    pub fn recv_framed(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(prefix) = self.buffer.get(..2) {
                let end = 2 + usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
                if self.buffer.len() >= end {
                    let bytes = self.buffer[2..end].to_vec();
                    self.buffer.drain(..end);
                    return Some(bytes);
                }
            }
            if !self.read_more(deadline) {
                return None;
            }
        }
    }

    /// Waits for the server to end the connection (FIN or RST); bytes that
    /// come before are thrown away.
    pub fn recv_eof(&mut self, timeout: Duration) -> bool {
        self.recv_end(timeout) != End::Open
    }

    /// Like [`recv_eof`](Self::recv_eof), but tells how it ended.
    pub fn recv_end(&mut self, timeout: Duration) -> End {
        let deadline = Instant::now() + timeout;
        while self.read_more(deadline) {
            self.buffer.clear();
        }
        self.end
    }

    /// Sends a query and waits for the answer with its ID; other messages are
    /// dropped. Panics on a malformed answer.
    pub fn ask(&mut self, query: &[u8], timeout: Duration) -> Option<Reply> {
        let deadline = Instant::now() + timeout;
        self.send_framed(query).ok()?;
        loop {
            let bytes = self.recv_framed(deadline.saturating_duration_since(Instant::now()))?;
            if bytes.get(..2) == query.get(..2) {
                return Some(Reply::parse(&bytes));
            }
        }
    }

    /// Says that nothing more will be sent (FIN) but goes on reading.
    pub fn shutdown_write(&self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Aborts the connection (RST).
    pub fn reset(self) {
        drop(SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)));
    }

    fn connected(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEFAULT_TIMEOUT))?;
        Ok(Self { stream, buffer: Vec::new(), end: End::Open })
    }

    /// Reads once; `false` if the time is up or the connection has ended.
    fn read_more(&mut self, deadline: Instant) -> bool {
        let mut chunk = [0; 16_384];
        while self.end == End::Open {
            self.stream.set_read_timeout(Some(left(deadline))).expect("a timeout can be set");
            match self.stream.read(&mut chunk) {
                Ok(0) => self.end = End::Closed,
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    return true;
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return false;
                    }
                }
                Err(_) => self.end = End::Reset,
            }
        }
        false
    }
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a TCP message has at most 65535 octets");
    [&len.to_be_bytes(), bytes].concat()
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(MIN_WAIT)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::{TcpClient, UdpClient, ask_tcp};
    use crate::msg::Query;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn local_addresses_are_used() {
        let (server, client) = (UdpClient::new(), UdpClient::bind(([127, 0, 0, 7], 0).into()));
        client.send(server.local_addr(), b"hello");
        assert_eq!(server.recv(LONG), Some((b"hello".to_vec(), client.local_addr())));

        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let local = ([127, 0, 0, 8], 0).into();
        let client = TcpClient::connect_from(local, listener.local_addr().expect("an address"));
        let (_, peer) = listener.accept().expect("a connection");
        assert_eq!(client.expect("connected").local_addr(), peer);
    }

    #[test]
    fn udp_waits_no_longer_than_told() {
        let (silent, client) = (UdpClient::new(), UdpClient::new());
        let start = Instant::now();
        assert!(client.ask(silent.local_addr(), &Query::new("a.", "A").bytes(), SHORT).is_none());
        assert!(start.elapsed() >= SHORT && start.elapsed() < LONG);
        assert!(client.recv(Duration::ZERO).is_none());
    }

    #[test]
    fn a_message_may_come_in_pieces_over_several_calls() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut client = TcpClient::connect(listener.local_addr().expect("an address")).expect("connected");
        let (mut server, _) = listener.accept().expect("a connection");
        server.write_all(b"\0\x05he").expect("sent");
        assert_eq!(client.recv_framed(SHORT), None);
        server.write_all(b"llo\0\x02me\0").expect("sent");
        assert_eq!(client.recv_framed(LONG), Some(b"hello".to_vec()));
        assert_eq!(client.recv_framed(LONG), Some(b"me".to_vec()));
        assert!(!client.recv_eof(SHORT));
        drop(server);
        assert!(client.recv_eof(LONG));
    }

    #[test]
    fn a_refused_connection_is_no_answer() {
        let port = crate::free_port();
        assert!(ask_tcp(([127, 0, 0, 1], port).into(), &Query::new("a.", "A").bytes()).is_none());
    }
}
