//! Checks 1-3, 6 and 7: every byte of every answer.
//!
//! The model says which answer a client must get; this file says what that looks like for this client, and compares.
//!
//! * RFC 5452 §9.1: an answer matches the address, ID and question of its query. RFC 4343 §3: the spelling is the client's.
//! * RFC 2181 §8, RFC 1035 §3.2.1: a cached TTL counts down. RFC 2181 §5.2: one TTL for the set.
//! * RFC 2181 §9: what does not fit is left out at a record's end, with TC unless it was additional.
//! * RFC 6891 §6.1.1 and §7: an OPT if and only if the client sent one; DO is copied. §6.2.3: sizes below 512 mean 512.
//! * RFC 6840 §5.7: AD for those who asked with AD or DO. RFC 4035 §3.2.2: CD is copied.

use crate::checks::attempts::RESENDS_MAX;
use crate::checks::effort::CONNECTS_MAX;
use crate::checks::machine::{LOOKUP_TIME_ALL_DOWN, deadline};
use crate::clients::{Ask, FIRST_PORT};
use crate::failure::{Checked, ensure, fail};
use crate::message::{self, HEADER, OPT, OPT_WITH_ERROR, flag, u16_at, u32_at};
use crate::model::{Failed, Key, Waiter};
use crate::questions::QuestionId;
use crate::said::{Book, Said, Version};
use crate::world::World;
use nodens_core::cache::Kind;
use nodens_core::{ClientAddr, Instant};

/// The size we advertise where no zone says otherwise (RFC 9715).
const OUR_SIZE: u16 = 1232;
/// Extended error "Cached Error" (RFC 8914 §4.14).
const CACHED_ERROR: u16 = 13;
/// Marks a wait for a lookup that a new configuration has ended; the client is asked for again in the same turn.
pub(crate) const ORPHAN: u32 = u32::MAX;

/// What a client must be told.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Says {
    /// An answer from the book, with this TTL; `None`: the TTLs are the upstream's.
    Book { version: Version, ttl_s: Option<u32>, cached_failure: bool },
    /// No records, one of our own RCODEs.
    Local { rcode: u16, error: Option<u16> },
    /// The answer exists over TCP only, and TCP did not work: an empty answer with TC.
    Truncated,
}

/// An answer as it must look.
struct Wanted<'a> {
    flags: u16,
    rcode: u16,
    /// Records that are left, per section.
    counts: [u16; 3],
    body: &'a [u8],
    said: Option<&'a Said>,
    ttl_s: Option<u32>,
    error: Option<u16>,
}

impl World {
    /// Compares an answer with what it must be. `zone` is the place of the question's zone, if it has one.
    pub(crate) fn check_answer(
        &self,
        worker: usize,
        number: u32,
        zone: Option<usize>,
        says: Says,
        len: usize,
    ) -> Checked {
        let ask = &self.asks[number as usize];
        let bytes = &self.out[..len];
        let config = &self.workers[worker].plan.config;
        let our_size = zone.map_or(OUR_SIZE, |zone| config.zones[zone].udp_size_max);
        let context = || {
            let text = ask.question.map(|question| self.space.text(question)).unwrap_or_default();
            format!("query {number} for {text} at worker {worker} got {}", message::describe(bytes))
        };
        check_frame(ask, bytes, &context)?;
        let len_max = len_max(ask, our_size);
        ensure(len <= len_max, "answers/size", || {
            format!("{}: {len} bytes, the client takes {len_max}", context())
        })?;
        let wanted = wanted(&self.book, ask, says, len_max, config.trust_ad);
        check_flags(ask, &wanted, bytes, &context)?;
        check_opt(ask, &wanted, our_size, bytes, &context)?;
        self.check_records(&wanted, says, bytes, ask.question_end, &context)
    }

