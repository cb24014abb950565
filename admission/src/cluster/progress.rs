//! How far the watches have come: what readiness and metrics ask.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Shared between the watches and whoever asks.
#[derive(Debug, Default)]
pub struct Progress {
    kube_dns: AtomicBool,
    namespaces: AtomicBool,
    namespaces_known: AtomicUsize,
    changed: Notify,
}

impl Progress {
    /// The cluster DNS' address is known now.
    pub fn has_kube_dns(&self) -> bool {
        self.kube_dns.load(Ordering::Acquire)
    }

    /// The first complete list of namespaces is in.
    pub fn has_namespaces(&self) -> bool {
        self.namespaces.load(Ordering::Acquire)
    }

    /// How many namespaces are known.
    pub fn namespaces_known(&self) -> usize {
        self.namespaces_known.load(Ordering::Relaxed)
    }

    /// Waits until both are there. Without end when the API server does not answer.
    pub async fn synced(&self) {
        loop {
            let changed = self.changed.notified();
            if self.has_kube_dns() && self.has_namespaces() {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn set_kube_dns(&self, is_known: bool) {
        self.kube_dns.store(is_known, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(super) fn set_namespaces(&self, count: usize) {
        self.namespaces_known.store(count, Ordering::Relaxed);
        self.namespaces.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }
}
