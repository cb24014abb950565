//! The policy's parameters follow the cluster's DNS, and nobody else's hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use nodens_admission::cluster::read::ReadError;
use nodens_admission::policy::controller::{Controller, Told};
use nodens_admission::policy::{Names, parameters};
use nodens_admission::settings::InjectionSettings;
use nodens_admission::snapshot::{Config, Snapshot};
use nodens_testkit::{Process, free_port};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fixtures::{eventually, service, service_path};
use crate::mock_api::{MockApi, Mode};

const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/node-local-dns-injection";

fn snapshot(kube_dns: &str) -> Snapshot {
    let addresses = kube_dns.split(',').filter_map(|text| text.parse().ok()).collect();
    Snapshot::alone(InjectionSettings::default(), addresses)
}

fn stored(api: &MockApi) -> Value {
    api.get(PATH).unwrap_or_default()["data"].clone()
}

fn writes(api: &MockApi) -> usize {
    api.requests().iter().filter(|r| r.starts_with("PATCH")).count()
}

#[tokio::test]
async fn it_is_written_when_it_differs_and_only_then() -> Result<(), ReadError> {
    let api = MockApi::start().await;
    let controller = Controller::new(api.client(), &Names::default());
    let config: Arc<Config> = snapshot("10.96.0.10").config;
    assert!(controller.reconcile(&config).await?, "it was not there");
    assert_eq!(stored(&api), json!(parameters(&config)));
    assert!(!controller.reconcile(&config).await?);
    assert_eq!(writes(&api), 1);
    // Somebody edits it.
    let mut edited = api.get(PATH).expect("it is there");
    edited["data"]["upstream"] = json!("192.0.2.1");
    api.put(PATH, edited);
    assert!(controller.reconcile(&config).await?);
    assert_eq!(stored(&api)["upstream"], "10.96.0.10");
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_before_the_cluster_was_looked_at() {
    let api = MockApi::start().await;
    let shared = Arc::new(ArcSwap::from_pointee(snapshot("")));
    let looks = watch::Sender::new(0);
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let controller = Controller::new(api.client(), &Names::default());
    let tell = move |what| log.lock().expect("no panic").push(what);
    let running = tokio::spawn(controller.follow(Arc::clone(&shared), looks.subscribe(), tell));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(api.requests().is_empty(), "{:?}", api.requests());
    shared.store(Arc::new(snapshot("10.96.0.10,fd00::a")));
    looks.send_modify(|looks| *looks += 1);
    eventually("written", json!("10.96.0.10,fd00::a"), || stored(&api)["upstream"].clone()).await;
    // An API server that is away is told once, and the end of that too; Pods go on being injected as is written.
    api.mode(Mode::Away);
    shared.store(Arc::new(snapshot("10.96.7.7")));
    looks.send_modify(|looks| *looks += 1);
    let failed = || told.lock().expect("no panic").iter().filter(|t| matches!(t, Told::Failed(_))).count();
    eventually("told", 1, failed).await;
    api.mode(Mode::Up);
    eventually("written", json!("10.96.7.7"), || stored(&api)["upstream"].clone()).await;
    assert_eq!(failed(), 1);
    // Gone: the policy injects nobody, as the webhook would not (row 14).
    shared.store(Arc::new(snapshot("")));
    looks.send_modify(|looks| *looks += 1);
    eventually("written", json!(""), || stored(&api)["upstream"].clone()).await;
    drop(looks);
    running.await.expect("it ends with the watches");
}

#[tokio::test]
async fn the_command_keeps_it_in_step_and_is_ready_when_it_is() {
    let api = MockApi::start().await;
    let path = std::env::temp_dir().join(format!("nodens-parameters-{}", std::process::id()));
    std::fs::write(&path, api.kubeconfig()).expect("a temporary file");
    let listen = format!("--http-listen=127.0.0.1:{}", free_port());
    let kubeconfig = format!("--kubeconfig={}", path.display());
    let mut process = Process::start(
        env!("CARGO_BIN_EXE_nodens-admission"),
        &["policy-controller", &listen, &kubeconfig],
        &[],
    );
    let said = |text: &str| process.stderr_lines().iter().any(|line| line.contains(text));
    eventually("the absence is told", true, || said("it injects nobody")).await;
    api.put(&service_path("kube-dns"), service("kube-dns", &["10.96.0.10"]));
    eventually("written", json!("10.96.0.10"), || stored(&api)["upstream"].clone()).await;
    eventually("told", true, || said("name cluster DNS at 10.96.0.10")).await;
    assert!(!api.requests().iter().any(|r| r.contains("/api/v1/namespaces?")), "it watches no namespaces");
    process.signal(nodens_testkit::process::signal::SIGTERM);
    let ended =
        tokio::task::spawn_blocking(move || process.wait(Duration::from_secs(10))).await.expect("no panic");
    assert!(ended.expect("it ends").success());
    std::fs::remove_file(&path).expect("it was there");
}
