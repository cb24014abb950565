//! What a scripted upstream saw.

use std::net::SocketAddr;
use std::time::Instant;

use crate::msg::{Opt, Reply, Response};

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Over a stream, with a length prefix.
    Tcp,
}

/// One query as received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The message (over TCP without its length prefix).
    pub bytes: Vec<u8>,
    /// The message ID.
    pub id: u16,
    /// The name of the question in lower case, with the last dot; empty if
    /// the message has no readable question.
    pub qname: String,
    /// The name as spelled.
    pub qname_raw: String,
    /// The type of the question.
    pub qtype: u16,
    /// The class of the question.
    pub qclass: u16,
    /// The opcode.
    pub opcode: u8,
    /// DO of the OPT record.
    pub do_bit: bool,
    /// CD.
    pub cd: bool,
    /// RD.
    pub rd: bool,
    /// AD.
    pub ad: bool,
    /// The OPT record.
    pub opt: Option<Opt>,
    /// Why the message could not be parsed, if so.
    pub malformed: Option<String>,
    /// UDP or TCP.
    pub transport: Transport,
    /// Who sent it.
    pub peer: SocketAddr,
    /// Its place among all messages of this upstream, from 0.
    pub seq: usize,
    /// The number of the TCP connection, from 0 in the order of acceptance.
    pub connection: Option<usize>,
    /// When it came.
    pub at: Instant,
}

impl Received {
    /// A response to this query, to be changed at will.
    pub fn response(&self) -> Response {
        Response::to(&self.bytes)
    }

    pub(crate) fn new(
        bytes: Vec<u8>,
        transport: Transport,
        peer: SocketAddr,
        connection: Option<usize>,
    ) -> Self {
        let parsed = Reply::try_parse(&bytes);
        let id = bytes.get(..2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        let mut received = Self {
            bytes,
            id,
            qname: String::new(),
            qname_raw: String::new(),
            qtype: 0,
            qclass: 0,
            opcode: 0,
            do_bit: false,
            cd: false,
            rd: false,
            ad: false,
            opt: None,
            malformed: None,
            transport,
            peer,
            seq: 0,
            connection,
            at: Instant::now(),
        };
        match parsed {
            Ok(msg) => {
                if let Some(question) = msg.question {
                    received.qname = question.name.to_ascii_lowercase();
                    received.qname_raw = question.name;
                    received.qtype = question.qtype;
                    received.qclass = question.qclass;
                }
                received.opcode = msg.opcode;
                received.do_bit = msg.opt.as_ref().is_some_and(|opt| opt.do_bit);
                received.cd = msg.cd;
                received.rd = msg.rd;
                received.ad = msg.ad;
                received.opt = msg.opt;
            }
            Err(why) => received.malformed = Some(why),
        }
        received
    }
}
