//! A worker whose process has no descriptors left. The limit belongs to the whole process, so this test has one of its own.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nodens_runtime::conformance::{forwarding_to, start};
use nodens_runtime_tokio::Tokio;
use nodens_testkit::{Query, UdpClient, Upstream, answers};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(5);
/// Connections that the server will have no descriptors for.
const CLIENTS: usize = 40;

#[test]
fn without_descriptors_udp_hits_go_on_misses_fail_at_once_and_connections_wait() {
    let upstream = Upstream::start(answers(|query| query.response().answer("@ 300 IN A 192.0.2.1")));
    let server = start::<Tokio>(forwarding_to(upstream.addr()));
    let (cached, missed) =
        (Query::new("hit.example.", "A").bytes(), Query::new("miss.example.", "A").bytes());
    let udp = UdpClient::new();
    assert!(udp.ask(server.addr, &cached, LONG).is_some());
    // The socket to the upstream must be gone before descriptors are counted, or there is one left later on.
    let settled = || {
        let count = || std::fs::read_dir("/proc/self/fd").expect("proc").count();
        let before = count();
        std::thread::sleep(Duration::from_millis(100));
        before == count()
    };
    assert!(server.wait_until(|s| s.sum(|stats| &stats.paths) == 0 && settled()));

    // The clients share the process, so they get their descriptors first.
    let clients: Vec<Socket> =
        (0..CLIENTS).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")).collect();
    let open = std::fs::read_dir("/proc/self/fd").expect("proc").count() as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("readable");
    setrlimit(Resource::RLIMIT_NOFILE, open + 4, hard).expect("lowering is allowed");

    for client in &clients {
        client.connect(&server.addr.into()).expect("the kernel completes it in the backlog");
    }
    let failures = |s: &nodens_runtime::conformance::Running| -> u64 {
        s.workers.iter().map(|worker| worker.vitals.accept_failures.get()).sum()
    };
    assert!(server.wait_until(|s| failures(s) > 0));
    let hit = udp.ask(server.addr, &cached, LONG).expect("hits need no descriptor");
    assert_eq!(hit.rcode, 0);
    let started = std::time::Instant::now();
    let miss = udp.ask(server.addr, &missed, LONG).expect("an answer, not silence");
    assert_eq!(miss.rcode, 2);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(failures(&server) < 100, "accepting pauses instead of spinning");

    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("raising to the old value");
    for client in clients {
        let mut client = TcpStream::from(client);
        client.set_read_timeout(Some(LONG)).expect("an option");
        client.write_all(&(cached.len() as u16).to_be_bytes()).expect("sent");
        client.write_all(&cached).expect("sent");
        let mut prefix = [0; 2];
        client.read_exact(&mut prefix).expect("served once there are descriptors again");
    }
    server.stop(LONG);
}
