//! What `preflight` says about a cluster: each caveat of the original chart's documentation.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nodens_admission::cluster::KubeDnsSource;
use nodens_admission::commands::checks::{Check, Verdict};
use nodens_admission::commands::preflight::{self, Options, Report};
use nodens_admission::settings::InjectionSettings;
use serde_json::{Value, json};

use crate::fixtures::{namespace, namespace_path, put_node, service, service_path};
use crate::mock_api::MockApi;

async fn cluster() -> MockApi {
    let api = MockApi::start().await;
    api.put(&service_path("kube-dns"), service("kube-dns", &["172.21.0.10"]));
    put_node(&api, "node-1", json!({}), json!({}));
    api.put(&namespace_path("kube-system"), namespace("kube-system", json!({})));
    api.put(
        "/apis/networking.k8s.io/v1/servicecidrs/kubernetes",
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["172.21.0.0/20"]}}),
    );
    api
}

async fn run(api: &MockApi, upstream_ip: Option<&str>) -> Report {
    run_with(api, upstream_ip, InjectionSettings::default()).await
}

async fn run_with(api: &MockApi, upstream_ip: Option<&str>, settings: InjectionSettings) -> Report {
    let options = Options {
        upstream_ip: upstream_ip.map(|text| text.parse().expect("an address")),
        settings,
        source: KubeDnsSource::default(),
        namespace: "kube-system".into(),
        release: None,
    };
    preflight::run(&api.client(), &options).await.expect("a report")
}

fn check(report: &Report, name: &str) -> Check {
    report.checks.iter().find(|c| c.check == name).unwrap_or_else(|| panic!("no {name}: {report}")).clone()
}

#[tokio::test]
async fn a_cluster_in_order_passes() {
    let api = cluster().await;
    let report = run(&api, Some("172.21.0.20")).await;
    assert!(report.is_passed(), "{report}");
    assert!(report.checks.iter().all(|check| check.verdict <= Verdict::Note), "{report}");
    assert!(check(&report, "upstream IP").seen.contains("kept for fixed addresses"), "{report}");
    assert!(!report.to_string().contains("What to do"));
    assert!(api.get(&service_path("node-local-upstream-preflight-")).is_none(), "a dry run");
    let writes: Vec<_> = api.requests().into_iter().filter(|r| !r.starts_with("GET")).collect();
    assert_eq!(writes, ["POST /api/v1/namespaces/kube-system/services?&dryRun=All"]);
}

#[tokio::test]
async fn the_upstream_address_must_be_free_and_in_range() {
    let api = cluster().await;
    let verdict = async |ip: &str| check(&run(&api, Some(ip)).await, "upstream IP");
    let own = verdict("172.21.0.10").await;
    assert!(own.verdict == Verdict::Problem && own.seen.contains("cluster's DNS itself"), "{own:?}");
    let mut other = service("web", &["172.21.3.3"]);
    other["metadata"]["namespace"] = json!("shop");
    other["metadata"]["labels"] = json!({});
    api.put("/api/v1/namespaces/shop/services/web", other);
    let taken = verdict("172.21.3.3").await;
    assert!(taken.verdict == Verdict::Problem && taken.seen.contains("shop/web"), "{taken:?}");
    let high = verdict("172.21.15.15").await;
    assert!(high.verdict == Verdict::Note && high.seen.contains("handed out"), "{high:?}");
    api.fail_next("POST /api/v1/namespaces/kube-system/services", 422);
    let outside = verdict("10.1.1.1").await;
    assert_eq!(outside.verdict, Verdict::Problem, "{outside:?}");
    api.fail_next("POST /api/v1/namespaces/kube-system/services", 403);
    let unknown = verdict("172.21.0.20").await;
    assert!(unknown.verdict == Verdict::Warning && unknown.seen.contains("not looked at"), "{unknown:?}");
    // Installed already.
    api.put(&service_path("node-local-upstream"), service("node-local-upstream", &["172.21.0.20"]));
    assert_eq!(verdict("172.21.0.20").await.verdict, Verdict::Ok);
    let changed = verdict("172.21.0.21").await;
    assert!(changed.verdict == Verdict::Problem && changed.seen.contains("never changes"), "{changed:?}");
    let none = check(&run(&api, None).await, "upstream IP");
    assert!(none.verdict == Verdict::Ok && none.seen.contains("172.21.0.20"), "{none:?}");
}

