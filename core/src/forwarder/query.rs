//! A client's query arrives: answer it, let it join a lookup, or start one.
//!
//! The order of the checks is the order of the cost: bytes, zone, cache, recent failures, lookups under way. A hit ends at
//! the third and has written nothing but the answer, a visited bit and counters.

use super::Forwarder;
use super::attempt::ATTEMPTS_MAX;
use super::lookup::{LOOKUP_TIME_ALL_DOWN, LOOKUP_TIME_MAX, Lookup, Waiter};
use super::route::Found;
use crate::api::{ClientQuery, DropReason, FailureCause, Outcome, Transport};
use crate::cache::{AnswerMeta, AnswerRef, Cache, Class, Key, KeyFields, Kind, ReplyFrame, Ttls, render};
use crate::config::{ForwardRules, UDP_SIZE_DEFAULT, UDP_SIZE_MIN, UpstreamId, UpstreamTransport};
use crate::sim_support::{Fault, Mark, mark, planted};
use crate::stats::{RouteStats, SIZE_BOUNDS, rcode_label, type_label};
use crate::time::Instant;
use crate::upstream::{Wellness, order};
use crate::wire::{
    EDE_CACHED_ERROR, EDE_NO_REACHABLE_AUTHORITY, EDE_NOT_READY, Edns, Flags, HEADER_LEN, Header,
    MESSAGE_LEN_MAX, Name, QueryFault, QueryView, Question, Rcode,
};
use smallvec::{SmallVec, smallvec};

/// The only class that is forwarded. CHAOS would ask the upstream about itself, and nobody else uses another.
const CLASS_IN: u16 = 1;
/// TKEY to MAILA: transactions, transfers and obsolete mail types, none of which can pass through a cache (RFC 5936, RFC 2930).
const META_TYPES: core::ops::RangeInclusive<u16> = 249..=254;

/// The most that `max_connect_attempts` can ask for: at one in 20 ms they fill the client's patience.
const CONNECTS_MAX: u32 = 64;

/// A query with what has been found out about it.
struct Asked<'a> {
    query: &'a ClientQuery<'a>,
    view: QueryView<'a>,
    /// Place in the statistics; one past the last route means that no zone matched.
    route: usize,
    frame: ReplyFrame<'a>,
    now: Instant,
    /// When the client asked: now, but for what a reload asks again.
    since: Instant,
    query_len: u16,
}

impl<C: Cache> Forwarder<C> {
    pub(super) fn answer_or_forward(
        &mut self,
        now: Instant,
        query: &ClientQuery<'_>,
        out: &mut [u8],
    ) -> Outcome {
        let view = match QueryView::read(query.message) {
            Ok(view) => view,
            Err(fault) => return self.answer_fault(query, fault, out),
        };
        let listener = usize::from(query.client.listener.0);
        let found = self.routes[listener].find(view.question.qname(), view.question.qtype);
        let zone = found.and_then(|found| self.config.zones.get(found.zone));
        let udp_size = zone.map_or(UDP_SIZE_DEFAULT, |zone| zone.udp_size_max);
        let frame = self.frame(query, &view.header, view.question.bytes, view.edns, udp_size);
        let route = found.map_or(self.routes[listener].len(), |found| found.route);
        let before = self.asked_before;
        let since = before.map_or(now, |before| before.at);
        let query_len = before.map_or(query.message.len() as u16, |before| before.query_len);
        let asked = Asked { query, view, route, frame, now, since, query_len };
        self.count_query(&asked);
        let answered = match found {
            Some(found) if view.question.qclass == CLASS_IN && !META_TYPES.contains(&view.question.qtype) => {
                self.answer_in_zone(&asked, found, out)
            }
            _ => Answered::Now(respond(Rcode::REFUSED, None, &asked.frame, out)),
        };
        match answered {
            Answered::Now((len, rcode)) => {
                self.count_answer(&asked, found, len, rcode, out);
                Outcome::Answer { len }
            }
            Answered::Later => Outcome::Forward,
            Answered::Never(reason) => self.dropped(reason),
        }
    }

