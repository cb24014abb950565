//! File descriptors: every upstream question over UDP costs one, so their limit is a limit on misses in flight.

use crate::clients::CONNECTIONS_MAX;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Kept for everything that is not DNS: metrics, health, netlink, files, epoll. Far more than ever seen open.
pub const DESCRIPTORS_RESERVED: u64 = 128;

/// Raises the soft limit of open files to the hard one and returns it.
///
/// The soft limit is 1024 in most containers, for the sake of programs that use select(2); this is not one.
pub fn raise_nofile() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// How many upstream paths each worker may have, when `nofile` descriptors serve `workers` workers on `listeners` addresses:
/// what goes into `Limits::paths_max`. Zero means that the limit is too low to run at all.
pub fn paths_per_worker(nofile: u64, workers: usize, listeners: usize) -> u32 {
    let workers = workers.max(1) as u64;
    let own = DESCRIPTORS_RESERVED + CONNECTIONS_MAX as u64 + 2 * workers * listeners as u64;
    u32::try_from(nofile.saturating_sub(own) / workers).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_divided_among_workers() {
        assert_eq!(paths_per_worker(65_536, 4, 3), (65_536 - 128 - 1024 - 24) / 4);
        assert_eq!(paths_per_worker(1024, 1, 1), 0);
        assert_eq!(paths_per_worker(u64::MAX, 1, 1), u32::MAX);
    }

    #[test]
    fn raising_twice_changes_nothing_more() {
        let first = raise_nofile().expect("raising to the hard limit is always allowed");
        assert_eq!(raise_nofile().expect("as before"), first);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("readable").0, first);
    }
}
