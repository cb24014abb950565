//! Interfaces and addresses, over rtnetlink: reading them into [`Observed`](crate::Observed), and carrying out the
//! steps that concern them.
//!
//! Each step can be repeated: what is there already, or gone already, is no error. That makes a half-done earlier
//! run, and somebody who does the same at the same time, an ordinary case.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Handle, LinkDummy, LinkUnspec, LinkVeth};

use crate::desired::Desired;
use crate::observed::{Elsewhere, Link, LinkKind, Mark};
use crate::plan::{LOOPBACK, Step};

/// The label of an IPv4 address that we put on the loopback; `ip address` shows it.
const LABEL: &str = "lo:nodens";
/// The origin of an address that we put on the loopback (`ip address … proto`), where there are no labels. The kernel
/// has its own numbers below 4; any other is free, and this is the letter `n`. Kernels before 5.18 do not keep it.
const PROTOCOL: u8 = b'n';

/// Longest name of an interface, without the zero at its end (`IFNAMSIZ`).
pub const NAME_MAX: usize = 15;

/// The kernel's interfaces and addresses.
pub struct Links {
    handle: Handle,
}

/// What concerns links, as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedLinks {
    /// As in [`Observed`](crate::Observed).
    pub link: Option<Link>,
    /// As in [`Observed`](crate::Observed).
    pub elsewhere: Vec<Elsewhere>,
}

impl Links {
    /// Opens a socket to the kernel; to be called within a tokio runtime, which drives it.
    pub fn open() -> io::Result<Links> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Links { handle })
    }

    /// Reads what there is.
    pub async fn observe(&self, desired: &Desired) -> io::Result<ObservedLinks> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(to_io)?;
        let addresses: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(to_io)?;
        let mut found = ObservedLinks::default();
        for message in &links {
            let index = message.header.index;
            let on_it = addresses.iter().filter(|address| address.header.index == index);
            let name = name(message);
            if name == desired.interface {
                found.link = Some(Link {
                    kind: kind(message, &links),
                    kind_name: kind_name(message),
                    mark: alias(message).and_then(Mark::parse),
                    up: message.header.flags.contains(LinkFlags::Up),
                    addresses: on_it
                        .filter(|address| !is_automatic(address, desired))
                        .filter_map(local)
                        .collect(),
                });
                continue;
            }
            let wished = on_it.filter_map(|message| {
                let address = local(message).filter(|address| desired.addresses.contains(address))?;
                let ours = name == LOOPBACK && is_marked(message);
                Some(Elsewhere { interface: name.to_owned(), address, ours })
            });
            found.elsewhere.extend(wished);
        }
        Ok(found)
    }

    /// Carries out a step; those that concern no link are no error.
    pub async fn apply(&self, step: &Step) -> io::Result<()> {
        let links = self.handle.link();
        match step {
            Step::CreateLink(name, kind) => {
                let message = match kind {
                    LinkKind::Dummy => LinkDummy::new(name).build(),
                    LinkKind::Veth => LinkVeth::new(name, &peer_of(name)).build(),
                };
                unless(links.add(message).execute().await, EEXIST)
            }
            Step::MarkLink(name, mark) => {
                let message = LinkUnspec::new_with_index(self.index(name).await?).alias(mark.to_string());
                links.set(message.build()).execute().await.map_err(to_io)
            }
            Step::SetUp(name) => {
                links.set(up(self.index(name).await?)).execute().await.map_err(to_io)?;
                // An end of a pair is up for its addresses' sake only; its peer is nobody's.
                match self.index(&peer_of(name)).await {
                    Ok(peer) => links.set(up(peer)).execute().await.map_err(to_io),
                    Err(_) => Ok(()),
                }
            }
            Step::AddAddress(name, address) => self.add_address(name, *address).await,
            Step::RemoveAddress(name, address) => self.remove_address(name, *address).await,
            Step::RemoveLink(name) => match self.index(name).await {
                Ok(index) => unless(links.del(index).execute().await, ENODEV),
                Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(()),
                Err(error) => Err(error),
            },
            _ => Ok(()),
        }
    }

    async fn add_address(&self, name: &str, address: IpAddr) -> io::Result<()> {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(self.index(name).await?, address, whole);
        let message = request.message_mut();
        // The address exists on every node, so looking for a second owner on the link makes no sense, and would take
        // a second.
        message.header.flags |= AddressHeaderFlags::Nodad;
        if name == LOOPBACK {
            message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
            if address.is_ipv4() {
                message.attributes.push(AddressAttribute::Label(LABEL.to_owned()));
                // The loopback's own addresses are chosen as source by programs; one of scope `link` is not.
                message.header.scope = AddressScope::Link;
            }
        }
        unless(request.execute().await, EEXIST)
    }

    async fn remove_address(&self, name: &str, address: IpAddr) -> io::Result<()> {
        let index = self.index(name).await?;
        let all = self.handle.address().get().set_link_index_filter(index).execute();
        let all: Vec<AddressMessage> = all.try_collect().await.map_err(to_io)?;
        match all.into_iter().find(|message| local(message) == Some(address)) {
            Some(message) => unless(self.handle.address().del(message).execute().await, EADDRNOTAVAIL),
            None => Ok(()),
        }
    }

    async fn index(&self, name: &str) -> io::Result<u32> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await.map_err(to_io)?;
        found.map(|message| message.header.index).ok_or_else(|| io::Error::from_raw_os_error(ENODEV))
    }
}