    fn check_records(
        &self,
        wanted: &Wanted<'_>,
        says: Says,
        bytes: &[u8],
        start: usize,
        context: &impl Fn() -> String,
    ) -> Checked {
        let got = &bytes[start..];
        let counts = [6, 8, 10].map(|at| u16_at(bytes, at).unwrap_or(0));
        let whole = |text: &str| {
            format!(
                "{}: {text}; expected {says:?} with counts {:?}, got {counts:?}",
                context(),
                wanted.counts
            )
        };
        let Some(got) = got.get(..wanted.body.len()) else {
            return fail("answers/data", whole("records are missing"));
        };
        let marks = wanted.said.map_or(&[][..], |said| self.book.marks(said));
        let mut from = 0;
        let all = wanted.counts.iter().map(|count| usize::from(*count)).sum();
        for mark in &marks[..all] {
            let at = usize::from(mark.ttl_at);
            let end = usize::from(mark.end);
            ensure(
                got[from..at] == wanted.body[from..at] && got[at + 4..end] == wanted.body[at + 4..end],
                "answers/data",
                || whole(&self.whose(bytes)),
            )?;
            let ttl = u32_at(got, at);
            let right = wanted.ttl_s.or(u32_at(wanted.body, at));
            ensure(ttl == right, "answers/ttl", || whole(&format!("TTL {ttl:?}, right is {right:?}")))?;
            from = end;
        }
        Ok(())
    }

    /// Whose data an answer carries, for people.
    fn whose(&self, bytes: &[u8]) -> String {
        let records = message::read_records(bytes).unwrap_or_default();
        let version = records.iter().find_map(|record| {
            let data = match record.rtype {
                6 => record.data.get(2..6),
                _ => record.data.windows(4).rev().find(|_| record.data.len() >= 4),
            }?;
            let number = u32_at(data, 0)?;
            Some(if record.rtype == 6 { number } else { number >> 8 })
        });
        match version.and_then(|version| Some((version, self.book.said(version)?))) {
            Some((version, said)) => format!(
                "the data may be answer {version}, said by upstream {} to {} at {:.3} s with DO={:?} CD={}",
                said.facts.upstream,
                self.space.text(said.facts.question),
                said.facts.at as f64 / 1e9,
                said.facts.asked_do,
                said.facts.asked_cd
            ),
            None => "the data is no upstream's".to_owned(),
        }
    }

    /// An answer that was waited for leaves for a client.
    pub(crate) fn answer_leaves(&mut self, worker: usize, client: ClientAddr, len: usize) -> Checked {
        let Some(number) = self.find_ask(worker, &client, len) else {
            return fail(
                "answers/to-whom",
                format!(
                    "worker {worker} answers {} who does not wait for it: {}",
                    client.peer,
                    message::describe(&self.out[..len])
                ),
            );
        };
        self.note_answer(worker, number, len);
        let ask = &mut self.asks[number as usize];
        let Some(at) = ask.waits.iter().position(|(at, _)| *at == worker) else { return Ok(()) };
        let (_, place) = ask.waits.remove(at);
        let rcode = self.out[3] & 0xf;
        self.workers[worker].counted.answered(rcode);
        if place == ORPHAN {
            return self.check_orphan(worker, number, len);
        }
        let now = self.clock();
        let host = &mut self.workers[worker];
        let Some(flight) = host.flights.get_mut(place) else {
            return fail("machine/model", format!("query {number} waits for a lookup that is forgotten"));
        };
        let (key, zone, over) = (flight.key, flight.zone, flight.over);
        let (started, was_hopeless) = (flight.started, flight.was_hopeless);
        let (exhausted_before, told) = (flight.exhausted_before, std::mem::replace(&mut flight.told, true));
        let refusals = flight.refusals + flight.ended_under_it.saturating_sub(RESENDS_MAX);
        let early = now < deadline(flight);
        let (accepted, truncated) = (flight.accepted.clone(), flight.truncated);
        if let Some(at) = flight.waiters.iter().position(|waiter| waiter.ask == number) {
            flight.waiters.remove(at);
        }
        let config = &host.plan.config.zones[zone];
        host.counted.query_events += u64::from(config.log_queries);
        host.counted.failed(!told && accepted.is_empty() && config.log_errors, true);
        if !over {
            host.flights.waiting -= 1;
            host.flights.finish(place);
        }
        let tcp = client.connection.is_some();
        let mut checked = Ok(());
        for (version, ttl_s) in &accepted {
            let says = Says::Book { version: *version, ttl_s: *ttl_s, cached_failure: false };
            checked = self.check_answer(worker, number, Some(zone), says, len);
            if checked.is_ok() {
                break;
            }
        }
        if !accepted.is_empty() {
            return checked;
        }
        let has_tc = self.out[2] & (flag::TC >> 8) as u8 != 0;
        if truncated.unwrap_or(has_tc) && !tcp {
            return self.check_answer(worker, number, Some(zone), Says::Truncated, len);
        }
        if key.rd && truncated != Some(true) {
            self.remember_failure(worker, key, now, truncated.is_some());
        }
        // What is known to be down in this turn is told after its answers.
        let host = &self.workers[worker];
        let down = self.all_down(worker, zone) || host.heard_in_turn || was_hopeless;
        let early = early && !(down && now >= started + LOOKUP_TIME_ALL_DOWN);
        // A machine without sockets cannot even be refused.
        let starved = self.workers[worker].exhausted() > exhausted_before;
        self.check_given_up(worker, number, zone, early && !starved, refusals)?;
        // RFC 8914: "No Reachable Authority" or "Network Error".
        let error = extended_error(&self.out[..len]).filter(|error| [22, 23].contains(error));
        let says = Says::Local { rcode: 2, error: error.or(Some(22)) };
        self.check_answer(worker, number, Some(zone), says, len)
    }

