//! The choice of a runtime by the real binary: io_uring where it may be used, epoll where a container's seccomp profile forbids it.
#![cfg(all(feature = "tokio", feature = "uring"))]

mod support;

use std::process::Command;

use nodens_testkit::{Process, Query, Upstream, answers, free_port};

use support::{Directory, NODENS, PATIENCE, loopback, tool};

/// Installs a filter that refuses `io_uring_setup` (425) with the error given, as container runtimes' default profiles do, and
/// becomes nodens. A filter cannot be taken off again, so it needs a process of its own, and one that may make such a call.
const REFUSING: &str = r#"
import ctypes, os, struct, sys
code = int(sys.argv[1])
filter = b"".join(struct.pack("HBBI", *row) for row in [
    (0x20, 0, 0, 0),                    # load the number of the call
    (0x15, 0, 1, 425),                  # io_uring_setup?
    (0x06, 0, 0, 0x00050000 | code),    # then fail with this error
    (0x06, 0, 0, 0x7fff0000),           # else go on
])
buffer = ctypes.create_string_buffer(filter)
program = struct.pack("HxxxxxxP", len(filter) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
zero = ctypes.c_ulong(0)
assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0, "no_new_privs"
assert libc.prctl(22, ctypes.c_ulong(2), ctypes.c_char_p(program), zero, zero) == 0, "seccomp"
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn refused_with(code: i32, runtime: &str) -> Option<(Process, u16, Directory, Upstream)> {
    let python = tool("python3", "python3")?;
    let upstream = Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")));
    let directory = Directory::create();
    let port = free_port();
    let corefile = directory.write(
        "Corefile",
        &format!(".:{port} {{\n    bind 127.0.0.1\n    cache\n    forward . {}\n}}\n", upstream.addr()),
    );
    let mut command = Command::new(python);
    command.args(["-c", REFUSING, &code.to_string(), NODENS, "-conf", &corefile, "-runtime", runtime]);
    Some((Process::spawn(command), port, directory, upstream))
}

#[test]
fn f12_where_io_uring_is_forbidden_epoll_serves_and_the_log_names_the_suspect() {
    // EPERM from most profiles, ENOSYS from some.
    for code in [1, 38] {
        let Some((process, port, _directory, _upstream)) = refused_with(code, "auto") else { return };
        let line =
            process.wait_for_line("runtime tokio:", PATIENCE).unwrap_or_else(|| panic!("{}", process.dump()));
        assert!(line.contains("io_uring is not available") && line.contains("seccomp"), "{line}");
        assert!(process.wait_for_line("[INFO] ready", PATIENCE).is_some(), "{}", process.dump());
        let reply = nodens_testkit::ask_udp(loopback(port), &Query::new("www.example.", "A").bytes());
        assert_eq!(reply.expect("an answer").rdatas("A"), ["192.0.2.1"]);
    }
}

#[test]
fn f12_who_insists_on_io_uring_is_told_why_it_cannot_be_had() {
    let Some((mut process, _, _directory, _upstream)) = refused_with(1, "uring") else { return };
    assert_eq!(process.wait(PATIENCE).and_then(|status| status.code()), Some(2), "{}", process.dump());
    let text = process.dump();
    assert!(text.contains("io_uring is not available") && text.contains("`auto`"), "{text}");
}
