//! Filling in the template: before the start until it succeeds, then from time to time.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::AgentLog;
use super::signals::Signals;
use crate::cli::RunOptions;
use crate::corefile::SystemSource;
use crate::log::Level;
use crate::template::{FilledIn, Template};

/// How often the template and the ConfigMap are looked at; as often as node-cache does.
pub(super) const TEMPLATE_PERIOD: Duration = Duration::from_secs(10);

pub(super) struct Filler {
    template: Template,
    reloads: bool,
    /// What was complained about last: once is enough.
    told: Option<String>,
    /// How often it could not be filled in, or not with all that was there, since somebody asked.
    failures: u64,
}

impl Filler {
    pub(super) fn new(template: Template, options: &RunOptions) -> Self {
        Filler { template, reloads: options.reloadwithsignal, told: None, failures: 0 }
    }

    /// Fills in until it succeeds. Returns whether it did: somebody may want us to end first.
    pub(super) async fn wait(&mut self, signals: &mut Signals, log: &mut AgentLog) -> bool {
        loop {
            match self.template.fill_in(&SystemSource) {
                Ok(filled_in) => {
                    self.tell(filled_in.complaint, log);
                    return true;
                }
                Err(why) => self.tell(Some(format!("not ready: {why}")), log),
            }
            log.tick(Instant::now());
            tokio::select! {
                () = signals.stop.next() => {
                    log.say(Level::Info, "ended");
                    log.tick(Instant::now());
                    return false;
                }
                () = signals.reload.next() => {}
                () = sleep(TEMPLATE_PERIOD) => {}
            }
        }
    }

    /// Fills in once more. Returns whether the Corefile is to be read anew at once: it has changed, and `-reloadwithsignal` is given.
    /// Without that flag `reload` in the Corefile finds it.
    pub(super) fn again(&mut self, log: &mut AgentLog) -> bool {
        match self.template.fill_in(&SystemSource) {
            Ok(FilledIn { changed, complaint }) => {
                self.tell(complaint, log);
                changed && self.reloads
            }
            Err(why) => {
                self.tell(Some(format!("the Corefile stays as it is: {why}")), log);
                false
            }
        }
    }

    /// How often that did not succeed since the last call.
    pub(super) fn take_failures(&mut self) -> u64 {
        std::mem::take(&mut self.failures)
    }

    fn tell(&mut self, what: Option<String>, log: &mut AgentLog) {
        self.failures += u64::from(what.is_some());
        if let Some(line) = what.as_ref().filter(|_| what != self.told) {
            log.say(Level::Error, line);
        }
        self.told = what;
    }
}