    /// A lookup that fails has used its time, or every attempt that it may make was refused (CoreDNS' `max_connect_attempts`).
    fn check_given_up(&self, worker: usize, number: u32, zone: usize, early: bool, refusals: u32) -> Checked {
        let host = &self.workers[worker];
        let Some(forward) = &host.plan.config.zones[zone].forward else { return Ok(()) };
        let most = match forward.max_connect_attempts {
            None => 2 * forward.upstreams.len() as u32,
            Some(0) => CONNECTS_MAX,
            Some(attempts) => attempts.min(CONNECTS_MAX),
        };
        ensure(!early || refusals >= most, "progress/given-up", || {
            format!(
                "query {number} failed at worker {worker} before its time, {refusals} of {most} attempts refused"
            )
        })
    }

    /// The lookup for a key failed at this worker; `certain`: the core remembers that.
    fn remember_failure(&mut self, worker: usize, key: Key, now: Instant, certain: bool) {
        let host = &mut self.workers[worker];
        let clean = certain && !host.heard_in_turn;
        host.failed.insert(key, Failed { at: now, step: host.step, own: true, clean });
    }

    /// An answer for a client that waited when a new configuration came: from the cache, or a refusal under the new rules.
    fn check_orphan(&mut self, worker: usize, number: u32, len: usize) -> Checked {
        let now = self.clock();
        self.workers[worker].orphans.retain(|waiter| waiter.ask != number);
        let Some(question) = self.asks[number as usize].question else { return Ok(()) };
        let plan = self.workers[worker].plan.clone();
        let zone = plan.zone_of(&self.space, question);
        let logs = zone.map(|zone| (plan.config.zones[zone].log_queries, plan.config.zones[zone].log_errors));
        let (logs_query, logs_failure) = logs.unwrap_or_default();
        self.workers[worker].counted.query_events += u64::from(logs_query);
        let host = &self.workers[worker];
        let Some(zone_at) = zone.filter(|_| plan.takes(&self.space, question)) else {
            return self.check_answer(worker, number, zone, Says::Local { rcode: 5, error: None }, len);
        };
        let key = self.key_of(worker, number, question, zone_at);
        let kept = self.kept_answer(worker, &key, question, zone_at, now);
        let forward = plan.config.zones[zone_at].forward.as_ref();
        let limits = &plan.config.limits;
        let shed = limits.waiters_max < 1024 || limits.lookups_max < 1024;
        let limited = forward.is_some_and(|forward| forward.max_concurrent > 0);
        let refused = match self.out[3] & 0xf {
            2 => shed || host.unsure,
            5 => limited,
            _ => false,
        };
        // What the cache had to make room for is asked for again, and may be refused.
        if let Some(says) = kept {
            let checked = self.check_answer(worker, number, zone, says, len);
            if checked.is_ok() || !(self.may_forget && refused) {
                self.count_hit(worker, &key);
                return checked;
            }
        }
        let says = match self.out[3] & 0xf {
            5 if limited => Says::Local { rcode: 5, error: None },
            // It was asked again, and this machine could not; or nobody else may wait.
            2 if shed || self.workers[worker].unsure => {
                self.workers[worker].counted.failed(logs_failure, false);
                if self.workers[worker].unsure {
                    self.remember_failure(worker, key, now, !shed);
                }
                let error = extended_error(&self.out[..len]).filter(|error| shed && *error == 14);
                Says::Local {
                    rcode: 2,
                    error: error.or(Some(if self.workers[worker].unsure { 23 } else { 14 })),
                }
            }
            rcode => {
                return fail(
                    "answers/reload",
                    format!("query {number} was answered with RCODE {rcode} by a reload for no reason"),
                );
            }
        };
        self.check_answer(worker, number, zone, says, len)
    }

