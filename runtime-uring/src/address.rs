//! Addresses as the kernel writes them: socket addresses and packet-info control messages, from bytes and to bytes.
//!
//! A ring receives into plain memory, so the bytes are taken apart here instead of being cast to C structures: no alignment to
//! prove, nothing unsafe. The layouts are those of ip(7), ipv6(7) and cmsg(3) on 64-bit Linux.

use nix::libc::{self, in_pktinfo, in6_pktinfo, sockaddr_in, sockaddr_in6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the larger socket address, the one of IPv6.
pub(crate) const NAME_LEN: usize = size_of::<sockaddr_in6>();
/// Bytes of a control message's head: its length, level and type.
const CONTROL_HEAD: usize = size_of::<libc::cmsghdr>();
/// Bytes of the larger packet-info message, rounded up as the kernel does.
pub(crate) const CONTROL_LEN: usize = CONTROL_HEAD + size_of::<in6_pktinfo>().next_multiple_of(8);

/// Reads a socket address.
pub(crate) fn read_name(name: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(array(name, 2)?);
    match i32::from(u16::from_ne_bytes(array(name, 0)?)) {
        libc::AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(array::<4>(name, 4)?), port).into()),
        libc::AF_INET6 => {
            let flow = u32::from_ne_bytes(array(name, 4)?);
            let scope = u32::from_ne_bytes(array(name, 24)?);
            Some(SocketAddrV6::new(Ipv6Addr::from(array::<16>(name, 8)?), port, flow, scope).into())
        }
        _ => None,
    }
}

/// Writes a socket address; returns its length.
pub(crate) fn write_name(address: SocketAddr, name: &mut [u8; NAME_LEN]) -> usize {
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&address.ip().octets());
            name[8..16].fill(0);
            size_of::<sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&address.flowinfo().to_ne_bytes());
            name[8..24].copy_from_slice(&address.ip().octets());
            name[24..].copy_from_slice(&address.scope_id().to_ne_bytes());
            size_of::<sockaddr_in6>()
        }
    }
}

/// Finds the address of ours that a datagram was sent to.
pub(crate) fn read_packet_info(mut control: &[u8]) -> Option<IpAddr> {
    loop {
        let len = usize::from_ne_bytes(array(control, 0)?);
        let level = i32::from_ne_bytes(array(control, 8)?);
        let kind = i32::from_ne_bytes(array(control, 12)?);
        let data = control.get(CONTROL_HEAD..len)?;
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                return Some(Ipv4Addr::from(array::<4>(data, 8)?).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                return Some(Ipv6Addr::from(array::<16>(data, 0)?).into());
            }
            _ => control = control.get(len.next_multiple_of(8)..)?,
        }
    }
}

/// Writes the control message that makes an answer leave from `local`; returns its length. Nothing is written if the two are of
/// different families: the kernel then chooses, as for any datagram.
pub(crate) fn write_packet_info(local: IpAddr, peer: SocketAddr, control: &mut [u8; CONTROL_LEN]) -> usize {
    let (level, kind, data_len) = match (local, peer) {
        (IpAddr::V4(local), SocketAddr::V4(_)) => {
            // The route decides the interface (0); the source is `ipi_spec_dst`, the second field.
            control[CONTROL_HEAD..].fill(0);
            control[CONTROL_HEAD + 4..CONTROL_HEAD + 8].copy_from_slice(&local.octets());
            (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<in_pktinfo>())
        }
        (IpAddr::V6(local), SocketAddr::V6(peer)) => {
            // A link-local source is valid on the client's link only, and the peer's scope names that.
            control[CONTROL_HEAD..CONTROL_HEAD + 16].copy_from_slice(&local.octets());
            control[CONTROL_HEAD + 16..CONTROL_HEAD + 20].copy_from_slice(&peer.scope_id().to_ne_bytes());
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of::<in6_pktinfo>())
        }
        _ => return 0,
    };
    control[..8].copy_from_slice(&(CONTROL_HEAD + data_len).to_ne_bytes());
    control[8..12].copy_from_slice(&level.to_ne_bytes());
    control[12..16].copy_from_slice(&kind.to_ne_bytes());
    CONTROL_HEAD + data_len.next_multiple_of(8)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockAddr;

    const ADDRESSES: [&str; 3] = ["192.0.2.1:53", "[2001:db8::7]:65535", "[fe80::1%3]:1"];

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for address in ADDRESSES {
            let address: SocketAddr = address.parse().expect("an address");
            let mut name = [0xff; NAME_LEN];
            let len = write_name(address, &mut name);
            let expected = SockAddr::from(address);
            assert_eq!(len, expected.len() as usize);
            assert_eq!(read_name(&name[..len]), Some(address));
            assert_eq!(format!("{:?}", expected.as_socket()), format!("{:?}", read_name(&name[..len])));
        }
    }

    #[test]
    fn what_is_cut_short_or_of_another_family_is_no_address() {
        let mut name = [0; NAME_LEN];
        let len = write_name(ADDRESSES[1].parse().expect("an address"), &mut name);
        assert_eq!(read_name(&name[..len - 1]), None);
        assert_eq!(read_name(&[]), None);
        assert_eq!(read_name(&[libc::AF_UNIX as u8; 28]), None);
    }

    #[test]
    fn packet_info_of_ipv6_comes_back_and_that_of_ipv4_is_in_the_field_for_sending() {
        let mut control = [0xff; CONTROL_LEN];
        let local: IpAddr = "2001:db8::1".parse().expect("an address");
        let len = write_packet_info(local, ADDRESSES[1].parse().expect("an address"), &mut control);
        assert_eq!((len, read_packet_info(&control[..len])), (CONTROL_LEN, Some(local)));
        let len = write_packet_info([192, 0, 2, 9].into(), ADDRESSES[0].parse().expect("one"), &mut control);
        assert_eq!(control[CONTROL_HEAD..CONTROL_HEAD + 12], [0, 0, 0, 0, 192, 0, 2, 9, 0, 0, 0, 0]);
        assert_eq!(len, 32);
        assert_eq!(write_packet_info(local, ADDRESSES[0].parse().expect("one"), &mut control), 0);
    }

    #[test]
    fn foreign_control_messages_are_passed_over_and_broken_ones_end_the_search() {
        let mut control = vec![0; 24];
        control[..8].copy_from_slice(&20usize.to_ne_bytes());
        let mut info = [0; CONTROL_LEN];
        let local: IpAddr = "2001:db8::1".parse().expect("an address");
        write_packet_info(local, ADDRESSES[1].parse().expect("an address"), &mut info);
        control.extend(info);
        assert_eq!(read_packet_info(&control), Some(local));
        // A length of zero must not be walked for ever.
        assert_eq!(read_packet_info(&[0; 64]), None);
    }
}
