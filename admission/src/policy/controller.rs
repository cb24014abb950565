//! Keeps the policy's parameters in step with the cluster: the one thing of policy mode that cannot stand still.
//!
//! A policy cannot look a Service up, so kube-dns' addresses stand in its ConfigMap of parameters. When they change, this writes them there; every
//! [`CHECK_INTERVAL`] it looks whether somebody else has changed the ConfigMap. It is not in the way of any Pod: while it is away, Pods
//! are injected with what was written last. Nothing is written before the cluster has been looked at; "not known yet" is not "none".
//! Any number of replicas may do it: they write the same.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Names, parameters};
use crate::cluster::read::{ReadError, ask, get};
use crate::snapshot::{Config, Snapshot};

/// How often the ConfigMap is looked at although nothing changed here.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// After a failure it is tried again this soon.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Who owns the data, as `kubectl get --show-managed-fields` shows it.
const FIELD_MANAGER: &str = "nodens-admission";

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The parameters were written; the addresses of kube-dns in them.
    Written(String),
    /// They could not be read or written. Told when it begins and when the reason changes.
    Failed(String),
}

/// The ConfigMap's keeper.
#[derive(Clone, Debug)]
pub struct Controller {
    config_maps: Api<ConfigMap>,
    name: String,
    what: String,
}

impl Controller {
    /// For the ConfigMap that these names mean.
    pub fn new(client: Client, names: &Names) -> Self {
        Self {
            config_maps: Api::namespaced(client, &names.namespace),
            name: names.parameters.clone(),
            what: format!("ConfigMap {}/{}", names.namespace, names.parameters),
        }
    }

    /// For ever: whenever `looks` grows (its value is how often the cluster's DNS was looked at; nothing is done at 0), and from time to
    /// time. Ends with the sender of `looks`.
    pub async fn follow(
        self,
        snapshot: Arc<ArcSwap<Snapshot>>,
        mut looks: watch::Receiver<u64>,
        tell: impl Fn(Told) + Send,
    ) {
        if looks.wait_for(|looks| *looks > 0).await.is_err() {
            return;
        }
        let mut trouble = None;
        loop {
            let config = Arc::clone(&snapshot.load().config);
            let wait = match self.reconcile(&config).await {
                Ok(is_written) => {
                    // What was told as failing has an end that is told, too.
                    if is_written || trouble.take().is_some() {
                        tell(Told::Written(parameters(&config).remove("upstream").unwrap_or_default()));
                    }
                    CHECK_INTERVAL
                }
                Err(error) => {
                    let why = error.to_string();
                    if trouble.as_ref() != Some(&why) {
                        tell(Told::Failed(why.clone()));
                        trouble = Some(why);
                    }
                    RETRY_INTERVAL
                }
            };
            if let Ok(Err(_)) = timeout(wait, looks.changed()).await {
                return;
            }
        }
    }

    /// Makes the ConfigMap say what the configuration says; whether it had to be written.
    pub async fn reconcile(&self, config: &Config) -> Result<bool, ReadError> {
        let wanted = parameters(config);
        let stored = get(&self.config_maps, &self.what, &self.name).await?;
        if stored.is_some_and(|stored| stored.data.as_ref() == Some(&wanted)) {
            return Ok(false);
        }
        let applied = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}, "data": wanted,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let what = format!("{} (to write it)", self.what);
        ask(&what, self.config_maps.patch(&self.name, &params, &Patch::Apply(applied))).await.map(|_| true)
    }
}
