//! A driver's turn (the first page of `nodens_core`): take what has arrived, handle what is due, drain, look at the next wake-up.
//!
//! Everything that goes in or comes out passes by a check on its way.

use crate::failure::{Checked, ensure, fail};
use crate::hazards::Hazard;
use crate::host::{Arrival, Line};
use crate::plan::upstream_number;
use crate::trace::Trace;
use crate::upstreams::Truth;
use crate::world::World;
use nodens_core::wire::StreamFraming;
use nodens_core::{
    ClientQuery, Event, Path, PathEvent, PathRequest, Rejection, Target, Transport, UpstreamId,
};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Rounds of draining after which a Forwarder is taken to go round in circles.
const ROUNDS_MAX: u32 = 20_000;
/// The port of a socket whose port the kernel chose.
const KERNELS_PORT: u16 = 61_000;
/// Where the service listens, for packet traces.
const SERVICE: ([u8; 4], u16) = ([169, 254, 20, 10], 53);

impl World {
    /// One turn of a worker, unless it is suspended.
    pub(crate) fn take_turn(&mut self, worker: usize) -> Checked {
        self.workers[worker].turn_at = None;
        if self.is_paused(worker) {
            return Ok(());
        }
        while let Some(arrival) = self.workers[worker].inbox.pop_front() {
            self.take(worker, arrival)?;
        }
        let now = self.clock();
        if self.workers[worker].forwarder.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.time_out(worker)?;
        }
        self.drain(worker)?;
        self.check_turn(worker)?;
        let next = self.workers[worker].forwarder.poll_timeout().map(|(at, _)| at);
        self.plan_wake(worker, next);
        Ok(())
    }

    fn take(&mut self, worker: usize, arrival: Arrival) -> Checked {
        match arrival {
            Arrival::Ask(ask) => self.take_query(worker, ask),
            Arrival::Packet { path, packet } => {
                let late = self.has(Hazard::LateDelivery);
                if late || self.workers[worker].line(path).is_some() {
                    self.take_response(worker, path, &packet.bytes, packet.truth)
                } else {
                    Ok(())
                }
            }
            Arrival::Piece { path, bytes } => self.take_piece(worker, path, &bytes),
            Arrival::Report { path, event } => match self.workers[worker].line(path) {
                Some(_) => self.report(worker, path, event),
                None => Ok(()),
            },
        }
    }

    fn take_query(&mut self, worker: usize, number: u32) -> Checked {
        let now = self.clock();
        let ask = &self.asks[number as usize];
        self.summary.queries += 1;
        self.trace.fold(self.now ^ u64::from(number) << 32);
        self.trace.line(self.now, || {
            let via = if ask.client.connection.is_some() { "tcp" } else { "udp" };
            format!("w{worker} <- {} {via} {}", ask.client.peer, crate::message::describe(&ask.bytes))
        });
        let tcp = ask.client.connection.is_some();
        self.trace.packet(self.now, ask.client.peer, SERVICE.into(), tcp, &ask.bytes);
        let before = self.before_query(worker, number);
        let (host, ask) = (&mut self.workers[worker], &self.asks[number as usize]);
        let query = ClientQuery { client: ask.client, message: &ask.bytes };
        let outcome = host.forwarder.handle_query(now, query, &mut self.out);
        host.step += 1;
        host.fresh &= outcome != nodens_core::Outcome::Forward;
        if let nodens_core::Outcome::Answer { len } = outcome {
            self.note_answer(worker, number, len);
        }
        self.check_query(worker, number, &before, outcome)
    }

    /// Bytes on a connection to an upstream, put together with what the drivers use for it.
    fn take_piece(&mut self, worker: usize, path: Path, bytes: &[u8]) -> Checked {
        let Some(line) = self.workers[worker].line_mut(path) else { return Ok(()) };
        line.framing.push(bytes);
        let mut whole: SmallVec<[(Vec<u8>, Truth); 2]> = SmallVec::new();
        let mut broken = false;
        loop {
            match line.framing.next_message() {
                Ok(Some(message)) => {
                    let truth = line.truths.pop_front().unwrap_or(Truth::Broken);
                    whole.push((message.to_vec(), truth));
                }
                Ok(None) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        for (message, truth) in whole {
            self.take_response(worker, path, &message, truth)?;
        }
        if broken && self.workers[worker].line(path).is_some() {
            self.report(worker, path, PathEvent::Closed)?;
        }
        Ok(())
    }

    pub(crate) fn take_response(&mut self, worker: usize, path: Path, bytes: &[u8], truth: Truth) -> Checked {
        let now = self.clock();
        self.trace.fold(self.now ^ u64::from(path.slot));
        self.trace.fold_bytes(bytes);
        let before = self.before_response(worker, path, bytes, truth);
        if let Some(line) = self.workers[worker].line(path) {
            let tcp = line.transport == Transport::Tcp;
            self.trace.packet(self.now, line.remote, line.local, tcp, bytes);
        }
        let accepted: Result<(), Rejection> =
            self.workers[worker].forwarder.handle_response(now, path, bytes);
        self.trace.line(self.now, || {
            let text = crate::message::describe(bytes);
            format!("w{worker} <= path {}/{} {truth:?} {accepted:?} {text}", path.slot, path.generation)
        });
        self.workers[worker].step += 1;
        self.check_response(worker, path, bytes, truth, &before, accepted)
    }

    /// A transport's report.
    pub(crate) fn report(&mut self, worker: usize, path: Path, event: PathEvent) -> Checked {
        self.trace.fold(self.now ^ u64::from(path.slot) ^ 0xe7);
        self.trace
            .line(self.now, || format!("w{worker} path {}/{} reports {event:?}", path.slot, path.generation));
        let now = self.clock();
        let host = &mut self.workers[worker];
        if let Some(line) = host.line_mut(path) {
            match event {
                PathEvent::Connected => line.connected = true,
                PathEvent::PortTaken => {}
                PathEvent::Refused | PathEvent::Closed | PathEvent::LocalFailure => line.stalled = true,
            }
        }
        if event != PathEvent::Connected {
            host.note_refusals(path);
        }
        let lookups = host.forwarder.lookups();
        host.forwarder.handle_path_event(now, path, event);
        host.step += 1;
        host.fresh = false;
        host.unsure |= host.forwarder.lookups() < lookups;
        Ok(())
    }

    fn time_out(&mut self, worker: usize) -> Checked {
        let now = self.clock();
        let host = &mut self.workers[worker];
        let lookups = host.forwarder.lookups();
        host.forwarder.handle_timeout(now);
        host.step += 1;
        host.fresh = false;
        host.unsure |= host.forwarder.lookups() < lookups;
        let next = host.forwarder.poll_timeout();
        ensure(next.is_none_or(|(at, _)| at > now), "machine/timer", || {
            format!("worker {worker} asks again for {next:?}, which is not after the time-out at {now:?}")
        })
    }

    /// A worker takes a new configuration, between two turns.
    pub(crate) fn take_config(&mut self, worker: usize, plan: std::sync::Arc<crate::plan::Plan>) -> Checked {
        if self.workers[worker].draining {
            return Ok(());
        }
        if self.is_paused(worker) {
            // It is found when the worker goes on.
            let at = self.now + 30 * crate::world::MS;
            self.queue.push(at, crate::world::Event::Host(crate::host::Change::Take { worker, plan }));
            return Ok(());
        }
        self.take_turn(worker)?;
        self.check_counts(worker)?;
        self.count_anew(worker, &plan);
        let now = self.clock();
        self.workers[worker].forwarder.handle_config(now, plan.config.clone());
        self.reconfigured(worker, plan);
        self.take_turn(worker)
    }

    /// Fetches everything that the Forwarder wants to have done.
    fn drain(&mut self, worker: usize) -> Checked {
        for _ in 0..ROUNDS_MAX {
            while let Some(request) = self.workers[worker].forwarder.poll_path() {
                self.carry_out(worker, request)?;
            }
            let now = self.clock();
            let Some(transmit) = self.workers[worker].forwarder.poll_transmit(now, &mut self.out) else {
                self.take_events(worker);
                return self.drained(worker);
            };
            match transmit.target {
                Target::Client(client) => self.answer_leaves(worker, client, transmit.len)?,
                Target::Upstream(path) => self.query_leaves(worker, path, transmit.len)?,
            }
        }
        fail("machine/spin", format!("worker {worker} has something to send {ROUNDS_MAX} times in one turn"))
    }

    fn take_events(&mut self, worker: usize) {
        let mut turns: SmallVec<[(UpstreamId, bool); 4]> = SmallVec::new();
        while let Some(event) = self.workers[worker].forwarder.poll_event() {
            let counted = &mut self.workers[worker].counted;
            match event {
                Event::Query(_) => counted.seen.queries += 1,
                Event::Failure(_) => counted.seen.failures += 1,
                Event::Upstream { upstream, down } => {
                    self.trace.line(self.now, || format!("w{worker} upstream {} down: {down}", upstream.0));
                    turns.push((upstream, down));
                }
            }
        }
        for (at, (_, down)) in turns.iter().enumerate() {
            if *down {
                self.note_hopeless(worker, &turns[at + 1..]);
            }
        }
    }

    fn carry_out(&mut self, worker: usize, request: PathRequest) -> Checked {
        match request {
            PathRequest::Open { path, transport, upstream, source_port } => {
                self.open(worker, path, transport, upstream, source_port)
            }
            PathRequest::Close { path } => {
                self.trace.fold(u64::from(path.slot) ^ 0xc1);
                self.trace
                    .line(self.now, || format!("w{worker} closes path {}/{}", path.slot, path.generation));
                let line = self.workers[worker].lines.get_mut(path.slot as usize);
                let known = line.and_then(|line| line.take_if(|line| line.path == path));
                ensure(known.is_some(), "machine/path", || {
                    format!("worker {worker} closes {path:?}, which is not open")
                })?;
                known.iter().for_each(|line| self.excuse_lost(worker, line));
                Ok(())
            }
        }
    }

    fn open(
        &mut self,
        worker: usize,
        path: Path,
        transport: Transport,
        remote: SocketAddr,
        source_port: Option<u16>,
    ) -> Checked {
        self.trace.fold(u64::from(path.slot) << 16 ^ u64::from(source_port.unwrap_or(0)));
        self.trace.line(self.now, || {
            let (slot, generation) = (path.slot, path.generation);
            format!("w{worker} opens path {slot}/{generation} {transport:?} to {remote} from {source_port:?}")
        });
        self.check_open(worker, path, transport, remote, source_port)?;
        let slot = path.slot as usize;
        let upstream = upstream_number(remote);
        let local = World::local_address(worker, source_port.unwrap_or(KERNELS_PORT));
        let host = &mut self.workers[worker];
        if host.lines.len() <= slot {
            host.lines.resize_with(slot + 1, || None);
        }
        host.lines[slot] = Some(Line {
            path,
            transport,
            upstream,
            local,
            remote,
            connected: transport == Transport::Udp,
            stalled: false,
            arrives_until: 0,
            busy_until: 0,
            framing: StreamFraming::new(),
            truths: VecDeque::new(),
            out: SmallVec::new(),
            sent: 0,
        });
        let (fails, taken) = (self.ratio(Hazard::OpenFails), self.ratio(Hazard::PortTaken));
        if self.draws.host.hit(fails) {
            return self.report(worker, path, PathEvent::LocalFailure);
        }
        if transport == Transport::Tcp {
            self.connection_asked(worker, path, upstream, 0);
        } else if source_port.is_some() && self.draws.host.hit(taken) {
            return self.report(worker, path, PathEvent::PortTaken);
        }
        Ok(())
    }

    fn query_leaves(&mut self, worker: usize, path: Path, len: usize) -> Checked {
        self.summary.upstream_messages += 1;
        self.trace.fold(self.now ^ u64::from(path.slot) << 8);
        self.trace.fold_bytes(&self.out[..len]);
        self.check_sent(worker, path, len)?;
        let Some(line) = self.workers[worker].line(path) else { return Ok(()) };
        let (upstream, tcp) = (line.upstream, line.transport == Transport::Tcp);
        let (local, remote, stalled) = (line.local, line.remote, line.stalled);
        let bytes = &self.out[..len];
        self.trace.packet(self.now, local, remote, tcp, bytes);
        self.trace.line(self.now, || {
            let text = crate::message::describe(bytes);
            format!("w{worker} => path {}/{} upstream {upstream} {text}", path.slot, path.generation)
        });
        // The message is read where it was written; nothing below writes there.
        let out = std::mem::take(&mut self.out);
        if tcp {
            self.message_leaves(worker, path, upstream, &out[..len], 0);
        } else if !stalled {
            self.datagram_leaves(worker, path, upstream, &out[..len]);
        }
        self.out = out;
        Ok(())
    }

    /// An answer goes to a client: fold it in, and let the client have it unless it gets lost.
    pub(crate) fn note_answer(&mut self, worker: usize, number: u32, len: usize) {
        let lost = self.is_lost_to_client();
        let bytes = &self.out[..len];
        let ask = &mut self.asks[number as usize];
        note_bytes(
            &mut self.trace,
            self.now,
            worker,
            ask.client.peer,
            ask.client.connection.is_some(),
            bytes,
        );
        let open = match ask.client.connection {
            Some(id) => self.connections[id.0 as usize].open,
            None => !lost,
        };
        if open {
            ask.answered_at.get_or_insert(self.now);
            ask.rcode.get_or_insert(bytes[3] & 0xf);
        }
    }
}

fn note_bytes(trace: &mut Trace, now: u64, worker: usize, to: SocketAddr, tcp: bool, bytes: &[u8]) {
    trace.fold_bytes(bytes);
    trace.packet(now, SERVICE.into(), to, tcp, bytes);
    trace.line(now, || format!("w{worker} -> {to} {}", crate::message::describe(bytes)));
}
