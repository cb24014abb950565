//! How many lines of one kind may be written.

use std::time::{Duration, Instant};

/// Lines per second of one kind, and the size of a burst. More tells nobody more, and a terminal or log collector takes this
/// many without trouble.
pub(super) const LINES_PER_S: u32 = 50;
/// How often the lines that were left out are told.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);

/// A token bucket that counts what it refuses.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Lines spent beyond what time has paid back; at most [`LINES_PER_S`].
    spent: f64,
    last: Option<Instant>,
    left_out: u64,
    /// When the first line since the last summary was left out.
    since: Option<Instant>,
}

impl Budget {
    /// Whether one more line may be written now; if not, it is counted.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.last.unwrap_or(now));
        self.last = Some(now);
        self.spent = (self.spent - idle.as_secs_f64() * f64::from(LINES_PER_S)).max(0.0);
        if self.spent + 1.0 <= f64::from(LINES_PER_S) {
            self.spent += 1.0;
            return true;
        }
        self.left_out += 1;
        self.since.get_or_insert(now);
        false
    }

    /// How many lines were left out, if it is time to say so.
    pub(super) fn left_out(&mut self, now: Instant) -> Option<u64> {
        let since = self.since?;
        if now.saturating_duration_since(since) < SUMMARY_INTERVAL {
            return None;
        }
        self.since = None;
        Some(std::mem::take(&mut self.left_out))
    }
}
