//! Asking an upstream over UDP and over TCP for a name that nobody can have in a cache.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::facts::{Asked, Transport};

/// For one question. Longer than the 5 s after which CoreDNS itself gives up on what stands behind it.
const PATIENCE: Duration = Duration::from_secs(6);
/// A datagram may be lost: it is sent again after this long.
const AGAIN: Duration = Duration::from_secs(2);
/// Largest answer over UDP that is read; nothing larger was offered.
const UDP_SIZE: usize = 512;

/// Asks for `label.domain`. The label is the caller's, and new for each question: an answer out of a cache would say
/// nothing about the way behind it.
pub(super) async fn ask(server: SocketAddr, transport: Transport, label: &str, domain: &str) -> Asked {
    let Ok(name) = Name::from_ascii(format!("{label}.{domain}")) else {
        return Asked::Unreachable(format!("{domain} leaves no room for a label"));
    };
    let id = u16::from_str_radix(label.get(..4).unwrap_or_default(), 16).unwrap_or(1);
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, RecordType::A));
    let Ok(bytes) = query.to_vec() else {
        return Asked::Unreachable("the question cannot be written".to_owned());
    };
    let begun = Instant::now();
    let asked = async {
        match transport {
            Transport::Udp => over_udp(server, &bytes, id).await,
            Transport::Tcp => over_tcp(server, &bytes).await,
        }
    };
    match timeout(PATIENCE, asked).await {
        Err(_) => Asked::Silent,
        // Taken, and ended without a word.
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            Asked::Silent
        }
        Ok(Err(error)) => Asked::Unreachable(error.to_string()),
        Ok(Ok(answer)) => match Message::from_vec(&answer) {
            Ok(answer) => {
                let code = answer.metadata.response_code;
                let is_good = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
                Asked::Answer { code: mnemonic(code), is_good, took: begun.elapsed() }
            }
            Err(error) => Asked::Unreachable(format!("the answer cannot be read: {error}")),
        },
    }
}

async fn over_udp(server: SocketAddr, query: &[u8], id: u16) -> std::io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut answer = vec![0; UDP_SIZE];
    loop {
        socket.send(query).await?;
        let ours = async {
            loop {
                let len = socket.recv(&mut answer).await?;
                if answer[..len].starts_with(&id.to_be_bytes()) {
                    return Ok::<_, std::io::Error>(len);
                }
            }
        };
        if let Ok(received) = timeout(AGAIN, ours).await {
            answer.truncate(received?);
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes();
    stream.write_all(&[&len, query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// As operators write it.
fn mnemonic(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => format!("{other}"),
    }
}
