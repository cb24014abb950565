//! Lines for people on standard error, where the original server writes too.
//!
//! A thread of its own writes them, behind a bounded channel that is never waited for: whoever holds our output open without reading it
//! costs lines, not reviews. Lines that a stranger on the network can cause have a budget per kind; what is left out is counted
//! and told. Nothing from outside steers a terminal or forges a line: control characters are made visible.

use std::fmt::{self, Display, Formatter};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines that may wait for the writer: a burst of reviews. At about 150 bytes each, 300 KiB when it is full.
const WAITING_MAX: usize = 2048;

/// Lines of one kind per second, and the size of a burst: more tells nobody more.
const LINES_PER_S: u32 = 20;

/// The same for [`Kind::Review`], which is asked for: as many as one replica is expected to answer.
const REVIEW_LINES_PER_S: u32 = 2000;

/// How often what was left out is told.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);

/// How long the end waits for a reader of our output that does not read.
const PARTING: Duration = Duration::from_millis(100);

/// Longest line; what is longer is cut. The longest that is meant to be read has about 300 characters.
const LINE_BYTES_MAX: usize = 1024;

/// Lines that come from what strangers send; each kind has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A request with an answer other than 200.
    Refused,
    /// A connection that ended before or within a request.
    Connection,
    /// A TLS handshake that failed.
    Handshake,
    /// One review and its outcome, at verbosity 4.
    Review,
    /// A review that could not be read, or a defect of ours.
    Trouble,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Refused, Self::Connection, Self::Handshake, Self::Review, Self::Trouble];

    fn lines_per_s(self) -> u32 {
        if self == Self::Review { REVIEW_LINES_PER_S } else { LINES_PER_S }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Refused => "refused requests",
            Self::Connection => "broken connections",
            Self::Handshake => "failed handshakes",
            Self::Review => "reviews",
            Self::Trouble => "reviews with trouble",
        }
    }
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Good to know.
    Info,
    /// Something to look after, not now.
    Warning,
    /// Something does not work.
    Error,
}

impl Display for Level {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "[INFO]",
            Self::Warning => "[WARNING]",
            Self::Error => "[ERROR]",
        })
    }
}

/// Where lines go. Cheap to clone; every task has one.
#[derive(Clone, Debug)]
pub struct Log {
    lines: SyncSender<String>,
    budgets: Arc<[Mutex<Budget>; Kind::ALL.len()]>,
    lost: Arc<AtomicU64>,
}

/// The thread behind a [`Log`]. Kept by `main` until the end.
#[derive(Debug)]
pub struct Writer {
    thread: Option<JoinHandle<()>>,
    ended: Receiver<()>,
}

impl Log {
    /// A log that writes to `out`, and its thread.
    pub fn new(out: impl Write + Send + 'static) -> (Self, Writer) {
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let (end, ended) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let budgets: Arc<[Mutex<Budget>; Kind::ALL.len()]> = Arc::default();
        let (counted, told) = (lost.clone(), budgets.clone());
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
            write_all(out, &waiting, &counted, &told);
            // Nobody waits any more if this fails.
            let _ = end.send(());
        });
        // Without its thread the log is silent, and counts what it loses; the service does not depend on it.
        (Self { lines, budgets, lost }, Writer { thread: thread.ok(), ended })
    }

    /// A log that nobody reads, for tests and tools.
    pub fn silent() -> Self {
        Self::new(std::io::sink()).0
    }

    /// A line about the start, the end or the service's state.
    pub fn say(&self, level: Level, text: impl Display) {
        let mut line = level.to_string();
        line.push(' ');
        push_printable(&mut line, &text.to_string());
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A line that strangers can cause; `text` is made only if it may be written.
    pub fn limited(&self, kind: Kind, level: Level, text: impl FnOnce() -> String) {
        let mut budget = self.budgets[kind as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let may = budget.spend(Instant::now(), kind.lines_per_s());
        drop(budget);
        if may {
            self.say(level, text());
        }
    }
}

impl Drop for Writer {
    /// To be dropped last, after every [`Log`]: waits for what is still unwritten, but not for a reader that is stuck.
    fn drop(&mut self) {
        let ended = self.ended.recv_timeout(PARTING).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| ended) {
            // A panic there has been told by the standard library.
            let _ = thread.join();
        }
    }
}

