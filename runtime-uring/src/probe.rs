//! Whether io_uring can be used here, found out by using it; and if not, who is probably in the way.
//!
//! The system calls may be there and refused, or allowed while the one operation we need is missing. So the probe asks the kernel for
//! its list of operations, then sets up both rings as a worker does, and sends a datagram each way through a pair of sockets. It
//! takes less than a millisecond and touches no network.

use crate::datagrams::{Arrival, Datagrams, Receiver};
use crate::ring::{DATAGRAM_OPCODES, RingError, STREAM_OPCODES, stream_runtime};
use io_uring::{IoUring, Probe};
use nix::libc;
use nodens_core::{Duration, ListenerId, Path};
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::time::Instant;
use std::{fmt, fs, io, thread};

/// How long the probe waits for its own datagrams, which arrive at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tries everything that a worker will do with its rings.
pub fn probe() -> Result<(), Unavailable> {
    // A ring belongs to the thread that made it, and the caller may be inside of another runtime.
    match thread::Builder::new().name("nodens-probe".to_owned()).spawn(try_all).map(thread::JoinHandle::join)
    {
        Ok(Ok(result)) => result.map_err(Unavailable::from),
        Ok(Err(_)) => Err(failed("probe, which is a defect of nodens", libc::EIO).into()),
        Err(e) => Err(RingError::new("start a thread for the probe", e).into()),
    }
}

fn try_all() -> Result<(), RingError> {
    let ring = IoUring::new(8).map_err(|e| RingError::new("set up a ring", e))?;
    let mut known = Probe::new();
    ring.submitter().register_probe(&mut known).map_err(|e| RingError::new("list its operations", e))?;
    if DATAGRAM_OPCODES.iter().chain(&STREAM_OPCODES).any(|code| !known.is_supported(*code)) {
        return Err(failed("find an operation that nodens needs", libc::EINVAL));
    }
    drop(ring);
    drop(stream_runtime().map_err(|e| RingError::new("set up a ring", e))?);
    try_datagrams()
}

/// Both ways a datagram goes in, the way out, and the end.
fn try_datagrams() -> Result<(), RingError> {
    let pair = || UnixDatagram::pair().map_err(|e| RingError::new("make a pair of sockets", e));
    let ((client, listener), (upstream, path_socket)) = (pair()?, pair()?);
    let path = Path { slot: 0, generation: 0 };
    let mut ring = Datagrams::new()?;
    ring.add_listener(ListenerId(0), Rc::new(listener), false)?;
    ring.receive(path, &path_socket);
    ring.submit()?;
    let deadline = Instant::now() + PATIENCE;
    for (sender, socket) in [
        (&client, Receiver::Listener(0)),
        (&upstream, Receiver::Path(path)),
        (&client, Receiver::Listener(0)),
    ] {
        sender.send(b"query").map_err(|e| RingError::new("send to itself", e))?;
        let arrival = loop {
            if let Some(arrival) = ring.next() {
                break arrival;
            }
            if Instant::now() > deadline {
                return Err(failed("receive a datagram", libc::ETIME));
            }
            ring.wait()?;
        };
        match arrival {
            Arrival { socket: from, result: Ok(Some(buffer)) } if from == socket => {
                let message = match socket {
                    Receiver::Listener(index) => {
                        ring.datagram(index, &buffer).map(|datagram| datagram.message)
                    }
                    Receiver::Path(_) => Some(ring.message(Some(&buffer))),
                };
                if message != Some(b"query") {
                    return Err(failed("receive a datagram whole", libc::EINVAL));
                }
                ring.give_back(buffer);
            }
            Arrival { result: Err(code), .. } => return Err(failed("receive a datagram", code)),
            Arrival { .. } => return Err(failed("receive into the shared buffers", libc::EINVAL)),
        }
    }
    ring.send(0, None, None, b"answer");
    ring.submit()?;
    let mut buffer = [0; 16];
    client.set_nonblocking(true).map_err(|e| RingError::new("make a socket nonblocking", e))?;
    // Sending without waiting is done when it is submitted.
    let len = client.recv(&mut buffer).map_err(|e| RingError::new("send a datagram", e))?;
    if buffer[..len] != *b"answer" {
        return Err(failed("send a datagram whole", libc::EINVAL));
    }
    if ring.close() { Ok(()) } else { Err(failed("cancel what waits", libc::EINVAL)) }
}

fn failed(doing: &'static str, code: i32) -> RingError {
    RingError::new(doing, io::Error::from_raw_os_error(code))
}

