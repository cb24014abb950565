//! Makes a failing world smaller: first without hazards, then with fewer clients, then with fewer queries, as long as the same
//! check fails.

use crate::failure::Failure;
use crate::options::{Cuts, Options};
use crate::world;

/// The smallest cuts found under which the world still fails the same check, and how it fails then.
pub fn shrink(options: &Options, mut tell: impl FnMut(&str)) -> Option<(Cuts, Failure)> {
    let fails = |cuts: &Cuts| world::run(&options.clone().cut(cuts), false).failure;
    let mut best = *fails(&Cuts::default())?;
    let check = best.check;
    let mut cuts = Cuts::default();
    let mut attempt = |cuts: &mut Cuts, smaller: Cuts| {
        let failure = fails(&smaller).filter(|failure| failure.check == check);
        let Some(failure) = failure else { return false };
        best = *failure;
        *cuts = smaller;
        true
    };
    // Until nothing can be left out any more: one hazard may only have been needed for another.
    loop {
        let before = cuts.without.len();
        for hazard in options.hazards.iter() {
            if !cuts.without.contains(&hazard) {
                let mut smaller = cuts.clone();
                smaller.without.push(hazard);
                if attempt(&mut cuts, smaller) {
                    tell(&format!("not needed: {}", hazard.row().name));
                }
            }
        }
        if cuts.without.len() == before {
            break;
        }
    }
    let mut clients = options.clients;
    while clients > 1 {
        let smaller = Cuts { clients: Some(clients / 2), ..cuts.clone() };
        if !attempt(&mut cuts, smaller) {
            break;
        }
        clients /= 2;
        tell(&format!("{clients} clients are enough"));
    }
    let (mut enough, mut too_few) = (options.queries, 0);
    while enough - too_few > 1 {
        let middle = (enough + too_few) / 2;
        let smaller = Cuts { queries: Some(middle), ..cuts.clone() };
        if attempt(&mut cuts, smaller) {
            tell(&format!("{middle} queries are enough"));
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    Some((cuts, best))
}
