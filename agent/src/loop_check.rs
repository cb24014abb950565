//! `loop`: whether an upstream asks us in turn.
//!
//! Each upstream of a block with `loop` is asked for a name that nobody knows, `HINFO <random>.<random>.<zone>`, from a socket of
//! the control thread. If that name arrives at one of our own listeners, every query for the zone would go round in circles until
//! it fails. One sighting is proof: nobody else can know the name before we have sent it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nodens_core::UpstreamId;
use nodens_core::rng::Rng;
use nodens_core::wire::Name;
use nodens_runtime::{Lookout, Vitals};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

/// How often an upstream that says nothing is asked, a datagram may be lost.
const TRIES: usize = 3;
/// How long each time.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the workers are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// HINFO (RFC 1035 §3.2.2), which CoreDNS' own probe asks for too: nobody else does.
const TYPE_HINFO: u16 = 13;

/// One upstream to be checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// The zone that asks it, as an index of the configuration.
    pub zone: usize,
    /// The zone's name.
    pub apex: String,
    /// Which upstream.
    pub upstream: UpstreamId,
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it is asked over TCP.
    pub over_tcp: bool,
}

/// An upstream that asked us.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which.
    pub check: Check,
    /// What it was asked.
    pub name: String,
}

/// Checks one upstream after the other.
pub async fn find(checks: Vec<Check>, workers: Vec<Arc<Vitals>>, mut chance: Rng) -> Vec<Found> {
    let mut found = Vec::new();
    for check in checks {
        let number = chance.next_u64().max(1);
        let name = format!(
            "{}.{}.{}",
            Lookout::label(number),
            chance.next_u64(),
            check.apex.trim_start_matches('.')
        );
        // A zone's name may be so long that there is no room in front of it.
        let Some(message) = query(&name, chance.next_u16()) else { continue };
        let seen = || workers.iter().map(|worker| worker.lookout.seen()).sum::<u64>();
        let before = seen();
        workers.iter().for_each(|worker| worker.lookout.look_for(number));
        for _ in 0..TRIES {
            let comes_back = async {
                while seen() == before {
                    sleep(LOOK).await;
                }
            };
            let answered = tokio::select! {
                answered = timeout(PATIENCE, ask(&check, &message)) => matches!(answered, Ok(Ok(()))),
                () = comes_back => true,
            };
            if answered {
                break;
            }
        }
        workers.iter().for_each(|worker| worker.lookout.look_for(0));
        if seen() > before {
            found.push(Found { check, name });
        }
    }
    found
}

/// Asks and waits for any answer at all.
async fn ask(check: &Check, message: &[u8]) -> io::Result<()> {
    let mut answer = [0; 512];
    if check.over_tcp {
        let mut stream = TcpStream::connect(check.address).await?;
        let len = u16::try_from(message.len()).expect("a query is short").to_be_bytes();
        stream.write_all(&[&len, message].concat()).await?;
        stream.read_exact(&mut answer[..2]).await?;
    } else {
        let any: IpAddr = match check.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(check.address).await?;
        socket.send(message).await?;
        socket.recv(&mut answer).await?;
    }
    Ok(())
}

fn query(name: &str, id: u16) -> Option<Vec<u8>> {
    let name = Name::parse(name).ok()?;
    let mut message = id.to_be_bytes().to_vec();
    // RD; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(name.as_wire());
    message.extend(TYPE_HINFO.to_be_bytes());
    message.extend([0, 1]);
    Some(message)
}
