//! A real authoritative server, so that the tests do not only meet servers
//! of our own writing.
//!
//! NSD or Knot DNS, whichever is installed, runs as a child of the test, as
//! the current user, on a free port of 127.0.0.1, with its files in a
//! temporary directory. Without either, [`RealAuthority::start`] says so and
//! the test is to be skipped aloud; nothing is downloaded or installed.

mod config;
mod sample;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

pub use sample::{BIG_ADDRESSES, HUGE_ADDRESSES, SAMPLE_NEGATIVE_TTL, Zone, sample_zone};

use crate::client::UdpClient;
use crate::msg::{Query, rcode};
use crate::port::free_port;
use crate::process::{Process, signal};
use config::{Directory, Software};

/// A server that has not answered for all its zones by then is broken.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// How long one probe waits for its answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long the server may take to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Another process may take the port between choosing and binding it.
const START_ATTEMPTS: usize = 3;

/// No authoritative server is installed: the test cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Skipped {}

/// A running authoritative server.
pub struct RealAuthority {
    software: Software,
    program: PathBuf,
    origins: Vec<String>,
    addr: SocketAddr,
    directory: Directory,
    process: Option<Process>,
}

impl RealAuthority {
    /// Starts a server for these zones and waits until it answers for each.
    ///
    /// Panics with the server's log if an installed server does not start.
    pub fn start(zones: &[Zone]) -> Result<Self, Skipped> {
        let installed = [Software::Nsd, Software::Knot].into_iter().find_map(|s| Some((s, s.find()?)));
        let Some((software, program)) = installed else {
            return Err(Skipped {
                reason: "no real authoritative server is installed (Debian package nsd or knot)".into(),
            });
        };
        Ok(Self::run(software, program, zones))
    }

    /// Like [`start`](Self::start); where that is not possible, the test is
    /// skipped aloud (see [`skip`](crate::skip())) and this is `None`.
    pub fn start_or_skip(zones: &[Zone]) -> Option<Self> {
        let started = Self::start(zones);
        if let Err(skipped) = &started {
            crate::skip(&skipped.reason);
        }
        started.ok()
    }

    /// Where it listens, UDP and TCP, also while stopped.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The name of the program that runs.
    pub fn software(&self) -> &'static str {
        self.software.program()
    }

    /// Ends the server; its port refuses from then on.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if process.is_running() {
            process.signal(signal::SIGTERM);
        }
        // Whether it ended or not is settled by the kill below.
        let _ = process.wait(STOP_TIMEOUT);
        // NSD has children of its own, in the group of the first process.
        // They may outlive it for a moment and hold the port.
        let _ = killpg(Pid::from_raw(process.pid() as i32), Signal::SIGKILL);
    }

    /// Starts the server again on the same port, after stopping it if need be.
    pub fn restart(&mut self) {
        self.stop();
        if let Err(log) = self.launch() {
            panic!("{} did not come back on {}:\n{log}", self.software(), self.addr);
        }
    }

    fn run(software: Software, program: PathBuf, zones: &[Zone]) -> Self {
        let origins: Vec<_> = zones.iter().map(|zone| zone.origin.clone()).collect();
        let mut log = String::new();
        for _ in 0..START_ATTEMPTS {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let directory = Directory::create();
            software.configure(&directory, addr, zones);
            let (program, origins) = (program.clone(), origins.clone());
            let mut server = Self { software, program, origins, addr, directory, process: None };
            match server.launch() {
                Ok(()) => return server,
                Err(why) => log = why,
            }
        }
        panic!("{} is installed but does not start:\n{log}", program.display())
    }

    /// Starts the program and waits for its answers; the error is its log.
    fn launch(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(self.software.arguments(&self.directory)).process_group(0);
        let process = self.process.insert(Process::spawn(command));
        let deadline = Instant::now() + START_TIMEOUT;
        for origin in &self.origins {
            while !answers_for(self.addr, origin) {
                if Instant::now() >= deadline || !process.is_running() {
                    let log = process.dump();
                    self.stop();
                    return Err(log);
                }
            }
        }
        Ok(())
    }
}

impl Drop for RealAuthority {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answers_for(addr: SocketAddr, origin: &str) -> bool {
    let query = Query::new(origin, "SOA").rd(false).bytes();
    let reply = UdpClient::new().ask(addr, &query, PROBE_TIMEOUT);
    reply.is_some_and(|reply| reply.rcode == rcode::NOERROR && reply.aa && !reply.answers.is_empty())
}

#[cfg(test)]
mod tests;
