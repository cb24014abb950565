//! Checks 8 and 9: what does not match path, ID and question changes nothing but a counter, and nothing that is drawn can be guessed.
//!
//! * RFC 5452 §9.1: match ID, question, addresses, ports. §9.2: unpredictable IDs and source ports, over the whole range.
//! * reliability.md §2.3: whatever fails a check is dropped and counted, the lookup waits on, and the upstream's health is untouched:
//!   else whoever can send rubbish can take names off the network (CVE-2023-26437).

use crate::cache::Noted;
use crate::failure::{Checked, ensure, fail};
use crate::hazards::Hazard;
use crate::message::{self, HEADER};
use crate::model::Failed;
use crate::said::Version;
use crate::upstreams::Truth;
use crate::world::World;
use nodens_core::stats::Counter;
use nodens_core::wire::Rcode;
use nodens_core::{Path, Rejection, Transport};
use smallvec::SmallVec;

/// Right guesses in one world that are taken for luck. Two thousand guesses at 65 536 IDs come true once in thirty worlds; five
/// times in one world in a thousand million.
const LUCK_MAX: u32 = 4;

/// Guesses at what the Forwarders draw, and how many came true.
#[derive(Debug, Default)]
pub(crate) struct Luck {
    /// An ID was the successor of the one before.
    pub(crate) next_id: u32,
    /// A source port was that of the socket before, or its successor.
    pub(crate) next_port: u32,
    /// The attacker guessed an ID.
    pub(crate) guessed: u32,
    pub(crate) last_port: u16,
    /// IDs drawn.
    pub(crate) draws: u32,
}

impl Luck {
    pub(crate) fn check(&self) -> Checked {
        // Long worlds have more of it.
        let most = LUCK_MAX + self.draws / 4096;
        ensure(self.next_id <= most, "forgery/ids", || {
            format!("{} message IDs followed the one before", self.next_id)
        })?;
        ensure(self.next_port <= most, "forgery/ports", || {
            format!("{} source ports followed from the one before", self.next_port)
        })?;
        ensure(self.guessed <= LUCK_MAX, "forgery/ids", || {
            format!("the attacker guessed {} message IDs", self.guessed)
        })
    }
}

/// What must become of a message.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Must {
    Accept,
    Reject,
    Either,
}

/// What was known before a message.
pub(crate) struct Before {
    must: Must,
    /// Which of the queries out on the path it answers.
    at: Option<usize>,
    /// Lookups that wait for it: place and serial number.
    live: SmallVec<[(u32, u32); 2]>,
    udp: bool,
    lookups: usize,
    rejected: u64,
    downs: u64,
    late: u64,
    /// Something else was handled in this turn already; the path may be closed and the request not fetched.
    fresh: bool,
}

impl World {
    pub(crate) fn before_response(
        &mut self,
        worker: usize,
        path: Path,
        bytes: &[u8],
        truth: Truth,
    ) -> Before {
        let host = &self.workers[worker];
        let mut before = Before {
            must: Must::Reject,
            at: None,
            live: SmallVec::new(),
            udp: true,
            lookups: host.forwarder.lookups(),
            rejected: self.rejected(worker),
            downs: self.downs(worker),
            late: host.forwarder.stats().replies_late.get(),
            fresh: host.fresh,
        };
        let Some(line) = host.line(path) else { return before };
        before.udp = line.transport == Transport::Udp;
        let id = message::u16_at(bytes, 0);
        before.at = line.out.iter().position(|out| Some(out.id) == id);
        let Some(out) = before.at.map(|at| &line.out[at]) else { return before };
        let live = |(place, serial): &&(u32, u32)| {
            host.flights.get(*place).is_some_and(|flight| flight.serial == *serial && !flight.over)
        };
        before.live = out.flights.iter().filter(live).copied().collect();
        let waits = !before.live.is_empty() || out.question.is_none();
        // Whose it was is not known, and that lookup may be over.
        let unknown = before.live.len() < out.flights.len();
        let same = match truth {
            Truth::Genuine(version) => {
                self.book.said(version).map(|said| said.facts.question) == out.question
            }
            Truth::Probe => out.question.is_none(),
            Truth::Broken => false,
        };
        before.must = match (same, waits) {
            // On a connection the answer to a lookup that is over is taken, whatever it says.
            (_, false) if !before.udp => Must::Either,
            (_, true) if !before.udp && (unknown || host.unsure) => Must::Either,
            (false, _) => Must::Reject,
            (true, false) => Must::Either,
            // On a shared socket, an attempt may have been given up for a newer one.
            (true, true) if before.udp && self.may_share(worker) => Must::Either,
            (true, true) => Must::Accept,
        };
        before
    }

