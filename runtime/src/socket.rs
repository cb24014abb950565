//! Sockets, one function per kind, each option with its reason. All are nonblocking and close on exec.
//!
//! IP_MTU_DISCOVER stays at the kernel's default: neither socket2 nor nix can set it without unsafe code, and answers of at
//! most 1232 bytes over UDP fit where it would matter.

use nix::sys::socket::{setsockopt, sockopt};
use nodens_core::{Duration, PathEvent};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

/// Receive buffer of a UDP listener, in bytes: some 1300 small queries (the kernel charges about 800 bytes each), which is
/// what comes in during a 10 ms hiccup at 130 000 queries/s. The kernel lowers it to net.core.rmem_max.
pub const UDP_RECEIVE_BUFFER: usize = 1024 * 1024;
/// Send buffer of a UDP listener, in bytes. On a node's links sending hardly ever waits; this covers a burst of large answers.
pub const UDP_SEND_BUFFER: usize = 1024 * 1024;
/// Connections that may wait for accept(): the cap on clients' connections of a whole process.
pub const TCP_BACKLOG: i32 = 1024;
/// How long data sent to an upstream may stay unacknowledged. Nobody waits for an answer longer than 4.5 s, so a connection that
/// is silent for 5 s is of no more use; the kernel's default is 15 minutes.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// The socket that clients send datagrams to.
pub fn udp_listener(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    prepare_listener(&socket, address)?;
    // One socket per worker, and room for the next version of the agent beside this one.
    socket.set_reuse_port(true)?;
    // Best effort, the kernel has its own ceiling.
    let _ = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_SEND_BUFFER);
    if address.ip().is_unspecified() {
        // Without it we would not know which of our addresses the client asked.
        if address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The socket that clients connect to.
pub fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    prepare_listener(&socket, address)?;
    // As for UDP.
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket.into())
}

/// Whether somebody holds this address: binds a socket that shares it with nobody and drops it again.
pub fn try_alone(kind: Type, address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    prepare_listener(&socket, address)?;
    socket.bind(&address.into())
}

fn prepare_listener(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if socket.r#type()? == Type::STREAM {
        // After a restart, connections of the old process in TIME_WAIT must not keep the port.
        socket.set_reuse_address(true)?;
    }
    // The address may come after the socket, and go and come again. A sandbox without the option can still serve
    // addresses that exist; bind() will say if this one does not.
    if address.is_ipv4() {
        let _ = socket.set_freebind_v4(true);
    } else {
        let _ = socket.set_freebind_v6(true);
        // [::] and 0.0.0.0 are two listeners here, each with addresses of its own family.
        socket.set_only_v6(true)?;
    }
    Ok(())
}

/// Takes a UDP listener out of its reuseport group; what is queued stays readable, and answers can still be sent.
///
/// A connected socket is not considered for other peers' datagrams, so new queries go to the other members of the group or, if
/// there are none, are refused by the kernel at once. The peer is the discard port of the socket's own address,
/// which never sends.
pub fn retire_udp_listener(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let Some(mut peer) = socket.local_addr()?.as_socket() else {
        return Err(ErrorKind::Unsupported.into());
    };
    peer.set_port(9);
    if peer.ip().is_unspecified() {
        peer.set_ip(loopback(peer.ip()));
    }
    socket.connect(&peer.into())
}

/// A socket for one question to one upstream, or a few (RFC 5452 §9.2).
pub fn udp_upstream(upstream: SocketAddr, source_port: Option<u16>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(upstream), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    let local = SocketAddr::new(unspecified(upstream.ip()), source_port.unwrap_or(0));
    socket.bind(&local.into())?;
    // Connected: the kernel drops what others send, and reports ICMP errors.
    socket.connect(&upstream.into())?;
    Ok(socket.into())
}

/// Starts a connection to an upstream. It is there once the stream is writable and `take_error` has nothing to say.
pub fn tcp_upstream(upstream: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(upstream), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A query is one small segment and must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    match socket.connect(&upstream.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(e) => return Err(e),
    }
    Ok(socket.into())
}

/// Sends on a connected socket now, or says `WouldBlock`: for a socket that its event loop has not heard of yet.
pub fn send_now(socket: &impl AsFd, message: &[u8]) -> io::Result<usize> {
    SockRef::from(socket).send_with_flags(message, nix::libc::MSG_NOSIGNAL | nix::libc::MSG_DONTWAIT)
}

