//! Step after step: events happen, checks look.
//!
//! Before each step, *traffic flows*: every query that reached an upstream and that an entry of a range matches gets that entry's
//! answer at once. Only a step that checks queries comes first. What no range matches waits for a step. At the end nothing may be
//! left that no step has looked at.

use super::entry::Entry;
use super::matching::{Word, differences};
use super::world::{OutQuery, World};
use super::{Event, Fault, Range, Scenario, Step, show};
use nodens_core::{Config, DropReason, Rejection, Transport};
use std::net::IpAddr;
use std::time::Duration;

/// Rounds of questions and answers at one instant. An upstream and a Forwarder that need more are in a loop.
const FLOW_ROUNDS_MAX: usize = 100;

pub(super) fn play(scenario: &Scenario, config: Config, cache_bytes: usize) -> Result<(), Fault> {
    let mut player = Player { scenario, world: World::new(config, cache_bytes), step: 0 };
    let mut checks = 0;
    for step in &scenario.steps {
        player.step = step.number;
        checks += usize::from(is_check(&step.event));
        player.take(step).map_err(|why| scenario.fault(step.line, format!("STEP {}: {why}", step.number)))?;
    }
    player.finish().map_err(|why| scenario.fault(scenario.end, why))?;
    match checks {
        0 => Err(scenario.fault(scenario.end, "the scenario checks nothing")),
        _ => Ok(()),
    }
}

fn is_check(event: &Event) -> bool {
    matches!(event, Event::CheckAnswer { .. } | Event::CheckOutQuery { .. } | Event::CheckNoAnswer)
}

struct Player<'a> {
    scenario: &'a Scenario,
    world: World,
    step: u32,
}

