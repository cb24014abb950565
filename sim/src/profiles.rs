//! Named kinds of worlds beside the swarm: each turns some hazards on for good and lets the rest be drawn more seldom.

use crate::draw::Draw;
use crate::hazards::{Group, Hazard, Row};
use crate::options::Options;

/// A kind of world.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Profile {
    /// Everything is drawn.
    Swarm,
    /// No faults, no small bounds.
    Calm,
    /// The network loses, doubles and delays.
    Lossy,
    /// Somebody forges, and upstreams send rubbish.
    Hostile,
    /// One configuration after the other.
    ReloadStorm,
    /// A cache of a few kilobytes and many names.
    TinyMemory,
    /// Many clients ask for the same few names at the moment they expire.
    ThunderingExpiry,
    /// A new process takes over.
    Upgrade,
}

/// All of them, with their names.
pub const PROFILES: [(Profile, &str); 8] = [
    (Profile::Swarm, "swarm"),
    (Profile::Calm, "calm"),
    (Profile::Lossy, "lossy"),
    (Profile::Hostile, "hostile"),
    (Profile::ReloadStorm, "reload-storm"),
    (Profile::TinyMemory, "tiny-memory"),
    (Profile::ThunderingExpiry, "thundering-expiry"),
    (Profile::Upgrade, "upgrade"),
];

impl Profile {
    /// Its name.
    pub fn name(self) -> &'static str {
        PROFILES[self as usize].1
    }

    /// The profile with this name.
    pub fn parse(name: &str) -> Option<Profile> {
        PROFILES.iter().find(|(_, known)| *known == name).map(|(profile, _)| *profile)
    }

    /// The profile of the `n`th world of a run over all of them: every other one is the swarm's.
    pub fn nth(n: u64) -> Profile {
        if n.is_multiple_of(2) { Profile::Swarm } else { PROFILES[1 + (n / 2 % 7) as usize].0 }
    }

    /// Hazards that every world of this profile has.
    const fn always(self) -> &'static [Hazard] {
        match self {
            Profile::Swarm | Profile::Calm => &[],
            Profile::Lossy => &[
                Hazard::ClientLoss,
                Hazard::UpstreamLoss,
                Hazard::UpstreamDuplicate,
                Hazard::UpstreamJitter,
                Hazard::Retransmission,
            ],
            Profile::Hostile => &[
                Hazard::OffPath,
                Hazard::SpoofedClients,
                Hazard::Garbage,
                Hazard::WrongId,
                Hazard::WrongQuestion,
                Hazard::Malformed,
            ],
            Profile::ReloadStorm => &[Hazard::Reload, Hazard::UpstreamChange, Hazard::Batches],
            Profile::TinyMemory => &[Hazard::SmallMemory, Hazard::Additional],
            Profile::ThunderingExpiry => &[Hazard::Thunder, Hazard::Pairs],
            Profile::Upgrade => &[Hazard::Upgrade, Hazard::TcpClients],
        }
    }

    /// In how many worlds of a hundred a hazard exists.
    pub fn worlds_of_100(self, row: &Row) -> u32 {
        let usual = u32::from(row.worlds);
        match self {
            _ if self.always().contains(&row.hazard) => 100,
            Profile::Swarm => usual,
            Profile::Calm if row.group == Group::Habit => usual,
            Profile::Calm => 0,
            _ if row.group == Group::Habit => usual,
            _ => usual / 3,
        }
    }

    /// What else the profile wants.
    pub(crate) fn shape(self, options: &mut Options, draw: &mut Draw) {
        match self {
            Profile::TinyMemory => {
                options.names = draw.between(50, 500) as usize;
                options.queries = options.queries.max(300);
            }
            Profile::ThunderingExpiry => {
                options.names = draw.between(1, 4) as usize;
                options.clients = draw.between(8, 40) as usize;
                options.queries = options.queries.max(200);
                options.ttl_max_s = draw.pick(&[1, 2, 5]);
            }
            Profile::ReloadStorm | Profile::Upgrade => options.queries = options.queries.max(50),
            Profile::Swarm | Profile::Calm | Profile::Lossy | Profile::Hostile => {}
        }
    }
}
