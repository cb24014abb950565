//! Against a real kube-apiserver: what only it can tell. Selectors, dry runs, defaulting, reinvocation, what it does when the webhook is
//! dead or slow, its audit log, its idea of a valid Pod.
//!
//! Needs the programs `kube-apiserver` (1.36 or later for all of it) and `etcd` in the folder that `KUBEBUILDER_ASSETS` names, or in
//! `/usr/local/kubebuilder/bin`, as controller-runtime's envtest has it. No package registry has them, so this is the one suite
//! that may be skipped even where nothing else may. One API server serves all scenarios, one after the other; each has
//! namespaces and a webhook configuration of its own.

mod admission;
mod assets;
mod cluster;
mod lagging;
mod pods;
mod scenarios;
mod second;
#[path = "../support/mod.rs"]
mod support;

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::FutureExt;
use nodens_testkit::{note, skip_unobtainable};

use cluster::Cluster;

/// Runs only the scenarios whose names contain this.
const ONLY: &str = "NODENS_TEST_SCENARIO";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn against_a_real_kube_apiserver() {
    let Some(assets) = assets::find() else {
        skip_unobtainable(
            "there is no kube-apiserver with etcd in $KUBEBUILDER_ASSETS or /usr/local/kubebuilder/bin; no package registry has these \
             programs (https://book.kubebuilder.io/reference/envtest tells where to get them), which is why this skip is allowed",
        );
        return;
    };
    let cluster = Cluster::start(&assets).await;
    note(&format!("kube-apiserver {}", cluster.version));
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, scenario) in scenarios::ALL {
        if !name.contains(&only) {
            continue;
        }
        let begun = Instant::now();
        let result = AssertUnwindSafe(scenario(&cluster)).catch_unwind().await;
        let outcome = if result.is_ok() { "ok" } else { "FAILED" };
        note(&format!("  {name} ... {outcome} ({:.1} s)", begun.elapsed().as_secs_f64()));
        match result {
            Ok(()) => passed += 1,
            Err(_) => failed.push(*name),
        }
    }
    assert!(failed.is_empty(), "{} of {} scenarios failed: {failed:?}", failed.len(), failed.len() + passed);
    assert!(passed > 0, "no scenario is called like `{only}`");
}