#[tokio::test]
async fn the_node_local_address_is_of_a_family_that_pods_have() {
    let api = cluster().await;
    let verdict = async |locals: &[&str]| {
        let node_local = locals.iter().map(|text| text.parse().expect("an address")).collect();
        let settings = InjectionSettings { node_local, ..InjectionSettings::default() };
        check(&run_with(&api, None, settings).await, "node-local address")
    };
    let dual = verdict(&["169.254.20.10", "fd00::10"]).await;
    assert!(dual.verdict == Verdict::Problem && dual.seen.starts_with("fd00::10 is IPv6"), "{dual:?}");
    assert_eq!(verdict(&["169.254.20.10"]).await.verdict, Verdict::Ok);
    // The default address in a cluster of IPv6 alone.
    api.put(&service_path("kube-dns"), service("kube-dns", &["fd00:96::a"]));
    put_node(&api, "node-1", json!({}), json!({"podCIDRs": ["fd00:10::/64"]}));
    let four = verdict(&["169.254.20.10"]).await;
    assert_eq!(four.verdict, Verdict::Problem, "{four:?}");
    assert!(
        four.seen.contains("this cluster has IPv6 alone") && four.remedy.contains("fd00::/8"),
        "{four:?}"
    );
    assert_eq!(verdict(&["fd00::10"]).await.verdict, Verdict::Ok);
    // Pods of both families, though cluster DNS has one.
    put_node(&api, "node-2", json!({}), json!({"podCIDRs": ["fd00:11::/64", "10.1.2.0/24"]}));
    let both = verdict(&["169.254.20.10"]).await;
    assert!(both.verdict == Verdict::Ok && both.seen.ends_with("IPv4 and IPv6"), "{both:?}");
}

#[tokio::test]
async fn nodes_and_namespaces_with_caveats_are_told() {
    let api = cluster().await;
    put_node(&api, "eci", json!({"type": "virtual-kubelet"}), json!({}));
    put_node(&api, "win", json!({"kubernetes.io/os": "windows"}), json!({}));
    let taints = json!({"taints": [{"key": "gpu", "effect": "NoSchedule"}, {"key": "soft", "effect": "PreferNoSchedule"}]});
    put_node(&api, "node-2", json!({}), taints);
    api.put(
        &namespace_path("kube-public"),
        namespace("kube-public", json!({"node-local-dns-injection": "enabled"})),
    );
    let report = run(&api, None).await;
    assert_eq!(check(&report, "virtual nodes").verdict, Verdict::Warning);
    assert_eq!(check(&report, "Windows nodes").verdict, Verdict::Note);
    let taints = check(&report, "taints");
    assert_eq!((taints.verdict, taints.seen.as_str()), (Verdict::Warning, "gpu:NoSchedule on node-2"));
    let system = check(&report, "system namespaces");
    assert!(system.remedy.contains("kube-public node-local-dns-injection-"), "{system:?}");
    api.put(
        "/apis/apps/v1/namespaces/kube-system/daemonsets/node-local-dns",
        json!({"metadata": {"name": "node-local-dns", "namespace": "kube-system"}, "spec": {"selector": {},
            "template": {"spec": {"containers": [], "tolerations": [{"operator": "Exists"}]}}}}),
    );
    assert_eq!(check(&run(&api, None).await, "taints").verdict, Verdict::Ok);
}

#[tokio::test]
async fn terway_and_private_zone_are_looked_at_where_they_are() {
    let api = cluster().await;
    let report = run(&api, None).await;
    assert!(!report.checks.iter().any(|check| check.check.starts_with("Terway")), "{report}");
    let config_map = |name: &str, key: &str, text: &str| {
        let map = json!({"metadata": {"name": name, "namespace": "kube-system"}, "data": {key: text}});
        api.put(&format!("/api/v1/namespaces/kube-system/configmaps/{name}"), map);
    };
    config_map("eni-config", "10-terway.conf", r#"{"eniip_virtual_type": "IPVlan"}"#);
    api.put(
        "/apis/apps/v1/namespaces/kube-system/daemonsets/terway-eniip",
        json!({"metadata": {"name": "terway-eniip", "namespace": "kube-system"}, "spec": {"selector": {}, "template": {"spec": {
            "containers": [{"name": "terway", "image": "registry.example/acs/terway:v1.0.10.280-aaaa-aliyun"}]}}}}),
    );
    config_map("coredns", "Corefile", ".:53 {\n  forward . /etc/resolv.conf\n}\n");
    let report = run(&api, None).await;
    assert_eq!(check(&report, "Terway version").verdict, Verdict::Problem);
    assert_eq!(check(&report, "Terway addresses").verdict, Verdict::Problem);
    assert_eq!(check(&report, "PrivateZone").verdict, Verdict::Ok, "another cloud");
    assert!(!report.is_passed());
    put_node(&api, "node-1", json!({}), json!({"providerID": "cn-hangzhou.i-bp1abc"}));
    assert_eq!(check(&run(&api, None).await, "PrivateZone").verdict, Verdict::Warning);
    config_map("coredns", "Corefile", ".:53 {\n  forward . /etc/resolv.conf {\n    prefer_udp\n  }\n}\n");
    assert_eq!(check(&run(&api, None).await, "PrivateZone").verdict, Verdict::Ok);
}

/// A deployed release as Helm stores it.
fn put_release(api: &MockApi, name: &str, release: Value) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(release.to_string().as_bytes()).expect("memory");
    // Helm encodes once, the API once more.
    let text = STANDARD.encode(STANDARD.encode(gzip.finish().expect("memory")));
    api.put(
        &format!("/api/v1/namespaces/kube-system/secrets/sh.helm.release.v1.{name}.v1"),
        json!({"metadata": {"name": format!("sh.helm.release.v1.{name}.v1"), "namespace": "kube-system",
            "labels": {"owner": "helm", "status": "deployed", "name": name}}, "data": {"release": text}}),
    );
}

