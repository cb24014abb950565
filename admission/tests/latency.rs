//! What a review costs. A 50 KiB Pod has to be answered in well under a millisecond; the figure is printed with every run.

use std::time::Instant;

use nodens_admission::review;
use nodens_admission::settings::InjectionSettings;
use nodens_admission::snapshot::Snapshot;
use serde_json::json;

/// A Pod as large clusters have them: dozens of variables, mounts, annotations that hold documents, managed fields.
fn large_pod() -> String {
    let text = |length: usize| "configuration ".repeat(length / 14 + 1);
    let container = |number: usize| {
        let env: Vec<_> = (0..40)
            .map(|i| json!({"name": format!("VARIABLE_{i}"), "value": format!("value \"{i}\" of {number}")}))
            .collect();
        let mounts: Vec<_> = (0..12)
            .map(|i| json!({"name": format!("volume-{i}"), "mountPath": format!("/mnt/{i}")}))
            .collect();
        json!({"name": format!("container-{number}"), "image": "registry.example.com/team/image@sha256:0123456789abcdef",
            "env": env, "volumeMounts": mounts, "args": [text(2_000)],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}}})
    };
    let containers: Vec<_> = (0..6).map(container).collect();
    let fields: serde_json::Map<String, serde_json::Value> =
        (0..200).map(|i| (format!("f:field-{i}"), json!({}))).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-7d4b9c-", "labels": {"app": "web"},
            "annotations": {"note": text(20_000)},
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:spec": fields}}],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d4b9c", "uid": "1-2-3", "controller": true}]},
        "spec": {"containers": containers, "dnsPolicy": "ClusterFirst", "tolerations": [{"operator": "Exists"}],
            "dnsConfig": {"options": [{"name": "use-vc"}], "searches": ["corp.example.com"]}}})
    .to_string()
}

#[test]
fn a_50_kib_pod_costs_well_under_a_millisecond() {
    let pod = large_pod();
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "shop",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "object": serde_json::value::RawValue::from_string(pod).expect("JSON")}})
    .to_string();
    let kib = review.len() / 1024;
    assert!((50..70).contains(&kib), "{kib} KiB");
    let snapshot = Snapshot::alone(InjectionSettings::default(), vec![[172, 21, 0, 10].into()]);
    let mut took: Vec<u128> = (0..400)
        .map(|_| {
            let started = Instant::now();
            let answered = review::answer(review.as_bytes(), &snapshot);
            let elapsed = started.elapsed().as_micros();
            assert!(answered.outcome.is_ok_and(|outcome| outcome.patch_bytes > 0));
            elapsed
        })
        .collect();
    took.sort_unstable();
    let (median, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    let build = if cfg!(debug_assertions) { "unoptimised" } else { "release" };
    nodens_testkit::note(&format!("a review of {kib} KiB, {build} build: median {median} us, p99 {p99} us"));
    // Without optimisation serde is ten times slower. The fastest tenth is judged, since the machine may be busy with other tests.
    let (limit, tenth) = (if cfg!(debug_assertions) { 10_000 } else { 500 }, took[took.len() / 10]);
    assert!(tenth < limit, "the fastest tenth took up to {tenth} us");
}
