//! Clients: stub resolvers with their habits, and some that send rubbish.
//!
//! A client asks from a port of its own per query, as stubs do, or (hazard `same-port`) many things from one port with IDs that
//! repeat. It may send A and AAAA together, try a search list, repeat itself with the same ID while it has no answer, ask over a
//! TCP connection in pieces and hang up early. Every query that leaves a client is an [`Ask`]; whatever the Forwarder answers
//! must belong to one.

use crate::draw::{Draw, Part};
use crate::failure::ensure;
use crate::garbage::Garbage;
use crate::hazards::Hazard;
use crate::message::{self, Opt, flag};
use crate::plan::LISTENERS;
use crate::questions::{QuestionId, Space, TYPES};
use crate::world::{Event, MS, SECOND, World};
use nodens_core::wire::StreamFraming;
use nodens_core::{ClientAddr, ConnectionId, ListenerId};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first port of the world's clients; port minus this is the socket's number.
pub(crate) const FIRST_PORT: u16 = 1024;
/// Sockets that a world's clients may open, all together.
pub(crate) const SOCKETS_MAX: usize = 60_000;
/// Times that a client repeats itself.
const RETRIES: u8 = 3;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) draw: Draw,
    pub(crate) ip: IpAddr,
    listener: ListenerId,
    local: Option<IpAddr>,
    /// The port that it asks everything from, if it is such a client.
    socket: Option<u32>,
    connection: Option<u32>,
}

/// A client's UDP port.
#[derive(Debug)]
pub(crate) struct Socket {
    /// What was asked from it.
    pub(crate) asks: SmallVec<[u32; 2]>,
}

/// A client's TCP connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: usize,
    socket: u32,
    stream: Vec<u8>,
    /// Bytes that have arrived at the worker.
    arrived: usize,
    /// When the last bytes that were sent so far arrive.
    arrives_until: u64,
    framing: StreamFraming,
    /// What was asked on it and has not arrived whole.
    pending: VecDeque<u32>,
    pub(crate) open: bool,
}

/// A query that left a client.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) client: ClientAddr,
    pub(crate) id: u16,
    /// What is asked; `None` for what no client should send.
    pub(crate) question: Option<QuestionId>,
    pub(crate) garbage: Option<Garbage>,
    /// RD, CD, AD.
    pub(crate) flags: u16,
    pub(crate) opt: Option<Opt>,
    pub(crate) bytes: Vec<u8>,
    /// Where the question ends in `bytes`; the header's end if there is none.
    pub(crate) question_end: usize,
    pub(crate) sent_at: u64,
    /// When the client got an answer.
    pub(crate) answered_at: Option<u64>,
    /// The low four bits of that answer's RCODE.
    pub(crate) rcode: Option<u8>,
    /// Lookups that it waits for: worker, and the lookup's place there. A repetition may wait twice.
    pub(crate) waits: SmallVec<[(usize, u32); 1]>,
    /// Asked in the second phase, when nothing may go wrong any more.
    pub(crate) must_succeed: bool,
}

impl Ask {
    /// The question as the client spelled it, type and class included.
    pub(crate) fn question_bytes(&self) -> &[u8] {
        &self.bytes[message::HEADER..self.question_end]
    }

    /// DO, if there is an OPT.
    pub(crate) fn do_bit(&self) -> bool {
        self.opt.is_some_and(|opt| opt.do_bit)
    }
}

