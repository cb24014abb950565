//! What an audit found, as a table for people and as data for machines.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::commands::checks::{self, Check};
use crate::commands::table::Table;

/// What a namespace says about injection.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It asks for it.
    Enabled,
    /// It does not.
    #[default]
    NotEnabled,
    /// It is exempt.
    Exempt,
    /// It is exempt, and asks for it in vain.
    ExemptThoughLabelled,
    /// Its Pods run on virtual nodes.
    VirtualNodes,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            State::Enabled => "enabled",
            State::NotEnabled => "-",
            State::Exempt => "exempt",
            State::ExemptThoughLabelled => "exempt, though labelled",
            State::VirtualNodes => "virtual nodes",
        }
    }
}

/// One namespace. Pods whose containers have ended are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NamespaceRow {
    /// What it says.
    pub state: State,
    /// Pods in it.
    pub pods: usize,
    /// Pods that ask the node-local address and carry the injector's mark.
    pub injected: usize,
    /// Pods that ask it without that mark.
    pub unmarked: usize,
    /// Pods that would be injected if they were created now.
    pub restart: usize,
    /// Pods with an address that is no longer right.
    pub stale: usize,
    /// Their names.
    pub stale_pods: Vec<String>,
    /// Pods that ask, or would ask, and may not be allowed to.
    pub blocked: usize,
    /// The policies that isolate them, and the protocols that nothing allows.
    pub blocked_by: BTreeMap<String, &'static str>,
    /// Pods that are left alone in a namespace that asks for injection, by reason.
    pub skipped: BTreeMap<&'static str, usize>,
}

impl NamespaceRow {
    /// Whether there is anything to say about it.
    fn is_of_interest(&self) -> bool {
        !matches!(self.state, State::NotEnabled | State::Exempt)
            || self.injected + self.unmarked + self.stale > 0
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// About the cluster as a whole.
    pub checks: Vec<Check>,
    /// By name.
    pub namespaces: BTreeMap<String, NamespaceRow>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        checks::write(f, &self.checks)?;
        let shown: Vec<_> = self.namespaces.iter().filter(|(_, row)| row.is_of_interest()).collect();
        if !shown.is_empty() {
            let mut table = Table::new(&[
                "NAMESPACE",
                "STATE",
                "PODS",
                "INJECTED",
                "UNMARKED",
                "RESTART",
                "STALE",
                "BLOCKED",
                "LEFT ALONE",
            ]);
            for (name, row) in &shown {
                let skipped = row.skipped.iter().map(|(reason, count)| format!("{reason}: {count}"));
                table.row([
                    (*name).clone(),
                    row.state.as_str().into(),
                    row.pods.to_string(),
                    row.injected.to_string(),
                    row.unmarked.to_string(),
                    row.restart.to_string(),
                    row.stale.to_string(),
                    row.blocked.to_string(),
                    skipped.collect::<Vec<_>>().join(", "),
                ]);
            }
            write!(f, "\n{table}")?;
        }
        for (name, row) in &shown {
            for (policy, protocols) in &row.blocked_by {
                writeln!(
                    f,
                    "NetworkPolicy {name}/{policy} isolates Pods, and nothing allows them {protocols} to the node-local address."
                )?;
            }
        }
        let others = self.namespaces.len() - shown.len();
        writeln!(f, "\n{others} other namespaces do not ask for injection and have no Pods that use it.")
    }
}