fn release(name: &str, version: &str, config: Value, manifest: &str) -> Value {
    json!({"name": name, "namespace": "kube-system", "config": config, "manifest": manifest,
        "chart": {"metadata": {"name": "ack-node-local-dns", "version": version},
            "values": {"env": {"local_dns_ip": "169.254.20.10", "high_availability": false}}}})
}

#[tokio::test]
async fn older_releases_get_their_safe_way() {
    let api = cluster().await;
    api.put(&namespace_path("shop"), namespace("shop", json!({"node-local-dns-injection": "enabled"})));
    assert_eq!(check(&run(&api, None).await, "older release").verdict, Verdict::Ok);
    // Without kube-dns behind: Pods first.
    put_release(&api, "old", release("old", "1.1.0", json!({}), ""));
    let found = check(&run(&api, None).await, "older release");
    assert_eq!(found.verdict, Verdict::Problem);
    for part in [
        "kubectl label namespace shop node-local-dns-injection-",
        "list-injected",
        "helm uninstall old -n kube-system",
    ] {
        assert!(found.remedy.contains(part), "{part}: {}", found.remedy);
    }
    // High availability, or kube-dns' own address: at once.
    for env in [json!({"high_availability": true}), json!({"local_dns_ip": "172.21.0.10"})] {
        put_release(&api, "old", release("old", "1.1.0", json!({"env": env}), ""));
        let found = check(&run(&api, None).await, "older release");
        assert!(found.verdict == Verdict::Warning && found.seen.contains("at once"), "{env}: {found:?}");
    }
    // High availability on another address is none of the two.
    let env = json!({"env": {"high_availability": true, "local_dns_ip": "10.9.9.9"}});
    put_release(&api, "old", release("old", "1.1.0", env, ""));
    assert_eq!(check(&run(&api, None).await, "older release").verdict, Verdict::Problem);
    // The last layout, stored with an API that is gone.
    let mut current =
        release("current", "1.3.2", json!({}), "apiVersion: admissionregistration.k8s.io/v1beta1\n");
    current["chart"]["values"] = json!({"env": {"upstream_ip": ""}});
    api.delete("/api/v1/namespaces/kube-system/secrets/sh.helm.release.v1.old.v1");
    put_release(&api, "current", current);
    let report = run(&api, None).await;
    let all: Vec<_> = report.checks.iter().filter(|check| check.check == "older release").collect();
    assert_eq!(
        all.iter().map(|check| check.verdict).collect::<Vec<_>>(),
        [Verdict::Ok, Verdict::Problem],
        "{report}"
    );
    assert!(all[1].remedy.contains("mapkubeapis current"), "{all:?}");
}

#[tokio::test]
async fn a_release_that_is_no_release_or_a_bomb_is_passed_over() {
    let api = cluster().await;
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..20 {
        bomb.write_all(&vec![b' '; 1024 * 1024]).expect("memory");
    }
    let data = [STANDARD.encode(bomb.finish().expect("memory")), "not base64 at all".into(), String::new()];
    for (n, data) in data.iter().enumerate() {
        let name = format!("sh.helm.release.v1.x{n}.v1");
        api.put(
            &format!("/api/v1/namespaces/kube-system/secrets/{name}"),
            json!({"metadata": {"name": name, "namespace": "kube-system", "labels": {"owner": "helm", "status": "deployed"}},
                "data": {"release": STANDARD.encode(data)}}),
        );
    }
    assert_eq!(check(&run(&api, None).await, "older release").verdict, Verdict::Ok);
}

#[tokio::test]
async fn what_may_not_be_read_is_said_and_fails_nothing() {
    let api = cluster().await;
    for prefix in
        ["GET /api/v1/secrets", "GET /api/v1/nodes", "GET /api/v1/namespaces?", "GET /api/v1/services"]
    {
        api.fail_next(prefix, 403);
    }
    let report = run(&api, Some("172.21.0.20")).await;
    for name in ["older release", "nodes", "system namespaces", "cluster DNS"] {
        assert!(check(&report, name).seen.contains("not looked at"), "{report}");
    }
    assert!(report.is_passed());
}
