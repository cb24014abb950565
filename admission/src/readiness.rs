//! Whether this replica should get reviews: `/readyz`.
//!
//! A replica that is not ready has no endpoint, so the API server fails fast and creates Pods without injection, which works;
//! a replica that only pretends to be ready makes every Pod wait for the time-out.

use std::sync::Mutex;
use std::sync::PoisonError;

/// What a replica needs before it is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A certificate to serve.
    Certificate,
    /// The live webhook configuration trusts that certificate.
    CaBundle,
    /// The address of kube-dns.
    KubeDns,
    /// The process is not about to end.
    NotStopping,
}

impl Need {
    /// What `/readyz` says while it is missing.
    const fn text(self) -> &'static str {
        match self {
            Self::Certificate => "there is no certificate to serve",
            Self::CaBundle => "the webhook configuration does not trust the certificate yet",
            Self::KubeDns => "the address of kube-dns is not known yet",
            Self::NotStopping => "the server is about to stop",
        }
    }
}

/// What is missing now.
#[derive(Debug)]
pub struct Readiness {
    missing: Mutex<Vec<Need>>,
}

impl Readiness {
    /// Not ready until all of `needs` are met.
    pub fn new(needs: impl IntoIterator<Item = Need>) -> Self {
        Self { missing: Mutex::new(needs.into_iter().collect()) }
    }

    /// Notes that a need is met, or is not any more; whether that is news.
    pub fn set(&self, need: Need, met: bool) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let was_met = !missing.contains(&need);
        if met {
            missing.retain(|other| *other != need);
        } else if was_met {
            missing.push(need);
            missing.sort();
        }
        met != was_met
    }

    /// In words, what is missing; nothing if ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|need| need.text()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_nothing_missing() {
        let readiness = Readiness::new([Need::Certificate, Need::KubeDns]);
        assert!(readiness.set(Need::Certificate, true));
        assert!(!readiness.set(Need::Certificate, true), "no news");
        assert_eq!(readiness.missing(), ["the address of kube-dns is not known yet"]);
        assert!(readiness.set(Need::KubeDns, true));
        assert!(readiness.missing().is_empty());
        assert!(readiness.set(Need::NotStopping, false));
        assert_eq!(readiness.missing(), ["the server is about to stop"]);
    }
}
