//! A message from an upstream: match it, check it, judge it, answer those who wait (reliability.md §2.3).
//!
//! Everything that does not fit is dropped and counted, and the lookup goes on waiting: whoever can make us give up by
//! sending rubbish can take names off the network (that is what a forged datagram does to CoreDNS today).

use super::Forwarder;
use super::attempt::Sending;
use super::paths::{Attempt, OutQuery, Purpose};
use crate::api::{FailureCause, Path, Rejection, Transport};
use crate::cache::{Answer, AnswerMeta, AnswerRef, Cache, InsertRules, Inserted, Judgement, Ttls, judge};
use crate::config::UpstreamId;
use crate::sim_support::{Fault, Mark, mark, mark_if, planted};
use crate::slab::Ticket;
use crate::stats::{DURATION_BOUNDS_US, rcode_label};
use crate::time::{Duration, Instant};
use crate::wire::{
    Flags, Header, Message, MessageFault, OPT_LEN, Question, Rcode, Section, UpstreamOptions, read_options,
};
use smallvec::SmallVec;

/// Replies with wrong IDs on one path after which somebody is taken to be guessing, and TCP is asked as well. One can be a
/// late answer to a former holder of the port.
const WRONG_IDS_SUSPECT: u8 = 4;

impl<C: Cache> Forwarder<C> {
    pub(super) fn accept_response(
        &mut self,
        now: Instant,
        path: Path,
        bytes: &[u8],
    ) -> Result<(), Rejection> {
        // V1: the driver names the path, and the path's socket is connected to the upstream.
        let open = self.paths.get_mut(path.into()).ok_or(Rejection::UnknownPath)?;
        let header = Header::read(bytes).ok_or(Rejection::Short)?;
        let (upstream, transport) = (open.upstream, open.transport);
        let same_id = |query: &&OutQuery| query.id == header.id || planted(Fault::IdNotCompared);
        let Some(query) = open.queries.iter().find(same_id).copied() else {
            open.wrong_ids = open.wrong_ids.saturating_add(1);
            match transport {
                _ if open.wrong_ids != WRONG_IDS_SUSPECT => {}
                // On a shared path these are late answers to lookups that are over.
                Transport::Udp if open.used > 1 => {}
                Transport::Udp => {
                    mark(Mark::IdsBeingGuessed);
                    self.ask_over_tcp_too(now, path);
                }
                // One may be an answer given twice; this one has lost its way.
                Transport::Tcp => {
                    mark(Mark::ConnectionLostItsWay);
                    self.path_lost(now, path, FailureCause::Broken);
                }
            }
            return Err(Rejection::WrongId);
        };
        let attempt = Attempt { path, id: query.id };
        let checked = match query.purpose {
            Purpose::Lookup(ticket) => {
                let lookup = self.lookups.get(ticket).ok_or(Rejection::UnknownPath)?;
                check(bytes, header, &lookup.question)
            }
            Purpose::Probe => {
                let asked = super::probe::question(&self.upstreams[usize::from(upstream.0)].config);
                check(bytes, header, &asked)
            }
            Purpose::Abandoned => {
                // Nobody waits any more, but the connection lives and so does the upstream.
                mark(Mark::LateReplyTaken);
                self.path_heard(now, path, query.id);
                self.take_query(now, attempt);
                self.upstream_answered(now, upstream);
                self.stats.replies_late.add(1);
                return Ok(());
            }
        };
        if checked.as_ref().err() == Some(&Rejection::WrongQuestion)
            && let Purpose::Lookup(ticket) = query.purpose
            && let Some(lookup) = self.lookups.get(ticket)
        {
            self.stats.zones[lookup.zone].drops.add(1);
        }
        let message = match checked {
            Ok(message) => message,
            Err(rejection) if transport == Transport::Tcp => {
                // On a connection there is no second sender: this one speaks nonsense.
                mark(Mark::NonsenseOverTcp);
                self.path_lost(now, path, FailureCause::Broken);
                return Err(rejection);
            }
            Err(rejection) => {
                if planted(Fault::RejectionHeldAgainstUpstream) {
                    self.upstream_failed(now, upstream);
                }
                if planted(Fault::RejectionEndsAttempt) {
                    self.path_lost(now, path, FailureCause::Broken);
                }
                self.ask_over_tcp_too(now, path);
                return Err(rejection);
            }
        };
        let used = planted(Fault::TruncatedAnswerKept) || planted(Fault::TruncatedAnswerTaken);
        let truncated = message.header.flags.has(Flags::TC) && !used;
        self.stats.trailing_bytes_cut.add(u64::from(!truncated && message.end < bytes.len()));
        self.path_heard(now, path, query.id);
        self.take_query(now, attempt);
        let took = now.since(query.sent_at);
        self.upstreams[usize::from(upstream.0)].rtt.observe(took);
        self.upstream_answered(now, upstream);
        let Purpose::Lookup(ticket) = query.purpose else { return Ok(()) };
        if let Some(lookup) = self.lookups.get_mut(ticket) {
            lookup.out.retain(|other| *other != attempt);
        }
        let rcode = message.rcode();
        if rcode != Rcode::FORMERR && self.lookups.get(ticket).is_some_and(|lookup| lookup.without_edns) {
            self.upstreams[usize::from(upstream.0)].refused_edns(now);
        }
        let stats = &self.stats.upstreams[usize::from(upstream.0)];
        stats.duration[rcode_label(rcode.0)].observe(took.as_micros() as u64, &DURATION_BOUNDS_US);
        if truncated {
            self.retry_truncated(now, ticket, upstream, transport);
        } else if rcode == Rcode::FORMERR && query.edns && message.opt.is_none() {
            // RFC 6891 §7: perhaps it does not know EDNS. If it likes the question better without, that is remembered.
            mark(Mark::EdnsRefused);
            if let Some(lookup) = self.lookups.get_mut(ticket) {
                lookup.without_edns = true;
            }
            if self.send_attempt(now, ticket, upstream, transport) == Sending::NoPath {
                self.attempt_failed(now, ticket, FailureCause::Local);
            }
        } else if self.fails_over(ticket, rcode) {
            mark(Mark::FailedOver);
            self.next_attempt(now, ticket);
        } else {
            self.finish_with(now, ticket, &message);
        }
        Ok(())
    }