    pub(crate) fn check_response(
        &mut self,
        worker: usize,
        path: Path,
        bytes: &[u8],
        truth: Truth,
        before: &Before,
        accepted: Result<(), Rejection>,
    ) -> Checked {
        let (noted, several) = self.cache.take_noted();
        ensure(!several, "keeping/what", || "one answer was kept more than once".to_owned())?;
        let context = || format!("worker {worker}, {path:?}, {truth:?} ({})", message::describe(bytes));
        let unsure = self.workers[worker].unsure;
        match accepted {
            Ok(()) => {
                // A query that was given up before it left has an ID too; on a connection its answer is taken as a late one.
                let late = self.workers[worker].forwarder.stats().replies_late.get() > before.late;
                let unseen = before.at.is_none() && !before.udp && late && noted.is_none();
                ensure(before.must != Must::Reject || unseen, "forgery/accepted", || {
                    format!("{} was accepted", context())
                })?;
                self.accepted(worker, path, truth, before, noted)
            }
            Err(rejection) => {
                let closed = rejection == Rejection::UnknownPath && !before.fresh;
                ensure(before.must != Must::Accept || closed || unsure, "forgery/refused", || {
                    format!("{} was refused: {rejection:?}", context())
                })?;
                let lookups = self.workers[worker].forwarder.lookups();
                let counted = self.rejected(worker) == before.rejected + 1;
                let harmless = lookups == before.lookups || !before.udp;
                let unharmed = self.downs(worker) == before.downs;
                ensure(noted.is_none() && counted && harmless && unharmed, "forgery/effect", || {
                    format!(
                        "{} was refused ({rejection:?}) and left something behind: lookups {} -> {lookups}, \
                         kept {noted:?}, counted {counted}, health untouched {unharmed}",
                        context(),
                        before.lookups
                    )
                })?;
                self.excuse_forged(worker, path);
                let host = &mut self.workers[worker];
                if !before.udp {
                    host.note_refusals(path);
                }
                host.counted.rejected += 1;
                host.fresh = false;
                // On a connection, whoever speaks nonsense is left, and a lookup may have run out of ways.
                host.unsure |= lookups < before.lookups;
                Ok(())
            }
        }
    }

