//! The MutatingAdmissionPolicy: each golden case that an API server can be asked is stored as the webhook would have had it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use nodens_admission::policy::{Names, documents};
use nodens_admission::snapshot::Config;
use nodens_testkit::{note, skip};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, LONG};
use crate::pods::{pod, try_create};
use crate::support::{Case, Surroundings, patch_of, response};

pub(crate) async fn the_golden_cases_come_out_as_the_webhook_decides(cluster: &Cluster) {
    let minor = cluster.version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < 36) {
        return skip(&format!("kube-apiserver {} serves no MutatingAdmissionPolicy v1", cluster.version));
    }
    keep_parameters_watched(cluster).await;
    // One policy for all cases with the same settings: it takes the API server a moment to see one.
    let mut groups: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for case in Case::all() {
        let config: Value = serde_json::from_str(&case.config).expect("JSON");
        groups.entry(format!("{} {}", config["settings"], config["kubeDns"])).or_default().push(case);
    }
    let (mut compared, mut injected, mut failed) = (0, 0, Vec::new());
    for (number, cases) in groups.values().enumerate() {
        let surroundings = cases[0].surroundings();
        let config = Config::new(Arc::new(surroundings.settings.clone()), surroundings.kube_dns.clone());
        let group = format!("policy-{number}");
        let names = Names { policy: group.clone(), parameters: group.clone(), namespace: "default".into() };
        // What no policy can do is refused when the documents are made.
        let Ok(documents) = documents(&config, &names) else { continue };
        let (mut policy, mut binding) = (documents.policy, documents.binding);
        for object in [&mut policy, &mut binding] {
            object["metadata"]["labels"] = json!({"scenario": "golden"});
        }
        policy["spec"]["matchConstraints"]["namespaceSelector"]["matchLabels"] = json!({"scenario": group});
        // So that an expression that fails is seen; shipped, it leaves the Pod alone.
        policy["spec"]["failurePolicy"] = json!("Fail");
        let client = || cluster.client.clone();
        cluster.create::<ConfigMap>(Api::namespaced(client(), "default"), documents.parameters).await;
        cluster.create::<MutatingAdmissionPolicy>(Api::all(client()), policy).await;
        cluster.create::<MutatingAdmissionPolicyBinding>(Api::all(client()), binding).await;
        active(cluster, &group).await;
        for (place, case) in cases.iter().enumerate() {
            let Some((namespace, object)) = asked(cluster, case, &format!("{group}-{place}"), &group).await
            else {
                continue;
            };
            let wanted = webhook(&case.surroundings(), &namespace, &object);
            let Ok(stored) = try_create(&cluster.client, &namespace, object.clone(), true).await else {
                // Not a valid Pod, which no policy may have made it: without a policy it is refused as well.
                let refused = try_create(&cluster.client, "default", object, true).await.is_err();
                assert!(refused, "{}: refused because of the policy", case.name);
                continue;
            };
            compared += 1;
            injected +=
                usize::from(stored["spec"]["dnsPolicy"] == "None" && object["spec"]["dnsPolicy"] != "None");
            let got = dns_of(&stored);
            if got != wanted {
                failed.push(format!("{}\n  policy  {got}\n  webhook {wanted}", case.name));
            }
        }
    }
    let all = (&DeleteParams::default(), &ListParams::default().labels("scenario=golden"));
    Api::<MutatingAdmissionPolicyBinding>::all(cluster.client.clone())
        .delete_collection(all.0, all.1)
        .await
        .expect("deleted");
    Api::<MutatingAdmissionPolicy>::all(cluster.client.clone())
        .delete_collection(all.0, all.1)
        .await
        .expect("deleted");
    assert!(failed.is_empty(), "{} of {compared}:\n{}", failed.len(), failed.join("\n"));
    assert!(compared > 60 && injected > 25, "{compared} compared, {injected} injected");
    note(&format!(
        "    {compared} golden cases are stored alike by webhook and policy, {injected} of them injected"
    ));
}

