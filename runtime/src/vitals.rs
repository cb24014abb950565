//! What a worker shows of itself besides DNS: that it is alive, and what happened at its sockets.
//!
//! As with [`nodens_core::Stats`], the worker is the only writer and anybody may read at any time.

use crate::clients::CloseReason;
use nodens_core::stats::Counter;
use nodens_core::{Duration, Instant};

/// The signs of life and the socket counters of one worker.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Turns taken.
    pub turns: Counter,
    last_turn_nanos: Counter,
    /// Events that were lost because nobody took them out of the channel in time.
    pub events_dropped: Counter,
    /// Clients' TCP connections open now (gauge).
    pub connections: Counter,
    /// Bytes of half queries and unsent answers that clients' TCP connections make us hold (gauge).
    pub tcp_bytes_held: Counter,
    /// TCP connections accepted.
    pub connections_opened: Counter,
    /// TCP connections turned away because every other one was busy.
    pub connections_refused: Counter,
    /// TCP connections closed, by reason; indexed by [`CloseReason`].
    pub connections_closed: [Counter; CloseReason::COUNT],
    /// accept() failed; accepting pauses for a moment if it was for want of descriptors or memory.
    pub accept_failures: Counter,
    /// UDP answers the kernel did not take.
    pub udp_send_failures: Counter,
}

impl Vitals {
    /// Notes a turn. A worker takes one at least every [`TICK`](crate::turn::TICK).
    pub fn turn(&self, now: Instant) {
        self.turns.add(1);
        self.last_turn_nanos.set(now.as_nanos());
    }

    /// When the last turn began, on the worker's clock; zero before the first.
    pub fn last_turn(&self) -> Instant {
        Instant::from_nanos(self.last_turn_nanos.get())
    }

    /// How long the worker has been silent. More than a few [`TICK`](crate::turn::TICK)s: it hangs.
    pub fn silent_for(&self, now: Instant) -> Duration {
        now.since(self.last_turn())
    }
}
