//! What a seed and a profile make of a world before it begins: which hazards it has, how strong, and its size.
//!
//! Options are all that a world needs besides its seed. The shrinker changes them and runs the same seed again; since each part
//! has its own stream of chance, what is left behaves much as before.

use crate::draw::{Draw, Part, Ratio};
use crate::hazards::{COUNT, Hazard, Hazards, TABLE};
use crate::profiles::Profile;
use std::fmt;

/// The most queries that clients of one world ask.
pub const QUERIES_MAX: u64 = 2000;
/// Workers of one process; an upgrade has as many again for a while.
pub const WORKERS_MAX: u64 = 4;

/// The drawn shape of one world.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed that everything else grows from.
    pub seed: u64,
    /// The profile it was drawn under.
    pub profile: Profile,
    /// Which hazards exist.
    pub hazards: Hazards,
    /// How strong each would be, in thousandths.
    strength: [u16; COUNT],
    /// Forwarders that share the cache.
    pub workers: usize,
    /// Clients.
    pub clients: usize,
    /// Queries that clients start; retransmissions and pairs come on top.
    pub queries: usize,
    /// Different names that are asked for.
    pub names: usize,
    /// Forward zones, the root included.
    pub zones: usize,
    /// Upstream resolvers.
    pub upstreams: usize,
    /// How long clients ask in the first phase, in milliseconds.
    pub span_ms: u64,
    /// The usual TTLs, from 1 to this, in seconds.
    pub ttl_max_s: u32,
    /// Round trip to an upstream, the network's part, in microseconds.
    pub round_trip_us: u64,
}

/// What the shrinker takes away from a world.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    /// Hazards that are left out.
    pub without: Vec<Hazard>,
    /// At most so many clients.
    pub clients: Option<usize>,
    /// At most so many queries.
    pub queries: Option<usize>,
}

impl Options {
    /// Draws a world.
    pub fn draw(seed: u64, profile: Profile) -> Self {
        let mut draw = Draw::part(seed, Part::Options);
        let mut hazards = Hazards::default();
        let mut strength = [0; COUNT];
        for (row, strength) in TABLE.iter().zip(&mut strength) {
            let exists = draw.chance(profile.worlds_of_100(row), 100);
            *strength = draw.between(u64::from(row.strength.0), u64::from(row.strength.1)) as u16;
            if exists {
                hazards.insert(row.hazard);
            }
        }
        let mut options = Options {
            seed,
            profile,
            hazards,
            strength,
            workers: draw.between(1, WORKERS_MAX) as usize,
            clients: draw.skewed(24) as usize,
            queries: draw.skewed(QUERIES_MAX) as usize,
            names: draw.skewed(60) as usize,
            zones: draw.between(1, 3) as usize,
            upstreams: draw.between(1, 4) as usize,
            span_ms: 1000 * draw.skewed(60),
            ttl_max_s: draw.pick(&[2, 5, 12, 60, 600, 5000]),
            round_trip_us: draw.pick(&[200, 1000, 5000, 30_000, 90_000]),
        };
        profile.shape(&mut options, &mut draw);
        options
    }

    /// Takes something away.
    #[must_use]
    pub fn cut(mut self, cuts: &Cuts) -> Self {
        cuts.without.iter().for_each(|hazard| self.hazards.remove(*hazard));
        self.clients = self.clients.min(cuts.clients.unwrap_or(usize::MAX)).max(1);
        self.queries = self.queries.min(cuts.queries.unwrap_or(usize::MAX)).max(1);
        self
    }

    /// How often a hazard happens, if it exists.
    #[inline]
    pub const fn ratio(&self, hazard: Hazard) -> Ratio {
        Ratio::per_mille(self.strength[hazard as usize] as u32)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "workers={} clients={} queries={} names={} zones={} upstreams={} span={}s ttl<={}s rtt={}us faults=[",
            self.workers,
            self.clients,
            self.queries,
            self.names,
            self.zones,
            self.upstreams,
            self.span_ms / 1000,
            self.ttl_max_s,
            self.round_trip_us,
        )?;
        for (n, hazard) in self.hazards.iter().enumerate() {
            let row = hazard.row();
            let comma = if n > 0 { ", " } else { "" };
            match row.strength {
                (1000, 1000) => write!(f, "{comma}{}", row.name)?,
                _ => write!(f, "{comma}{}={}/1000", row.name, self.strength[hazard as usize])?,
            }
        }
        f.write_str("]")
    }
}

impl fmt::Display for Cuts {
    /// As the command line takes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.without.is_empty() {
            let names: Vec<&str> = self.without.iter().map(|hazard| hazard.row().name).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        if let Some(queries) = self.queries {
            write!(f, " --queries {queries}")?;
        }
        Ok(())
    }
}
