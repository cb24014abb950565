//! The certificates' store over the API: one writer wins, others look again; nothing of other owners is touched.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nodens_admission::certificates::store::{CertificateStore, StoreError};
use nodens_admission::cluster::KubeStore;
use serde_json::json;

use crate::fixtures::put_webhook;
use crate::mock_api::{MockApi, Mode};

const SECRET: &str = "/api/v1/namespaces/dns/secrets/cert";
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/hook";

fn store(api: &MockApi) -> KubeStore {
    KubeStore::new(api.client(), "dns", "cert", "hook")
}

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

#[tokio::test]
async fn the_secret_is_created_once_and_replaced_under_its_version() {
    let api = MockApi::start().await;
    let store = store(&api);
    assert_eq!(store.secret().await, Ok(None));
    store.put_secret(&data(&[("a", "1"), ("b", "2")]), None).await.expect("created");
    assert_eq!(store.put_secret(&data(&[("a", "other")]), None).await, Err(StoreError::Conflict));
    let read = store.secret().await.expect("read").expect("it is there");
    assert_eq!(read.data, data(&[("a", "1"), ("b", "2")]));
    // What is not in the new data is gone.
    store.put_secret(&data(&[("a", "3")]), Some(&read.version)).await.expect("replaced");
    let after = store.secret().await.expect("read").expect("it is there");
    assert_eq!(after.data, data(&[("a", "3")]));
    assert_eq!(store.put_secret(&data(&[("a", "4")]), Some(&read.version)).await, Err(StoreError::Conflict));
    assert_eq!(store.secret().await.expect("read").expect("it is there"), after);
}

#[tokio::test]
async fn whoever_writes_between_read_and_write_wins() {
    let api = MockApi::start().await;
    let store = store(&api);
    store.put_secret(&data(&[("a", "1")]), None).await.expect("created");
    put_webhook(&api, "hook", "");
    let secret = store.secret().await.expect("read").expect("it is there");
    let bundles = store.bundles().await.expect("read").expect("it is there");
    // Behind the version check of ours, before the write.
    api.interfere(SECRET, 1);
    api.interfere(CONFIGURATION, 1);
    assert_eq!(
        store.put_secret(&data(&[("a", "2")]), Some(&secret.version)).await,
        Err(StoreError::Conflict)
    );
    assert_eq!(store.put_bundles(b"PEM", &bundles.version).await, Err(StoreError::Conflict));
    // And before it.
    assert_eq!(store.put_bundles(b"PEM", &bundles.version).await, Err(StoreError::Conflict));
    let bundles = store.bundles().await.expect("read").expect("it is there");
    store.put_bundles(b"PEM", &bundles.version).await.expect("now it is current");
}

#[tokio::test]
async fn labels_annotations_and_the_rest_of_the_configuration_stay() {
    let api = MockApi::start().await;
    let store = store(&api);
    api.put(
        SECRET,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "dns",
            "labels": {"app": "x"}, "annotations": {"helm.sh/resource-policy": "keep"}}}),
    );
    let empty = store.secret().await.expect("read").expect("the chart made it");
    assert!(empty.data.is_empty());
    store.put_secret(&data(&[("a", "1")]), Some(&empty.version)).await.expect("replaced");
    let stored = api.get(SECRET).expect("it is there");
    assert_eq!(stored["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    assert_eq!(stored["metadata"]["labels"]["app"], "x");

    assert_eq!(store.bundles().await, Ok(None));
    put_webhook(&api, "hook", "");
    let mut two = api.get(CONFIGURATION).expect("it is there");
    let mut second = two["webhooks"][0].clone();
    second["name"] = json!("opt-in.node-local-dns");
    two["webhooks"].as_array_mut().expect("a list").push(second);
    api.put(CONFIGURATION, two);
    let bundles = store.bundles().await.expect("read").expect("it is there");
    assert_eq!(bundles.bundles, [Vec::<u8>::new(), Vec::new()]);
    store.put_bundles(b"PEM", &bundles.version).await.expect("applied");
    let after = store.bundles().await.expect("read").expect("it is there");
    assert_eq!(after.bundles, [b"PEM".to_vec(), b"PEM".to_vec()]);
    let stored = api.get(CONFIGURATION).expect("it is there");
    assert_eq!(stored["webhooks"][1]["clientConfig"]["caBundle"], STANDARD.encode("PEM"));
    assert_eq!(stored["webhooks"][0]["clientConfig"]["service"]["path"], "/inject");
    assert_eq!(stored["webhooks"][0]["sideEffects"], "None");
    let patch = api.requests().into_iter().find(|r| r.starts_with("PATCH")).expect("a patch");
    assert!(patch.contains("fieldManager=nodens-admission") && patch.contains("force=true"), "{patch}");
}

#[tokio::test]
async fn what_fails_is_told_with_the_object_and_the_remedy() {
    let api = MockApi::start().await;
    let store = store(&api);
    api.fail_next("GET /api/v1/namespaces/dns/secrets/cert", 403);
    let Err(StoreError::Failed(why)) = store.secret().await else { panic!("forbidden") };
    assert!(why.contains("Secret dns/cert") && why.contains("role"), "{why}");
    api.fail_next("POST /api/v1/namespaces/dns/secrets", 500);
    let Err(StoreError::Failed(why)) = store.put_secret(&data(&[]), None).await else { panic!("failed") };
    assert!(why.contains("cannot create Secret dns/cert"), "{why}");
    api.mode(Mode::Away);
    let Err(StoreError::Failed(why)) = store.bundles().await else { panic!("away") };
    assert!(why.contains("cannot read MutatingWebhookConfiguration hook"), "{why}");
}
