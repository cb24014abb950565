//! What the end-to-end tests share: the real binary as a child, its HTTP endpoints, and programs that may be missing.
//!
//! The tests know nodens only by what it is given (a Corefile, flags, signals) and by what comes out of it (sockets, lines, exit
//! codes). Every wait has a limit; nothing here is retried but the choice of free ports.

#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nodens_testkit::{Process, Query, Reply, free_port};

/// The strict reader of `/metrics` that the unit tests of the writer use.
#[path = "../../src/admin/strict_parser.rs"]
mod strict_parser;

/// The binary under test.
pub(crate) const NODENS: &str = env!("CARGO_BIN_EXE_nodens");

/// More than anything takes on a machine that is busy with other tests, or whose processor is emulated on such a one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A block that forwards everything to `UPSTREAM`, with one address for all HTTP endpoints.
pub(crate) const COREFILE: &str = "\
.:{$DNS} {
    bind 127.0.0.1
    errors
    cache
    forward . {$UPSTREAM} {
        health_check 100ms
    }
    health {$HTTP} {
        lameduck {$LAMEDUCK}
    }
    ready {$HTTP}
    prometheus {$HTTP}
    nodens {
        workers 2
        runtime {$RUNTIME}
    }
}
";

/// How many workers [`COREFILE`] asks for.
pub(crate) const WORKERS: usize = 2;

/// Set to `tokio` or `uring` to run every test of [`COREFILE`] on that runtime; else nodens chooses.
const RUNTIME: &str = "NODENS_TEST_RUNTIME";

/// Ports are chosen anew this often if somebody else took them in between.
const START_ATTEMPTS: usize = 5;

/// A running nodens.
pub(crate) struct Agent {
    /// Where it answers.
    pub(crate) dns: SocketAddr,
    /// Where its HTTP endpoints are, if the Corefile says `{$HTTP}`.
    pub(crate) http: SocketAddr,
    /// The child.
    pub(crate) process: Process,
    directory: Directory,
}

impl Agent {
    /// Starts nodens with [`COREFILE`] in front of `upstream` and waits until it is ready.
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        Self::start(COREFILE, &[("UPSTREAM", &upstream.to_string())])
    }

    /// Starts nodens with a Corefile and waits until it is ready. The variables `DNS` (a port), `HTTP` (an address),
    /// `LAMEDUCK` (0s) and `RUNTIME` are there on top of those given.
    pub(crate) fn start(corefile: &str, variables: &[(&str, &str)]) -> Self {
        let mut log = String::new();
        for _ in 0..START_ATTEMPTS {
            let (dns, http) = (loopback(free_port()), loopback(free_port()));
            match Self::try_start(corefile, variables, dns, http) {
                // Between the choice of a port and its use another test's nodens took it: both would serve it.
                Ok(agent) if agent.process.dump().contains("another process already serves") => {}
                Ok(agent) => return agent,
                Err(output) if output.contains("another pro") => log = output,
                Err(output) => panic!("nodens does not start:\n{output}"),
            }
        }
        panic!("no free ports in {START_ATTEMPTS} attempts:\n{log}")
    }

    /// One attempt on given addresses; the error is what nodens printed.
    pub(crate) fn try_start(
        corefile: &str,
        variables: &[(&str, &str)],
        dns: SocketAddr,
        http: SocketAddr,
    ) -> Result<Self, String> {
        let directory = Directory::create();
        let path = directory.write("Corefile", corefile);
        let mut command = Command::new(NODENS);
        command.args(["-conf", &path]).env("LAMEDUCK", "0s").env("RUNTIME", runtime());
        command.env("DNS", dns.port().to_string()).env("HTTP", http.to_string());
        command.envs(variables.iter().copied());
        let process = Process::spawn(command);
        match process.wait_for_line("[INFO] ready", PATIENCE) {
            Some(_) => Ok(Agent { dns, http, process, directory }),
            None => Err(process.dump()),
        }
    }

    /// Asks over UDP from a fresh port.
    pub(crate) fn udp(&self, query: &Query) -> Reply {
        let reply = nodens_testkit::ask_udp(self.dns, &query.bytes());
        reply.unwrap_or_else(|| panic!("no answer over UDP to {query:?}; {}", self.process.dump()))
    }

    /// Asks over a fresh TCP connection.
    pub(crate) fn tcp(&self, query: &Query) -> Reply {
        let reply = nodens_testkit::ask_tcp(self.dns, &query.bytes());
        reply.unwrap_or_else(|| panic!("no answer over TCP to {query:?}; {}", self.process.dump()))
    }

    /// Writes another Corefile in place of the one it was started with.
    pub(crate) fn rewrite(&self, corefile: &str) {
        self.directory.write("Corefile", corefile);
    }

    /// A file beside the Corefile.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Asks for a path; `None` if the endpoint is not there.
    pub(crate) fn get(&self, path: &str) -> Option<Page> {
        get(self.http, path)
    }

    /// `/metrics`, strictly parsed.
    pub(crate) fn metrics(&self) -> Metrics {
        let page = self.get("/metrics").expect("/metrics answers");
        assert_eq!(page.status, 200, "{page:?}");
        Metrics::read(page.body)
    }

    /// Waits for the process to end and returns its exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        match self.process.wait(PATIENCE) {
            Some(status) => status.code(),
            None => panic!("nodens does not end: {}", self.process.dump()),
        }
    }
}

