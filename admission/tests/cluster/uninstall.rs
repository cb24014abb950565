//! `uninstall`: injection ends first, in the right order, and Pods that depend are not forgotten.

use nodens_admission::commands::list_injected;
use nodens_admission::commands::uninstall::{self, Options, Report, Step};
use nodens_admission::settings::InjectionSettings;
use serde_json::{Value, json};

use crate::fixtures::{injected, put_pod, put_webhook};
use crate::mock_api::MockApi;

const GROUP: &str = "/apis/admissionregistration.k8s.io";

/// A webhook configuration and a policy of ours, and others' of each kind.
async fn cluster(version: &str) -> MockApi {
    let api = MockApi::start().await;
    put_webhook(&api, "node-local-dns-admission-controller", "Q0E=");
    let put = |path: String, body: Value| api.put(&path, body);
    put(
        format!("{GROUP}/v1/mutatingwebhookconfigurations/istio"),
        json!({"metadata": {"name": "istio"}, "webhooks": [{"name": "x", "clientConfig": {}, "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}}}]}),
    );
    for (name, label) in [("node-local-dns", "node-local-dns-injection"), ("other", "other-injection")] {
        put(
            format!("{GROUP}/{version}/mutatingadmissionpolicies/{name}"),
            json!({"metadata": {"name": name},
                "spec": {"matchConstraints": {"namespaceSelector": {"matchLabels": {label: "enabled"}}}}}),
        );
        put(
            format!("{GROUP}/{version}/mutatingadmissionpolicybindings/{name}-binding"),
            json!({"metadata": {"name": format!("{name}-binding")}, "spec": {"policyName": name}}),
        );
    }
    api
}

async fn run(api: &MockApi, change: impl FnOnce(&mut Options)) -> Report {
    let dependents = list_injected::Options {
        node_local: InjectionSettings::default().node_local,
        namespace: None,
        ended: false,
    };
    let mut options = Options { names: Vec::new(), dry_run: false, force: false, dependents };
    change(&mut options);
    uninstall::run(&api.client(), &options).await.expect("a report")
}

fn deletions(api: &MockApi) -> Vec<String> {
    let requests = api.requests().into_iter();
    requests
        .filter_map(|r| Some(r.strip_prefix("DELETE ")?.rsplit('/').next()?.trim_end_matches('?').to_owned()))
        .collect()
}

#[tokio::test]
async fn injection_ends_in_order_and_nothing_else_is_touched() {
    for version in ["v1", "v1beta1"] {
        let api = cluster(version).await;
        let report = run(&api, |_| ()).await;
        assert_eq!(report.step, Step::Clear);
        assert!(report.is_done());
        assert_eq!(
            deletions(&api),
            ["node-local-dns-binding", "node-local-dns", "node-local-dns-admission-controller"],
            "{version}"
        );
        assert!(api.get(&format!("{GROUP}/v1/mutatingwebhookconfigurations/istio")).is_some());
        assert_eq!(api.list(&format!("{GROUP}/{version}/mutatingadmissionpolicies")).len(), 1);
        let text = report.to_string();
        assert!(text.contains("last, the Service node-local-upstream"), "{text}");
        // Again: nothing is left, and that is no error.
        let again = run(&api, |_| ()).await;
        assert_eq!((again.step, again.injectors.len()), (Step::Clear, 0));
        assert!(again.to_string().contains("Nothing injects here"));
    }
}

#[tokio::test]
async fn while_pods_depend_it_stops_injection_and_refuses_the_rest() {
    let api = cluster("v1").await;
    for n in 0..3 {
        put_pod(&api, "shop", &format!("web-{n}"), "ReplicaSet/web", json!({}), injected("10.96.0.10"));
    }
    put_pod(&api, "shop", "bare", "", json!({}), injected("10.96.0.10"));
    let report = run(&api, |options| options.dry_run = true).await;
    assert_eq!(report.step, Step::DryRun);
    assert!(deletions(&api).is_empty());
    let report = run(&api, |_| ()).await;
    assert_eq!(report.step, Step::PodsDepend);
    assert!(!report.is_done(), "exit code 1");
    assert_eq!(deletions(&api).len(), 3, "no Pod more is injected");
    let dependents: Vec<_> = report.dependents.iter().map(|(name, pods)| (name.as_str(), *pods)).collect();
    assert_eq!(dependents, [("shop/Pod/bare", 1), ("shop/ReplicaSet/web", 3)]);
    assert!(report.to_string().contains("4 Pods still ask"), "{report}");
    let report = run(&api, |options| options.force = true).await;
    assert_eq!(report.step, Step::Clear);
}

#[tokio::test]
async fn of_two_installations_one_has_to_be_named() {
    let api = cluster("v1").await;
    put_webhook(&api, "ack-node-local-dns-admission-controller", "Q0E=");
    let report = run(&api, |_| ()).await;
    assert_eq!(report.step, Step::Ambiguous);
    assert!(!report.is_done() && deletions(&api).is_empty());
    assert!(report.to_string().contains("--name"), "{report}");
    let name = "ack-node-local-dns-admission-controller";
    let report = run(&api, |options| options.names = vec![name.into()]).await;
    assert_eq!(report.step, Step::Clear);
    assert_eq!(deletions(&api), [name]);
}
