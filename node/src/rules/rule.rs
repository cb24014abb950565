//! A packet rule as a value, and which of them a wish needs. Both back ends write the same values, each in its own
//! language.
//!
//! Connection tracking is skipped for the node's own DNS in both directions: it costs a table entry for each query,
//! and its races are what made people want a DNS server on each node. Skipping it skips the translation of Service
//! addresses with it. So on a Service's address (`-localip 169.254.20.10,10.96.0.10`) the same rule is what takes
//! Pods to us instead of to kube-dns, and must be valid only while somebody listens: the kernel itself looks for the
//! socket, and without one the packet goes the way it would go without us.
//!
//! Over TCP not every packet of a connection finds a socket that knows what it is bound to: the handshake's last packet
//! finds a request, those after the end a remainder. So there any socket will do, after another rule has spared what a
//! socket for all addresses would get: that is another server's.
//!
//! The node's own programs leave through `output`, where the kernel knows the sender's socket and not the receiver's,
//! so that condition cannot be had there. To a Service's address they are therefore never taken over: kube-proxy
//! serves them as before.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::desired::{Ports, RulesWish, is_own};

use super::BackEnd;

/// The comment node-cache writes on rules that skip connection tracking.
pub const SKIP_COMMENT: &str = "NodeLocal DNS Cache: skip conntrack";
/// The comment node-cache writes on rules that let packets through.
pub const ALLOW_COMMENT: &str = "NodeLocal DNS Cache: allow DNS traffic";

/// Conntrack zone of the first address that is forwarded; the next address has the next. Zones keep the flows of two worlds
/// apart, and any number that nobody else uses will do: these are the letters `nd`.
const ZONE_FIRST: u16 = 0x6e64;

/// One rule: which packets, and what becomes of them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where packets are looked at.
    pub chain: Chain,
    /// UDP or TCP.
    pub transport: Transport,
    /// Which end of the packet the address is.
    pub side: Side,
    /// The address.
    pub address: IpAddr,
    /// The port at the same end.
    pub port: u16,
    /// What becomes of them.
    pub action: Action,
}

/// Where packets are looked at: netfilter's hooks. All but `Allow` rules look before connection tracking does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Packets that come in.
    Prerouting,
    /// Packets to this node.
    Input,
    /// Packets of this node.
    Output,
    /// Packets that go out, after address translation.
    Postrouting,
}

impl Chain {
    /// The name in a table of our own.
    pub const fn name(self) -> &'static str {
        match self {
            Chain::Prerouting => "prerouting",
            Chain::Input => "input",
            Chain::Output => "output",
            Chain::Postrouting => "postrouting",
        }
    }
}

/// The transports of DNS.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP
    Udp,
    /// TCP
    Tcp,
}

impl Transport {
    /// Both, as node-cache orders them.
    pub const ALL: [Transport; 2] = [Transport::Tcp, Transport::Udp];

    /// As in `-p`.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }

    /// The protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Transport::Udp => 17,
            Transport::Tcp => 6,
        }
    }
}

/// The ends of a packet.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Destination,
}

/// What becomes of a packet.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connection tracking is skipped.
    SkipConntrack {
        /// Only while a socket would get it; over UDP one that is bound to exactly that address.
        while_listening: bool,
    },
    /// No other rule of ours concerns it, if a socket would get it that is bound to no address.
    Spare,
    /// It passes, whatever later rules of this chain say.
    Allow,
    /// It goes to this server instead, in a conntrack zone of its own.
    ForwardTo(SocketAddr, u16),
    /// It is an answer to a packet of that zone, and gets back the address and port that were asked.
    AnswerAs(SocketAddr, u16),
}

/// The rules that `wish` needs for these addresses. A second value for each address of a Service that this back end
/// cannot take over safely is a line to say.
pub fn rules_for(wish: &RulesWish, addresses: &[IpAddr], back_end: BackEnd) -> (Vec<Rule>, Vec<String>) {
    let mut remarks = Vec::new();
    let rules = match wish {
        RulesWish::LeaveAlone | RulesWish::Absent => Vec::new(),
        RulesWish::Serve(ports) => addresses
            .iter()
            .flat_map(|address| match back_end {
                BackEnd::Nftables => serve(*address, *ports),
                BackEnd::Iptables => serve_as_node_cache(*address, *ports),
            })
            .collect(),
        RulesWish::Forward { ports, upstreams } => {
            // It cannot: what a rule of its table `nat` has translated, kube-proxy's rules do not see any more. nftables does it
            // beside it, see `Node::reach`.
            if back_end == BackEnd::Iptables {
                return (Vec::new(), remarks);
            }
            let mut rules = Vec::new();
            for (zone, address) in (ZONE_FIRST..).zip(addresses) {
                let usable =
                    |to: &&SocketAddr| to.is_ipv4() == address.is_ipv4() && !addresses.contains(&to.ip());
                match upstreams.iter().find(usable) {
                    Some(upstream) => rules.extend(forward(*address, *ports, *upstream, zone)),
                    None => remarks.push(format!(
                        "-forwardonexit: no upstream is of the family of {address}; its queries are refused while the agent \
                         is away"
                    )),
                }
            }
            rules
        }
    };
    (rules, remarks)
}

