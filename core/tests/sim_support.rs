//! Planted faults and marks, as a simulator chooses and counts them. A program of its own: a chosen fault is chosen for all of it.
#![cfg(nodens_sim)]

use nodens_core::sim_support::{Fault, Mark, choose, chosen, forget_hits, hits};

#[test]
fn what_is_chosen_is_planted_and_what_is_not_is_not() {
    assert_eq!(Fault::Rd0AnswerKept.name(), "rd0-answer-kept");
    for fault in Fault::ALL {
        assert_eq!(Fault::parse(&fault.name()), Some(*fault));
        assert!(fault.what().starts_with("Invariant "), "{fault:?} does not say which invariant it breaks");
        choose(Some(*fault));
        assert_eq!(chosen(), Some(*fault));
    }
    choose(None);
    assert_eq!(chosen(), None);
}

#[test]
fn every_mark_is_listed_before_it_is_ever_hit() {
    forget_hits();
    assert!(Mark::ALL.iter().all(|mark| hits(*mark) == 0 && Mark::parse(&mark.name()) == Some(*mark)));
}
