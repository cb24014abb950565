//! How a client is found, and that the mock API server keeps the rules that other tests lean on.

use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use nodens_admission::cluster;
use serde_json::json;

use crate::fixtures::{namespace, namespace_path, service, service_path};
use crate::mock_api::MockApi;

#[tokio::test]
async fn a_named_kubeconfig_is_used_and_a_missing_one_is_told() {
    let api = MockApi::start().await;
    api.put(&namespace_path("shop"), namespace("shop", json!({})));
    let path = std::env::temp_dir().join(format!("nodens-kubeconfig-{}", std::process::id()));
    std::fs::write(&path, api.kubeconfig()).expect("a temporary file");
    let client = cluster::client(Some(path.clone()), None).await.expect("a good kubeconfig");
    assert_eq!(client.apiserver_version().await.expect("it answers").major, "1");
    let error =
        cluster::client(Some(path.clone()), Some("other".into())).await.err().expect("no such context");
    assert!(error.to_string().contains("context"), "{error}");
    std::fs::remove_file(&path).expect("it was there");
    let error = cluster::client(Some(path.clone()), None).await.err().expect("no such file");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(error.to_string().contains("--kubeconfig"), "{error}");
}

#[tokio::test]
async fn the_mock_refuses_stale_updates_and_pages_its_lists() {
    let api = MockApi::start().await;
    let services: Api<Service> = Api::namespaced(api.client(), "kube-system");
    let path = service_path("kube-dns");
    api.put(&path, service("kube-dns", &["10.96.0.10"]));
    let read = services.get("kube-dns").await.expect("it is there");
    api.interfere(&path, 1);
    let code = |error: kube::Error| match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    };
    let refused =
        services.replace("kube-dns", &PostParams::default(), &read).await.expect_err("somebody was faster");
    assert_eq!(code(refused), 409);
    let read = services.get("kube-dns").await.expect("it is there");
    services.replace("kube-dns", &PostParams::default(), &read).await.expect("now it is current");
    let patch = json!({"metadata": {"annotations": {"a": "b"}}});
    services
        .patch("kube-dns", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("no version, no conflict");
    assert_eq!(api.get(&path).expect("it is there")["metadata"]["annotations"]["a"], "b");
    for n in 0..5 {
        api.put(&service_path(&format!("s{n}")), service(&format!("s{n}"), &["10.96.0.10"]));
    }
    let page = services.list(&ListParams::default().limit(4)).await.expect("a page");
    let next = page.metadata.continue_.expect("there is more");
    let rest = services.list(&ListParams::default().limit(4).continue_token(&next)).await.expect("the rest");
    assert_eq!((page.items.len(), rest.items.len(), rest.metadata.continue_), (4, 2, None));
    let one = services.list(&ListParams::default().fields("metadata.name=s3")).await.expect("one");
    assert_eq!(one.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["s3"]);
    services.delete("s3", &DeleteParams::default()).await.expect("deleted");
    assert_eq!(code(services.get("s3").await.expect_err("gone")), 404);
    let again = services.create(&PostParams::default(), &read).await.expect_err("it exists");
    assert_eq!(code(again), 409);
}
