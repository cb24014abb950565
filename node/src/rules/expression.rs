//! What a rule of nftables is made of: a list of small expressions that share registers. The encoder and the decoder.
//!
//! A rule reads parts of a packet into a register, compares it, and goes on if they are equal; the last expressions
//! do something. We write the same expressions that `nft` makes of the same rule, so that `nft list ruleset` shows
//! ours as it would be typed, and read them back to see whether they are still there. One register is enough, since
//! each value is used at once.
//!
//! Names and numbers are those of `linux/netfilter/nf_tables.h`. Numbers in attributes are in network order; values
//! in registers are as the packet has them, or in the machine's own order where the kernel made them.

use std::net::{IpAddr, SocketAddr};

use super::rule::{Action, Rule, Side, Transport};
use crate::netlink::{Attributes, attribute, attributes, be32, text};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NF_ACCEPT: u32 = 1;

/// The register for everything.
const NFT_REG_1: u32 = 1;
/// The register for what becomes of the packet.
const NFT_REG_VERDICT: u32 = 0;

/// The families, as `meta nfproto` has them.
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// Original direction of a flow, and the answers to it (`enum ip_conntrack_dir`).
const ORIGINAL: u8 = 0;
const REPLY: u8 = 1;

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    /// The family or the transport of the packet.
    Meta(MetaKey),
    /// Bytes of the packet.
    Payload(Field),
    /// Goes on if the register holds exactly this.
    Equals(Vec<u8>),
    /// Whether the socket that would get the packet is bound to no address; goes no further if there is none, or only a
    /// request for a connection or what is left of one.
    SocketWildcard,
    /// Whether the socket that would get the packet takes what is for other hosts; goes no further if there is none.
    SocketTransparent,
    /// The packet passes, and later rules of this chain do not see it.
    Accept,
    /// Counts.
    Counter,
    /// Tells connection tracking to let the packet pass.
    Notrack,
    /// Fills the register.
    Load(Vec<u8>),
    /// Writes the register into the packet, and mends checksums.
    WritePayload(Field),
    /// The conntrack zone of the original direction.
    OriginalZone,
    /// Sets it.
    SetOriginalZone,
    /// The direction of the packet within its flow.
    Direction,
}

/// What `meta` knows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum MetaKey {
    /// NFT_META_NFPROTO
    Family = 15,
    /// NFT_META_L4PROTO
    Transport = 16,
}

/// A field of a header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    base: Base,
    offset: u32,
    len: u32,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Base {
    Network = 1,
    Transport = 2,
}

impl Field {
    fn address(side: Side, family: IpAddr) -> Field {
        let (offset, len) = match (family, side) {
            (IpAddr::V4(_), Side::Source) => (12, 4),
            (IpAddr::V4(_), Side::Destination) => (16, 4),
            (IpAddr::V6(_), Side::Source) => (8, 16),
            (IpAddr::V6(_), Side::Destination) => (24, 16),
        };
        Field { base: Base::Network, offset, len }
    }

    fn port(side: Side) -> Field {
        Field { base: Base::Transport, offset: if side == Side::Source { 0 } else { 2 }, len: 2 }
    }
}

/// The expressions of a rule.
pub(super) fn of_rule(rule: &Rule) -> Vec<Expr> {
    let mut out = vec![
        Expr::Meta(MetaKey::Family),
        Expr::Equals(vec![if rule.address.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 }]),
        Expr::Payload(Field::address(rule.side, rule.address)),
        Expr::Equals(octets(rule.address)),
        Expr::Meta(MetaKey::Transport),
        Expr::Equals(vec![rule.transport.number()]),
        Expr::Payload(Field::port(rule.side)),
        Expr::Equals(rule.port.to_be_bytes().to_vec()),
    ];
    match rule.action {
        Action::SkipConntrack { while_listening } => {
            if while_listening {
                let socket = match rule.transport {
                    Transport::Udp => Expr::SocketWildcard,
                    Transport::Tcp => Expr::SocketTransparent,
                };
                out.extend([socket, Expr::Equals(vec![0])]);
            }
            out.extend([Expr::Counter, Expr::Notrack]);
        }
        Action::Spare => {
            out.extend([Expr::SocketWildcard, Expr::Equals(vec![1]), Expr::Counter, Expr::Accept]);
        }
        // No rule of ours can lift what another table forbids.
        Action::Allow => out.push(Expr::Counter),
        Action::ForwardTo(upstream, zone) => {
            out.extend([Expr::Counter, Expr::Load(zone.to_ne_bytes().to_vec()), Expr::SetOriginalZone]);
            rewrite(&mut out, rule, upstream);
        }
        Action::AnswerAs(asked, zone) => {
            out.extend([
                Expr::OriginalZone,
                Expr::Equals(zone.to_ne_bytes().to_vec()),
                Expr::Direction,
                Expr::Equals(vec![REPLY]),
                Expr::Counter,
            ]);
            rewrite(&mut out, rule, asked);
        }
    }
    out
}