    fn answer_in_zone(&mut self, asked: &Asked<'_>, found: Found, out: &mut [u8]) -> Answered {
        let Asked { view, frame, now, .. } = asked;
        let zone = &self.config.zones[found.zone];
        let fields = KeyFields {
            zone: zone.id,
            do_bit: frame.do_bit == Some(true),
            cd: view.header.flags.has(Flags::CD),
        };
        let key = Key::new(self.cache.hash_keys(), fields, &view.question);
        let Some(forward) = zone.forward.as_ref().filter(|forward| forward.takes(key.qname())) else {
            return Answered::Now(respond(Rcode::REFUSED, None, frame, out));
        };
        let passed_over = planted(Fault::CacheForUdpOnly) && asked.query.client.transport() == Transport::Tcp;
        if zone.cache.as_ref().is_some_and(|rules| rules.covers(key.qname()) && !passed_over)
            && let Some(answer) = self.answer_from_cache(&key, found.zone, frame, *now, out)
        {
            return Answered::Now(answer);
        }
        let rd = view.header.flags.has(Flags::RD);
        if rd && let Some(failure) = self.failures.get(&key, found.zone, *now) {
            mark(Mark::FailureRemembered);
            self.stats.failure_hits.add(1);
            return Answered::Now(respond(failure.rcode, Some(EDE_CACHED_ERROR), frame, out));
        }
        let limits = &self.config.limits;
        let waiters_max =
            if planted(Fault::ShedAtHalf) { limits.waiters_max / 2 } else { limits.waiters_max };
        let too_many_waiters = self.lookups.waiters() >= waiters_max as usize;
        let under_way = self.lookups.find(&key, rd).filter(|_| !planted(Fault::LookupsNotShared));
        if let Some(ticket) = under_way {
            let Some(lookup) = self.lookups.get(ticket) else { return Answered::Later };
            if lookup.has_waiter(&asked.query.client, view.header.id) {
                mark(Mark::RetransmissionDropped);
                return Answered::Never(DropReason::Duplicate);
            }
            let full = too_many_waiters || lookup.waiters.len() >= limits.waiters_per_lookup_max as usize;
            if full && !planted(Fault::WaitersUnbounded) {
                mark(Mark::WaiterShed);
                return self.shed(frame, out);
            }
            let waiter = asked.waiter(Some(&lookup.question));
            self.stats.coalesced.add(1);
            if !planted(Fault::JoinedClientLost) {
                self.lookups.join(ticket, waiter);
            }
            self.lookups.hurry(ticket, (asked.since + LOOKUP_TIME_MAX).max(*now));
            self.stats.waiters.set(self.lookups.waiters() as u64);
            return Answered::Later;
        }
        if forward.max_concurrent > 0 && self.in_flight[found.zone] >= forward.max_concurrent {
            mark(Mark::MaxConcurrentReached);
            self.stats.zones[found.zone].max_concurrent_rejects.add(1);
            return Answered::Now(respond(Rcode::REFUSED, None, frame, out));
        }
        if forward.failfast && self.all_down(&forward.upstreams) {
            mark(Mark::FailedFast);
            self.stats.all_down.add(1);
            return Answered::Now(respond(Rcode::SERVFAIL, Some(EDE_NO_REACHABLE_AUTHORITY), frame, out));
        }
        let too_many_lookups = self.lookups.len() >= limits.lookups_max as usize;
        if too_many_waiters || too_many_lookups || self.is_winding_down {
            mark(Mark::LookupShed);
            return self.shed(frame, out);
        }
        self.start_lookup(asked, key, rd, found.zone);
        Answered::Later
    }

    #[inline]
    fn answer_from_cache(
        &self,
        key: &Key,
        zone: usize,
        frame: &ReplyFrame<'_>,
        now: Instant,
        out: &mut [u8],
    ) -> Option<(usize, Rcode)> {
        let stats = &self.stats.zones[zone];
        stats.cache_requests.add(1);
        let hit = self.cache.get(key, now, |entry| {
            let mut answer = entry.answer;
            if answer.meta.kind == Some(Kind::Failure) {
                answer.meta.extended_error.get_or_insert(EDE_CACHED_ERROR);
            }
            // A fresh entry has lived less than its TTL, so at least a second is left.
            let age_s = if planted(Fault::TtlNeverFalls) { 0 } else { now.seconds_since(entry.stored) };
            let left_s = u64::from(answer.meta.ttl_s).saturating_sub(age_s);
            (render(answer, Ttls::Flat(left_s as u32), frame, out), answer.meta.kind)
        });
        let Some((rendered, kind)) = hit else {
            stats.misses.add(1);
            return None;
        };
        match kind.map(Kind::class) {
            Some(Class::Success) => stats.hits_success.add(1),
            Some(Class::Denial) if planted(Fault::HitsOfOneClass) => stats.hits_success.add(1),
            Some(Class::Denial) | None => stats.hits_denial.add(1),
        }
        self.stats.truncated.add(u64::from(rendered.truncated));
        Some((rendered.len, rendered.rcode))
    }