impl Player<'_> {
    fn take(&mut self, step: &Step) -> Result<(), String> {
        if !matches!(step.event, Event::CheckOutQuery { .. } | Event::CheckNoOutQuery) {
            self.flow()?;
        }
        match &step.event {
            Event::Nothing => Ok(()),
            Event::Query { client, listener, entry, dropped } => {
                self.query((*client, *listener), entry, dropped.as_deref())
            }
            Event::CheckAnswer { client, entry } => self.check_answer(*client, entry),
            Event::CheckNoAnswer => match self.world.answers.front() {
                None => Ok(()),
                Some(answer) => {
                    Err(format!("there should be no answer, but:\n{}", show::message(&answer.message)))
                }
            },
            Event::CheckOutQuery { upstream, entry } => self.check_out_query(*upstream, entry),
            Event::CheckNoOutQuery => match self.world.out_queries.iter().find(|query| !query.seen) {
                None => Ok(()),
                Some(query) => Err(format!("nobody should be asked, but {}", shown(query))),
            },
            Event::Reply { upstream, entry, rejected } => self.reply(*upstream, entry, rejected.as_deref()),
            Event::TimePasses(time) => self.pass(*time),
            Event::Timeout => match self.world.until_timer() {
                Some(time) => self.pass(time),
                None => Err("no timer is set".into()),
            },
            Event::WallClock(by_s) => {
                self.world.step_wall_clock(*by_s);
                Ok(())
            }
            Event::Refusing { upstream, over, refuses } => self.world.refuse(*upstream, *over, *refuses),
            Event::Close(upstream) => self.world.close(*upstream),
        }
    }

    /// The end: whatever happened must have been looked at.
    fn finish(&mut self) -> Result<(), String> {
        self.flow()?;
        if let Some(answer) = self.world.answers.front() {
            return Err(format!("no step has checked this answer:\n{}", show::message(&answer.message)));
        }
        match self.world.out_queries.iter().find(|query| !query.seen) {
            Some(query) => Err(format!("no step and no range expected this: {}", shown(query))),
            None => Ok(()),
        }
    }

    fn query(
        &mut self,
        (client, listener): (IpAddr, u16),
        entry: &Entry,
        dropped: Option<&str>,
    ) -> Result<(), String> {
        let over = if entry.words.contains(&Word::Tcp) { Transport::Tcp } else { Transport::Udp };
        let outcome = self.world.ask(client, listener, over, &entry.query_bytes(self.step as u16))?;
        expect("the query is dropped", dropped, outcome.map(|reason| DropReason::LABELS[reason as usize]))
    }

    fn check_answer(&mut self, client: Option<IpAddr>, entry: &Entry) -> Result<(), String> {
        let answers = &mut self.world.answers;
        let at = answers.iter().position(|answer| client.is_none_or(|client| client == answer.client));
        let Some(answer) = at.and_then(|at| answers.remove(at)) else {
            let waited = self.world.out_queries.iter().filter(|query| !query.answered).map(shown);
            let waited: Vec<_> = waited.collect();
            return Err(format!(
                "there is no answer. Queries that wait for one: {}\n{}",
                waited.len(),
                waited.concat()
            ));
        };
        let parts = differences(entry, &answer.message, answer.transport);
        if parts.is_empty() {
            return Ok(());
        }
        let (expected, received) = (show::message(&entry.message()), show::message(&answer.message));
        Err(format!(
            "the answer differs in {}\n  expected\n{expected}  received\n{received}",
            parts.join(", ")
        ))
    }

    fn check_out_query(&mut self, upstream: Option<IpAddr>, entry: &Entry) -> Result<(), String> {
        let to = |query: &OutQuery| upstream.is_none_or(|upstream| upstream == query.upstream);
        let Some(query) = self.world.out_queries.iter_mut().find(|query| !query.seen && to(query)) else {
            let whom = upstream.map_or_else(|| "any upstream".into(), |upstream| upstream.to_string());
            return Err(format!("there is no query to {whom} that was not looked at"));
        };
        query.seen = true;
        let parts = differences(entry, &query.message, query.transport);
        if parts.is_empty() {
            return Ok(());
        }
        let (expected, received) = (show::message(&entry.message()), shown(query));
        Err(format!("the query differs in {}\n  expected\n{expected}  received {received}", parts.join(", ")))
    }

    /// Answers the oldest query that matches and still waits; if none does, the latest that matches: too late, or once more.
    fn reply(
        &mut self,
        upstream: Option<IpAddr>,
        entry: &Entry,
        rejected: Option<&str>,
    ) -> Result<(), String> {
        let fits = |query: &OutQuery| {
            upstream.is_none_or(|upstream| upstream == query.upstream)
                && differences(entry, &query.message, query.transport).is_empty()
        };
        let out_queries = &self.world.out_queries;
        let waits = |query: &OutQuery| !query.answered && self.world.is_open(query);
        let waiting = out_queries.iter().position(|query| waits(query) && fits(query));
        let Some(index) = waiting.or_else(|| out_queries.iter().rposition(fits)) else {
            return Err("no upstream has been asked what this could answer".into());
        };
        self.world.out_queries[index].seen = true;
        let bytes = entry.reply_bytes(&self.world.out_queries[index].bytes);
        let outcome = self.world.reply(index, &bytes)?;
        expect("the reply is rejected", rejected, outcome.map(|reason| Rejection::LABELS[reason as usize]))
    }

    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let mut left = time;
        loop {
            left = self.world.pass(left)?;
            self.flow()?;
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Ranges answer what reached them.
    fn flow(&mut self) -> Result<(), String> {
        let scenario = self.scenario;
        for _ in 0..FLOW_ROUNDS_MAX {
            let found = self.world.out_queries.iter_mut().enumerate().find_map(|(index, query)| {
                let waits = !query.answered && !query.ignored;
                let entry = waits.then(|| entry_for(scenario, self.step, query))??;
                query.seen = true;
                query.ignored = entry.do_not_answer;
                Some((index, entry, query.bytes.clone()))
            });
            let Some((index, entry, query)) = found else { return Ok(()) };
            if entry.do_not_answer {
                continue;
            }
            let outcome = self.world.reply(index, &entry.reply_bytes(&query))?;
            self.world.out_queries[index].answered = true;
            // Its path may be closed by now, because another upstream was faster: late is not wrong.
            if let Some(reason) = outcome.filter(|reason| *reason != Rejection::UnknownPath) {
                let reason = Rejection::LABELS[reason as usize];
                return Err(format!("the answer of the range at line {} was rejected: {reason}", entry.line));
            }
        }
        Err("questions and answers go round in a circle".into())
    }
}

/// What the ranges of this moment answer to a query.
fn entry_for<'a>(scenario: &'a Scenario, step: u32, query: &OutQuery) -> Option<&'a Entry> {
    let now = |range: &&Range| (range.first..=range.last).contains(&step);
    let here = |range: &&Range| range.address.is_none_or(|address| address == query.upstream);
    let mut entries = scenario.ranges.iter().filter(now).filter(here).flat_map(|range| &range.entries);
    entries.find(|entry| differences(entry, &query.message, query.transport).is_empty())
}

fn expect(what: &str, expected: Option<&str>, got: Option<&str>) -> Result<(), String> {
    match (expected, got) {
        (None, Some(got)) => Err(format!("{what}: {got}")),
        (Some(expected), got) if Some(expected) != got => {
            Err(format!("expected that {what} ({expected}), but it is {}", got.unwrap_or("not")))
        }
        _ => Ok(()),
    }
}

fn shown(query: &OutQuery) -> String {
    let over = if query.transport == Transport::Tcp { "TCP" } else { "UDP" };
    format!("{} over {over}:\n{}", query.upstream, show::message(&query.message))
}
