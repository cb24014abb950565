//! What `audit` and `list-injected` make of a cluster.

use std::sync::Arc;

use nodens_admission::cluster::KubeDnsSource;
use nodens_admission::commands::audit::{self, Report, State};
use nodens_admission::commands::checks::{Check, Verdict};
use nodens_admission::commands::{deployed, list_injected};
use nodens_admission::settings::InjectionSettings;
use serde_json::json;

use crate::fixtures::{
    injected, namespace, namespace_path, put_node, put_pod, put_webhook, service, service_path,
};
use crate::mock_api::MockApi;

/// A cluster in order: one node with its agent, a namespace that asks, kube-dns, the webhook.
async fn cluster() -> MockApi {
    let api = MockApi::start().await;
    api.put(&service_path("kube-dns"), service("kube-dns", &["10.96.0.10"]));
    api.put(&service_path("node-local-upstream"), service("node-local-upstream", &["10.96.0.20"]));
    put_webhook(&api, "node-local-dns-admission-controller", "Q0E=");
    api.put(&namespace_path("kube-system"), namespace("kube-system", json!({})));
    api.put(&namespace_path("shop"), namespace("shop", json!({"node-local-dns-injection": "enabled"})));
    api.put(&namespace_path("quiet"), namespace("quiet", json!({})));
    put_node(&api, "node-1", json!({"kubernetes.io/os": "linux"}), json!({}));
    put_agent(&api, "node-1");
    api
}

fn put_agent(api: &MockApi, node: &str) {
    let labels = json!({"k8s-app": "node-local-dns"});
    let spec = json!({"nodeName": node, "hostNetwork": true, "dnsPolicy": "Default"});
    put_pod(api, "kube-system", &format!("node-local-dns-{node}"), "DaemonSet/node-local-dns", labels, spec);
}

async fn run(api: &MockApi) -> Report {
    let settings = Arc::new(InjectionSettings::default());
    let options = audit::Options { settings, source: KubeDnsSource::default(), kube_dns: Vec::new() };
    audit::run(&api.client(), &options).await.expect("a report")
}

fn check<'a>(report: &'a Report, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.check == name).unwrap_or_else(|| panic!("no {name}: {report}"))
}

#[tokio::test]
async fn a_cluster_in_order_has_nothing_to_do() {
    let api = cluster().await;
    put_pod(&api, "shop", "web-1", "ReplicaSet/web", json!({}), injected("10.96.0.10"));
    let report = run(&api).await;
    assert!(report.checks.iter().all(|check| check.verdict == Verdict::Ok), "{report}");
    assert!(check(&report, "cluster DNS").seen.contains("kube-system/kube-dns at 10.96.0.10"));
    assert!(check(&report, "agents").seen.contains("all 1 eligible"));
    let shop = &report.namespaces["shop"];
    assert_eq!((shop.state, shop.pods, shop.injected, shop.stale), (State::Enabled, 1, 1, 0));
    let text = report.to_string();
    assert!(!text.contains("What to do"), "{text}");
    assert!(text.contains("NAMESPACE") && text.contains("shop") && !text.contains("quiet"), "{text}");
    let data = serde_json::to_value(&report).expect("JSON");
    assert_eq!(data["namespaces"]["shop"]["injected"], 1);
    assert_eq!(data["namespaces"]["quiet"]["state"], "not-enabled");
}

#[tokio::test]
async fn every_pod_is_counted_where_it_belongs() {
    let api = cluster().await;
    put_pod(&api, "shop", "old-address", "ReplicaSet/web", json!({}), injected("10.96.9.9"));
    put_pod(
        &api,
        "shop",
        "before-the-label",
        "ReplicaSet/web",
        json!({}),
        json!({"dnsPolicy": "ClusterFirst"}),
    );
    let opted_out = json!({"node-local-dns-injection": "disabled"});
    put_pod(&api, "shop", "declines", "ReplicaSet/web", opted_out, json!({"dnsPolicy": "ClusterFirst"}));
    put_pod(&api, "shop", "default", "ReplicaSet/web", json!({}), json!({"dnsPolicy": "Default"}));
    put_pod(&api, "shop", "default-2", "ReplicaSet/web", json!({}), json!({"dnsPolicy": "Default"}));
    let by_hand = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["169.254.20.10"]}});
    put_pod(&api, "quiet", "by-hand", "", json!({}), by_hand);
    // Marked, but its address is not the node-local one of today.
    let moved = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["169.254.99.9", "10.96.0.10"], "searches": []}});
    put_pod(&api, "shop", "other-local", "ReplicaSet/web", json!({}), moved);
    let path = "/api/v1/namespaces/shop/pods/done";
    put_pod(&api, "shop", "done", "Job/x", json!({}), injected("10.96.9.9"));
    let mut done = api.get(path).expect("it is there");
    done["status"]["phase"] = json!("Succeeded");
    api.put(path, done);
    api.put(
        "/api/v1/namespaces/shop/pods/broken",
        json!({"metadata": {"name": "broken", "namespace": "shop"}, "spec": {"dnsPolicy": 1}}),
    );

    let report = run(&api).await;
    let shop = &report.namespaces["shop"];
    assert_eq!((shop.pods, shop.injected, shop.restart, shop.stale), (6, 1, 1, 2), "{report}");
    assert_eq!(shop.stale_pods, ["old-address", "other-local"]);
    let skipped: Vec<_> = shop.skipped.iter().map(|(reason, count)| (*reason, *count)).collect();
    assert_eq!(skipped, [("dns-policy-default", 2), ("pod-opt-out", 1)]);
    let quiet = &report.namespaces["quiet"];
    assert_eq!((quiet.state, quiet.unmarked, quiet.skipped.len()), (State::NotEnabled, 1, 0));
    assert!(check(&report, "stale addresses").seen.starts_with("2 Pods"));
    assert!(check(&report, "older Pods").seen.starts_with("1 Pods"));
    assert!(check(&report, "Pods").seen.starts_with("1 Pods could not be read"));
    let text = report.to_string();
    assert!(
        text.contains("dns-policy-default: 2, pod-opt-out: 1") && text.contains("rollout restart"),
        "{text}"
    );
}