fn serve(address: IpAddr, ports: Ports) -> Vec<Rule> {
    let own = is_own(address);
    let skip = Action::SkipConntrack { while_listening: false };
    let rule = |chain, transport, side, port, action| Rule { chain, transport, side, address, port, action };
    let mut rules = Vec::new();
    for transport in Transport::ALL {
        if transport == Transport::Tcp && !own {
            rules.push(rule(Chain::Prerouting, transport, Side::Destination, ports.dns, Action::Spare));
        }
        let asked = Action::SkipConntrack { while_listening: !own };
        rules.push(rule(Chain::Prerouting, transport, Side::Destination, ports.dns, asked));
        rules.push(rule(Chain::Output, transport, Side::Source, ports.dns, skip));
        if own {
            rules.push(rule(Chain::Output, transport, Side::Destination, ports.dns, skip));
        }
    }
    for side in [Side::Destination, Side::Source].into_iter().filter(|_| own) {
        rules.push(rule(Chain::Output, Transport::Tcp, side, ports.health, skip));
    }
    rules
}

/// Exactly node-cache's, in its order. It takes over a Service's address without a condition.
fn serve_as_node_cache(address: IpAddr, ports: Ports) -> Vec<Rule> {
    let skip = Action::SkipConntrack { while_listening: false };
    let both = [
        (Chain::Prerouting, Side::Destination, ports.dns, skip),
        (Chain::Input, Side::Destination, ports.dns, Action::Allow),
        (Chain::Output, Side::Source, ports.dns, skip),
        (Chain::Output, Side::Source, ports.dns, Action::Allow),
        (Chain::Output, Side::Destination, ports.dns, skip),
    ];
    let for_both = both.into_iter().flat_map(|(chain, side, port, action)| {
        Transport::ALL.map(|transport| Rule { chain, transport, side, address, port, action })
    });
    let probe = [Side::Destination, Side::Source].map(|side| Rule {
        chain: Chain::Output,
        transport: Transport::Tcp,
        side,
        address,
        port: ports.health,
        action: skip,
    });
    for_both.chain(probe).collect()
}

fn forward(address: IpAddr, ports: Ports, upstream: SocketAddr, zone: u16) -> Vec<Rule> {
    let asked = SocketAddr::new(address, ports.dns);
    let rules = Transport::ALL.map(|transport| {
        let there = Rule {
            chain: Chain::Prerouting,
            transport,
            side: Side::Destination,
            address,
            port: ports.dns,
            action: Action::ForwardTo(upstream, zone),
        };
        let back = Rule {
            chain: Chain::Postrouting,
            transport,
            side: Side::Source,
            address: upstream.ip(),
            port: upstream.port(),
            action: Action::AnswerAs(asked, zone),
        };
        [there, back]
    });
    rules.into_iter().flatten().collect()
}

impl Rule {
    /// The comment on it.
    pub const fn comment(&self) -> &'static str {
        match self.action {
            Action::SkipConntrack { .. } => SKIP_COMMENT,
            Action::Allow => ALLOW_COMMENT,
            Action::Spare => "nodens: another server's",
            Action::ForwardTo(..) | Action::AnswerAs(..) => "nodens: forward while the agent is away",
        }
    }
}

impl fmt::Display for Rule {
    /// Near to how `nft` and `iptables` print it, so that one can be found in the other.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, port) = match self.side {
            Side::Source => ("saddr", "sport"),
            Side::Destination => ("daddr", "dport"),
        };
        let family = if self.address.is_ipv4() { "ip" } else { "ip6" };
        let (chain, transport) = (self.chain.name(), self.transport.name());
        write!(f, "{chain}: {family} {address} {} {transport} {port} {} ", self.address, self.port)?;
        match self.action {
            Action::SkipConntrack { while_listening: false } => f.write_str("notrack"),
            Action::SkipConntrack { while_listening: true } => f.write_str("if a socket listens: notrack"),
            Action::Allow => f.write_str("accept"),
            Action::Spare => f.write_str("if a socket listens on every address: as without us"),
            Action::ForwardTo(upstream, zone) => write!(f, "to {upstream} in zone {zone}"),
            Action::AnswerAs(asked, zone) => write!(f, "in zone {zone}: as {asked}"),
        }
    }
}

/// A rule of ours that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundRule {
    /// One that can be wished for.
    Known(Rule),
    /// One that carries our comment and that nobody wishes any more; the text is how its back end names it.
    Stale(String),
}

impl fmt::Display for FoundRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FoundRule::Known(rule) => rule.fmt(f),
            FoundRule::Stale(text) => f.write_str(text),
        }
    }
}
