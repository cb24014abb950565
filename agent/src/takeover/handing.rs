//! Sockets through a unix socket: a byte with as many descriptors as fit.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors in one message; the kernel takes 253.
const AT_ONCE: usize = 64;
const SPACE: usize = rustix::cmsg_space!(ScmRights(AT_ONCE));

/// Gives all of them.
pub(super) async fn give(stream: &UnixStream, sockets: &[UdpSocket]) -> io::Result<()> {
    for some in sockets.chunks(AT_ONCE) {
        let descriptors: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); SPACE];
            let mut attached = SendAncillaryBuffer::new(&mut space);
            // There is room for as many.
            attached.push(SendAncillaryMessage::ScmRights(&descriptors));
            Ok(sendmsg(stream, &[IoSlice::new(&[0])], &mut attached, SendFlags::NOSIGNAL)?)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

/// Waits for some more, nonblocking as they were made. An error if the other end is gone, or sends something else.
pub(super) async fn take(stream: &UnixStream) -> io::Result<Vec<UdpSocket>> {
    let receive = || {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut attached = RecvAncillaryBuffer::new(&mut space);
        recvmsg(stream, &mut [IoSliceMut::new(&mut [0])], &mut attached, RecvFlags::CMSG_CLOEXEC)?;
        let rights = attached.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        Ok(rights.flatten().collect::<Vec<OwnedFd>>())
    };
    let descriptors = stream.async_io(Interest::READABLE, receive).await?;
    if descriptors.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(descriptors.into_iter().map(UdpSocket::from).collect())
}
