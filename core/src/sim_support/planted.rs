//! Planted faults: defects of the kind that a forwarder has had or could have, chosen one at a time while the program runs.
//!
//! The hook of each stands where the rule stands that it breaks, as `planted(Fault::…)`, and nowhere else. The number is
//! that of the invariant (`docs/simulation.md`) whose check must see it. The simulator keeps for each a seed
//! that catches it.

#[cfg(nodens_sim)]
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

listed! {
    /// A way to be wrong.
    enum Fault {
        /// Invariant 1: an answer that comes late goes to whoever asked first, once for each that waits.
        AnswerToFirstClient,
        /// Invariant 1: who joined a lookup gets the first client's spelling.
        SpellingNotRestored,
        /// Invariant 1: an answer is sent twice.
        WaiterAnsweredTwice,
        /// Invariant 2: a truncated answer is used as if it were whole, and kept.
        TruncatedAnswerKept,
        /// Invariant 2: of a truncated answer the empty rest is used.
        TruncatedAnswerTaken,
        /// Invariant 2: zones share their entries.
        ZoneNotInKey,
        /// Invariant 2: an entry that is asked for anew gets a new TTL and keeps its old records.
        OldRecordsStay,
        /// Invariant 2: a name that does not exist becomes one without records.
        NxdomainSoftened,
        /// Invariant 3: an answer from the cache has the TTL it was stored with.
        TtlNeverFalls,
        /// Invariant 3: the upper clamp of the TTL is not applied.
        TtlCapIgnored,
        /// Invariant 3: the first record's TTL counts, not the least.
        FirstTtlTaken,
        /// Invariant 4: an entry is used after it has expired.
        ExpiredEntryServed,
        /// Invariant 5: an empty answer without a SOA is kept as long as a negative answer may be.
        SoalessNodataKeptLong,
        /// Invariant 5: NXDOMAIN without a SOA is kept.
        SoalessNxdomainKept,
        /// Invariant 5: the SOA's MINIMUM does not shorten a negative answer's life.
        SoaMinimumIgnored,
        /// Invariant 5: an upstream's SERVFAIL is kept for an hour.
        ServfailKeptLong,
        /// Invariant 5: a failure of ours stands after its zone has answered again.
        FailureOutlivesRecovery,
        /// Invariant 5: an answer to a query with RD=0 is kept.
        Rd0AnswerKept,
        /// Invariant 6: DO is not part of the key.
        DoNotInKey,
        /// Invariant 6: CD is not part of the key.
        CdNotInKey,
        /// Invariant 6: CD is not copied into answers.
        CdNotCopied,
        /// Invariant 6: AD reaches clients that did not ask for it.
        AdUninvited,
        /// Invariant 7: an answer is truncated and does not say so.
        TruncationUntold,
        /// Invariant 7: the client's payload size is not looked at.
        PayloadSizeIgnored,
        /// Invariant 7: an OPT goes to clients that sent none.
        OptUninvited,
        /// Invariant 8: an answer to another question is accepted.
        QuestionNotCompared,
        /// Invariant 8: an answer with any ID is accepted.
        IdNotCompared,
        /// Invariant 8: a reply that is not accepted is held against the upstream.
        RejectionHeldAgainstUpstream,
        /// Invariant 8: a reply that is not accepted ends the attempt.
        RejectionEndsAttempt,
        /// Invariant 8: an answer that spells the question in its own way is refused.
        WrongCaseRefused,
        /// Invariant 9: IDs count up from 0 on each path.
        IdNotRandom,
        /// Invariant 9: a query that is sent again leaves from the same port.
        SamePortAgain,
        /// Invariant 10: nobody joins a lookup.
        LookupsNotShared,
        /// Invariant 10: clients over TCP get nothing from the cache.
        CacheForUdpOnly,
        /// Invariant 11: a lookup goes on trying until its time is over.
        AttemptsUnbounded,
        /// Invariant 11: as many clients may wait as like to.
        WaitersUnbounded,
        /// Invariant 11: the connections to an upstream are not counted.
        PoolUnbounded,
        /// Invariant 11: the cache takes four times its bytes.
        CacheBytesExceeded,
        /// Invariant 11: the cap of a class is not applied.
        ClassCapIgnored,
        /// Invariant 11: half as many clients may wait as should.
        ShedAtHalf,
        /// Invariant 12: asking again costs nothing.
        RetriesUnpaid,
        /// Invariant 12: queries to upstreams are padded.
        QueriesPadded,
        /// Invariant 13: a timer that is due this instant is left for later.
        DueTimerLeft,
        /// Invariant 14: once a lookup has only its deadline to wait for, nobody waits for that.
        DeadlineLost,
        /// Invariant 14: who joined a lookup is forgotten.
        JoinedClientLost,
        /// Invariant 14: those that wait are forgotten at a reload.
        ReloadForgetsClients,
        /// Invariant 14: the first attempt that is refused ends its lookup.
        GivenUpAtOnce,
        /// Invariant 15: answers to those that waited are not counted.
        LateAnswersUncounted,
        /// Invariant 15: denials from the cache are counted as answers with data.
        HitsOfOneClass,
        /// Invariant 15: of the clients that waited only the first is logged.
        WaitersUnlogged,
        /// Invariant 15: a lookup that failed is not logged.
        FailuresUnlogged,
        /// Invariant 16: a path that has served stays open.
        PathLeaked,
        /// Invariant 16: probes go on when the upstream is well again.
        ProbesGoOn,
        /// Invariant 16: an upstream that was down is never taken for well again.
        DownForGood,
        /// Invariant 16: after a truncated answer TCP is tried only when the read timeout is over.
        TcpAfterTimeout,
    }
}

/// The number of the fault chosen, counted from 1; 0 is none.
#[cfg(nodens_sim)]
static CHOSEN: AtomicUsize = AtomicUsize::new(0);

/// Whether this fault is chosen. Read at every hook, so a fault can be chosen between two worlds.
#[cfg(nodens_sim)]
pub(crate) fn planted(fault: Fault) -> bool {
    CHOSEN.load(Relaxed) == fault as usize + 1
}

/// No fault is ever chosen in a build that is not the simulator's.
#[cfg(not(nodens_sim))]
#[inline(always)]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

/// Chooses the fault that all Forwarders of this process have from now on.
#[cfg(nodens_sim)]
pub fn choose(fault: Option<Fault>) {
    CHOSEN.store(fault.map_or(0, |fault| fault as usize + 1), Relaxed);
}

/// The fault that is chosen.
#[cfg(nodens_sim)]
pub fn chosen() -> Option<Fault> {
    CHOSEN.load(Relaxed).checked_sub(1).and_then(|index| Fault::ALL.get(index).copied())
}
