//! The command line, row by row.

use super::*;

fn read(line: &str) -> Result<Command, String> {
    parse(line.split_whitespace().map(OsString::from)).map_err(|e| e.to_string())
}

fn run(line: &str) -> RunOptions {
    match read(line) {
        Ok(Command::Run(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn no_arguments_run_the_default_corefile() {
    assert_eq!(run(""), RunOptions::default());
    assert_eq!(run("").corefile_path(), Path::new("/etc/Corefile"));
    assert_eq!(run("run"), RunOptions::default());
    assert_eq!(run("-corefile /a").corefile_path(), Path::new("/a"));
    assert_eq!(run("-corefile /a -conf /b").corefile_path(), Path::new("/b"));
}

#[test]
fn go_spellings_of_one_flag() {
    for line in
        ["-dns.port 5353", "-dns.port=5353", "--dns.port 5353", "--dns.port=5353", "-p 5353", "-p 53 -p 5353"]
    {
        assert_eq!(run(line).dns_port, 5353, "{line}");
    }
}

#[test]
fn go_spellings_of_a_switch() {
    for on in ["", "=true", "=1", "=t", "=T", "=TRUE", "=True"] {
        assert!(run(&format!("-skipteardown{on}")).skipteardown, "{on}");
    }
    for off in ["=false", "=0", "=f", "=F", "=FALSE", "=False"] {
        assert!(!run(&format!("-setupiptables{off}")).setupiptables, "{off}");
    }
    assert!(
        read("-skipteardown=yes")
            .unwrap_err()
            .starts_with("nodens: `yes` is not a value for `-skipteardown`")
    );
}

/// The arguments of the chart that the agent replaces, untouched.
#[test]
fn the_arguments_of_an_unchanged_daemonset() {
    let line = "-localip 169.254.20.10 -conf /etc/coredns/Corefile -upstreamsvc node-local-upstream \
                -setupiptables=true -skipteardown=true -forwardonexit=false";
    let options = run(line);
    assert_eq!(options.corefile_path(), Path::new("/etc/coredns/Corefile"));
    assert_eq!(options.localip, ["169.254.20.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(options.upstreamsvc, "node-local-upstream");
    assert!(options.setupiptables && options.skipteardown && !options.forwardonexit);
}

#[test]
fn the_sync_interval_means_what_was_meant() {
    for (text, seconds) in [("60", 60), ("30s", 30), ("1m30s", 90), ("60ns", 60), ("1h", 3600)] {
        assert_eq!(
            run(&format!("-syncinterval {text}")).syncinterval,
            Duration::from_secs(seconds),
            "{text}"
        );
    }
    for text in ["0", "-1", "-30s", "10ms", "soon", ""] {
        assert!(read(&format!("-syncinterval={text}")).is_err(), "{text}");
    }
}

#[test]
fn addresses_and_numbers_are_checked() {
    let v4_and_v6 = run("-localip=169.254.20.10,fd00::10").localip;
    assert_eq!(v4_and_v6, ["169.254.20.10".parse::<IpAddr>().unwrap(), "fd00::10".parse().unwrap()]);
    assert_eq!(run("-metrics-listen-address localhost:1").metrics_listen_address, ListenAddr::localhost(1));
    assert_eq!(run("-workers 3").workers, Some(3));
    assert_eq!(run("-runtime uring").runtime, Some(RuntimeChoice::Uring));
    for line in [
        "-localip 1.2.3",
        "-dns.port 65536",
        "-dns.port x",
        "-metrics-listen-address 9353",
        "-health-port -1",
        "-workers 0",
        "-workers 257",
        "-runtime epoll",
        "-interfacename=",
        "-interfacename sixteen-letters-",
        "-interfacename a/b",
        "-interfacename lo",
        "-localip 0.0.0.0",
        "-localip ff02::1",
        "-packetrules ebtables",
        "-corefile=",
    ] {
        assert!(read(line).unwrap_err().contains("is not a value for"), "{line}");
    }
}

#[test]
fn the_other_commands() {
    let command = read;
    let check =
        |file: &str, dns_port, quiet| Ok(Command::Check(CheckOptions { file: file.into(), dns_port, quiet }));
    assert_eq!(command("check a"), check("a", 53, false));
    assert_eq!(command("check -dns.port 1053 a -quiet"), check("a", 1053, true));
    assert_eq!(command("check -conf a"), check("a", 53, false));
    assert_eq!(command("check -- -a"), check("-a", 53, false));
    assert_eq!(command("check -"), check("-", 53, false));
    let demo = DemoOptions { port: 5300, quiet: false, workers: None, runtime: None };
    assert_eq!(command("demo"), Ok(Command::Demo(demo.clone())));
    let tuned = DemoOptions { port: 1053, workers: Some(1), runtime: Some(RuntimeChoice::Tokio), ..demo };
    assert_eq!(command("demo -p 1053 -workers 1 -runtime tokio"), Ok(Command::Demo(tuned)));
    for line in ["help", "-help", "--help", "-h", "check --help", "-version -h", "-conf x -help"] {
        assert_eq!(command(line), Ok(Command::Help), "{line}");
    }
    let node = |line: &str| match command(line) {
        Ok(Command::Node(NodeOptions { verb, flags })) => (verb, flags.localip.len(), flags.health_port),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(node("node plan -localip 169.254.20.10"), (NodeVerb::Plan, 1, 8080));
    assert_eq!(node("node -localip 169.254.20.10,fd00::1 -health-port 1 apply"), (NodeVerb::Apply, 2, 1));
    assert_eq!(node("node remove -localip 169.254.20.10,169.254.20.10"), (NodeVerb::Remove, 1, 8080));
    assert_eq!(command("--version"), Ok(Command::Version));
    assert_eq!(command("-plugins"), Ok(Command::Plugins));
    assert!(matches!(command("-version=false"), Ok(Command::Run(_))));
}

#[test]
fn what_cannot_be_understood_is_answered_with_what_would_be_right() {
    for (line, text) in [
        ("-localp 1.2.3.4", "nodens: unknown flag `-localp`\nhelp: did you mean `-localip`?"),
        ("--skip-teardown", "nodens: unknown flag `-skip-teardown`\nhelp: did you mean `-skipteardown`?"),
        ("-x", "nodens: unknown flag `-x`\nhelp: `nodens help` lists all flags"),
        ("-frobnicate", "nodens: unknown flag `-frobnicate`\nhelp: `nodens help` lists all flags"),
        ("-=1", "nodens: unknown flag `-`\nhelp: `nodens help` lists all flags"),
        ("-conf", "nodens: `-conf` needs a value\nhelp: write `-conf FILE`"),
        ("chek a", "nodens: unexpected argument `chek`\nhelp: did you mean `nodens check`?"),
        (
            "-skipteardown true",
            "nodens: unexpected argument `true`\nhelp: the value of a switch is written with `=`, as in `-skipteardown=true`",
        ),
        ("check", "nodens: `check` needs a file\nhelp: write `nodens check FILE`"),
        (
            "node",
            "nodens: `node` needs to know what to do\nhelp: write `nodens node plan`, `apply` or `remove`",
        ),
        ("node make", "nodens: `node` cannot `make`\nhelp: write `nodens node plan`, `apply` or `remove`"),
        (
            "node plan",
            "nodens: `node` needs the addresses it is about\nhelp: write `-localip 169.254.20.10`, and the other flags as the agent \
             has them",
        ),
        (
            "node plan -skipteardown",
            "nodens: `-skipteardown` means nothing to `node`\nhelp: `nodens help` says which flags each command takes",
        ),
        ("check a b", "nodens: unexpected argument `b`\nhelp: `nodens help` shows what can be written"),
        (
            "check a -pidfile b",
            "nodens: `-pidfile` means nothing to `check`\nhelp: `nodens help` says which flags each command takes",
        ),
        ("-dns.port x", "nodens: `x` is not a value for `-dns.port`\nhelp: write a whole number up to 65535"),
    ] {
        assert_eq!(read(line).unwrap_err(), text, "{line}");
    }
}

#[test]
fn an_argument_that_is_not_utf8_is_an_error() {
    use std::os::unix::ffi::OsStringExt;
    assert!(parse([OsString::from_vec(vec![b'-', 0xff])]).unwrap_err().to_string().contains("is not UTF-8"));
}

/// The table repeats defaults as text. Setting each to its own text must change nothing.
#[test]
fn the_defaults_shown_are_the_defaults() {
    for flag in FLAGS {
        if let Value::Text { default, .. } = &flag.value
            && !default.is_empty()
        {
            assert_eq!(
                run(&format!("-{} {default}", flag.names[0])),
                RunOptions::default(),
                "-{}",
                flag.names[0]
            );
        }
    }
}

#[test]
fn the_help_text_names_every_flag_and_fits() {
    let text = help_text();
    for flag in FLAGS {
        assert!(text.contains(&format!("  -{}", flag.names[0])), "-{}", flag.names[0]);
    }
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert_eq!(line.trim_end(), line);
    }
    assert!(text.contains("-localip IP,…"));
    assert!(version_text().starts_with("nodens-"));
}
