//! The vocabulary between a Forwarder and its driver: what goes in, what comes out, and why something did not.

use crate::config::{ListenerId, UpstreamId};
use crate::time::Duration;
use crate::wire::Name;
use core::net::{IpAddr, SocketAddr};

/// How a message travels.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Transport {
    /// One message per datagram.
    Udp = 0,
    /// Length-prefixed messages on a connection (RFC 7766).
    Tcp = 1,
}

/// Who asked, and how to answer them. The core treats it as an address label and hands it back unchanged.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ClientAddr {
    /// The listening address the query came in on.
    pub listener: ListenerId,
    /// The client's address and port.
    pub peer: SocketAddr,
    /// UDP on a wildcard socket: the address the client asked, to answer from (RFC 2181 §4).
    pub local: Option<IpAddr>,
    /// TCP: the connection; `None` means UDP.
    pub connection: Option<ConnectionId>,
}

impl ClientAddr {
    /// The transport of the query.
    pub const fn transport(&self) -> Transport {
        if self.connection.is_some() { Transport::Tcp } else { Transport::Udp }
    }
}

/// A client's TCP connection, named by the driver. Never given twice in a worker's life, so that an answer that comes after
/// the connection is gone cannot reach somebody else.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// A query as it arrived.
#[derive(Copy, Clone, Debug)]
pub struct ClientQuery<'a> {
    /// Who asked.
    pub client: ClientAddr,
    /// The DNS message, without TCP's length prefix.
    pub message: &'a [u8],
}

/// What became of a client's query.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
#[must_use]
pub enum Outcome {
    /// The first `len` bytes of the response buffer are the answer: send it now.
    Answer {
        /// Its length in bytes.
        len: usize,
    },
    /// Nothing will be sent, for this reason.
    Drop(DropReason),
    /// A lookup is running; the answer comes through `poll_transmit`.
    Forward,
}

/// Why a query gets no answer.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum DropReason {
    /// Shorter than a header: nothing to answer to.
    Short,
    /// A response sent to the server port: answering it could start a loop (RUSTSEC-2023-0041).
    Response,
    /// The same client asked the same with the same ID and is waiting already.
    Duplicate,
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = 3;
    /// All, in the order of their numbers, with the label for metrics.
    pub const LABELS: [&'static str; Self::COUNT] = ["short", "response", "duplicate"];
}

/// Why an upstream's message was not accepted. The lookup it was meant for goes on waiting (reliability.md §2.3).
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Rejection {
    /// No such path (any more): late, or never asked.
    UnknownPath,
    /// V2: shorter than a header.
    Short,
    /// V3: no query with this ID is out on this path.
    WrongId,
    /// V4: a query.
    NotAResponse,
    /// V5: another opcode than QUERY.
    WrongOpcode,
    /// V6: not exactly our question.
    WrongQuestion,
    /// V8: counts, names or records that do not parse.
    Malformed,
    /// V9: two OPT records, one outside the additional section, or a version other than 0.
    BadOpt,
    /// V11: an answer of another class than the question's.
    WrongClass,
}

impl Rejection {
    /// How many reasons there are.
    pub const COUNT: usize = 9;
    /// All, in the order of their numbers, with the label for metrics.
    pub const LABELS: [&'static str; Self::COUNT] = [
        "unknown_path",
        "short",
        "wrong_id",
        "not_a_response",
        "wrong_opcode",
        "wrong_question",
        "malformed",
        "bad_opt",
        "wrong_class",
    ];
}

/// A way to an upstream that the core asked for: a connected UDP socket or a TCP connection.
///
/// `slot` is small and reused, good for indexing a table; `generation` tells a new holder from an old one.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub struct Path {
    /// Index, below `Limits::paths_max`.
    pub slot: u32,
    /// Differs for each use of the slot.
    pub generation: u32,
}

/// A path to open or to close; drained by the driver before it drains transmits.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum PathRequest {
    /// UDP: bind a new socket to `source_port` (`None`: the kernel's choice) and connect it. TCP: start connecting.
    /// What goes wrong is reported with `handle_path_event`, at once or later.
    Open {
        /// Its name from now on.
        path: Path,
        /// UDP or TCP.
        transport: Transport,
        /// Where to.
        upstream: SocketAddr,
        /// A port drawn by the core (RFC 5452 §9.2); UDP only.
        source_port: Option<u16>,
    },
    /// Close it; nothing more will be sent on it, and what still arrives is not wanted.
    Close {
        /// The path.
        path: Path,
    },
}

/// What a transport has to report.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum PathEvent {
    /// TCP: connected; UDP needs no report.
    Connected,
    /// The drawn source port is in use: draw another.
    PortTaken,
    /// The upstream refused or is unreachable (ECONNREFUSED, EHOSTUNREACH, ICMP).
    Refused,
    /// TCP: the connection ended, in order or not.
    Closed,
    /// This machine could not do it: no descriptors, no buffers, forbidden by a packet filter.
    LocalFailure,
}

/// Where a message goes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Target {
    /// To a client.
    Client(ClientAddr),
    /// To an upstream.
    Upstream(Path),
}

/// A message to send: the first `len` bytes of the buffer that was passed to `poll_transmit`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Transmit {
    /// Where it goes.
    pub target: Target,
    /// Its length in bytes, without TCP's length prefix.
    pub len: usize,
}

/// Who wants the next wake-up.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Reason {
    /// A lookup's next attempt or its deadline.
    Lookup,
    /// A probe of an upstream, or the end of one.
    UpstreamProbe,
    /// A path to an upstream that has been idle for long, or has lived long enough.
    PathIdle,
}

/// Something worth a log line. Formatting is the control thread's work.
#[derive(Clone, Debug)]
pub enum Event {
    /// A query was answered in a zone with `log`.
    Query(QueryEvent),
    /// A lookup failed in a zone with `errors`.
    Failure(FailureEvent),
    /// An upstream is down or up again.
    Upstream {
        /// Which.
        upstream: UpstreamId,
        /// Down, or up.
        down: bool,
    },
}

/// One answered query, for CoreDNS' `log` format.
#[derive(Clone, Debug)]
pub struct QueryEvent {
    /// Who asked.
    pub client: ClientAddr,
    /// The message ID of the client's query.
    pub id: u16,
    /// The name asked for, in canonical form.
    pub qname: Name,
    /// The type asked for.
    pub qtype: u16,
    /// The class asked for.
    pub qclass: u16,
    /// The DO bit.
    pub do_bit: bool,
    /// The size the client can take: from its OPT, else 512.
    pub udp_size: u16,
    /// The query's length in bytes.
    pub query_len: u16,
    /// Header bytes 2 and 3 of the answer.
    pub flags: u16,
    /// The answer's RCODE, extended bits included.
    pub rcode: u16,
    /// The answer's length in bytes.
    pub response_len: u16,
    /// From query to answer.
    pub duration: Duration,
}

/// One failed lookup, for CoreDNS' `errors` format.
#[derive(Clone, Debug)]
pub struct FailureEvent {
    /// The name asked for, in canonical form.
    pub qname: Name,
    /// The type asked for.
    pub qtype: u16,
    /// Why no upstream answered.
    pub cause: FailureCause,
    /// The upstream asked last.
    pub upstream: Option<UpstreamId>,
}

/// Why a lookup failed.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum FailureCause {
    /// No upstream answered in time.
    TimedOut,
    /// Every attempt was refused or unreachable.
    Refused,
    /// An upstream answered over TCP with what is no answer.
    Broken,
    /// This machine could not send.
    Local,
}
