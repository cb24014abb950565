//! Who is injected, how it is stored, and what is said about it.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::admission::{Admission, Authority, Install, configure, unconfigure};
use crate::cluster::{Cluster, LONG, SERVER_USER};
use crate::lagging::Lagging;
use crate::pods::{create, is_injected, nameservers, plain, pod, try_create};
use crate::second;

/// Labels of a namespace that asks for injection by this scenario's server.
fn enabled(scenario: &str) -> Value {
    json!({"node-local-dns-injection": "enabled", "scenario": scenario})
}

pub(crate) async fn the_seeds_example_is_stored_byte_for_byte(cluster: &Cluster) {
    let admission = Admission::install(
        cluster,
        Install { flags: &["--kube-dns-ip=172.21.0.10"], ..Install::named("seed") },
    )
    .await;
    cluster.namespace("seed", enabled("seed")).await;
    let stored = create(&cluster.client, "seed", plain("alpine")).await;
    assert_eq!(stored["spec"]["dnsPolicy"], "None");
    let wanted = json!({
        "nameservers": ["169.254.20.10", "172.21.0.10"],
        "options": [{"name": "ndots", "value": "3"}, {"name": "attempts", "value": "2"}, {"name": "timeout", "value": "1"}],
        "searches": ["seed.svc.cluster.local", "svc.cluster.local", "cluster.local"],
    });
    assert_eq!(stored["spec"]["dnsConfig"], wanted);
    assert_eq!(admission.reviews("injected").await, 1);
    admission.remove().await;
}