#[tokio::test]
async fn nodes_without_an_agent_are_named_with_the_likely_cause() {
    let api = cluster().await;
    put_node(
        &api,
        "node-2",
        json!({}),
        json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}),
    );
    put_node(&api, "node-3", json!({}), json!({}));
    put_node(&api, "virtual-kubelet-x", json!({}), json!({}));
    put_node(&api, "eci", json!({"type": "virtual-kubelet"}), json!({}));
    put_node(&api, "win", json!({"kubernetes.io/os": "windows"}), json!({}));
    put_agent(&api, "node-3");
    let path = "/api/v1/namespaces/kube-system/pods/node-local-dns-node-3";
    let mut agent = api.get(path).expect("it is there");
    agent["status"]["conditions"][0]["status"] = json!("False");
    api.put(path, agent);
    // Looks like an agent, and is none.
    let labels = json!({"k8s-app": "node-local-dns"});
    put_pod(&api, "kube-system", "impostor", "ReplicaSet/x", labels, json!({"nodeName": "node-2"}));
    let report = run(&api).await;
    let agents = check(&report, "agents");
    assert_eq!(agents.verdict, Verdict::Problem);
    assert_eq!(
        agents.seen,
        "ready on 1 of 3 eligible nodes; missing on node-2 (no agent; taints gpu=yes:NoSchedule), node-3 (its agent is not ready)"
    );
}

#[tokio::test]
async fn policies_in_the_way_are_named() {
    let api = cluster().await;
    let path = |name: &str| format!("/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/{name}");
    let policy = |name: &str, spec: serde_json::Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    };
    let dns_by_label = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [{
        "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"port": 53, "protocol": "UDP"}],
    }]});
    api.put(&path("dns"), policy("dns", dns_by_label));
    put_pod(&api, "shop", "web-1", "ReplicaSet/web", json!({"app": "web"}), injected("10.96.0.10"));
    put_pod(
        &api,
        "shop",
        "web-2",
        "ReplicaSet/web",
        json!({"app": "web"}),
        json!({"dnsPolicy": "ClusterFirst"}),
    );
    put_pod(&api, "shop", "db", "ReplicaSet/db", json!({"app": "db"}), injected("10.96.0.10"));
    let on_host = json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
    put_pod(&api, "shop", "host", "ReplicaSet/web", json!({"app": "web"}), on_host);
    put_pod(&api, "shop", "out", "ReplicaSet/web", json!({"app": "web"}), json!({"dnsPolicy": "Default"}));
    let report = run(&api).await;
    let shop = &report.namespaces["shop"];
    assert_eq!(shop.blocked, 2, "the one that asks and the one that would ask: {report}");
    assert_eq!(shop.blocked_by["dns"], "UDP and TCP");
    assert!(check(&report, "network policies").remedy.contains("ipBlock 169.254.20.10/32 "));
    let node_local = vec!["fd00::10".parse().expect("an address")];
    let settings = Arc::new(InjectionSettings { node_local, ..InjectionSettings::default() });
    let options = audit::Options { settings, source: KubeDnsSource::default(), kube_dns: Vec::new() };
    let report = audit::run(&api.client(), &options).await.expect("a report");
    assert!(check(&report, "network policies").remedy.contains("ipBlock fd00::10/128 "), "{report}");
    assert!(report.to_string().contains("NetworkPolicy shop/dns isolates Pods"), "{report}");
}