    fn start_lookup(&mut self, asked: &Asked<'_>, key: Key, rd: bool, zone: usize) {
        let now = asked.now;
        let config = self.config.clone();
        let Some(forward) = config.zones[zone].forward.as_ref() else { return };
        // Whoever has been silent for too long is found out here, before it costs another client a hedge.
        for upstream in &forward.upstreams {
            self.listen_to(now, *upstream);
        }
        let order =
            order(forward.policy, &forward.upstreams, &self.upstreams, &mut self.turns[zone], &mut self.rng);
        let all_down = self.all_down(&order);
        if all_down {
            mark(Mark::AllDownAtStart);
            self.stats.all_down.add(1);
        }
        let ticket = self.lookups.insert(Lookup {
            key,
            rd,
            zone,
            question: asked.frame.question.into(),
            waiters: smallvec![asked.waiter(None)],
            started: asked.since,
            deadline: (asked.since + if all_down { LOOKUP_TIME_ALL_DOWN } else { LOOKUP_TIME_MAX }).max(now),
            next_attempt_at: now,
            order,
            attempts_made: 0,
            attempts_max: if all_down { 1 } else { ATTEMPTS_MAX.max(forward.upstreams.len() as u32) },
            connects_failed: 0,
            connects_max: connects_max(forward),
            resends: 0,
            read_timeout: forward.read_timeout,
            transport: match forward.transport {
                UpstreamTransport::AsClient => asked.query.client.transport(),
                UpstreamTransport::PreferUdp => Transport::Udp,
                UpstreamTransport::ForceTcp => Transport::Tcp,
            },
            out: SmallVec::new(),
            last_cause: FailureCause::TimedOut,
            truncated: false,
            asked_over_tcp: false,
            without_edns: false,
        });
        self.in_flight[zone] += 1;
        self.retry_budget.earn();
        self.stats.lookups.set(self.lookups.len() as u64);
        self.stats.waiters.set(self.lookups.waiters() as u64);
        self.next_attempt(now, ticket);
    }

    fn all_down(&self, upstreams: &[UpstreamId]) -> bool {
        upstreams.iter().all(|id| self.upstreams[usize::from(id.0)].health.wellness() == Wellness::Down)
    }

    fn shed(&self, frame: &ReplyFrame<'_>, out: &mut [u8]) -> Answered {
        self.stats.shed.add(1);
        Answered::Now(respond(Rcode::SERVFAIL, Some(EDE_NOT_READY), frame, out))
    }

    fn frame<'a>(
        &self,
        query: &ClientQuery<'_>,
        header: &Header,
        question: &'a [u8],
        edns: Option<Edns>,
        udp_size: u16,
    ) -> ReplyFrame<'a> {
        ReplyFrame {
            id: header.id,
            query_flags: header.flags,
            question,
            do_bit: edns.map(|edns| edns.do_bit).or(planted(Fault::OptUninvited).then_some(false)),
            udp_size,
            len_max: reply_len_max(query.client.transport(), edns.map_or(0, |edns| edns.udp_size), udp_size),
            trust_ad: self.config.trust_ad,
        }
    }

    /// Answers what could not be read or is not for a cache (semantics.md L13, L20 to L23).
    fn answer_fault(&mut self, query: &ClientQuery<'_>, fault: QueryFault<'_>, out: &mut [u8]) -> Outcome {
        let (header, question, edns, rcode) = match fault {
            QueryFault::Short => return self.dropped(DropReason::Short),
            QueryFault::Response => return self.dropped(DropReason::Response),
            QueryFault::Opcode(header) => (header, None, None, Rcode::NOTIMP),
            QueryFault::Format(header, question) => (header, question, None, Rcode::FORMERR),
            QueryFault::Signed(header, question) => (header, Some(question), None, Rcode::NOTIMP),
            QueryFault::Version(header, question, edns) => {
                (header, Some(question), Some(edns), Rcode::BADVERS)
            }
        };
        let listener = usize::from(query.client.listener.0);
        let stats = &self.stats.routes[listener][self.routes[listener].len()];
        let len = match question {
            Some(question) => {
                let frame = self.frame(query, &header, question.bytes, edns, UDP_SIZE_DEFAULT);
                respond(rcode, None, &frame, out).0
            }
            None => {
                // Nothing to repeat: a header alone, the opcode and RD as they came (RFC 8906 §3.1.4).
                let flags = Flags::QR | (header.flags.0 & (Flags::OPCODE | Flags::RD)) | rcode.0;
                Header { id: header.id, flags: Flags(flags), counts: [0; 4] }.write(out);
                HEADER_LEN
            }
        };
        stats.responses[rcode_label(rcode.0)].add(1);
        Outcome::Answer { len }
    }

    fn dropped(&self, reason: DropReason) -> Outcome {
        self.stats.dropped[reason as usize].add(1);
        Outcome::Drop(reason)
    }

    #[inline]
    fn count_query(&self, asked: &Asked<'_>) {
        if self.asked_before.is_some() {
            return;
        }
        let stats = self.route_stats(asked);
        let transport = asked.query.client.transport() as usize;
        let family = usize::from(asked.query.client.peer.is_ipv6());
        stats.requests[transport][family][type_label(asked.view.question.qtype)].add(1);
        stats.request_size[transport].observe(asked.query.message.len() as u64, &SIZE_BOUNDS);
        if asked.frame.do_bit == Some(true) {
            stats.do_requests.add(1);
        }
    }

    #[inline]
    fn count_answer(
        &mut self,
        asked: &Asked<'_>,
        found: Option<Found>,
        len: usize,
        rcode: Rcode,
        out: &[u8],
    ) {
        let transport = asked.query.client.transport() as usize;
        let stats = self.route_stats(asked);
        stats.responses[rcode_label(rcode.0)].add(1);
        stats.response_size[transport].observe(len as u64, &SIZE_BOUNDS);
        // Answered within the turn it arrived in: the core's clock did not move, and the first bucket says just that.
        stats.duration.buckets[0].add(1);
        if found.is_some_and(|found| self.config.zones[found.zone].log_queries) {
            let waiter = asked.waiter(None);
            self.log_query(asked.now, &waiter, &asked.view.question, rcode, &out[..len]);
        }
    }

    fn route_stats(&self, asked: &Asked<'_>) -> &RouteStats {
        &self.stats.routes[usize::from(asked.query.client.listener.0)][asked.route]
    }

    pub(super) fn log_query(
        &mut self,
        now: Instant,
        waiter: &Waiter,
        question: &Question<'_>,
        rcode: Rcode,
        answer: &[u8],
    ) {
        self.push_event(crate::Event::Query(crate::QueryEvent {
            client: waiter.client,
            id: waiter.id,
            qname: Name::from_wire(question.qname()),
            qtype: question.qtype,
            qclass: question.qclass,
            do_bit: waiter.do_bit == Some(true),
            udp_size: waiter.udp_size,
            query_len: waiter.query_len,
            flags: crate::wire::get_u16(answer, 2),
            rcode: rcode.0,
            response_len: answer.len() as u16,
            duration: now.since(waiter.asked),
        }));
    }
}

