//! How a worker leaves: when it gives up its sockets, and when it ends. The same for both runtimes, without waiting: they ask
//! [`Departure::step`] from time to time.
//!
//! | who goes on serving | now | what is done |
//! | --- | --- | --- |
//! | others: workers, another agent | at once | retire: new queries are theirs, what is queued here is still read |
//! | nobody | something is in flight, for less than [`QUIET_PATIENCE`] | serve on |
//! | nobody | for less than [`WIND_DOWN`] more | wind down: what is in the cache is answered, the rest gets SERVFAIL at once |
//! | nobody | nothing is in flight, or something all that time | retire: new queries are refused, those in flight are answered |
//!
//! | retired | what is done |
//! | --- | --- |
//! | less than [`LAST_CALL`] ago, and there are others | read on |
//! | something is in flight, and the deadline is not over | wait for the answers |
//! | neither | end |
//!
//! Between the last answer of one agent and the first of the next nobody answers, so who leaves nobody behind does all its waiting
//! before it stops serving, and none after.

use crate::worker::Stop;
use nodens_core::{Duration, Instant};

/// How long a retired UDP socket is still read from: a datagram past the kernel's choice of a socket arrives within this. Where nobody
/// else serves there was no choice.
pub const LAST_CALL: Duration = Duration::from_millis(10);
/// How long a moment is waited for in which nothing is in flight. With a hundred misses a second at random moments, 20 ms each, there
/// is one every 64 ms.
pub const QUIET_PATIENCE: Duration = Duration::from_millis(100);
/// How long it is waited for by starting no lookup any more: most are over after the longest way to an upstream, 100 ms.
pub const WIND_DOWN: Duration = Duration::from_millis(150);
/// How often to ask.
pub const CHECK: Duration = Duration::from_millis(1);

/// A worker that was told to end.
#[derive(Debug)]
pub struct Departure {
    stop: Stop,
    began: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Serving,
    WindingDown,
    Retired { last_call: Instant },
}

/// What is next.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Go on as before, and ask again.
    GoOn,
    /// Start no lookup any more.
    WindDown,
    /// Leave the listening sockets' groups; what is queued and in flight is still answered.
    Retire,
    /// End.
    End,
}

impl Departure {
    /// It was told so `now`.
    pub fn new(stop: Stop, now: Instant) -> Departure {
        Departure { stop, began: now, state: State::Serving }
    }

    /// What is next; `is_quiet` if nothing is in flight. After [`Step::Retire`] it is to be asked again at once.
    pub fn step(&mut self, now: Instant, is_quiet: bool) -> Step {
        let is_over = now >= self.stop.deadline;
        let wind_down_at = self.began + QUIET_PATIENCE;
        let waits = self.stop.is_last && !is_quiet && !is_over;
        match self.state {
            State::Serving if waits && now < wind_down_at => Step::GoOn,
            State::Serving if waits => {
                self.state = State::WindingDown;
                Step::WindDown
            }
            State::WindingDown if waits && now < wind_down_at + WIND_DOWN => Step::GoOn,
            State::Serving | State::WindingDown => {
                let wait = if self.stop.is_last { Duration::ZERO } else { LAST_CALL };
                self.state = State::Retired { last_call: now + wait };
                Step::Retire
            }
            State::Retired { last_call } if is_over || (is_quiet && now >= last_call) => Step::End,
            State::Retired { .. } => Step::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Instant = Instant::from_nanos(1_000_000_000);
    const GRACE: Duration = Duration::from_secs(5);

    fn departure(is_last: bool) -> Departure {
        Departure::new(Stop { deadline: BEGAN + GRACE, is_last }, BEGAN)
    }

    /// The first moment, in ms since it began, at which each step other than going on comes.
    fn steps(mut departure: Departure, is_quiet: impl Fn(u64) -> bool) -> Vec<(u64, Step)> {
        let mut seen = vec![];
        let mut ms = 0;
        while seen.last().is_none_or(|(_, step)| *step != Step::End) {
            match departure.step(BEGAN + Duration::from_millis(ms), is_quiet(ms)) {
                Step::GoOn => ms += 1,
                step => seen.push((ms, step)),
            }
        }
        seen
    }

    #[test]
    fn who_leaves_others_behind_retires_at_once_and_reads_on() {
        assert_eq!(steps(departure(false), |_| true), [(0, Step::Retire), (10, Step::End)]);
        assert_eq!(steps(departure(false), |ms| ms > 700), [(0, Step::Retire), (701, Step::End)]);
        assert_eq!(steps(departure(false), |_| false), [(0, Step::Retire), (5_000, Step::End)]);
    }

    #[test]
    fn who_leaves_nobody_behind_serves_until_nothing_is_in_flight() {
        assert_eq!(steps(departure(true), |_| true), [(0, Step::Retire), (0, Step::End)]);
        assert_eq!(steps(departure(true), |ms| ms == 37), [(37, Step::Retire), (37, Step::End)]);
    }

    #[test]
    fn a_busy_one_winds_down_then_refuses_and_answers_what_is_in_flight() {
        let wound_down = (100, Step::WindDown);
        let over = |ms| [wound_down, (ms, Step::Retire), (ms, Step::End)];
        assert_eq!(steps(departure(true), |ms| ms > 120), over(121));
        let refusing = |end| [wound_down, (250, Step::Retire), (end, Step::End)];
        assert_eq!(steps(departure(true), |ms| ms > 270), refusing(271));
        assert_eq!(steps(departure(true), |_| false), refusing(5_000));
    }

    #[test]
    fn a_deadline_is_kept_in_every_state() {
        let stop = Stop { deadline: BEGAN + Duration::from_millis(3), is_last: true };
        assert_eq!(steps(Departure::new(stop, BEGAN), |_| false), [(3, Step::Retire), (3, Step::End)]);
    }
}
