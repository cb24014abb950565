//! `uninstall`: stops injection, then says who still depends on the node-local address.
//!
//! Injected Pods keep `nameserver 169.254.20.10` until they are recreated. So the order is: first nothing is injected any more (the policy's
//! binding, the policy, the webhook configuration), then the workloads are restarted, and only then agents, admission server and, last,
//! the Service `node-local-upstream` go. Deletion by a chart alone gets that wrong for policies, so this runs before it, as its
//! hook or by hand, and refuses while live Pods still depend, unless told otherwise.

use std::collections::BTreeMap;
use std::fmt;

use kube::Client;
use serde::Serialize;

use super::injectors::{self, Injector, Kind};
use super::list_injected;
use super::table::Table;
use crate::cluster::read::ReadError;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only objects with these names; empty: all that select by our label.
    pub names: Vec<String>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Go on although Pods depend.
    pub force: bool,
    /// Which Pods depend.
    pub dependents: list_injected::Options,
}

/// How far it came.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Nothing was done: more than one webhook configuration injects, and it was not said which one is meant.
    Ambiguous,
    /// Nothing was done, as asked.
    DryRun,
    /// Injection is stopped; the rest has to wait for the Pods.
    PodsDepend,
    /// The rest may go.
    Clear,
}

/// What was done and what remains.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How far it came.
    pub step: Step,
    /// What injects, or did until now, in the order of deletion.
    pub injectors: Vec<Injector>,
    /// Workloads whose Pods ask the node-local address, `namespace/Kind/name`, and how many each has.
    pub dependents: BTreeMap<String, usize>,
    /// Whether to go on although Pods depend.
    pub force: bool,
}

impl Report {
    /// Whether everything that was asked for is done.
    pub fn is_done(&self) -> bool {
        matches!(self.step, Step::Clear | Step::DryRun)
    }
}

/// Stops injection and counts.
pub async fn run(client: &Client, options: &Options) -> Result<Report, ReadError> {
    let mut injectors = injectors::find(client).await?;
    if !options.names.is_empty() {
        injectors.retain(|injector| options.names.contains(&injector.name));
    }
    let webhooks = injectors.iter().filter(|i| i.kind == Kind::WebhookConfiguration).count();
    let is_ambiguous = webhooks > 1 && options.names.is_empty();
    if !is_ambiguous && !options.dry_run {
        for injector in &injectors {
            injectors::delete(client, injector).await?;
        }
    }
    let mut dependents = BTreeMap::new();
    for pod in list_injected::run(client, &options.dependents).await?.pods {
        // A bare Pod is its own workload.
        let owner = if pod.owner.is_empty() { format!("Pod/{}", pod.name) } else { pod.owner };
        *dependents.entry(format!("{}/{owner}", pod.namespace)).or_default() += 1;
    }
    let step = match () {
        () if is_ambiguous => Step::Ambiguous,
        () if options.dry_run => Step::DryRun,
        () if !dependents.is_empty() && !options.force => Step::PodsDepend,
        () => Step::Clear,
    };
    Ok(Report { step, injectors, dependents, force: options.force })
}

/// What is left to do by hand, in its order; Helm does the same for a release.
const REST: &str = "\
What remains, in this order (`helm uninstall RELEASE -n NAMESPACE` does the same):
  1. the admission server: its Deployment and Service
  2. the agents: DaemonSet and ConfigMap node-local-dns
  3. last, the Service node-local-upstream, through which running agents ask
Cluster DNS takes all queries from then on: scale it out before step 2.
";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.step {
            Step::Ambiguous => "found",
            Step::DryRun => "would delete",
            Step::PodsDepend | Step::Clear => "deleted",
        };
        for injector in &self.injectors {
            writeln!(f, "{verb} {} {}", injector.kind, injector.name)?;
        }
        if self.injectors.is_empty() {
            f.write_str("Nothing injects here.\n")?;
        }
        if self.step == Step::Ambiguous {
            return f.write_str(
                "\nNothing was done: several webhook configurations inject. Name those that are to go with --name NAME.\n",
            );
        }
        if !self.dependents.is_empty() {
            let mut table = Table::new(&["WORKLOAD", "PODS"]);
            for (workload, pods) in &self.dependents {
                table.row([workload.clone(), pods.to_string()]);
            }
            let total: usize = self.dependents.values().sum();
            writeln!(f, "\n{total} Pods still ask the node-local address:\n{table}")?;
        }
        match self.step {
            Step::PodsDepend => f.write_str(
                "Injection is stopped; the agents must stay until these Pods are gone. Scale cluster DNS out, restart the workloads \
                 (`kubectl -n NAMESPACE rollout restart …`), and run this again; or go on at once with --force: then each lookup of \
                 these Pods waits for a timeout before cluster DNS is asked.\n",
            ),
            Step::Clear | Step::DryRun => f.write_str(REST),
            Step::Ambiguous => Ok(()),
        }
    }
}