    /// The model follows an answer that was accepted.
    fn accepted(
        &mut self,
        worker: usize,
        path: Path,
        truth: Truth,
        before: &Before,
        noted: Option<Noted>,
    ) -> Checked {
        let host = &mut self.workers[worker];
        host.heard_at = host.step;
        host.heard_in_turn = true;
        host.fresh = false;
        let out = match (host.line_mut(path), before.at) {
            (Some(line), Some(at)) => Some(line.out.remove(at)),
            _ => None,
        };
        let ended = before.lookups - host.forwarder.lookups().min(before.lookups);
        let Truth::Genuine(version) = truth else {
            // A probe's answer may bring the end of what was silent, and of what waited there; a broken one ends nothing.
            ensure(noted.is_none(), "forgery/effect", || format!("{truth:?} left {noted:?} in the cache"))?;
            host.unsure |= ended > 0;
            return Ok(());
        };
        let Some(said) = self.book.said(version) else { return Ok(()) };
        let (rcode, truncated, has_opt) = (said.facts.rcode, said.facts.truncated, said.facts.opt.is_some());
        let edns = out.as_ref().is_some_and(|out| out.edns);
        if truncated || (rcode == 1 && edns && !has_opt) {
            self.excuse(worker, &before.live);
        }
        let host = &mut self.workers[worker];
        if truncated {
            ensure(noted.is_none(), "keeping/truncated", || {
                format!("answer {version} is truncated and was kept ({noted:?})")
            })?;
            host.unsure |= ended > 0;
            let certain = out.is_some_and(|out| out.flights.len() == 1);
            for (place, _) in &before.live {
                if let Some(flight) = host.flights.get_mut(*place) {
                    flight.truncated = match flight.truncated {
                        Some(true) => Some(true),
                        _ => certain.then_some(true),
                    };
                }
            }
            return Ok(());
        }
        // RFC 6891 §7: perhaps it does not know EDNS, and is asked again without.
        let goes_on = before.live.is_empty() || (rcode == 1 && edns && !has_opt);
        if goes_on {
            host.unsure |= ended > 0;
            return ensure(noted.is_none(), "keeping/what", || {
                format!("answer {version} ends nothing, and {noted:?} was kept")
            });
        }
        let several = out.is_some_and(|out| out.flights.len() > 1);
        let fails_over = before.live.iter().any(|(place, _)| self.fails_over(worker, *place, rcode));
        ensure(ended > 0 || several || fails_over, "progress/ignored", || {
            format!("worker {worker} took answer {version} and its lookup goes on waiting")
        })?;
        // One that ends brings signs of life, and others with it may end for want of ways.
        self.workers[worker].unsure |= ended > 1;
        if ended == 0 {
            return ensure(noted.is_none(), "keeping/what", || {
                format!("answer {version} ended nothing, and {noted:?} was kept")
            });
        }
        let uncertain = several || (fails_over && ended > 1);
        self.lookup_answered(worker, version, rcode, uncertain, before, noted.as_ref())
    }

    /// An answer ended a lookup; which one shows by what is known of them, or else by who gets answers.
    fn lookup_answered(
        &mut self,
        worker: usize,
        version: Version,
        rcode: u16,
        uncertain: bool,
        before: &Before,
        noted: Option<&Noted>,
    ) -> Checked {
        let host = &self.workers[worker];
        let by_key = |(place, _): &&(u32, u32)| {
            let flight = host.flights.get(*place);
            noted.is_none_or(|noted| flight.is_some_and(|flight| flight.key.do_bit == noted.do_bit))
        };
        let mut likely: SmallVec<[(u32, u32); 2]> = before.live.iter().filter(by_key).copied().collect();
        if likely.is_empty() {
            likely.clone_from(&before.live);
        }
        let Some((first, _)) = likely.first().copied() else {
            return fail("machine/lookup", format!("answer {version} ended a lookup that nobody knows"));
        };
        let Some(flight) = host.flights.get(first) else { return Ok(()) };
        let (key, zone) = (flight.key, flight.zone);
        let ttl_s = self.check_kept(worker, &key, zone, version, noted)?;
        let now = self.clock();
        let host = &mut self.workers[worker];
        if rcode == 0 || rcode == 3 {
            host.good_at[zone] = host.step;
        }
        for (place, _) in &likely {
            if let Some(flight) = host.flights.get_mut(*place) {
                flight.accepted.push((version, ttl_s));
            }
        }
        match likely[..] {
            [(only, _)] if !uncertain || noted.is_some() => host.flights.finish(only),
            _ => {
                host.unsure = true;
                host.tentative.extend(likely.iter().map(|(place, _)| *place));
            }
        }
        if rcode == Rcode::REFUSED.0 && key.rd {
            let failed = Failed { at: now, step: host.step, own: false, clean: likely.len() == 1 };
            for (place, _) in &likely {
                if let Some(flight) = host.flights.get(*place) {
                    host.failed.insert(flight.key, failed);
                }
            }
        }
        Ok(())
    }

    /// Whether `failover` sends a lookup on.
    fn fails_over(&self, worker: usize, place: u32, rcode: u16) -> bool {
        let host = &self.workers[worker];
        let zone = host.flights.get(place).map(|flight| &host.plan.config.zones[flight.zone]);
        zone.and_then(|zone| zone.forward.as_ref())
            .is_some_and(|forward| forward.failover.contains(&Rcode(rcode)))
    }

    fn rejected(&self, worker: usize) -> u64 {
        self.workers[worker].forwarder.stats().rejected.iter().map(Counter::get).sum()
    }

