//! Answering from the address that was asked, on sockets that listen on all of them (RFC 2181 §4).
//!
//! A socket bound to one address needs none of this. On a wildcard socket the kernel would choose the source of an answer by
//! route, and a client that asked another of our addresses would throw it away. So each datagram brings the address
//! it was sent to, and each answer takes it back along.

use nix::cmsg_space;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage,
    recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

/// A datagram as it arrived.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Datagram {
    /// Its length in bytes; a longer one was cut to the buffer.
    pub len: usize,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The address of ours it was sent to.
    pub local: Option<IpAddr>,
}

/// The memory for control messages, kept by the receiver so that receiving allocates nothing.
#[derive(Debug)]
pub struct Control(Vec<u8>);

impl Default for Control {
    fn default() -> Self {
        // Room for the larger of the two; only one kind ever arrives.
        Control(cmsg_space!(in6_pktinfo))
    }
}

/// Receives one datagram into `buffer`; `WouldBlock` if there is none.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8], control: &mut Control) -> io::Result<Datagram> {
    let mut slices = [IoSliceMut::new(buffer)];
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control.0), MsgFlags::MSG_DONTWAIT)?;
    let peer = message
        .address
        .as_ref()
        .and_then(socket_addr)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a datagram without a sender"))?;
    let local = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr))))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
        }
        _ => None,
    });
    Ok(Datagram { len: message.bytes, peer, local })
}

/// Sends `message` to `peer`, from `local`.
pub fn send(socket: &impl AsFd, message: &[u8], peer: SocketAddr, local: IpAddr) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let slices = [IoSlice::new(message)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let sent = match (local, peer) {
        (IpAddr::V4(local), SocketAddr::V4(peer)) => {
            let info = in_pktinfo {
                // The route decides the interface; only the source is ours to choose.
                ipi_ifindex: 0,
                ipi_spec_dst: nix::libc::in_addr { s_addr: local.to_bits().to_be() },
                ipi_addr: nix::libc::in_addr { s_addr: 0 },
            };
            let peer = SockaddrIn::from(peer);
            sendmsg(fd, &slices, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&peer))?
        }
        (IpAddr::V6(local), SocketAddr::V6(peer)) => {
            // A link-local source is valid on the client's link only, and the peer's scope names that.
            let info = in6_pktinfo {
                ipi6_ifindex: peer.scope_id(),
                ipi6_addr: nix::libc::in6_addr { s6_addr: local.octets() },
            };
            let peer = SockaddrIn6::from(peer);
            sendmsg(fd, &slices, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&peer))?
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "addresses of two families")),
    };
    Ok(sent)
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    debug_assert!(address.len() > 0);
    let v4 = address.as_sockaddr_in().map(|a| SocketAddrV4::from(*a).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddrV6::from(*a).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::udp_listener;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn answered_from(wildcard: &str, asked: IpAddr) -> SocketAddr {
        let listener = udp_listener(SocketAddr::new(wildcard.parse().expect("an address"), 0)).expect("bind");
        let target = SocketAddr::new(asked, listener.local_addr().expect("bound").port());
        let client = UdpSocket::bind((wildcard, 0)).expect("bind");
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("an option");
        client.send_to(b"query", target).expect("send");
        let mut buffer = [0; 16];
        let datagram =
            receive(&listener, &mut buffer, &mut Control::default()).expect("loopback is immediate");
        assert_eq!((datagram.len, datagram.local), (5, Some(asked)));
        send(&listener, b"answer", datagram.peer, asked).expect("send");
        client.recv_from(&mut buffer).expect("an answer").1
    }

    #[test]
    fn c_reply_source_is_the_address_asked_ipv4() {
        // All of 127/8 is local; route choice alone would answer from 127.0.0.1.
        let asked = IpAddr::from([127, 9, 8, 7]);
        assert_eq!(answered_from("0.0.0.0", asked).ip(), asked);
    }

    #[test]
    fn c_reply_source_is_the_address_asked_ipv6() {
        if UdpSocket::bind("[::1]:0").is_err() {
            return; // a machine without IPv6
        }
        let asked = IpAddr::from(Ipv6Addr::LOCALHOST);
        assert_eq!(answered_from("::", asked).ip(), asked);
    }

    #[test]
    fn nothing_to_receive_would_block() {
        let listener = udp_listener("0.0.0.0:0".parse().expect("an address")).expect("bind");
        let error = receive(&listener, &mut [0; 16], &mut Control::default()).expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
