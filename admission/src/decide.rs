//! Which Pods get node-local DNS: a pure function of the request, the Pod, its namespace and the configuration. No clock, no I/O; the
//! webhook, `explain`, the offline injector and the tests call the same one.
//!
//! The decision table is [`ROWS`]; the first row that matches wins, and each but the last only ever leaves Pods alone. Row 2 (an
//! object that cannot be read) is decided before there is a Pod to look at, in [`review`](crate::review).
//!
//! **When in doubt, do not inject**: a Pod that is left alone resolves through kube-dns as it always did, one that is injected
//! wrongly may not resolve at all.

mod dns;
mod placement;
mod rows;

use serde::Deserialize;

pub use dns::{DnsSettings, OptionEntry, node_local};
pub use rows::{ROWS, Row};

use crate::overrides::{Ignored, Overrides};
use crate::pod::{Pod, Text};
use crate::reason::Reason;
use crate::snapshot::{Config, NamespaceView};

/// The request that brought the Pod, as far as the decision looks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// As in `CREATE`.
    #[serde(borrow, default)]
    pub operation: Option<Text<'a>>,
    /// Group, version and plural of the resource.
    #[serde(borrow, default)]
    pub resource: Option<Resource<'a>>,
    /// As in `ephemeralcontainers`.
    #[serde(borrow, default)]
    pub sub_resource: Option<Text<'a>>,
    /// Where the Pod is to live. The object's own namespace does not count: old API servers left it empty.
    #[serde(borrow, default)]
    pub namespace: Option<Text<'a>>,
}

/// `request.resource`
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Resource<'a> {
    /// Empty for core.
    #[serde(borrow, default)]
    pub group: Option<Text<'a>>,
    /// As in `v1`.
    #[serde(borrow, default)]
    pub version: Option<Text<'a>>,
    /// As in `pods`.
    #[serde(borrow, default)]
    pub resource: Option<Text<'a>>,
}

impl Request<'_> {
    /// The creation of a Pod in a namespace, as the API server would ask for it.
    pub fn pod_create(namespace: &str) -> Request<'_> {
        let text = |text| Some(Text(std::borrow::Cow::Borrowed(text)));
        Request {
            operation: text("CREATE"),
            resource: Some(Resource { group: None, version: text("v1"), resource: text("pods") }),
            sub_resource: None,
            namespace: text(namespace),
        }
    }

    /// The namespace, or nothing.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// Whether a Pod is created: row 1.
    pub fn is_pod_create(&self) -> bool {
        let is = |field: &Option<Text<'_>>, wanted| field.as_deref().unwrap_or_default() == wanted;
        let resource = self.resource.as_ref();
        is(&self.operation, "CREATE")
            && resource.is_some_and(|r| is(&r.group, "") && is(&r.version, "v1") && is(&r.resource, "pods"))
            && is(&self.sub_resource, "")
            && !self.namespace().is_empty()
    }
}

/// Everything that a row of the table can look at.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// The Pod.
    pub pod: &'a Pod<'a>,
    /// Its namespace.
    pub namespace: NamespaceView<'a>,
    /// The configuration.
    pub config: &'a Config,
    /// What annotations change.
    pub overrides: Overrides,
    /// Annotations that were not heeded.
    pub ignored: Vec<Ignored>,
}

impl<'a> Input<'a> {
    /// Puts it together and reads the annotations.
    pub fn new(
        request: &'a Request<'a>,
        pod: &'a Pod<'a>,
        namespace: NamespaceView<'a>,
        config: &'a Config,
    ) -> Self {
        let mut ignored = Vec::new();
        let overrides = Overrides::read(&pod.metadata, namespace, &mut ignored);
        Self { request, pod, namespace, config, overrides, ignored }
    }

    /// What the Pod's DNS would be if it were injected, whatever the other rows say; or why it cannot be.
    pub fn dns_settings(&self) -> Result<DnsSettings<'a>, crate::validate::Broken> {
        dns::merged(self)
    }
}

/// What is to happen to the Pod.
#[derive(Clone, Debug)]
pub enum Decision<'a> {
    /// It gets these DNS settings.
    Inject(DnsSettings<'a>),
    /// It is left alone.
    Skip(Reason),
}

/// Walks the table.
pub fn decide<'a>(input: &Input<'a>) -> Decision<'a> {
    if let Some(reason) = ROWS.iter().find_map(|row| (row.stops)(input)) {
        return Decision::Skip(reason);
    }
    match input.dns_settings() {
        Ok(settings) => Decision::Inject(settings),
        // Row 16 has looked already.
        Err(_) => Decision::Skip(Reason::LimitsExceeded),
    }
}
