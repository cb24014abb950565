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
    u32::try_from(nofile.saturating_sub(own(workers, listeners)) / workers).unwrap_or(u32::MAX)
}

/// The limit of open files that gives each worker [`PATHS_COMFORTABLE`] upstream paths: what to tell somebody whose limit is too low.
pub fn nofile_wanted(workers: usize, listeners: usize) -> u64 {
    let workers = workers.max(1) as u64;
    own(workers, listeners) + workers * u64::from(PATHS_COMFORTABLE)
}

/// Upstream paths of a worker that a node's misses hardly ever need at once: 500 lookups of 2 attempts.
pub const PATHS_COMFORTABLE: u32 = 1000;

/// What is not for upstreams.
fn own(workers: u64, listeners: usize) -> u64 {
    // Of each address a worker has one socket for datagrams and one for connections; the former's second descriptor is for another agent,
    // which hands over as many.
    DESCRIPTORS_RESERVED + CONNECTIONS_MAX as u64 + 4 * workers * listeners as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_divided_among_workers() {
        assert_eq!(paths_per_worker(65_536, 4, 3), (65_536 - 128 - 1024 - 48) / 4);
        assert_eq!(paths_per_worker(1024, 1, 1), 0);
        assert_eq!(paths_per_worker(u64::MAX, 1, 1), u32::MAX);
        for (workers, listeners) in [(1, 1), (4, 3), (256, 40)] {
            let wanted = nofile_wanted(workers, listeners);
            assert_eq!(paths_per_worker(wanted, workers, listeners), PATHS_COMFORTABLE);
        }
    }

    #[test]
    fn raising_twice_changes_nothing_more() {
        let first = raise_nofile().expect("raising to the hard limit is always allowed");
        assert_eq!(raise_nofile().expect("as before"), first);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("readable").0, first);
    }
}
