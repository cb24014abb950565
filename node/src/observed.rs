//! What the node is like: the part of the kernel's state that a plan needs, as plain values.
//!
//! Read by `link`, `rules` and `icmp`, made up by tests. Nothing here asks the kernel.

use std::fmt;
use std::net::IpAddr;

use crate::rules::{BackEnd, FoundRule};

/// The node as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The interface that has our name, if there is one.
    pub link: Option<Link>,
    /// The last mark of ours that this process saw or wrote: what it remembers outlives an interface that others delete.
    pub last_mark: Option<Mark>,
    /// Wished addresses on interfaces of other names.
    pub elsewhere: Vec<Elsewhere>,
    /// Kinds of links that this kernel was found not to have, so that asking again is useless.
    pub missing_kinds: Vec<LinkKind>,
    /// Whether IPv6 is switched on.
    pub ipv6: bool,
    /// Packet rules; `None` if nobody looked, or no back end works.
    pub rules: Option<ObservedRules>,
    /// The ICMP limits that there are.
    pub icmp: Vec<IcmpLimit>,
}

/// The kinds of links that can carry the addresses; the order of preference.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A dummy: made for this.
    Dummy,
    /// A pair of virtual Ethernet ends, where the kernel has no dummy driver.
    Veth,
}

impl LinkKind {
    /// All, best first.
    pub const ALL: [LinkKind; 2] = [LinkKind::Dummy, LinkKind::Veth];
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkKind::Dummy => "dummy",
            LinkKind::Veth => "veth",
        })
    }
}

/// The interface with our name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// `None`: a kind that we never make.
    pub kind: Option<LinkKind>,
    /// What the kernel calls its kind; for texts.
    pub kind_name: String,
    /// Our mark, if it has one.
    pub mark: Option<Mark>,
    /// Whether it is switched on.
    pub up: bool,
    /// Its addresses, without those that IPv6 gives every interface by itself.
    pub addresses: Vec<IpAddr>,
}

/// What we write on an interface of ours, in the field that `ip link` shows as `alias`. It says that the interface may be
/// removed, and what was changed on the node that an end of nodens has to restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// ICMP limits as they were before us.
    pub icmp: Vec<(IcmpFamily, String)>,
}

/// The first word of a mark.
const MARK: &str = "nodens";

impl Mark {
    /// Reads an alias; `None` if it is not our mark.
    pub fn parse(alias: &str) -> Option<Mark> {
        let mut words = alias.split_whitespace();
        if words.next() != Some(MARK) {
            return None;
        }
        let icmp = words.filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            let family = IcmpFamily::ALL.into_iter().find(|family| family.key() == name)?;
            Some((family, value.to_owned()))
        });
        Some(Mark { icmp: icmp.collect() })
    }

    /// The limit of this family as it was before us.
    pub fn icmp(&self, family: IcmpFamily) -> Option<&str> {
        self.icmp.iter().find(|(of, _)| *of == family).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)?;
        self.icmp.iter().try_for_each(|(family, value)| write!(f, " {}={value}", family.key()))
    }
}

/// A wished address on another interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Put there by us: on the loopback, where no link could be made.
    pub ours: bool,
}

/// The two limits on ICMP errors.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum IcmpFamily {
    /// `net.ipv4.icmp_ratemask`
    V4,
    /// `net.ipv6.icmp.ratemask`
    V6,
}

impl IcmpFamily {
    /// Both.
    pub const ALL: [IcmpFamily; 2] = [IcmpFamily::V4, IcmpFamily::V6];

    /// Its name in a mark.
    const fn key(self) -> &'static str {
        match self {
            IcmpFamily::V4 => "icmp_ratemask",
            IcmpFamily::V6 => "icmp6_ratemask",
        }
    }

    /// Its file, below `/proc/sys/net`.
    pub const fn path(self) -> &'static str {
        match self {
            IcmpFamily::V4 => "ipv4/icmp_ratemask",
            IcmpFamily::V6 => "ipv6/icmp/ratemask",
        }
    }
}

impl fmt::Display for IcmpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IcmpFamily::V4 => "net.ipv4.icmp_ratemask",
            IcmpFamily::V6 => "net.ipv6.icmp.ratemask",
        })
    }
}

/// One limit as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpLimit {
    /// Which.
    pub family: IcmpFamily,
    /// The kernel's text.
    pub value: String,
}

/// The packet rules as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRules {
    /// What reads and writes them.
    pub back_end: BackEnd,
    /// Whether there is anything of ours at all, be it an empty table.
    pub present: bool,
    /// Our rules; twice if a rule is there twice.
    pub rules: Vec<FoundRule>,
    /// What others put where only our things should be.
    pub foreign: Vec<String>,
}