    /// A query was answered from the cache.
    pub(crate) fn count_hit(&mut self, worker: usize, key: &Key) {
        let Some(kept) = self.kept.get(&Key { rd: true, ..*key }) else { return };
        self.workers[worker].counted.hits[kept.kind.class() as usize] += 1;
    }

    /// Whether an answer is the one that is kept for other DO and CD bits than were asked with.
    pub(crate) fn is_for_others(
        &self,
        worker: usize,
        number: u32,
        question: QuestionId,
        key: &Key,
        zone: usize,
        len: usize,
    ) -> bool {
        let bits = [(false, false), (false, true), (true, false), (true, true)];
        let others = bits.iter().filter(|bits| **bits != (key.do_bit, key.cd));
        others.map(|(do_bit, cd)| Key { do_bit: *do_bit, cd: *cd, ..*key }).any(|other| {
            let kept = self.kept_answer(worker, &other, question, zone, self.clock());
            kept.is_some_and(|says| self.check_answer(worker, number, Some(zone), says, len).is_ok())
        })
    }

    /// What the cache must say now, if the model knows something fresh.
    pub(crate) fn kept_answer(
        &self,
        worker: usize,
        key: &Key,
        question: QuestionId,
        zone: usize,
        now: Instant,
    ) -> Option<Says> {
        self.workers[worker].plan.cache_rules(&self.space, question, zone)?;
        let kept = self.kept.get(&Key { rd: true, ..*key }).filter(|kept| kept.expires > now)?;
        let ttl_s = Some(kept.ttl_left_s(now));
        Some(Says::Book { version: kept.version, ttl_s, cached_failure: kept.kind == Kind::Failure })
    }

    pub(crate) fn key_of(&self, worker: usize, number: u32, question: QuestionId, zone: usize) -> Key {
        let ask = &self.asks[number as usize];
        Key {
            zone: self.workers[worker].plan.config.zones[zone].id,
            question,
            do_bit: ask.do_bit(),
            cd: ask.flags & flag::CD != 0,
            rd: ask.flags & flag::RD != 0,
        }
    }

    /// Which waiting query an answer belongs to: same client, ID and question; the best match, so that what differs is named by
    /// the check that it breaks.
    fn find_ask(&self, worker: usize, client: &ClientAddr, len: usize) -> Option<u32> {
        let bytes = &self.out[..len];
        let id = u16_at(bytes, 0)?;
        let end = message::question_end(bytes)?;
        let question = &bytes[HEADER..end];
        let socket = self.sockets.get(usize::from(client.peer.port().checked_sub(FIRST_PORT)?))?;
        let flags = u16_at(bytes, 2)?;
        let waits = |number: &&u32| {
            let ask = &self.asks[**number as usize];
            ask.client == *client && ask.id == id && ask.waits.iter().any(|(at, _)| *at == worker)
        };
        let at =
            |opt_len: usize| bytes.get(end.max(len.saturating_sub(opt_len))..).and_then(message::read_opt);
        let do_bit = at(OPT).or_else(|| at(OPT_WITH_ERROR)).map(|opt| opt.do_bit);
        let score = |number: &&u32| {
            let ask = &self.asks[**number as usize];
            let both = flag::RD | flag::CD;
            u32::from(ask.question_bytes().eq_ignore_ascii_case(question)) * 32
                + u32::from(ask.question_bytes() == question) * 16
                + u32::from((ask.flags ^ flags) & both == 0) * 8
                + u32::from(do_bit == ask.opt.map(|opt| opt.do_bit)) * 4
                + u32::from(self.is_over(worker, ask)) * 2
                + u32::from((ask.flags ^ flags) & flag::AD == 0)
        };
        socket
            .asks
            .iter()
            .filter(waits)
            .max_by_key(|number| (score(number), std::cmp::Reverse(**number)))
            .copied()
    }

