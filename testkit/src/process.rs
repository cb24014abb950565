//! A program under test as a child process.
//!
//! Its stdout and stderr are collected line by line from the start, so that
//! waiting for a line cannot miss it and a failing test can show everything.
//! The child is killed when the handle is dropped.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lock;

/// How often [`Process::wait`] looks whether the child has ended.
const WAIT_POLL: Duration = Duration::from_micros(200);

/// The number of SIGHUP, SIGINT, SIGTERM and so on, for [`Process::signal`].
pub mod signal {
    #![expect(missing_docs, reason = "the names are the documentation: they are signal(7)'s")]
    pub const SIGHUP: i32 = 1;
    pub const SIGINT: i32 = 2;
    pub const SIGKILL: i32 = 9;
    pub const SIGUSR1: i32 = 10;
    pub const SIGTERM: i32 = 15;
    pub const SIGCONT: i32 = 18;
    pub const SIGSTOP: i32 = 19;
}

/// A running child.
pub struct Process {
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

#[derive(Default)]
struct Output {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Default)]
struct Log {
    lines: Vec<Line>,
    /// Streams that have ended; after both no line will come.
    ended: usize,
}

struct Line {
    is_stderr: bool,
    text: String,
}

impl Process {
    /// Starts a program with these arguments and, on top of the environment
    /// of the test, these variables. Panics if it cannot be started.
    pub fn start(path: impl AsRef<Path>, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(path.as_ref());
        command.args(args).envs(env.iter().copied());
        Self::spawn(command)
    }

    /// Starts a prepared command; its standard streams are replaced.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = command.spawn();
        let mut child = started
            .unwrap_or_else(|why| panic!("{} cannot be started: {why}", command.get_program().display()));
        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers = vec![collect(stdout, false, &output), collect(stderr, true, &output)];
        Self { child, output, readers, status: None }
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of either stream that contains `text`, lines already
    /// printed included. `None` if the time is up or both streams have ended.
    pub fn wait_for_line(&self, text: &str, timeout: Duration) -> Option<String> {
        self.wait_for_line_after(0, text, timeout)
    }

    /// Like [`wait_for_line`](Self::wait_for_line), leaving out the first
    /// `skipped` lines; see [`line_count`](Self::line_count).
    pub fn wait_for_line_after(&self, skipped: usize, text: &str, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        let mut log = lock(&self.output.log);
        loop {
            if let Some(line) = log.lines.iter().skip(skipped).find(|line| line.text.contains(text)) {
                return Some(line.text.clone());
            }
            if log.ended == self.readers.len() {
                return None;
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let woken = self.output.changed.wait_timeout(log, left);
            log = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The number of lines of both streams so far.
    pub fn line_count(&self) -> usize {
        lock(&self.output.log).lines.len()
    }

    /// The lines of stdout so far.
    pub fn stdout_lines(&self) -> Vec<String> {
        self.lines(false)
    }

    /// The lines of stderr so far.
    pub fn stderr_lines(&self) -> Vec<String> {
        self.lines(true)
    }

    /// All output so far as one text, for the message of a failing test.
    pub fn dump(&self) -> String {
        lock(&self.output.log).lines.iter().map(|line| format!("{}\n", line.text)).collect()
    }

    /// Sends a signal by number. Panics if the child has ended already.
    pub fn signal(&self, number: i32) {
        let signal = Signal::try_from(number).unwrap_or_else(|_| panic!("{number} is no signal"));
        assert!(self.status.is_none(), "the child has ended: it can take no {signal}");
        kill(self.nix_pid(), signal).unwrap_or_else(|why| panic!("{signal} cannot be sent: {why}"));
    }

    /// Waits for the child to end; `None` if the time is up. Afterwards all
    /// its output is there.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        while self.status.is_none() {
            self.status = self.child.try_wait().expect("the child belongs to this process");
            if self.status.is_none() {
                if Instant::now() >= deadline {
                    return None;
                }
                thread::sleep(WAIT_POLL);
            }
        }
        // A grandchild may hold the pipes open: not beyond the time limit.
        while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            thread::sleep(WAIT_POLL);
        }
        self.status
    }

    /// Whether the child is still running.
    pub fn is_running(&mut self) -> bool {
        self.wait(Duration::ZERO).is_none()
    }

    /// Kills the child (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            drop(self.child.kill());
            // SIGKILL cannot be caught: this wait is short.
            self.status = self.child.wait().ok();
        }
    }

    fn lines(&self, is_stderr: bool) -> Vec<String> {
        let log = lock(&self.output.log);
        log.lines.iter().filter(|line| line.is_stderr == is_stderr).map(|line| line.text.clone()).collect()
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(stream: impl Read + Send + 'static, is_stderr: bool, output: &Arc<Output>) -> JoinHandle<()> {
    let output = output.clone();
    thread::spawn(move || {
        for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_string();
            lock(&output.log).lines.push(Line { is_stderr, text });
            output.changed.notify_all();
        }
        lock(&output.log).ended += 1;
        output.changed.notify_all();
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};

    use super::{Process, signal};

    const LONG: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        Process::start("/bin/sh", &["-c", script], &[("NODENS_WORD", "hello")])
    }

    #[test]
    fn lines_of_both_streams_and_the_status_are_collected() {
        let mut process = shell("echo out $NODENS_WORD; echo err >&2; exit 3");
        assert_eq!(process.wait_for_line("out", LONG).as_deref(), Some("out hello"));
        assert_eq!(process.wait(LONG).and_then(|status| status.code()), Some(3));
        assert_eq!(process.stdout_lines(), ["out hello"]);
        assert_eq!(process.stderr_lines(), ["err"]);
        assert_eq!((process.line_count(), process.is_running()), (2, false));
        assert!(process.dump().contains("err\n"));
        let start = Instant::now();
        assert_eq!(process.wait_for_line_after(2, "out", LONG), None);
        assert!(start.elapsed() < LONG, "after the end no line is waited for");
    }

    #[test]
    fn signals_arrive() {
        let mut process = shell("trap 'echo caught; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
        assert!(process.wait_for_line("ready", LONG).is_some(), "{}", process.dump());
        assert!(process.is_running());
        process.signal(signal::SIGTERM);
        assert_eq!(process.wait(LONG).and_then(|status| status.code()), Some(0));
        assert_eq!(process.stdout_lines(), ["ready", "caught"]);
    }

    #[test]
    fn waiting_is_bounded_and_killing_works() {
        let start = Instant::now();
        let mut process = shell("exec sleep 60");
        assert_eq!(process.wait_for_line("never", Duration::from_millis(50)), None);
        assert_eq!(process.wait(Duration::from_millis(50)), None);
        process.kill();
        assert_eq!(process.wait(LONG).and_then(|status| status.signal()), Some(signal::SIGKILL));
        assert!(start.elapsed() < LONG);
    }

    #[test]
    fn dropping_kills() {
        let process = shell("exec sleep 60");
        let pid = nix::unistd::Pid::from_raw(process.pid() as i32);
        drop(process);
        assert!(nix::sys::signal::kill(pid, None).is_err(), "the child outlived its handle");
    }
}
