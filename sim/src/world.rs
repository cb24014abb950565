//! One world: everything in it, and the loop that lets it happen.
//!
//! Two phases. In the first, *safety*, the hazards of the seed are at work and nothing needs to get done, only nothing may go
//! wrong. Then everything is healed, and in the second, *liveness*, every query must be answered in time and every table
//! must become empty. The next event is the one with the smallest time; equal times go by who came first.
//!
//! | part | file | what it does |
//! | --- | --- | --- |
//! | clients | `clients.rs` | ask, repeat themselves, send rubbish |
//! | host | `host.rs`, `turn.rs` | a driver's turn for each worker; clocks, pauses, reloads, upgrades |
//! | upstreams | `upstreams.rs`, `answers.rs` | make up answers and break them |
//! | network | `network.rs` | loses, delays and doubles packets |
//! | attacker | `attacker.rs` | guesses |
//! | model and checks | `model.rs`, `checks/` | know what is allowed |

use crate::cache::SimCache;
use crate::checks::progress::REST_WITHIN;
use crate::clients::{Ask, Client, Connection, Socket};
use crate::draw::{Draw, Part, Ratio};
use crate::failure::{Checked, Failure};
use crate::hazards::{Hazard, Hazards};
use crate::host::Worker;
use crate::model::{Kept, Key, Map};
use crate::network::Spell;
use crate::options::Options;
use crate::plan::Planner;
use crate::questions::Space;
use crate::queue::Queue;
use crate::said::Book;
use crate::trace::{Recording, Trace};
use crate::upstreams::{Packet, Upstream};
use nodens_core::{Instant, Path, PathEvent};
use std::sync::Arc;

/// A millisecond in the world's unit of time.
pub const MS: u64 = 1_000_000;
/// A second in the world's unit of time.
pub const SECOND: u64 = 1000 * MS;
/// Events after which a world has lost its way. The busiest one needs a tenth.
const EVENTS_MAX: u64 = 2_000_000;
/// What the monotonic clock shows when a world begins: machines have been up for a while.
const CLOCK_BEGINS: u64 = 1_000_000 * SECOND;
/// What the wall clock shows then.
pub const WALL_CLOCK_BEGINS_S: u64 = 1_790_000_000;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client does the next thing it wants to do.
    Act(u32),
    /// A client looks whether it was answered, and repeats itself.
    Retry { ask: u32, left: u8 },
    /// A datagram of a client arrives at a worker.
    Arrive { worker: usize, ask: u32 },
    /// Bytes of a client's connection arrive, up to this place in its stream.
    Stream { connection: u32, upto: usize },
    /// A client's connection is gone.
    HangUp(u32),
    /// A datagram of an upstream arrives on a path.
    Deliver { worker: usize, path: Path, packet: Packet },
    /// Bytes of an upstream's connection arrive.
    Piece { worker: usize, path: Path, bytes: Vec<u8> },
    /// A message leaves an upstream on a connection.
    StreamBack { worker: usize, path: Path, upstream: usize, packet: Packet },
    /// The next SYN of a connection.
    Connect { worker: usize, path: Path, upstream: usize, tries: u32 },
    /// What was lost on a connection is sent again.
    Again { worker: usize, path: Path, upstream: usize, bytes: Vec<u8>, tries: u32 },
    /// A path's transport has something to report.
    Report { worker: usize, path: Path, event: PathEvent },
    /// The time that a worker asked for has come, or is a little past.
    Wake { worker: usize, at: u64 },
    /// A worker takes what has arrived.
    Turn(usize),
    /// The attacker tries something.
    Attack,
    /// Something happens to the machine.
    Host(crate::host::Change),
    /// The end of the first phase.
    Heal,
    /// A client asks in the second phase; this many are still to come.
    Recover(u32),
}

/// What a world came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The hash of its trace.
    pub hash: u64,
    /// Clients' queries that reached a worker.
    pub queries: u64,
    /// Events.
    pub events: u64,
    /// Simulated time, in nanoseconds.
    pub time: u64,
    /// Messages sent to upstreams.
    pub upstream_messages: u64,
    /// Queries answered from the cache.
    pub hits: u64,
}