/// Whether IPv6 addresses can be added: there is IPv6, and it is not switched off for new interfaces.
pub fn has_ipv6() -> bool {
    let on = |what: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{what}/disable_ipv6");
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0")
    };
    Path::new("/proc/thread-self/net/if_inet6").exists() && on("all") && on("default")
}

/// The other end of a pair that we make.
fn peer_of(name: &str) -> String {
    const SUFFIX: &str = "-p";
    let end = (0..=NAME_MAX - SUFFIX.len()).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{SUFFIX}", &name[..end.min(name.len())])
}

fn up(index: u32) -> LinkMessage {
    LinkUnspec::new_with_index(index).up().build()
}

fn name(message: &LinkMessage) -> &str {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn alias(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
        _ => None,
    })
}

fn info(message: &LinkMessage) -> Option<&InfoKind> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    })
}

fn kind_name(message: &LinkMessage) -> String {
    info(message).map_or_else(|| "a device".to_owned(), ToString::to_string)
}

/// The kind, if it is one that we make. An end of a pair counts only if the other end has the name that we give it.
fn kind(message: &LinkMessage, all: &[LinkMessage]) -> Option<LinkKind> {
    match info(message)? {
        InfoKind::Dummy => Some(LinkKind::Dummy),
        InfoKind::Veth => {
            let peer = message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Link(index) => Some(*index),
                _ => None,
            })?;
            let peer = all.iter().find(|other| other.header.index == peer)?;
            (name(peer) == peer_of(name(message))).then_some(LinkKind::Veth)
        }
        _ => None,
    }
}

/// The address itself. For IPv4 it is the local one: the other attribute is the far end of a point-to-point link.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
    .or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// An address that IPv6 gives to every interface, unless it is one that was asked for.
fn is_automatic(message: &AddressMessage, desired: &Desired) -> bool {
    match local(message) {
        Some(IpAddr::V6(address)) => {
            address.is_unicast_link_local() && !desired.addresses.contains(&IpAddr::V6(address))
        }
        _ => false,
    }
}

/// Whether we put this address on the loopback.
fn is_marked(message: &AddressMessage) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Label(label) => label == LABEL,
        AddressAttribute::Protocol(protocol) => u8::from(*protocol) == PROTOCOL,
        _ => false,
    })
}

/// What the kernel says when something is there already, or not there any more.
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EADDRNOTAVAIL: i32 = 99;

fn unless(result: Result<(), rtnetlink::Error>, expected: i32) -> io::Result<()> {
    match result.map_err(to_io) {
        Err(error) if error.raw_os_error() == Some(expected) => Ok(()),
        result => result,
    }
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_far_end_has_a_name_that_the_kernel_takes() {
        assert_eq!(peer_of("nodelocaldns"), "nodelocaldns-p");
        for name in ["a", "fifteen-letters", "many-more-letters-than-that", "ünïcödé-ünïcödé"] {
            assert!(peer_of(name).len() <= NAME_MAX, "{name}");
        }
    }
}
