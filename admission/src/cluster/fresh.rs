//! One fresh look at a namespace, for the moment when the watch lags behind.
//!
//! `kubectl label namespace` followed at once by `kubectl apply` reaches the server before its watch does: the API server's
//! selector has let the request through while our copy still says "not enabled". Then the server asks once, for at most
//! [`BUDGET`]. Simultaneous requests for one namespace share one GET, and its answer stands for [`LIFETIME`], so that a webhook
//! configuration without a selector does not turn every Pod into a request to the API server. Without an answer the API server's
//! selector is believed: None.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::namespaces::facts;
use crate::reviewer::FreshNamespaces;
use crate::settings::InjectionSettings;
use crate::snapshot::NamespaceFacts;

/// How long a review may wait for a fresh look. A tenth of the webhook's 3 s.
pub const BUDGET: Duration = Duration::from_millis(300);

/// How long an answer stands.
pub const LIFETIME: Duration = Duration::from_secs(1);

/// Namespaces asked for at a time. Labelling more than these in one second is no race but a rollout, and trusting the selector is
/// right then.
pub const LOOKS_MAX: usize = 64;

type Facts = Option<Arc<NamespaceFacts>>;

/// Asks for namespaces, once for all who want to know at the same time.
#[derive(Clone)]
pub struct FreshLook {
    client: Client,
    settings: Arc<InjectionSettings>,
    looks: Arc<Mutex<HashMap<String, Look>>>,
}

struct Look {
    begun: Instant,
    /// None until there is an answer.
    answer: watch::Receiver<Option<Facts>>,
}

impl FreshLook {
    /// Asks with this client.
    pub fn new(client: Client, settings: Arc<InjectionSettings>) -> Self {
        Self { client, settings, looks: Arc::default() }
    }

    /// The namespace as the API server has it now; None when it cannot be learned in time, or does not exist.
    pub async fn namespace(&self, name: &str) -> Facts {
        let mut answer = self.look(name)?;
        let answered = timeout(BUDGET, answer.wait_for(Option::is_some)).await;
        answered.ok()?.ok()?.clone()?
    }

    fn look(&self, name: &str) -> Option<watch::Receiver<Option<Facts>>> {
        let now = Instant::now();
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|_, look| now < look.begun + BUDGET + LIFETIME);
        if let Some(look) = looks.get(name) {
            return Some(look.answer.clone());
        }
        if looks.len() >= LOOKS_MAX {
            return None;
        }
        let (answered, answer) = watch::channel(None);
        looks.insert(name.to_owned(), Look { begun: now, answer: answer.clone() });
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let (settings, name) = (Arc::clone(&self.settings), name.to_owned());
        tokio::spawn(async move {
            let got = timeout(BUDGET, namespaces.get_metadata(&name)).await;
            let found = got.ok().and_then(Result::ok).map(|found| Arc::new(facts(&settings, &found)));
            answered.send_replace(Some(found));
        });
        Some(answer)
    }
}

impl FreshNamespaces for FreshLook {
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Facts> {
        Box::pin(self.namespace(name))
    }
}