#[tokio::test]
async fn what_is_missing_or_cannot_be_read_is_said() {
    let api = MockApi::start().await;
    api.put(&service_path("node-local-upstream"), service("node-local-upstream", &["10.96.0.20"]));
    api.put(
        &namespace_path("kube-system"),
        namespace("kube-system", json!({"node-local-dns-injection": "enabled"})),
    );
    put_node(&api, "node-1", json!({}), json!({}));
    let report = run(&api).await;
    let verdict = |name| check(&report, name).verdict;
    assert_eq!(verdict("cluster DNS"), Verdict::Problem);
    assert_eq!(verdict("injection"), Verdict::Warning);
    assert_eq!(verdict("agents"), Verdict::Problem);
    assert_eq!(verdict("system namespaces"), Verdict::Warning);
    assert_eq!(report.namespaces["kube-system"].state, State::ExemptThoughLabelled);

    put_webhook(&api, "w", "");
    api.fail_next("GET /api/v1/nodes", 403);
    api.fail_next("GET /apis/networking.k8s.io", 403);
    let report = run(&api).await;
    assert!(check(&report, "agents").seen.contains("not looked at"), "{report}");
    assert!(check(&report, "network policies").seen.contains("not looked at"), "{report}");
    assert!(check(&report, "injection").seen.contains("no caBundle"), "{report}");
    // Without Pods there is no report.
    api.fail_next("GET /api/v1/pods", 403);
    let settings = Arc::new(InjectionSettings::default());
    let options = audit::Options { settings, source: KubeDnsSource::default(), kube_dns: Vec::new() };
    let error = audit::run(&api.client(), &options).await.expect_err("forbidden");
    assert!(
        error.to_string().contains("cannot read Pods") && error.to_string().contains("permission"),
        "{error}"
    );
}

#[tokio::test]
async fn many_pods_are_read_page_by_page() {
    const PODS: usize = 1_203;
    let api = cluster().await;
    for n in 0..PODS {
        put_pod(&api, "shop", &format!("p{n}"), "ReplicaSet/web", json!({}), injected("10.96.0.10"));
    }
    let options = list_injected::Options {
        node_local: InjectionSettings::default().node_local,
        namespace: Some("shop".into()),
        ended: false,
    };
    let report = list_injected::run(&api.client(), &options).await.expect("a report");
    assert_eq!(report.pods.len(), PODS);
    assert!(report.pods.is_sorted());
    let pages = api.requests().iter().filter(|r| r.starts_with("GET /api/v1/namespaces/shop/pods")).count();
    assert_eq!(pages, 3, "500 at a time");
    assert!(report.to_string().contains("1203 Pods ask the node-local address, 0 of them without"));
}

#[tokio::test]
async fn list_injected_tells_who_did_it() {
    let api = cluster().await;
    put_pod(&api, "shop", "web-1", "ReplicaSet/web", json!({}), injected("10.96.0.10"));
    let by_hand = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.96.0.10", "169.254.20.10"]}});
    put_pod(&api, "quiet", "by-hand", "", json!({}), by_hand.clone());
    put_pod(&api, "quiet", "labelled", "", json!({"node-local-dns-injection": "injected"}), by_hand);
    put_pod(&api, "quiet", "other", "", json!({}), json!({"dnsPolicy": "ClusterFirst"}));
    let options = list_injected::Options {
        node_local: InjectionSettings::default().node_local,
        namespace: None,
        ended: false,
    };
    let report = list_injected::run(&api.client(), &options).await.expect("a report");
    let rows: Vec<_> =
        report.pods.iter().map(|row| (row.name.as_str(), row.origin.as_str(), row.owner.as_str())).collect();
    assert_eq!(
        rows,
        [("by-hand", "unmarked", ""), ("labelled", "injected", ""), ("web-1", "injected", "ReplicaSet/web")]
    );
    let empty = list_injected::Report { pods: Vec::new(), unreadable: 0 };
    assert_eq!(empty.to_string(), "No Pod asks the node-local address.\n");
}

#[tokio::test]
async fn the_servers_own_flags_are_found_in_its_deployment() {
    let api = cluster().await;
    assert!(deployed::injection(&api.client()).await.is_none(), "its Service is not there");
    let labels = json!({"app": "admission"});
    api.put(
        &service_path("node-local-dns-admission-controller"),
        json!({"metadata": {"name": "node-local-dns-admission-controller", "namespace": "kube-system"}, "spec": {"selector": labels}}),
    );
    api.put(
        "/apis/apps/v1/namespaces/kube-system/deployments/node-local-dns-admission-controller",
        json!({"metadata": {"name": "node-local-dns-admission-controller", "namespace": "kube-system"}, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a",
                "args": ["--include-kube-dns", "--ndots=3", "--nameserver", "169.254.25.10", "--cluster-domain", "corp.local", "2>&1"]}]}},
        }}),
    );
    let found = deployed::injection(&api.client()).await.expect("flags");
    assert_eq!(found.settings.cluster_domain, "corp.local");
    assert_eq!(found.settings.node_local, ["169.254.25.10".parse::<std::net::IpAddr>().expect("an address")]);
}
