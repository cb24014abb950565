//! Places with small numbers: a vector whose holes are reused, each use told apart by a generation.

use alloc::vec::Vec;

/// A place in a [`Slab`] and which of its holders is meant.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Ticket {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// Values at stable small indices.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Slab { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> Ticket {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, value: None });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[slot as usize];
        place.value = Some(value);
        Ticket { slot, generation: place.generation }
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&T> {
        self.places.get(ticket.slot as usize).filter(|p| p.generation == ticket.generation)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        let place = self.places.get_mut(ticket.slot as usize)?;
        if place.generation != ticket.generation {
            return None;
        }
        place.value.as_mut()
    }

    /// Takes the value out; the ticket is dead from now on.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let place =
            self.places.get_mut(ticket.slot as usize).filter(|p| p.generation == ticket.generation)?;
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(ticket.slot);
        Some(value)
    }

    /// The present holder of a slot, for tables that keep only slots.
    pub(crate) fn at(&self, slot: u32) -> Option<(Ticket, &T)> {
        let place = self.places.get(slot as usize)?;
        Some((Ticket { slot, generation: place.generation }, place.value.as_ref()?))
    }

    /// All holders, in the order of their slots.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Ticket, &mut T)> {
        self.places.iter_mut().enumerate().filter_map(|(slot, place)| {
            let ticket = Ticket { slot: slot as u32, generation: place.generation };
            place.value.as_mut().map(|value| (ticket, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_ticket_does_not_open_the_new_holders_place() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(second.slot, first.slot);
        assert_eq!((slab.get(first), slab.get(second), slab.len()), (None, Some(&'b'), 1));
        assert_eq!(slab.remove(first), None);
    }
}
