//! Many datagrams with one system call: recvmmsg and sendmmsg, over buffers that are made once. IPv4 only, as the loopback is.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;

/// Datagrams per call. More would only add latency: at 32 the call itself is a small part of the cost.
pub const BATCH: usize = 32;
/// Bytes of a datagram: no question or answer here is longer.
const DATAGRAM_LEN: usize = 2048;

/// What one recvmmsg brought.
pub struct Received {
    headers: MultiHeaders<SockaddrIn>,
    memory: Box<[u8]>,
    datagrams: Vec<(usize, Option<SockaddrIn>)>,
}

impl Default for Received {
    fn default() -> Self {
        Received {
            headers: MultiHeaders::preallocate(BATCH, None),
            memory: vec![0; BATCH * DATAGRAM_LEN].into(),
            datagrams: Vec::with_capacity(BATCH),
        }
    }
}

impl Received {
    /// Receives what is there, at most [`BATCH`]; returns how many.
    ///
    /// # Errors
    ///
    /// The kernel's, `WouldBlock` among them.
    pub fn receive(&mut self, socket: &impl AsRawFd, flags: MsgFlags) -> io::Result<usize> {
        self.datagrams.clear();
        let mut chunks = self.memory.chunks_exact_mut(DATAGRAM_LEN);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(chunks.next().unwrap_or_default())]);
        let results = recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None)?;
        self.datagrams.extend(results.map(|message| (message.bytes, message.address)));
        Ok(self.datagrams.len())
    }

    /// The datagrams and their senders.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<SockaddrIn>)> {
        let places = self.memory.chunks_exact(DATAGRAM_LEN);
        self.datagrams.iter().zip(places).map(|((len, peer), place)| (&place[..*len], *peer))
    }
}

/// Datagrams that leave with one sendmmsg.
pub struct Outgoing {
    headers: MultiHeaders<SockaddrIn>,
    memory: Vec<u8>,
    /// Where each datagram ends in `memory`.
    ends: Vec<usize>,
    peers: Vec<Option<SockaddrIn>>,
}

impl Default for Outgoing {
    fn default() -> Self {
        Outgoing {
            headers: MultiHeaders::preallocate(BATCH, None),
            memory: Vec::with_capacity(BATCH * DATAGRAM_LEN),
            ends: Vec::with_capacity(BATCH),
            peers: Vec::with_capacity(BATCH),
        }
    }
}

impl Outgoing {
    /// Queues a datagram that `write` appends to the buffer; `None` as peer where the socket is connected.
    pub fn push<R>(&mut self, peer: Option<SockaddrIn>, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let result = write(&mut self.memory);
        self.ends.push(self.memory.len());
        self.peers.push(peer);
        result
    }

    /// How many are queued.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether none is queued.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Sends all that are queued, and returns how many the kernel did not take. An ICMP error of earlier datagrams is consumed.
    pub fn send(&mut self, socket: &impl AsRawFd, flags: MsgFlags) -> usize {
        let (mut sent, mut failures) = (0, 0);
        while sent < self.ends.len() && failures < 2 {
            let batch = self.ends.len().min(sent + BATCH);
            let mut start = if sent == 0 { 0 } else { self.ends[sent - 1] };
            let mut slices: [[IoSlice<'_>; 1]; BATCH] = [[IoSlice::new(&[])]; BATCH];
            for (slice, &end) in slices.iter_mut().zip(&self.ends[sent..batch]) {
                *slice = [IoSlice::new(&self.memory[start..end])];
                start = end;
            }
            let slices = &slices[..batch - sent];
            let no_control: [nix::sys::socket::ControlMessage<'_>; 0] = [];
            let peers = &self.peers[sent..batch];
            match sendmmsg(socket.as_raw_fd(), &mut self.headers, slices, peers, no_control, flags) {
                Ok(results) => sent += results.count(),
                Err(Errno::ECONNREFUSED | Errno::EINTR) => failures += 1,
                Err(_) => break,
            }
        }
        let unsent = self.ends.len() - sent;
        self.memory.clear();
        self.ends.clear();
        self.peers.clear();
        unsent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn what_is_sent_arrives_with_its_sender() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let std::net::SocketAddr::V4(to) = server.local_addr().expect("bound") else { panic!("IPv4") };
        let mut outgoing = Outgoing::default();
        // More than fit into one call.
        let count = BATCH + 3;
        for n in 0..count {
            outgoing.push(Some(SockaddrIn::from(to)), |out| out.extend(std::iter::repeat_n(n as u8, n + 1)));
        }
        assert_eq!((outgoing.len(), outgoing.send(&client, MsgFlags::empty())), (count, 0));
        let mut received = Received::default();
        let mut seen = 0;
        while seen < count {
            assert!(received.receive(&server, MsgFlags::MSG_WAITFORONE).expect("datagrams") > 0);
            for (datagram, peer) in received.iter() {
                assert_eq!(datagram, vec![seen as u8; seen + 1]);
                let port = client.local_addr().expect("bound").port();
                assert_eq!(peer.map(|peer| peer.port()), Some(port));
                seen += 1;
            }
        }
        let nothing = received.receive(&server, MsgFlags::MSG_DONTWAIT).expect_err("all were taken");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
