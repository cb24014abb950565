//! What is known of namespaces: labels and annotations that steer injection.
//!
//! The watch is metadata only, and of that only what matters is kept. A namespace that matters to nobody costs its name.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;

use super::follow::Keeper;
use super::notice::{Notice, Notify};
use super::progress::Progress;
use crate::names::{ENABLED, INJECTION_LABEL};
use crate::settings::InjectionSettings;
use crate::snapshot::{NamespaceFacts, Namespaces, Snapshot};

/// A namespace's name and metadata, as the watch brings it.
pub(super) type NamespaceMeta = PartialObjectMeta<Namespace>;

/// What matters of a namespace's metadata.
pub fn facts(settings: &InjectionSettings, namespace: &impl ResourceExt) -> NamespaceFacts {
    let text = |(key, value): (&'_ String, &'_ String)| (key.clone(), value.clone());
    let labels: Vec<_> = namespace.labels().iter().map(text).collect();
    let annotations: Vec<_> = namespace.annotations().iter().map(text).collect();
    NamespaceFacts::new(settings, pairs(&labels), pairs(&annotations))
}

fn pairs(list: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    list.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// Keeps the snapshot's namespaces in step with the cluster's.
pub(super) struct NamespacesKeeper {
    settings: Arc<InjectionSettings>,
    known: HashMap<String, Arc<NamespaceFacts>>,
    /// What most namespaces have to say: nothing.
    nothing: Arc<NamespaceFacts>,
    is_changed: bool,
    is_listed: bool,
    snapshot: Arc<ArcSwap<Snapshot>>,
    progress: Arc<Progress>,
    notify: Notify,
}

impl NamespacesKeeper {
    pub(super) fn new(snapshot: Arc<ArcSwap<Snapshot>>, progress: Arc<Progress>, notify: Notify) -> Self {
        Self {
            settings: Arc::clone(snapshot.load().config.settings()),
            known: HashMap::new(),
            nothing: Arc::default(),
            is_changed: false,
            is_listed: false,
            snapshot,
            progress,
            notify,
        }
    }

    fn facts(&self, namespace: &NamespaceMeta) -> Arc<NamespaceFacts> {
        let facts = facts(&self.settings, namespace);
        if facts == *self.nothing { Arc::clone(&self.nothing) } else { Arc::new(facts) }
    }
}

impl Keeper<NamespaceMeta> for NamespacesKeeper {
    fn replace(&mut self, objects: Vec<NamespaceMeta>) {
        let known: HashMap<_, _> =
            objects.iter().map(|object| (object.name_any(), self.facts(object))).collect();
        self.is_changed |= !self.is_listed || known != self.known;
        self.known = known;
        self.is_listed = true;
    }

    fn put(&mut self, object: NamespaceMeta) {
        let facts = self.facts(&object);
        let name = object.name_any();
        // Most changes of a namespace (finalizers, other controllers' annotations) are none to us.
        if self.known.get(&name) != Some(&facts) {
            self.known.insert(name, facts);
            self.is_changed = true;
        }
    }

    fn remove(&mut self, object: NamespaceMeta) {
        self.is_changed |= self.known.remove(&object.name_any()).is_some();
    }

    fn publish(&mut self) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let namespaces = Arc::new(Namespaces::Watched(self.known.clone()));
        self.snapshot.rcu(|snapshot| Snapshot {
            config: Arc::clone(&snapshot.config),
            namespaces: Arc::clone(&namespaces),
        });
        if !self.progress.has_namespaces() {
            let asks = |facts: &&Arc<NamespaceFacts>| facts.label(INJECTION_LABEL) == Some(ENABLED);
            let enabled = self.known.values().filter(asks).count();
            (self.notify)(Notice::NamespacesKnown { count: self.known.len(), enabled });
        }
        self.progress.set_namespaces(self.known.len());
    }
}
