//! The change to a Pod as an RFC 6902 patch: minimal, in a fixed order, and applicable to the Pod it was made for.
//!
//! 1. `add /spec/dnsPolicy "None"`; `add` replaces what is there and works where nothing is.
//! 2. `add /spec/dnsConfig {…}`, whole: its lists are atomic, and it was computed from the whole.
//! 3. the marks, where wanted: into the map where there is one, else with it. A parent is never assumed.
//!
//! There is no `test` operation: a patch that does not apply is an error that `failurePolicy: Ignore` does not cover, so a guard could
//! only get Pods rejected. What it would guard against cannot happen: the API server applies one webhook's patch before it asks the next.

use std::fmt;

use serde::Serialize;

use crate::decide::DnsSettings;
use crate::names::{INJECTION_LABEL, STATUS_ANNOTATION};
use crate::pod::Pod;
use crate::settings::Marker;

/// The label's value on Pods that were injected, where the operator wants it.
pub const INJECTED: &str = "injected";

/// What the status annotation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Of the server.
    pub version: String,
    /// [`Config::fingerprint`](crate::snapshot::Config::fingerprint).
    pub fingerprint: String,
}

impl Status {
    /// Of this version of the server.
    pub fn new(fingerprint: &str) -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), fingerprint: fingerprint.to_owned() }
    }

    /// Reads the annotation's value.
    pub fn parse(text: &str) -> Option<Self> {
        let (version, fingerprint) = text.split_once(' ')?;
        Some(Self { version: version.to_owned(), fingerprint: fingerprint.to_owned() })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.fingerprint)
    }
}

/// One operation.
#[derive(Debug, Serialize)]
struct Add<'a> {
    op: &'static str,
    path: String,
    value: Value<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Text(String),
    Map(std::collections::BTreeMap<&'static str, String>),
    Dns(&'a DnsSettings<'a>),
}

/// The patch, as the bytes of a JSON array.
pub fn render(pod: &Pod<'_>, settings: &DnsSettings<'_>, marker: Marker, fingerprint: &str) -> Vec<u8> {
    let mut patch = vec![
        add("/spec/dnsPolicy", Value::Text("None".into())),
        add("/spec/dnsConfig", Value::Dns(settings)),
    ];
    if marker != Marker::None {
        let status = Status::new(fingerprint).to_string();
        let there = pod.metadata.annotations.is_some();
        patch.push(add_entry("/metadata/annotations", there, STATUS_ANNOTATION, status));
    }
    if marker == Marker::AnnotationAndLabel && pod.metadata.label(INJECTION_LABEL).is_none() {
        let there = pod.metadata.labels.is_some();
        patch.push(add_entry("/metadata/labels", there, INJECTION_LABEL, INJECTED.into()));
    }
    // Strings, numbers and values that were JSON already: this cannot fail, and what is empty is not sent.
    serde_json::to_vec(&patch).unwrap_or_default()
}

fn add<'a>(path: &str, value: Value<'a>) -> Add<'a> {
    Add { op: "add", path: path.to_owned(), value }
}

/// An entry of a map that may not exist. `null` counts as absent and is replaced.
fn add_entry(map: &str, there: bool, key: &'static str, value: String) -> Add<'static> {
    match there {
        // RFC 6901 §4: a slash within a key.
        true => add(&format!("{map}/{}", key.replace('/', "~1")), Value::Text(value)),
        false => add(map, Value::Map([(key, value)].into())),
    }
}