/// What is wrong with io_uring here, in kinds that call for different remedies.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Cause {
    /// EPERM, EACCES: there, but not for us.
    Forbidden,
    /// ENOSYS: the system call is not there, or is hidden.
    Missing,
    /// EINVAL, EOPNOTSUPP: there, without something that nodens needs.
    TooOld,
    /// ENOMEM: rings count as locked memory on some kernels, or a limit is reached.
    NoMemory,
    /// Anything else.
    Other,
}

impl Cause {
    /// For metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Cause::Forbidden => "forbidden",
            Cause::Missing => "missing",
            Cause::TooOld => "too_old",
            Cause::NoMemory => "no_memory",
            Cause::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Cause::Forbidden,
            Some(libc::ENOSYS) => Cause::Missing,
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Cause::TooOld,
            Some(libc::ENOMEM) => Cause::NoMemory,
            _ => Cause::Other,
        }
    }
}

/// io_uring cannot be used here: which step failed, who is probably in the way, what to do.
#[derive(Debug)]
pub struct Unavailable {
    /// The kind of obstacle.
    pub cause: Cause,
    /// The step that failed, and what the kernel said.
    pub error: RingError,
    /// Who is probably in the way, and what to do.
    pub advice: &'static str,
}

impl From<RingError> for Unavailable {
    fn from(error: RingError) -> Self {
        let cause = Cause::of(&error.cause);
        Unavailable { cause, error, advice: advice(cause, &Surroundings::look()) }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RingError { doing, cause } = &self.error;
        write!(f, "io_uring is not available: could not {doing} ({cause}); {}", self.advice)
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// What tells suspects apart.
struct Surroundings {
    /// The sysctl `kernel.io_uring_disabled`, where it exists (6.6).
    disabled: u8,
    /// A seccomp filter is on this thread.
    filtered: bool,
}

impl Surroundings {
    fn look() -> Self {
        let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        Surroundings {
            disabled: sysctl.trim().parse().unwrap_or(0),
            filtered: status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])),
        }
    }
}

fn advice(cause: Cause, around: &Surroundings) -> &'static str {
    match (cause, around) {
        (Cause::Forbidden, Surroundings { disabled: 2.., .. }) => {
            "the sysctl kernel.io_uring_disabled is 2 on this node, which forbids it to everybody; set it to 0, or use the tokio runtime"
        }
        (Cause::Forbidden, Surroundings { disabled: 1, .. }) => {
            "the sysctl kernel.io_uring_disabled is 1 on this node, which leaves it to CAP_SYS_ADMIN and the group in \
             kernel.io_uring_group; add the agent to that group, or use the tokio runtime"
        }
        (Cause::Forbidden | Cause::Missing, Surroundings { filtered: true, .. }) => {
            "probably the container's seccomp profile blocks it, as the defaults of containerd and Docker do; run the Pod with a \
             profile that allows io_uring_setup, io_uring_enter and io_uring_register, or use the tokio runtime"
        }
        (Cause::Forbidden, _) => {
            "a security module (SELinux, AppArmor) is probably in the way; allow io_uring there, or use the tokio runtime"
        }
        (Cause::Missing, _) => {
            "this kernel was built without it, or a sandbox such as gVisor stands in for the kernel; use the tokio runtime"
        }
        (Cause::TooOld, _) => "nodens needs it as in Linux 6.1; use a newer kernel, or the tokio runtime",
        (Cause::NoMemory, _) => {
            "no memory for the rings: raise the Pod's memory limit or, on kernels that count rings as locked memory, \
             RLIMIT_MEMLOCK; or use the tokio runtime"
        }
        (Cause::Other, _) => "use the tokio runtime, and please report this",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice_for(code: i32, disabled: u8, filtered: bool) -> &'static str {
        advice(Cause::of(&io::Error::from_raw_os_error(code)), &Surroundings { disabled, filtered })
    }

    #[test]
    fn each_suspect_is_named_where_it_fits() {
        let rows = [
            (libc::EPERM, 0, true, "seccomp profile"),
            (libc::EPERM, 2, true, "io_uring_disabled is 2"),
            (libc::EPERM, 1, false, "io_uring_group"),
            (libc::EPERM, 0, false, "SELinux"),
            (libc::EACCES, 0, false, "SELinux"),
            (libc::ENOSYS, 0, true, "seccomp profile"),
            (libc::ENOSYS, 0, false, "gVisor"),
            (libc::EINVAL, 0, false, "Linux 6.1"),
            (libc::ENOMEM, 0, false, "RLIMIT_MEMLOCK"),
            (libc::EIO, 0, false, "report"),
        ];
        for (code, disabled, filtered, suspect) in rows {
            let text = advice_for(code, disabled, filtered);
            assert!(text.contains(suspect) && text.contains("tokio runtime"), "{code}: {text}");
        }
    }
}
