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

/// Creates dry-run Pods from several tasks until told; returns how many, and how many were not injected.
pub(crate) async fn load(cluster: &Cluster, namespace: &str, until: Arc<AtomicBool>) -> (usize, usize) {
    const TASKS: usize = 8;
    let missed = AtomicUsize::new(0);
    let tasks = (0..TASKS).map(|task| {
        let (until, missed) = (&until, &missed);
        async move {
            let mut count = 0;
            while !until.load(Ordering::Relaxed) {
                let name = format!("p{task}-{count}");
                let stored =
                    try_create(&cluster.client, namespace, plain(&name), true).await.expect("created");
                if !is_injected(&stored) {
                    missed.fetch_add(1, Ordering::Relaxed);
                }
                count += 1;
            }
            count
        }
    });
    let counts: Vec<usize> = join_all(tasks).await;
    (counts.iter().sum(), missed.load(Ordering::Relaxed))
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
            sleep(Duration::from_secs(2)).await;
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
    let (count, missed) = created;
    let passed = cluster.metric("apiserver_admission_webhook_fail_open_count", "certs.nodens.test").await;
    nodens_testkit::note(&format!("    {count} Pods through {ROUNDS} authorities, {missed} missed"));
    assert_eq!((missed, passed), (0, 0.0), "{}", admission.process.dump());
    // A very busy machine was seen to create 115.
    assert!(count > 20, "only {count} Pods");
    admission.remove().await;
}

pub(crate) async fn the_servers_own_authority_rotates_under_load_without_a_gap(cluster: &Cluster) {
    // Authorities live 30 s, so the second one signs after 22 s and the first is forgotten after 30.
    const LIVES: [&str; 6] = [
        "--cert-mode=self",
        "--service=own",
        "--ca-life=30s",
        "--leaf-life=5s",
        "--settle-time=2s",
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
    let ((count, missed), ()) = tokio::join!(load(cluster, "own", Arc::clone(&ended)), rotate);
    let passed = cluster.metric("apiserver_admission_webhook_fail_open_count", "own.nodens.test").await;
    nodens_testkit::note(&format!("    {count} Pods through the whole rotation, {missed} missed"));
    assert_eq!((missed, passed), (0, 0.0), "{}", admission.process.dump());
    assert_ne!(bundle().await, first);
    admission.remove().await;
}
