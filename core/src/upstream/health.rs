//! Up, suspect, down: the table stands at the top of the parent module.

use crate::time::{Duration, Instant};

/// Nothing heard for this long after we asked: suspect. Shorter than the injected Pods' patience of one second.
pub const SILENCE_SUSPECT: Duration = Duration::from_millis(400);

/// How well an upstream is; the order is the order of preference.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub enum Wellness {
    /// It answers.
    Up,
    /// It did not, lately.
    Suspect,
    /// It is known not to.
    Down,
}

/// The record of one upstream.
#[derive(Copy, Clone, Debug)]
pub struct Health {
    fails_max: u32,
    fails: u32,
    suspect: bool,
    /// When the oldest message was sent that nothing has come back after.
    unanswered_since: Option<Instant>,
}

impl Health {
    /// `fails_max` 0: never suspect, never down, never probed.
    pub const fn new(fails_max: u32) -> Self {
        Health { fails_max, fails: 0, suspect: false, unanswered_since: None }
    }

    /// Its present state.
    pub const fn wellness(&self) -> Wellness {
        if self.fails_max == 0 {
            Wellness::Up
        } else if self.fails > self.fails_max {
            Wellness::Down
        } else if self.suspect {
            Wellness::Suspect
        } else {
            Wellness::Up
        }
    }

    /// A message was sent.
    pub fn sent(&mut self, now: Instant) {
        self.unanswered_since.get_or_insert(now);
    }

    /// What was counted as sent could not be: its silence says nothing.
    pub fn never_sent(&mut self) {
        self.unanswered_since = None;
    }

    /// A valid reply arrived.
    pub fn answered(&mut self) {
        *self = Health::new(self.fails_max);
    }

    /// An attempt was refused, or a probe failed.
    pub fn failed(&mut self) {
        self.fails = self.fails.saturating_add(1);
        self.suspect = true;
    }

    /// Looks whether the silence has become suspect.
    pub fn listen(&mut self, now: Instant) {
        if self.unanswered_since.is_some_and(|since| now.since(since) >= SILENCE_SUSPECT) {
            self.suspect = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn silence_makes_suspect_and_failures_make_down_and_one_answer_heals() {
        let mut health = Health::new(2);
        health.sent(at(0));
        health.listen(at(399));
        assert_eq!(health.wellness(), Wellness::Up);
        health.listen(at(400));
        assert_eq!(health.wellness(), Wellness::Suspect);
        health.failed();
        health.failed();
        assert_eq!(health.wellness(), Wellness::Suspect);
        health.failed();
        assert_eq!(health.wellness(), Wellness::Down);
        health.answered();
        assert_eq!(health.wellness(), Wellness::Up);
    }

    #[test]
    fn j06_max_fails_0_never_calls_it_down() {
        let mut health = Health::new(0);
        (0..10).for_each(|_| health.failed());
        assert_eq!(health.wellness(), Wellness::Up);
    }

    #[test]
    fn j12_fails_saturate() {
        let mut health = Health { fails: u32::MAX, ..Health::new(2) };
        health.failed();
        assert_eq!(health.wellness(), Wellness::Down);
    }
}
