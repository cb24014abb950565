//! What the mock API server needs to know of REST: paths, queries, selectors, patches.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a path names: one object, or, without a name, a collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    pub(crate) group: String,
    /// The plural: `services`.
    pub(crate) resource: String,
    /// Empty: no namespace, or all of them.
    pub(crate) namespace: String,
    /// Empty: a collection.
    pub(crate) name: String,
}

impl Target {
    /// None: not a path of an API.
    pub(crate) fn parse(path: &str) -> Option<Target> {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => format!("/api/{}", parts.next()?),
            "apis" => format!("/apis/{}/{}", parts.next()?, parts.next()?),
            _ => return None,
        };
        let rest: Vec<_> = parts.collect();
        let (namespace, resource, name) = match rest[..] {
            ["namespaces"] => ("", "namespaces", ""),
            ["namespaces", name] => ("", "namespaces", name),
            ["namespaces", namespace, resource] => (namespace, resource, ""),
            ["namespaces", namespace, resource, name] => (namespace, resource, name),
            [resource] => ("", resource, ""),
            [resource, name] => ("", resource, name),
            _ => return None,
        };
        let owned = str::to_owned;
        Some(Target { group, resource: owned(resource), namespace: owned(namespace), name: owned(name) })
    }

    /// Whether an object belongs to this collection, or is this object.
    pub(crate) fn holds(&self, object: &Target) -> bool {
        self.group == object.group
            && self.resource == object.resource
            && (self.namespace.is_empty() || self.namespace == object.namespace)
            && (self.name.is_empty() || self.name == object.name)
    }
}

/// The query of a URL, decoded.
pub(crate) fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&hex, 16).expect("a good escape"));
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).expect("UTF-8")
}

/// labelSelector and fieldSelector, as far as tests need them: `a=b`, `a`, `!a`, with commas.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    labels: Vec<String>,
    fields: Vec<String>,
}

impl Selectors {
    /// From a query.
    pub(crate) fn of(query: &BTreeMap<String, String>) -> Self {
        let list = |name| -> Vec<String> {
            let text: Option<&String> = query.get(name);
            text.into_iter().flat_map(|t| t.split(',')).filter(|t| !t.is_empty()).map(str::to_owned).collect()
        };
        Selectors { labels: list("labelSelector"), fields: list("fieldSelector") }
    }
}

/// Whether an object passes.
pub(crate) fn is_selected(object: &Value, selectors: &Selectors) -> bool {
    let labels = &object["metadata"]["labels"];
    let label = |term: &String| match term.split_once('=') {
        Some((key, value)) => labels[key] == value.trim_start_matches('='),
        None => match term.strip_prefix('!') {
            Some(key) => labels[key].is_null(),
            None => !labels[term.as_str()].is_null(),
        },
    };
    let field = |term: &String| {
        let (path, value) = term.split_once('=').expect("a field selector has a value");
        path.split('.').fold(object, |at, key| &at[key]) == value.trim_start_matches('=')
    };
    selectors.labels.iter().all(label) && selectors.fields.iter().all(field)
}

/// The object as PartialObjectMetadata.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

/// A merge patch (RFC 7396), with lists of named objects merged by name as an apply patch does.
pub(crate) fn merge(mut into: Value, patch: Value) -> Value {
    match (&mut into, patch) {
        (Value::Object(map), Value::Object(changes)) => {
            for (key, change) in changes {
                if change.is_null() {
                    map.remove(&key);
                } else {
                    let old = map.remove(&key).unwrap_or(Value::Null);
                    map.insert(key, merge(old, change));
                }
            }
            into
        }
        (Value::Array(items), Value::Array(changes)) if changes.iter().all(|c| c["name"].is_string()) => {
            for change in changes {
                match items.iter_mut().find(|item| item["name"] == change["name"]) {
                    Some(item) => *item = merge(item.take(), change),
                    None => items.push(change),
                }
            }
            into
        }
        (_, Value::Object(changes)) => merge(json!({}), Value::Object(changes)),
        (_, patch) => patch,
    }
}
