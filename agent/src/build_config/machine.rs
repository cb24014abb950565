//! What the conversion asks this machine: interfaces and whether there is IPv6.

use std::net::IpAddr;

use socket2::{Domain, Socket, Type};

/// Whether sockets for IPv6 can be had.
pub fn has_ipv6() -> bool {
    Socket::new(Domain::IPV6, Type::DGRAM, None).is_ok()
}

/// The addresses of an interface; `None` if there is none of that name. IPv6 link-local addresses are left out: they
/// mean nothing without the interface, so no Pod could be told to ask them.
pub fn interface_addresses(name: &str) -> Option<Vec<IpAddr>> {
    let mut found = None;
    for entry in nix::ifaddrs::getifaddrs().ok()?.filter(|entry| entry.interface_name == name) {
        let addresses: &mut Vec<IpAddr> = found.get_or_insert_default();
        let Some(address) = entry.address else { continue };
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (None, Some(v6)) if !v6.ip().is_unicast_link_local() => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m66_the_loopback_has_its_address_and_an_unknown_interface_nothing() {
        assert!(interface_addresses("lo").is_some_and(|ips| ips.contains(&IpAddr::from([127, 0, 0, 1]))));
        assert_eq!(interface_addresses("no-such-interface"), None);
    }
}
