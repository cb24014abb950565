//! The command line.

use crate::hazards::Hazard;
use crate::options::{Cuts, Options};
use crate::profiles::Profile;
use crate::runner::{self, Job};
use crate::{report, shrink, world};
use std::process::ExitCode;

const HELP: &str = "\
nodens-sim: the core in a world where time, chance and every fault are ours

  run --seeds N [--from SEED | --derive TEXT] [--profile NAME|all] [--twice K] [--threads T] [--table]
      N worlds; a failure is printed with how to replay it, and ends the run with code 1.
      --derive takes the first seed from a text such as a commit; --twice runs the first K worlds twice and compares traces.
  replay SEED [--profile NAME] [--without HAZARD,...] [--clients N] [--queries N] [--trace]
      one world again; writes its trace and packets below target/sim. --trace prints every event.
  shrink SEED [--profile NAME]
      leaves out of a failing world what the failure does not need.
  regressions FILE
      replays each line `SEED PROFILE what it was`.

With RUSTFLAGS=\"--cfg nodens_sim\" also:
  planted hunt [FAULT ...] [--seeds N]
      for each deliberate fault of the core, or for those named, the first world whose checks see it.
  planted replay FILE
      replays each line `FAULT SEED PROFILE CHECK`: the world holds without the fault and fails that check with it.
  marks [--seeds N] [--from SEED] [--profile NAME|all]
      how often worlds took the core's rare branches, and which none of them took.

profiles: swarm calm lossy hostile reload-storm tiny-memory thundering-expiry upgrade
";

/// Options that take a value.
const OPTIONS: [&str; 9] =
    ["seeds", "from", "derive", "profile", "twice", "threads", "without", "clients", "queries"];

/// Arguments, read.
#[derive(Debug, Default)]
struct Arguments {
    words: Vec<String>,
    options: Vec<(String, String)>,
    flags: Vec<String>,
}

/// What the user got wrong.
pub(crate) type Usage = String;

impl Arguments {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self, Usage> {
        let mut read = Arguments::default();
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                None => read.words.push(argument),
                Some(flag @ ("trace" | "table" | "help")) => read.flags.push(flag.to_owned()),
                Some(name) => {
                    if !OPTIONS.contains(&name) {
                        return Err(format!("there is no option --{name}"));
                    }
                    let value = arguments.next().ok_or_else(|| format!("--{name} needs a value"))?;
                    read.options.push((name.to_owned(), value));
                }
            }
        }
        Ok(read)
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Usage> {
        self.option(name).map(number).transpose()
    }

    fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    fn profile(&self) -> Result<Profile, Usage> {
        profile(self.option("profile").unwrap_or("swarm"))
    }

    fn seed(&self) -> Result<u64, Usage> {
        number(self.words.get(1).ok_or("which seed?")?)
    }

    fn cuts(&self) -> Result<Cuts, Usage> {
        let names = self.option("without").into_iter().flat_map(|names| names.split(','));
        let hazard = |name: &str| Hazard::parse(name).ok_or_else(|| format!("there is no hazard {name:?}"));
        Ok(Cuts {
            without: names.map(hazard).collect::<Result<_, _>>()?,
            clients: self.number("clients")?.map(|n| n as usize),
            queries: self.number("queries")?.map(|n| n as usize),
        })
    }
}

pub(crate) fn number(text: &str) -> Result<u64, Usage> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is no number"))
}

pub(crate) fn profile(name: &str) -> Result<Profile, Usage> {
    Profile::parse(name).ok_or_else(|| format!("there is no profile {name:?}"))
}