/// Keeps a policy in place that touches nobody. With its last policy the API server stops to watch ConfigMaps, and where another comes soon after, it was
/// seen never to hear of changes in that one's parameters.
pub(crate) async fn keep_parameters_watched(cluster: &Cluster) {
    const NAME: &str = "for-the-watch";
    let client = || cluster.client.clone();
    let policies: Api<MutatingAdmissionPolicy> = Api::all(client());
    if policies.get_opt(NAME).await.expect("an answer").is_some() {
        return;
    }
    let metadata = json!({"name": NAME});
    let patch = "[JSONPatch{op: 'add', path: '/spec/dnsPolicy', value: params.data.policy}]";
    let policy = json!({"metadata": metadata, "spec": {
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"scenario": "nobody"}},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        },
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }});
    let reference = json!({"name": NAME, "namespace": "default", "parameterNotFoundAction": "Allow"});
    let binding = json!({"metadata": metadata, "spec": {"policyName": NAME, "paramRef": reference}});
    let parameters = json!({"metadata": metadata, "data": {"policy": "None"}});
    cluster.create::<ConfigMap>(Api::namespaced(client(), "default"), parameters).await;
    cluster.create::<MutatingAdmissionPolicy>(policies, policy).await;
    cluster.create::<MutatingAdmissionPolicyBinding>(Api::all(client()), binding).await;
}

/// Waits until the policy works: a Pod that needs no kube-dns is injected under all settings.
async fn active(cluster: &Cluster, group: &str) {
    let namespace = format!("{group}-probe");
    cluster.namespace(&namespace, json!({"node-local-dns-injection": "enabled", "scenario": group})).await;
    let probe =
        pod(json!({"name": "probe", "annotations": {"node-local-dns/single-nameserver": "true"}}), json!({}));
    let end = Instant::now() + LONG;
    loop {
        let stored = try_create(&cluster.client, &namespace, probe.clone(), true).await.expect("a Pod");
        if stored["spec"]["dnsPolicy"] == "None" {
            return;
        }
        assert!(Instant::now() < end, "the policy {group} does nothing");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The case's namespace and Pod as an API server can be asked for them, if it can.
async fn asked(cluster: &Cluster, case: &Case, name: &str, group: &str) -> Option<(String, Value)> {
    let review: Value = serde_json::from_str(&case.review).expect("JSON");
    let request = &review["request"];
    let metadata = case.surroundings().namespace?;
    // The namespace's name decides, or the request creates no Pod, or the object would not get this far.
    let create = request["operation"] == "CREATE"
        && request["resource"]["resource"] == "pods"
        && request.get("subResource").is_none();
    if !create || case.expect["reason"] == "namespace-exempt" || case.expect["reason"] == "undecodable" {
        return None;
    }
    let mut labels = json!(metadata.labels);
    labels.as_object_mut().expect("an object").remove("kubernetes.io/metadata.name");
    labels["scenario"] = json!(group);
    cluster.namespace(name, labels).await;
    if !metadata.annotations.is_empty() {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client.clone());
        let patch = kube::api::Patch::Merge(json!({"metadata": {"annotations": metadata.annotations}}));
        namespaces.patch(name, &Default::default(), &patch).await.expect("annotated");
        sleep(Duration::from_secs(1)).await;
    }
    let mut object = request["object"].clone();
    object["metadata"].as_object_mut()?.remove("namespace");
    // The golden Pods' volumes are left out for brevity.
    object["spec"]["containers"][0].as_object_mut()?.remove("volumeMounts");
    Some((name.to_owned(), object))
}

/// What the webhook makes of the Pod in this namespace.
fn webhook(surroundings: &Surroundings, namespace: &str, object: &Value) -> Value {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "CREATE", "namespace": namespace, "object": object,
        "resource": {"group": "", "version": "v1", "resource": "pods"}}});
    let answered = surroundings.answer(review.to_string().as_bytes());
    let mut patched = object.clone();
    if let Some(patch) = patch_of(&response(&answered)) {
        let patch: json_patch::Patch = serde_json::from_value(patch).expect("RFC 6902");
        json_patch::patch(&mut patched, &patch).expect("it applies");
    }
    dns_of(&patched)
}

/// What injection may change, without what the API server's own types drop.
fn dns_of(pod: &Value) -> Value {
    let mut config = pod["spec"]["dnsConfig"].clone();
    if let Some(lists) = config.as_object_mut() {
        lists.retain(|_, list| list.as_array().is_some_and(|list| !list.is_empty()));
        for option in lists.get_mut("options").and_then(Value::as_array_mut).into_iter().flatten() {
            option.as_object_mut().expect("an object").retain(|key, _| key == "name" || key == "value");
        }
    }
    if config == json!({}) {
        config = Value::Null;
    }
    let policy = pod["spec"]["dnsPolicy"].as_str().unwrap_or("ClusterFirst");
    json!({
        "dnsPolicy": policy,
        "dnsConfig": config,
        "status": pod["metadata"]["annotations"]["node-local-dns/status"],
        "label": pod["metadata"]["labels"]["node-local-dns-injection"],
    })
}
