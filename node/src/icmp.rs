//! The kernel's limit on ICMP errors, and taking port unreachables out of it.
//!
//! While the agent is away its address is still local, so a query to it gets "port unreachable", and the client's
//! resolver asks its second server at once. The kernel sends one such error per second to one client and drops the
//! rest; a client that asks twice in a second waits for its timeout instead. `icmp_ratemask` says which types are
//! limited: a bit mask for IPv4, where type 3 is "destination unreachable" (RFC 792), and a list of types for IPv6,
//! where type 1 is (RFC 4443 §3.1).
//!
//! The files belong to the network namespace, so root's own namespaces can be written, and the host's only through a
//! mount of the host's `/proc/sys/net` or a container that may write `/proc/sys`. This file reads and writes them;
//! `plan` decides.

use std::io;
use std::path::{Path, PathBuf};

use crate::observed::{IcmpFamily, IcmpLimit};

/// Where the chart mounts the host's `/proc/sys/net`, because a container's own is read-only.
pub const HOST_SYSCTL: &str = "/host/net-sysctl";
/// Where it is without a container.
pub const PROC_SYSCTL: &str = "/proc/sys/net";

/// "Destination unreachable" of IPv4.
const UNREACHABLE_V4: u32 = 3;
/// "Destination unreachable" of IPv6.
const UNREACHABLE_V6: u8 = 1;

/// The folder that holds the limits.
pub fn folder() -> PathBuf {
    let host = Path::new(HOST_SYSCTL);
    if host.join(IcmpFamily::V4.path()).exists() { host.into() } else { PROC_SYSCTL.into() }
}

/// The limits that there are below `folder`.
pub fn read(folder: &Path) -> Vec<IcmpLimit> {
    let limits = IcmpFamily::ALL.into_iter().filter_map(|family| {
        let text = std::fs::read_to_string(folder.join(family.path())).ok()?;
        Some(IcmpLimit { family, value: text.trim().to_owned() })
    });
    limits.collect()
}

/// Writes a limit, and reads it back.
pub fn write(folder: &Path, family: IcmpFamily, value: &str) -> io::Result<()> {
    let path = folder.join(family.path());
    // An empty list is an empty line; nothing at all would be no write.
    std::fs::write(&path, format!("{value}\n"))?;
    let now = std::fs::read_to_string(&path)?;
    match now.trim() == value {
        true => Ok(()),
        false => Err(io::Error::other(format!("it was written and is {} all the same", now.trim()))),
    }
}

/// The limit without "destination unreachable"; `None` if it is not limited already, or if the text is not understood.
pub fn unthrottled(family: IcmpFamily, value: &str) -> Option<String> {
    match family {
        IcmpFamily::V4 => {
            let mask: u32 = value.parse().ok()?;
            let without = mask & !(1 << UNREACHABLE_V4);
            (without != mask).then(|| without.to_string())
        }
        IcmpFamily::V6 => {
            let mut limited = [false; 256];
            for range in value.split(',').filter(|range| !range.is_empty()) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last): (u8, u8) = (first.parse().ok()?, last.parse().ok()?);
                limited.get_mut(usize::from(first)..=usize::from(last))?.fill(true);
            }
            let was = std::mem::replace(&mut limited[usize::from(UNREACHABLE_V6)], false);
            was.then(|| ranges(&limited))
        }
    }
}

/// What a kernel starts with.
pub const fn kernel_default(family: IcmpFamily) -> &'static str {
    match family {
        IcmpFamily::V4 => "6168",
        IcmpFamily::V6 => "0-1,3-127",
    }
}

/// The kernel's spelling of a set: `0,3-127`.
fn ranges(set: &[bool]) -> String {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(first) = (at..set.len()).find(|&i| set[i]) {
        let end = (first..set.len()).find(|&i| !set[i]).unwrap_or(set.len());
        parts.push(if end == first + 1 { first.to_string() } else { format!("{first}-{}", end - 1) });
        at = end;
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_unreachables_are_taken_out_of_the_defaults() {
        let of = |family| unthrottled(family, kernel_default(family));
        // 6160 is what the seed's init container writes.
        assert_eq!(of(IcmpFamily::V4).as_deref(), Some("6160"));
        assert_eq!(of(IcmpFamily::V6).as_deref(), Some("0,3-127"));
    }

    #[test]
    fn what_is_out_already_and_what_is_not_understood_stays() {
        for (family, value) in [
            (IcmpFamily::V4, "6160"),
            (IcmpFamily::V4, "0"),
            (IcmpFamily::V4, "x"),
            (IcmpFamily::V4, ""),
            (IcmpFamily::V6, "0,3-127"),
            (IcmpFamily::V6, ""),
            (IcmpFamily::V6, "1-x"),
            (IcmpFamily::V6, "5-1"),
            (IcmpFamily::V6, "0-256"),
        ] {
            assert_eq!(unthrottled(family, value), None, "{family} {value:?}");
        }
    }

    #[test]
    fn single_types_and_the_last_one_are_spelled_as_the_kernel_does() {
        assert_eq!(unthrottled(IcmpFamily::V6, "1").as_deref(), Some(""));
        assert_eq!(unthrottled(IcmpFamily::V6, "1,3,5-6,255").as_deref(), Some("3,5-6,255"));
    }
}