/// Runs the program; the result is the process' exit code.
#[allow(clippy::print_stdout, reason = "a command-line program")]
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let outcome = Arguments::read(arguments).and_then(|arguments| match arguments.words.first() {
        _ if arguments.flag("help") => Ok(help()),
        Some(word) if word == "run" => run(&arguments),
        Some(word) if word == "replay" => replay(&arguments),
        Some(word) if word == "shrink" => shrink_one(&arguments),
        Some(word) if word == "regressions" => regressions(&arguments),
        Some(word) if matches!(word.as_str(), "planted" | "marks") => inside(word, &arguments),
        Some(word) => Err(format!("what is {word:?}?")),
        None => Ok(help()),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(usage) => {
            println!("{usage}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

#[allow(clippy::print_stdout, reason = "a command-line program")]
fn help() -> bool {
    println!("{HELP}");
    true
}

#[allow(clippy::print_stdout, reason = "a command-line program")]
fn run(arguments: &Arguments) -> Result<bool, Usage> {
    let job = job(arguments)?;
    println!("{} worlds from seed {:#x}", job.seeds, job.first);
    world::keep_panics_quiet();
    let outcome = runner::run(&job);
    if arguments.flag("table") {
        println!("{}", outcome.table());
    }
    print!("{}", outcome.figures());
    if let Some((_, failed)) = &outcome.failed {
        println!("\n{}", report::block(&failed.options, &Cuts::default(), &failed.failure));
    }
    Ok(outcome.failed.is_none())
}

fn job(arguments: &Arguments) -> Result<Job, Usage> {
    let first = match (arguments.number("from")?, arguments.option("derive")) {
        (Some(from), None) => from,
        (None, Some(text)) => runner::derive(text),
        (None, None) => 0,
        (Some(_), Some(_)) => return Err("--from and --derive exclude each other".to_owned()),
    };
    let profile = match arguments.option("profile") {
        Some("all") | None => None,
        Some(name) => Some(profile(name)?),
    };
    Ok(Job {
        first,
        seeds: arguments.number("seeds")?.unwrap_or(500),
        profile,
        twice: arguments.number("twice")?.unwrap_or(0),
        threads: arguments.number("threads")?.unwrap_or(0) as usize,
    })
}

#[allow(clippy::print_stdout, reason = "a command-line program")]
fn replay(arguments: &Arguments) -> Result<bool, Usage> {
    let options = Options::draw(arguments.seed()?, arguments.profile()?);
    let cuts = arguments.cuts()?;
    world::keep_panics_quiet();
    let ended = world::run(&options.clone().cut(&cuts), arguments.flag("trace"));
    for line in ended.recording.iter().flat_map(|recording| &recording.lines) {
        println!("{line}");
    }
    if let Some(failure) = &ended.failure {
        println!("{}", report::block(&options, &cuts, failure));
        return Ok(false);
    }
    println!("seed {:#x}, trace {:#018x}: all checks held", options.seed, ended.summary.hash);
    println!("options {}", options.cut(&cuts));
    println!(
        "{} queries, {} messages to upstreams, {} events, {:.1} s",
        ended.summary.queries,
        ended.summary.upstream_messages,
        ended.summary.events,
        ended.summary.time as f64 / 1e9
    );
    Ok(true)
}

#[allow(clippy::print_stdout, reason = "a command-line program")]
fn shrink_one(arguments: &Arguments) -> Result<bool, Usage> {
    let options = Options::draw(arguments.seed()?, arguments.profile()?);
    world::keep_panics_quiet();
    let Some((cuts, failure)) = shrink::shrink(&options, |step| println!("{step}")) else {
        println!("seed {:#x} does not fail", options.seed);
        return Ok(true);
    };
    println!("{}", report::block(&options, &cuts, &failure));
    Ok(false)
}

#[allow(clippy::print_stdout, reason = "a command-line program")]
fn regressions(arguments: &Arguments) -> Result<bool, Usage> {
    let path = arguments.words.get(1).ok_or("which file?")?;
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    world::keep_panics_quiet();
    let mut held = true;
    let mut count = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(seed), Some(name)) = (words.next(), words.next()) else {
            return Err(format!("{path}: {line:?} is not `SEED PROFILE what it was`"));
        };
        let options = Options::draw(number(seed)?, profile(name)?);
        count += 1;
        if let Some(failure) = world::run(&options, false).failure {
            println!("{}", report::block(&options, &Cuts::default(), &failure));
            held = false;
        }
    }
    println!("{count} regressions replayed");
    Ok(held)
}

/// What needs a core that can be looked into.
#[cfg(nodens_sim)]
fn inside(word: &str, arguments: &Arguments) -> Result<bool, Usage> {
    world::keep_panics_quiet();
    match (word, arguments.words.get(1).map(String::as_str)) {
        ("marks", _) => crate::marks::report(&job(arguments)?),
        (_, Some("hunt")) => {
            crate::planted::hunt_all(&arguments.words[2..], arguments.number("seeds")?.unwrap_or(2000))
        }
        (_, Some("replay")) => {
            let path = arguments.words.get(2).ok_or("which file?")?;
            let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            crate::planted::replay_all(&text)
        }
        _ => Err("planted hunt, or planted replay?".to_owned()),
    }
}

#[cfg(not(nodens_sim))]
fn inside(word: &str, _: &Arguments) -> Result<bool, Usage> {
    Err(format!("{word} needs a core with faults and marks: build with RUSTFLAGS=\"--cfg nodens_sim\""))
}
