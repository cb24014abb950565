//! What others do to the node, as the kernel tells it: netlink's multicast groups for links, addresses and nftables.
//!
//! A node with many Pods makes and removes links all day, and kube-proxy rewrites its tables; only what names our
//! interface, one of our addresses or a place of our rules wakes anybody. When the kernel had to drop events,
//! anything may have happened, so that is an event too. iptables that writes to the older half of the kernel tells
//! nobody: there the timer is all there is.

use std::io;
use std::net::IpAddr;

use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use crate::desired::Desired;
use crate::netlink::{Reply, attribute, replies, text};
use crate::plan::LOOPBACK;
use crate::rules::BackEnd;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`
const ROUTE_GROUPS: [u32; 3] = [1, 5, 9];
/// `NFNLGRP_NFTABLES`
const NFTABLES_GROUP: u32 = 7;
/// Room for events: about 2 000 of links, which is more than a node with 500 Pods makes while the control thread sleeps.
const BUFFER_BYTES: u32 = 4 << 20;

/// Sockets that hear what happens.
pub struct Events {
    route: TokioSocket,
    /// Not to be had without CAP_NET_ADMIN.
    nftables: Option<TokioSocket>,
}

impl Events {
    /// From now on nothing is missed.
    pub fn open() -> io::Result<Events> {
        let route = listen(NETLINK_ROUTE, &ROUTE_GROUPS)?;
        Ok(Events { route, nftables: listen(NETLINK_NETFILTER, &[NFTABLES_GROUP]).ok() })
    }

    /// Waits until something happened that may concern the node we look after.
    pub async fn next(&mut self, desired: &Desired, back_end: Option<BackEnd>) {
        loop {
            let concerns = match &self.nftables {
                Some(nftables) => tokio::select! {
                    heard = self.route.recv_from_full() => concerns(heard, |reply| is_ours(reply, desired)),
                    heard = nftables.recv_from_full() => concerns(heard, |reply| is_ours_in_rules(reply, back_end)),
                },
                None => concerns(self.route.recv_from_full().await, |reply| is_ours(reply, desired)),
            };
            if concerns {
                return;
            }
        }
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind_auto()?;
    // A smaller buffer drops events sooner, and that is an event.
    let _ = socket.socket_ref().set_rx_buf_sz(BUFFER_BYTES);
    groups.iter().try_for_each(|group| socket.socket_mut().add_membership(*group))?;
    Ok(socket)
}

fn concerns<A>(heard: io::Result<(Vec<u8>, A)>, is_ours: impl Fn(&Reply<'_>) -> bool) -> bool {
    match heard {
        Ok((datagram, _)) => replies(&datagram).any(|reply| is_ours(&reply)),
        Err(_) => true,
    }
}

/// `RTM_NEWLINK` to `RTM_DELADDR`, and the bytes before their attributes (`struct ifinfomsg`, `struct ifaddrmsg`).
const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const LINK_FIXED: usize = 16;
const ADDRESS_FIXED: usize = 8;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;

fn is_ours(reply: &Reply<'_>, desired: &Desired) -> bool {
    match reply.kind {
        NEWLINK | DELLINK => {
            let attributes = reply.body().get(LINK_FIXED..).unwrap_or_default();
            text(attributes, IFLA_IFNAME).is_some_and(|name| name == desired.interface || name == LOOPBACK)
        }
        NEWADDR | DELADDR => {
            let attributes = reply.body().get(ADDRESS_FIXED..).unwrap_or_default();
            let address = attribute(attributes, IFA_ADDRESS).and_then(ip);
            address.is_some_and(|address| desired.addresses.contains(&address))
        }
        _ => false,
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Attributes 1 and 2 of messages about rules, and 1 and 3 of those about chains: table and chain.
const TABLE: u16 = 1;
const CHAIN_OF_RULE: u16 = 2;
const CHAIN: u16 = 3;
/// The low byte of `NFT_MSG_DELTABLE`, `NFT_MSG_DELCHAIN`, `NFT_MSG_DELRULE`.
const DELTABLE: u16 = 2;
const DELCHAIN: u16 = 5;
const DELRULE: u16 = 8;

fn is_ours_in_rules(reply: &Reply<'_>, back_end: Option<BackEnd>) -> bool {
    let attributes = reply.attributes();
    let Some(table) = text(attributes, TABLE) else { return false };
    match back_end {
        None => false,
        Some(BackEnd::Nftables) => table == crate::rules::TABLE,
        Some(BackEnd::Iptables) => {
            let chain = match reply.kind & 0xff {
                DELTABLE => return ["raw", "filter"].contains(&table),
                DELCHAIN => text(attributes, CHAIN),
                DELRULE => text(attributes, CHAIN_OF_RULE),
                _ => None,
            };
            let is_listed = |chain| ["PREROUTING", "INPUT", "OUTPUT"].contains(&chain);
            ["raw", "filter"].contains(&table) && chain.is_some_and(is_listed)
        }
    }
}
