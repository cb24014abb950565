//! One pass over all Pods of a cluster, for the commands that count them.

use std::net::IpAddr;

use kube::Client;
use serde::Deserialize;

use crate::cluster::read::{ReadError, each_raw};
use crate::names::{INJECTION_LABEL, STATUS_ANNOTATION};
use crate::pod::{Pod, Text};

/// How a Pod came to use the node-local address.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// This server's annotation, or the label that it can write.
    Injected,
    /// Neither: by another injector, by a server that marks nothing, or by hand.
    Unmarked,
}

impl Origin {
    /// As in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Origin::Injected => "injected",
            Origin::Unmarked => "unmarked",
        }
    }
}

/// A Pod as the API server has it.
#[derive(Debug)]
pub struct Stored<'a> {
    /// As the decision sees it.
    pub pod: Pod<'a>,
    /// As in `Running`.
    pub phase: Text<'a>,
    /// Whether its containers can still ask: not `Succeeded` or `Failed`.
    pub is_live: bool,
    /// The condition `Ready`.
    pub is_ready: bool,
}

#[derive(Deserialize)]
struct WithStatus<'a> {
    #[serde(borrow, default)]
    status: Option<Status<'a>>,
}

#[derive(Default, Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    phase: Option<Text<'a>>,
    #[serde(borrow, default)]
    conditions: Option<Vec<Condition<'a>>>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
}

impl<'a> Stored<'a> {
    /// None: no Pod that can be read.
    pub fn read(text: &'a str) -> Option<Self> {
        let pod = Pod::read(text).ok()?;
        let status = serde_json::from_str::<WithStatus<'a>>(text).ok()?.status.unwrap_or_default();
        let is_ready =
            status.conditions.iter().flatten().any(|c| &*c.kind == "Ready" && &*c.status == "True");
        let phase = status.phase.unwrap_or_default();
        let is_live = !matches!(&*phase, "Succeeded" | "Failed");
        Some(Self { pod, phase, is_live, is_ready })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// `ReplicaSet/web-5d`, or nothing.
    pub fn owner(&self) -> String {
        let text = |field: &Option<Text<'_>>| field.as_deref().unwrap_or_default().to_owned();
        self.pod.metadata.owner().map_or(String::new(), |o| format!("{}/{}", text(&o.kind), text(&o.name)))
    }

    /// The addresses of its own nameservers, in its order; what is no address is left out.
    pub fn nameservers(&self) -> Vec<IpAddr> {
        let own = self.pod.spec.dns_config.as_ref();
        own.into_iter().flat_map(|config| &config.nameservers).filter_map(|text| text.parse().ok()).collect()
    }

    /// Whether it asks one of these addresses.
    pub fn asks(&self, node_local: &[IpAddr]) -> bool {
        self.nameservers().iter().any(|address| node_local.contains(address))
    }

    /// How it came to that.
    pub fn origin(&self) -> Origin {
        /// What another server of this kind writes; so may ours, on request.
        const INJECTED: &str = "injected";
        let metadata = &self.pod.metadata;
        let is_marked = metadata.annotation(STATUS_ANNOTATION).is_some()
            || metadata.label(INJECTION_LABEL) == Some(INJECTED);
        if is_marked { Origin::Injected } else { Origin::Unmarked }
    }
}

/// Hands every Pod of a namespace, or of all, to `each`. Returns how many could not be read.
pub async fn each(
    client: &Client,
    namespace: Option<&str>,
    mut each: impl FnMut(&Stored<'_>),
) -> Result<usize, ReadError> {
    let path = namespace.map_or("/api/v1/pods".to_owned(), |name| format!("/api/v1/namespaces/{name}/pods"));
    let mut unreadable = 0;
    each_raw(client, "Pods", &path, |text| match Stored::read(text) {
        Some(stored) => each(&stored),
        None => unreadable += 1,
    })
    .await?;
    Ok(unreadable)
}
