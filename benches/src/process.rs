//! Children on a core of their own, and what they used: CPU time and memory from /proc.
//!
//! A child is started through this program's own `pinned` subcommand, which takes the core, asks the kernel to end the process
//! when its parent ends, and becomes the program: so threads cannot be born on another core, and no server outlives a bench.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// More than any server here takes to start on a busy machine.
pub const START_PATIENCE: Duration = Duration::from_secs(10);
/// Where [`free_port`] looks: below what Linux gives to clients by default.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const POLL: Duration = Duration::from_millis(20);

/// CPU time and memory of a process, all threads, those that have ended too.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
pub struct Usage {
    /// utime + stime, in seconds.
    pub cpu_s: f64,
    /// Resident memory in KiB.
    pub rss_kib: u64,
}

/// What a process has used so far; `None` if it is not there.
pub fn usage(pid: u32) -> Option<Usage> {
    let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let cpu_s = cpu_ticks(&stat)? as f64 / ticks_per_s as f64;
    // The same to the nanosecond, but without threads that have ended.
    let cpu_s = cpu_s.max(live_threads_ns(pid) as f64 / 1e9);
    Some(Usage { cpu_s, rss_kib: rss_kib(&status).unwrap_or(0) })
}

/// What the scheduler has accounted to the threads that live; 0 if this kernel does not say.
fn live_threads_ns(pid: u32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let on_cpu_ns = |task: std::fs::DirEntry| {
        let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(|task| on_cpu_ns(task.ok()?)).sum()
}

/// utime + stime of /proc/PID/stat, in hundredths of a second mostly. The command's name, in parentheses, may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let fields = stat.rsplit_once(')')?.1;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn rss_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_ascii_whitespace().next()?.parse().ok())
}

/// A port on the loopback that is free for UDP and TCP. Not one of those that the kernel gives to clients: thousands of them come
/// and go while a bench runs.
///
/// # Errors
///
/// All are taken.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() * 7;
    for _ in 0..PORTS.len() {
        let offset = (start + NEXT.fetch_add(1, Relaxed)) % PORTS.len() as u32;
        let port = PORTS.start + offset as u16;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port between 20000 and 30000 is free"))
}

/// The cores this process may use.
pub fn cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()
}

/// Keeps the calling thread, and the threads it starts from now on, on a core.
///
/// # Errors
///
/// The core is not there, or not ours to use.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Becomes another program, on a core and not longer than the parent. Returns only if that fails.
pub fn become_pinned(core: usize, command: &[String]) -> io::Error {
    let prepare = pin(core).and_then(|()| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
    match (prepare, command.split_first()) {
        (Err(error), _) => error,
        (_, None) => io::Error::new(io::ErrorKind::InvalidInput, "no program given after --"),
        (_, Some((program, arguments))) => Command::new(program).args(arguments).exec(),
    }
}

/// A child that is killed when this is dropped. What it prints goes to a file.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program on a core.
    ///
    /// # Errors
    ///
    /// This program cannot be started again, or there is no room for the log.
    pub fn start(core: usize, command: &[String], env: &[(&str, &str)]) -> io::Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Relaxed);
        let log = std::env::temp_dir().join(format!("nodens-bench-{}-{number}.log", std::process::id()));
        let file = File::create(&log)?;
        let child = Command::new(std::env::current_exe()?)
            .args(["pinned", "--core", &core.to_string(), "--"])
            .args(command)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Server { child, log })
    }

    /// Starts one of this program's own servers, and waits for the address that it prints.
    ///
    /// # Errors
    ///
    /// It did not start; with what it printed.
    pub fn start_own(core: usize, arguments: &[&str]) -> io::Result<(Self, SocketAddr)> {
        let program = std::env::current_exe()?.display().to_string();
        let command: Vec<String> =
            std::iter::once(program).chain(arguments.iter().map(ToString::to_string)).collect();
        let mut server = Self::start(core, &command, &[])?;
        let address = server.wait(|server| {
            let line = server
                .printed()
                .lines()
                .find_map(|line| Some(line.strip_prefix("listening on ")?.to_string()));
            line.and_then(|address| address.parse().ok())
        })?;
        Ok((server, address))
    }

    /// Waits until it answers a query over UDP, whatever the answer.
    ///
    /// # Errors
    ///
    /// It ended, or stayed silent; with what it printed.
    pub fn wait_for_answer(&mut self, address: SocketAddr) -> io::Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(POLL))?;
        let mut query = vec![];
        crate::message::write_query(
            &mut query,
            1,
            [&crate::message::labels("hit-0.example.com"), &[0]],
            1,
            false,
        );
        self.wait(|_| {
            // Refused while nobody listens: that is what is waited for.
            drop(socket.send(&query));
            socket.recv(&mut [0; 512]).ok().map(|_| ())
        })
    }

    fn wait<R>(&mut self, mut ready: impl FnMut(&Self) -> Option<R>) -> io::Result<R> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(result) = ready(self) {
                return Ok(result);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let what = ended.map_or("is silent".to_string(), |status| format!("ended with {status}"));
                return Err(io::Error::other(format!("{what}; it printed:\n{}", self.printed())));
            }
            std::thread::sleep(POLL);
        }
    }

    /// All it printed so far.
    pub fn printed(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(&self.log));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_are_found() {
        let stat = "17 (a) b (c)) S 1 17 17 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("17 (a) S 1"), None);
        assert_eq!(rss_kib("VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1234));
    }

    #[test]
    fn work_costs_cpu_time() {
        let before = usage(std::process::id()).expect("we are here");
        let begin = Instant::now();
        let mut sum = 0u64;
        while begin.elapsed() < Duration::from_millis(100) || sum == 1 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let after = usage(std::process::id()).expect("we are here");
        assert!(after.cpu_s > before.cpu_s, "{before:?} {after:?}");
        assert!(after.rss_kib > 500, "{after:?}");
        assert_eq!(usage(0), None);
    }
}