    fn is_over(&self, worker: usize, ask: &Ask) -> bool {
        let flights = &self.workers[worker].flights;
        ask.waits
            .iter()
            .filter(|(at, _)| *at == worker)
            .any(|(_, place)| flights.get(*place).is_some_and(|flight| flight.over))
    }

    /// Clients that waited when a new configuration came and got no answer at once: they wait for lookups again.
    pub(crate) fn adopt_orphans(&mut self, worker: usize) {
        for waiter in std::mem::take(&mut self.workers[worker].orphans) {
            let Some(question) = self.asks[waiter.ask as usize].question else { continue };
            let Some(zone) = self.workers[worker].plan.zone_of(&self.space, question) else { continue };
            let key = self.key_of(worker, waiter.ask, question, zone);
            let exhausted = self.workers[worker].counted.exhausted();
            let place = self.wait(worker, key, zone, waiter, false, exhausted);
            let host = &mut self.workers[worker];
            if let Some(flight) = host.flights.get_mut(place) {
                flight.refusals += host.refused_in_turn;
            }
            if let Some(wait) =
                self.asks[waiter.ask as usize].waits.iter_mut().find(|wait| **wait == (worker, ORPHAN))
            {
                wait.1 = place;
            }
        }
    }

    /// Puts a client into the lookup for a key, or begins one; `exhausted`: how often the worker was out of paths before.
    pub(crate) fn wait(
        &mut self,
        worker: usize,
        key: Key,
        zone: usize,
        waiter: Waiter,
        hopeless: bool,
        exhausted: u64,
    ) -> u32 {
        let bytes_max = (self.asks[waiter.ask as usize].question_end + OPT) as u64;
        let host = &mut self.workers[worker];
        if let Some(place) = host.flights.find(&key) {
            host.flights.join(place, waiter);
            return place;
        }
        let place = host.flights.begin(key, zone, waiter, hopeless);
        if let Some(flight) = host.flights.get_mut(place) {
            flight.bytes_max = bytes_max;
            flight.exhausted_before = exhausted;
        }
        let forward = host.plan.config.zones[zone].forward.as_ref();
        host.counted.lookup_begun(forward.map_or(1, |forward| forward.upstreams.len()), bytes_max);
        place
    }
}

/// What a client can take, in bytes.
fn len_max(ask: &Ask, our_size: u16) -> usize {
    if ask.client.connection.is_some() {
        return usize::from(u16::MAX);
    }
    usize::from(ask.opt.map_or(512, |opt| opt.size.max(512)).min(our_size))
}

/// ID, QR, opcode and question.
fn check_frame(ask: &Ask, bytes: &[u8], context: &impl Fn() -> String) -> Checked {
    let flags = u16_at(bytes, 2).unwrap_or(0);
    ensure(bytes.len() >= HEADER && u16_at(bytes, 0) == Some(ask.id), "answers/id", || {
        format!("{}: the query's ID is {:#06x}", context(), ask.id)
    })?;
    ensure(flags & (flag::QR | flag::OPCODE | flag::AA) == flag::QR, "answers/header", || {
        format!("{}: flags {flags:#06x}", context())
    })?;
    let question = bytes.get(HEADER..ask.question_end);
    let same = u16_at(bytes, 4) == Some(1) && question == Some(ask.question_bytes());
    let same_but_case = || question.is_some_and(|got| got.eq_ignore_ascii_case(ask.question_bytes()));
    ensure(same, if same_but_case() { "answers/spelling" } else { "answers/question" }, || {
        format!("{}: the client asked {:02x?}", context(), ask.question_bytes())
    })
}

