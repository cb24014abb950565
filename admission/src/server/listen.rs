//! Listening sockets, and what to say when there is none.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::limits::BACKLOG;

/// Where to listen: `:8443`, `8443`, `127.0.0.1:8443`, `[::1]:8443`. Port 0 lets the system choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// None: every address of either family.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl ListenAddress {
    /// Every address of this machine.
    pub const fn any(port: u16) -> Self {
        Self { ip: None, port }
    }

    /// Reads one of the forms above; the error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse::<u16>().ok();
        if let Some(port) = port(text.strip_prefix(':').unwrap_or(text)) {
            return Ok(Self::any(port));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) => Ok(Self { ip: Some(address.ip()), port: address.port() }),
            Err(_) => Err("write :PORT, IPV4:PORT or [IPV6]:PORT".into()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

/// A listener that could not be opened.
#[derive(Debug)]
pub struct BindError {
    address: ListenAddress,
    flag: &'static str,
    cause: io::Error,
}

impl fmt::Display for BindError {
    /// One line: what failed, why, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, advice) = match self.cause.kind() {
            io::ErrorKind::AddrInUse => ("another process has this port", "stop it, or give another"),
            io::ErrorKind::AddrNotAvailable => {
                ("no interface of this machine has this address", "give another")
            }
            io::ErrorKind::PermissionDenied => ("not permitted", "give a port from 1024 on"),
            _ => ("the system refused", "check the limit on open files, or give another"),
        };
        write!(f, "cannot listen on {}: {what}; {advice} with --{} ({})", self.address, self.flag, self.cause)
    }
}

impl std::error::Error for BindError {}

/// Linux: the kernel was built or booted without IPv6.
const EAFNOSUPPORT: i32 = 97;
/// Linux: IPv6 is there but switched off by sysctl.
const EADDRNOTAVAIL: i32 = 99;

/// A non-blocking listener. Without an IP it takes both families with one socket, and IPv4 alone where there is no IPv6. `flag` is what
/// sets the address, for the error.
pub fn bind(address: ListenAddress, flag: &'static str) -> Result<TcpListener, BindError> {
    let (v6, v4) = (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let opened = match address.ip {
        Some(ip) => open(SocketAddr::new(ip, address.port)),
        None => open(SocketAddr::new(v6, address.port)).or_else(|cause| match cause.raw_os_error() {
            // Only a missing family has the other one as its remedy; a taken port must be told.
            Some(EAFNOSUPPORT | EADDRNOTAVAIL) => open(SocketAddr::new(v4, address.port)),
            _ => Err(cause),
        }),
    };
    opened.map_err(|cause| BindError { address, flag, cause })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        for text in [":8443", "127.0.0.1:8443", "[::1]:8443", "0.0.0.0:1"] {
            assert_eq!(ListenAddress::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(ListenAddress::parse("8443"), Ok(ListenAddress::any(8443)));
        for text in ["", ":", ":65536", "localhost:1", "::1:1x", "-1"] {
            assert!(ListenAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_taken_port_is_told_in_one_line() {
        let taken =
            bind(ListenAddress { ip: Some(Ipv4Addr::LOCALHOST.into()), port: 0 }, "listen").expect("a port");
        let local = taken.local_addr().expect("bound");
        let address = ListenAddress { ip: Some(local.ip()), port: local.port() };
        let line = bind(address, "listen").expect_err("it is taken").to_string();
        assert!(
            line.starts_with(&format!("cannot listen on {local}: another process has this port;")),
            "{line}"
        );
        assert!(line.contains("--listen") && line.lines().count() == 1);
    }

    #[test]
    fn without_an_address_ipv4_clients_are_served_too() {
        let listener = bind(ListenAddress::any(0), "listen").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("IPv4 reaches it");
    }
}