fn write_all(
    mut out: impl Write,
    waiting: &Receiver<String>,
    lost: &AtomicU64,
    budgets: &[Mutex<Budget>; Kind::ALL.len()],
) {
    loop {
        let ended = match waiting.recv_timeout(SUMMARY_INTERVAL) {
            Ok(line) => {
                put(&mut out, &line);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        for (kind, budget) in Kind::ALL.into_iter().zip(budgets) {
            let left_out =
                budget.lock().unwrap_or_else(PoisonError::into_inner).left_out(Instant::now(), ended);
            if let Some(count) = left_out {
                put(&mut out, &format!("{} {count} more {}", Level::Warning, kind.plural()));
            }
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            count => put(
                &mut out,
                &format!("{} {count} lines were lost: the log is read too slowly", Level::Warning),
            ),
        }
        if ended {
            return;
        }
    }
}

fn put(out: &mut impl Write, line: &str) {
    // There is nobody left to tell if this fails.
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

fn push_printable(line: &mut String, text: &str) {
    for c in text.chars() {
        if line.len() >= LINE_BYTES_MAX {
            line.push('…');
            return;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}

/// A token bucket that counts what it refuses.
#[derive(Debug, Default)]
struct Budget {
    /// Lines spent beyond what time has paid back; at most a second's.
    spent: f64,
    last: Option<Instant>,
    left_out: u64,
    since: Option<Instant>,
}

impl Budget {
    fn spend(&mut self, now: Instant, per_s: u32) -> bool {
        let idle = now.saturating_duration_since(self.last.unwrap_or(now));
        self.last = Some(now);
        self.spent = (self.spent - idle.as_secs_f64() * f64::from(per_s)).max(0.0);
        if self.spent + 1.0 <= f64::from(per_s) {
            self.spent += 1.0;
            return true;
        }
        self.left_out += 1;
        self.since.get_or_insert(now);
        false
    }

    fn left_out(&mut self, now: Instant, at_once: bool) -> Option<u64> {
        let since = self.since?;
        if !at_once && now.saturating_duration_since(since) < SUMMARY_INTERVAL {
            return None;
        }
        self.since = None;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no test panics here").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written by the time the log has ended.
    fn written(say: impl FnOnce(Log)) -> String {
        let shared = Shared::default();
        let (log, writer) = Log::new(shared.clone());
        say(log);
        drop(writer);
        String::from_utf8(shared.0.lock().expect("no test panics here").clone()).expect("text")
    }

    #[test]
    fn a_line_cannot_be_forged_or_endless() {
        let text = written(|log| {
            log.say(Level::Info, "a\n[ERROR] b\u{1b}[2J");
            log.say(Level::Error, "x".repeat(2 * LINE_BYTES_MAX));
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.starts_with("[INFO] a\\n[ERROR] b\\u{1b}[2J\n[ERROR] xx"), "{text}");
        assert!(text.len() < LINE_BYTES_MAX + 64);
    }

    #[test]
    fn a_kind_has_a_budget_and_what_is_left_out_is_told() {
        let text = written(|log| {
            for _ in 0..100 {
                log.limited(Kind::Refused, Level::Warning, || "refused".into());
            }
            log.limited(Kind::Handshake, Level::Warning, || "another kind".into());
        });
        let lines = text.lines().filter(|line| *line == "[WARNING] refused").count();
        // A slow machine may have earned one more line meanwhile.
        assert!((20..=21).contains(&lines), "{text}");
        assert!(text.contains(&format!("[WARNING] {} more refused requests", 100 - lines)), "{text}");
        assert!(text.contains("[WARNING] another kind"));
    }

    /// Blocks in its first write until the test is over.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_stuck_holds_up_nobody() {
        let (_held, stuck) = sync_channel(1);
        let (log, writer) = Log::new(Stuck(stuck));
        let began = Instant::now();
        for _ in 0..10 * WAITING_MAX {
            log.say(Level::Info, "a line");
        }
        assert!(log.lost.load(Ordering::Relaxed) as usize >= 9 * WAITING_MAX - 1);
        drop((log, writer));
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}
