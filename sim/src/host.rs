//! The machine that the workers run on: their clocks and timers, pauses, reloads, an upgrade.
//!
//! A worker is a real Forwarder and what a driver keeps beside it: what has arrived and was not taken yet, and the open sockets.
//! `turn.rs` is the driver's turn.

use crate::cache::SimCache;
use crate::checks::machine::Counted;
use crate::draw::Draw;
use crate::failure::Checked;
use crate::hazards::Hazard;
use crate::model::{Failed, Flights, Key, Map, Waiter};
use crate::plan::Plan;
use crate::questions::QuestionId;
use crate::upstreams::{Packet, Truth};
use crate::world::{Event, MS, SECOND, WALL_CLOCK_BEGINS_S, World};
use nodens_core::wire::StreamFraming;
use nodens_core::{Forwarder, Instant, Path, PathEvent, Transport};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Datagrams that a socket holds while its worker does not read; more are lost.
const QUEUE_MAX: usize = 256;

/// What arrives at a worker.
#[derive(Debug)]
pub(crate) enum Arrival {
    Ask(u32),
    Packet { path: Path, packet: Packet },
    Piece { path: Path, bytes: Vec<u8> },
    Report { path: Path, event: PathEvent },
}

/// Something that happens to the machine.
#[derive(Debug)]
pub(crate) enum Change {
    Reload {
        upstreams: bool,
    },
    /// A worker takes a configuration that was given to it.
    Take {
        worker: usize,
        plan: Arc<Plan>,
    },
    Flush,
    Pause {
        worker: Option<usize>,
        for_ns: u64,
    },
    Upgrade,
    WallClock,
}

/// A worker.
pub(crate) struct Worker {
    pub(crate) forwarder: Forwarder<SimCache>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) inbox: VecDeque<Arrival>,
    /// It is suspended until then.
    paused_until: u64,
    /// A turn is due then.
    pub(crate) turn_at: Option<u64>,
    /// A wake-up is on its way for then.
    wake_at: Option<u64>,
    /// It belongs to a process that is leaving.
    pub(crate) draining: bool,
    pub(crate) lines: Vec<Option<Line>>,
    pub(crate) flights: Flights,
    pub(crate) failed: Map<Key, Failed>,
    /// Steps so far: what came before what within one moment.
    pub(crate) step: u64,
    /// Per zone: the step at which an upstream last gave a good answer.
    pub(crate) good_at: Vec<u64>,
    /// The step at which any upstream last gave an answer that was accepted.
    pub(crate) heard_at: u64,
    /// A lookup ended in this turn and it is not known which.
    pub(crate) unsure: bool,
    /// Nothing was handled since the last drain.
    pub(crate) fresh: bool,
    /// An upstream's answer was accepted since the last drain.
    pub(crate) heard_in_turn: bool,
    /// Clients that waited when a new configuration came.
    pub(crate) orphans: Vec<Waiter>,
    /// Lookups of which one was ended by an answer.
    pub(crate) tentative: Vec<u32>,
    /// Paths that ended since the last drain.
    pub(crate) refused_in_turn: u32,
    pub(crate) last_id: u16,
    pub(crate) counted: Counted,
}

/// An open path, as the machine sees it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) path: Path,
    pub(crate) transport: Transport,
    pub(crate) upstream: usize,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) connected: bool,
    /// Nothing comes back any more.
    pub(crate) stalled: bool,
    /// When the last bytes that were sent so far arrive.
    pub(crate) arrives_until: u64,
    /// A serial upstream is at work until then.
    pub(crate) busy_until: u64,
    pub(crate) framing: StreamFraming,
    /// What the messages on the stream really are, in their order.
    pub(crate) truths: VecDeque<Truth>,
    pub(crate) out: SmallVec<[OutQuery; 2]>,
    pub(crate) sent: u32,
}

/// A query of the Forwarder that is out on a path.
#[derive(Clone, Debug)]
pub(crate) struct OutQuery {
    pub(crate) id: u16,
    /// The ID that this worker drew before this one.
    pub(crate) id_before: u16,
    /// `None`: a probe.
    pub(crate) question: Option<QuestionId>,
    pub(crate) edns: bool,
    /// The attacker hit upon its ID. He may try the same one again; that is the same luck.
    pub(crate) guessed: bool,
    /// The lookups that may have sent it: place and serial number. Two, if without EDNS they ask in the same words.
    pub(crate) flights: SmallVec<[(u32, u32); 2]>,
}

impl Worker {
    /// Whether it takes new queries.
    pub(crate) fn serves(&self) -> bool {
        !self.draining
    }

    /// How often a path was needed and as many as may be were open.
    pub(crate) fn exhausted(&self) -> u64 {
        self.forwarder.stats().paths_exhausted.get()
    }