/// One world.
pub(crate) struct World {
    pub(crate) options: Options,
    /// Those that are at work now.
    pub(crate) hazards: Hazards,
    pub(crate) healed: bool,
    pub(crate) healed_at: u64,
    pub(crate) now: u64,
    pub(crate) queue: Queue<Event>,
    pub(crate) trace: Trace,
    pub(crate) space: Space,
    pub(crate) book: Book,
    pub(crate) cache: Arc<SimCache>,
    pub(crate) cache_bytes_max: usize,
    /// What the cache keeps, as far as it is not free to forget.
    pub(crate) kept: Map<Key, Kept>,
    /// The cache is so small that it may forget.
    pub(crate) may_forget: bool,
    pub(crate) planner: Planner,
    pub(crate) workers: Vec<Worker>,
    /// Those that take new queries.
    pub(crate) serving: Vec<usize>,
    pub(crate) clients: Vec<Client>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) asks: Vec<Ask>,
    /// Queries that clients will still start.
    pub(crate) queries_left: usize,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) spells: Vec<Spell>,
    pub(crate) draws: Draws,
    /// The clock's step, in nanoseconds.
    pub(crate) clock_step: u64,
    /// Where the Forwarder writes.
    pub(crate) out: Vec<u8>,
    pub(crate) luck: crate::checks::forgery::Luck,
    pub(crate) summary: Summary,
}

/// The streams of chance of the parts that share no state.
pub(crate) struct Draws {
    pub(crate) network: Draw,
    pub(crate) attacker: Draw,
    pub(crate) host: Draw,
    pub(crate) forwarders: Draw,
    pub(crate) recovery: Draw,
}

impl World {
    fn new(options: Options, recording: bool) -> Self {
        let seed = options.seed;
        let hazards = options.hazards;
        let part = |part| Draw::part(seed, part);
        let mut draw = part(Part::Cache);
        let small = draw.between(8, 48) as usize * 1024;
        let bytes_max = match () {
            () if hazards.has(Hazard::SmallMemory) => small,
            // One shard, so that the cap on entries is the cap of the whole cache.
            () if hazards.has(Hazard::FewEntries) => 256 << 10,
            () => 16 << 20,
        };
        let busy =
            if hazards.has(Hazard::BusyLock) { options.ratio(Hazard::BusyLock) } else { Ratio::per_mille(0) };
        let cache = Arc::new(SimCache::new(bytes_max, &draw.seed(), busy, part(Part::Busy)));
        let mut planner = Planner::new(&options);
        let plan = Arc::new(planner.first(&options));
        let mut draws = Draws {
            network: part(Part::Network),
            attacker: part(Part::Attacker),
            host: part(Part::Host),
            forwarders: part(Part::Forwarders),
            recovery: part(Part::Recovery),
        };
        let coarse = draws.host.pick(&[MS, 4 * MS, 10 * MS]);
        let clock_step = if hazards.has(Hazard::Coarse) { coarse } else { 1 };
        let mut world = World {
            hazards,
            healed: false,
            healed_at: 0,
            now: 0,
            queue: Queue::new(),
            trace: Trace::new(recording),
            space: Space::draw(seed, options.names),
            book: Book::default(),
            cache,
            cache_bytes_max: bytes_max,
            kept: Map::default(),
            may_forget: hazards.has(Hazard::SmallMemory) || hazards.has(Hazard::FewEntries),
            planner,
            workers: Vec::new(),
            serving: Vec::new(),
            clients: Vec::new(),
            sockets: Vec::new(),
            connections: Vec::new(),
            asks: Vec::new(),
            queries_left: options.queries,
            upstreams: Vec::new(),
            spells: Vec::new(),
            draws,
            clock_step,
            out: vec![0; 65_535],
            luck: Default::default(),
            summary: Summary::default(),
            options,
        };
        for _ in 0..world.options.workers {
            world.add_worker(plan.clone());
        }
        world.set_up_upstreams();
        world.set_up_spells();
        world.set_up_clients();
        world.set_up_host();
        world.set_up_attacker();
        let heal_at = world.options.span_ms * MS + world.draws.host.between(0, 3 * SECOND);
        world.queue.push(heal_at, Event::Heal);
        world
    }

    /// Whether `hazard` exists in this world at this time.
    #[inline]
    pub(crate) fn has(&self, hazard: Hazard) -> bool {
        self.hazards.has(hazard)
    }

    /// How often it happens; never if it does not exist.
    #[inline]
    pub(crate) fn ratio(&self, hazard: Hazard) -> Ratio {
        if self.hazards.has(hazard) { self.options.ratio(hazard) } else { Ratio::per_mille(0) }
    }