pub(crate) async fn selectors_leave_out_what_the_table_leaves_out(cluster: &Cluster) {
    let admission = Admission::install(cluster, Install::named("select")).await;
    let client = &cluster.client;
    cluster.namespace("select-on", enabled("select")).await;
    cluster.namespace("select-off", json!({"scenario": "select"})).await;
    cluster
        .namespace("select-wrong", json!({"node-local-dns-injection": "Enabled", "scenario": "select"}))
        .await;
    for key in ["eci", "alibabacloud.com/eci", "virtual-node-affinity-injection"] {
        let name = format!("select-{}", key.replace(['.', '/'], "-"));
        let mut labels = enabled("select");
        labels[key] = json!("false");
        cluster.namespace(&name, labels).await;
        assert!(!is_injected(&create(client, &name, plain("a")).await), "namespace with {key}");
    }
    for name in ["select-off", "select-wrong", "default"] {
        assert!(!is_injected(&create(client, name, plain("select-a")).await), "namespace {name}");
    }
    for labels in [
        json!({"node-local-dns-injection": "disabled"}),
        json!({"eci": "true"}),
        json!({"alibabacloud.com/eci": "false"}),
    ] {
        let left_out = pod(json!({"generateName": "x-", "labels": labels}), json!({}));
        assert!(!is_injected(&create(client, "select-on", left_out).await), "Pod with {labels}");
    }
    assert_eq!(
        admission.counter("nodelocaldns_admission_requests_total", &[]).await,
        0,
        "selectors decide alone"
    );
    // What selectors cannot say is decided by the server.
    for (spec, reason) in [
        (json!({"hostNetwork": true}), "host-network-cluster-first"),
        (json!({"dnsPolicy": "Default"}), "dns-policy-default"),
        (json!({"dnsPolicy": "ClusterFirstWithHostNet"}), "cluster-first-with-host-net-without-host-network"),
        (json!({"os": {"name": "windows"}}), "windows"),
        (json!({"nodeSelector": {"type": "virtual-kubelet"}}), "virtual-node-placement"),
        (
            json!({"tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]}),
            "virtual-node-possible",
        ),
    ] {
        let stored = create(client, "select-on", pod(json!({"generateName": "x-"}), spec)).await;
        assert!(!is_injected(&stored), "{reason}");
        assert_eq!(admission.reviews(reason).await, 1, "{reason}");
    }
    let host = json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
    assert!(is_injected(&create(client, "select-on", pod(json!({"name": "host"}), host)).await));
    admission.remove().await;
}

pub(crate) async fn a_dry_run_shows_the_injection_and_stores_nothing(cluster: &Cluster) {
    let admission =
        Admission::install(cluster, Install { flags: &["--events"], ..Install::named("dry") }).await;
    cluster.namespace("dry", enabled("dry")).await;
    let shown =
        try_create(&cluster.client, "dry", plain("a"), true).await.expect("sideEffects None allows dry runs");
    assert!(is_injected(&shown));
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "dry");
    assert!(pods.get_opt("a").await.expect("an answer").is_none(), "nothing is stored");
    let dry = admission.counter("nodelocaldns_admission_requests_total", &["dry_run=\"true\""]).await;
    let wet = admission.counter("nodelocaldns_admission_requests_total", &["dry_run=\"false\""]).await;
    assert_eq!((dry, wet), (1, 0));
    let stored = create(&cluster.client, "dry", plain("a")).await;
    assert_eq!(stored["spec"]["dnsConfig"], shown["spec"]["dnsConfig"], "the same answer");
    admission.remove().await;
}

pub(crate) async fn a_namespace_labelled_a_moment_ago_is_injected(cluster: &Cluster) {
    const ROUNDS: u64 = 5;
    // The server's watches lag behind the API server's own.
    let way = Lagging::start(&cluster.url).await;
    let admission =
        Admission::install(cluster, Install { via: Some(&way.url), ..Install::named("race") }).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    for round in 0..ROUNDS {
        let name = format!("race-{round}");
        cluster.namespace(&name, json!({"scenario": "race"})).await;
        // Known without the label, or not at all, from the second round on.
        sleep(Duration::from_millis(200)).await;
        way.hold();
        let label = json!({"metadata": {"labels": enabled("race")}});
        namespaces.patch(&name, &PatchParams::default(), &Patch::Merge(label)).await.expect("labelled");
        let end = Instant::now() + LONG;
        // The API server's own copy for its selectors lags a little, too; the first Pod that it selects must be injected.
        for attempt in 0.. {
            let seen = admission.counter("nodelocaldns_admission_requests_total", &[]).await;
            let stored = create(&cluster.client, &name, plain(&format!("a{attempt}"))).await;
            if admission.counter("nodelocaldns_admission_requests_total", &[]).await > seen {
                assert!(is_injected(&stored), "round {round}: {}", admission.process.dump());
                break;
            }
            assert!(Instant::now() < end, "round {round}: never selected");
        }
        way.release();
    }
    assert_eq!(admission.reviews("injected").await, ROUNDS);
    admission.remove().await;
}

pub(crate) async fn a_webhook_without_selectors_injects_nobody_else(cluster: &Cluster) {
    // Somebody edited the configuration by hand: everything is sent to the server.
    let webhook = json!({"namespaceSelector": {"matchLabels": {"scenario": "edited"}}, "objectSelector": {}});
    let admission = Admission::install(cluster, Install { webhook, ..Install::named("edited") }).await;
    cluster.namespace("edited-on", enabled("edited")).await;
    cluster.namespace("edited-off", json!({"scenario": "edited"})).await;
    let mut virtual_node = enabled("edited");
    virtual_node["eci"] = json!("true");
    cluster.namespace("edited-eci", virtual_node).await;
    let client = &cluster.client;
    assert!(is_injected(&create(client, "edited-on", plain("a")).await));
    assert!(!is_injected(&create(client, "edited-off", plain("a")).await));
    assert!(!is_injected(&create(client, "edited-eci", plain("a")).await));
    let opted_out = pod(json!({"name": "b", "labels": {"node-local-dns-injection": "disabled"}}), json!({}));
    assert!(!is_injected(&create(client, "edited-on", opted_out).await));
    for reason in ["injected", "namespace-not-enabled", "namespace-virtual-node", "pod-opt-out"] {
        assert_eq!(admission.reviews(reason).await, 1, "{reason}");
    }
    admission.remove().await;
}

pub(crate) async fn pods_of_controllers_are_injected_in_the_requests_namespace(cluster: &Cluster) {
    let admission = Admission::install(cluster, Install::named("owned")).await;
    cluster.namespace("owned", enabled("owned")).await;
    let metadata = json!({
        "generateName": "web-5d-",
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "uid": "0b0c", "controller": true}],
    });
    let stored = create(&cluster.client, "owned", pod(metadata, json!({}))).await;
    assert_eq!(stored["spec"]["dnsConfig"]["searches"][0], "owned.svc.cluster.local");
    let told = admission.process.wait_for_line("owner=ReplicaSet/web-5d", Duration::from_secs(5));
    assert!(told.is_some_and(|line| line.contains("pod=owned/web-5d-")), "{}", admission.process.dump());
    admission.remove().await;
}