/// To be called before a client's connection is closed. A socket that is closed with bytes in it that nobody read answers with a
/// reset, and a reset may overtake answers that are still on their way. So the end is announced first, and what has
/// come in is taken out; at most `LAST_READ_MAX` of it, for a client that goes on sending gets its reset all the same.
pub fn part(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    // A connection that is gone already needs neither.
    let _ = socket.shutdown(Shutdown::Write);
    let mut rest = [MaybeUninit::uninit(); LAST_READ_MAX];
    let _ = socket.recv_with_flags(&mut rest, nix::libc::MSG_DONTWAIT);
}

/// What [`part`] reads, in bytes: a batch of queries.
const LAST_READ_MAX: usize = 16 * 1024;

/// What an error while opening a path, or while sending or receiving on a UDP one, means to the core.
pub fn path_event(error: &io::Error) -> PathEvent {
    match error.kind() {
        ErrorKind::AddrInUse => PathEvent::PortTaken,
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::TimedOut => PathEvent::Refused,
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM and EACCES from packet filters, EADDRNOTAVAIL: nothing the
        // upstream could be blamed for.
        _ => PathEvent::LocalFailure,
    }
}

/// Whether accept() failed for want of descriptors or memory, so that trying again at once is of no use.
pub fn is_exhaustion(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn loopback(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn localhost(port: u16) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    #[test]
    fn a_drawn_source_port_is_used_or_reported_as_taken() {
        let upstream = UdpSocket::bind(localhost(0)).expect("bind").local_addr().expect("bound");
        let holder = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
        let port = holder.local_addr().expect("bound").port();
        let taken = udp_upstream(upstream, Some(port)).expect_err("the port is held");
        assert_eq!(path_event(&taken), PathEvent::PortTaken);
        drop(holder);
        let socket = udp_upstream(upstream, Some(port)).expect("the port is free again");
        assert_eq!(socket.local_addr().expect("bound").port(), port);
    }

    #[test]
    fn a_closed_upstream_port_is_a_refusal() {
        let upstream = UdpSocket::bind(localhost(0)).expect("bind").local_addr().expect("bound");
        let socket = udp_upstream(upstream, None).expect("bind and connect");
        socket.send(b"?").expect("the first send cannot know");
        let mut buffer = [0; 16];
        let error = socket.recv(&mut buffer).expect_err("ICMP port unreachable, at once on loopback");
        assert_eq!(path_event(&error), PathEvent::Refused);
    }

    #[test]
    fn unread_bytes_do_not_turn_the_end_into_a_reset() {
        let listener = TcpListener::bind(localhost(0)).expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        client.write_all(b"more").expect("sent");
        server.peek(&mut [0; 4]).expect("it has arrived");
        server.write_all(b"answer").expect("sent");
        part(&server);
        drop(server);
        let mut all = vec![];
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("an option");
        client.read_to_end(&mut all).expect("an orderly end");
        assert_eq!(all, b"answer");
    }

    #[test]
    fn a_retired_listener_keeps_its_queue_and_leaves_the_rest_to_others() {
        let old = udp_listener(localhost(0)).expect("bind");
        let address = old.local_addr().expect("bound");
        let client = UdpSocket::bind(localhost(0)).expect("bind");
        client.send_to(b"before", address).expect("send");
        let new = udp_listener(address).expect("the port is shared");
        retire_udp_listener(&old).expect("connect");
        for _ in 0..32 {
            client.send_to(b"after", address).expect("send");
        }
        let mut buffer = [0; 16];
        let (len, from) = old.recv_from(&mut buffer).expect("what was queued is still there");
        assert_eq!(&buffer[..len], b"before");
        old.send_to(b"answer", from).expect("it can still send");
        assert_eq!(old.recv_from(&mut buffer).expect_err("nothing new").kind(), ErrorKind::WouldBlock);
        let arrived = std::iter::from_fn(|| new.recv_from(&mut buffer).ok()).count();
        assert_eq!(arrived, 32);
        let (len, _) = client.recv_from(&mut buffer).expect("the answer");
        assert_eq!(&buffer[..len], b"answer");
    }
}
