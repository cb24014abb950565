//! Log lines, as CoreDNS prints them.
//!
//! Workers hand over events ([`nodens_core::Event`]); the control thread turns them into lines here and hands those to a thread
//! that writes ([`Output`]), so that a slow reader of our output costs lines, never answers. There is no logging framework: what people
//! parse is exactly CoreDNS' text, on standard output, without a time stamp (the container runtime adds it).
//!
//! ```text
//! [INFO] 10.0.0.7:40212 - 7 "A IN example.org. udp 41 false 512" NOERROR qr,rd,ra 106 0.000123s
//! [ERROR] plugin/errors: 2 example.org. A: 10.96.0.10:53: i/o timeout
//! ```
//!
//! Failures come in floods when an upstream dies. Each kind of them has a budget of lines; what is above it is counted
//! and told in one line once a second.

mod budget;
mod names;
mod output;
mod query;

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nodens_core::{Event, FailureCause, FailureEvent};

use budget::Budget;
pub use output::Output;
pub use query::Common;

/// How serious a line is; CoreDNS' words.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Level {
    /// Something happened.
    Info,
    /// Something somebody should look at.
    Warning,
    /// Something failed.
    Error,
}

impl Level {
    const fn tag(self) -> &'static str {
        match self {
            Level::Info => "[INFO]",
            Level::Warning => "[WARNING]",
            Level::Error => "[ERROR]",
        }
    }
}

/// Where lines go.
pub trait LineSink {
    /// One line, without its end. It holds no control characters.
    fn line(&mut self, line: &str);
    /// Everything so far is to be seen now.
    fn flush(&mut self);
}

/// For who reads no log: lines go nowhere.
impl LineSink for io::Sink {
    fn line(&mut self, _: &str) {}

    fn flush(&mut self) {}
}

/// For tests: lines are kept.
impl LineSink for Vec<String> {
    fn line(&mut self, line: &str) {
        self.push(line.to_owned());
    }

    fn flush(&mut self) {}
}

/// The agent's log. Belongs to the control thread.
#[derive(Debug)]
pub struct Log<S> {
    sink: S,
    failures: [Budget; CAUSES.len()],
    upstreams: Budget,
    /// What was told last about an upstream, and when. No larger than configurations are.
    known: HashMap<u16, (bool, Instant)>,
}

/// The same about the same upstream within this time is no news.
const SAME_NEWS: Duration = Duration::from_secs(1);

/// What went wrong, in the words of the Go libraries that people search their logs for.
const CAUSES: [(FailureCause, &str); 4] = [
    (FailureCause::TimedOut, "i/o timeout"),
    (FailureCause::Refused, "connection refused"),
    (FailureCause::Broken, "broken reply"),
    (FailureCause::Local, "this machine could not send"),
];

impl<S: LineSink> Log<S> {
    /// Lines to `sink`.
    pub fn new(sink: S) -> Self {
        Log { sink, failures: Default::default(), upstreams: Budget::default(), known: HashMap::new() }
    }

    /// A line of the agent's own, such as `[INFO] plugin/reload: …`. Control characters are made visible.
    pub fn say(&mut self, level: Level, text: impl Display) {
        let mut line = level.tag().to_owned();
        line.push(' ');
        push_printable(&mut line, &text.to_string());
        self.sink.line(&line);
        if level != Level::Info {
            self.sink.flush();
        }
    }

    /// An event of a worker. `upstreams` are the addresses of the configuration that the worker runs.
    pub fn event(&mut self, now: Instant, event: &Event, upstreams: &[SocketAddr]) {
        match event {
            Event::Query(query) => self.sink.line(&format!("{} {}", Level::Info.tag(), Common(query))),
            Event::Failure(failure) => self.failure(now, failure, upstreams),
            Event::Upstream { upstream, down } => {
                if self.is_news(now, upstream.0, *down) && self.upstreams.spend(now) {
                    let address = address(upstreams, upstream.0);
                    self.say(level_of(*down), upstream_text(&address, *down));
                }
            }
        }
    }

    /// Each worker finds out about an upstream for itself, mostly at the same time; one line is enough.
    fn is_news(&mut self, now: Instant, upstream: u16, down: bool) -> bool {
        if let Some((known, told)) = self.known.get(&upstream)
            && *known == down
            && now.saturating_duration_since(*told) < SAME_NEWS
        {
            return false;
        }
        self.known.insert(upstream, (down, now));
        true
    }

    /// To be called about once a second: tells what was left out, and writes what is buffered.
    pub fn tick(&mut self, now: Instant) {
        for ((_, cause), budget) in CAUSES.iter().zip(&mut self.failures) {
            if let Some(count) = budget.left_out(now) {
                let tag = Level::Error.tag();
                self.sink.line(&format!("{tag} plugin/errors: {count} more: {cause}"));
            }
        }
        if let Some(count) = self.upstreams.left_out(now) {
            let tag = Level::Warning.tag();
            self.sink.line(&format!("{tag} plugin/forward: {count} more changes of upstreams"));
        }
        self.sink.flush();
    }

    /// Where the lines went.
    pub fn into_sink(mut self) -> S {
        self.sink.flush();
        self.sink
    }

    fn failure(&mut self, now: Instant, failure: &FailureEvent, upstreams: &[SocketAddr]) {
        let index = CAUSES.iter().position(|(cause, _)| *cause == failure.cause).unwrap_or(0);
        if !self.failures[index].spend(now) {
            return;
        }
        let tag = Level::Error.tag();
        let (name, qtype, cause) = (&failure.qname, names::of_type(failure.qtype), CAUSES[index].1);
        // 2 is SERVFAIL: what a client gets when a lookup fails.
        self.sink.line(&match failure.upstream {
            Some(upstream) => {
                format!("{tag} plugin/errors: 2 {name} {qtype}: {}: {cause}", address(upstreams, upstream.0))
            }
            None => format!("{tag} plugin/errors: 2 {name} {qtype}: no upstream could be asked: {cause}"),
        });
    }
}

fn level_of(down: bool) -> Level {
    if down { Level::Warning } else { Level::Info }
}

fn upstream_text(address: &str, down: bool) -> String {
    match down {
        true => format!("plugin/forward: upstream {address} is down: it will be asked last, and probed"),
        false => format!("plugin/forward: upstream {address} is up again"),
    }
}

fn address(upstreams: &[SocketAddr], index: u16) -> String {
    // An event may be older than the configuration at hand.
    upstreams.get(usize::from(index)).map_or_else(|| format!("#{index}"), SocketAddr::to_string)
}

/// Nothing that reaches a log may steer a terminal or forge a line.
fn push_printable(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}

#[cfg(test)]
mod tests;