    /// `failover`: this RCODE sends the lookup on, as long as there is an upstream that was not asked.
    fn fails_over(&self, ticket: Ticket, rcode: Rcode) -> bool {
        let Some(lookup) = self.lookups.get(ticket) else { return false };
        let forward = self.config.zones[lookup.zone].forward.as_ref();
        let listed = forward.is_some_and(|forward| forward.failover.contains(&rcode));
        listed && (lookup.attempts_made as usize) < lookup.order.len()
    }

    /// A truncated answer is never used and never cached (RFC 2181 §9): the same upstream is asked over TCP, and so is every other
    /// one from now on. Over TCP it is nonsense, and the attempt has failed.
    fn retry_truncated(&mut self, now: Instant, ticket: Ticket, upstream: UpstreamId, transport: Transport) {
        let Some(lookup) = self.lookups.get_mut(ticket) else { return };
        if transport == Transport::Tcp {
            mark(Mark::TruncatedOverTcp);
            self.attempt_failed(now, ticket, FailureCause::Broken);
            return;
        }
        mark(Mark::TruncatedSoTcp);
        lookup.truncated = true;
        lookup.asked_over_tcp = true;
        lookup.transport = Transport::Tcp;
        // It answered, so the next upstream is asked only if TCP takes its time.
        let late = planted(Fault::TcpAfterTimeout);
        let stall_after = self.upstreams[usize::from(upstream.0)].rtt.stall_after();
        lookup.try_again_at(now + if late { lookup.read_timeout } else { stall_after });
        self.lookups.arm(ticket);
        if !late && self.send_attempt(now, ticket, upstream, Transport::Tcp) == Sending::NoPath {
            self.attempt_failed(now, ticket, FailureCause::Local);
        }
    }

    /// Something forged or broken came over UDP: ask the same upstream over TCP as well, once per lookup, and keep listening.
    fn ask_over_tcp_too(&mut self, now: Instant, path: Path) {
        let Some(open) = self.paths.get(path.into()) else { return };
        let upstream = open.upstream;
        for purpose in open.live().map(|query| query.purpose).collect::<SmallVec<[Purpose; 1]>>() {
            let Purpose::Lookup(ticket) = purpose else { continue };
            if let Some(lookup) = self.lookups.get_mut(ticket).filter(|lookup| !lookup.asked_over_tcp) {
                mark(Mark::ForgerySoTcpToo);
                lookup.asked_over_tcp = true;
                self.send_attempt(now, ticket, upstream, Transport::Tcp);
            }
        }
    }

