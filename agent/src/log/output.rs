//! Lines on their way to standard output, which somebody may read slowly or not at all.
//!
//! The control thread collects lines and hands them over in batches; a thread of their own writes them. Between the two is a bounded
//! channel that is never waited for: when it is full, lines are counted instead of kept, and the count is told in
//! one line as soon as there is room. So a terminal that is held, a full disk or a reader that hangs costs lines, and neither
//! `/health` nor SIGTERM notices.

use std::io::Write;
use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::{Level, LineSink};

/// Some 500 query lines per write: at 20 000 queries/s, 40 writes a second.
const BATCH_BYTES: usize = 64 * 1024;
/// Batches that may wait for the writer: 1 MiB, half a second of a busy node's query log.
const BATCHES_MAX: usize = 16;
/// How long the end of the process waits for the last lines. A reader that reads at all takes them in far less.
const PARTING: Duration = Duration::from_millis(100);

/// Lines to a writer that may block, collected until [`LineSink::flush`] or until 64 KiB are full.
#[derive(Debug)]
pub struct Output {
    batch: String,
    /// Lines that found no room since this was last told.
    lost: u64,
    /// `None` once the writer is to end, or if there is none.
    batches: Option<SyncSender<String>>,
    /// Ends when the writer has written everything.
    done: Receiver<()>,
}

impl Output {
    /// Starts the thread that writes to `out`. If it cannot be started there is no log; DNS goes on.
    pub fn new(mut out: impl Write + Send + 'static) -> Self {
        let (batches, waiting) = sync_channel::<String>(BATCHES_MAX);
        let (working, done) = sync_channel::<()>(0);
        let write = move || {
            let _until_the_end = working;
            for batch in waiting {
                // Whoever closed our output does not want the lines.
                let _ = out.write_all(batch.as_bytes()).and_then(|()| out.flush());
            }
        };
        let started = thread::Builder::new().name("nodens-log".to_owned()).spawn(write);
        Output { batch: String::new(), lost: 0, batches: started.is_ok().then_some(batches), done }
    }

    fn hand_over(&mut self) {
        let Some(batches) = &self.batches else {
            self.batch.clear();
            return;
        };
        if self.batch.is_empty() && self.lost == 0 {
            return;
        }
        let mut batch = mem::take(&mut self.batch);
        let whole_len = batch.len();
        if self.lost > 0 {
            let (tag, lost) = (Level::Warning.tag(), self.lost);
            batch += &format!("{tag} {lost} more lines: standard output was not read fast enough\n");
        }
        match batches.try_send(batch) {
            Ok(()) => self.lost = 0,
            Err(TrySendError::Full(mut batch)) => {
                batch.truncate(whole_len);
                self.batch = batch;
            }
            Err(TrySendError::Disconnected(_)) => self.batches = None,
        }
    }
}

impl LineSink for Output {
    fn line(&mut self, line: &str) {
        if self.batch.len() + line.len() >= BATCH_BYTES {
            self.hand_over();
        }
        if self.batch.len() + line.len() >= BATCH_BYTES {
            self.lost += 1;
            return;
        }
        self.batch.push_str(line);
        self.batch.push('\n');
    }

    fn flush(&mut self) {
        self.hand_over();
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.hand_over();
        self.batches = None;
        // The writer ends with the process if it is still stuck by then.
        let _ = self.done.recv_timeout(PARTING);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use super::*;

    /// Writes only while it holds a permit.
    struct Reader {
        permits: Receiver<()>,
        read: Arc<Mutex<String>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Blocks like a full pipe; nobody left to give permits means everybody reads.
            let _ = self.permits.recv();
            self.read.lock().expect("no panic").push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reader() -> (SyncSender<()>, Arc<Mutex<String>>, Output) {
        let (permit, permits) = sync_channel(0);
        let read = Arc::new(Mutex::new(String::new()));
        (permit, Arc::clone(&read), Output::new(Reader { permits, read }))
    }

    #[test]
    fn lines_come_with_the_flush_in_their_order_and_the_last_with_the_end() {
        let (permit, read, mut output) = reader();
        drop(permit);
        output.line("a");
        output.line("b");
        output.flush();
        output.line("c");
        let done = mem::replace(&mut output.done, sync_channel(0).1);
        drop(output);
        let _ = done.recv_timeout(Duration::from_secs(20));
        assert_eq!(*read.lock().expect("no panic"), "a\nb\nc\n");
    }

    #[test]
    fn a_reader_that_stops_holds_up_nobody_and_is_told_what_it_missed() {
        let (permit, read, mut output) = reader();
        let (line, count) = ("x".repeat(1023), 3000);
        // It has taken a first line and blocks: from now on there is no room until it goes on.
        output.line("first");
        output.flush();
        permit.send(()).expect("the writer waits");
        output.line("second");
        output.flush();
        while !read.lock().expect("no panic").ends_with("first\n") {
            thread::yield_now();
        }
        let began = Instant::now();
        for _ in 0..count {
            output.line(&line);
            output.flush();
        }
        assert!(began.elapsed() < Duration::from_secs(5), "nothing waits: {:?}", began.elapsed());
        let lost = output.lost;
        assert!(lost > 1000 && lost < count, "{lost} of {count} lines found no room");
        drop(permit);
        // The writer has room again, sooner or later.
        while output.lost > 0 && began.elapsed() < Duration::from_secs(10) {
            output.flush();
            thread::yield_now();
        }
        drop(output);
        // The end waits only so long; the writer goes on, on a busy machine for longer.
        let told = format!("[WARNING] {lost} more lines: standard output was not read fast enough");
        while !read.lock().expect("no panic").ends_with(&format!("{told}\n")) {
            assert!(began.elapsed() < Duration::from_secs(20), "the last line never comes");
            thread::yield_now();
        }
        let text = read.lock().expect("no panic");
        assert_eq!(text.lines().filter(|written| **written == line).count() as u64, count - lost);
        assert_eq!(text.lines().last(), Some(told.as_str()));
    }

    #[test]
    fn a_reader_that_is_stuck_does_not_hold_up_the_end() {
        let (_permit, _read, mut output) = reader();
        output.line("a");
        let began = Instant::now();
        drop(output);
        assert!(began.elapsed() >= PARTING && began.elapsed() < Duration::from_secs(2));
    }
}
