//! Some worlds of every profile as an ordinary test, for whoever changes the core and for mutation testing (`make mutants`).
//! `make worlds` runs many more of them, in a build that is made for it.

use nodens_sim::options::Cuts;
use nodens_sim::report;
use nodens_sim::runner::{Job, run};

/// Worlds, if `NODENS_SIM_SEEDS` does not say otherwise: some seconds without optimisation.
const WORLDS: u64 = 60;

#[test]
fn all_checks_hold_in_some_worlds_of_every_profile() {
    let wanted = std::env::var("NODENS_SIM_SEEDS").ok();
    let seeds = wanted.map_or(WORLDS, |text| text.parse().expect("a number of worlds"));
    let outcome = run(&Job { first: 0, seeds, profile: None, twice: 0, threads: 0 });
    if let Some((_, failed)) = &outcome.failed {
        panic!("{}", report::block(&failed.options, &Cuts::default(), &failed.failure));
    }
    assert_eq!(outcome.worlds, seeds);
}
