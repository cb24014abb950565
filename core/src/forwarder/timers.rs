//! Deadlines, one per holder, exact: setting one anew replaces it, and one that is cleared never rings.

use crate::sim_support::{Fault, planted};
use crate::time::Instant;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// At most one deadline for each small number.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Instant, u32)>,
    by_holder: Vec<Option<Instant>>,
}

impl Timers {
    pub(super) fn set(&mut self, holder: u32, at: Instant) {
        let index = holder as usize;
        if self.by_holder.len() <= index {
            self.by_holder.resize(index + 1, None);
        }
        if self.by_holder[index] == Some(at) {
            return;
        }
        self.clear(holder);
        self.by_holder[index] = Some(at);
        self.by_time.insert((at, holder));
    }

    pub(super) fn clear(&mut self, holder: u32) {
        if let Some(at) = self.by_holder.get_mut(holder as usize).and_then(Option::take) {
            self.by_time.remove(&(at, holder));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest deadline that is not after `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u32> {
        let (at, holder) = *self.by_time.first()?;
        if at > now || (at == now && planted(Fault::DueTimerLeft)) {
            return None;
        }
        self.clear(holder);
        Some(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_order_is_by_time() {
        let at = Instant::from_nanos;
        let mut timers = Timers::default();
        timers.set(3, at(30));
        timers.set(1, at(10));
        timers.set(3, at(5));
        timers.set(2, at(20));
        timers.clear(1);
        assert_eq!(timers.next(), Some(at(5)));
        assert_eq!((timers.pop(at(19)), timers.pop(at(19)), timers.pop(at(20))), (Some(3), None, Some(2)));
        assert_eq!(timers.next(), None);
    }
}
