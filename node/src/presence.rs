//! Two agents on one node: during an update of the DaemonSet the new one starts before the old one ends.
//!
//! | who is there | who looks after the node | who may clear it |
//! | --- | --- | --- |
//! | one | it | it, when it ends |
//! | several | the one that came last: its command line is the one that is to be | none of those that leave while another stays |
//!
//! Each shows that it is there by an abstract unix socket whose name holds the interface and the time of its start.
//! Such a name exists in one network namespace, as interface and rules do, and goes with its process, however that
//! ends; nothing is ever sent. The kernel lists the names in a file. Whoever leaves takes its own name away first and
//! looks then, so of two that leave at once at least one sees that it was the last.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

/// Before the interface's name in a socket's name.
const PREFIX: &str = "nodens-node/";
/// The names of this thread's network namespace.
const LIST: &str = "/proc/thread-self/net/unix";
/// How many names are tried: another agent may have started within the same hundredth of a second.
const ATTEMPTS: u32 = 100;

/// That this process is there.
#[derive(Debug)]
pub struct Presence {
    interface: String,
    /// The part of the name that says since when; later is greater.
    since: String,
    /// The name exists as long as this is open.
    socket: Mutex<Option<UnixDatagram>>,
}

impl Presence {
    /// Shows that an agent is there for this interface from now on.
    pub fn show(interface: &str) -> io::Result<Presence> {
        let uptime = std::fs::read_to_string("/proc/uptime")?;
        let hundredths: u64 = uptime
            .split_whitespace()
            .next()
            .and_then(|seconds| seconds.replace('.', "").parse().ok())
            .ok_or_else(|| io::Error::other("/proc/uptime holds no number"))?;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for attempt in 0..ATTEMPTS {
            let since = format!("{hundredths:020}.{attempt:02}");
            let name = SocketAddr::from_abstract_name(format!("{PREFIX}{interface}/{since}"))?;
            match UnixDatagram::bind_addr(&name) {
                Ok(socket) => {
                    return Ok(Presence {
                        interface: interface.to_owned(),
                        since,
                        socket: Mutex::new(Some(socket)),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether an agent is there that came later than this one.
    pub fn is_relieved(&self) -> bool {
        others(&self.interface).iter().any(|since| *since > self.since)
    }

    /// Takes the name away. Returns whether another agent stays, so that nothing may be cleared away; may be asked again.
    pub fn leave(&self) -> bool {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
        is_there_but(&self.interface, Some(&self.since))
    }
}

/// Whether an agent is there for this interface.
pub fn is_anybody_there(interface: &str) -> bool {
    is_there_but(interface, None)
}

fn is_there_but(interface: &str, but: Option<&str>) -> bool {
    others(interface).iter().any(|since| Some(since.as_str()) != but)
}

/// Since when others are there. A list that cannot be read is an empty one: then we behave as if we were alone, as
/// before there were two.
fn others(interface: &str) -> Vec<String> {
    read(&std::fs::read_to_string(LIST).unwrap_or_default(), interface)
}

fn read(list: &str, interface: &str) -> Vec<String> {
    // The kernel writes the zero at the start of an abstract name as `@`.
    let prefix = format!("@{PREFIX}{interface}/");
    let names = list.lines().filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix(&prefix));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_later_relieves_who_came_before_and_nobody_clears_while_another_stays() {
        let interface = format!("t{}", std::process::id());
        let first = Presence::show(&interface).expect("an abstract socket");
        assert!(!first.is_relieved());
        let second = Presence::show(&interface).expect("another one");
        assert!(first.is_relieved());
        assert!(!second.is_relieved());
        assert!(first.leave(), "the second stays");
        assert!(!second.is_relieved());
        assert!(!second.leave(), "nobody stays");
    }

    #[test]
    fn the_last_one_to_come_may_leave_first() {
        let interface = format!("u{}", std::process::id());
        let first = Presence::show(&interface).expect("an abstract socket");
        let second = Presence::show(&interface).expect("another one");
        assert!(second.leave());
        assert!(!first.is_relieved(), "it looks after the node again");
        assert!(!first.leave());
    }

    #[test]
    fn only_agents_of_the_same_interface_count() {
        let list = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    0: 00000002 00000000 00000000 0002 01 1 @nodens-node/nodelocaldns/7.00\n\
                    0: 00000002 00000000 00000000 0002 01 2 @nodens-node/nodelocaldns2/8.00\n\
                    0: 00000002 00000000 00000000 0002 01 3 /run/nodens-node/nodelocaldns/9.00\n\
                    0: 00000002 00000000 00000000 0002 01 4\n";
        assert_eq!(read(list, "nodelocaldns"), ["7.00"]);
    }
}
