//! The cluster side: what the admission server knows of the cluster, and how it stays true.
//!
//! Watches fill the snapshot that reviews are answered from; nothing here is on the way of a review but [`fresh`], which is
//! bounded to 300 ms and only asked when the watch contradicts the API server. An API server that is away changes nothing: what
//! was known stays known, and the watches go on by themselves when it is back.
//!
//! Not here: what follows from the knowledge (`decide`), certificates' life (`certificates`), HTTP (`server`).

pub mod certificates;
pub mod events;
mod follow;
pub mod fresh;
pub mod kube_dns;
pub mod namespaces;
pub mod notice;
mod progress;
pub mod read;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Service;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, Config};
use tokio::task::JoinSet;

pub use certificates::KubeStore;
pub use events::Events;
pub use fresh::FreshLook;
pub use kube_dns::KubeDnsSource;
pub use notice::{Notice, Notify};
pub use progress::Progress;

use crate::snapshot::Snapshot;
use follow::{error_text, follow, watch_config};
use kube_dns::KubeDnsKeeper;
use namespaces::{NamespaceMeta, NamespacesKeeper};

/// How long a connection to the API server may take; kube's default of 30 s is longer than a command's user waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no client for the cluster.
#[derive(Debug)]
pub struct ConnectError {
    text: String,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "no access to a cluster: {}; give a kubeconfig (--kubeconfig FILE or KUBECONFIG), or run inside a Pod with a service account",
            self.text
        )
    }
}

impl std::error::Error for ConnectError {}

/// A client: for the kubeconfig file that is named, else for `KUBECONFIG` or `~/.kube/config`, else for the Pod's service
/// account. Does not connect yet.
pub async fn client(kubeconfig: Option<PathBuf>, context: Option<String>) -> Result<Client, ConnectError> {
    let refuse = |error: &dyn std::error::Error| ConnectError { text: error_text(error) };
    let options = KubeConfigOptions { context, ..Default::default() };
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|e| refuse(&e))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|e| refuse(&e))?
        }
        None if options.context.is_some() => {
            Config::from_kubeconfig(&options).await.map_err(|e| refuse(&e))?
        }
        None => Config::infer().await.map_err(|e| refuse(&e))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).map_err(|e| refuse(&e))
}

/// The watches; dropping it ends them.
#[derive(Debug)]
pub struct Watches {
    progress: Arc<Progress>,
    tasks: JoinSet<()>,
}

impl Watches {
    /// Watches namespaces, and the cluster's DNS unless its address is fixed (`source` is None), and keeps `snapshot` in step.
    /// To be called within a tokio runtime.
    pub fn start(
        client: &Client,
        source: Option<KubeDnsSource>,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        notify: &Notify,
    ) -> Self {
        let mut watches = Self { progress: Arc::default(), tasks: JoinSet::new() };
        let keeper =
            NamespacesKeeper::new(Arc::clone(snapshot), Arc::clone(&watches.progress), Arc::clone(notify));
        let namespaces: Api<NamespaceMeta> = Api::all(client.clone());
        let events = watcher(namespaces, watch_config());
        watches.tasks.spawn(follow(events, notice::Subject::Namespaces, keeper, Arc::clone(notify)));
        match source {
            Some(source) => watches.add_kube_dns(client, source, snapshot, notify),
            None => watches.progress.set_kube_dns(true),
        }
        watches
    }

    /// Watches the cluster's DNS alone.
    pub fn kube_dns(
        client: &Client,
        source: KubeDnsSource,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        notify: &Notify,
    ) -> Self {
        let mut watches = Self { progress: Arc::default(), tasks: JoinSet::new() };
        watches.add_kube_dns(client, source, snapshot, notify);
        watches
    }

    fn add_kube_dns(
        &mut self,
        client: &Client,
        source: KubeDnsSource,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        notify: &Notify,
    ) {
        let services: Api<Service> = Api::namespaced(client.clone(), &source.namespace);
        let keeper =
            KubeDnsKeeper::new(source, Arc::clone(snapshot), Arc::clone(&self.progress), Arc::clone(notify));
        let events = watcher(services, watch_config());
        self.tasks.spawn(follow(events, notice::Subject::KubeDns, keeper, Arc::clone(notify)));
    }

    /// How far they have come.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }
}
