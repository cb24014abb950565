//! The loop of the load generator: sockets, the lanes on them, and the queries that are out.
//!
//! A query's ID is its slot in the socket (six bits) and the slot's generation (ten bits): an answer finds its query without a
//! search, and an answer to a query given up long ago finds none.

use super::{LANES_MAX, Plan, report::Counts};
use crate::batch::{BATCH, Outgoing, Received};
use crate::histogram::Histogram;
use crate::message::{HEADER_LEN, Verdict, id, is_response, verdict, write_query};
use crate::traffic::{Lookup, Traffic};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::MsgFlags;
use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const SLOT_BITS: u32 = 6;
const SLOT_MASK: u16 = (1 << SLOT_BITS) - 1;
const _: () = assert!(2 * LANES_MAX <= 1 << SLOT_BITS, "each lane has two slots");
/// Sockets looked at per wait.
const EVENTS: usize = 64;
/// At a fixed rate, a wait this short is spent polling: the kernel's timer would be late.
const POLL_BELOW: Duration = Duration::from_millis(2);
/// How many times per time-out lost queries are looked for.
const SWEEPS: u32 = 20;

/// When a run ends, and how fast it goes.
pub(super) struct Limits {
    pub(super) length: Duration,
    pub(super) queries: u64,
    pub(super) rate: Option<f64>,
}

/// What a run found.
pub(super) struct Found {
    pub(super) counts: Counts,
    pub(super) latency: Histogram,
    /// How long questions were asked.
    pub(super) length: Duration,
}

/// The sockets and all that is out on them.
pub(super) struct Engine {
    clients: Vec<Client>,
    epoll: Epoll,
    outgoing: Outgoing,
    timeout_ns: u64,
    is_echo: bool,
    begin: Instant,
}

/// One source port.
struct Client {
    socket: UdpSocket,
    lanes: Vec<Lane>,
    /// Two per lane.
    slots: Vec<Slot>,
}

/// One stub resolver.
#[derive(Default)]
struct Lane {
    lookup: Lookup,
    /// Queries out.
    open: u8,
    /// Whether one of the answers said that the name exists: the search ends.
    exists: bool,
    is_begun: bool,
}

#[derive(Default)]
struct Slot {
    is_open: bool,
    generation: u16,
    sent_ns: u64,
    question: Vec<u8>,
}

/// The state of one run.
struct Run {
    traffic: Traffic,
    queries_left: u64,
    /// No more lookups to begin.
    is_over: bool,
    /// Queries out on all sockets.
    open: u64,
    counts: Counts,
    latency: Histogram,
    /// At a fixed rate: lanes that wait for their turn, and when the next is due.
    idle: VecDeque<(usize, usize)>,
    pace: Option<Pace>,
}

struct Pace {
    next_ns: f64,
    ns_per_query: f64,
}

