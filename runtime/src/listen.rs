//! Binding: each address once per worker, UDP and TCP on one port.
//!
//! The sockets of one address form a reuseport group; the kernel spreads datagrams and connections over the workers by the
//! client's address and port. Binding happens before privileges are dropped and before any worker runs, so a failure
//! ends the start with a sentence that says what to do.

use crate::socket;
use nodens_core::{Duration, ListenerId};
use socket2::Type;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// How often another port is tried if port 0 was asked for and the one found for UDP is taken for TCP. Ephemeral ports are
/// nearly all free, so two tries are rare already.
const EPHEMERAL_TRIES: usize = 16;

/// One address as one worker serves it.
#[derive(Debug)]
pub struct BoundListener {
    /// Its index in the configuration.
    pub id: ListenerId,
    /// Where it listens, with the real port.
    pub address: SocketAddr,
    /// The socket for datagrams, nonblocking.
    pub udp: UdpSocket,
    /// The socket for connections, nonblocking.
    pub tcp: TcpListener,
}

impl BoundListener {
    /// Whether answers must say which address they come from (see [`packet_info`](crate::packet_info)).
    pub fn is_wildcard(&self) -> bool {
        self.address.ip().is_unspecified()
    }
}

/// All listeners of all workers.
#[derive(Debug)]
pub struct Listeners {
    addresses: Vec<SocketAddr>,
    workers: Vec<Vec<BoundListener>>,
}

impl Listeners {
    /// Binds every address for every worker. The index of an address becomes its [`ListenerId`]. Port 0 lets the kernel
    /// choose; all sockets of the address then share the port that was found.
    pub fn bind(addresses: &[SocketAddr], workers: usize) -> Result<Listeners, BindError> {
        let places: Vec<_> = addresses.iter().copied().enumerate().collect();
        Listeners::bind_at(&places, workers)
    }

    /// The same with places of the caller's choice: for listeners that come while others are served.
    pub fn bind_at(places: &[(usize, SocketAddr)], workers: usize) -> Result<Listeners, BindError> {
        let mut listeners =
            Listeners { addresses: vec![], workers: (0..workers.max(1)).map(|_| vec![]).collect() };
        for (index, wanted) in places {
            let id = u16::try_from(*index).map(ListenerId).map_err(|_| {
                BindError::new("UDP", *wanted, io::Error::other("it is the 65537th address, one too many"))
            })?;
            let mut address = *wanted;
            for worker in &mut listeners.workers {
                let listener = bind_one(id, address)?;
                address = listener.address;
                worker.push(listener);
            }
            listeners.addresses.push(address);
        }
        Ok(listeners)
    }

    /// The addresses in the order they were given, with real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Further descriptors of all sockets for datagrams.
    pub fn share_udp(&self) -> io::Result<Vec<UdpSocket>> {
        self.workers.iter().flatten().map(|listener| listener.udp.try_clone()).collect()
    }

    /// The sockets, worker by worker.
    pub fn into_workers(self) -> Vec<Vec<BoundListener>> {
        self.workers
    }
}

/// How often, and how long apart, a port that is held is looked at: the kernel lets go of an io_uring's sockets some milliseconds
/// after their process, and who restarts at once has no neighbour.
pub const LOOKS: (u32, Duration) = (5, Duration::from_millis(40));

/// Which of these addresses another process serves already, each with the error that binding alone would have been. Our own sockets
/// share their ports, so that two versions can overlap; then [`Listeners::bind`] succeeds, and each of the two gets a
/// part of the queries. Port 0 is nobody's. A process that has just ended may be among them; see [`LOOKS`].
pub fn held_by_others(addresses: &[SocketAddr]) -> Vec<BindError> {
    addresses.iter().filter_map(|address| held_by_another(*address)).collect()
}

fn held_by_another(address: SocketAddr) -> Option<BindError> {
    if address.port() == 0 {
        return None;
    }
    [("UDP", Type::DGRAM), ("TCP", Type::STREAM)].into_iter().find_map(|(transport, kind)| {
        let cause = socket::try_alone(kind, address).err()?;
        // Anything else binding itself will find and tell.
        (cause.kind() == ErrorKind::AddrInUse).then(|| BindError::new(transport, address, cause))
    })
}

fn bind_one(id: ListenerId, address: SocketAddr) -> Result<BoundListener, BindError> {
    let mut tries = if address.port() == 0 { EPHEMERAL_TRIES } else { 1 };
    loop {
        let udp = socket::udp_listener(address).map_err(|e| BindError::new("UDP", address, e))?;
        let bound = udp.local_addr().map_err(|e| BindError::new("UDP", address, e))?;
        tries -= 1;
        match socket::tcp_listener(bound) {
            Ok(tcp) => return Ok(BoundListener { id, address: bound, udp, tcp }),
            Err(e) if e.kind() == ErrorKind::AddrInUse && tries > 0 => {}
            Err(e) => return Err(BindError::new("TCP", bound, e)),
        }
    }
}

