//! `-sandbox`: a filter of our own on system calls, for all threads, from the moment the workers run.
//!
//! What is not on the list fails with EPERM. It does not kill: a call that a new C library makes and nobody foresaw
//! then costs one function, and not the DNS of the node; and what attackers need (a program, a debugger, another
//! namespace, executable memory) they do not get either way.
//!
//! | allowed | because |
//! | --- | --- |
//! | sockets of IPv4, IPv6, unix and netlink | DNS, HTTP, the node; no raw packets |
//! | files: open, read, write, rename, remove | Corefile and template, `/proc`; who the agent is decides which |
//! | memory that is not executable; threads, but no processes | buffers; a worker whose ring failed is replaced |
//! | `io_uring_enter`, `io_uring_register` | with the io_uring runtime alone; no new rings |
//!
//! What goes through a ring is not seen by any filter: with io_uring the sandbox is weaker. The programs of iptables
//! would need a list of their own, so with them there is no sandbox, and the log says so.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// Allowed whatever the arguments are. Found by tracing the end-to-end tests, and what the C library needs for threads.
const ALWAYS: &[libc::c_long] = &[
    // Descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_lseek,
    // Sockets; which ones is decided by `socket`.
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Time, chance, who and where we are.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    // Memory, but for what may be executed.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads and signals. Privileges can only be given up.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_membarrier,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Files.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_ftruncate,
    // The C library asks for a thread by this one, which hides its flags; see `without_clone3`.
    libc::SYS_clone3,
];

/// The same under older names, which this machine's C library still uses.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_rename,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// For rings that are there.
const OF_RINGS: &[libc::c_long] = &[libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Kinds of sockets.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Nonblocking, and how much there is to read.
const IOCTLS: [u64; 2] = [libc::FIONBIO, libc::FIONREAD];
/// Names of threads and memory; giving up privileges.
const PRCTLS: [libc::c_int; 4] =
    [libc::PR_SET_NAME, libc::PR_SET_VMA, libc::PR_SET_NO_NEW_PRIVS, libc::PR_CAP_AMBIENT];

/// Puts all threads under the filter, for good. The text says why that did not succeed.
pub fn enter(with_rings: bool) -> Result<(), String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let programs = [without_clone3(arch), only_listed(arch, with_rings)];
    for program in programs {
        let program = program.map_err(|error| error.to_string())?;
        apply_filter_all_threads(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn errno(code: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(code.unsigned_abs())
}

/// `clone3` is "not there": the C library then asks by `clone`, whose flags a filter can see.
fn without_clone3(arch: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    SeccompFilter::new(rules, SeccompAction::Allow, errno(libc::ENOSYS), arch)?.try_into()
}

fn only_listed(arch: TargetArch, with_rings: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let rings = if with_rings { OF_RINGS } else { &[] };
    let mut rules: BTreeMap<_, _> =
        ALWAYS.iter().chain(OLDER).chain(rings).map(|call| (*call, Vec::new())).collect();
    let is = |argument, value: u64| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![condition])
    };
    let has = |argument, mask: u64, value: u64| {
        let equal = SeccompCmpOp::MaskedEq(mask);
        SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, equal, value)?])
    };
    let number = |value: libc::c_int| u64::from(value.unsigned_abs());
    let socket = FAMILIES.iter().map(|family| is(0, number(*family))).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_socket, socket);
    rules.insert(libc::SYS_ioctl, IOCTLS.iter().map(|what| is(1, *what)).collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_prctl, PRCTLS.iter().map(|what| is(0, number(*what))).collect::<Result<_, _>>()?);
    let executable = number(libc::PROT_EXEC);
    rules.insert(libc::SYS_mmap, vec![has(2, executable, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![has(2, executable, 0)?]);
    let thread = number(libc::CLONE_THREAD);
    rules.insert(libc::SYS_clone, vec![has(0, thread, thread)?]);
    // Limits may be read: no new ones are given. A pointer has two halves.
    let nothing = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![nothing])?]);
    SeccompFilter::new(rules, errno(libc::EPERM), SeccompAction::Allow, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    //! A filter can never be removed, so each case runs in a process of its own: this program again, with one of the
    //! ignored tests.

    use std::io;
    use std::net::UdpSocket;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};
    use socket2::{Domain, Socket, Type};

    use super::*;

    fn run_alone(test: &str) {
        let this = std::env::current_exe().expect("the test program");
        let path = format!("privilege::sandbox::tests::{test}");
        let child = Command::new(this)
            .args(["--exact", &path, "--ignored", "--nocapture", "--test-threads=1"])
            .output()
            .expect("the test program runs");
        let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert!(child.status.success() && out.contains("1 passed"), "{test}: {out}{err}");
    }

    fn is_refused<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
    }

    #[test]
    fn programs_processes_raw_sockets_and_namespaces_are_refused_and_work_goes_on() {
        run_alone("child_tries_what_is_not_on_the_list");
    }

    #[test]
    #[ignore = "started by another test, in a process of its own"]
    fn child_tries_what_is_not_on_the_list() {
        enter(false).expect("a filter can be set");
        assert!(is_refused(Err::<(), _>(Command::new("/bin/true").exec())), "execve");
        assert!(is_refused(Command::new("/bin/true").status()), "another process");
        assert!(is_refused(Socket::new(Domain::PACKET, Type::RAW, None)), "raw packets");
        assert!(is_refused(unshare(CloneFlags::CLONE_NEWUSER).map_err(Into::into)), "a namespace");
        assert!(
            is_refused(
                nix::sys::socket::socketpair(
                    nix::sys::socket::AddressFamily::Unix,
                    nix::sys::socket::SockType::Stream,
                    None,
                    nix::sys::socket::SockFlag::empty()
                )
                .map_err(Into::into)
            ),
            "what nobody needs"
        );
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_nonblocking(true).expect("an option");
        let read = std::thread::spawn(|| std::fs::read_to_string("/proc/self/status"));
        let status = read.join().expect("a thread").expect("a file");
        assert!(status.contains("Seccomp:\t2"), "{status}");
        assert!(crate::privilege::Bare::default().run(|| ()).is_ok(), "privileges can be given up");
    }

    #[test]
    #[cfg(feature = "uring")]
    fn no_new_ring_with_either_runtime() {
        run_alone("child_without_rings");
        run_alone("child_with_rings");
    }

    #[test]
    #[cfg(feature = "uring")]
    #[ignore = "started by another test, in a process of its own"]
    fn child_without_rings() {
        enter(false).expect("a filter can be set");
        let why = nodens_runtime_uring::probe().expect_err("it is blocked").to_string();
        assert!(why.contains("seccomp profile"), "{why}");
    }

    #[test]
    #[cfg(feature = "uring")]
    #[ignore = "started by another test, in a process of its own"]
    fn child_with_rings() {
        enter(true).expect("a filter can be set");
        let why =
            nodens_runtime_uring::probe().expect_err("rings that are there go on, no others").to_string();
        assert!(why.contains("could not set up a ring"), "{why}");
    }
}
