//! What a shard holds and what has left it, as plain numbers that can be summed over shards.

use crate::cache::Class;
use crate::config::ZoneId;
use alloc::vec::Vec;

/// The state of a shard, or the sum of several.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub struct ShardUsage {
    /// Memory in use: entries, the slab they are in and the index, as the allocator rounds them.
    pub bytes: usize,
    /// What `bytes` never exceeds.
    pub bytes_max: usize,
    /// Entries of all zones, expired ones that nobody has removed yet included.
    pub entries: u64,
    /// How many entries were removed after they had expired. They are no evictions.
    pub expired: u64,
    /// By zone and class, in no particular order.
    pub classes: Vec<ClassUsage>,
}

/// The part of one zone and class.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ClassUsage {
    /// The zone.
    pub zone: ZoneId,
    /// The class.
    pub class: Class,
    /// Entries.
    pub entries: u64,
    /// How many fresh entries had to leave for others, by the bound in bytes or by the class's own cap.
    pub evictions: u64,
}

impl ShardUsage {
    /// Adds the figures of one zone and class.
    pub fn add_class(&mut self, add: ClassUsage) {
        self.entries += add.entries;
        match self.classes.iter_mut().find(|have| (have.zone, have.class) == (add.zone, add.class)) {
            Some(have) => {
                have.entries += add.entries;
                have.evictions += add.evictions;
            }
            None => self.classes.push(add),
        }
    }

    /// Evictions over all zones and classes.
    pub fn evictions(&self) -> u64 {
        self.classes.iter().map(|class| class.evictions).sum()
    }
}