fn rewrite(out: &mut Vec<Expr>, rule: &Rule, to: SocketAddr) {
    let address = Field::address(rule.side, rule.address);
    out.extend([Expr::Load(octets(to.ip())), Expr::WritePayload(address)]);
    if to.port() != rule.port {
        let port = to.port().to_be_bytes().to_vec();
        out.extend([Expr::Load(port), Expr::WritePayload(Field::port(rule.side))]);
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The attribute NFTA_RULE_EXPRESSIONS. `transport` is the rule's: it says where the checksum of a rewritten port is.
pub(super) fn encode(expressions: &[Expr], transport: u8) -> Attributes {
    expressions.iter().fold(Attributes::default(), |list, expression| {
        let (name, data) = one(expression, transport);
        let element = Attributes::default().text(NFTA_EXPR_NAME, name);
        list.nested(NFTA_LIST_ELEM, &element.nested(NFTA_EXPR_DATA, &data))
    })
}

/// Name and attributes of one expression.
fn one(expression: &Expr, transport: u8) -> (&'static str, Attributes) {
    let new = Attributes::default;
    let value = |bytes: &[u8]| new().bytes(NFTA_DATA_VALUE, bytes);
    match expression {
        Expr::Meta(key) => ("meta", new().be32(meta::KEY, *key as u32).be32(meta::DREG, NFT_REG_1)),
        Expr::Payload(field) => ("payload", place(new().be32(payload::DREG, NFT_REG_1), *field)),
        Expr::Equals(bytes) => {
            ("cmp", new().be32(cmp::SREG, NFT_REG_1).be32(cmp::OP, cmp::EQ).nested(cmp::DATA, &value(bytes)))
        }
        Expr::SocketWildcard => {
            ("socket", new().be32(socket::KEY, socket::WILDCARD).be32(socket::DREG, NFT_REG_1))
        }
        Expr::SocketTransparent => {
            ("socket", new().be32(socket::KEY, socket::TRANSPARENT).be32(socket::DREG, NFT_REG_1))
        }
        Expr::Accept => {
            let verdict = new().nested(NFTA_DATA_VERDICT, &new().be32(NFTA_VERDICT_CODE, NF_ACCEPT));
            ("immediate", new().be32(immediate::DREG, NFT_REG_VERDICT).nested(immediate::DATA, &verdict))
        }
        Expr::Counter => ("counter", new()),
        Expr::Notrack => ("notrack", new()),
        Expr::Load(bytes) => {
            ("immediate", new().be32(immediate::DREG, NFT_REG_1).nested(immediate::DATA, &value(bytes)))
        }
        Expr::WritePayload(field) => {
            let attributes = place(new().be32(payload::SREG, NFT_REG_1), *field);
            ("payload", checksums(attributes, *field, transport))
        }
        Expr::OriginalZone => {
            ("ct", new().be32(ct::KEY, ct::ZONE).be32(ct::DREG, NFT_REG_1).bytes(ct::DIRECTION, &[ORIGINAL]))
        }
        Expr::SetOriginalZone => {
            ("ct", new().be32(ct::KEY, ct::ZONE).be32(ct::SREG, NFT_REG_1).bytes(ct::DIRECTION, &[ORIGINAL]))
        }
        Expr::Direction => ("ct", new().be32(ct::KEY, ct::KEY_DIRECTION).be32(ct::DREG, NFT_REG_1)),
    }
}

fn place(attributes: Attributes, field: Field) -> Attributes {
    attributes
        .be32(payload::BASE, field.base as u32)
        .be32(payload::OFFSET, field.offset)
        .be32(payload::LEN, field.len)
}

/// Which checksums a changed field changes: the IPv4 header's own, and that of UDP or TCP, which covers addresses as well.
fn checksums(attributes: Attributes, field: Field, transport: u8) -> Attributes {
    let (kind, offset, flags) = match (field.base, field.len) {
        (Base::Network, 4) => (payload::CSUM_INET, 10, payload::L4CSUM_PSEUDOHDR),
        (Base::Network, _) => (payload::CSUM_NONE, 0, payload::L4CSUM_PSEUDOHDR),
        (Base::Transport, _) if transport == super::Transport::Udp.number() => (payload::CSUM_INET, 6, 0),
        (Base::Transport, _) => (payload::CSUM_INET, 16, 0),
    };
    let attributes = attributes.be32(payload::CSUM_TYPE, kind).be32(payload::CSUM_OFFSET, offset);
    attributes.be32(payload::CSUM_FLAGS, flags)
}

/// Reads NFTA_RULE_EXPRESSIONS; `None` if there is one that we never write.
pub(super) fn decode(list: &[u8]) -> Option<Vec<Expr>> {
    let elements = attributes(list).filter(|(name, _)| *name == NFTA_LIST_ELEM);
    elements.map(|(_, element)| decode_one(element)).collect()
}

fn decode_one(element: &[u8]) -> Option<Expr> {
    let data = attribute(element, NFTA_EXPR_DATA).unwrap_or_default();
    let is = |name, value| be32(data, name) == Some(value);
    let value = |name| Some(attribute(attribute(data, name)?, NFTA_DATA_VALUE)?.to_vec());
    match text(element, NFTA_EXPR_NAME)? {
        "meta" if is(meta::DREG, NFT_REG_1) => {
            let keys = [MetaKey::Family, MetaKey::Transport];
            Some(Expr::Meta(keys.into_iter().find(|key| is(meta::KEY, *key as u32))?))
        }
        "payload" => {
            let base = [Base::Network, Base::Transport].into_iter().find(|b| is(payload::BASE, *b as u32))?;
            let field = Field { base, offset: be32(data, payload::OFFSET)?, len: be32(data, payload::LEN)? };
            match attribute(data, payload::SREG) {
                Some(_) => Some(Expr::WritePayload(field)),
                None => Some(Expr::Payload(field)),
            }
        }
        "cmp" if is(cmp::SREG, NFT_REG_1) && is(cmp::OP, cmp::EQ) => Some(Expr::Equals(value(cmp::DATA)?)),
        "socket" if is(socket::KEY, socket::WILDCARD) => Some(Expr::SocketWildcard),
        "socket" if is(socket::KEY, socket::TRANSPARENT) => Some(Expr::SocketTransparent),
        "immediate" if is(immediate::DREG, NFT_REG_VERDICT) => {
            let verdict = attribute(attribute(data, immediate::DATA)?, NFTA_DATA_VERDICT)?;
            (be32(verdict, NFTA_VERDICT_CODE) == Some(NF_ACCEPT)).then_some(Expr::Accept)
        }
        "counter" => Some(Expr::Counter),
        "notrack" => Some(Expr::Notrack),
        "immediate" if is(immediate::DREG, NFT_REG_1) => Some(Expr::Load(value(immediate::DATA)?)),
        "ct" if is(ct::KEY, ct::KEY_DIRECTION) => Some(Expr::Direction),
        "ct" if is(ct::KEY, ct::ZONE) && attribute(data, ct::DIRECTION) == Some(&[ORIGINAL]) => {
            Some(if attribute(data, ct::SREG).is_some() { Expr::SetOriginalZone } else { Expr::OriginalZone })
        }
        _ => None,
    }
}

mod meta {
    pub(super) const DREG: u16 = 1;
    pub(super) const KEY: u16 = 2;
}

mod cmp {
    pub(super) const SREG: u16 = 1;
    pub(super) const OP: u16 = 2;
    pub(super) const DATA: u16 = 3;
    pub(super) const EQ: u32 = 0;
}

mod payload {
    pub(super) const DREG: u16 = 1;
    pub(super) const BASE: u16 = 2;
    pub(super) const OFFSET: u16 = 3;
    pub(super) const LEN: u16 = 4;
    pub(super) const SREG: u16 = 5;
    pub(super) const CSUM_TYPE: u16 = 6;
    pub(super) const CSUM_OFFSET: u16 = 7;
    pub(super) const CSUM_FLAGS: u16 = 8;
    pub(super) const CSUM_NONE: u32 = 0;
    pub(super) const CSUM_INET: u32 = 1;
    pub(super) const L4CSUM_PSEUDOHDR: u32 = 1;
}

mod socket {
    pub(super) const KEY: u16 = 1;
    pub(super) const DREG: u16 = 2;
    pub(super) const TRANSPARENT: u32 = 0;
    pub(super) const WILDCARD: u32 = 2;
}

mod immediate {
    pub(super) const DREG: u16 = 1;
    pub(super) const DATA: u16 = 2;
}

mod ct {
    pub(super) const DREG: u16 = 1;
    pub(super) const KEY: u16 = 2;
    pub(super) const DIRECTION: u16 = 3;
    pub(super) const SREG: u16 = 4;
    pub(super) const KEY_DIRECTION: u32 = 1;
    pub(super) const ZONE: u32 = 17;
}
