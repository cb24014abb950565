//! The load generator: stub resolvers as Pods have them, on many sockets, against one server.
//!
//! Each socket (a source port of its own) carries some *lanes*; a lane is one stub resolver that asks A and AAAA together, waits
//! for both, and goes on: to the next suffix of its search list, or to the next name. Two ways to drive them:
//!
//! * **closed loop** (without `--rate`): every lane always has a question out. Shows what the server can do; latency is then mostly
//!   the queue that the lanes themselves make. The generator polls and never sleeps, so the server never pays for waking it.
//! * **fixed rate**: pairs leave on time whatever the server does. Latency counts from the moment a pair was due, so a stall
//!   is seen by all that had to wait for it.
//!
//! The server's cost is utime + stime of its process per answered query. One thread, so it needs a core and no more.

mod engine;
mod report;

pub use report::{Counts, Report};

use crate::args::Args;
use crate::process;
use crate::traffic::{Traffic, TrafficKind};
use engine::{Engine, Limits};
use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

/// Sockets unless said otherwise: enough for SO_REUSEPORT to spread, few enough for one core to poll.
pub const SOCKETS: usize = 32;
/// Lanes per socket unless said otherwise. With [`SOCKETS`], 128 queries are out at once: half of what the default receive queue
/// of a socket holds, for not every server asks for a larger one.
pub const LANES: usize = 2;
/// A lane has two of the 64 slots that a socket's IDs tell apart.
pub const LANES_MAX: usize = 32;
/// A process may have 1024 descriptors without asking.
pub const SOCKETS_MAX: usize = 900;
/// A query without answer is lost then, and its lane goes on. Stub resolvers wait 5 s; a bench would be over by then.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds that any run may last.
const SECONDS_MAX: f64 = 3600.0;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: SocketAddrV4,
    /// What to ask.
    pub traffic: TrafficKind,
    /// How many source ports.
    pub sockets: usize,
    /// Stub resolvers per socket.
    pub lanes: usize,
    /// Queries per second; `None` is the closed loop.
    pub rate: Option<f64>,
    /// How long questions are sent.
    pub length: Duration,
    /// How many queries at most.
    pub queries: u64,
    /// When a query is lost.
    pub timeout: Duration,
    /// The server's process, for its CPU time.
    pub pid: Option<u32>,
    /// Makes new names new: each run should have another.
    pub seed: u64,
    /// The server sends back what it gets.
    pub is_echo: bool,
}

impl Plan {
    /// A closed loop against a server, three seconds long.
    pub fn new(target: SocketAddrV4, traffic: TrafficKind) -> Self {
        Plan {
            target,
            traffic,
            sockets: SOCKETS,
            lanes: LANES,
            rate: None,
            length: Duration::from_secs(3),
            queries: u64::MAX,
            timeout: TIMEOUT,
            pid: None,
            seed: fresh_seed(),
            is_echo: false,
        }
    }

    /// Reads the flags of `nodens-bench load`.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn from_args(args: &mut Args) -> Result<Self, String> {
        let target = args.value("--target")?.ok_or("--target ADDRESS:PORT is needed: the server to ask")?;
        let mut plan = Plan::new(target, args.value_or("--traffic", TrafficKind::Mix)?);
        let (is_hits, is_misses) = (args.flag("--hits-only"), args.flag("--misses"));
        if is_hits && is_misses {
            return Err("--hits-only and --misses exclude each other".to_string());
        }
        if is_hits {
            plan.traffic = TrafficKind::Hits(crate::traffic::HIT_NAMES);
        }
        if is_misses {
            plan.traffic = TrafficKind::Misses;
        }
        if let Some(names) = args.value("--names")? {
            match plan.traffic {
                TrafficKind::Hits(_) if names > 0 => plan.traffic = TrafficKind::Hits(names),
                _ => return Err("--names is how many names --hits-only asks for, at least 1".to_string()),
            }
        }
        plan.read_bounds(args)?;
        plan.pid = args.value("--pid")?;
        plan.seed = args.value_or("--seed", plan.seed)?;
        plan.is_echo = args.flag("--echo");
        Ok(plan)
    }

    fn read_bounds(&mut self, args: &mut Args) -> Result<(), String> {
        self.sockets = args.value_or("--sockets", self.sockets)?;
        self.lanes = args.value_or("--lanes", self.lanes)?;
        self.rate = args.value("--rate")?;
        self.queries = args.value_or("--queries", self.queries)?;
        let seconds = args.value_or("--seconds", self.length.as_secs_f64())?;
        let timeout_ms = args.value_or("--timeout-ms", self.timeout.as_millis() as u64)?;
        if !(1..=SOCKETS_MAX).contains(&self.sockets) || !(1..=LANES_MAX).contains(&self.lanes) {
            return Err(format!("--sockets must be 1 to {SOCKETS_MAX}, --lanes 1 to {LANES_MAX}"));
        }
        if self.rate.is_some_and(|rate| !(rate >= 1.0 && rate.is_finite())) {
            return Err("--rate must be at least 1 query per second".to_string());
        }
        if !(seconds > 0.0 && seconds <= SECONDS_MAX) || timeout_ms == 0 {
            return Err(format!("--seconds must be above 0 and at most {SECONDS_MAX}, --timeout-ms above 0"));
        }
        self.length = Duration::from_secs_f64(seconds);
        self.timeout = Duration::from_millis(timeout_ms);
        Ok(())
    }
}

