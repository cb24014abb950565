//! Two agents on one node hold each other's UDP sockets, so that a killed one's queries are answered by the other.
//!
//! | when | what is done |
//! | --- | --- |
//! | an agent serves | it shows a name that says where, and goes to all who show such a name |
//! | two have met, and are of one user | each tells the other its name and gives it its listening sockets (`SCM_RIGHTS`) |
//! | their connection ends, and the name goes | the other has ended, however: its sockets leave their groups, so that new queries come to us, and those that wait in them are asked of ourselves and answered from there |
//! | their connection ends, and the name stays | the other lives: its sockets are let go of |
//!
//! Without it the kernel goes on giving a killed agent its share of the queries until it has closed its sockets: 0.2 ms with epoll, up
//! to 20 ms with io_uring. What the dead agent had read already is lost all the same. Whoever ends as it should has left
//! its groups and emptied its sockets before.
//!
//! Tasks on the control thread's event loop. The sockets of TCP stay with who has them: a client whose connection is reset asks again
//! at once. Sockets that come with a reload are not given to agents that were there before.

mod handing;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nodens_node::names;
use nodens_runtime::departure::LAST_CALL;
use nodens_runtime::socket::retire_udp_listener;
use tokio::net::UnixStream;
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
/// How often a dead agent's sockets, and its name, are looked at.
const LOOK: Duration = Duration::from_millis(1);
/// How long a name may outlast its owner's connections: the kernel closes what a process had one after the other.
const NAME_PATIENCE: Duration = Duration::from_secs(1);
/// How long to leave off when connections cannot be taken, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The longest message over UDP that a Corefile can ask for (`bufsize`).
const MESSAGE_LEN_MAX: usize = 4_096;

/// What others see of this agent.
struct Ours {
    group: String,
    since: String,
    sockets: Mutex<Vec<Arc<UdpSocket>>>,
    addresses: BTreeSet<SocketAddr>,
    /// Whose agents are trusted: they could bind our addresses as well.
    users: Vec<u32>,
}

/// An agent that others can take over from, and that takes over from others.
pub(crate) struct Takeover {
    ours: Arc<Ours>,
    /// Each number is one of a dead agent's queries.
    pub(crate) reports: Receiver<usize>,
}

impl Takeover {
    /// Meets others from now on, in tasks of the event loop that it is called in. `sockets` are further descriptors of all that wait for
    /// clients' datagrams.
    pub(crate) fn begin(sockets: Vec<UdpSocket>, user: u32) -> io::Result<Takeover> {
        let addresses: BTreeSet<_> = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        let Some(first) = addresses.first() else { return Err(io::ErrorKind::AddrNotAvailable.into()) };
        let group = format!("{PREFIX}{first}");
        let (since, listener) = names::show(&group, UnixListener::bind_addr)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let sockets = Mutex::new(sockets.into_iter().map(Arc::new).collect());
        let ours = Arc::new(Ours { group, since, sockets, addresses, users: vec![0, user] });
        let (told, reports) = mpsc::channel(OTHERS_MAX);
        let others = names::shown(&ours.group).into_iter().filter(|other| *other != ours.since);
        for other in others.take(OTHERS_MAX) {
            // It may have ended since, or be somebody who only looks like an agent.
            if let Ok(stream) = handing::go_to(&ours.group, &other) {
                tokio::spawn(meet(stream, Arc::clone(&ours), told.clone()));
            }
        }
        let host = Arc::clone(&ours);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(meet(stream, Arc::clone(&host), told.clone()))),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                }
            }
        });
        Ok(Takeover { ours, reports })
    }

    /// Lets go of sockets of other addresses than these: a port that is served no longer is to be free.
    pub(crate) fn keep_only(&self, addresses: &[SocketAddr]) {
        let is_kept = |socket: &Arc<UdpSocket>| socket.local_addr().is_ok_and(|at| addresses.contains(&at));
        self.ours.sockets.lock().unwrap_or_else(PoisonError::into_inner).retain(is_kept);
    }
}

/// From the meeting to the other one's end.
async fn meet(stream: UnixStream, ours: Arc<Ours>, told: Sender<usize>) {
    if !stream.peer_cred().is_ok_and(|other| ours.users.contains(&other.uid())) {
        return;
    }
    let sockets = ours.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if handing::give(&stream, &ours.since, &sockets).await.is_err() {
        return;
    }
    drop(sockets);
    let (mut other, mut theirs) = (None, vec![]);
    while let Ok((since, sockets)) = handing::take(&stream).await {
        let is_ours = |socket: &UdpSocket| socket.local_addr().is_ok_and(|at| ours.addresses.contains(&at));
        theirs.extend(sockets.into_iter().filter(is_ours));
        theirs.truncate(SOCKETS_MAX);
        other = Some(since);
    }
    // Whoever has not told a name has given nothing.
    let Some(other) = other else { return };
    if !is_gone(&ours.group, &other).await {
        return;
    }
    let relayed = inherit(theirs).await;
    if relayed > 0 {
        // Nobody reads any more: then we end ourselves.
        let _ = told.send(relayed).await;
    }
}

/// Whether a name is shown no longer, or soon will not be.
async fn is_gone(group: &str, since: &str) -> bool {
    let until = Instant::now() + NAME_PATIENCE;
    while names::shown(group).iter().any(|shown| shown == since) {
        if Instant::now() >= until {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

/// Has new queries come to us, and answers those that wait. Returns how many those were.
async fn inherit(sockets: Vec<UdpSocket>) -> usize {
    let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
    // On a socket for all addresses nothing says which of them was asked, so nothing can be answered from there.
    let is_answerable =
        |socket: &&Arc<UdpSocket>| socket.local_addr().is_ok_and(|at| !at.ip().is_unspecified());
    let answerable: Vec<_> = sockets.iter().filter(is_answerable).collect();
    for socket in &sockets {
        // One that was left already stays as it is.
        let _ = retire_udp_listener(&**socket);
    }
    let mut relays = JoinSet::new();
    let until = Instant::now() + LAST_CALL;
    let mut buffer = [0; MESSAGE_LEN_MAX];
    loop {
        for socket in &answerable {
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
