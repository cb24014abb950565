//! What there is to know about a node, as values: read by `observe`, made up by tests.

pub(super) use crate::sockets::{Listening, Transport};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodens_node::observed::IcmpLimit;

/// Everything that checks look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Why there is no Corefile to go by.
    pub(super) no_corefile: Option<String>,
    /// Addresses that Pods ask (`-localip`).
    pub(super) addresses: Vec<IpAddr>,
    pub(super) dns_port: u16,
    /// Effective.
    pub(super) uid: u32,
    /// The kernel's release.
    pub(super) kernel: String,
    pub(super) io_uring: IoUring,
    /// `-runtime uring`.
    pub(super) io_uring_asked: bool,
    pub(super) dummy: Dummy,
    /// What the agent listens on, or will.
    pub(super) wanted: Vec<Wanted>,
    /// Who listens on this node.
    pub(super) listening: Vec<Listening>,
    pub(super) node: Side,
    pub(super) links: Vec<String>,
    /// Addresses of IPVS' interface: those of Services.
    pub(super) ipvs: Vec<IpAddr>,
    /// Chains of nftables: family, table and name. `None`: they may not be read.
    pub(super) chains: Option<Vec<String>>,
    /// Tables of the older iptables.
    pub(super) legacy_tables: Vec<String>,
    /// Configurations of the network plug-in: file and text.
    pub(super) cni: Vec<(String, String)>,
    pub(super) icmp: Vec<IcmpLimit>,
    /// The node's resolv.conf.
    pub(super) resolv_conf: Option<String>,
    pub(super) upstreams: Vec<Upstream>,
}

/// io_uring, tried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum IoUring {
    #[default]
    Works,
    /// This build goes without.
    #[cfg(not(feature = "uring"))]
    NotBuilt,
    /// Which step failed, who is probably in the way and what to do.
    Unavailable(String),
}

/// The driver for dummy interfaces.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Dummy {
    /// In the kernel.
    Loaded,
    /// The kernel loads it when it is needed.
    Loadable,
    /// Not among this kernel's modules.
    Missing,
    /// The list of modules is not to be seen from here.
    #[default]
    Unknown,
}

/// A socket that the agent needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What for.
    pub(super) purpose: &'static str,
    pub(super) transport: Transport,
    /// `None`: all.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    /// The agent does not start without it.
    pub(super) is_vital: bool,
}

/// Interface and rules, as the agent would see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// An agent looks after it.
    pub(super) is_looked_after: bool,
    /// Wished addresses on other interfaces: address and interface.
    pub(super) elsewhere: Vec<(IpAddr, String)>,
    /// An interface has our name and is not ours: what it is.
    pub(super) foreign: Option<String>,
    /// What is missing: interface, then rules.
    pub(super) link_steps: Vec<String>,
    pub(super) rule_steps: Vec<String>,
    /// What was found and would be left alone.
    pub(super) remarks: Vec<String>,
    /// What could not be looked at.
    pub(super) failures: Vec<String>,
    /// The back end, and why.
    pub(super) back_end: Option<String>,
}

/// An upstream of the Corefile, asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// The Corefile says `force_tcp`.
    pub(super) over_tcp: bool,
    /// The domain that was asked about.
    pub(super) domain: String,
    pub(super) udp: Asked,
    pub(super) tcp: Asked,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// An answer with this code.
    Answer { code: String, is_good: bool, took: Duration },
    /// The question went out, and nothing came back.
    Silent,
    /// It did not even go out, or was refused.
    Unreachable(String),
}