pub(crate) async fn another_webhook_behind_ours_changes_nothing_twice(cluster: &Cluster) {
    let admission = Admission::install(cluster, Install::named("again")).await;
    // By name behind ours; what it changes makes the API server call ours again.
    let authority = Authority::new();
    let second = second::start(&authority, "again-second");
    let webhook = json!({"namespaceSelector": {"matchLabels": {"scenario": "again"}}, "objectSelector": {}});
    configure(cluster, "again-second", second.local_addr().port(), &webhook, Some(authority.pem())).await;
    cluster.namespace("again", enabled("again")).await;
    // The configuration has to reach the API server's own copy.
    let end = Instant::now() + LONG;
    let mut count = 0;
    let stored = loop {
        let stored = create(&cluster.client, "again", plain(&format!("a{count}"))).await;
        count += 1;
        if stored["metadata"]["labels"]["somebody"] == "else" {
            break stored;
        }
        assert!(Instant::now() < end, "the second webhook is never called");
    };
    assert_eq!(nameservers(&stored), ["169.254.20.10", "10.96.0.10"]);
    let options = stored["spec"]["dnsConfig"]["options"].as_array().expect("a list");
    assert_eq!(options.iter().filter(|option| option["name"] == "ndots").count(), 1, "{options:?}");
    assert_eq!(admission.reviews("injected").await, count);
    assert_eq!(
        admission.reviews("dns-policy-none").await,
        1,
        "it was called again, and saw that nothing is to be done"
    );
    unconfigure(&cluster.client, "again-second").await;
    admission.remove().await;
}

