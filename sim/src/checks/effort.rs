//! Checks 10 to 12: what goes out to upstreams, and bounds on what is open.
//!
//! * RFC 5452 §5: one query out per question; a question goes out because somebody waits for it.
//! * reliability.md §4: attempts per lookup, sockets, connections, bytes and entries have bounds.
//! * RFC 5452 §9.2, RFC 6056: source ports are drawn from a wide range and avoid those that others listen on.

use crate::failure::{Checked, ensure, fail};
use crate::message::{Asked, flag};
use crate::model::Key;
use crate::plan::upstream_number;
use crate::questions::QuestionId;
use crate::world::World;
use nodens_core::{Path, Transport};
use smallvec::SmallVec;
use std::net::SocketAddr;

/// Refused connects of a lookup, retransmissions aside (`core/src/forwarder/query.rs`).
pub(crate) const CONNECTS_MAX: u32 = 64;
/// Ports below are daemons'; NodePorts in between are services'.
const PORT_MIN: u16 = 16_384;
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

impl World {
    /// A question goes to an upstream: for one of the lookups under way, in its words, and not too often.
    pub(crate) fn check_asked(
        &mut self,
        worker: usize,
        question: QuestionId,
        asked: &Asked<'_>,
    ) -> Checked<SmallVec<[(u32, u32); 2]>> {
        let host = &self.workers[worker];
        let context = || format!("worker {worker} asks an upstream for {}", self.space.text(question));
        let bits = flag::QR | flag::OPCODE | flag::AA | flag::TC | flag::RA;
        ensure(asked.flags & bits == 0 && asked.flags & 0xf == 0, "effort/query", || {
            format!("{} with flags {:#06x}", context(), asked.flags)
        })?;
        let Some(zone) = host.plan.zone_of(&self.space, question) else {
            return fail("effort/unasked", format!("{}, which belongs to no zone", context()));
        };
        let key = Key {
            zone: host.plan.config.zones[zone].id,
            question,
            do_bit: true,
            cd: asked.flags & flag::CD != 0,
            rd: asked.flags & flag::RD != 0,
        };
        // Without an OPT the words do not say whether DNSSEC records are wanted.
        let mut flights = SmallVec::new();
        for do_bit in [false, true] {
            if asked.opt.is_none_or(|opt| opt.do_bit == do_bit)
                && let Some(place) = host.flights.find(&Key { do_bit, ..key })
                && let Some(flight) = host.flights.get(place)
            {
                flights.push((place, flight.serial));
            }
        }
        ensure(!flights.is_empty(), "effort/unasked", || format!("{} and nobody waits for that", context()))?;
        self.check_attempt(worker, zone, &flights)?;
        Ok(flights)
    }

    /// A path is opened.
    pub(crate) fn check_open(
        &mut self,
        worker: usize,
        path: Path,
        transport: Transport,
        remote: SocketAddr,
        source_port: Option<u16>,
    ) -> Checked {
        let host = &mut self.workers[worker];
        let limits = host.plan.config.limits;
        let context = || format!("worker {worker} opens {path:?} to {remote} from {source_port:?}");
        let known = host.lines.get(path.slot as usize).and_then(Option::as_ref);
        let again = known.is_some_and(|line| line.path == path);
        ensure(known.is_none() || again, "machine/path", || format!("{}: the slot is in use", context()))?;
        ensure(upstream_number(remote) < self.upstreams.len(), "machine/path", || {
            format!("{}: nobody lives there", context())
        })?;
        let others = || host.lines.iter().flatten().filter(|line| line.path != path);
        ensure(others().count() < limits.paths_max as usize, "effort/bounds", || {
            format!("{}: {} are open already", context(), limits.paths_max)
        })?;
        // One more than the pool's for a probe.
        let most = limits.connections_per_upstream_max.max(1) as usize + 1;
        let connections =
            others().filter(|line| line.transport == Transport::Tcp && line.remote == remote).count();
        ensure(transport == Transport::Udp || connections < most, "effort/bounds", || {
            format!("{}: {connections} connections there already", context())
        })?;
        if let Some(port) = source_port {
            ensure(port >= PORT_MIN && !NODE_PORTS.contains(&port), "forgery/ports", || {
                format!("{}: not from where it must be drawn", context())
            })?;
            let previous = std::mem::replace(&mut self.luck.last_port, port);
            self.luck.next_port += u32::from(port == previous || port == previous.wrapping_add(1));
        }
        host.counted.opened += u64::from(!again);
        self.luck.check()
    }
}