/// An address on the loopback.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The runtime to be tested.
pub(crate) fn runtime() -> String {
    std::env::var(RUNTIME).unwrap_or_else(|_| "auto".to_owned())
}

/// Asks again and again until `wanted` is there.
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut wanted: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = wanted() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// The status code.
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    /// What was sent.
    pub(crate) body: String,
}

/// Fetches a page; `None` if nobody listens or the connection breaks.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Option<Page> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Page { status, head: head.to_owned(), body: body.to_owned() })
}

/// The text of `/metrics`, well-formed.
pub(crate) struct Metrics {
    text: String,
    parsed: strict_parser::Parsed,
}

impl Metrics {
    /// Panics if Prometheus would not take it.
    pub(crate) fn read(text: String) -> Self {
        let parsed = strict_parser::parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        Self { text, parsed }
    }

    /// The sum of all series of this name whose labels contain all of these, spelled as in the text: `type="A"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let of_name = self.text.lines().filter_map(|line| line.strip_prefix(name));
        let series = of_name.filter(|rest| rest.starts_with(['{', ' ']));
        let wanted = series.filter(|rest| labels.iter().all(|label| rest.contains(label)));
        let values = wanted.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>() as u64
    }

    /// The value of exactly this series.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.parsed.value(name, labels)
    }

    /// Whether there is a metric of this name with this type.
    pub(crate) fn has(&self, name: &str, kind: &str) -> bool {
        self.parsed.families.get(name).is_some_and(|found| found == kind)
    }
}

/// A temporary directory, removed when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// An empty one.
    pub(crate) fn create() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("nodens-e2e-{}-{n}", std::process::id()));
        // A leftover of an earlier process with the same ID.
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        Self(path)
    }

    /// One that is there already.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().expect("the path of a temporary file is UTF-8").to_owned()
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, file: &str, text: &str) -> String {
        let path = self.path(file);
        std::fs::write(&path, text).unwrap_or_else(|why| panic!("{path}: {why}"));
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A program that has ended.
pub(crate) struct Ended {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// Its lines on standard output.
    pub(crate) out: Vec<String>,
    /// Its lines on standard error.
    pub(crate) err: Vec<String>,
}

impl Ended {
    /// All that it printed, for the message of a failing test.
    pub(crate) fn dump(&self) -> String {
        format!("exit code {:?}\n{}\n{}", self.code, self.out.join("\n"), self.err.join("\n"))
    }
}

/// Runs a program that ends by itself.
pub(crate) fn run(mut command: Command) -> Ended {
    command.env("LC_ALL", "C");
    let text = format!("{command:?}");
    let mut process = Process::spawn(command);
    let Some(status) = process.wait(PATIENCE) else { panic!("{text} does not end: {}", process.dump()) };
    Ended { code: status.code(), out: process.stdout_lines(), err: process.stderr_lines() }
}

/// Runs nodens with these arguments.
pub(crate) fn nodens(arguments: &[&str]) -> Ended {
    let mut command = Command::new(NODENS);
    command.args(arguments);
    run(command)
}

/// A program on the search path, or a line that says what is not shown without it.
pub(crate) fn tool(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found =
        std::env::split_paths(&path).chain(also).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("`{name}` is not installed (Debian package {package})"));
    }
    found
}

pub(crate) use nodens_testkit::skip;

/// Prints a measurement past the capture of the harness.
pub(crate) fn report(line: &str) {
    nodens_testkit::note(&format!("measured: {line}"));
}