    /// Which upstreams a worker holds to be down, one bit each.
    fn downs(&self, worker: usize) -> u64 {
        let stats = self.workers[worker].forwarder.stats();
        stats.upstreams.iter().fold(0, |bits, upstream| bits << 1 | upstream.down.get())
    }

    /// A message leaves for an upstream: what is drawn must not follow from what was drawn before, and belong to one lookup.
    pub(crate) fn check_sent(&mut self, worker: usize, path: Path, len: usize) -> Checked {
        self.adopt_orphans(worker);
        let out = std::mem::take(&mut self.out);
        let checked = self.check_message(worker, path, &out[..len]);
        self.out = out;
        checked
    }

    fn check_message(&mut self, worker: usize, path: Path, bytes: &[u8]) -> Checked {
        let context = || format!("worker {worker} sends {}", message::describe(bytes));
        let Some(asked) = message::read_asked(bytes) else {
            return fail("effort/query", format!("{}: not a question with at most an OPT", context()));
        };
        let probe = asked.question == [0, 0, 2, 0, 1];
        let question = self.space.find(asked.question);
        ensure(probe || question.is_some(), "effort/query", || {
            format!("{}: nobody asked {:02x?}", context(), &bytes[HEADER..])
        })?;
        let flights = match question {
            Some(question) => {
                self.workers[worker].counted.bytes_sent += bytes.len() as u64;
                self.check_asked(worker, question, &asked)?
            }
            None => SmallVec::new(),
        };
        let single = self.single_use(worker);
        let host = &mut self.workers[worker];
        let previous = std::mem::replace(&mut host.last_id, asked.id);
        self.luck.draws += 1;
        self.luck.next_id += u32::from(asked.id == previous.wrapping_add(1));
        let limits = host.plan.config.limits;
        let Some(line) = host.line_mut(path) else {
            return fail("machine/path", format!("{} on {path:?}, which is not open", context()));
        };
        ensure(line.connected, "machine/path", || {
            format!("{} on {path:?} before it is connected", context())
        })?;
        ensure(line.out.iter().all(|out| out.id != asked.id), "forgery/ids", || {
            format!("{}: its ID is out on this path already", context())
        })?;
        // Nothing gets lost on a connection: to ask there twice is a waste.
        let udp = line.transport == Transport::Udp;
        let again = |out: &crate::host::OutQuery| flights.len() == 1 && out.flights == flights && !probe;
        ensure(udp || !line.out.iter().any(again), "effort/twice", || {
            format!("{}: the same lookup's question is out on this connection already", context())
        })?;
        line.sent += 1;
        ensure(!udp || line.sent <= if single { 1 } else { 64 }, "forgery/ports", || {
            format!("{}: query number {} from one port (limits {limits:?})", context(), line.sent)
        })?;
        let out = crate::host::OutQuery {
            id: asked.id,
            id_before: previous,
            question,
            edns: asked.opt.is_some(),
            guessed: false,
            flights,
        };
        line.out.push(out);
        ensure(line.out.len() <= 256, "effort/bounds", || {
            format!("{}: 257 queries out on a path", context())
        })?;
        host.counted.sent += 1;
        self.luck.check()
    }

    /// Whether UDP sockets may have served for more than one query lately.
    fn may_share(&self, worker: usize) -> bool {
        let host = &self.workers[worker];
        let rate = host.counted.sent_per_second.iter().sum::<u32>();
        let limit = host.plan.config.limits.udp_single_rate_max;
        // A low limit is passed by queries that find no socket, too.
        rate > limit || self.has(Hazard::SharedSockets)
    }

    /// Counts a message; whether each UDP query has a socket of its own at this rate.
    fn single_use(&mut self, worker: usize) -> bool {
        let second = self.now / crate::world::SECOND;
        let host = &mut self.workers[worker];
        let counted = &mut host.counted;
        if counted.second != second {
            // The core's window and the one before reach into three of these seconds.
            let [_, before, last] = counted.sent_per_second;
            counted.sent_per_second = match second - counted.second {
                1 => [before, last, 0],
                2 => [last, 0, 0],
                _ => [0; 3],
            };
            counted.second = second;
        }
        counted.sent_per_second[2] += 1;
        !self.may_share(worker)
    }
}