    /// What the workers' clock shows.
    pub(crate) fn clock(&self) -> Instant {
        Instant::from_nanos(CLOCK_BEGINS + self.now / self.clock_step * self.clock_step)
    }

    /// The first moment at which the clock shows `at` or later.
    pub(crate) fn moment(&self, at: Instant) -> u64 {
        at.as_nanos().saturating_sub(CLOCK_BEGINS).div_ceil(self.clock_step).saturating_mul(self.clock_step)
    }

    fn run(&mut self) -> Checked {
        while let Some((at, event)) = self.queue.pop() {
            if self.healed && at > self.healed_at + REST_WITHIN {
                break;
            }
            self.now = at;
            self.summary.events += 1;
            if self.summary.events > EVENTS_MAX {
                return crate::failure::fail("machine/spin", format!("{EVENTS_MAX} events and no end"));
            }
            self.happen(event)?;
        }
        self.check_rest()
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Act(client) => self.act(client),
            Event::Retry { ask, left } => self.retry(ask, left),
            Event::Arrive { worker, ask } => return self.arrive(worker, crate::host::Arrival::Ask(ask)),
            Event::Stream { connection, upto } => return self.stream_arrives(connection, upto),
            Event::HangUp(connection) => self.hang_up(connection),
            Event::Deliver { worker, path, packet } => {
                return self.arrive(worker, crate::host::Arrival::Packet { path, packet });
            }
            Event::Piece { worker, path, bytes } => {
                return self.arrive(worker, crate::host::Arrival::Piece { path, bytes });
            }
            Event::StreamBack { worker, path, upstream, packet } => {
                self.stream_back(worker, path, upstream, packet);
            }
            Event::Connect { worker, path, upstream, tries } => {
                self.connection_asked(worker, path, upstream, tries);
            }
            Event::Again { worker, path, upstream, bytes, tries } => {
                self.message_leaves(worker, path, upstream, &bytes, tries);
            }
            Event::Report { worker, path, event } => {
                return self.arrive(worker, crate::host::Arrival::Report { path, event });
            }
            Event::Wake { worker, at } => return self.wake(worker, at),
            Event::Turn(worker) => return self.take_turn(worker),
            Event::Attack => return self.attack(),
            Event::Host(change) => return self.change(change),
            Event::Heal => return self.heal(),
            Event::Recover(left) => self.recover(left),
        }
        Ok(())
    }

    /// Everything that is a fault ends.
    fn heal(&mut self) -> Checked {
        self.trace.line(self.now, || "everything is healed".to_owned());
        self.hazards = self.hazards.healed();
        self.healed = true;
        self.clock_step = 1;
        self.healed_at = self.now;
        self.queries_left = 0;
        self.cache.heal();
        self.spells.clear();
        self.queue.push(self.now, Event::Recover(crate::checks::progress::RECOVERY_QUERIES));
        self.resume_all()
    }
}

/// How one world ended.
pub struct Ended {
    /// What it came to, up to the failure if there was one.
    pub summary: Summary,
    /// The check that did not hold.
    pub failure: Option<Box<Failure>>,
    /// Text and packets, if they were wanted.
    pub recording: Option<Recording>,
}

thread_local! {
    /// Where this thread panicked last.
    static PANICKED_AT: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// A panic inside a world is a failed check and told as one; its own message would only be in the way.
pub(crate) fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        PANICKED_AT.with(|at| *at.borrow_mut() = place);
    }));
}

fn panic_place() -> String {
    PANICKED_AT.with(std::cell::RefCell::take)
}

/// Lets the world of `options` happen. A panic inside is a failed check too.
pub fn run(options: &Options, recording: bool) -> Ended {
    let mut world = World::new(options.clone(), recording);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    let mut failure = match outcome {
        Ok(checked) => checked.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            crate::failure::fail::<()>("machine/panic", format!("{text}{}", panic_place())).err()
        }
    };
    if let Some(failure) = &mut failure {
        failure.at = world.now;
        failure.event = world.summary.events;
        world.trace.line(world.now, || format!("FAILED {failure}"));
    }
    let mut summary = world.summary.clone();
    summary.hash = world.trace.hash();
    summary.time = world.now;
    Ended { summary, failure, recording: world.trace.into_recording() }
}
