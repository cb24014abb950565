//! The server's eyes: the watches, and where what they see goes: the snapshot, readiness, metrics, the log.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kube::Client;

use super::options::ServeOptions;
use crate::cluster::{Events, FreshLook, Notice, Notify, Watches};
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
    let notify = notify((Arc::clone(readiness), Arc::clone(metrics), log.clone()), is_needed);
    let source = (!is_fixed).then(|| options.access.source.clone());
    let watches = Watches::start(client, source, snapshot, &notify);
    let events = options.events.then(|| Events::start(client.clone(), std::env::var("POD_NAME").ok()));
    Watching { fresh: FreshLook::new(client.clone(), settings), events, _watches: watches }
}

fn notify((readiness, metrics, log): (Arc<Readiness>, Arc<Metrics>, Log), is_needed: bool) -> Notify {
    Arc::new(move |notice: Notice| {
        let level = if notice.is_warning() { Level::Warning } else { Level::Info };
        log.say(level, &notice);
        if let Notice::KubeDnsChanged { new, .. } = &notice {
            let is_known = !new.is_empty();
            metrics.upstream(new, is_known);
            metrics.config_changed();
            if is_needed {
                readiness.set(Need::KubeDns, is_known);
            }
        }
    })
}