    /// A valid answer: keep it if it may be kept, and give it to everyone who waits.
    fn finish_with(&mut self, now: Instant, ticket: Ticket, message: &Message<'_>) {
        let Some(lookup) = self.lookups.get(ticket) else { return };
        let zone = lookup.zone;
        let rcode = message.rcode();
        if rcode == Rcode::NOERROR || rcode == Rcode::NXDOMAIN {
            self.failures.recovered(zone);
            self.failures.forget(&lookup.key);
        }
        if rcode == Rcode::REFUSED && lookup.rd {
            self.failures.remember(&lookup.key, zone, rcode, false, now);
        }
        let options = upstream_options(message);
        mark_if(options.scoped, Mark::ScopedAnswerRelayed);
        let rules = self.config.zones[zone].cache.as_ref();
        let cacheable = rules.filter(|rules| {
            let named =
                rules.zones.is_empty() || rules.zones.iter().any(|z| z.is_suffix_of(lookup.key.qname()));
            named && (lookup.rd || planted(Fault::Rd0AnswerKept)) && !options.scoped
        });
        let judgement = cacheable.map(|rules| (rules, judge(message, rules, self.wall.unix_s(now))));
        let (kind, ttls, ttl_s) = match judgement {
            Some((_, Judgement::Keep { kind, ttl_s })) => (Some(kind), Ttls::Flat(ttl_s), ttl_s),
            Some((_, Judgement::Relay)) | None => (None, Ttls::Verbatim, 0),
        };
        let flags = Flags(message.header.flags.0 & (Flags::RA | Flags::AD));
        let extended_error = options.extended_error;
        let answer = Answer::from_message(
            message,
            AnswerMeta { rcode, flags, counts: [0; 3], kind, extended_error, ttl_s },
        );
        if let (Some(kind), Some((rules, _))) = (kind, judgement) {
            let class = rules.of(kind.class());
            let expires = now + Duration::from_secs(u64::from(ttl_s));
            let rules = InsertRules { stored: now, expires, entries_max: class.entries_max };
            self.keep(&lookup.key, zone, answer.as_ref(), rules);
        }
        self.end_lookup(now, ticket, answer, ttls);
    }

    fn keep(&self, key: &crate::cache::Key, zone: usize, answer: AnswerRef<'_>, rules: InsertRules) {
        if answer.bytes.len() > self.config.limits.entry_bytes_max as usize {
            mark(Mark::AnswerTooLargeToKeep);
            return;
        }
        if self.cache.insert(key, answer, rules) == Inserted::Busy {
            mark(Mark::ShardBusy);
            self.stats.zones[zone].insert_skipped.add(1);
        }
    }
}

/// V4 to V11, in that order.
fn check<'a>(bytes: &'a [u8], header: Header, asked: &[u8]) -> Result<Message<'a>, Rejection> {
    if !header.flags.has(Flags::QR) {
        return Err(Rejection::NotAResponse);
    }
    if header.flags.opcode() != 0 {
        return Err(Rejection::WrongOpcode);
    }
    if header.counts[0] != 1 {
        return Err(Rejection::WrongQuestion);
    }
    let question = Question::read(bytes)
        .filter(|q| q.same_as(asked) || planted(Fault::QuestionNotCompared))
        .filter(|q| q.bytes == asked || !planted(Fault::WrongCaseRefused))
        .ok_or(Rejection::WrongQuestion)?;
    if header.flags.has(Flags::TC) && !planted(Fault::TruncatedAnswerKept) {
        // V7: nothing of the body is going to be used, and a body that was cut may well not parse.
        let header = Header { counts: [1, 0, 0, 0], ..header };
        return Message::walk(bytes, header, question).map_err(|_| Rejection::Malformed);
    }
    let message = Message::walk(bytes, header, question).map_err(|fault| match fault {
        MessageFault::Malformed => Rejection::Malformed,
        MessageFault::BadOpt => Rejection::BadOpt,
    })?;
    if message.section(Section::Answer).any(|record| record.class != question.qclass) {
        return Err(Rejection::WrongClass);
    }
    Ok(message)
}

fn upstream_options(message: &Message<'_>) -> UpstreamOptions {
    // An OPT's owner is the root, so its RDATA begins at a fixed place.
    let rdata =
        message.opt.as_ref().and_then(|(_, range)| message.bytes.get(range.start + OPT_LEN..range.end));
    rdata.map_or_else(UpstreamOptions::default, read_options)
}
