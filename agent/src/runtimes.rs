//! Which runtime drives the workers: what was built in, what was asked for, what works here, and why it is what it is.
//!
//! | asked for | io_uring works | runtime |
//! | --- | --- | --- |
//! | `auto` | yes | `uring` |
//! | `auto` | no, or not built in | `tokio`, and the log says who is in the way |
//! | `uring` | yes | `uring` |
//! | `uring` | no | none: whoever insists is told why |
//! | `tokio` | - | `tokio` |

use std::io;

use nodens_cache::SharedCache;
#[cfg(any(feature = "tokio", feature = "uring"))]
use nodens_runtime::Runtime;
use nodens_runtime::{WorkerFailure, WorkerHandle, WorkerSpec};

use crate::corefile::config::RuntimeChoice;

#[cfg(not(any(feature = "tokio", feature = "uring")))]
compile_error!("choose a runtime: build with `--features tokio`, `--features uring`, or both");

/// A runtime, ready to start workers.
#[derive(Debug)]
pub struct Starter {
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// Why this one, for the log.
    pub reason: String,
    /// Starts one worker.
    pub start: fn(WorkerSpec<SharedCache>) -> io::Result<WorkerHandle>,
}

/// The runtime for `choice`, or what to do instead.
pub fn choose(choice: RuntimeChoice) -> Result<Starter, String> {
    match choice {
        RuntimeChoice::Uring => uring("asked for").map_err(|why| {
            format!("{why}; set `runtime` to `auto` to go on without io_uring wherever it is not available")
        }),
        RuntimeChoice::Tokio => tokio("asked for"),
        RuntimeChoice::Auto => uring("io_uring works here").or_else(|why| tokio(&why)),
    }
}

/// The runtime for a worker whose own has failed it; `None`: that is not what it died of, or there is no other.
pub fn instead_after(failure: &WorkerFailure) -> Option<Starter> {
    if !is_ring_failure(failure) {
        return None;
    }
    tokio(&failure.to_string()).ok()
}

#[cfg(feature = "uring")]
fn is_ring_failure(failure: &WorkerFailure) -> bool {
    matches!(failure, WorkerFailure::Io { error, .. } if nodens_runtime_uring::ring_error(error).is_some())
}

#[cfg(not(feature = "uring"))]
fn is_ring_failure(_: &WorkerFailure) -> bool {
    false
}

#[cfg(feature = "uring")]
fn uring(reason: &str) -> Result<Starter, String> {
    use nodens_runtime_uring::Uring;
    nodens_runtime_uring::probe().map_err(|unavailable| unavailable.to_string())?;
    Ok(Starter { name: Uring::NAME, reason: reason.to_owned(), start: Uring::start::<SharedCache> })
}

#[cfg(not(feature = "uring"))]
fn uring(_: &str) -> Result<Starter, String> {
    Err("this build has no io_uring runtime".to_owned())
}

#[cfg(feature = "tokio")]
fn tokio(reason: &str) -> Result<Starter, String> {
    use nodens_runtime_tokio::Tokio;
    Ok(Starter { name: Tokio::NAME, reason: reason.to_owned(), start: Tokio::start::<SharedCache> })
}

#[cfg(not(feature = "tokio"))]
fn tokio(reason: &str) -> Result<Starter, String> {
    Err(format!("{reason}; this build has no other runtime, take one with the feature `tokio`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "tokio")]
    fn what_is_asked_for_is_what_is_taken() {
        let starter = choose(RuntimeChoice::Tokio).expect("epoll is everywhere");
        assert_eq!((starter.name, starter.reason.as_str()), ("tokio", "asked for"));
    }

    #[test]
    #[cfg(all(feature = "tokio", feature = "uring"))]
    fn auto_and_uring_agree_on_whether_io_uring_works() {
        let auto = choose(RuntimeChoice::Auto).expect("one of both");
        match choose(RuntimeChoice::Uring) {
            Ok(uring) => assert_eq!((uring.name, auto.name), ("uring", "uring")),
            Err(why) => {
                assert!(auto.name == "tokio" && why.contains(&auto.reason), "{why} / {}", auto.reason);
            }
        }
    }

    #[test]
    #[cfg(not(feature = "uring"))]
    fn without_io_uring_auto_says_so() {
        let auto = choose(RuntimeChoice::Auto).expect("the other one");
        assert_eq!(auto.reason, "this build has no io_uring runtime");
        assert!(choose(RuntimeChoice::Uring).is_err_and(|why| why.contains("`auto`")));
    }
}
