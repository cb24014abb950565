//! The network: what becomes of a packet. What loses it comes first; the others may come together.
//!
//! | rule | verdict |
//! | --- | --- |
//! | a spell of silence over this upstream and direction | lost |
//! | loss | lost |
//! | duplication | arrives twice |
//! | jitter | arrives late, others overtake it |
//! | none of these | arrives after the usual time |

use crate::hazards::Hazard;
use crate::world::{MS, World};

/// Which way a packet to or from an upstream goes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Way {
    Out,
    Back,
}

/// A time during which something is silent.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Spell {
    pub(crate) upstream: usize,
    /// One direction only; `None` means both.
    pub(crate) way: Option<Way>,
    /// Connections do not come about either.
    pub(crate) dead: bool,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// When a packet arrives: never, once or twice.
pub(crate) type Arrivals = [Option<u64>; 2];

impl World {
    /// Draws the spells of the first phase.
    pub(crate) fn set_up_spells(&mut self) {
        let span = self.options.span_ms * MS;
        for upstream in 0..self.upstreams.len() {
            for (hazard, dead) in [(Hazard::Burst, false), (Hazard::OneWay, false), (Hazard::Dead, true)] {
                let ratio = self.ratio(hazard);
                let draw = &mut self.draws.network;
                if !draw.hit(ratio) {
                    continue;
                }
                for _ in 0..draw.between(1, 4) {
                    let from = draw.below(span);
                    let until = from + MS * draw.pick(&[50, 300, 1000, 5000, 30_000]);
                    let way = match hazard {
                        Hazard::OneWay => Some(draw.pick(&[Way::Out, Way::Back])),
                        _ => None,
                    };
                    self.spells.push(Spell { upstream, way, dead, from, until });
                }
            }
        }
    }

    /// Whether packets this way are lost for now.
    pub(crate) fn is_silent(&self, upstream: usize, way: Way, at: u64) -> bool {
        self.spells.iter().any(|spell| {
            spell.upstream == upstream
                && (spell.from..spell.until).contains(&at)
                && spell.way.is_none_or(|one| one == way)
        })
    }

    /// Whether the upstream's process is down.
    pub(crate) fn is_dead(&self, upstream: usize, at: u64) -> bool {
        self.spells
            .iter()
            .any(|spell| spell.dead && spell.upstream == upstream && (spell.from..spell.until).contains(&at))
    }

    /// When a datagram to or from an upstream arrives that leaves at `at`.
    pub(crate) fn cross(&mut self, upstream: usize, way: Way, at: u64) -> Arrivals {
        if self.is_silent(upstream, way, at) {
            self.trace.line(self.now, || {
                format!("net: lost in a spell of silence, {way:?} of upstream {upstream}")
            });
            return [None, None];
        }
        let (loss, twice, jitter) = (
            self.ratio(Hazard::UpstreamLoss),
            self.ratio(Hazard::UpstreamDuplicate),
            self.ratio(Hazard::UpstreamJitter),
        );
        let usual = at + self.options.round_trip_us * 500;
        let draw = &mut self.draws.network;
        if draw.hit(loss) {
            self.trace.line(self.now, || format!("net: lost, {way:?} of upstream {upstream}"));
            return [None, None];
        }
        let again = (way == Way::Back && draw.hit(twice)).then(|| usual + draw.below(50 * MS));
        let late = if draw.hit(jitter) { draw.below(1000 * MS) } else { 0 };
        if late > 0 || again.is_some() {
            let twice = if again.is_some() { ", and comes twice" } else { "" };
            self.trace.line(self.now, || {
                format!("net: {} ms late{twice}, {way:?} of upstream {upstream}", late / MS)
            });
        }
        [Some(usual + late), again]
    }

    /// When a client's datagram arrives that leaves at `at`.
    pub(crate) fn cross_from_client(&mut self, at: u64) -> Arrivals {
        let (loss, twice, jitter) = (
            self.ratio(Hazard::ClientLoss),
            self.ratio(Hazard::ClientDuplicate),
            self.ratio(Hazard::ClientJitter),
        );
        // The same machine.
        let usual = at + 20_000;
        let draw = &mut self.draws.network;
        if draw.hit(loss) {
            return [None, None];
        }
        let again = draw.hit(twice).then(|| usual + draw.below(5 * MS));
        let late = if draw.hit(jitter) { draw.below(100 * MS) } else { 0 };
        [Some(usual + late), again]
    }

    /// Whether an answer on its way to a client over UDP gets lost.
    pub(crate) fn is_lost_to_client(&mut self) -> bool {
        let loss = self.ratio(Hazard::ClientLoss);
        self.draws.network.hit(loss)
    }
}
