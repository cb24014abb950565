//! Marks: the branches that few runs take, by name.
//!
//! A mark stands in a branch as `mark(Mark::…)` and is hit when the branch is taken. The simulator reports the marks that no
//! seed has reached; such a branch needs a world that reaches it, or a test of its own.

#[cfg(nodens_sim)]
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

listed! {
    /// A rare branch.
    enum Mark {
        // A client asks.
        /// A retransmission is dropped while the first query waits.
        RetransmissionDropped,
        /// A client is turned away: too many wait.
        WaiterShed,
        /// A client is turned away: too many lookups are under way.
        LookupShed,
        /// A client is turned away: `max_concurrent`.
        MaxConcurrentReached,
        /// A client is turned away: all upstreams are down and the zone fails fast.
        FailedFast,
        /// A client is answered from the table of recent failures.
        FailureRemembered,
        /// A lookup begins while all its upstreams are down.
        AllDownAtStart,
        /// A client that joins has been waiting for longer than the lookup.
        JoinedWithLessTime,

        // Attempts.
        /// A repetition is not sent: the retry budget is used up.
        RetryBudgetSpent,
        /// A lookup gives up its oldest socket for the next.
        OldestAttemptGivenUp,
        /// A connection that had served ended: its queries are sent again.
        SentAgainElsewhere,
        /// A lookup has been sent again as often as may be.
        ResendsUsedUp,
        /// A lookup fails because everybody refused.
        EveryAttemptRefused,
        /// A lookup that may ask nobody any more waits for its deadline.
        OnlyTheDeadlineLeft,
        /// A silent connection is retired; only one lookup was on it.
        SilentConnectionRetired,
        /// A silent connection is retired, and other lookups move with it.
        SilentConnectionHeldOthers,

        // Paths and pools.
        /// No path may be opened.
        PathsExhausted,
        /// An idle path is closed because another one is needed.
        IdlePathMadeRoom,
        /// A silent connection is closed because its pool is full.
        SilentConnectionMadeRoom,
        /// A drawn ID is out on the path already.
        IdDrawnAgain,
        /// A drawn port is in use.
        PortDrawnAgain,
        /// So many drawn ports are in use that the kernel may choose.
        PortLeftToKernel,
        /// Even the kernel has no port.
        NoPortLeft,
        /// A path is retired with queries out.
        PathRetiredWithQueriesOut,
        /// A path ends and queries are still out on it.
        PathEndedOwingAnswers,
        /// A query waits in the queue and its path is gone.
        PathGoneBeforeSending,
        /// A connection that had served ended with queries unanswered.
        ConnectionEndedEarly,
        /// A connection has lived long enough.
        ConnectionGrewOld,
        /// An upstream is seen to answer one query at a time.
        UpstreamIsSerial,
        /// All connections are retired, and one of them has to do.
        OnlyRetiredConnections,
        /// Another connection is wanted and there are as many as may be.
        PoolFull,
        /// Another connection is opened because a query would wait behind others.
        PoolGrewForHeldUp,
        /// A UDP path is shared because there are many misses.
        UdpPathShared,
        /// A shared UDP path has lived long enough and makes way.
        UdpPathReplaced,

        // An upstream answers.
        /// Somebody seems to guess IDs: TCP is asked as well.
        IdsBeingGuessed,
        /// A connection brought too many IDs that are not out on it.
        ConnectionLostItsWay,
        /// An answer comes for a lookup that is over.
        LateReplyTaken,
        /// A connection brought what is no answer.
        NonsenseOverTcp,
        /// Something forged or broken came over UDP: TCP is asked as well.
        ForgerySoTcpToo,
        /// An answer is truncated: TCP is asked.
        TruncatedSoTcp,
        /// An answer over TCP says that it is truncated.
        TruncatedOverTcp,
        /// An upstream does not know EDNS.
        EdnsRefused,
        /// An RCODE sends the lookup to the next upstream.
        FailedOver,
        /// An answer is for a part of the Internet only and is not kept.
        ScopedAnswerRelayed,
        /// An answer is larger than what is kept.
        AnswerTooLargeToKeep,
        /// An answer is not kept because its shard is busy.
        ShardBusy,
        /// A truncated answer was all there was: clients get no more.
        TruncatedAsTcpFailed,

        // What answers are.
        /// An empty answer without a SOA.
        NodataWithoutSoa,
        /// A NOERROR that neither answers nor denies.
        NeitherAnswerNorDenial,
        /// A CNAME chain is too long to follow.
        ChainNotFollowed,
        /// Two CNAMEs of one name lead to different places.
        ChainForked,
        /// A signature is not valid now.
        SignatureNotValidNow,
        /// Records behind an OPT cannot be moved and are left out.
        RecordsBehindOptLeftOut,
        /// An answer does not fit: TC.
        Truncated,
        /// An answer fits without its additional records.
        AdditionalsLeftOut,

        // The cache.
        /// A failure does not replace a fresh answer.
        AnswerKeptOverFailure,
        /// An answer does not fit even into an empty shard.
        AnswerTooLargeForShard,
        /// An entry's successor does not fit into its place.
        ReplacedElsewhere,
        /// A fresh entry leaves to make room.
        FreshEntryEvicted,
        /// All that the hand came by was visited.
        HandTookVisited,

        // Failures and health.
        /// A failure is remembered for longer than the one before.
        FailureKeptLonger,
        /// So many failures are remembered that the oldest are dropped.
        FailureGenerationTurned,
        /// A zone has answered again and its failures are forgotten.
        FailuresForgotten,
        /// A probe was refused.
        ProbeRefused,
        /// An upstream is down.
        UpstreamDown,
        /// An upstream that was down is back.
        UpstreamBack,
        /// A lookup's deadline is brought forward because everybody is down.
        HopelessLookupShortened,
        /// A connection that was silent while its upstream was down is ended.
        SilentConnectionEnded,

        // A reload.
        /// A reload comes before answers that are ready were fetched.
        ReloadBeforeAnswersWereFetched,
        /// A reload took the listener that a client asked on.
        ReloadTookListener,
        /// A reload can answer a client at once.
        ReloadAnsweredAtOnce,

        // The driver.
        /// An event is lost because the driver does not fetch them.
        EventLost,
    }
}

#[cfg(nodens_sim)]
static HITS: [AtomicU64; Mark::ALL.len()] = [const { AtomicU64::new(0) }; Mark::ALL.len()];

/// Notes that a branch was taken.
#[cfg(nodens_sim)]
pub(crate) fn mark(mark: Mark) {
    HITS[mark as usize].fetch_add(1, Relaxed);
}

/// Nobody counts in a build that is not the simulator's.
#[cfg(not(nodens_sim))]
#[inline(always)]
pub(crate) const fn mark(_: Mark) {}

/// Notes that a branch was taken, if it was.
#[inline(always)]
pub(crate) fn mark_if(taken: bool, which: Mark) {
    if taken {
        mark(which);
    }
}

/// How often a mark has been hit in this process.
#[cfg(nodens_sim)]
pub fn hits(mark: Mark) -> u64 {
    HITS[mark as usize].load(Relaxed)
}

/// Counts from zero again.
#[cfg(nodens_sim)]
pub fn forget_hits() {
    HITS.iter().for_each(|hits| hits.store(0, Relaxed));
}
