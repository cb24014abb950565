//! What the node should be like: the command line, as far as it concerns the node.
//!
//! Three things are wished for independently of each other: an interface with addresses, packet rules, and an ICMP
//! limit that lets errors through. Each can be wished there, wished away, or none of our business; that last one is
//! what `-setupinterface=false` and `-setupiptables=false` mean.

use std::net::{IpAddr, SocketAddr};

/// Whether something is to be there.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Neither made nor removed, whatever is found.
    #[default]
    LeaveAlone,
    /// Made if it is missing.
    Present,
    /// Removed if it is ours.
    Absent,
}

/// The node as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Name of the interface (`-interfacename`).
    pub interface: String,
    /// Addresses it carries (`-localip`), of both families.
    pub addresses: Vec<IpAddr>,
    /// Whether they are to be on this node.
    pub link: Wish,
    /// What is to become of packets to and from these addresses.
    pub rules: RulesWish,
    /// Whether the kernel's limit on ICMP errors is to let port unreachables through; `Absent` restores what was
    /// there before us.
    pub unthrottled: Wish,
}

/// What is to become of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RulesWish {
    /// None of our business.
    #[default]
    LeaveAlone,
    /// No rule of ours.
    Absent,
    /// The agent serves.
    Serve(Ports),
    /// The agent is away: queries go to the first of these servers that is of the address's family.
    Forward {
        /// The ports that Pods ask.
        ports: Ports,
        /// Servers to send them to.
        upstreams: Vec<SocketAddr>,
    },
}

/// The ports that rules are about.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// DNS (`-dns.port`).
    pub dns: u16,
    /// The kubelet's probe (`-health-port`).
    pub health: u16,
}

impl Desired {
    /// The same node without anything of ours; what is none of our business stays that.
    pub fn removed(&self) -> Desired {
        let absent = |wish| if wish == Wish::LeaveAlone { Wish::LeaveAlone } else { Wish::Absent };
        let rules = match self.rules {
            RulesWish::LeaveAlone => RulesWish::LeaveAlone,
            _ => RulesWish::Absent,
        };
        Desired { link: absent(self.link), rules, unthrottled: absent(self.unthrottled), ..self.clone() }
    }
}

/// An address that only the node itself can have: link-local, so no Service and no other machine ever answers for it.
pub fn is_own(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
