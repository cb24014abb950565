//! The signals that ask a process to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// From now on they are waited for; what they would do by themselves they do no more.
    pub(super) fn new() -> Result<Self, String> {
        let told = |kind| signal(kind).map_err(|why| format!("signals cannot be waited for: {why}"));
        Ok(Self { term: told(SignalKind::terminate())?, int: told(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