impl World {
    pub(crate) fn set_up_clients(&mut self) {
        let mut draw = Draw::part(self.options.seed, Part::Clients);
        let span = self.options.span_ms * MS;
        for n in 0..self.options.clients {
            let mut own = draw.child();
            let ip = if own.chance(1, 4) {
                IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n as u16 + 1))
            } else {
                IpAddr::V4(Ipv4Addr::new(10, 0, (n / 250) as u8, (n % 250) as u8 + 1))
            };
            let local = own.chance(1, 3).then_some(IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)));
            let listener = ListenerId(own.below(LISTENERS as u64) as u16);
            let first = own.below(span / 4 + 1);
            self.clients.push(Client { draw: own, ip, listener, local, socket: None, connection: None });
            self.queue.push(first, Event::Act(n as u32));
        }
    }

    /// A client does something, and thinks of when to do the next thing.
    pub(crate) fn act(&mut self, client: u32) {
        if self.queries_left == 0 {
            return;
        }
        let Some(now) = self.next_act(client) else { return };
        self.queue.push(now, Event::Act(client));
        let (garbage, pairs, search) =
            (self.ratio(Hazard::Garbage), self.ratio(Hazard::Pairs), self.ratio(Hazard::SearchList));
        let names = self.space.names.len() as u64;
        let thunder = self.has(Hazard::Thunder);
        let second = self.now / SECOND;
        let draw = &mut self.clients[client as usize].draw;
        if draw.hit(garbage) {
            let garbage = Garbage::draw(draw);
            self.queries_left -= 1;
            self.ask_garbage(client, garbage);
            return;
        }
        // Few names are asked for often, most seldom.
        let name =
            if thunder && draw.chance(3, 4) { second % names } else { draw.skewed(names) - 1 } as usize;
        if draw.hit(search) {
            let mut left = self.queries_left.min(4);
            self.queries_left -= left;
            let mut next = name;
            while left > 0 {
                self.ask(client, Space::id(next, 0), false);
                next = (next + 1) % self.space.names.len();
                left -= 1;
            }
        } else if draw.hit(pairs) {
            self.queries_left -= self.queries_left.min(2);
            self.ask(client, Space::id(name, 0), false);
            self.ask(client, Space::id(name, 1), true);
        } else {
            let type_index = if draw.chance(2, 3) { 0 } else { draw.below(TYPES.len() as u64) as usize };
            self.queries_left -= 1;
            self.ask(client, Space::id(name, type_index), false);
        }
    }

    /// When the client acts next: at random, or with all others at the full second.
    fn next_act(&mut self, client: u32) -> Option<u64> {
        let span = self.options.span_ms * MS;
        let gap = span * self.options.clients as u64 / self.options.queries as u64;
        let thunder = self.ratio(Hazard::Thunder);
        let draw = &mut self.clients[client as usize].draw;
        let mut at = self.now + 1 + draw.below(2 * gap + 1);
        if draw.hit(thunder) {
            at = at.next_multiple_of(SECOND);
        }
        (at < span).then_some(at)
    }

    /// Sends one query; with `same_socket` from the port of the last one.
    pub(crate) fn ask(&mut self, client: u32, question: QuestionId, same_socket: bool) -> u32 {
        let (edns, do_bit, cd, ad, rd) = (
            self.ratio(Hazard::Edns),
            self.ratio(Hazard::DoBit),
            self.ratio(Hazard::CdBit),
            self.ratio(Hazard::AdWanted),
            self.ratio(Hazard::RdZero),
        );
        let (mixed, retry) = (self.ratio(Hazard::MixedCase), self.ratio(Hazard::Retransmission));
        let tcp = self.ratio(Hazard::TcpClients);
        let same_port = self.ratio(Hazard::SamePort);
        let few_ids = self.has(Hazard::SamePort);
        let draw = &mut self.clients[client as usize].draw;
        let opt = draw.hit(edns).then(|| {
            let size = draw.pick(&[1232, 1232, 4096, 512, 0, 65_535, 1400]);
            Opt::plain(size, draw.hit(do_bit))
        });
        let mut flags = if draw.hit(rd) { 0 } else { flag::RD };
        flags |= if draw.hit(cd) { flag::CD } else { 0 };
        flags |= if draw.hit(ad) { flag::AD } else { 0 };
        let id = if few_ids { draw.below(3) as u16 } else { draw.bits() as u16 };
        let spelled = draw.hit(mixed).then(|| draw.bits());
        let (over_tcp, stays, repeats) = (draw.hit(tcp), draw.hit(same_port), draw.hit(retry));

        let mut bytes = Vec::with_capacity(80);
        message::put_header(&mut bytes, id, flags, [1, 0, 0, u16::from(opt.is_some())]);
        bytes.extend_from_slice(&self.space.name(question).wire);
        if let Some(mut bits) = spelled {
            spell(&mut bytes[message::HEADER..], &mut bits);
        }
        bytes.extend_from_slice(&Space::qtype(question).to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        let question_end = bytes.len();
        if let Some(opt) = opt {
            message::put_opt(&mut bytes, opt);
        }
        let socket = self.socket(client, same_socket || stays);
        let ask = Ask {
            client: self.client_addr(client, socket),
            id,
            question: Some(question),
            garbage: None,
            flags,
            opt,
            bytes,
            question_end,
            sent_at: self.now,
            answered_at: None,
            rcode: None,
            waits: SmallVec::new(),
            must_succeed: false,
        };
        self.send(client, socket, ask, over_tcp, repeats && !over_tcp)
    }

    fn ask_garbage(&mut self, client: u32, garbage: Garbage) {
        let name = self.clients[client as usize].draw.below(self.space.names.len() as u64) as usize;
        let draw = &mut self.clients[client as usize].draw;
        let id = draw.bits() as u16;
        let written = garbage.write(id, &self.space.names[name].wire);
        let over_tcp = draw.chance(1, 5) && written.bytes.len() >= message::HEADER;
        let socket = self.socket(client, false);
        let ask = Ask {
            client: self.client_addr(client, socket),
            id,
            question: None,
            garbage: Some(garbage),
            flags: flag::RD,
            opt: written.opt,
            bytes: written.bytes,
            question_end: written.question_end,
            sent_at: self.now,
            answered_at: None,
            rcode: None,
            waits: SmallVec::new(),
            must_succeed: false,
        };
        self.send(client, socket, ask, over_tcp, false);
    }

    fn send(&mut self, client: u32, socket: u32, mut ask: Ask, over_tcp: bool, repeats: bool) -> u32 {
        let number = self.asks.len() as u32;
        if over_tcp {
            let connection = self.connection(client, socket);
            ask.client.connection = Some(ConnectionId(u64::from(connection)));
            ask.client.peer = self.peer(client, self.connections[connection as usize].socket);
            self.asks.push(ask);
            self.send_on_stream(client, connection, number);
            return number;
        }
        self.sockets[socket as usize].asks.push(number);
        self.asks.push(ask);
        self.send_datagram(number);
        if repeats {
            self.queue.push(self.now + SECOND, Event::Retry { ask: number, left: RETRIES });
        }
        let spoofed = self.ratio(Hazard::SpoofedClients);
        if self.draws.attacker.hit(spoofed) {
            self.send_datagram(number);
        }
        number
    }

    fn send_datagram(&mut self, ask: u32) {
        let socket = self.asks[ask as usize].client.peer.port() - FIRST_PORT;
        let worker = self.worker_for(u64::from(socket));
        let arrivals = self.cross_from_client(self.now);
        for at in arrivals.into_iter().flatten() {
            self.queue.push(at, Event::Arrive { worker, ask });
        }
    }

    /// A client that has no answer yet asks again: the same bytes from the same port.
    pub(crate) fn retry(&mut self, ask: u32, left: u8) {
        if left == 0 || self.asks[ask as usize].answered_at.is_some_and(|at| at <= self.now) {
            return;
        }
        self.send_datagram(ask);
        self.queue.push(self.now + SECOND, Event::Retry { ask, left: left - 1 });
    }

    /// A port for a query: a new one, or the client's last.
    fn socket(&mut self, client: u32, same: bool) -> u32 {
        let known = self.clients[client as usize].socket;
        if let Some(socket) = known.filter(|_| same || self.sockets.len() >= SOCKETS_MAX) {
            return socket;
        }
        self.sockets.push(Socket { asks: SmallVec::new() });
        let socket = self.sockets.len() as u32 - 1;
        self.clients[client as usize].socket = Some(socket);
        socket
    }

    fn peer(&self, client: u32, socket: u32) -> SocketAddr {
        SocketAddr::new(self.clients[client as usize].ip, FIRST_PORT + socket as u16)
    }

    fn client_addr(&self, client: u32, socket: u32) -> ClientAddr {
        let Client { listener, local, .. } = self.clients[client as usize];
        ClientAddr { listener, peer: self.peer(client, socket), local, connection: None }
    }

    /// A connection for a query: the client's open one, or a new one.
    fn connection(&mut self, client: u32, socket: u32) -> u32 {
        let fresh = self.clients[client as usize].draw.chance(1, 2);
        if let Some(known) = self.clients[client as usize].connection
            && !fresh
            && self.connections[known as usize].open
            && self.workers[self.connections[known as usize].worker].serves()
        {
            return known;
        }
        let worker = self.worker_for(u64::from(socket));
        self.connections.push(Connection {
            worker,
            socket,
            stream: Vec::new(),
            arrived: 0,
            arrives_until: self.now,
            framing: StreamFraming::new(),
            pending: VecDeque::new(),
            open: true,
        });
        let connection = self.connections.len() as u32 - 1;
        self.clients[client as usize].connection = Some(connection);
        connection
    }

    fn send_on_stream(&mut self, client: u32, connection: u32, ask: u32) {
        let (slow, hang_up) = (self.ratio(Hazard::SlowSenders), self.ratio(Hazard::HangUp));
        let bytes = &self.asks[ask as usize].bytes;
        let line = &mut self.connections[connection as usize];
        self.sockets[line.socket as usize].asks.push(ask);
        let mut from = line.stream.len();
        line.stream.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        line.stream.extend_from_slice(bytes);
        line.pending.push_back(ask);
        let end = line.stream.len();
        let draw = &mut self.clients[client as usize].draw;
        let piece = if draw.hit(slow) { draw.between(1, 7) as usize } else { end };
        let mut at = line.arrives_until.max(self.now) + 30_000;
        while from < end {
            from = (from + piece).min(end);
            self.queue.push(at, Event::Stream { connection, upto: from });
            line.arrives_until = at;
            at += draw.below(3 * MS);
        }
        if draw.hit(hang_up) {
            let gone = at + draw.below(20 * MS);
            self.queue.push(gone, Event::HangUp(connection));
        }
    }

    pub(crate) fn stream_arrives(&mut self, connection: u32, upto: usize) -> crate::failure::Checked {
        let line = &mut self.connections[connection as usize];
        if !line.open {
            return Ok(());
        }
        let worker = line.worker;
        line.framing.push(&line.stream[line.arrived..upto]);
        line.arrived = upto;
        let mut whole: SmallVec<[u32; 4]> = SmallVec::new();
        while let Ok(Some(message)) = line.framing.next_message() {
            // The world wrote this stream: messages come out as they went in.
            if let Some(ask) = line.pending.pop_front() {
                ensure(message == &self.asks[ask as usize].bytes[..], "machine/stream", || {
                    format!("query {ask} did not come out of its stream as it went in: {message:02x?}")
                })?;
                whole.push(ask);
            }
        }
        for ask in whole {
            self.arrive(worker, crate::host::Arrival::Ask(ask))?;
        }
        Ok(())
    }

    pub(crate) fn hang_up(&mut self, connection: u32) {
        self.connections[connection as usize].open = false;
    }
}

/// Turns letters into capitals, one bit of chance each.
fn spell(name: &mut [u8], bits: &mut u64) {
    for byte in name.iter_mut().filter(|byte| byte.is_ascii_lowercase()) {
        if *bits & 1 != 0 {
            *byte = byte.to_ascii_uppercase();
        }
        *bits = bits.rotate_right(1);
    }
}
