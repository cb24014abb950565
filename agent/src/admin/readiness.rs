//! What `/ready` answers.
//!
//! The agent names the parts that have to be up before Pods should be sent here; each is ticked off once. When the last one is,
//! the answer is 200 and stays so: a part that fails later is for `/health` and the metrics to tell, taking the node's DNS
//! out of service would help nobody (CoreDNS' `monitor until-ready`). `monitor continuously` asks for the opposite.
//! Shutdown always answers 503, so that a Service stops sending before the sockets close.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The latch. Cheap to ask, shared between the control thread's tasks.
#[derive(Debug)]
pub struct Readiness {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Sorted, so that the answer reads the same each time.
    waiting_for: BTreeSet<String>,
    continuously: bool,
    latched: bool,
    stopping: bool,
}

impl Readiness {
    /// Waits for `parts`; with none it is ready at once.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let waiting_for: BTreeSet<String> = parts.into_iter().map(str::to_owned).collect();
        let latched = waiting_for.is_empty();
        Readiness { state: Mutex::new(State { waiting_for, continuously: false, latched, stopping: false }) }
    }

    /// `monitor continuously`: a part that is lost later is reported.
    pub fn set_continuously(&self, continuously: bool) {
        self.lock().continuously = continuously;
    }

    /// `part` is up.
    pub fn set_ready(&self, part: &str) {
        let mut state = self.lock();
        state.waiting_for.remove(part);
        state.latched |= state.waiting_for.is_empty();
    }

    /// `part` is not up, or not up any more.
    pub fn set_unready(&self, part: &str) {
        self.lock().waiting_for.insert(part.to_owned());
    }

    /// Shutdown has begun; there is no way back.
    pub fn stop(&self) {
        self.lock().stopping = true;
    }

    /// `Err` with what is missing, separated by commas as CoreDNS has it.
    pub fn check(&self) -> Result<(), String> {
        let state = self.lock();
        if state.stopping {
            return Err("shutting down".to_owned());
        }
        let ready = if state.continuously { state.waiting_for.is_empty() } else { state.latched };
        if ready {
            return Ok(());
        }
        Err(state.waiting_for.iter().map(String::as_str).collect::<Vec<_>>().join(","))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is a single statement: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m94_not_ready_names_what_is_missing() {
        let readiness = Readiness::new(["sockets", "cache"]);
        assert_eq!(readiness.check(), Err("cache,sockets".to_owned()));
        readiness.set_ready("cache");
        assert_eq!(readiness.check(), Err("sockets".to_owned()));
        readiness.set_ready("sockets");
        assert_eq!(readiness.check(), Ok(()));
    }

    #[test]
    fn m96_once_ready_it_stays_ready_until_shutdown() {
        let readiness = Readiness::new(["sockets"]);
        readiness.set_ready("sockets");
        readiness.set_unready("sockets");
        assert_eq!(readiness.check(), Ok(()));
        readiness.stop();
        assert_eq!(readiness.check(), Err("shutting down".to_owned()));
    }

    #[test]
    fn m96_continuously_reports_a_part_that_was_lost() {
        let readiness = Readiness::new(["sockets"]);
        readiness.set_continuously(true);
        readiness.set_ready("sockets");
        assert_eq!(readiness.check(), Ok(()));
        readiness.set_unready("sockets");
        assert_eq!(readiness.check(), Err("sockets".to_owned()));
    }

    #[test]
    fn nothing_to_wait_for_is_ready() {
        assert_eq!(Readiness::new([]).check(), Ok(()));
    }
}
