//! Two agents on one node hold each other's UDP sockets, so that a killed one's queries are answered by the other.
//!
//! | when | what is done |
//! | --- | --- |
//! | an agent serves | it shows a name that says where, and goes to all who show such a name |
//! | two have met, and are of one user | each gives the other its listening sockets (`SCM_RIGHTS`) |
//! | their connection ends | the other has ended, however: its sockets leave their groups, so that new queries come to us, and those that wait in them are asked of ourselves and answered from there |
//!
//! Without it the kernel goes on giving a killed agent its share of the queries until it has closed its sockets: 0.2 ms with epoll, up
//! to 20 ms with io_uring. What the dead agent had read already is lost all the same. Whoever ends as it should has left
//! its groups and emptied its sockets before.
//!
//! A task on the control thread's event loop. The sockets of TCP stay with who has them: a client whose connection is reset asks again
//! at once. Sockets that come with a reload are not given to agents that were there before.

mod handing;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use nodens_node::names;
use nodens_runtime::departure::LAST_CALL;
use nodens_runtime::socket::retire_udp_listener;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::service::GRACE;

/// Before the address in a name.
const PREFIX: &str = "nodens-sockets/";
/// Agents that are gone to: one more than during an upgrade would be rare.
const OTHERS_MAX: usize = 8;
/// Sockets taken from each: 64 workers on 4 addresses.
const SOCKETS_MAX: usize = 256;
/// Queries of a dead agent that are answered, each with a socket of its own meanwhile: what comes in 2 ms at 100 000 a second.
const RELAYED_MAX: usize = 256;
/// How often a dead agent's sockets are looked at.
const LOOK: Duration = Duration::from_millis(1);
/// The longest message over UDP that a Corefile can ask for (`bufsize`).
const MESSAGE_LEN_MAX: usize = 4_096;

/// What others see of this agent.
struct Ours {
    sockets: Vec<UdpSocket>,
    addresses: BTreeSet<SocketAddr>,
    /// Whose agents are trusted: they could bind our addresses as well.
    users: Vec<u32>,
}

/// Meets others from now on, in tasks of the event loop that it is called in. `sockets` are further descriptors of all that wait for
/// clients' datagrams. Each number that is received is one of a dead agent's queries.
pub(crate) fn begin(sockets: Vec<UdpSocket>, user: u32) -> io::Result<Receiver<usize>> {
    let addresses: BTreeSet<_> = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
    let Some(first) = addresses.first() else { return Err(io::ErrorKind::AddrNotAvailable.into()) };
    let group = format!("{PREFIX}{first}");
    let (since, listener) = names::show(&group, UnixListener::bind_addr)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let (told, reports) = mpsc::channel(OTHERS_MAX);
    let ours = Arc::new(Ours { sockets, addresses, users: vec![0, user] });
    for other in names::shown(&group).iter().filter(|other| **other != since).take(OTHERS_MAX) {
        // It may have ended since.
        if let Ok(stream) = names::address(&group, other).and_then(|at| UnixStream::connect_addr(&at)) {
            stream.set_nonblocking(true)?;
            let stream = tokio::net::UnixStream::from_std(stream)?;
            tokio::spawn(meet(stream, Arc::clone(&ours), told.clone()));
        }
    }
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(meet(stream, Arc::clone(&ours), told.clone()));
        }
    });
    Ok(reports)
}

/// From the meeting to the other one's end.
async fn meet(stream: tokio::net::UnixStream, ours: Arc<Ours>, told: Sender<usize>) {
    if !stream.peer_cred().is_ok_and(|other| ours.users.contains(&other.uid())) {
        return;
    }
    if handing::give(&stream, &ours.sockets).await.is_err() {
        return;
    }
    let mut theirs = vec![];
    while let Ok(sockets) = handing::take(&stream).await {
        let ours = |socket: &UdpSocket| socket.local_addr().is_ok_and(|at| ours.addresses.contains(&at));
        theirs.extend(sockets.into_iter().filter(ours));
        theirs.truncate(SOCKETS_MAX);
    }
    let relayed = inherit(theirs).await;
    if relayed > 0 {
        // Nobody reads any more: then we end ourselves.
        let _ = told.send(relayed).await;
    }
}

/// Has new queries come to us, and answers those that wait. Returns how many those were.
async fn inherit(sockets: Vec<UdpSocket>) -> usize {
    let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
    for socket in &sockets {
        // One that was left already stays as it is.
        let _ = retire_udp_listener(&**socket);
    }
    let mut relays = JoinSet::new();
    let until = Instant::now() + LAST_CALL;
    let mut buffer = [0; MESSAGE_LEN_MAX];
    loop {
        for socket in &sockets {
            while relays.len() < RELAYED_MAX
                && let Ok((len, client)) = socket.recv_from(&mut buffer)
            {
                relays.spawn(relay(Arc::clone(socket), buffer[..len].to_vec(), client));
            }
        }
        if Instant::now() >= until {
            break;
        }
        sleep(LOOK).await;
    }
    let count = relays.len();
    relays.join_all().await;
    count
}

/// Asks ourselves, and sends the answer from where the client asked. The log shows the node as the client.
async fn relay(socket: Arc<UdpSocket>, query: Vec<u8>, client: SocketAddr) -> io::Result<()> {
    let server = socket.local_addr()?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let asker = tokio::net::UdpSocket::bind((any, 0)).await?;
    asker.connect(server).await?;
    asker.send(&query).await?;
    let mut answer = [0; MESSAGE_LEN_MAX];
    let len = timeout(GRACE, asker.recv(&mut answer)).await??;
    socket.send_to(&answer[..len], client)?;
    Ok(())
}

#[cfg(test)]
mod tests;