/// Runs the load. Names that are to be hits are asked for once before anything is measured, and a mix meets a cache that has seen one.
///
/// # Errors
///
/// No sockets, or the process to watch is not there.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut engine = Engine::new(plan)?;
    if let Some(warm) = Traffic::before(plan.traffic, plan.seed) {
        let limits = Limits { length: Duration::MAX, queries: u64::MAX, rate: None };
        engine.run(warm, &limits)?;
    }
    let server_before = watched(plan)?;
    let own_before = process::usage(std::process::id()).unwrap_or_default();
    let limits = Limits { length: plan.length, queries: plan.queries, rate: plan.rate };
    let found = engine.run(Traffic::new(plan.traffic, plan.seed), &limits)?;
    let server_after = watched(plan)?;
    let own_after = process::usage(std::process::id()).unwrap_or_default();
    Ok(Report {
        counts: found.counts,
        latency: found.latency,
        seconds: found.length.as_secs_f64(),
        server_cpu_s: server_before.zip(server_after).map(|(before, after)| after.cpu_s - before.cpu_s),
        server_rss_kib: server_after.map(|usage| usage.rss_kib),
        own_cpu_s: own_after.cpu_s - own_before.cpu_s,
    })
}

fn watched(plan: &Plan) -> io::Result<Option<process::Usage>> {
    let Some(pid) = plan.pid else { return Ok(None) };
    let usage = process::usage(pid);
    usage
        .map(Some)
        .ok_or_else(|| io::Error::other(format!("process {pid}, the server to watch, is not there")))
}

fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |time| time.as_nanos() as u64) ^ u64::from(std::process::id()) << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        let mut args = Args::new(text.split(' ').map(str::to_string));
        let plan = Plan::from_args(&mut args)?;
        args.finish().map(|()| plan)
    }

    #[test]
    fn flags_become_a_plan() {
        let hits =
            plan("--target 127.0.0.1:53 --hits-only --names 7 --rate 500 --seconds 0.5").expect("valid");
        assert_eq!((hits.traffic, hits.rate), (TrafficKind::Hits(7), Some(500.0)));
        assert_eq!(hits.length, Duration::from_millis(500));
        let misses = plan("--target 127.0.0.1:53 --traffic misses --queries 10").expect("valid");
        assert_eq!((misses.traffic, misses.queries, misses.rate), (TrafficKind::Misses, 10, None));
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for wrong in [
            "--hits-only",
            "--target nowhere:53",
            "--target 127.0.0.1:53 --hits-only --misses",
            "--target 127.0.0.1:53 --names 5",
            "--target 127.0.0.1:53 --lanes 33",
            "--target 127.0.0.1:53 --sockets 0",
            "--target 127.0.0.1:53 --rate 0",
            "--target 127.0.0.1:53 --rate nan",
            "--target 127.0.0.1:53 --seconds 0",
            "--target 127.0.0.1:53 --seconds 1e9",
            "--target 127.0.0.1:53 --traffic some",
        ] {
            assert!(plan(wrong).is_err(), "{wrong} was taken");
        }
    }
}
