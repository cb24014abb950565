//! Sockets through a unix socket: messages that hold the sender's name, each with as many descriptors as fit.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors in one message; the kernel takes 253.
const AT_ONCE: usize = 64;
const SPACE: usize = rustix::cmsg_space!(ScmRights(AT_ONCE));
/// Longer than a name.
const NAME_LEN_MAX: usize = 64;

/// Connects to a name, without waiting: one that nobody answers at is not worth a start's time.
pub(super) fn go_to(group: &str, since: &str) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(format!("{group}/{since}").as_bytes())?)?;
    UnixStream::from_std(socket.into())
}

/// Gives all of them.
pub(super) async fn give(stream: &UnixStream, since: &str, sockets: &[Arc<UdpSocket>]) -> io::Result<()> {
    for some in sockets.chunks(AT_ONCE) {
        let descriptors: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); SPACE];
            let mut attached = SendAncillaryBuffer::new(&mut space);
            // There is room for as many.
            attached.push(SendAncillaryMessage::ScmRights(&descriptors));
            Ok(sendmsg(stream, &[IoSlice::new(since.as_bytes())], &mut attached, SendFlags::NOSIGNAL)?)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

/// Waits for some more, nonblocking as they were made, and who gives them. An error if the other end is gone, or sends something else.
pub(super) async fn take(stream: &UnixStream) -> io::Result<(String, Vec<UdpSocket>)> {
    let receive = || {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut attached = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; NAME_LEN_MAX];
        let message =
            recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut attached, RecvFlags::CMSG_CLOEXEC)?;
        let rights = attached.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = rights.flatten().collect::<Vec<OwnedFd>>();
        Ok((String::from_utf8_lossy(&name[..message.bytes]).into_owned(), descriptors))
    };
    let (since, descriptors) = stream.async_io(Interest::READABLE, receive).await?;
    if descriptors.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok((since, descriptors.into_iter().map(UdpSocket::from).collect()))
}
