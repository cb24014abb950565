//! The server's eyes: the watches, and where what they see goes: the snapshot, readiness, metrics, the log.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use kube::Client;

use super::options::ServeOptions;
use crate::cluster::{Events, FreshLook, Notice, Notify, Watches};
use crate::family::{self, Family};
use crate::log::{Level, Log};
use crate::metrics::Metrics;
use crate::readiness::{Need, Readiness};
use crate::snapshot::Snapshot;

/// Everything that needs the API server. Dropping it ends the watches.
pub(super) struct Watching {
    pub(super) fresh: FreshLook,
    pub(super) events: Option<Events>,
    _watches: Watches,
}

/// Starts watching. `readiness` waits for the cluster's DNS where Pods get its address.
pub(super) fn start(
    client: &Client,
    options: &ServeOptions,
    snapshot: &Arc<ArcSwap<Snapshot>>,
    (readiness, metrics, log): (&Arc<Readiness>, &Arc<Metrics>, &Log),
) -> Watching {
    let settings = Arc::clone(snapshot.load().config.settings());
    let is_fixed = !options.injection.kube_dns.is_empty();
    let is_needed = settings.include_kube_dns && !is_fixed;
    if is_needed {
        readiness.set(Need::KubeDns, false);
        metrics.upstream(&[], false);
    }
    let told = (Arc::clone(readiness), Arc::clone(metrics), log.clone());
    let notify = notify(told, is_needed, settings.node_local.clone());
    let source = (!is_fixed).then(|| options.access.source.clone());
    let watches = Watches::start(client, source, snapshot, &notify);
    let events = options
        .events
        .then(|| Events::start(client.clone(), std::env::var("POD_NAME").ok(), metrics.events_lost()));
    Watching { fresh: FreshLook::new(client.clone(), settings), events, _watches: watches }
}

fn notify(
    (readiness, metrics, log): (Arc<Readiness>, Arc<Metrics>, Log),
    is_needed: bool,
    node_local: Vec<IpAddr>,
) -> Notify {
    Arc::new(move |notice: Notice| {
        let level = if notice.is_warning() { Level::Warning } else { Level::Info };
        log.say(level, &notice);
        if let Notice::KubeDnsChanged { new, .. } = &notice {
            if let Some(trouble) = unlike(&node_local, new) {
                log.say(Level::Warning, trouble);
            }
            let is_known = !new.is_empty();
            metrics.upstream(new, is_known);
            metrics.config_changed();
            if is_needed {
                readiness.set(Need::KubeDns, is_known);
            }
        }
    })
}

/// What is wrong if the node-local address and the cluster's DNS have no family in common: very likely Pods cannot reach it. They are
/// injected nevertheless, since a cluster of two families may have its DNS in one.
fn unlike(node_local: &[IpAddr], kube_dns: &[IpAddr]) -> Option<String> {
    let families = |all: &[IpAddr]| all.iter().map(Family::of).collect::<BTreeSet<_>>();
    let (ours, theirs) = (families(node_local), families(kube_dns));
    let is_unlike = !theirs.is_empty() && ours.is_disjoint(&theirs);
    is_unlike.then(|| {
        format!(
            "the node-local address is {} and cluster DNS {}: Pods without {} wait in vain for node-local DNS before they ask cluster DNS; \
             give an address of the cluster's family with --nameserver",
            family::list(ours.clone()),
            family::list(theirs),
            family::list(ours)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_in_common_is_enough() {
        let all = |text: &str| -> Vec<IpAddr> {
            text.split_whitespace().map(|one| one.parse().expect("an address")).collect()
        };
        for (local, kube_dns, is_unlike) in [
            ("169.254.20.10", "10.96.0.10", false),
            ("169.254.20.10", "fd00::a", true),
            ("fd00::10", "10.96.0.10", true),
            ("169.254.20.10", "fd00::a 10.96.0.10", false),
            ("169.254.20.10 fd00::10", "fd00::a", false),
            ("169.254.20.10", "", false),
        ] {
            assert_eq!(unlike(&all(local), &all(kube_dns)).is_some(), is_unlike, "{local} {kube_dns}");
        }
        let said = unlike(&all("169.254.20.10"), &all("fd00::a")).expect("unlike");
        assert!(said.contains("is IPv4 and cluster DNS IPv6") && said.contains("--nameserver"), "{said}");
    }
}
