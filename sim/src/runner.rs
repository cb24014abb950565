//! Many worlds on all cores, and what they came to.
//!
//! Threads take worlds from a counter, so that none is idle while others work; what is told is told in the order of the worlds,
//! whoever finished first. A failure ends the run after the worlds that are under way.

use crate::draw::mix;
use crate::failure::Failure;
use crate::hazards::{COUNT, TABLE};
use crate::options::Options;
use crate::profiles::{PROFILES, Profile};
use crate::world::{self, Summary};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Which worlds to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// The profile; `None`: one after the other.
    pub profile: Option<Profile>,
    /// So many of the first are run twice and their traces compared.
    pub twice: u64,
    /// Threads; 0: one per core.
    pub threads: usize,
}

/// A world that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Which.
    pub options: Options,
    /// What did not hold.
    pub failure: Failure,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Worlds that were run.
    pub worlds: u64,
    /// Of these, how many had each hazard.
    pub hazards: Vec<u64>,
    /// Of these, how many were of each profile.
    pub profiles: [u64; PROFILES.len()],
    /// Sums over all worlds.
    pub queries: u64,
    /// Queries answered from the cache.
    pub hits: u64,
    /// Messages to upstreams.
    pub upstream_messages: u64,
    /// Events.
    pub events: u64,
    /// Simulated seconds.
    pub simulated_s: f64,
    /// Worlds run twice.
    pub twice: u64,
    /// Processor time of the worlds alone.
    pub cpu: Duration,
    /// Time on the wall.
    pub wall: Duration,
    /// The first world that failed, by its place.
    pub failed: Option<(u64, Failed)>,
}

impl Job {
    /// The seed and profile of world number `n`.
    pub fn world(&self, n: u64) -> (u64, Profile) {
        (self.first.wrapping_add(n), self.profile.unwrap_or_else(|| Profile::nth(n)))
    }
}

/// The first seed that a text stands for, such as a commit's hash: a re-run of the commit is the same run.
pub fn derive(text: &str) -> u64 {
    text.bytes().fold(0, |seed, byte| mix(seed ^ u64::from(byte)))
}

/// Runs the worlds of a job.
pub fn run(job: &Job) -> Outcome {
    let threads = match job.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Outcome::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(job, &next, &stop, &total));
        }
        show_progress(job, &next, &stop, begun);
    });
    let mut outcome = total.into_inner().unwrap_or_default();
    outcome.wall = begun.elapsed();
    outcome
}

fn work(job: &Job, next: &AtomicU64, stop: &AtomicBool, total: &Mutex<Outcome>) {
    let mut own = Outcome::default();
    let cpu = thread_cpu();
    while !stop.load(Relaxed) {
        let n = next.fetch_add(1, Relaxed);
        if n >= job.seeds {
            break;
        }
        let (seed, profile) = job.world(n);
        let options = Options::draw(seed, profile);
        let ended = world::run(&options, false);
        own.add(&options, &ended.summary);
        let mut failure = ended.failure.map(|failure| *failure);
        if n < job.twice && failure.is_none() {
            own.twice += 1;
            failure = run_again(&options, &ended.summary);
        }
        if let Some(failure) = failure {
            own.keep_first(n, Failed { options, failure });
            stop.store(true, Relaxed);
        }
    }
    own.cpu = thread_cpu().saturating_sub(cpu);
    if let Ok(mut total) = total.lock() {
        total.merge(own);
    }
}

/// The same world again: the same trace, or something got in that is neither seed nor commit.
fn run_again(options: &Options, first: &Summary) -> Option<Failure> {
    let again = world::run(options, true).summary;
    (again.hash != first.hash).then(|| Failure {
        check: "machine/reproducible",
        text: format!("the trace of a second run is {:#018x}, of the first {:#018x}", again.hash, first.hash),
        at: 0,
        event: 0,
    })
}

impl Outcome {
    fn add(&mut self, options: &Options, summary: &Summary) {
        self.worlds += 1;
        self.hazards.resize(COUNT, 0);
        options.hazards.iter().for_each(|hazard| self.hazards[hazard as usize] += 1);
        self.profiles[options.profile as usize] += 1;
        self.queries += summary.queries;
        self.hits += summary.hits;
        self.upstream_messages += summary.upstream_messages;
        self.events += summary.events;
        self.simulated_s += summary.time as f64 / 1e9;
    }

    fn keep_first(&mut self, n: u64, failed: Failed) {
        if self.failed.as_ref().is_none_or(|(first, _)| n < *first) {
            self.failed = Some((n, failed));
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.worlds += other.worlds;
        self.hazards.resize(COUNT, 0);
        self.hazards.iter_mut().zip(other.hazards).for_each(|(sum, n)| *sum += n);
        self.profiles.iter_mut().zip(other.profiles).for_each(|(sum, n)| *sum += n);
        self.queries += other.queries;
        self.hits += other.hits;
        self.upstream_messages += other.upstream_messages;
        self.events += other.events;
        self.simulated_s += other.simulated_s;
        self.twice += other.twice;
        self.cpu += other.cpu;
        if let Some((n, failed)) = other.failed {
            self.keep_first(n, failed);
        }
    }

    /// What was drawn: how many worlds had each hazard.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (profile, name) in PROFILES {
            let worlds = self.profiles[profile as usize];
            if worlds > 0 {
                text += &format!("{worlds:>8}  {name}\n");
            }
        }
        text.push('\n');
        let cells: Vec<String> =
            TABLE.iter().zip(&self.hazards).map(|(row, n)| format!("{n:>8}  {:<20}", row.name)).collect();
        for row in 0..COUNT.div_ceil(4) {
            let line: String =
                cells.iter().skip(row).step_by(COUNT.div_ceil(4)).map(String::as_str).collect();
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// How fast it was.
    pub fn figures(&self) -> String {
        let (wall, cpu) = (self.wall.as_secs_f64(), self.cpu.as_secs_f64().max(1e-9));
        format!(
            "{} worlds ({} of them twice) in {wall:.1} s: {:.0} worlds/s, {:.0} simulated queries per CPU second, {:.0} simulated seconds/s\n\
             {} queries, {:.0} % answered from the cache, {} messages to upstreams, {} events\n",
            self.worlds,
            self.twice,
            (self.worlds + self.twice) as f64 / wall.max(1e-9),
            self.queries as f64 / cpu,
            self.simulated_s / wall.max(1e-9),
            self.queries,
            100.0 * self.hits as f64 / self.queries.max(1) as f64,
            self.upstream_messages,
            self.events,
        )
    }
}

/// Processor time of this thread; zero where the kernel does not tell.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanos)
}

/// A line that grows, for people who watch.
fn show_progress(job: &Job, next: &AtomicU64, stop: &AtomicBool, begun: Instant) {
    let mut terminal = std::io::stderr();
    if !terminal.is_terminal() {
        return;
    }
    loop {
        let done = next.load(Relaxed).min(job.seeds);
        let filled = (40 * done / job.seeds.max(1)) as usize;
        let rate = done as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        let _ = write!(terminal, "\r[{:-<40}] {done}/{} worlds, {rate:.0}/s ", "#".repeat(filled), job.seeds);
        if done == job.seeds || stop.load(Relaxed) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let _ = writeln!(terminal);
}
