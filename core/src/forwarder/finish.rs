//! The end of a lookup: its answer, or its failure, for each client that waits.
//!
//! An answer is kept once and written for one client per `poll_transmit`, so a lookup with a thousand waiters needs no thousand
//! buffers.

use super::Forwarder;
use super::attempt::ATTEMPTS_MAX;
use super::lookup::{Lookup, Waiter};
use super::query::{reply_len_max, respond};
use crate::api::{Event, FailureCause, FailureEvent, Target, Transmit, Transport};
use crate::cache::{Answer, Cache, ReplyFrame, Ttls, render};
use crate::sim_support::{Fault, Mark, mark, planted};
use crate::slab::Ticket;
use crate::stats::{DURATION_BOUNDS_US, SIZE_BOUNDS, rcode_label};
use crate::time::Instant;
use crate::wire::{EDE_NETWORK_ERROR, EDE_NO_REACHABLE_AUTHORITY, Flags, Question, Rcode, get_u16, put_u16};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A lookup that is over, and how many of its waiters have been answered.
#[derive(Debug)]
pub(super) struct Finished {
    lookup: Lookup,
    ending: Ending,
    answered: usize,
}

impl Finished {
    /// The clients that have no answer yet, and the question.
    pub(super) fn into_unanswered(self) -> (Vec<Waiter>, Box<[u8]>) {
        (self.lookup.waiters.into_iter().skip(self.answered).collect(), self.lookup.question)
    }
}

#[derive(Debug)]
enum Ending {
    Answer(Answer, Ttls),
    Failure(FailureCause),
}

impl<C: Cache> Forwarder<C> {
    pub(super) fn end_lookup(&mut self, now: Instant, ticket: Ticket, answer: Answer, ttls: Ttls) {
        self.end(now, ticket, Ending::Answer(answer, ttls));
    }

    /// No upstream gave an answer.
    pub(super) fn fail_lookup(&mut self, now: Instant, ticket: Ticket) {
        let Some(lookup) = self.lookups.get(ticket) else { return };
        let cause = lookup.last_cause;
        let zone = lookup.zone;
        // A truncated answer is a sign of life: its zone has not failed, only TCP has.
        if lookup.rd && !lookup.truncated {
            self.failures.remember(&lookup.key, zone, Rcode::SERVFAIL, true, now);
        }
        if self.config.zones[zone].log_errors && !planted(Fault::FailuresUnlogged) {
            let last = lookup.attempts_made.clamp(1, ATTEMPTS_MAX) as usize - 1;
            let event = FailureEvent {
                qname: lookup.key.name(),
                qtype: lookup.key.qtype(),
                cause,
                upstream: lookup.order.get(last % lookup.order.len()).copied(),
            };
            self.push_event(Event::Failure(event));
        }
        self.end(now, ticket, Ending::Failure(cause));
    }

    fn end(&mut self, now: Instant, ticket: Ticket, ending: Ending) {
        let Some(lookup) = self.lookups.remove(ticket) else { return };
        for attempt in &lookup.out {
            self.abandon(now, *attempt);
        }
        self.in_flight[lookup.zone] -= 1;
        self.stats.lookups.set(self.lookups.len() as u64);
        self.stats.waiters.set(self.lookups.waiters() as u64);
        self.finished.push_back(Finished { lookup, ending, answered: 0 });
    }

    /// Writes the answer for the next client that waits for a lookup that is over.
    pub(super) fn next_answer(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        let mut finished = self.finished.pop_front()?;
        let waiter = &finished.lookup.waiters[finished.answered];
        let client = if planted(Fault::AnswerToFirstClient) {
            finished.lookup.waiters[0].client
        } else {
            waiter.client
        };
        let (len, rcode) = self.write_answer(&finished, waiter, out);
        self.count_late_answer(now, &finished, waiter, len, rcode, out);
        if planted(Fault::WaiterAnsweredTwice) {
            self.replies.push_back((client, out[..len].into()));
        }
        finished.answered += 1;
        if finished.answered < finished.lookup.waiters.len() {
            self.finished.push_front(finished);
        }
        Some(Transmit { target: Target::Client(client), len })
    }

    fn write_answer(&self, finished: &Finished, waiter: &Waiter, out: &mut [u8]) -> (usize, Rcode) {
        let lookup = &finished.lookup;
        let udp_size = self.config.zones[lookup.zone].udp_size_max;
        let transport = waiter.client.transport();
        let spelling = waiter.spelling.as_deref().filter(|_| !planted(Fault::SpellingNotRestored));
        let frame = ReplyFrame {
            id: waiter.id,
            query_flags: waiter.flags,
            question: spelling.unwrap_or(&lookup.question),
            do_bit: waiter.do_bit,
            udp_size,
            len_max: reply_len_max(transport, waiter.udp_size, udp_size),
            trust_ad: self.config.trust_ad,
        };
        match &finished.ending {
            Ending::Answer(answer, ttls) => {
                let rendered = render(answer.as_ref(), *ttls, &frame, out);
                self.stats.truncated.add(u64::from(rendered.truncated));
                (rendered.len, rendered.rcode)
            }
            // The answer exists but only over TCP, which did not work for us. The upstream may not speak TCP at all
            // (Alibaba's PrivateZone did not everywhere), so the client is told what the upstream told us.
            Ending::Failure(_) if lookup.truncated && transport == Transport::Udp => {
                mark(Mark::TruncatedAsTcpFailed);
                let answer = respond(Rcode::NOERROR, None, &frame, out);
                let flags = get_u16(out, 2) | Flags::TC;
                put_u16(out, 2, flags);
                self.stats.truncated.add(1);
                answer
            }
            Ending::Failure(cause) => {
                let extended_error = match cause {
                    FailureCause::TimedOut => EDE_NO_REACHABLE_AUTHORITY,
                    FailureCause::Refused | FailureCause::Broken | FailureCause::Local => EDE_NETWORK_ERROR,
                };
                respond(Rcode::SERVFAIL, Some(extended_error), &frame, out)
            }
        }
    }

    fn count_late_answer(
        &mut self,
        now: Instant,
        finished: &Finished,
        waiter: &Waiter,
        len: usize,
        rcode: Rcode,
        out: &[u8],
    ) {
        let stats = &self.stats.routes[usize::from(waiter.client.listener.0)][waiter.route];
        stats.responses[rcode_label(rcode.0)].add(u64::from(!planted(Fault::LateAnswersUncounted)));
        stats.response_size[waiter.client.transport() as usize].observe(len as u64, &SIZE_BOUNDS);
        stats.duration.observe(now.since(waiter.asked).as_micros() as u64, &DURATION_BOUNDS_US);
        let unlogged = finished.answered > 0 && planted(Fault::WaitersUnlogged);
        if self.config.zones[finished.lookup.zone].log_queries && !unlogged {
            let bytes = waiter.spelling.as_deref().unwrap_or(&finished.lookup.question);
            let key = &finished.lookup.key;
            let question = Question { bytes, qtype: key.qtype(), qclass: key.qclass() };
            self.log_query(now, waiter, &question, rcode, &out[..len]);
        }
    }
}
