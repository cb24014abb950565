//! The clocks of a worker, read once per turn.
//!
//! The core's time is the kernel's boot time clock as it stands. It has one origin for the whole machine, so
//! Instants of different workers can be compared: entries of the shared cache carry them. Unlike the monotonic clock behind
//! `std::time::Instant` it goes on while a virtual machine sleeps, so TTLs do not outlive a suspended laptop or a paused
//! node. Reading it is a call into the vDSO, not into the kernel.

use nix::time::{ClockId, clock_gettime};
use nodens_core::{Duration, Instant};
use std::time::{SystemTime, UNIX_EPOCH};

/// The machine's steady clock.
#[derive(Copy, Clone, Debug)]
pub struct Clock {
    id: ClockId,
}

impl Clock {
    /// CLOCK_BOOTTIME, or CLOCK_MONOTONIC where a sandbox does not offer the first.
    pub fn system() -> Self {
        let boot = ClockId::CLOCK_BOOTTIME;
        let id = if clock_gettime(boot).is_ok() { boot } else { ClockId::CLOCK_MONOTONIC };
        Clock { id }
    }

    /// Now, in nanoseconds since the machine started.
    #[inline]
    pub fn now(&self) -> Instant {
        let time = clock_gettime(self.id).expect("this clock was read at start");
        Instant::ZERO + Duration::new(time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs() as u32)
    }
}

/// The wall clock, in seconds since 1970; zero if it stands before that.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clocks_share_their_origin_and_advance() {
        let before = Clock::system().now();
        std::thread::sleep(Duration::from_millis(2));
        let passed = Clock::system().now() - before;
        assert!(passed >= Duration::from_millis(2) && passed < Duration::from_secs(5), "{passed:?}");
    }
}
