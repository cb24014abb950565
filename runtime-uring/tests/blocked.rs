//! io_uring taken away by a seccomp filter, as container runtimes do: before a worker starts, and under a running one.
//!
//! A filter can never be removed, so each case runs in a process of its own: this program again, with one of the ignored tests.

use nix::libc;
use nodens_cache::SharedCache;
use nodens_core::Seed;
use nodens_runtime::ClientLimits;
use nodens_runtime::conformance::{forwarding_to, start_with};
use nodens_runtime::socket::udp_listener;
use nodens_runtime::worker::WorkerFailure;
use nodens_runtime_uring::{Cause, Uring, probe, ring_error};
use nodens_testkit::seccomp::refuse;
use nodens_testkit::{Query, TcpClient, UdpClient, Upstream, answers};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(5);
const VARIABLE: &str = "NODENS_TEST_BLOCKED";

#[test]
fn io_uring_works_here() {
    probe().expect("these tests need a kernel of 6.1 or later that allows io_uring");
}

#[test]
fn what_is_blocked_is_reported_with_the_suspect() {
    let rows = [
        (libc::SYS_io_uring_setup, libc::EPERM, Cause::Forbidden, "seccomp profile"),
        (libc::SYS_io_uring_setup, libc::ENOSYS, Cause::Missing, "seccomp profile"),
        (libc::SYS_io_uring_setup, libc::EINVAL, Cause::TooOld, "Linux 6.1"),
        (libc::SYS_io_uring_setup, libc::ENOMEM, Cause::NoMemory, "RLIMIT_MEMLOCK"),
        (libc::SYS_io_uring_enter, libc::EPERM, Cause::Forbidden, "seccomp profile"),
        (libc::SYS_io_uring_register, libc::EPERM, Cause::Forbidden, "seccomp profile"),
    ];
    for (call, code, cause, suspect) in rows {
        let said = run("child_probes", &format!("{call} {code}"));
        assert!(
            said.contains(&format!("<{}>", cause.label())) && said.contains(suspect),
            "{call} {code}: {said}"
        );
    }
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_probes() {
    let row = std::env::var(VARIABLE).expect("set by the parent");
    let (call, code) = row.split_once(' ').expect("two numbers");
    refuse(call.parse().expect("a number"), code.parse().expect("a number"));
    let unavailable = probe().expect_err("it is blocked");
    writeln!(std::io::stdout(), "<{}> {unavailable}", unavailable.cause.label()).expect("stdout is there");
}

#[test]
fn a_ring_that_fails_ends_its_worker_and_frees_the_addresses() {
    run("child_loses_its_rings", "");
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_loses_its_rings() {
    let upstream = Upstream::start(answers(|query| query.response().answer("@ 300 IN A 192.0.2.1")));
    let cache = Arc::new(SharedCache::new(1 << 20, &Seed([1; 32])));
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let limits = ClientLimits::per_worker(1);
    let mut server = start_with::<Uring, _>(forwarding_to(upstream.addr()), cache, here, 1, limits);
    let query = Query::new("www.example.", "A").bytes();
    let client = UdpClient::new();
    assert!(client.ask(server.addr, &query, LONG).is_some());
    let mut connected = TcpClient::connect(server.addr).expect("connected");
    assert!(connected.ask(&query, LONG).is_some());

    refuse(libc::SYS_io_uring_enter, libc::EPERM);
    client.send(server.addr, &query);
    assert!(server.wait_until(|s| s.workers[0].is_finished()), "the worker ends");
    let failure = server.workers.remove(0).join().expect_err("it did not want to");
    let WorkerFailure::Io { error, .. } = &failure else { panic!("not an I/O error: {failure}") };
    let ring = ring_error(error).expect("the ring's failure can be told from others");
    assert_eq!(ring.cause.raw_os_error(), Some(libc::EPERM));

    assert!(connected.recv_eof(LONG), "connections are not left hanging");
    assert!(TcpClient::connect(server.addr).is_err(), "nor are new ones taken");
    let successor = udp_listener(server.addr).expect("the port is free");
    // From many ports: the kernel would spread them over all sockets of the address.
    for _ in 0..32 {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        sender.send_to(b"query", server.addr).expect("sent");
    }
    let arrived = std::iter::from_fn(|| successor.recv(&mut [0; 16]).ok()).count();
    assert_eq!(arrived, 32, "no dead socket shares the port");
}

/// Runs one of the ignored tests in a child process; returns what it printed.
fn run(test: &str, variable: &str) -> String {
    let this = std::env::current_exe().expect("the test program");
    let child = Command::new(this)
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, variable)
        .output()
        .expect("the test program runs");
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{test} {variable}: {said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    said
}
