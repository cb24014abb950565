//! Echo programs: what a UDP server costs on this machine before it looks at a single byte of DNS.
//!
//! Each is written as well as its way of doing I/O allows, without reading the datagram: the best of them is the floor that a DNS
//! server on sockets can only approach.

#[cfg(feature = "uring")]
mod multishot;

use crate::batch::{Outgoing, Received};
use nix::sys::socket::MsgFlags;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::str::FromStr;

/// Bytes of the longest datagram that is sent back.
const DATAGRAM_LEN: usize = 2048;
/// Receives under way at once, where each is a task.
#[cfg(feature = "uring")]
const TASKS: usize = 64;

/// How an echo program waits and copies.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum EchoKind {
    /// One recvfrom and one sendto per datagram, blocking.
    Recvfrom,
    /// recvmmsg and sendmmsg, as many as there are.
    Mmsg,
    /// A tokio UdpSocket: readiness, then recvfrom and sendto until it would block.
    Tokio,
    /// tokio-uring's own recv_from and send_to, 64 tasks.
    TokioUring,
    /// A multishot receive with provided buffers, and send requests, on the ring itself.
    Multishot,
}

impl EchoKind {
    /// Those that this build has.
    pub const ALL: &[EchoKind] = if cfg!(feature = "uring") {
        &[Self::Recvfrom, Self::Mmsg, Self::Tokio, Self::TokioUring, Self::Multishot]
    } else {
        &[Self::Recvfrom, Self::Mmsg, Self::Tokio]
    };

    /// The word for it on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Recvfrom => "recvfrom",
            Self::Mmsg => "mmsg",
            Self::Tokio => "tokio",
            Self::TokioUring => "tokio-uring",
            Self::Multishot => "multishot",
        }
    }
}

impl fmt::Display for EchoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recvfrom => "echo: recvfrom/sendto",
            Self::Mmsg => "echo: recvmmsg/sendmmsg",
            Self::Tokio => "echo: tokio UdpSocket",
            Self::TokioUring => "echo: tokio-uring recv_from/send_to",
            Self::Multishot => "echo: io_uring multishot receive",
        })
    }
}

impl FromStr for EchoKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|kind| kind.word() == text);
        let words: Vec<_> = Self::ALL.iter().map(|kind| kind.word()).collect();
        found.ok_or_else(|| format!("must be one of {}", words.join(", ")))
    }
}

/// Echoes until the process ends.
///
/// # Errors
///
/// No port, or the kernel refuses this way of doing I/O.
pub fn serve(kind: EchoKind) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    drop(socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20));
    let address = socket.local_addr()?;
    let listening = || println!("listening on {address}");
    match kind {
        EchoKind::Recvfrom => {
            listening();
            let mut buffer = [0; DATAGRAM_LEN];
            loop {
                let (len, peer) = socket.recv_from(&mut buffer)?;
                // A client that is gone is no reason to end.
                drop(socket.send_to(&buffer[..len], peer));
            }
        }
        EchoKind::Mmsg => {
            listening();
            let (mut received, mut outgoing) = (Received::default(), Outgoing::default());
            loop {
                received.receive(&socket, MsgFlags::MSG_WAITFORONE)?;
                for (datagram, peer) in received.iter() {
                    outgoing.push(peer, |out| out.extend_from_slice(datagram));
                }
                outgoing.send(&socket, MsgFlags::empty());
            }
        }
        EchoKind::Tokio => {
            listening();
            tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(on_tokio(socket))
        }
        #[cfg(feature = "uring")]
        EchoKind::TokioUring => on_tokio_uring(socket, listening),
        #[cfg(feature = "uring")]
        EchoKind::Multishot => multishot::serve(&socket, listening),
        #[cfg(not(feature = "uring"))]
        EchoKind::TokioUring | EchoKind::Multishot => {
            Err(io::Error::other(format!("{} is not in this build: feature `uring`", kind.word())))
        }
    }
}

async fn on_tokio(socket: UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let mut buffer = [0; DATAGRAM_LEN];
    loop {
        socket.readable().await?;
        while let Ok((len, peer)) = socket.try_recv_from(&mut buffer) {
            drop(socket.try_send_to(&buffer[..len], peer));
        }
    }
}

#[cfg(feature = "uring")]
fn on_tokio_uring(socket: UdpSocket, listening: impl Fn()) -> io::Result<()> {
    use std::rc::Rc;
    let echo = async move |socket: Rc<tokio_uring::net::UdpSocket>| -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM_LEN];
        loop {
            let (result, filled) = socket.recv_from(buffer).await;
            let (len, peer) = result?;
            let mut datagram = filled;
            datagram.truncate(len);
            let (_, sent) = socket.send_to(datagram, peer).await;
            buffer = sent;
            buffer.resize(DATAGRAM_LEN, 0);
        }
    };
    let builder = tokio_uring::builder();
    tokio_uring::Runtime::new(&builder)?.block_on(async {
        let socket = Rc::new(tokio_uring::net::UdpSocket::from_std(socket));
        listening();
        let tasks: Vec<_> = (0..TASKS).map(|_| tokio_uring::spawn(echo(socket.clone()))).collect();
        for task in tasks {
            task.await.map_err(io::Error::other)??;
        }
        Ok(())
    })
}
