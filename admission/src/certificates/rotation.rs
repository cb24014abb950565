//! Rotating the authority without a gap: a pure state machine. No clock, no cluster, no randomness; [`super::keeper`] drives it.
//!
//! Each replica signs a short-lived leaf for itself, in memory, with the authority that the Secret holds as *active*. API servers trust what
//! the webhook configuration's `caBundle` holds. A new authority is first published, then used, and the old one is forgotten
//! only when nothing that it signed can still be in service. In every step a replica reads the configuration, **then** the Secret, and
//! makes the first row that applies; each row is one write that fails if what it was computed from has changed. So
//! any replica may make any step, and one that stops at any point leaves a state that every other can go on from.
//!
//! | row | the Secret              | the live configuration              | and                               | step |
//! |-----|-------------------------|-------------------------------------|-----------------------------------|------|
//! | 1   | nothing of use          | whatever                            | or *active* has expired           | [`Step::Found`]: a new *active*; what is trusted now becomes *previous* |
//! | 2   | any                     | trusts others than the Secret lists |                                   | [`Step::Publish`]: `caBundle` := what the Secret lists |
//! | 3   | no *next*, no *previous*| whatever                            | *active* has used 2/3 of its life | [`Step::Prepare`]: a *next* (also in place of one that has expired) |
//! | 4   | *next*                  | in step, unchanged for `settle`     |                                   | [`Step::Switch`]: *active* := *next*; the old one becomes *previous* |
//! | 5   | *previous*, no date     | whatever                            |                                   | [`Step::Schedule`]: the date := now + a leaf's life + `skew` |
//! | 6   | *previous*              | whatever                            | its date has come                 | [`Step::Retire`]: no *previous* |
//! | 7   | otherwise               |                                     |                                   | [`Step::Rest`] |
//!
//! Why this is safe, and what the tests check over all interleavings of two replicas:
//!
//! * *A stale replica cannot take a trusted authority out of `caBundle`.* It read the configuration before the Secret. If its write goes through, nobody has
//!   written the configuration since, so every authority in there was in the Secret before that, and it has read it there.
//! * *Nothing is signed with an authority that API servers do not trust yet.* Row 4 waits until the configuration has been the same for `settle`, which is
//!   longer than API servers' watches lag.
//! * *No leaf outlives its authority.* A leaf's life counts from **before** its replica read who is active, and the date of row 5 from **after**
//!   somebody read that another one is.
//! * *A Secret that is deleted costs nothing.* What API servers trust stays trusted: row 1 reads the configuration once more, **after** it found no Secret, so
//!   nothing that was ever active can be missing in it. And a replica keeps a leaf that is trusted until the new authority has settled ([`wants_leaf`]).

use std::fmt;
use std::sync::Arc;

/// Authorities that are kept as *previous* at most; those of row 1 come from a text that anybody may have written.
pub const PREVIOUS_MAX: usize = 4;

/// Spans of time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long an authority is good. Its successor comes at two thirds.
    pub ca_life_s: u64,
    /// How long a leaf is good. Its successor comes at two thirds.
    pub leaf_life_s: u64,
    /// How long the configuration must have been the same before what is new in it is used.
    pub settle_s: u64,
    /// By how much clocks may differ. Certificates are dated back by as much.
    pub skew_s: u64,
}

impl Default for Times {
    fn default() -> Self {
        const DAY_S: u64 = 86400;
        Self { ca_life_s: 365 * DAY_S, leaf_life_s: 7 * DAY_S, settle_s: 300, skew_s: 300 }
    }
}

/// An authority's certificate: what API servers trust.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Trusted {
    /// The certificate, DER. Two authorities are the same if this is.
    pub der: Arc<[u8]>,
    /// In seconds since 1970.
    pub not_before_s: u64,
    /// In seconds since 1970.
    pub not_after_s: u64,
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trusted({} bytes, {}..{})", self.der.len(), self.not_before_s, self.not_after_s)
    }
}

/// An authority that can sign.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Its certificate.
    pub certificate: Trusted,
    /// Its private key, PKCS#8 as PEM.
    pub key_pem: Arc<str>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        write!(f, "Authority({:?})", self.certificate)
    }
}

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// Signs.
    pub active: Authority,
    /// Is to sign next; trusted already.
    pub next: Option<Authority>,
    /// Does not sign any more; still trusted.
    pub previous: Vec<Trusted>,
    /// When *previous* is forgotten, in seconds since 1970.
    pub retire_at_s: Option<u64>,
}

