//! Netlink messages by hand: for netfilter, whose messages no crate of a fitting licence speaks.
//!
//! A message is a header, a fixed part of four bytes and attributes (type, length, value, padded to four bytes).
//! [`Message`] writes one, [`attributes`] reads one; what comes from the kernel is read as carefully as if it came
//! from a stranger. [`exchange`] sends a request on a socket of its own and takes the replies, so that a late reply
//! to one request is never taken for an answer to the next. Links and addresses are rtnetlink's business.

use std::io;
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

/// The kernel answers while it takes the request; a transaction waits for others and for a grace period, tens of
/// milliseconds on a busy machine. What takes longer than this has been lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a message's header: length, type, flags, sequence, port (`struct nlmsghdr`).
const HEADER: usize = 16;
/// Bytes of netfilter's fixed part: family, version, resource (`struct nfgenmsg`).
const FIXED: usize = 4;
/// Bytes of an attribute's header (`struct nlattr`).
const ATTRIBUTE: usize = 4;

/// Flags and types of `linux/netlink.h`.
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The attribute holds attributes.
const NLA_F_NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its type.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A message that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request to netfilter. `resource` is 0 but for the ends of a batch.
    pub(crate) fn new(kind: u16, flags: u16, family: u8, resource: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        Message { bytes }
    }

    pub(crate) fn bytes(mut self, name: u16, value: &[u8]) -> Self {
        push_attribute(&mut self.bytes, name, value);
        self
    }

    pub(crate) fn text(self, name: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(name, &bytes)
    }

    pub(crate) fn be32(self, name: u16, value: u32) -> Self {
        self.bytes(name, &value.to_be_bytes())
    }

    pub(crate) fn be64(self, name: u16, value: u64) -> Self {
        self.bytes(name, &value.to_be_bytes())
    }

    pub(crate) fn nested(self, name: u16, inner: &Attributes) -> Self {
        self.bytes(name | NLA_F_NESTED, &inner.bytes)
    }

    /// The message as it goes out. Sequence numbers tell replies apart.
    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// Attributes that go into another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    pub(crate) fn bytes(mut self, name: u16, value: &[u8]) -> Self {
        push_attribute(&mut self.bytes, name, value);
        self
    }

    pub(crate) fn text(self, name: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(name, &bytes)
    }

    pub(crate) fn be32(self, name: u16, value: u32) -> Self {
        self.bytes(name, &value.to_be_bytes())
    }

    pub(crate) fn nested(self, name: u16, inner: &Attributes) -> Self {
        self.bytes(name | NLA_F_NESTED, &inner.bytes)
    }
}

fn push_attribute(out: &mut Vec<u8>, name: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(name.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The attributes in `bytes`, up to the first that is broken.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.first_chunk().copied()?));
        let name = u16::from_ne_bytes(bytes.get(2..4)?.first_chunk().copied()?) & NLA_TYPE_MASK;
        let value = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((name, value))
    })
}

/// One attribute of this type.
pub(crate) fn attribute(bytes: &[u8], name: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// An attribute that is a number of 32 bits in network order, as netfilter has them.
pub(crate) fn be32(bytes: &[u8], name: u16) -> Option<u32> {
    Some(u32::from_be_bytes(attribute(bytes, name)?.first_chunk().copied()?))
}

/// An attribute that is text with a zero at its end.
pub(crate) fn text(bytes: &[u8], name: u16) -> Option<&str> {
    let value = attribute(bytes, name)?;
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

/// A message of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    pub(crate) kind: u16,
    flags: u16,
    sequence: u32,
    /// What comes after the header.
    body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Netfilter's family of this message.
    pub(crate) fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or(0)
    }

    /// The attributes of a netfilter message.
    pub(crate) fn attributes(&self) -> &'a [u8] {
        self.body.get(FIXED..).unwrap_or_default()
    }

    /// What comes after the header, for messages of another subsystem.
    pub(crate) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// For an acknowledgement: the error it carries, or `Ok`.
    fn outcome(&self) -> Option<io::Result<()>> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let code = i32::from_ne_bytes(self.body.first_chunk().copied()?);
        Some(if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) })
    }
}

