//! Listening sockets for the HTTP endpoints, and what to say when there is none.
//!
//! Every socket is reusable, so that the next version of the agent can open the same address while this one still serves
//! (the two overlap during an update of the DaemonSet).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::corefile::ListenAddr;

/// Connections the kernel may hold for us. More than are served at once would only wait for longer than a probe does.
const BACKLOG: i32 = 64;

/// An endpoint could not be opened.
#[derive(Debug)]
pub struct BindError {
    /// Where.
    pub addr: ListenAddr,
    /// The paths that were to be served there.
    pub paths: String,
    /// Why not.
    pub cause: io::Error,
}

impl std::fmt::Display for BindError {
    /// One line: what failed, why, and what to do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, advice) = match self.cause.kind() {
            io::ErrorKind::AddrInUse => {
                ("another process has this port", "stop it or write another port in the Corefile")
            }
            io::ErrorKind::AddrNotAvailable => (
                "no interface of this machine has this address",
                "add the address first or correct it in the Corefile",
            ),
            io::ErrorKind::PermissionDenied => {
                ("not permitted", "use a port from 1024 on or grant CAP_NET_BIND_SERVICE")
            }
            _ if self.cause.raw_os_error() == Some(EAFNOSUPPORT) => (
                "this machine has no such address family",
                "write an address of the other one, or only the port",
            ),
            _ => ("the system refused", "check limits on open files and memory, then start again"),
        };
        write!(f, "cannot serve {} on {}: {what}; {advice} ({})", self.paths, self.addr, self.cause)
    }
}

impl std::error::Error for BindError {}

/// A non-blocking listener on `addr`. Without an IP it takes both families with one socket (`[::]`, not v6-only), and IPv4
/// alone where the kernel has no IPv6.
pub fn bind(addr: ListenAddr) -> io::Result<TcpListener> {
    let socket = bound(addr, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether another process serves this address already; [`bind`] would succeed all the same.
pub fn held_by_another(addr: ListenAddr) -> bool {
    addr.port != 0 && bound(addr, false).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn bound(addr: ListenAddr, share: bool) -> io::Result<Socket> {
    match addr.ip {
        Some(ip) => open(SocketAddr::new(ip, addr.port), share),
        None => open(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), addr.port), share).or_else(|error| {
            // Only a missing address family has IPv4 as its remedy; a taken port must be reported.
            match error.raw_os_error() {
                Some(EAFNOSUPPORT | EADDRNOTAVAIL) => {
                    open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port), share)
                }
                _ => Err(error),
            }
        }),
    }
}

/// Linux: the kernel was built or booted without IPv6.
const EAFNOSUPPORT: i32 = 97;
/// Linux: IPv6 is there but switched off by sysctl.
const EADDRNOTAVAIL: i32 = 99;

fn open(addr: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    if !addr.ip().is_unspecified() {
        // As for DNS: the node's address may come after the socket, and go and come again. Where the option is refused,
        // bind() says whether the address is there.
        let _ = if addr.is_ipv6() { socket.set_freebind_v6(true) } else { socket.set_freebind_v4(true) };
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_versions_can_hold_the_same_address() {
        let first = bind(ListenAddr::localhost(0)).expect("a free port");
        let port = first.local_addr().expect("bound").port();
        bind(ListenAddr::localhost(port)).expect("the same port once more");
        assert!(held_by_another(ListenAddr::localhost(port)), "but it can be known");
        drop(first);
        assert!(!held_by_another(ListenAddr::localhost(port)));
    }

    #[test]
    fn an_address_that_comes_later_can_be_bound_now() {
        // TEST-NET-1 (RFC 5737) and the documentation prefix (RFC 3849): nobody has them.
        for ip in ["192.0.2.10", "2001:db8::10"] {
            let addr = ListenAddr { ip: Some(ip.parse().expect("an address")), port: 0 };
            match bind(addr) {
                Ok(listener) => assert_eq!(listener.local_addr().expect("bound").ip().to_string(), ip),
                Err(why) => assert_eq!(why.raw_os_error(), Some(EAFNOSUPPORT), "{ip}: {why}"),
            }
        }
    }

    #[test]
    fn a_port_that_somebody_holds_alone_is_told_in_one_line() {
        let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = ListenAddr::localhost(other.local_addr().expect("bound").port());
        let cause = bind(addr).expect_err("std's listener does not share its port");
        let line = BindError { addr, paths: "/metrics".to_owned(), cause }.to_string();
        assert!(
            line.starts_with(&format!("cannot serve /metrics on {addr}: another process has this port;"))
        );
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn without_an_address_ipv4_clients_are_served_too() {
        let listener = bind(ListenAddr::any(0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("IPv4 reaches it");
    }
}