impl Held {
    /// Everything that API servers are to trust.
    pub fn trusted(&self) -> Vec<&Trusted> {
        let next = self.next.iter().map(|next| &next.certificate);
        std::iter::once(&self.active.certificate).chain(next).chain(&self.previous).collect()
    }

    /// For the metric: 1 steady, 2 *next* is being published, 3 *previous* is being retired.
    pub fn phase(&self) -> i64 {
        match (&self.next, self.previous.is_empty()) {
            (Some(_), _) => 2,
            (None, false) => 3,
            (None, true) => 1,
        }
    }
}

/// What API servers trust.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    /// The configuration's version.
    pub version: String,
    /// Per webhook in the configuration, what its `caBundle` holds; None if that cannot be read as PEM.
    pub bundles: Vec<Option<Vec<Trusted>>>,
}

impl Live {
    /// Whether every webhook trusts it.
    pub fn trusts(&self, authority: &Trusted) -> bool {
        let trusts =
            |bundle: &Option<Vec<Trusted>>| bundle.as_ref().is_some_and(|bundle| bundle.contains(authority));
        !self.bundles.is_empty() && self.bundles.iter().all(trusts)
    }

    /// Whether every webhook trusts exactly what the Secret lists.
    pub fn is_in_step(&self, held: &Held) -> bool {
        let wanted = held.trusted();
        let only = |bundle: &Vec<Trusted>| bundle.iter().all(|one| wanted.contains(&one));
        wanted.iter().all(|one| self.trusts(one))
            && self.bundles.iter().all(|bundle| bundle.as_ref().is_some_and(only))
    }
}

/// What a replica remembers from look to look. Losing it costs time, not safety.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    /// The version of the configuration, and since when it has been that.
    unchanged: Option<(String, u64)>,
}

/// One look at the world.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Before anything was read, in seconds since 1970.
    pub began_s: u64,
    /// After everything was read.
    pub ended_s: u64,
    /// None: there is nothing of use in the Secret.
    pub held: Option<&'a Held>,
    /// None: there is no webhook configuration.
    pub live: Option<&'a Live>,
}

/// What is to be done. Each is one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Row 1: write the Secret with a new *active*.
    Found,
    /// Row 2: write the configuration.
    Publish,
    /// Row 3: write the Secret with a *next*.
    Prepare,
    /// Row 4: write the Secret with *next* as *active*.
    Switch,
    /// Row 5: write the Secret with a date for *previous*.
    Schedule,
    /// Row 6: write the Secret without *previous*.
    Retire,
    /// Row 7: nothing.
    Rest,
}

impl Step {
    /// Whether [`apply`] needs a new authority for it.
    pub const fn needs_authority(self) -> bool {
        matches!(self, Self::Found | Self::Prepare)
    }

    /// For the log.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Found => "a new certificate authority was made",
            Self::Publish => "the webhook configuration trusts the certificate authorities of the Secret",
            Self::Prepare => "the next certificate authority was made and is being published",
            Self::Switch => "the next certificate authority signs from now on",
            Self::Schedule => {
                "the last certificate authority stays trusted until all that it signed has expired"
            }
            Self::Retire => "the last certificate authority is forgotten",
            Self::Rest => "nothing is to be done",
        }
    }
}

/// The point in a life at which a successor is made.
fn renewal_s(not_before_s: u64, not_after_s: u64) -> u64 {
    not_before_s + not_after_s.saturating_sub(not_before_s) / 3 * 2
}

/// The first row that applies. `memory` is what the replica knew before; it is brought up to date.
pub fn decide(look: &Look<'_>, times: &Times, memory: &mut Memory) -> Step {
    let settled = memory.settled(look, times);
    let Some(held) = look.held.filter(|held| look.ended_s < held.active.certificate.not_after_s) else {
        return Step::Found;
    };
    let in_step = look.live.is_some_and(|live| live.is_in_step(held));
    if look.live.is_some() && !in_step {
        return Step::Publish;
    }
    let expired = |authority: &Authority| look.ended_s >= authority.certificate.not_after_s;
    let active = &held.active.certificate;
    match &held.next {
        Some(next) if expired(next) => return Step::Prepare,
        None if held.previous.is_empty()
            && look.ended_s >= renewal_s(active.not_before_s, active.not_after_s) =>
        {
            return Step::Prepare;
        }
        Some(_) if in_step && settled => return Step::Switch,
        _ => {}
    }
    match (held.previous.is_empty(), held.retire_at_s) {
        (false, None) => Step::Schedule,
        (false, Some(date)) if look.ended_s >= date => Step::Retire,
        _ => Step::Rest,
    }
}

