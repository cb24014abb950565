//! The authority behind the servers under test: answers every question from a template, over UDP and TCP, without data.
//!
//! It must be cheap, for it shares a core with the load. What it says is [`exists`]'s decision; positive answers have one record,
//! negative ones an SOA; names under `big.example.com` get 10 KB, over UDP cut (TC).

use crate::batch::{Outgoing, Received};
use crate::message::{A, AAAA, HEADER_LEN, OPT, PTR, SRV, TXT, Verdict};
use crate::process::free_port;
use crate::traffic::{exists, question};
use nix::sys::socket::MsgFlags;
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// TTL of answers in seconds, unless said otherwise: what CoreDNS gives cluster names.
pub const TTL_S: u32 = 30;
/// Connections at once; each has a thread. More than any peer here opens.
const CONNECTIONS_MAX: usize = 512;
/// An idle connection ends then: forwarders keep theirs for ten seconds or so.
const IDLE: Duration = Duration::from_secs(30);
/// Records of an answer of 10 KB: TXT of 200 bytes each.
const BIG_RECORDS: u16 = 48;

/// Serves until the process ends; port 0 is any.
///
/// # Errors
///
/// The port is taken, or the UDP socket broke.
pub fn serve(port: u16, ttl_s: u32) -> io::Result<()> {
    let port = if port == 0 { free_port()? } else { port };
    let udp = UdpSocket::bind(("127.0.0.1", port))?;
    // Bursts of a whole window of queries must not be lost here.
    drop(socket2::SockRef::from(&udp).set_recv_buffer_size(4 << 20));
    let address = udp.local_addr()?;
    let tcp = TcpListener::bind(address)?;
    println!("listening on {address}");
    std::thread::spawn(move || accept(&tcp, ttl_s));
    let (mut received, mut outgoing) = (Received::default(), Outgoing::default());
    loop {
        match received.receive(&udp, MsgFlags::MSG_WAITFORONE) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        for (query, peer) in received.iter() {
            outgoing.push(peer, |out| answer(query, ttl_s, false, out));
        }
        outgoing.send(&udp, MsgFlags::empty());
    }
}

fn accept(listener: &TcpListener, ttl_s: u32) {
    let open = std::sync::Arc::new(());
    for connection in listener.incoming().map_while(Result::ok) {
        let guard = open.clone();
        if std::sync::Arc::strong_count(&open) > CONNECTIONS_MAX {
            continue;
        }
        std::thread::spawn(move || {
            // Whatever ends it ends this connection only.
            drop(serve_connection(&connection, ttl_s));
            drop(guard);
        });
    }
}

fn serve_connection(connection: &TcpStream, ttl_s: u32) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::with_capacity(64 << 10, connection);
    let (mut query, mut out) = (vec![], vec![]);
    loop {
        let mut len = [0; 2];
        reader.read_exact(&mut len)?;
        query.resize(usize::from(u16::from_be_bytes(len)), 0);
        reader.read_exact(&mut query)?;
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        answer(&query, ttl_s, true, &mut out);
        let answer_len = (out.len() - start - 2) as u16;
        out[start..start + 2].copy_from_slice(&answer_len.to_be_bytes());
        // All that came in one segment is answered in one.
        if reader.buffer().is_empty() {
            (&mut &*connection).write_all(&out)?;
            out.clear();
        }
    }
}

