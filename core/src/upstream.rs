//! What a Forwarder knows about its upstreams: how fast they answer, whether they are well, and whom to ask next.
//!
//! | state | entered when | asked | probed |
//! | --- | --- | --- | --- |
//! | up | it answered anything | in the policy's order | no |
//! | suspect | an attempt was refused, or nothing came back for [`SILENCE_SUSPECT`] | after those that are up | every `probe_interval` |
//! | down | more than `max_fails` refusals and failed probes in a row | when no other is left | every `probe_interval` |
//!
//! Any valid reply, whatever its RCODE, makes it well at once. A reply that failed validation is nobody's fault
//! but its sender's and changes nothing here (CVE-2023-26437).

mod health;
mod rtt;
mod select;

pub use health::{Health, SILENCE_SUSPECT, Wellness};
pub use rtt::Rtt;
pub use select::{Order, order};

use crate::config::UpstreamConfig;
use crate::time::{Duration, Instant};

/// For how long an upstream that answered FORMERR to EDNS is asked without it (RFC 6891 §7). It may be upgraded meanwhile.
const EDNS_REFUSED_FOR: Duration = Duration::from_secs(900);

/// One upstream as one worker sees it.
#[derive(Debug)]
pub struct Upstream {
    /// How it is configured.
    pub config: UpstreamConfig,
    /// How fast it answers.
    pub rtt: Rtt,
    /// Whether it is well.
    pub health: Health,
    /// Lookups' queries that are out at it.
    pub outstanding: u32,
    edns_refused_until: Option<Instant>,
}

impl Upstream {
    /// One that is taken to be well until it shows otherwise.
    pub fn new(config: UpstreamConfig) -> Self {
        Upstream {
            health: Health::new(config.max_fails),
            config,
            rtt: Rtt::default(),
            outstanding: 0,
            edns_refused_until: None,
        }
    }

    /// The same with nothing out: what a reload keeps.
    #[must_use]
    pub fn at_rest(mut self) -> Self {
        self.outstanding = 0;
        self.health.answered();
        self
    }

    /// Whether to put an OPT record into queries for it.
    pub fn speaks_edns(&self, now: Instant) -> bool {
        self.edns_refused_until.is_none_or(|until| until <= now)
    }

    /// It answered FORMERR without an OPT to a query with one.
    pub fn refused_edns(&mut self, now: Instant) {
        self.edns_refused_until = Some(now + EDNS_REFUSED_FOR);
    }
}