impl Memory {
    /// Whether the configuration has been the same for long enough. From the end of the look that first saw it to the beginning of
    /// this one, so that no pause in between counts.
    fn settled(&mut self, look: &Look<'_>, times: &Times) -> bool {
        let Some(live) = look.live else {
            self.unchanged = None;
            return false;
        };
        match &self.unchanged {
            Some((version, since_s)) if *version == live.version => {
                look.began_s.saturating_sub(*since_s) >= times.settle_s
            }
            _ => {
                self.unchanged = Some((live.version.clone(), look.ended_s));
                false
            }
        }
    }
}

/// What the Secret holds after a step. `new` is an authority for the steps that [need one](Step::needs_authority). None for steps that do not write the
/// Secret, and for those that lack what they need. For [`Step::Found`] the configuration in `look` must have been read after the Secret.
pub fn apply(step: Step, look: &Look<'_>, times: &Times, new: Option<Authority>) -> Option<Held> {
    if step == Step::Found {
        let active = new?;
        let live = look.live.into_iter().flat_map(|live| live.bundles.iter().flatten().flatten());
        let mut previous: Vec<Trusted> = Vec::new();
        for one in live.chain(look.held.into_iter().flat_map(Held::trusted)) {
            let is_good = look.ended_s < one.not_after_s && !previous.contains(one);
            if is_good && previous.len() < PREVIOUS_MAX {
                previous.push(one.clone());
            }
        }
        return Some(Held { active, next: None, previous, retire_at_s: None });
    }
    let held = look.held?.clone();
    match step {
        Step::Prepare => Some(Held { next: Some(new?), ..held }),
        Step::Switch => {
            let mut previous = held.previous;
            previous.push(held.active.certificate);
            Some(Held { active: held.next?, next: None, previous, retire_at_s: None })
        }
        Step::Schedule => {
            Some(Held { retire_at_s: Some(look.ended_s + times.leaf_life_s + times.skew_s), ..held })
        }
        Step::Retire => Some(Held { previous: Vec::new(), retire_at_s: None, ..held }),
        Step::Found | Step::Publish | Step::Rest => None,
    }
}

/// A leaf in service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Who signed it.
    pub issuer: Trusted,
    /// When it was asked for, in seconds since 1970.
    pub from_s: u64,
    /// When it ends.
    pub not_after_s: u64,
}

impl Leaf {
    /// Until when a leaf asked for in this look is good: not longer than its issuer.
    pub fn end_s(look: &Look<'_>, times: &Times, issuer: &Trusted) -> u64 {
        (look.began_s + times.leaf_life_s).min(issuer.not_after_s)
    }
}

/// Whether this replica should sign itself a new leaf with the active authority, now. To be asked in each look, after [`decide`], and only then: a leaf
/// must not be signed with an authority that was read long ago.
pub fn wants_leaf(look: &Look<'_>, times: &Times, memory: &Memory, leaf: Option<&Leaf>) -> bool {
    let Some(held) = look.held else { return false };
    let active = &held.active.certificate;
    if look.ended_s >= active.not_after_s {
        return false;
    }
    let Some(leaf) = leaf else { return true };
    if look.ended_s >= leaf.not_after_s {
        return true;
    }
    let is_due = look.ended_s >= renewal_s(leaf.from_s, leaf.not_after_s);
    if leaf.issuer == *active {
        return is_due;
    }
    // Another one signs. The leaf is good as long as its issuer is trusted; the new one must be trusted everywhere first.
    let Some(live) = look.live.filter(|live| live.trusts(active)) else { return false };
    let has_settled = memory.unchanged.as_ref().is_some_and(|(version, since_s)| {
        *version == live.version && look.began_s.saturating_sub(*since_s) >= times.settle_s
    });
    has_settled || is_due || !live.trusts(&leaf.issuer)
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
