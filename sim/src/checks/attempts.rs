//! Checks 11 and 12 for lookups: how often a question is sent, and who pays for that.
//!
//! * reliability.md F7: six transmissions of a lookup may be lost, or as many as the zone has upstreams; what is lost with its path, cut
//!   short or refused for its OPT may be sent again.
//! * reliability.md F7: each upstream once and one repetition are free; more comes out of a budget of a fifth of the lookups, with a
//!   burst of 512. So an outage is doubled and not multiplied (RFC 5452 §5: each copy is another chance to forge its answer).
//!
//! The world does not see why a message is sent. It counts on what occasions there may be one more, and what is beyond that.

use crate::failure::{Checked, ensure};
use crate::host::Line;
use crate::world::World;
use nodens_core::{Path, Transport};

/// Messages of one lookup that may be under way or lost.
const ATTEMPTS_MAX: u32 = 6;
/// Connections that may end under a lookup before that counts as refused.
pub(crate) const RESENDS_MAX: u32 = 32;
/// Repetitions of all lookups of a worker in a burst.
const BURST: u32 = 512;
/// One more repetition for so many lookups.
const LOOKUPS_PER_REPETITION: u32 = 5;

impl World {
    /// A message leaves for these lookups, given by place and serial number.
    pub(crate) fn check_attempt(&mut self, worker: usize, zone: usize, flights: &[(u32, u32)]) -> Checked {
        let host = &mut self.workers[worker];
        let forward = host.plan.config.zones[zone].forward.as_ref();
        let upstreams = forward.map_or(1, |forward| forward.upstreams.len()) as u32;
        let mut paid = 0;
        for (place, _) in flights {
            let Some(flight) = host.flights.get_mut(*place) else { continue };
            flight.sends += 1;
            // Perhaps it was the other's, which asks in the same words.
            flight.excuses += u32::from(flights.len() > 1);
            let most = ATTEMPTS_MAX.max(upstreams) + flight.excuses;
            ensure(flight.sends <= most, "effort/attempts", || {
                format!("worker {worker} sends a question once more than {most} times: {flight:?}")
            })?;
            if flight.sends > upstreams + 1 {
                host.counted.bytes_due += flight.bytes_max;
            }
            let free = upstreams + 1 + flight.excuses;
            if flight.sends > free + flight.paid {
                flight.paid += 1;
                paid += 1;
            }
        }
        host.counted.repetitions_paid += paid;
        let paid = host.counted.repetitions_paid;
        let budget = BURST + host.flights.begun() / LOOKUPS_PER_REPETITION;
        ensure(paid <= budget, "effort/retry-budget", || {
            format!("worker {worker} has sent {paid} repetitions; {budget} are paid for")
        })
    }

    /// One more message may be sent for a lookup: what was sent came to nothing.
    pub(crate) fn excuse(&mut self, worker: usize, flights: &[(u32, u32)]) {
        for (place, serial) in flights {
            let flight = self.workers[worker].flights.get_mut(*place);
            if let Some(flight) = flight.filter(|flight| flight.serial == *serial) {
                flight.excuses += 1;
            }
        }
    }

    /// Something forged or broken came over UDP: TCP may be asked as well, once for each lookup.
    pub(crate) fn excuse_forged(&mut self, worker: usize, path: Path) {
        let udp = |line: &&Line| line.transport == Transport::Udp;
        let Some(line) = self.workers[worker].line(path).filter(udp) else { return };
        for out in line.out.clone() {
            for (place, serial) in out.flights {
                let flight = self.workers[worker].flights.get_mut(place);
                if let Some(flight) = flight.filter(|flight| flight.serial == serial && !flight.forged) {
                    flight.forged = true;
                    flight.excuses += 1;
                }
            }
        }
    }

    /// A path is closed. What was out on it may be sent again, unless it is a socket that was only given up for a newer one.
    pub(crate) fn excuse_lost(&mut self, worker: usize, lost: &Line) {
        if lost.transport == Transport::Tcp || lost.stalled {
            lost.out.iter().for_each(|out| self.excuse(worker, &out.flights));
        }
        if lost.transport == Transport::Tcp {
            self.workers[worker].flights.iter_mut().for_each(|flight| flight.ended_under_it += 1);
        }
    }
}
