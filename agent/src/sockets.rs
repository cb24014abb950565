//! Who listens: the kernel's lists of sockets, and the processes that hold them as far as they can be seen.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a socket carries.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        }
    }

    /// Its lists, of either family.
    const fn lists(self) -> [&'static str; 2] {
        match self {
            Transport::Udp => ["udp", "udp6"],
            Transport::Tcp => ["tcp", "tcp6"],
        }
    }
}

/// A socket that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    /// Its owner.
    pub(crate) uid: u32,
    /// The kernel's number of it.
    pub(crate) inode: u64,
    /// Name and number of the process, if it could be seen.
    pub(crate) process: Option<(String, u32)>,
}

/// States in these lists: TCP that listens, UDP that is connected to nobody.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

/// All of this thread's network namespace.
pub(crate) fn listening() -> Vec<Listening> {
    [Transport::Tcp, Transport::Udp].into_iter().flat_map(listening_over).collect()
}

/// Those of one kind. A list that cannot be read is an empty one.
fn listening_over(transport: Transport) -> Vec<Listening> {
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    transport.lists().into_iter().flat_map(|name| parse(&read(name), transport)).collect()
}

/// Those of `addresses` on which more sockets listen than our `own`: another agent shares them. Whether one is there before ours
/// are bound the kernel tells by refusing to bind alone (`nodens_runtime::listen`).
pub(crate) fn shared(transport: Transport, addresses: &[SocketAddr], own: usize) -> Vec<SocketAddr> {
    let all = listening_over(transport);
    let count = |address: &SocketAddr| all.iter().filter(|socket| socket.address == *address).count();
    addresses.iter().copied().filter(|address| count(address) > own).collect()
}

/// Finds the processes of these sockets. Others' are seen by root only, and in a container with the host's processes.
pub(crate) fn name_processes(sockets: &mut [Listening]) {
    if sockets.is_empty() {
        return;
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        for open in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(open.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            for socket in sockets.iter_mut().filter(|socket| Some(socket.inode) == inode) {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                socket.process = Some((name.trim().to_owned(), id));
            }
        }
    }
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`
fn parse(list: &str, transport: Transport) -> Vec<Listening> {
    let wanted = match transport {
        Transport::Tcp => LISTEN,
        Transport::Udp => UNCONNECTED,
    };
    let line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        if *fields.get(3)? != wanted {
            return None;
        }
        let (address, port) = fields.get(1)?.split_once(':')?;
        Some(Listening {
            transport,
            address: SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?),
            uid: fields.get(7)?.parse().ok()?,
            inode: fields.get(9)?.parse().ok()?,
            process: None,
        })
    };
    list.lines().skip(1).filter_map(line).collect()
}

/// Words of 32 bits, each printed as a number of this machine.
fn ip(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..text.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodens_runtime::socket::{retire_udp_listener, udp_listener};

    #[test]
    fn both_families_are_read_and_connections_are_not_listeners() {
        let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0A14FEA9:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65053        0 12345 1 0 100\n\
             1: 0100007F:0035 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0 100\n\
             2: 0:0 broken\n";
        let found = parse(list, Transport::Tcp);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].address.to_string(), "169.254.20.10:53");
        assert_eq!((found[0].uid, found[0].inode), (65053, 12345));
        assert_eq!(ip("00000000000000000000000001000000"), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(ip("0000"), None);
    }

    #[test]
    fn our_own_sockets_are_found_with_our_name() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let here = udp.local_addr().expect("bound");
        let mut all: Vec<_> = listening().into_iter().filter(|socket| socket.address == here).collect();
        name_processes(&mut all);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].process.as_ref().map(|(_, id)| *id), Some(std::process::id()));
    }

    #[test]
    fn a_socket_beside_our_own_is_seen_until_it_is_retired_or_closed() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let ours = udp_listener(any.parse().expect("an address")).expect("loopback can be bound");
            let address = ours.local_addr().expect("bound");
            let is_shared = || !shared(Transport::Udp, &[address], 1).is_empty();
            assert!(!is_shared());
            let theirs = udp_listener(address).expect("shared");
            assert!(is_shared());
            retire_udp_listener(&theirs).expect("retired");
            assert!(!is_shared());
            let other = udp_listener(address).expect("shared");
            assert!(is_shared());
            drop(other);
            assert!(!is_shared());
        }
    }
}