impl Engine {
    pub(super) fn new(plan: &Plan) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut clients = Vec::with_capacity(plan.sockets);
        for index in 0..plan.sockets {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(plan.target)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
            let lanes = (0..plan.lanes).map(|_| Lane::default()).collect();
            let slots = (0..2 * plan.lanes).map(|_| Slot::default()).collect();
            clients.push(Client { socket, lanes, slots });
        }
        Ok(Engine {
            clients,
            epoll,
            outgoing: Outgoing::default(),
            timeout_ns: plan.timeout.as_nanos() as u64,
            is_echo: plan.is_echo,
            begin: Instant::now(),
        })
    }

    /// Asks until a limit is reached, and waits for what is out. Afterwards nothing is.
    pub(super) fn run(&mut self, traffic: Traffic, limits: &Limits) -> io::Result<Found> {
        let start_ns = self.now_ns();
        let mut run = Run {
            traffic,
            queries_left: limits.queries,
            is_over: false,
            open: 0,
            counts: Counts::default(),
            latency: Histogram::default(),
            idle: VecDeque::new(),
            pace: limits.rate.map(|rate| Pace { next_ns: start_ns as f64, ns_per_query: 1e9 / rate }),
        };
        let end_ns = start_ns.saturating_add(u64::try_from(limits.length.as_nanos()).unwrap_or(u64::MAX));
        self.start_lanes(&mut run);
        // The last moment at which there was more to ask.
        let mut over_ns = start_ns + 1;
        let mut next_sweep_ns = start_ns;
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut received = Received::default();
        loop {
            let now_ns = self.now_ns();
            run.is_over |= now_ns >= end_ns;
            if !run.is_over {
                over_ns = now_ns;
            }
            self.send_what_is_due(&mut run, now_ns);
            if now_ns >= next_sweep_ns {
                next_sweep_ns = now_ns + self.timeout_ns / u64::from(SWEEPS);
                self.sweep(&mut run, now_ns);
            }
            if run.open == 0 && run.is_over {
                let length = Duration::from_nanos(over_ns - start_ns);
                return Ok(Found { counts: run.counts, latency: run.latency, length });
            }
            let ready = match self.epoll.wait(&mut events, run.wait(now_ns)) {
                Err(nix::errno::Errno::EINTR) => 0,
                result => result?,
            };
            for event in &events[..ready] {
                self.read(&mut run, &mut received, event.data() as usize)?;
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn start_lanes(&mut self, run: &mut Run) {
        for client in 0..self.clients.len() {
            for lane in 0..self.clients[client].lanes.len() {
                self.clients[client].lanes[lane].is_begun = false;
                self.lane_is_free(run, client, lane);
            }
            self.flush(run, client);
        }
    }

    fn send_what_is_due(&mut self, run: &mut Run, now_ns: u64) {
        loop {
            let Some(pace) = &mut run.pace else { return };
            if run.is_over || pace.next_ns > now_ns as f64 {
                return;
            }
            let due_ns = pace.next_ns as u64;
            let Some((client, lane)) = run.idle.pop_front() else { return };
            self.ask(run, client, lane, due_ns);
            self.flush(run, client);
        }
    }

    /// A lane without questions out: asks the next ones, or queues up for its turn.
    fn lane_is_free(&mut self, run: &mut Run, client: usize, lane: usize) {
        if run.pace.is_some() {
            run.idle.push_back((client, lane));
        } else {
            let now_ns = self.now_ns();
            self.ask(run, client, lane, now_ns);
        }
    }

    /// Queues a lane's next questions for [`flush`](Self::flush).
    fn ask(&mut self, run: &mut Run, client: usize, lane_index: usize, due_ns: u64) {
        let Client { lanes, slots, .. } = &mut self.clients[client];
        let lane = &mut lanes[lane_index];
        if run.is_over {
            return;
        }
        let goes_on = lane.is_begun && !lane.exists && lane.lookup.advance();
        if !goes_on && !run.traffic.begin(&mut lane.lookup) {
            run.is_over = true;
            return;
        }
        lane.is_begun = true;
        lane.exists = false;
        for (n, &qtype) in lane.lookup.qtypes().iter().enumerate() {
            if run.queries_left == 0 {
                run.is_over = true;
                break;
            }
            let index = 2 * lane_index + n;
            let slot = &mut slots[index];
            slot.is_open = true;
            slot.generation = slot.generation.wrapping_add(1);
            slot.sent_ns = due_ns;
            let query_id = slot.generation << SLOT_BITS | index as u16;
            let (name, edns, question) = (lane.lookup.name(), lane.lookup.edns, &mut slot.question);
            self.outgoing.push(None, |out| {
                let start = out.len();
                let question_end = write_query(out, query_id, name, qtype, edns);
                question.clear();
                question.extend_from_slice(&out[start + HEADER_LEN..start + question_end]);
            });
            lane.open += 1;
            run.queries_left -= 1;
            run.open += 1;
            run.counts.sent += 1;
            if let Some(pace) = &mut run.pace {
                pace.next_ns += pace.ns_per_query;
            }
        }
    }

    /// Sends what is queued for a socket. What the kernel does not take is found lost later.
    fn flush(&mut self, run: &mut Run, client: usize) {
        if !self.outgoing.is_empty() {
            let unsent = self.outgoing.send(&self.clients[client].socket, MsgFlags::MSG_DONTWAIT);
            run.counts.not_taken += unsent as u64;
        }
    }

    fn read(&mut self, run: &mut Run, received: &mut Received, client: usize) -> io::Result<()> {
        loop {
            let count = match received.receive(&self.clients[client].socket, MsgFlags::MSG_DONTWAIT) {
                Ok(count) => count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    // Nobody listens: the queries are lost, and will be found so.
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                },
            };
            let now_ns = self.now_ns();
            for (message, _) in received.iter() {
                match self.match_answer(client, message) {
                    Some((slot, verdict)) => {
                        run.counts.count(verdict);
                        let sent_ns = self.clients[client].slots[slot].sent_ns;
                        run.latency.record(now_ns.saturating_sub(sent_ns));
                        self.settle(run, client, slot, verdict != Verdict::NxDomain);
                    }
                    None => run.counts.strays += 1,
                }
            }
            self.flush(run, client);
            if count < BATCH {
                return Ok(());
            }
        }
    }

    /// The open query that a message answers, and what it says.
    fn match_answer(&self, client: usize, message: &[u8]) -> Option<(usize, Verdict)> {
        let query_id = id(message)?;
        let index = usize::from(query_id & SLOT_MASK);
        let slot = self.clients[client].slots.get(index)?;
        let is_ours = slot.is_open
            && query_id == slot.generation << SLOT_BITS | index as u16
            && is_response(message) != self.is_echo
            && message[HEADER_LEN.min(message.len())..].starts_with(&slot.question);
        if !is_ours {
            return None;
        }
        Some((index, if self.is_echo { Verdict::Positive } else { verdict(message)? }))
    }

    /// A query has its answer, or has been given up.
    fn settle(&mut self, run: &mut Run, client: usize, slot: usize, exists: bool) {
        self.clients[client].slots[slot].is_open = false;
        run.open -= 1;
        let lane = &mut self.clients[client].lanes[slot / 2];
        lane.open -= 1;
        lane.exists |= exists;
        if lane.open == 0 {
            self.lane_is_free(run, client, slot / 2);
        }
    }

    fn sweep(&mut self, run: &mut Run, now_ns: u64) {
        for client in 0..self.clients.len() {
            for slot in 0..self.clients[client].slots.len() {
                let Slot { is_open, sent_ns, .. } = self.clients[client].slots[slot];
                if is_open && now_ns.saturating_sub(sent_ns) >= self.timeout_ns {
                    run.counts.lost += 1;
                    self.settle(run, client, slot, false);
                }
            }
            self.flush(run, client);
        }
    }
}

impl Run {
    fn wait(&self, now_ns: u64) -> EpollTimeout {
        let Some(pace) = &self.pace else { return EpollTimeout::ZERO };
        let until_next = pace.next_ns - now_ns as f64;
        let is_soon = !self.is_over && until_next < POLL_BELOW.as_nanos() as f64;
        if is_soon { EpollTimeout::ZERO } else { EpollTimeout::from(1u8) }
    }
}