/// What the answer must look like for this client.
fn wanted<'a>(book: &'a Book, ask: &Ask, says: Says, len_max: usize, trust_ad: bool) -> Wanted<'a> {
    let edns = ask.opt.is_some();
    let mut flags = ask.flags & (flag::RD | flag::CD);
    let (version, ttl_s, cached_failure) = match says {
        Says::Book { version, ttl_s, cached_failure } => (version, ttl_s, cached_failure),
        Says::Local { rcode, error } => {
            return Wanted { flags, rcode, counts: [0; 3], body: &[], said: None, ttl_s: None, error };
        }
        Says::Truncated => {
            flags |= flag::TC | flag::RA;
            return Wanted {
                flags,
                rcode: 0,
                counts: [0; 3],
                body: &[],
                said: None,
                ttl_s: None,
                error: None,
            };
        }
    };
    let Some(said) = book.said(version) else {
        return Wanted { flags, rcode: 2, counts: [0; 3], body: &[], said: None, ttl_s: None, error: None };
    };
    let facts = &said.facts;
    let mut error = facts.opt.and_then(|opt| opt.error);
    if cached_failure {
        error.get_or_insert(CACHED_ERROR);
    }
    let opt_len = match error {
        _ if !edns => 0,
        None => OPT,
        Some(_) => OPT_WITH_ERROR,
    };
    let room = len_max.saturating_sub(ask.question_end + opt_len);
    let body = book.body(said);
    let fits = book.marks(said).iter().take_while(|mark| usize::from(mark.end) <= room).count();
    let mut counts = facts.counts;
    let mut left = fits as u16;
    for count in &mut counts {
        *count = (*count).min(left);
        left -= *count;
    }
    let end = fits.checked_sub(1).map_or(0, |last| usize::from(book.marks(said)[last].end));
    flags |= if counts[..2] != facts.counts[..2] { flag::TC } else { 0 };
    flags |= facts.flags & flag::RA;
    // A forwarder offers recursion; glibc takes an empty answer without RA for a lame server's.
    flags |= if facts.rcode == 0 && facts.counts[0] == 0 { flag::RA } else { 0 };
    if trust_ad && (ask.do_bit() || ask.flags & flag::AD != 0) {
        flags |= facts.flags & flag::AD;
    }
    // Without an OPT there is no place for the upper bits of an RCODE.
    let rcode = if facts.rcode > 15 && !edns { 2 } else { facts.rcode };
    Wanted { flags, rcode, counts, body: &body[..end], said: Some(said), ttl_s, error }
}

fn check_flags(ask: &Ask, wanted: &Wanted<'_>, bytes: &[u8], context: &impl Fn() -> String) -> Checked {
    let flags = u16_at(bytes, 2).unwrap_or(0);
    let differs = (flags ^ wanted.flags) & !(flag::QR | 0xf);
    for (bit, check) in
        [(flag::TC, "answers/truncation"), (flag::AD, "answers/ad"), (flag::CD, "answers/mixed")]
    {
        ensure(differs & bit == 0, check, || {
            format!("{}: bit {bit:#06x} must be {}", context(), wanted.flags & bit != 0)
        })?;
    }
    ensure(differs == 0, "answers/header", || {
        format!("{}: flags {flags:#06x}, expected {:#06x}, query {:#06x}", context(), wanted.flags, ask.flags)
    })?;
    ensure(flags & 0xf == wanted.rcode & 0xf, "answers/rcode", || {
        format!("{}: the RCODE must be {}", context(), wanted.rcode)
    })
}

fn check_opt(
    ask: &Ask,
    wanted: &Wanted<'_>,
    our_size: u16,
    bytes: &[u8],
    context: &impl Fn() -> String,
) -> Checked {
    let records = wanted.body.len();
    let rest = bytes.get(ask.question_end + records..).unwrap_or_default();
    let additionals = wanted.counts[2] + u16::from(ask.opt.is_some());
    let counts = [6, 8, 10].map(|at| u16_at(bytes, at).unwrap_or(0));
    ensure(
        counts == [wanted.counts[0], wanted.counts[1], additionals],
        if counts[2] == additionals { "answers/data" } else { "answers/opt" },
        || format!("{}: counts {counts:?}, expected {:?} and {additionals}", context(), wanted.counts),
    )?;
    let Some(sent) = ask.opt else {
        return ensure(rest.is_empty(), "answers/opt", || {
            format!("{}: {} bytes more than expected and the client sent no OPT", context(), rest.len())
        });
    };
    let expected = message::Opt {
        rcode_high: (wanted.rcode >> 4) as u8,
        error: wanted.error,
        ..message::Opt::plain(our_size, sent.do_bit)
    };
    let got = message::read_opt(rest);
    ensure(got == Some(expected), "answers/opt", || {
        format!("{}: OPT {got:?}, expected {expected:?}", context())
    })
}

/// The extended error of an answer, if it has one.
pub(crate) fn extended_error(bytes: &[u8]) -> Option<u16> {
    let opt = bytes.len().checked_sub(OPT_WITH_ERROR)?;
    message::read_opt(bytes.get(opt..)?)?.error
}
