//! Certificates change while Pods are created, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::admission::{Admission, Authority, Install};
use crate::cluster::{Cluster, LONG};
use crate::pods::{is_injected, plain, try_create};

/// After this long an API server gives the webhook up; a Pod that it took longer for tells of a busy machine, not of certificates.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How many Pods were created, and how many of them were not injected.
struct Created {
    count: usize,
    missed: usize,
    overdue: usize,
}

/// Creates dry-run Pods from several tasks until told.
async fn load(cluster: &Cluster, namespace: &str, until: Arc<AtomicBool>) -> Created {
    const TASKS: usize = 8;
    let (missed, overdue) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let tasks = (0..TASKS).map(|task| {
        let (until, missed, overdue) = (&until, &missed, &overdue);
        async move {
            let mut count = 0;
            while !until.load(Ordering::Relaxed) {
                let name = format!("p{task}-{count}");
                let begun = Instant::now();
                let stored =
                    try_create(&cluster.client, namespace, plain(&name), true).await.expect("created");
                if !is_injected(&stored) {
                    let which = if begun.elapsed() < TIMEOUT { missed } else { overdue };
                    which.fetch_add(1, Ordering::Relaxed);
                }
                count += 1;
            }
            count
        }
    });
    let counts: Vec<usize> = join_all(tasks).await;
    Created { count: counts.iter().sum(), missed: missed.into_inner(), overdue: overdue.into_inner() }
}

/// That no Pod was missed for want of trust.
async fn assert_no_gap(cluster: &Cluster, admission: &Admission, name: &str, created: Created) {
    let Created { count, missed, overdue } = created;
    let passed =
        cluster.metric("apiserver_admission_webhook_fail_open_count", &format!("{name}.nodens.test")).await;
    nodens_testkit::note(&format!(
        "    {count} Pods, {missed} missed, {overdue} after the webhook's timeout, {passed} fail-opens"
    ));
    let log = admission.process.dump();
    // How TLS clients tell that they do not trust a certificate.
    assert!(!log.contains("fatal alert"), "{log}");
    assert_eq!((missed, passed), (0, overdue as f64), "{log}");
    // A very busy machine was seen to create 49.
    assert!(count > 20, "only {count} Pods");
}

pub(crate) async fn leaf_and_authority_are_replaced_under_load_without_a_gap(cluster: &Cluster) {
    const ROUNDS: usize = 3;
    let admission = Admission::install(cluster, Install::named("certs")).await;
    cluster.namespace("certs", json!({"node-local-dns-injection": "enabled", "scenario": "certs"})).await;
    let ended = Arc::new(AtomicBool::new(false));
    let first = Authority::new();
    // From the installation's authority, which stays trusted until the first leaf of ours is in place.
    let live = admission.configurations().get("certs").await.expect("it is there");
    let bundle = live
        .webhooks
        .iter()
        .flatten()
        .next()
        .and_then(|w| w.client_config.ca_bundle.clone())
        .expect("a bundle");
    let rotate = async {
        let installed = String::from_utf8(bundle.0).expect("PEM");
        admission.trust_pem(&format!("{installed}{}", first.pem())).await;
        let mut old = first;
        for _ in 0..ROUNDS {
            // The new bundle has to reach the API server's webhook client before the new leaf does.
            sleep(Duration::from_secs(6)).await;
            admission.replace_leaf(&old);
            sleep(Duration::from_secs(2)).await;
            let next = Authority::new();
            admission.trust_pem(&format!("{}{}", old.pem(), next.pem())).await;
            old = next;
        }
        sleep(Duration::from_secs(1)).await;
        ended.store(true, Ordering::Relaxed);
    };
    let (created, ()) = tokio::join!(load(cluster, "certs", Arc::clone(&ended)), rotate);
    assert_no_gap(cluster, &admission, "certs", created).await;
    admission.remove().await;
}

pub(crate) async fn the_servers_own_authority_rotates_under_load_without_a_gap(cluster: &Cluster) {
    // Authorities live 48 s, so the second one signs after 40 s and the first is forgotten after 46. A starved API server was seen to look at a new
    // caBundle later than 2 s, so it has 8.
    const LIVES: [&str; 6] = [
        "--cert-mode=self",
        "--service=own",
        "--ca-life=48s",
        "--leaf-life=5s",
        "--settle-time=8s",
        "--clock-skew=1s",
    ];
    let install = Install { flags: &LIVES, is_own_authority: true, ..Install::named("own") };
    let admission = Admission::install(cluster, install).await;
    cluster.namespace("own", json!({"node-local-dns-injection": "enabled", "scenario": "own"})).await;
    let bundle = async || {
        let live = admission.configurations().get("own").await.expect("it is there");
        live.webhooks
            .into_iter()
            .flatten()
            .next()
            .and_then(|w| w.client_config.ca_bundle)
            .expect("a bundle")
            .0
    };
    let first = bundle().await;
    let ended = Arc::new(AtomicBool::new(false));
    let rotate = async {
        let end = Instant::now() + LONG;
        loop {
            let now = String::from_utf8(bundle().await).expect("PEM");
            let first = String::from_utf8(first.clone()).expect("PEM");
            // The first authority alone is gone: published, used, forgotten.
            if !now.contains(first.trim()) {
                break;
            }
            assert!(Instant::now() < end, "no rotation: {}", admission.process.dump());
            sleep(Duration::from_millis(500)).await;
        }
        sleep(Duration::from_secs(2)).await;
        ended.store(true, Ordering::Relaxed);
    };
    let (created, ()) = tokio::join!(load(cluster, "own", Arc::clone(&ended)), rotate);
    assert_no_gap(cluster, &admission, "own", created).await;
    assert_ne!(bundle().await, first);
    admission.remove().await;
}
