//! Planted faults: with one of the core's own defects chosen, a target that should see it must.
//!
//! A body that judges nothing passes over everything. These run under `--cfg nodens_sim` alone (`make planted`), as the faults do.
#![cfg(nodens_sim)]

mod mutate;

use mutate::{Random, mutate};
use nodens_core::sim_support::{Fault, choose};
use nodens_fuzz::{Body, TARGETS};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::path::Path;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("a file")).collect()
}

/// Mutations that a target has to see a fault, besides its corpus.
const MUTATIONS: usize = 2_000;

/// Which target must see which fault. Those that are about chance (IDs, ports), load (budgets, the cache's bytes) and what only time
/// shows to a client are the simulator's.
const SEEN_BY: [(&str, &[Fault]); 4] = [
    ("cached_answer", &[Fault::AdUninvited, Fault::TruncationUntold]),
    ("query_bytes", &[Fault::WaiterAnsweredTwice, Fault::Rd0AnswerKept, Fault::OptUninvited]),
    (
        "response_bytes",
        &[
            Fault::TruncatedAnswerKept,
            Fault::TruncatedAnswerTaken,
            Fault::TtlNeverFalls,
            Fault::TtlCapIgnored,
            Fault::FirstTtlTaken,
            Fault::ExpiredEntryServed,
            Fault::SoalessNodataKeptLong,
            Fault::SoalessNxdomainKept,
            Fault::SoaMinimumIgnored,
            Fault::ServfailKeptLong,
            Fault::Rd0AnswerKept,
            Fault::AdUninvited,
            Fault::PayloadSizeIgnored,
            Fault::QuestionNotCompared,
            Fault::IdNotCompared,
            Fault::RejectionEndsAttempt,
        ],
    ),
    (
        "transitions",
        &[
            Fault::AnswerToFirstClient,
            Fault::SpellingNotRestored,
            Fault::WaiterAnsweredTwice,
            Fault::ExpiredEntryServed,
            Fault::DoNotInKey,
            Fault::CdNotInKey,
            Fault::PayloadSizeIgnored,
            Fault::QuestionNotCompared,
            Fault::IdNotCompared,
            Fault::LookupsNotShared,
            Fault::WaitersUnbounded,
            Fault::DueTimerLeft,
            Fault::DeadlineLost,
            Fault::JoinedClientLost,
            Fault::ReloadForgetsClients,
            Fault::LateAnswersUncounted,
            Fault::PathLeaked,
            Fault::ProbesGoOn,
        ],
    ),
];

/// After how many inputs a body breaks.
fn catches(body: Body, files: &[Vec<u8>], mutations: usize) -> Option<usize> {
    let breaks = |bytes: &[u8]| catch_unwind(AssertUnwindSafe(|| body(bytes))).is_err();
    if let Some(at) = files.iter().position(|bytes| breaks(bytes)) {
        return Some(at);
    }
    let mut random = Random(1);
    (0..mutations).find(|_| breaks(&mutate(&mut random, files, &[]))).map(|n| n + files.len())
}

#[test]
fn the_targets_see_the_faults_that_are_theirs() {
    // A thousand expected panics would hide the one line that matters.
    set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for (target, faults) in SEEN_BY {
        let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of that name");
        let files = corpus(target);
        for fault in faults {
            choose(Some(*fault));
            let seen = catches(*body, &files, MUTATIONS);
            choose(None);
            match seen {
                Some(inputs) => eprintln!("{target:16} sees {:28} after {inputs} inputs", fault.name()),
                None => missed.push(format!("{target} does not see {}", fault.name())),
            }
        }
        assert_eq!(catches(*body, &files, 0), None, "{target} sees a fault where none is planted");
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "{missed:#?}");
}
