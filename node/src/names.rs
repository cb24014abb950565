//! Names that processes of one node show each other: those of abstract unix sockets.
//!
//! Such a name exists in one network namespace, as interfaces, rules and listening sockets do, and goes with its process, however that
//! ends. The kernel lists all of them in a file. A name here is a group, a slash, and the time since when it is shown.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

/// The names of this thread's network namespace.
const LIST: &str = "/proc/thread-self/net/unix";
/// How many names are tried: another process may have started within the same hundredth of a second.
const ATTEMPTS: u32 = 100;

/// Shows a name in `group` as long as what `bind` returns is open. Returns since when, which sorts by time.
pub fn show<T>(group: &str, bind: impl Fn(&SocketAddr) -> io::Result<T>) -> io::Result<(String, T)> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let hundredths: u64 = uptime
        .split_whitespace()
        .next()
        .and_then(|seconds| seconds.replace('.', "").parse().ok())
        .ok_or_else(|| io::Error::other("/proc/uptime holds no number"))?;
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for attempt in 0..ATTEMPTS {
        let since = format!("{hundredths:020}.{attempt:02}");
        match bind(&address(group, &since)?) {
            Ok(socket) => return Ok((since, socket)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The address of a name.
pub fn address(group: &str, since: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{group}/{since}"))
}

/// Since when names of `group` are shown, our own among them. A list that cannot be read is an empty one: then we behave as if we
/// were alone.
pub fn shown(group: &str) -> Vec<String> {
    read(&std::fs::read_to_string(LIST).unwrap_or_default(), group)
}

fn read(list: &str, group: &str) -> Vec<String> {
    // The kernel writes the zero at the start of an abstract name as `@`.
    let prefix = format!("@{group}/");
    let names = list.lines().filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix(&prefix));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn names_of_one_moment_differ_and_go_with_their_sockets() {
        let group = format!("nodens-names/{}", std::process::id());
        let (first, socket) = show(&group, UnixDatagram::bind_addr).expect("an abstract socket");
        let (second, _socket) = show(&group, UnixDatagram::bind_addr).expect("another one");
        assert!(second > first);
        assert_eq!(shown(&group).len(), 2);
        drop(socket);
        assert_eq!(shown(&group), [second]);
    }

    #[test]
    fn only_names_of_the_same_group_count() {
        let list = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    0: 00000002 00000000 00000000 0002 01 1 @nodens-node/nodelocaldns/7.00\n\
                    0: 00000002 00000000 00000000 0002 01 2 @nodens-node/nodelocaldns2/8.00\n\
                    0: 00000002 00000000 00000000 0002 01 3 /run/nodens-node/nodelocaldns/9.00\n\
                    0: 00000002 00000000 00000000 0002 01 4\n";
        assert_eq!(read(list, "nodens-node/nodelocaldns"), ["7.00"]);
    }
}