/// Appends the answer to a query; to what is no query, FORMERR.
pub fn answer(query: &[u8], ttl_s: u32, is_tcp: bool, out: &mut Vec<u8>) {
    let start = out.len();
    let Some((qname, qtype, question_end)) = question(query) else {
        let id = [query.first().copied().unwrap_or(0), query.get(1).copied().unwrap_or(0)];
        out.extend_from_slice(&[id[0], id[1], 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        return;
    };
    let verdict = exists(qname, qtype);
    let is_big = qname.ends_with(b"\x03big\x07example\x03com\0");
    let edns = query[question_end..].starts_with(&OPT[..3]);
    out.extend_from_slice(&query[..question_end]);
    let (mut answers, mut authorities, mut is_cut) = (0u16, 0u16, false);
    match verdict {
        _ if is_big && is_tcp => {
            answers = BIG_RECORDS;
            for n in 0..BIG_RECORDS {
                let mut text = [b'x'; 201];
                text[0] = 200;
                text[1..3].copy_from_slice(&n.to_be_bytes());
                record(out, TXT, ttl_s, &text);
            }
        }
        _ if is_big => is_cut = true,
        Verdict::Positive => {
            answers = 1;
            match qtype {
                AAAA => record(out, AAAA, ttl_s, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]),
                PTR => record(out, PTR, ttl_s, b"\x05svc-1\x07default\x03svc\x07cluster\x05local\0"),
                SRV => record(
                    out,
                    SRV,
                    ttl_s,
                    b"\0\0\0\x64\0\x50\x05svc-1\x07default\x03svc\x07cluster\x05local\0",
                ),
                _ => record(out, A, ttl_s, &[192, 0, 2, 7]),
            }
        }
        _ => {
            authorities = 1;
            soa(out, qname, ttl_s);
        }
    }
    if edns {
        out.extend_from_slice(&OPT);
    }
    let header = &mut out[start..start + HEADER_LEN];
    // QR, AA, the client's RD; RA, and the RCODE.
    header[2] = 0x84 | (query[2] & 0x01) | if is_cut { 0x02 } else { 0 };
    header[3] = 0x80 | if verdict == Verdict::NxDomain { 3 } else { 0 };
    header[4..6].copy_from_slice(&[0, 1]);
    header[6..8].copy_from_slice(&answers.to_be_bytes());
    header[8..10].copy_from_slice(&authorities.to_be_bytes());
    header[10..12].copy_from_slice(&[0, u8::from(edns)]);
}

/// A record whose owner is the question's name.
fn record(out: &mut Vec<u8>, rtype: u16, ttl_s: u32, rdata: &[u8]) {
    out.extend_from_slice(&[0xc0, HEADER_LEN as u8]);
    fixed(out, rtype, ttl_s, rdata.len());
    out.extend_from_slice(rdata);
}

/// The SOA of the zone above: the question's name without its first label (RFC 2308 §3).
fn soa(out: &mut Vec<u8>, qname: &[u8], ttl_s: u32) {
    let first = usize::from(qname[0]);
    let owner = if first == 0 { HEADER_LEN } else { HEADER_LEN + 1 + first };
    out.extend_from_slice(&[0xc0, owner as u8]);
    let names = b"\x02ns\x03dns\0\x02hm\x03dns\0";
    fixed(out, 6, ttl_s, names.len() + 20);
    out.extend_from_slice(names);
    for number in [1, 7200, 1800, 86_400, ttl_s] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn fixed(out: &mut Vec<u8>, rtype: u16, ttl_s: u32, rdata_len: usize) {
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&ttl_s.to_be_bytes());
    out.extend_from_slice(&(rdata_len as u16).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{labels, verdict, write_query};

    fn ask(name: &str, qtype: u16, edns: bool, is_tcp: bool) -> Vec<u8> {
        let (mut query, mut out) = (vec![], vec![]);
        write_query(&mut query, 77, [&labels(name), &[0]], qtype, edns);
        answer(&query, TTL_S, is_tcp, &mut out);
        assert_eq!((&out[..2], &out[12..20]), (&query[..2], &query[12..20]), "ID and question come back");
        out
    }

    #[test]
    fn answers_say_what_the_name_promises() {
        let positive = ask("www-0.example.com", A, false, false);
        assert_eq!(verdict(&positive), Some(Verdict::Positive));
        assert_eq!(positive[positive.len() - 10..], [0, 0, 0, 30, 0, 4, 192, 0, 2, 7]);
        assert_eq!(verdict(&ask("www-1-v4.example.com", AAAA, true, false)), Some(Verdict::NoData));
        let absent = ask("www.default.svc.cluster.local", A, true, false);
        assert_eq!((verdict(&absent), absent[8..12].to_vec()), (Some(Verdict::NxDomain), vec![0, 1, 0, 1]));
        assert!(absent.ends_with(&OPT));
    }

    #[test]
    fn big_answers_are_for_tcp() {
        let cut = ask("a.big.example.com", TXT, false, false);
        assert_eq!((cut[2] & 2, verdict(&cut)), (2, Some(Verdict::Other)));
        assert!((10_000..16_384).contains(&ask("a.big.example.com", TXT, false, true).len()));
    }

    #[test]
    fn what_is_no_query_is_a_format_error() {
        let mut out = vec![];
        answer(&[9, 9, 1], TTL_S, false, &mut out);
        assert_eq!(out, [9, 9, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
