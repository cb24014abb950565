//! The binary itself: a short load against its own echo program, and against its own upstream, as a user would start them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const BENCH: &str = env!("CARGO_BIN_EXE_nodens-bench");

/// A server of the binary, killed when dropped. It would end by itself after `--seconds`.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(BENCH);
        command.args(arguments).args(["--seconds", "60"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("its address").to_string();
        Server { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `load --json` against a server and returns a number of its report.
fn load(server: &Server, arguments: &[&str]) -> impl Fn(&str) -> f64 {
    let pid = server.child.id().to_string();
    let mut command = Command::new(BENCH);
    command.args(["load", "--json", "--target", &server.address, "--pid", &pid]).args(arguments);
    let output = command.output().expect("the binary starts");
    let json = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{json}{}", String::from_utf8_lossy(&output.stderr));
    move |name| {
        let start = json.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} is not in {json}"));
        let value = json[start..].split([':', ',', '}']).nth(1).expect("a value");
        value.parse().unwrap_or_else(|_| panic!("{name} is {value} in {json}"))
    }
}

#[test]
fn load_against_each_echo_program_for_300_ms() {
    let kinds: &[&str] = if cfg!(feature = "uring") {
        &["recvfrom", "mmsg", "tokio", "tokio-uring", "multishot"]
    } else {
        &["recvfrom", "mmsg", "tokio"]
    };
    for kind in kinds {
        let server = Server::start(&["echo", "--kind", kind]);
        let found = load(&server, &["--echo", "--hits-only", "--seconds", "0.3", "--sockets", "4"]);
        assert!(found("answered") > 100.0 && found("strays") == 0.0, "{kind}");
        assert_eq!((found("answered") + found("lost"), found("other")), (found("sent"), 0.0), "{kind}");
        assert!(found("p50_us") > 0.0 && found("p50_us") <= found("max_us"), "{kind}");
        assert!(found("server_rss_kib") > 100.0, "{kind}");
    }
}

#[test]
fn a_bounded_mix_at_a_fixed_rate_gets_the_answers_that_its_names_promise() {
    let server = Server::start(&["upstream"]);
    let found = load(&server, &["--queries", "400", "--rate", "2000", "--seconds", "20"]);
    assert_eq!((found("sent"), found("answered"), found("lost")), (400.0, 400.0, 0.0));
    assert_eq!((found("serv_fail"), found("other")), (0.0, 0.0));
    assert!(found("positive") > 40.0 && found("no_data") > 10.0 && found("nx_domain") > 100.0);
    // 400 at 2000/s are 200 ms; a busy machine may take longer, never less.
    assert!(found("seconds") > 0.19, "{}", found("seconds"));
}

#[test]
fn silence_is_lost_and_the_run_ends() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let mut command = Command::new(BENCH);
    command.args([
        "load",
        "--json",
        "--misses",
        "--target",
        &address,
        "--queries",
        "50",
        "--timeout-ms",
        "100",
    ]);
    let output = command.output().expect("the binary starts");
    let json = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(json.contains("\"sent\":50,") && json.contains("\"answered\":0,\"lost\":50,"), "{json}");
}

#[test]
fn mistakes_end_with_exit_code_2_and_a_reason() {
    for wrong in [&["load"][..], &["echo", "--kind", "none"], &["sing"], &["upstream", "--prot", "1"]] {
        let output =
            Command::new(BENCH).args(wrong).stdout(Stdio::null()).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty());
    }
}
