//! SIEVE, the order in which entries leave (Zhang et al., NSDI 2024).
//!
//! Entries stand in a doubly linked list in the order they came. One hand walks from the oldest to the newest and round
//! again; it passes over what was visited since it last came by, taking the mark away, and stops at what was not:
//! the victim. A hit therefore only sets a mark, nothing moves, and a reader needs no write access. Names that
//! are asked for once leave after one turn of the hand, while whatever is asked for again stays, so a flood of random names
//! cannot push out the names in use.
//!
//! The links are not in the list: each entry has a [`Seat`] with one pair of links per list that it is in, so that the list
//! of all entries and the list of one class are the same code.

use crate::sim_support::{Mark, mark_if};

/// No entry.
pub(super) const NIL: u32 = u32::MAX;

/// The hand passes over this many visited entries and then takes the next one all the same. It bounds how long one insert
/// can hold its shard to some 0.1 ms, and costs at most one in this many of the entries in use.
pub(super) const HAND_STEPS_MAX: u32 = 1024;

/// The list that an entry is in together with all others.
pub(super) const ALL: usize = 0;
/// The list that it is in with those of its zone and class.
pub(super) const CLASS: usize = 1;

/// An entry's neighbours in one list.
#[derive(Copy, Clone, Debug)]
pub(super) struct Links {
    pub(super) newer: u32,
    pub(super) older: u32,
}

/// Where an entry stands. Seats have the same indices as the slots, but memory of their own: a hit has no use for them.
#[derive(Copy, Clone, Debug)]
pub(super) struct Seat {
    /// By list: [`ALL`], [`CLASS`].
    pub(super) links: [Links; 2],
    /// Which class list it is in.
    pub(super) class: u32,
}

impl Seat {
    /// In no list.
    pub(super) const EMPTY: Seat = Seat { links: [Links { newer: NIL, older: NIL }; 2], class: NIL };
}

/// One list and its hand.
#[derive(Debug)]
pub(super) struct List {
    /// Which of the links of a seat are this list's.
    which: usize,
    newest: u32,
    oldest: u32,
    /// Where to look for the next victim; [`NIL`] is the oldest.
    hand: u32,
    len: u32,
}

impl List {
    /// An empty list over the links number `which`.
    pub(super) const fn new(which: usize) -> Self {
        List { which, newest: NIL, oldest: NIL, hand: NIL, len: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NIL).then_some(self.oldest)
    }

    /// Adds the newest entry.
    pub(super) fn push(&mut self, seats: &mut [Seat], index: u32) {
        *self.links(seats, index) = Links { newer: NIL, older: self.newest };
        match self.newest {
            NIL => self.oldest = index,
            second => self.links(seats, second).newer = index,
        }
        self.newest = index;
        self.len += 1;
    }

    /// Takes an entry out. A hand that rests on it moves on.
    pub(super) fn unlink(&mut self, seats: &mut [Seat], index: u32) {
        let Links { newer, older } = *self.links(seats, index);
        match newer {
            NIL => self.newest = older,
            _ => self.links(seats, newer).older = older,
        }
        match older {
            NIL => self.oldest = newer,
            _ => self.links(seats, older).newer = newer,
        }
        if self.hand == index {
            self.hand = newer;
        }
        self.len -= 1;
    }

    /// Moves the hand to the entry that should leave. `unmark` takes the visited mark of an entry and says whether it was
    /// set. A mark belongs to the entry, not to the list, so the hands of two lists may take it from each other;
    /// that makes leaving a little easier where a class is at its cap, and is no worse than that.
    pub(super) fn victim(&mut self, seats: &[Seat], mut unmark: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.or_oldest(self.hand);
        let mut steps = 0;
        while at != NIL && steps < HAND_STEPS_MAX && unmark(at) {
            at = self.or_oldest(seats[at as usize].links[self.which].newer);
            steps += 1;
        }
        mark_if(steps == HAND_STEPS_MAX, Mark::HandTookVisited);
        self.hand = at;
        (at != NIL).then_some(at)
    }

    fn or_oldest(&self, index: u32) -> u32 {
        if index == NIL { self.oldest } else { index }
    }

    fn links<'s>(&self, seats: &'s mut [Seat], index: u32) -> &'s mut Links {
        &mut seats[index as usize].links[self.which]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    struct World {
        seats: Vec<Seat>,
        visited: Vec<bool>,
        list: List,
    }

    impl World {
        fn new(len: u32) -> Self {
            let mut world = World {
                seats: vec![Seat::EMPTY; len as usize],
                visited: vec![false; len as usize],
                list: List::new(CLASS),
            };
            for index in 0..len {
                world.list.push(&mut world.seats, index);
            }
            world
        }

        fn evict(&mut self) -> Option<u32> {
            let victim = self.list.victim(&self.seats, |i| core::mem::take(&mut self.visited[i as usize]))?;
            self.list.unlink(&mut self.seats, victim);
            Some(victim)
        }
    }

    #[test]
    fn the_oldest_unvisited_leaves_first_and_the_hand_goes_on_from_there() {
        let mut world = World::new(5);
        world.visited[0] = true;
        world.visited[2] = true;
        assert_eq!(world.evict(), Some(1));
        // The mark of 2 is taken; the hand is past 0 and comes back to it only after the newest.
        assert_eq!(world.evict(), Some(3));
        assert_eq!(world.evict(), Some(4));
        assert_eq!(world.evict(), Some(0));
        assert_eq!(world.evict(), Some(2));
        assert_eq!(world.evict(), None);
        assert_eq!((world.list.len(), world.list.oldest()), (0, None));
    }

    #[test]
    fn a_full_round_of_visited_entries_ends_at_the_first() {
        let mut world = World::new(3);
        world.visited.fill(true);
        assert_eq!(world.evict(), Some(0));
        assert_eq!(world.visited, [false; 3]);
    }

    #[test]
    fn the_hand_gives_up_after_its_steps() {
        let mut world = World::new(HAND_STEPS_MAX + 10);
        world.visited.fill(true);
        assert_eq!(world.evict(), Some(HAND_STEPS_MAX));
    }

    #[test]
    fn unlinking_in_the_middle_and_at_the_ends_keeps_the_order() {
        let mut world = World::new(5);
        for gone in [2, 0, 4] {
            world.list.unlink(&mut world.seats, gone);
        }
        world.list.push(&mut world.seats, 2);
        let left: Vec<_> = core::iter::from_fn(|| world.evict()).collect();
        assert_eq!(left, [1, 3, 2]);
    }
}
