//! Policy mode with its controller: the API server injects by itself, and the addresses in it follow the cluster.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::DeleteParams;
use nodens_admission::policy::{Names, documents};
use nodens_admission::settings::InjectionSettings;
use nodens_admission::snapshot::Config;
use nodens_testkit::{Process, free_port, note};
use serde_json::json;
use tokio::time::Instant;

use super::policy::keep_parameters_watched;
use crate::cluster::{Cluster, LONG};
use crate::pods::{nameservers, plain, try_create};

pub(crate) async fn the_policys_addresses_follow_the_cluster(cluster: &Cluster) {
    let minor = cluster.version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < 36) {
        return note(&format!("    not shown: kube-apiserver {} serves no policies", cluster.version));
    }
    keep_parameters_watched(cluster).await;
    let client = || cluster.client.clone();
    let names = Names { policy: "follow".into(), parameters: "follow".into(), namespace: "default".into() };
    // Installed with an address that was never right.
    let config =
        Config::new(Arc::new(InjectionSettings::default()), vec!["192.0.2.9".parse().expect("an address")]);
    let mut documents = documents(&config, &names).expect("the defaults can be carried out");
    documents.policy["spec"]["matchConstraints"]["namespaceSelector"]["matchLabels"]["scenario"] =
        json!("follow");
    cluster.create::<ConfigMap>(Api::namespaced(client(), "default"), documents.parameters).await;
    cluster.create::<MutatingAdmissionPolicy>(Api::all(client()), documents.policy).await;
    cluster.create::<MutatingAdmissionPolicyBinding>(Api::all(client()), documents.binding).await;
    cluster.namespace("follow", json!({"node-local-dns-injection": "enabled", "scenario": "follow"})).await;
    nameservers_become(cluster, &["169.254.20.10", "192.0.2.9"]).await;
    let kubeconfig = format!("--kubeconfig={}", cluster.kubeconfig(true, None));
    let listen = format!("--http-listen=127.0.0.1:{}", free_port());
    let flags = [
        "policy-controller",
        &kubeconfig,
        &listen,
        "--parameters-name=follow",
        "--parameters-namespace=default",
    ];
    let controller = Process::start(env!("CARGO_BIN_EXE_nodens-admission"), &flags, &[]);
    nameservers_become(cluster, &["169.254.20.10", "10.96.0.10"]).await;
    cluster.kube_dns("10.96.7.9").await;
    nameservers_become(cluster, &["169.254.20.10", "10.96.7.9"]).await;
    // Without it the policy goes on with what was written last.
    drop(controller);
    cluster.kube_dns("10.96.0.10").await;
    nameservers_become(cluster, &["169.254.20.10", "10.96.7.9"]).await;
    let gone = DeleteParams::default();
    Api::<MutatingAdmissionPolicyBinding>::all(client()).delete("follow", &gone).await.expect("deleted");
    Api::<MutatingAdmissionPolicy>::all(client()).delete("follow", &gone).await.expect("deleted");
}

/// Waits until a new Pod gets these nameservers.
async fn nameservers_become(cluster: &Cluster, wanted: &[&str]) {
    let end = Instant::now() + LONG;
    loop {
        let stored = try_create(&cluster.client, "follow", plain("a"), true).await.expect("created");
        if nameservers(&stored) == wanted {
            return;
        }
        if Instant::now() > end {
            let stored_parameters: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
            let written = stored_parameters.get("follow").await.expect("it is there").data;
            panic!("{:?}, not {wanted:?}, and the ConfigMap says {written:?}", nameservers(&stored));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
