//! The real process and its neighbours: one that does not read what it prints, one that is on the same port already.

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nodens_testkit::msg::rcode::NOERROR;
use nodens_testkit::{Process, Query, UdpClient, Upstream, answers, free_port};

use support::{Agent, COREFILE, Directory, NODENS, PATIENCE, eventually, get, loopback, nodens, run};

/// Killed when dropped, so that a failing test leaves nothing behind.
struct Unread(Child);

impl Drop for Unread {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn an_unread_standard_output_stops_neither_health_nor_sigterm() {
    // Some 100 bytes of log each: several times what a pipe takes (64 KiB).
    const QUERIES: u16 = 5000;
    let upstream = Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")));
    let (dns, http, directory) = (loopback(free_port()), loopback(free_port()), Directory::create());
    let path = directory.write("Corefile", &COREFILE.replace("errors\n", "errors\n    log\n"));
    let mut command = Command::new(NODENS);
    command.args(["-conf", &path]).env("LAMEDUCK", "0s").env("UPSTREAM", upstream.addr().to_string());
    command.env("DNS", dns.port().to_string()).env("HTTP", http.to_string()).env("RUNTIME", "auto");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Unread(command.spawn().expect("it starts"));
    eventually("/ready", PATIENCE, || (get(http, "/ready")?.status == 200).then_some(()));

    let client = UdpClient::new();
    for id in 0..QUERIES {
        let query = Query::new("a.example.", "A").id(id).bytes();
        assert_eq!(client.ask(dns, &query, PATIENCE).expect("an answer").rcode, NOERROR);
    }
    // Longer than lines wait to be written.
    std::thread::sleep(Duration::from_millis(1200));
    for path in ["/health", "/ready", "/metrics"] {
        let began = Instant::now();
        assert_eq!(get(http, path).map(|page| page.status), Some(200), "{path}");
        assert!(began.elapsed() < Duration::from_secs(2), "{path} after {:?}", began.elapsed());
    }

    let mut sigterm = Command::new("sh");
    sigterm.args(["-c", &format!("kill -TERM {}", child.0.id())]);
    assert_eq!(run(sigterm).code, Some(0));
    let ended = eventually("its end", PATIENCE, || child.0.try_wait().expect("our child"));
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn sharing_a_port_is_said_aloud() {
    let upstream = Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")));
    let variables = [("UPSTREAM", &*upstream.addr().to_string())];
    let first = Agent::start(COREFILE, &variables);
    let warning = format!("[WARNING] another process already serves {} and shares its queries; ", first.dns);
    assert!(!first.process.dump().contains("another process"), "{}", first.process.dump());
    let second =
        Agent::try_start(COREFILE, &variables, first.dns, first.http).expect("two generations overlap");
    let told = second.process.wait_for_line(&warning, PATIENCE);
    let told = told.unwrap_or_else(|| panic!("not told: {}", second.process.dump()));
    assert!(told.contains(&format!("`ss -lunp sport = :{}`", first.dns.port())), "{told}");
    let about_http = format!("[WARNING] another process already serves http://{}, ", first.http);
    assert!(second.process.dump().contains(&about_http), "{}", second.process.dump());
}

#[test]
fn a_second_demo_on_one_port_is_refused() {
    let port = free_port().to_string();
    let first = Process::start(NODENS, &["demo", "-p", &port], &[]);
    assert!(first.wait_for_line("dig @127.0.0.1", PATIENCE).is_some(), "{}", first.dump());
    let second = nodens(&["demo", "-p", &port]);
    assert_eq!(second.code, Some(1), "{}", second.dump());
    assert!(second.err[0].contains("another program holds the port"), "{}", second.dump());
}

#[test]
fn dns_does_not_answer_before_everything_is_bound() {
    // Held alone: it cannot be shared.
    let http = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let (dns, directory) = (loopback(free_port()), Directory::create());
    let path = directory.write("Corefile", COREFILE);
    let mut command = Command::new(NODENS);
    command
        .args(["-conf", &path])
        .env("LAMEDUCK", "0s")
        .env("UPSTREAM", "127.0.0.1:1")
        .env("RUNTIME", "auto");
    command.env("DNS", dns.port().to_string());
    command.env("HTTP", http.local_addr().expect("bound").to_string());
    let ended = run(command);
    assert_eq!((ended.code, ended.err.len()), (Some(1), 1), "{}", ended.dump());
    assert!(!ended.out.iter().any(|line| line.contains("listening on")), "{}", ended.dump());
}
