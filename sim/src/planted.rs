//! Deliberately broken cores: is the world strict enough to tell?
//!
//! The core keeps a list of faults that can be chosen while it runs (`nodens_core::sim_support`, under `--cfg nodens_sim` only).
//! *Hunting* runs one world after the other with a fault chosen until a check fails; *replaying* runs for each fault the one
//! seed that is known to catch it, once without the fault, where all checks must hold, and once with it, where the
//! named check must fail. A panic does not count as caught: the world is to see the fault, not to fall over it.

use crate::cli::{Usage, number, profile};
use crate::options::Options;
use crate::profiles::Profile;
use crate::runner::{self, Job};
use crate::world;
use nodens_core::sim_support::{Fault, choose};
use std::fmt;

/// The check that a panic fails.
const PANIC: &str = "machine/panic";

/// A world that catches a fault: one line of `planted.txt`.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Which fault.
    pub fault: Fault,
    /// The seed of the world.
    pub seed: u64,
    /// Its profile.
    pub profile: Profile,
    /// The check that fails.
    pub check: String,
}

impl fmt::Display for Catch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Catch { fault, seed, profile, check } = self;
        write!(f, "{:<32} {seed:<6} {:<18} {check}", fault.name(), profile.name())
    }
}

impl Catch {
    fn parse(line: &str) -> Result<Catch, Usage> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [fault, seed, name, check] = words[..] else {
            return Err(format!("{line:?} is not `FAULT SEED PROFILE CHECK`"));
        };
        let fault = Fault::parse(fault).ok_or_else(|| format!("there is no fault {fault:?}"))?;
        Ok(Catch { fault, seed: number(seed)?, profile: profile(name)?, check: check.to_owned() })
    }

    /// What is wrong with it, if anything.
    fn replay(&self) -> Result<(), String> {
        let options = Options::draw(self.seed, self.profile);
        choose(None);
        if let Some(failure) = world::run(&options, false).failure {
            return Err(format!("fails without the fault as well: {}: {}", failure.check, failure.text));
        }
        choose(Some(self.fault));
        let failure = world::run(&options, false).failure;
        choose(None);
        match failure {
            None => Err("is not caught any more: hunt for another seed".to_owned()),
            Some(failure) if failure.check == self.check => Ok(()),
            Some(failure) => {
                Err(format!("fails {} instead of {}: {}", failure.check, self.check, failure.text))
            }
        }
    }
}

/// The first of `seeds` worlds that catches `fault`, over all profiles, and how many before it proved nothing: they panicked, or
/// fail without the fault as well.
pub fn hunt(fault: Fault, seeds: u64) -> (Option<Catch>, u64) {
    let (mut first, mut worthless) = (0, 0);
    let caught = loop {
        choose(Some(fault));
        let job = Job { first, seeds: seeds - first, profile: None, twice: 0, threads: 0 };
        let Some((n, failed)) = runner::run(&job).failed else { break None };
        choose(None);
        if failed.failure.check != PANIC && world::run(&failed.options, false).failure.is_none() {
            let Options { seed, profile, .. } = failed.options;
            break Some(Catch { fault, seed, profile, check: failed.failure.check.to_owned() });
        }
        worthless += 1;
        first += n + 1;
    };
    choose(None);
    (caught, worthless)
}

/// Hunts for faults by name, or for all of them. Whether all were caught.
#[allow(clippy::print_stdout, reason = "a command-line program")]
pub fn hunt_all(names: &[String], seeds: u64) -> Result<bool, Usage> {
    let fault = |name: &String| Fault::parse(name).ok_or_else(|| format!("there is no fault {name:?}"));
    let named = names.iter().map(fault).collect::<Result<Vec<_>, _>>()?;
    let faults = if named.is_empty() { Fault::ALL } else { &named };
    let mut all = true;
    for fault in faults {
        let (caught, worthless) = hunt(*fault, seeds);
        all &= caught.is_some();
        match caught {
            Some(catch) => println!("{catch}"),
            None => println!("# {} was not caught in {seeds} worlds: {}", fault.name(), fault.what()),
        }
        if worthless > 0 {
            println!("# {worthless} worlds before it panicked, or failed without the fault as well");
        }
    }
    Ok(all)
}

/// Replays each line of a file; every fault must have one. Whether all were caught as the file says.
#[allow(clippy::print_stdout, reason = "a command-line program")]
pub fn replay_all(text: &str) -> Result<bool, Usage> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let catches = lines.map(Catch::parse).collect::<Result<Vec<_>, _>>()?;
    let mut good = true;
    for fault in Fault::ALL.iter().filter(|fault| !catches.iter().any(|catch| catch.fault == **fault)) {
        println!("{} has no seed that catches it: {}", fault.name(), fault.what());
        good = false;
    }
    for catch in &catches {
        if let Err(wrong) = catch.replay() {
            println!("{catch}\n    {wrong}");
            good = false;
        }
    }
    println!("{} of {} planted faults replayed", catches.len(), Fault::ALL.len());
    Ok(good)
}