impl Asked<'_> {
    /// The client as one that waits; its spelling is kept if it is not `shared`.
    fn waiter(&self, shared: Option<&[u8]>) -> Waiter {
        Waiter {
            client: self.query.client,
            route: self.route,
            id: self.view.header.id,
            flags: self.view.header.flags,
            do_bit: self.frame.do_bit,
            udp_size: self.view.edns.map_or(UDP_SIZE_MIN, |edns| edns.udp_size),
            query_len: self.query_len,
            asked: self.since,
            spelling: shared
                .filter(|shared| *shared != self.frame.question)
                .map(|_| self.frame.question.into()),
        }
    }
}

/// Attempts that may fail at once before a lookup does: twice the number of upstreams, as in CoreDNS. There, 0 means no
/// ceiling; here it means [`CONNECTS_MAX`], for a lookup has better things to do than to be refused.
fn connects_max(forward: &ForwardRules) -> u32 {
    match forward.max_connect_attempts {
        None => 2 * forward.upstreams.len() as u32,
        Some(0) => CONNECTS_MAX,
        Some(attempts) => attempts.min(CONNECTS_MAX),
    }
}

/// How a query is dealt with.
enum Answered {
    /// Its length and RCODE.
    Now((usize, Rcode)),
    Later,
    Never(DropReason),
}

/// The most that a client can take, in bytes (semantics.md R10).
pub(super) fn reply_len_max(transport: Transport, client_udp_size: u16, our_udp_size: u16) -> usize {
    match transport {
        Transport::Tcp => MESSAGE_LEN_MAX,
        Transport::Udp if planted(Fault::PayloadSizeIgnored) => usize::from(our_udp_size),
        // RFC 6891 §6.2.3: sizes below 512 mean 512.
        Transport::Udp => usize::from(client_udp_size.max(UDP_SIZE_MIN).min(our_udp_size)),
    }
}

/// Writes an answer without records; returns its length and RCODE.
pub(super) fn respond(
    rcode: Rcode,
    extended_error: Option<u16>,
    frame: &ReplyFrame<'_>,
    out: &mut [u8],
) -> (usize, Rcode) {
    let answer = AnswerRef { meta: AnswerMeta::local(rcode, extended_error), bytes: &[] };
    let rendered = render(answer, Ttls::Verbatim, frame, out);
    (rendered.len, rendered.rcode)
}
