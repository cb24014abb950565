//! The demo's upstream: [`answer`](super::answer()) behind UDP and TCP sockets on the loopback, in a thread of its own.
//!
//! Every answer takes a few milliseconds, as one from another machine would, so that a hit and a miss look different in the
//! status line. The delay is counted, not drawn: two runs of the demo behave alike. No answer waits for another.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::answer::{Transport, answer};
use super::zones::World;

/// The delay of an ordinary answer, in milliseconds, and how many values it takes from there.
const DELAY_MS: u64 = 2;
const DELAYS: u64 = 7;
/// The delay of `slow.example.com`.
const SLOW: Duration = Duration::from_millis(300);
/// Its first label on the wire.
const SLOW_LABEL: &[u8] = b"\x04slow\x07example";
/// Answers under way at once; what is above it is dropped, as an overloaded server does.
const IN_FLIGHT_MAX: usize = 1024;
/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// A connection without a query for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Ports tried until one is free for both UDP and TCP.
const PORT_TRIES: usize = 16;

/// The running upstream. Dropping it stops it.
#[derive(Debug)]
pub struct DemoUpstream {
    /// Where it answers, over UDP and TCP.
    pub addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for DemoUpstream {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts it on a free port of 127.0.0.1.
pub fn start() -> io::Result<DemoUpstream> {
    let (udp, tcp) = bind()?;
    let addr = udp.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("demo-upstream".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let (Ok(udp), Ok(tcp)) = (UdpSocket::from_std(udp), TcpListener::from_std(tcp)) else { return };
            let server = Arc::new(Server::default());
            tokio::select! {
                () = Arc::clone(&server).serve_udp(Arc::new(udp)) => {}
                () = server.serve_tcp(tcp) => {}
                _ = stopped => {}
            }
        });
    })?;
    Ok(DemoUpstream { addr, stop: Some(stop), thread: Some(thread) })
}

fn bind() -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let mut tries = 0;
    loop {
        let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        tries += 1;
        match std::net::TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((udp, tcp));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

struct Server {
    world: World,
    asked: AtomicU64,
    in_flight: Arc<Semaphore>,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            world: World::new(),
            asked: AtomicU64::new(0),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
        }
    }
}

impl Server {
    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = [0; 4096];
        loop {
            // An error here is an ICMP message about an earlier answer: not the next client's business.
            let Ok((len, peer)) = socket.recv_from(&mut buffer).await else { continue };
            let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else { continue };
            let (server, socket, query) = (Arc::clone(&self), Arc::clone(&socket), buffer[..len].to_vec());
            tokio::spawn(async move {
                if let Some(reply) = server.reply(&query, Transport::Udp).await {
                    let _ = socket.send_to(&reply, peer).await;
                }
                drop(permit);
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else { continue };
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                let _ = server.connection(stream).await;
                drop(permit);
            });
        }
    }

    /// Reads queries until the client goes; answers leave as they are ready, in any order (RFC 7766 §6.2.1.1).
    async fn connection(self: Arc<Self>, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut reading, mut writing) = stream.into_split();
        let (replies, mut ready) = mpsc::channel::<Vec<u8>>(IN_FLIGHT_MAX);
        let writer = tokio::spawn(async move {
            while let Some(reply) = ready.recv().await {
                let mut framed = (reply.len() as u16).to_be_bytes().to_vec();
                framed.extend(reply);
                if writing.write_all(&framed).await.is_err() {
                    return;
                }
            }
        });
        while let Ok(Ok(len)) = tokio::time::timeout(IDLE_TIMEOUT, reading.read_u16()).await {
            let mut query = vec![0; usize::from(len)];
            match tokio::time::timeout(IDLE_TIMEOUT, reading.read_exact(&mut query)).await {
                Ok(Ok(_)) => {}
                _ => break,
            }
            let (server, replies) = (Arc::clone(&self), replies.clone());
            let Ok(permit) = Arc::clone(&self.in_flight).acquire_owned().await else { break };
            tokio::spawn(async move {
                if let Some(reply) = server.reply(&query, Transport::Tcp).await {
                    let _ = replies.send(reply).await;
                }
                drop(permit);
            });
        }
        drop(replies);
        let _ = writer.await;
        Ok(())
    }

    async fn reply(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let delay = delay(self.asked.fetch_add(1, Ordering::Relaxed), query);
        tokio::time::sleep(delay).await;
        answer(&self.world, query, transport)
    }
}

/// How long the answer to the `nth` query takes.
fn delay(nth: u64, query: &[u8]) -> Duration {
    let name = query.get(12..).unwrap_or_default();
    if name.len() >= SLOW_LABEL.len() && name[..SLOW_LABEL.len()].eq_ignore_ascii_case(SLOW_LABEL) {
        return SLOW;
    }
    // 3 has no divisor in common with 7: all values come, and neighbours differ.
    Duration::from_millis(DELAY_MS + nth * 3 % DELAYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::Instant;

    const QUERY: &[u8] =
        b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x01\x00\x01";
    const SLOW_QUERY: &[u8] =
        b"\x00\x08\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04SLOW\x07example\x03com\x00\x00\x01\x00\x01";

    #[test]
    fn delays_are_2_to_8_ms_and_slow_is_slow() {
        let delays: Vec<_> = (0..7).map(|nth| delay(nth, QUERY).as_millis()).collect();
        let mut sorted = delays.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(delays, (7..14).map(|nth| delay(nth, QUERY).as_millis()).collect::<Vec<_>>());
        assert_eq!(delay(0, SLOW_QUERY), SLOW);
        assert_eq!(delay(0, b"short").as_millis(), 2);
    }

    #[test]
    fn udp_and_tcp_answer_on_one_port_and_a_slow_answer_holds_up_no_other() {
        let upstream = start().expect("sockets on the loopback");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        udp.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        udp.send_to(SLOW_QUERY, upstream.addr).expect("sent");
        udp.send_to(QUERY, upstream.addr).expect("sent");
        let mut buffer = [0; 1500];
        let ids: Vec<u8> = (0..2)
            .map(|_| {
                udp.recv(&mut buffer).expect("an answer");
                buffer[1]
            })
            .collect();
        assert_eq!(ids, [7, 8]);

        let mut tcp = std::net::TcpStream::connect(upstream.addr).expect("connected");
        tcp.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        for query in [SLOW_QUERY, QUERY] {
            tcp.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).expect("sent");
        }
        let mut ids = Vec::new();
        for _ in 0..2 {
            let mut len = [0; 2];
            tcp.read_exact(&mut len).expect("a length");
            let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
            tcp.read_exact(&mut reply).expect("an answer");
            ids.push(reply[1]);
        }
        assert_eq!(ids, [7, 8]);
    }

    #[test]
    fn dropping_it_ends_it_and_frees_the_port() {
        let upstream = start().expect("sockets on the loopback");
        let addr = upstream.addr;
        let _open = std::net::TcpStream::connect(addr).expect("connected");
        let before = Instant::now();
        drop(upstream);
        assert!(before.elapsed() < Duration::from_secs(2));
        assert!(std::net::UdpSocket::bind(addr).is_ok());
    }
}
