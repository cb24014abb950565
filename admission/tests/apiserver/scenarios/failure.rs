//! What a dead, slow or restarting server does to Pods: nothing, but for a moment's delay.

use std::time::{Duration, Instant};

use nodens_testkit::process::signal;
use serde_json::{Value, json};

use crate::admission::{Admission, Install};
use crate::cluster::Cluster;
use crate::pods::{create, is_injected, plain, try_create};

/// How often the API server let a Pod pass although this webhook did not answer.
async fn passed(cluster: &Cluster, name: &str) -> f64 {
    cluster.metric("apiserver_admission_webhook_fail_open_count", &format!("{name}.nodens.test")).await
}

fn enabled(scenario: &str) -> Value {
    json!({"node-local-dns-injection": "enabled", "scenario": scenario})
}

pub(crate) async fn a_dead_server_costs_nobody_a_pod(cluster: &Cluster) {
    let admission = Admission::install(cluster, Install::named("dead")).await;
    cluster.namespace("dead", enabled("dead")).await;
    assert!(is_injected(&create(&cluster.client, "dead", plain("before")).await));
    admission.process.signal(signal::SIGKILL);
    let begun = Instant::now();
    assert!(!is_injected(&create(&cluster.client, "dead", plain("after")).await));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "a refused connection is no wait: {:?}",
        begun.elapsed()
    );
    assert_eq!(passed(cluster, "dead").await, 1.0);
    admission.remove().await;
}

pub(crate) async fn a_stopped_server_costs_its_timeout_and_no_pod(cluster: &Cluster) {
    let webhook = json!({"timeoutSeconds": 1});
    let admission = Admission::install(cluster, Install { webhook, ..Install::named("stopped") }).await;
    cluster.namespace("stopped", enabled("stopped")).await;
    assert!(is_injected(&create(&cluster.client, "stopped", plain("before")).await));
    admission.process.signal(signal::SIGSTOP);
    let begun = Instant::now();
    assert!(!is_injected(&create(&cluster.client, "stopped", plain("during")).await));
    let took = begun.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert_eq!(passed(cluster, "stopped").await, 1.0);
    admission.process.signal(signal::SIGCONT);
    assert!(is_injected(&create(&cluster.client, "stopped", plain("after")).await));
    admission.remove().await;
}

pub(crate) async fn with_policy_fail_a_dead_server_is_refused_and_a_live_one_never_refuses(
    cluster: &Cluster,
) {
    let webhook = json!({"failurePolicy": "Fail"});
    let admission = Admission::install(cluster, Install { webhook, ..Install::named("fail") }).await;
    cluster.namespace("fail", enabled("fail")).await;
    for n in 0..20 {
        assert!(is_injected(&create(&cluster.client, "fail", plain(&format!("a{n}"))).await));
    }
    admission.process.signal(signal::SIGKILL);
    let refused = try_create(&cluster.client, "fail", plain("after"), false)
        .await
        .expect_err("that is what Fail means");
    assert!(refused.to_string().contains("fail.nodens.test"), "{refused}");
    admission.remove().await;
}

pub(crate) async fn a_restart_under_load_fails_no_pod(cluster: &Cluster) {
    // Two servers behind one name cannot be had without a real Service; what one server promises is that its end loses no review.
    let install = Install { flags: &["--shutdown-delay=2s"], ..Install::named("ending") };
    let admission = Admission::install(cluster, install).await;
    cluster.namespace("ending", enabled("ending")).await;
    for n in 0..200 {
        if n == 50 {
            admission.process.signal(signal::SIGTERM);
        }
        let stored = create(&cluster.client, "ending", plain(&format!("a{n}"))).await;
        assert!(is_injected(&stored), "Pod {n}: {}", admission.process.dump());
        if admission.process.wait_for_line("all connections have ended", Duration::ZERO).is_some() {
            break;
        }
        if n == 100 {
            // The delay is half over; what comes in it is served.
            break;
        }
    }
    assert_eq!(passed(cluster, "ending").await, 0.0);
    admission.remove().await;
}
