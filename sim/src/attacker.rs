//! The attacker off the path: sees nothing that is drawn, but knows what is asked, whom, and (worst case) from which port.
//!
//! He guesses message IDs the way real attackers do: what came before plus a little, zero, one, at random. A right guess would be
//! accepted by anybody; it is counted as luck and not sent, and more luck than chance allows is a failure of `forgery/ids`.

use crate::failure::Checked;
use crate::hazards::Hazard;
use crate::host::Arrival;
use crate::message::{self, flag};
use crate::upstreams::{Packet, Truth};
use crate::world::{Event, MS, World};
use nodens_core::Transport;

/// Most shots at one moment.
const SHOTS_MAX: u64 = 8;

impl World {
    pub(crate) fn set_up_attacker(&mut self) {
        if self.has(Hazard::OffPath) {
            self.queue.push(self.draws.attacker.below(100 * MS), Event::Attack);
        }
    }

    /// Shoots at a query that is out, if there is one.
    pub(crate) fn attack(&mut self) -> Checked {
        if !self.has(Hazard::OffPath) {
            return Ok(());
        }
        let gap = self.draws.attacker.between(1, 1 + self.options.span_ms / 200) * MS;
        self.queue.push(self.now + gap, Event::Attack);
        let worker = self.draws.attacker.below(self.workers.len() as u64) as usize;
        let targets = |line: &&crate::host::Line| {
            line.transport == Transport::Udp && line.out.iter().any(|out| out.question.is_some())
        };
        let count = self.workers[worker].lines.iter().flatten().filter(targets).count() as u64;
        let nth = self.draws.attacker.below(count) as usize;
        let Some(line) = self.workers[worker].lines.iter().flatten().filter(targets).nth(nth) else {
            return Ok(());
        };
        let path = line.path;
        let Some((before, question)) = line.out.first().and_then(|out| Some((out.id_before, out.question?)))
        else {
            return Ok(());
        };
        for _ in 0..self.draws.attacker.between(1, SHOTS_MAX) {
            let draw = &mut self.draws.attacker;
            let random = draw.bits() as u16;
            let next = before.wrapping_add(draw.between(0, 2) as u16);
            let id = draw.pick(&[next, next, random, 0, 1]);
            let Some(line) = self.workers[worker].line_mut(path) else { break };
            if let Some(out) = line.out.iter_mut().find(|out| out.id == id) {
                self.luck.guessed += u32::from(!std::mem::replace(&mut out.guessed, true));
                self.luck.check()?;
                continue;
            }
            let mut bytes = Vec::with_capacity(96);
            message::put_header(&mut bytes, id, flag::QR | flag::RA, [1, 1, 0, 0]);
            bytes.extend_from_slice(&self.space.name(question).wire);
            bytes.extend_from_slice(&crate::questions::Space::qtype(question).to_be_bytes());
            bytes.extend_from_slice(&[0, 1]);
            bytes.extend_from_slice(&crate::answers::forged_body(question));
            let packet = Packet { bytes, truth: Truth::Broken };
            self.arrive(worker, Arrival::Packet { path, packet })?;
        }
        Ok(())
    }
}