pub(crate) async fn users_dns_config_is_merged_and_limits_reject_nobody(cluster: &Cluster) {
    let admission = Admission::install(cluster, Install::named("merge")).await;
    cluster.namespace("merge", enabled("merge")).await;
    let client = &cluster.client;
    let own = json!({"dnsConfig": {
        "nameservers": ["192.0.2.1", "192.0.2.2"], "searches": ["corp.example"],
        "options": [{"name": "ndots", "value": "7"}, {"name": "single-request-reopen"}],
    }});
    let stored = create(client, "merge", pod(json!({"name": "own"}), own)).await;
    assert_eq!(nameservers(&stored), ["169.254.20.10", "10.96.0.10", "192.0.2.1"]);
    let options = stored["spec"]["dnsConfig"]["options"].to_string();
    assert!(options.contains(r#""value":"7""#) && options.contains("single-request-reopen"), "{options}");
    // With ours it would be 34 searches; the Pod is valid without.
    let many: Vec<String> = (0..31).map(|n| format!("s{n}.example")).collect();
    let spec = json!({"dnsConfig": {"searches": many}});
    let stored = create(client, "merge", pod(json!({"name": "many"}), spec)).await;
    assert!(!is_injected(&stored));
    assert_eq!(admission.reviews("limits-exceeded").await, 1);
    // Exactly the limit.
    let many: Vec<String> = (0..29).map(|n| format!("s{n}.example")).collect();
    let spec = json!({"dnsConfig": {"searches": many}});
    assert!(is_injected(&create(client, "merge", pod(json!({"name": "full"}), spec)).await));
    // What the API server refuses without us it refuses with us, with its own words.
    let spec = json!({"dnsConfig": {"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]}});
    let refused = try_create(client, "merge", pod(json!({"name": "four"}), spec), false)
        .await
        .expect_err("4 nameservers");
    assert!(refused.to_string().contains("nameservers"), "{refused}");
    let rejected = "apiserver_admission_webhook_rejection_count";
    assert_eq!(cluster.metric(rejected, "merge.nodens.test").await, 0.0, "none of them is our rejection");
    admission.remove().await;
}

pub(crate) async fn a_new_address_of_kube_dns_is_for_new_pods(cluster: &Cluster) {
    let admission = Admission::install(cluster, Install::named("moved")).await;
    cluster.namespace("moved", enabled("moved")).await;
    let client = &cluster.client;
    assert_eq!(nameservers(&create(client, "moved", plain("before")).await), ["169.254.20.10", "10.96.0.10"]);
    cluster.kube_dns("10.96.7.7").await;
    let told = admission.process.wait_for_line("10.96.7.7", LONG);
    assert!(told.is_some(), "{}", admission.process.dump());
    assert_eq!(nameservers(&create(client, "moved", plain("after")).await), ["169.254.20.10", "10.96.7.7"]);
    let pods: Api<Pod> = Api::namespaced(client.clone(), "moved");
    let before = serde_json::to_value(pods.get("before").await.expect("it is there")).expect("JSON");
    assert_eq!(nameservers(&before), ["169.254.20.10", "10.96.0.10"]);
    cluster.kube_dns("10.96.0.10").await;
    assert!(
        admission.process.wait_for_line("moved from 10.96.7.7", Duration::ZERO).is_none(),
        "it was gone first"
    );
    admission.ready().await;
    admission.remove().await;
}

pub(crate) async fn the_audit_log_says_why(cluster: &Cluster) {
    let admission = Admission::install(cluster, Install::named("audited")).await;
    cluster.namespace("audited", enabled("audited")).await;
    create(&cluster.client, "audited", plain("in")).await;
    create(&cluster.client, "audited", pod(json!({"name": "out"}), json!({"dnsPolicy": "Default"}))).await;
    for (name, decision, reason) in [("in", "inject", "injected"), ("out", "skip", "dns-policy-default")] {
        let end = Instant::now() + LONG;
        let annotations = loop {
            let log = cluster.audit_log();
            let about = |event: &&Value| {
                event["objectRef"]["namespace"] == "audited" && event["objectRef"]["name"] == name
            };
            if let Some(event) = log.iter().find(about) {
                break event["annotations"].clone();
            }
            assert!(Instant::now() < end, "no audit event for {name}");
            sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(annotations["audited.nodens.test/decision"], decision, "{annotations}");
        assert_eq!(annotations["audited.nodens.test/reason"], reason, "{annotations}");
        assert_eq!(
            annotations["audited.nodens.test/config"].as_str().map(str::len),
            Some(8),
            "{annotations}"
        );
    }
    admission.remove().await;
}

/// What the server may do everywhere: the chart's ClusterRole. `roles` is the webhook configuration's name.
fn cluster_role() -> Value {
    json!({"metadata": {"name": SERVER_USER}, "rules": [
        {"apiGroups": [""], "resources": ["namespaces", "services"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": ["roles"], "verbs": ["get", "patch"]},
    ]})
}

/// What it may do in its own namespace, where the chart has made an empty Secret.
fn role() -> Value {
    json!({"metadata": {"name": SERVER_USER, "namespace": "kube-system"}, "rules": [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["roles-cert"], "verbs": ["get", "update"]},
    ]})
}

pub(crate) async fn the_servers_roles_are_enough(cluster: &Cluster) {
    let client = &cluster.client;
    let system = "kube-system";
    let binding = |kind: &str| {
        json!({
            "metadata": {"name": SERVER_USER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": SERVER_USER},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": SERVER_USER}],
        })
    };
    cluster.create::<ClusterRole>(Api::all(client.clone()), cluster_role()).await;
    cluster.create::<ClusterRoleBinding>(Api::all(client.clone()), binding("ClusterRole")).await;
    cluster.create::<Role>(Api::namespaced(client.clone(), system), role()).await;
    cluster.create::<RoleBinding>(Api::namespaced(client.clone(), system), binding("Role")).await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), system);
    let annotations = json!({"helm.sh/resource-policy": "keep"});
    cluster
        .create(secrets.clone(), json!({"metadata": {"name": "roles-cert", "annotations": annotations}}))
        .await;
    let flags = ["--events", "--cert-mode=self", "--service=roles", "--settle-time=1s"];
    let install =
        Install { is_admin: false, is_own_authority: true, flags: &flags, ..Install::named("roles") };
    let admission = Admission::install(cluster, install).await;
    cluster.namespace("roles", enabled("roles")).await;
    let stored = create(client, "roles", plain("a")).await;
    assert_eq!(nameservers(&stored), ["169.254.20.10", "10.96.0.10"]);
    let told = admission.process.dump();
    assert!(!["orbidden", "interrupted", "may not"].iter().any(|word| told.contains(word)), "{told}");
    let secret = secrets.get("roles-cert").await.expect("it is there");
    assert!(secret.annotations().contains_key("helm.sh/resource-policy"), "the chart's own annotation stays");
    assert!(secret.data.is_some_and(|data| data.contains_key("active.key")));
    // Nothing but the bundle is ours, so the chart and GitOps tools own the rest.
    let live = admission.configurations().get("roles").await.expect("it is there");
    let managed = live.metadata.managed_fields.unwrap_or_default();
    let ours = managed
        .iter()
        .find(|entry| entry.manager.as_deref() == Some("nodens-admission"))
        .expect("an entry of ours");
    let fields = serde_json::to_string(&ours.fields_v1).expect("JSON");
    assert!(
        fields.contains("f:caBundle") && !fields.contains("f:failurePolicy") && !fields.contains("f:rules"),
        "{fields}"
    );
    admission.remove().await;
}

pub(crate) async fn owners_get_events(cluster: &Cluster) {
    // Runs behind the scenario that grants the roles.
    let webhook = json!({"sideEffects": "NoneOnDryRun"});
    let install = Install { is_admin: false, flags: &["--events"], webhook, ..Install::named("events") };
    let admission = Admission::install(cluster, install).await;
    cluster.namespace("events", enabled("events")).await;
    let web = |dry_run: bool| {
        let metadata = json!({
            "generateName": "web-5d-",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "uid": "0b0c", "controller": true}],
        });
        let spec = json!({"tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]});
        try_create(&cluster.client, "events", pod(metadata, spec), dry_run)
    };
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "events");
    web(true).await.expect("a dry run is allowed");
    for _ in 0..3 {
        web(false).await.expect("created");
    }
    let end = Instant::now() + LONG;
    let all = loop {
        let all = events.list(&ListParams::default()).await.expect("a list").items;
        if !all.is_empty() {
            break all;
        }
        assert!(Instant::now() < end, "no event: {}", admission.process.dump());
        sleep(Duration::from_millis(50)).await;
    };
    sleep(Duration::from_millis(300)).await;
    assert_eq!(
        events.list(&ListParams::default()).await.expect("a list").items.len(),
        1,
        "once for the owner"
    );
    assert_eq!(all[0].regarding.as_ref().and_then(|owner| owner.name.as_deref()), Some("web-5d"));
    assert!(all[0].note.as_ref().is_some_and(|note| note.contains("virtual-node-possible")), "{all:?}");
    admission.remove().await;
    // The configurations of other scenarios are gone by now.
    let left: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    assert!(left.list(&ListParams::default()).await.expect("a list").items.is_empty());
}
