//! Which runtime drives the workers: what was built in, what was asked for, and why it is what it is.

use std::io;

use nodens_cache::SharedCache;
#[cfg(feature = "tokio")]
use nodens_runtime::Runtime;
use nodens_runtime::{WorkerHandle, WorkerSpec};

use crate::corefile::config::RuntimeChoice;

#[cfg(not(feature = "tokio"))]
compile_error!("choose a runtime: build with `--features tokio`");

/// A runtime, ready to start workers.
pub struct Starter {
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// Starts one worker.
    pub start: fn(WorkerSpec<SharedCache>) -> io::Result<WorkerHandle>,
}

/// The runtime for `choice`, or what to do instead.
pub fn choose(choice: RuntimeChoice) -> Result<Starter, String> {
    match choice {
        #[cfg(feature = "tokio")]
        RuntimeChoice::Auto | RuntimeChoice::Tokio => Ok(Starter {
            name: nodens_runtime_tokio::Tokio::NAME,
            start: nodens_runtime_tokio::Tokio::start::<SharedCache>,
        }),
        RuntimeChoice::Uring => {
            Err("the io_uring runtime is not there yet; leave `runtime` out or set it to `tokio`".to_owned())
        }
        #[cfg(not(feature = "tokio"))]
        RuntimeChoice::Auto | RuntimeChoice::Tokio => Err("this build has no runtime".to_owned()),
    }
}