/// A socket could not be bound; says why and what to do.
#[derive(Debug)]
pub struct BindError {
    /// "UDP" or "TCP".
    pub transport: &'static str,
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the kernel said.
    pub cause: io::Error,
}

impl BindError {
    /// The command that names who holds the port.
    pub fn who_holds_it(&self) -> String {
        let option = if self.transport == "UDP" { "-lunp" } else { "-ltnp" };
        format!("ss {option} sport = :{}", self.address.port())
    }

    fn new(transport: &'static str, address: SocketAddr, cause: io::Error) -> Self {
        BindError { transport, address, cause }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindError { transport, address, cause } = self;
        let port = address.port();
        write!(f, "cannot listen on {address} ({transport}): ")?;
        match cause.kind() {
            ErrorKind::AddrInUse => write!(
                f,
                "another program holds the port, perhaps node-cache, dnsmasq or systemd-resolved; \
                 `{}` names it; stop it, or bind another address",
                self.who_holds_it()
            ),
            ErrorKind::PermissionDenied if port < 1024 => write!(
                f,
                "port {port} is privileged; grant CAP_NET_BIND_SERVICE, or listen on a port above 1023 with -dns.port"
            ),
            ErrorKind::AddrNotAvailable => write!(
                f,
                "the address is not on this machine and this kernel does not let a socket wait for it; \
                 add it to an interface first"
            ),
            _ if cause.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
                write!(f, "this machine has no {}; remove the address", family(address))
            }
            ErrorKind::PermissionDenied => {
                write!(f, "forbidden ({cause}); a security policy (SELinux, AppArmor, seccomp) is in the way")
            }
            _ => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

fn family(address: &SocketAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn port_zero_gives_all_workers_and_both_transports_one_port() {
        let listeners = Listeners::bind(&[LOOPBACK, LOOPBACK], 3).expect("loopback can be bound");
        let addresses = listeners.addresses().to_vec();
        assert_ne!(addresses[0].port(), addresses[1].port());
        let workers = listeners.into_workers();
        assert_eq!(workers.len(), 3);
        for listener in workers.iter().flatten() {
            let address = addresses[usize::from(listener.id.0)];
            assert_eq!(listener.udp.local_addr().expect("bound"), address);
            assert_eq!(listener.tcp.local_addr().expect("bound"), address);
        }
    }

    #[test]
    fn a_port_held_by_somebody_else_is_named_with_the_way_to_find_them() {
        let holder = UdpSocket::bind(LOOPBACK).expect("loopback can be bound");
        let address = holder.local_addr().expect("bound");
        let error = Listeners::bind(&[address], 1).expect_err("the port is taken").to_string();
        assert!(error.contains(&format!("`ss -lunp sport = :{}`", address.port())), "{error}");
    }

    #[test]
    fn a_port_that_is_shared_is_noticed_on_both_transports() {
        let udp = socket::udp_listener(LOOPBACK).expect("loopback can be bound");
        let address = udp.local_addr().expect("bound");
        let held = held_by_others(&[LOOPBACK, address]);
        assert_eq!((held.len(), held[0].transport), (1, "UDP"));
        drop(udp);
        let tcp = socket::tcp_listener(address).expect("the port is free again");
        let held = held_by_another(address).expect("it is held");
        assert_eq!((held.transport, held.address), ("TCP", address));
        drop(tcp);
        assert!(held_by_others(&[address, LOOPBACK]).is_empty());
        assert!(Listeners::bind(&[address], 2).is_ok(), "looking leaves nothing behind");
    }

    #[test]
    fn an_address_that_is_not_here_yet_can_be_bound() {
        // TEST-NET-1 is on no machine; the dummy interface may come after the sockets.
        let address = "192.0.2.1:0".parse().expect("an address");
        assert!(Listeners::bind(&[address], 2).is_ok());
    }

    #[test]
    fn a_privileged_port_says_which_capability_is_missing() {
        let address = SocketAddr::from(([127, 0, 0, 1], 53));
        let cause = io::Error::from(ErrorKind::PermissionDenied);
        let text = BindError::new("UDP", address, cause).to_string();
        assert!(text.contains("CAP_NET_BIND_SERVICE") && text.contains("above 1023"), "{text}");
    }
}
