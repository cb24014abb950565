//! The real binary at its start: what it says when it cannot, in how many lines, with which exit code; and what does not stop it.

mod support;

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nodens_testkit::msg::rcode::{NOERROR, SERVFAIL};
use nodens_testkit::{Process, Query, Upstream, answers, ask_udp, free_port};

use support::{
    Agent, COREFILE, Directory, Ended, NODENS, PATIENCE, eventually, get, loopback, nodens, run, runtime,
    skip, tool,
};

/// Somebody who is nobody: no privileges.
const NOBODY: &str = "65534";

fn world() -> Upstream {
    Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")))
}

/// Runs nodens with a Corefile that it is to refuse.
fn refused(corefile: &str, variables: &[(&str, &str)]) -> Ended {
    let directory = Directory::create();
    let path = directory.write("Corefile", corefile);
    let mut command = Command::new(NODENS);
    command.args(["-conf", &path]).envs(variables.iter().copied());
    let mut ended = run(command);
    // So that tests need not know the name of a temporary directory.
    ended.err = ended.err.iter().map(|line| line.replace(&path, "Corefile")).collect();
    ended
}

/// One line on standard error, exit code 1.
fn one_line(ended: &Ended) -> &str {
    assert_eq!(ended.code, Some(1), "{}", ended.dump());
    let [line] = ended.err.as_slice() else { panic!("not one line: {}", ended.dump()) };
    line
}

#[test]
fn a_mistake_in_the_corefile_is_shown_where_it_is_and_what_would_be_right() {
    let corefile = ".:5300 {\n    bind 127.0.0.1\n    forward . 127.0.0.1\n    cache 30 {\n        prefech 10\n    }\n}\n";
    let wanted = [
        "Corefile:5:9: error: unknown property `prefech` of `cache`",
        "            prefech 10",
        "            ^^^^^^^",
        "help: did you mean `prefetch`?",
    ];
    let directory = Directory::create();
    let path = directory.write("Corefile", corefile);
    for arguments in [vec!["check", &path], vec!["-conf", &path], vec!["run", "-conf", &path]] {
        let ended = nodens(&arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.dump());
        let lines: Vec<_> = ended.err.iter().map(|line| line.replace(&path, "Corefile")).collect();
        assert_eq!(&lines[..4], wanted, "{arguments:?}");
        assert!(ended.out.is_empty(), "nothing was started: {}", ended.dump());
    }
}

#[test]
fn every_mistake_is_told_at_once_and_what_is_not_there_yet_is_refused_by_name() {
    let ended = refused(
        ".:5300 {\n    forward . 127.0.0.1 {\n        max_idle_conns 3\n    }\n    loadbalance\n    cache 30 {\n        serve_stale\n    }\n}\n",
        &[],
    );
    assert_eq!(ended.code, Some(2), "{}", ended.dump());
    let text = ended.err.join("\n");
    for (place, name) in [
        ("Corefile:3:9:", "max_idle_conns"),
        ("Corefile:5:5:", "loadbalance"),
        ("Corefile:7:9:", "serve_stale"),
    ] {
        let line = ended.err.iter().find(|line| line.starts_with(place));
        let line = line.unwrap_or_else(|| panic!("nothing about {place}\n{text}"));
        assert!(line.contains(": error: ") && line.contains(&format!("`{name}`")), "{line}");
    }
}

#[test]
fn a_good_corefile_passes_the_check_and_what_has_no_effect_is_a_warning() {
    let directory = Directory::create();
    let path = directory.write("Corefile", ".:5300 {\n    debug\n    forward . 127.0.0.1\n}\n");
    let ended = nodens(&["check", &path]);
    assert_eq!((ended.code, ended.err.len()), (Some(0), 0), "{}", ended.dump());
    let warning = format!("{path}:2:5: warning: `debug` has no effect: it changes CoreDNS' own logging");
    assert!(ended.out.contains(&warning), "{}", ended.dump());
    assert!(
        ended.out.last().is_some_and(|line| line.starts_with(&format!("{path}: good; "))),
        "{}",
        ended.dump()
    );
    let quiet = nodens(&["check", "-quiet", &path]);
    assert!(quiet.code == Some(0) && !quiet.out.contains(&warning), "{}", quiet.dump());

    let upstream = world();
    let agent = Agent::start(
        &COREFILE.replace("errors\n", "errors\n    debug\n"),
        &[("UPSTREAM", &upstream.addr().to_string())],
    );
    let lines = agent.process.stdout_lines();
    let told =
        lines.iter().filter(|line| line.starts_with("[WARNING] ") && line.contains("`debug` has no effect"));
    assert_eq!(told.count(), 1, "{lines:?}");
}

#[test]
fn flags_that_nobody_knows_get_the_nearest_name() {
    for (arguments, wanted) in [
        (&["-confg", "x"][..], ["nodens: unknown flag `-confg`", "help: did you mean `-conf`?"]),
        (&["--quite"], ["nodens: unknown flag `-quite`", "help: did you mean `-quiet`?"]),
        (&["chekc", "x"], ["nodens: unexpected argument `chekc`", "help: did you mean `nodens check`?"]),
        (
            &["-workers", "none"],
            ["nodens: `none` is not a value for `-workers`", "help: write a whole number from 1 to 256"],
        ),
    ] {
        let ended = nodens(arguments);
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{}", ended.dump());
        assert_eq!(ended.err, wanted);
    }
}