/// The messages in a datagram, up to the first that is broken.
pub(crate) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(bytes.first_chunk().copied()?)).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.first_chunk().copied()?);
        let flags = u16::from_ne_bytes(bytes.get(6..8)?.first_chunk().copied()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.first_chunk().copied()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Reply { kind, flags, sequence, body })
    })
}

/// A socket to netfilter, bound and connected to the kernel.
fn open() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Asks for all objects of one kind; `take` gets each message. A list that changed while it was read is an error of kind
/// `Interrupted`: ask again.
pub(crate) async fn dump(request: Message, mut take: impl FnMut(&Reply<'_>)) -> io::Result<()> {
    let socket = open()?;
    socket.send(&request.finish(1)).await?;
    loop {
        let (datagram, _) = in_time(socket.recv_from_full()).await?;
        for reply in replies(&datagram) {
            if reply.flags & NLM_F_DUMP_INTR != 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match reply.outcome() {
                Some(outcome) => return outcome,
                None if reply.kind == NLMSG_DONE => return Ok(()),
                None => take(&reply),
            }
        }
    }
}

/// Sends messages in one datagram, each of which asks to be acknowledged but the first and, with `commit`, the last:
/// the ends of a batch. The error names the message by its index.
pub(crate) async fn exchange(messages: Vec<Message>, acknowledged: usize) -> Result<(), (usize, io::Error)> {
    let general = |error| (0, error);
    let socket = open().map_err(general)?;
    let mut datagram = Vec::new();
    for (sequence, message) in (0u32..).zip(messages) {
        datagram.extend(message.finish(sequence));
    }
    socket.send(&datagram).await.map_err(general)?;
    let mut first_error: Option<(usize, io::Error)> = None;
    let mut seen = 0;
    while seen < acknowledged {
        let (datagram, _) = in_time(socket.recv_from_full()).await.map_err(general)?;
        for reply in replies(&datagram) {
            let Some(outcome) = reply.outcome() else { continue };
            let index = usize::try_from(reply.sequence).unwrap_or(usize::MAX);
            seen += 1;
            if let Err(error) = outcome {
                if index == 0 {
                    // The batch as a whole: nothing else will come.
                    return Err((0, error));
                }
                first_error.get_or_insert((index, error));
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn in_time<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, what).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found_again() {
        let inner = Attributes::default().be32(1, 7).text(2, "abc");
        let message = Message::new(0x0a06, NLM_F_ACK, 1, 0).text(1, "nodens").nested(4, &inner).finish(9);
        let all: Vec<_> = replies(&message).collect();
        assert_eq!(all.len(), 1);
        let reply = &all[0];
        assert_eq!((reply.kind, reply.flags, reply.sequence, reply.family()), (0x0a06, 5, 9, 1));
        assert_eq!(text(reply.attributes(), 1), Some("nodens"));
        let nested = attribute(reply.attributes(), 4).expect("the flag of nesting is no part of its type");
        assert_eq!((be32(nested, 1), text(nested, 2), attribute(nested, 3)), (Some(7), Some("abc"), None));
        assert_eq!(message.len() % 4, 0);
    }

    #[test]
    fn broken_messages_end_the_reading_and_nothing_else() {
        let whole = Message::new(2, 0, 0, 0).be32(1, 5).be32(2, 6).finish(1);
        for length in 0..whole.len() {
            // However short: no panic, and no more than was there.
            for reply in replies(&whole[..length]) {
                assert!(attributes(reply.attributes()).count() <= 2);
            }
        }
        for lie in [0u16, 1, 3, 5, 0xffff] {
            let mut bytes = Attributes::default().be32(1, 5).be32(2, 6).bytes;
            bytes[..2].copy_from_slice(&lie.to_ne_bytes());
            assert!(attributes(&bytes).count() <= 2, "{lie}");
        }
        assert_eq!(attributes(&[0; 64]).next(), None, "a length of 0 ends it");
    }

    #[test]
    fn an_acknowledgement_carries_an_error_or_none() {
        let outcome = |code: i32| {
            let mut bytes = vec![20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(code.to_ne_bytes());
            replies(&bytes).next().and_then(|reply| reply.outcome())
        };
        assert!(matches!(outcome(0), Some(Ok(()))));
        assert!(matches!(outcome(-1), Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied));
        assert!(matches!(outcome(i32::MIN), Some(Err(_))), "whatever it says");
    }
}
