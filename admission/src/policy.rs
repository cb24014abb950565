//! The decision table as a MutatingAdmissionPolicy (Kubernetes 1.36 and later): the API server injects by itself, with no webhook in the way
//! of Pod creation. Four documents come out of here and nowhere else: policy, binding, and the ConfigMap of parameters, all made
//! from the same settings as the webhook's decisions.
//!
//! | rows | where |
//! |---|---|
//! | 1, 3-7 | `matchConstraints` (rules and selectors) |
//! | 8-13, 15 | `matchConditions`, each named after the reason that it stands for |
//! | 14, 16 | variables; an empty list of patches where they stop |
//! | 17 | not to be said: CEL has no hash function. Nor can a policy only report |
//!
//! What a policy cannot do: say why. It has no warnings, no audit annotations, no reasons in metrics. What changes with the cluster (kube-dns'
//! addresses) and with the operator's numbers stands in the parameters, which [`controller`] keeps in step, so the policy itself is constant.

mod conditions;
pub mod controller;
mod documents;
mod variables;

use std::fmt;

pub use documents::{Documents, Names, documents, parameters};

/// A setting that no policy can carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// In words that fit behind "the".
    pub setting: &'static str,
    /// What to do.
    pub help: &'static str,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a policy cannot carry out the {}; {}", self.setting, self.help)
    }
}

impl std::error::Error for Unsupported {}

/// A CEL string literal.
fn literal(text: &str) -> String {
    // JSON's escapes are among CEL's.
    serde_json::Value::from(text).to_string()
}

/// A CEL list of string literals.
fn literals<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    format!("[{}]", texts.into_iter().map(literal).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
