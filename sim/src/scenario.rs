//! Scripted worlds: a reader and a player for the `.rpl` scenario language.
//!
//! Random worlds find; scripted ones explain. The language is the one that the field shares (Unbound's `testdata`, Deckard,
//! domain's stelline): an environment, then numbered steps, each an event or a check. `sim/scenarios` holds one file per rule and
//! a README with every word of it. Here it drives one real `Forwarder` over one real cache, without a socket or a thread; time
//! passes only where a step says so.
//!
//! This is not where bugs are looked for: a scenario shows one rule to people. Whatever it does not say is checked all the same
//! where it holds for every answer (the page of `world`).
//!
//! | module | what it is |
//! | --- | --- |
//! | `read`, `lines` | from text to steps, with the line of every mistake |
//! | `entry` | one message as it is written in a file, and its bytes |
//! | `matching` | which parts of two messages are compared |
//! | `show` | a message as `dig` would print it |
//! | `world` | the Forwarder's surroundings: clients, upstreams, a clock |
//! | `play` | step after step |

mod entry;
mod lines;
mod matching;
mod play;
mod read;
mod show;
mod world;

use entry::Entry;
use nodens_core::{Config, Transport};
use std::net::IpAddr;
use std::time::Duration;

/// A scenario that was understood.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called in messages: its path.
    file: String,
    /// What `SCENARIO_BEGIN` calls it.
    title: String,
    corefile: String,
    ranges: Vec<Range>,
    steps: Vec<Step>,
    /// The line of `SCENARIO_END`.
    end: usize,
}

/// What is wrong with a file, or what did not happen as it says.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What was expected and what came, in as many lines as that takes.
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for Fault {}

/// Answers that upstreams give by themselves while the step's number is within the range.
#[derive(Clone, Debug)]
struct Range {
    first: u32,
    last: u32,
    /// Which upstream; `None`: all.
    address: Option<IpAddr>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Step {
    number: u32,
    line: usize,
    event: Event,
}

#[derive(Clone, Debug)]
enum Event {
    /// A client asks. `dropped`: the label of the reason why it gets no answer.
    Query {
        client: IpAddr,
        listener: u16,
        entry: Entry,
        dropped: Option<String>,
    },
    CheckAnswer {
        client: Option<IpAddr>,
        entry: Entry,
    },
    CheckNoAnswer,
    CheckOutQuery {
        upstream: Option<IpAddr>,
        entry: Entry,
    },
    CheckNoOutQuery,
    /// An upstream answers. `rejected`: the label of the reason why the answer is not taken.
    Reply {
        upstream: Option<IpAddr>,
        entry: Entry,
        rejected: Option<String>,
    },
    TimePasses(Duration),
    /// Time passes until the Forwarder's next timer.
    Timeout,
    /// Seconds that the wall clock is set forward; the clock that counts TTLs does not move.
    WallClock(i64),
    /// Whether sockets to an upstream are refused from now on; `over`: only of this transport.
    Refusing {
        upstream: IpAddr,
        over: Option<Transport>,
        refuses: bool,
    },
    /// An upstream closes its TCP connections.
    Close(IpAddr),
    Nothing,
}

impl Scenario {
    /// Reads a scenario; `file` is its name in messages.
    pub fn read(file: &str, text: &str) -> Result<Scenario, Fault> {
        read::read(file, text)
    }

    /// What it says about itself.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The configuration part: a Corefile whose lines have the numbers that they have in the scenario.
    pub fn corefile(&self) -> &str {
        &self.corefile
    }

    /// Plays it in a world of its own. `config` is what [`corefile`](Self::corefile) means; it has at least one listener.
    pub fn play(&self, config: Config, cache_bytes: usize) -> Result<(), Fault> {
        play::play(self, config, cache_bytes)
    }

    fn fault(&self, line: usize, message: impl Into<String>) -> Fault {
        Fault { file: self.file.clone(), line, message: message.into() }
    }
}
