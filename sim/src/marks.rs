//! Marks: which of the core's rare branches the worlds have taken.
//!
//! The core names its rare branches (`nodens_core::sim_support`, under `--cfg nodens_sim` only). One that no world takes is a
//! place that no check has looked at: it wants a hazard that leads there, or a test of its own.

use crate::cli::Usage;
use crate::runner::{self, Job};
use nodens_core::sim_support::{Mark, forget_hits, hits};

/// Runs worlds and says how often each branch was taken; the rarest first. Whether all checks held.
#[allow(clippy::print_stdout, reason = "a command-line program")]
pub fn report(job: &Job) -> Result<bool, Usage> {
    forget_hits();
    let outcome = runner::run(job);
    let mut marks: Vec<(u64, Mark)> = Mark::ALL.iter().map(|mark| (hits(*mark), *mark)).collect();
    marks.sort_by_key(|(hits, _)| *hits);
    for (hits, mark) in &marks {
        println!("{hits:>10}  {:<34} {}", mark.name(), mark.what());
    }
    let taken = marks.iter().filter(|(hits, _)| *hits > 0).count();
    println!("{taken} of {} rare branches taken in {} worlds", marks.len(), outcome.worlds);
    if let Some((_, failed)) = &outcome.failed {
        println!("the run ended early: seed {:#x} fails {}", failed.options.seed, failed.failure.check);
    }
    Ok(outcome.failed.is_none())
}