    pub(crate) fn line(&self, path: Path) -> Option<&Line> {
        self.lines.get(path.slot as usize)?.as_ref().filter(|line| line.path == path)
    }

    pub(crate) fn line_mut(&mut self, path: Path) -> Option<&mut Line> {
        self.lines.get_mut(path.slot as usize)?.as_mut().filter(|line| line.path == path)
    }

    /// A path ends: whatever is out on it may count as refused.
    pub(crate) fn note_refusals(&mut self, path: Path) {
        let Some(line) = self.lines.get(path.slot as usize).and_then(Option::as_ref) else { return };
        self.refused_in_turn += 1;
        if !line.connected || line.out.is_empty() || !self.fresh {
            // What has not left yet cannot be seen from here: it may be any of them.
            self.flights.iter_mut().for_each(|flight| flight.refusals += 1);
            return;
        }
        for (place, serial) in line.out.iter().flat_map(|out| &out.flights) {
            if let Some(flight) = self.flights.get_mut(*place).filter(|flight| flight.serial == *serial) {
                flight.refusals += 1;
            }
        }
    }

    /// Some open UDP path to an upstream.
    pub(crate) fn any_udp_path(&self, upstream: usize, draw: &mut Draw) -> Option<Path> {
        let open = |line: &&Line| line.transport == Transport::Udp && line.upstream == upstream;
        let mut paths = self.lines.iter().flatten().filter(open);
        let count = paths.clone().count() as u64;
        paths.nth(draw.below(count) as usize).map(|line| line.path)
    }
}

impl World {
    pub(crate) fn add_worker(&mut self, plan: Arc<Plan>) {
        let seed = self.draws.forwarders.seed();
        let now = self.clock();
        let mut forwarder = Forwarder::new(plan.config.clone(), self.cache.clone(), seed, now);
        forwarder.handle_wall_clock(now, WALL_CLOCK_BEGINS_S);
        let zones = plan.config.zones.len();
        self.serving.push(self.workers.len());
        self.workers.push(Worker {
            forwarder,
            plan,
            inbox: VecDeque::new(),
            paused_until: 0,
            turn_at: None,
            wake_at: None,
            draining: false,
            lines: Vec::new(),
            flights: Flights::default(),
            failed: Map::default(),
            step: 0,
            good_at: vec![0; zones],
            heard_at: 0,
            unsure: false,
            fresh: true,
            heard_in_turn: false,
            orphans: Vec::new(),
            tentative: Vec::new(),
            refused_in_turn: 0,
            last_id: 0,
            counted: Counted::default(),
        });
    }

    /// The kernel's choice of a worker for a client's port.
    pub(crate) fn worker_for(&self, socket: u64) -> usize {
        self.serving[(crate::draw::mix(socket) % self.serving.len() as u64) as usize]
    }

    /// Draws what happens to the machine in the first phase.
    pub(crate) fn set_up_host(&mut self) {
        let span = self.options.span_ms * MS;
        for (hazard, most) in [
            (Hazard::Reload, 8),
            (Hazard::UpstreamChange, 5),
            (Hazard::Flush, 4),
            (Hazard::Pauses, 3),
            (Hazard::WallClock, 3),
            (Hazard::Upgrade, 1),
        ] {
            if !self.has(hazard) {
                continue;
            }
            let draw = &mut self.draws.host;
            for _ in 0..draw.between(1, most) {
                let at = draw.below(span);
                let change = match hazard {
                    Hazard::Reload => Change::Reload { upstreams: false },
                    Hazard::UpstreamChange => Change::Reload { upstreams: true },
                    Hazard::Flush => Change::Flush,
                    Hazard::Upgrade => Change::Upgrade,
                    Hazard::WallClock => Change::WallClock,
                    _ => {
                        let one = draw.chance(1, 2).then(|| draw.below(self.options.workers as u64) as usize);
                        let for_ns = draw.pick(&[20 * MS, 500 * MS, 3 * SECOND, 20 * SECOND, 600 * SECOND]);
                        Change::Pause { worker: one, for_ns }
                    }
                };
                self.queue.push(at, Event::Host(change));
            }
        }
    }

