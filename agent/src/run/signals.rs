//! The signals that the agent knows.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// All of them.
pub(super) struct Signals {
    pub(super) stop: StopSignals,
    pub(super) reload: ReloadSignals,
}

/// SIGTERM, SIGINT and SIGQUIT, whichever comes.
pub struct StopSignals([Signal; 3]);

impl StopSignals {
    /// From now on these signals do not kill the process.
    pub fn new() -> Result<Self, Failure> {
        Ok(StopSignals([
            catch(SignalKind::terminate())?,
            catch(SignalKind::interrupt())?,
            catch(SignalKind::quit())?,
        ]))
    }

    /// Waits for one more.
    pub async fn next(&mut self) {
        let [terminate, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// SIGHUP and SIGUSR1, whichever comes: node-cache's manifests and CoreDNS' documents have one each.
pub(super) struct ReloadSignals([Signal; 2]);

impl ReloadSignals {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(ReloadSignals([catch(SignalKind::hangup())?, catch(SignalKind::user_defined1())?]))
    }

    pub(super) async fn next(&mut self) {
        let [hangup, user] = &mut self.0;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = user.recv() => {}
        }
    }
}

fn catch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Other(format!("cannot handle signals: {error}")))
}