#[test]
fn texts_that_were_asked_for_go_to_standard_output() {
    let version = nodens(&["--version"]);
    assert_eq!(version.code, Some(0));
    assert_eq!(version.out[0], concat!("nodens-", env!("CARGO_PKG_VERSION")));
    for arguments in [["--help"], ["-h"], ["help"]] {
        let help = nodens(&arguments);
        assert_eq!((help.code, help.err.len()), (Some(0), 0), "{}", help.dump());
        let text = help.out.join("\n");
        assert!(text.contains("Usage:") && text.contains("-conf FILE") && text.contains("nodens check FILE"));
    }
    let plugins = nodens(&["-plugins"]);
    assert!(plugins.code == Some(0) && plugins.out.contains(&"  forward".to_owned()), "{}", plugins.dump());
}

#[test]
fn a_port_that_somebody_holds_is_told_in_one_line() {
    let corefile = ".:{$PORT} {\n    bind 127.0.0.1\n    forward . 127.0.0.1:1\n}\n";
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = udp.local_addr().expect("bound").port().to_string();
    let ended = refused(corefile, &[("PORT", &port)]);
    let line = one_line(&ended);
    assert!(line.starts_with(&format!(
        "nodens: cannot listen on 127.0.0.1:{port} (UDP): another program holds the port"
    )));
    assert!(line.contains(&format!("`ss -lunp sport = :{port}` names it; stop it")), "{line}");

    let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = tcp.local_addr().expect("bound").port().to_string();
    let ended = refused(corefile, &[("PORT", &port)]);
    let line = one_line(&ended);
    assert!(line.contains(&format!("127.0.0.1:{port} (TCP): ")) && line.contains("`ss -ltnp"), "{line}");
}

#[test]
fn an_http_port_that_somebody_holds_is_told_in_one_line() {
    let http = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let addr = http.local_addr().expect("bound");
    let free = free_port().to_string();
    let corefile = ".:{$PORT} {\n    bind 127.0.0.1\n    forward . 127.0.0.1:1\n    health {$HTTP}\n    prometheus {$HTTP}\n}\n";
    let ended = refused(corefile, &[("PORT", &free), ("HTTP", &addr.to_string())]);
    let line = one_line(&ended);
    let wanted = format!(
        "nodens: cannot serve /health and /metrics on {addr}: another process has this port; stop it"
    );
    assert!(line.starts_with(&wanted), "{line}");
    UdpSocket::bind(loopback(free.parse().expect("a port"))).expect("its DNS port is free again");
}

#[test]
fn without_privilege_port_53_is_told_in_one_line() {
    let directory = Directory::create();
    let path = directory.write("Corefile", ". {\n    bind 127.0.0.1\n    forward . 127.0.0.1:1\n}\n");
    let Some(setpriv) = tool("setpriv", "util-linux") else { return };
    // A binary that anybody may run, whatever the rights of the target directory. Not copied by this process: a test that
    // starts a child meanwhile would hand on the file while it is being written, and the kernel runs no such file.
    let copy = directory.path("nodens");
    let mut install = Command::new("install");
    install.args(["-m", "755", NODENS, &copy]);
    assert_eq!(run(install).code, Some(0));
    let unprivileged = |arguments: &[&str]| {
        let mut command = Command::new(&setpriv);
        command.args(["--reuid", NOBODY, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--"]);
        command.arg(&copy).args(arguments);
        run(command)
    };
    if unprivileged(&["check", &path]).code != Some(0) {
        return skip("this user cannot run a program as nobody");
    }
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first.trim().parse().unwrap_or(1024) <= 53 {
        return skip("this machine lets everybody bind port 53");
    }
    let ended = unprivileged(&["-conf", &path]);
    let line = one_line(&ended);
    assert!(
        line.starts_with("nodens: cannot listen on 127.0.0.1:53 (UDP): port 53 is privileged; "),
        "{line}"
    );
    assert!(line.contains("CAP_NET_BIND_SERVICE") && line.contains("-dns.port"), "{line}");
}

#[test]
fn upstreams_that_are_not_there_do_not_stop_the_start() {
    let upstream = world();
    upstream.stop();
    let agent = Agent::before(upstream.addr());
    assert_eq!(agent.get("/ready").expect("served").status, 200);
    let query = Query::new("a.example.", "A");
    assert_eq!(agent.udp(&query).rcode, SERVFAIL, "told, not left waiting");
    upstream.restart();
    eventually("answers", PATIENCE, || (agent.udp(&query).rcode == NOERROR).then_some(()));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let directory = Directory::create();
    let path = directory.path("Corefile");
    let ended = nodens(&["-conf", &path]);
    assert_eq!(ended.code, Some(2), "{}", ended.dump());
    assert!(ended.err[0].contains(&path) && ended.err[0].contains("No such file"), "{}", ended.dump());
}

#[test]
fn the_pid_file_is_written_and_quiet_is_quiet() {
    let (upstream, directory) = (world(), Directory::create());
    let (dns, http) = (loopback(free_port()), loopback(free_port()));
    let (path, pid) = (directory.write("Corefile", COREFILE), directory.path("pid"));
    let mut command = Command::new(NODENS);
    command
        .args(["-conf", &path, "-pidfile", &pid, "-quiet"])
        .env("LAMEDUCK", "0s")
        .env("RUNTIME", runtime());
    command.env("DNS", dns.port().to_string()).env("HTTP", http.to_string());
    command.env("UPSTREAM", upstream.addr().to_string());
    let process = Process::spawn(command);
    eventually("/ready", PATIENCE, || (get(http, "/ready")?.status == 200).then_some(()));
    let written = std::fs::read_to_string(&pid).expect("written before it is ready");
    assert_eq!(written, format!("{}\n", process.pid()));
    let reply = ask_udp(dns, &Query::new("a.example.", "A").bytes()).expect("an answer");
    assert_eq!(reply.rcode, NOERROR);
    // Longer than lines stay in its buffer.
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(process.dump(), "");
}
