//! How long an upstream takes, smoothed as TCP does it (RFC 6298), and what follows for our patience.

use crate::time::Duration;

/// Patience with an upstream that never answered yet, while another one can be asked.
const HEDGE_START: Duration = Duration::from_millis(100);
/// Never hedge earlier than this: a busy upstream must not be asked twice for each query.
const HEDGE_MIN: Duration = Duration::from_millis(20);
/// Never hedge later than this: the client waits one second (design §4a).
const HEDGE_MAX: Duration = Duration::from_millis(400);
/// Patience before the same upstream is asked again: it may just be recursing, and asking twice gets nothing sooner
/// unless a datagram was lost.
const RETRANSMIT_MIN: Duration = Duration::from_millis(250);

/// A connection that has brought nothing for this long is not waited for alone: longer than a resolver's usual work, short enough
/// for two tries within the client's second.
const STALL_MIN: Duration = Duration::from_millis(100);
/// See [`STALL_MIN`]; with one more round trip this stays below 300 ms (reliability.md F4).
const STALL_MAX: Duration = Duration::from_millis(200);

/// A smoothed round-trip time and its variation.
#[derive(Copy, Clone, Debug, Default)]
pub struct Rtt {
    smoothed: Option<(Duration, Duration)>,
}

impl Rtt {
    /// Takes one measurement.
    pub fn observe(&mut self, sample: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (sample, sample / 2),
            Some((rtt, variation)) => {
                let error = rtt.abs_diff(sample);
                (rtt * 7 / 8 + sample / 8, variation * 3 / 4 + error / 4)
            }
        });
    }

    /// The smoothed round-trip time; zero while nothing was measured.
    pub fn smoothed(&self) -> Duration {
        self.smoothed.map_or(Duration::ZERO, |(rtt, _)| rtt)
    }

    /// When a silent connection is given up.
    pub fn stall_after(&self) -> Duration {
        (self.hedge_after() * 2).clamp(STALL_MIN, STALL_MAX)
    }

    /// When to ask another upstream as well.
    pub fn hedge_after(&self) -> Duration {
        let Some((rtt, variation)) = self.smoothed else { return HEDGE_START };
        (rtt + variation * 4).clamp(HEDGE_MIN, HEDGE_MAX)
    }

    /// When to ask the same upstream again.
    pub fn retransmit_after(&self) -> Duration {
        if self.smoothed.is_none() {
            return HEDGE_MAX;
        }
        (self.hedge_after() * 2).clamp(RETRANSMIT_MIN, HEDGE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_was_measured_within_its_bounds() {
        let mut rtt = Rtt::default();
        assert_eq!((rtt.hedge_after(), rtt.retransmit_after()), (HEDGE_START, HEDGE_MAX));
        for _ in 0..50 {
            rtt.observe(Duration::from_millis(1));
        }
        assert_eq!((rtt.hedge_after(), rtt.retransmit_after()), (HEDGE_MIN, RETRANSMIT_MIN));
        for _ in 0..50 {
            rtt.observe(Duration::from_secs(3));
        }
        assert_eq!((rtt.hedge_after(), rtt.retransmit_after()), (HEDGE_MAX, HEDGE_MAX));
    }
}