    pub(crate) fn change(&mut self, change: Change) -> Checked {
        if !self.healed || matches!(change, Change::Take { .. }) {
            self.trace.line(self.now, || format!("host: {}", describe(&change)));
        }
        match change {
            Change::Take { worker, plan } => return self.take_config(worker, plan),
            _ if self.healed => {}
            Change::Reload { upstreams } => {
                let old = self.workers[self.serving[0]].plan.clone();
                let plan = Arc::new(self.planner.next(&self.options, &old, upstreams));
                // Each worker finds it in its mailbox between two turns of its own.
                for at in 0..self.serving.len() {
                    let worker = self.serving[at];
                    let late = self.draws.host.below(20 * MS);
                    let take = Change::Take { worker, plan: plan.clone() };
                    self.queue.push(self.now + late, Event::Host(take));
                }
            }
            Change::Flush => {
                let plan = self.workers[self.serving[0]].plan.clone();
                let zone =
                    plan.config.zones[self.draws.host.below(plan.config.zones.len() as u64) as usize].id;
                self.cache.flush_zone(zone);
                self.kept.retain(|key, _| key.zone != zone);
            }
            Change::Pause { worker, for_ns } => {
                for at in 0..self.workers.len() {
                    if worker.is_none_or(|one| one == at) {
                        let paused = &mut self.workers[at].paused_until;
                        *paused = (*paused).max(self.now + for_ns);
                        self.plan_turn(at, self.now + for_ns);
                    }
                }
            }
            Change::Upgrade => {
                let plan = self.workers[self.serving[0]].plan.clone();
                for worker in std::mem::take(&mut self.serving) {
                    self.workers[worker].draining = true;
                }
                for _ in 0..self.options.workers {
                    self.add_worker(plan.clone());
                }
            }
            Change::WallClock => {
                let step = self.draws.host.below(8 * 3600);
                let now = self.clock();
                for worker in &mut self.workers {
                    worker.forwarder.handle_wall_clock(now, WALL_CLOCK_BEGINS_S - 4 * 3600 + step);
                }
            }
        }
        Ok(())
    }

    /// Nothing is suspended any more.
    pub(crate) fn resume_all(&mut self) -> Checked {
        for worker in 0..self.workers.len() {
            self.workers[worker].paused_until = 0;
            self.take_turn(worker)?;
        }
        Ok(())
    }

    /// Something arrives at a worker: it is taken at once, with others in a batch, or when the worker goes on.
    pub(crate) fn arrive(&mut self, worker: usize, arrival: Arrival) -> Checked {
        let batches = self.has(Hazard::Batches);
        let host = &mut self.workers[worker];
        if host.paused_until > self.now {
            let datagram = matches!(arrival, Arrival::Ask(_) | Arrival::Packet { .. });
            if !datagram || host.inbox.len() < QUEUE_MAX {
                host.inbox.push_back(arrival);
            }
            return Ok(());
        }
        host.inbox.push_back(arrival);
        if batches {
            let late = self.draws.host.below(MS / 2);
            self.plan_turn(worker, self.now + late);
            return Ok(());
        }
        self.take_turn(worker)
    }

    /// Has a turn taken at `at`, or when one is due anyway.
    fn plan_turn(&mut self, worker: usize, at: u64) {
        let host = &mut self.workers[worker];
        if host.turn_at.is_none_or(|due| due > at || due < self.now) {
            host.turn_at = Some(at);
            self.queue.push(at, Event::Turn(worker));
        }
    }

    /// The time that a worker asked for has come.
    pub(crate) fn wake(&mut self, worker: usize, at: u64) -> Checked {
        if self.workers[worker].wake_at != Some(at) {
            return Ok(());
        }
        self.workers[worker].wake_at = None;
        self.take_turn(worker)
    }

    /// Whether a worker is suspended; if so, it gets its turn afterwards.
    pub(crate) fn is_paused(&mut self, worker: usize) -> bool {
        let until = self.workers[worker].paused_until;
        if until > self.now {
            self.plan_turn(worker, until);
        }
        until > self.now
    }

    /// A turn is over: the next one is when the Forwarder asks for it, or a little late.
    pub(crate) fn plan_wake(&mut self, worker: usize, next: Option<Instant>) {
        let host = &mut self.workers[worker];
        host.turn_at = None;
        let Some(next) = next else {
            host.wake_at = None;
            return;
        };
        let late = self.ratio(Hazard::LateTimers);
        let mut at = self.moment(next).max(self.now);
        if self.draws.host.hit(late) {
            at += self.draws.host.below(50 * MS);
        }
        let host = &mut self.workers[worker];
        if host.wake_at.is_none_or(|due| due > at || due < self.now) {
            host.wake_at = Some(at);
            self.queue.push(at, Event::Wake { worker, at });
        }
    }

    /// The address of a socket to an upstream.
    pub(crate) fn local_address(worker: usize, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(172, 16, 0, worker as u8 + 1), port))
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Reload { upstreams } => format!("reload, other upstreams: {upstreams}"),
        Change::Take { worker, .. } => format!("worker {worker} takes its new configuration"),
        Change::Flush => "flush of a zone".to_owned(),
        Change::Pause { worker, for_ns } => format!("pause of {worker:?} for {} ms", for_ns / MS),
        Change::Upgrade => "upgrade".to_owned(),
        Change::WallClock => "the wall clock jumps".to_owned(),
    }
}
