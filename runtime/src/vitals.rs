//! What a worker shows of itself besides DNS: that it is alive, and what happened at its sockets.
//!
//! As with [`nodens_core::Stats`], the worker is the only writer and anybody may read at any time.

use crate::clients::CloseReason;
use crate::sync::AtomicU64;
use nodens_core::stats::Counter;
use nodens_core::wire::HEADER_LEN;
use nodens_core::{Duration, Instant};
use std::sync::atomic::Ordering;

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
    /// Looks for a query of our own that comes back to us.
    pub lookout: Lookout,
}

/// Looks for one name among the queries that come in: asked of an upstream, it shows whether that upstream asks us in turn. Costs one
/// load per query while nothing is looked for.
#[derive(Debug, Default)]
pub struct Lookout {
    wanted: AtomicU64,
    seen: Counter,
}

impl Lookout {
    /// How long the label is that is looked for: figures only, which no change of case touches.
    pub const LABEL_LEN: usize = 20;

    /// The label for a number.
    pub fn label(number: u64) -> String {
        format!("{number:0width$}", width = Self::LABEL_LEN)
    }

    /// For the control thread: looks for names whose first label is that of `number`; 0 ends it.
    pub fn look_for(&self, number: u64) {
        self.wanted.store(number, Ordering::Relaxed);
    }

    /// How often one was seen, ever.
    pub fn seen(&self) -> u64 {
        self.seen.get()
    }

    /// For the worker: a query came in.
    #[inline]
    pub(crate) fn query(&self, message: &[u8]) {
        let wanted = self.wanted.load(Ordering::Relaxed);
        if wanted != 0 && first_label(message).is_some_and(|label| label == Self::label(wanted).as_bytes()) {
            self.seen.add(1);
        }
    }
}

fn first_label(message: &[u8]) -> Option<&[u8]> {
    let (len, rest) = message.get(HEADER_LEN..)?.split_first()?;
    rest.get(..usize::from(*len))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m45_m49_only_the_name_that_is_looked_for_is_seen() {
        let lookout = Lookout::default();
        let query = |label: &str| {
            let mut message = vec![0; HEADER_LEN];
            message.push(label.len() as u8);
            message.extend(label.bytes());
            message
        };
        lookout.query(&query(&Lookout::label(7)));
        assert_eq!(lookout.seen(), 0, "nothing is looked for");
        lookout.look_for(7);
        for message in [query("www"), query(&Lookout::label(8)), query(""), vec![0; 5], vec![0; HEADER_LEN]] {
            lookout.query(&message);
        }
        let mut short = query(&Lookout::label(7));
        short.pop();
        lookout.query(&short);
        assert_eq!(lookout.seen(), 0);
        lookout.query(&query(&Lookout::label(7)));
        assert_eq!(lookout.seen(), 1);
        assert_eq!(Lookout::label(u64::MAX).len(), Lookout::LABEL_LEN);
    }
}
