//! What the server knows follows the cluster, and stays when the API server does not.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nodens_admission::cluster::fresh::{BUDGET, LIFETIME, LOOKS_MAX};
use nodens_admission::cluster::{FreshLook, KubeDnsSource, Notice, Notify, Watches};
use nodens_admission::names::INJECTION_LABEL;
use nodens_admission::settings::InjectionSettings;
use nodens_admission::snapshot::{Namespaces, Snapshot};
use serde_json::json;

use crate::fixtures::{eventually, namespace, namespace_path, service, service_path};
use crate::mock_api::{MockApi, Mode};

/// The watches over a mock API server, and what can be seen of them.
struct World {
    api: MockApi,
    snapshot: Arc<ArcSwap<Snapshot>>,
    watches: Watches,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl World {
    /// Starts the watches without waiting for anything.
    fn watch(api: &MockApi) -> Self {
        let snapshot =
            Arc::new(ArcSwap::from_pointee(Snapshot::alone(InjectionSettings::default(), Vec::new())));
        let notices = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&notices);
        let notify: Notify = Arc::new(move |notice| log.lock().expect("no panic").push(notice));
        let watches = Watches::start(&api.client(), Some(KubeDnsSource::default()), &snapshot, &notify);
        World { api: api.clone(), snapshot, watches, notices }
    }

    /// A cluster with kube-dns at 10.96.0.10 and the namespace `shop`, fully known.
    async fn synced() -> Self {
        let api = MockApi::start().await;
        api.put(&service_path("kube-dns"), service("kube-dns", &["10.96.0.10"]));
        api.put(&namespace_path("shop"), namespace("shop", json!({INJECTION_LABEL: "enabled"})));
        let world = Self::watch(&api);
        world.watches.progress().synced().await;
        world
    }

    fn kube_dns(&self) -> Vec<String> {
        self.snapshot.load().config.kube_dns().iter().map(IpAddr::to_string).collect()
    }

    /// The injection label of a namespace; None: it is not known.
    fn label(&self, name: &str) -> Option<String> {
        match &*self.snapshot.load().namespaces {
            Namespaces::Selected => None,
            Namespaces::Watched(all) => {
                all.get(name).map(|f| f.label(INJECTION_LABEL).unwrap_or("").to_owned())
            }
        }
    }

    fn notices(&self) -> Vec<Notice> {
        self.notices.lock().expect("no panic").clone()
    }

    async fn kube_dns_becomes(&self, wanted: &[&str]) {
        let wanted: Vec<String> = wanted.iter().map(|s| (*s).to_owned()).collect();
        eventually("kube-dns", wanted, || self.kube_dns()).await;
    }

    async fn label_becomes(&self, name: &str, wanted: Option<&str>) {
        eventually(name, wanted.map(str::to_owned), || self.label(name)).await;
    }
}

#[tokio::test]
async fn kube_dns_and_namespaces_are_known_after_the_first_list() {
    let world = World::synced().await;
    assert_eq!(world.kube_dns(), ["10.96.0.10"]);
    assert_eq!(world.label("shop").as_deref(), Some("enabled"));
    assert_eq!(world.label("elsewhere"), None);
    assert_eq!(world.watches.progress().namespaces_known(), 1);
    let told = world.notices();
    assert!(told.contains(&Notice::NamespacesKnown { count: 1, enabled: 1 }), "{told:?}");
    assert!(!told.iter().any(Notice::is_warning), "{told:?}");
    let lists: Vec<_> = world.api.requests().into_iter().filter(|r| !r.contains("watch=true")).collect();
    assert_eq!(lists.len(), 2, "one list each: {lists:?}");
}

#[tokio::test]
async fn nothing_is_known_before_the_first_list() {
    let api = MockApi::start().await;
    api.put(&service_path("kube-dns"), service("kube-dns", &["10.96.0.10"]));
    api.mode(Mode::Silent);
    let world = World::watch(&api);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!world.watches.progress().has_kube_dns());
    assert!(!world.watches.progress().has_namespaces());
    assert!(matches!(*world.snapshot.load().namespaces, Namespaces::Selected));
    api.mode(Mode::Up);
    world.kube_dns_becomes(&["10.96.0.10"]).await;
}

#[tokio::test]
async fn node_local_upstream_is_never_mistaken_for_kube_dns() {
    let api = MockApi::start().await;
    api.put(&service_path("node-local-upstream"), service("node-local-upstream", &["10.96.0.20"]));
    let world = World::watch(&api);
    eventually("a list", true, || world.watches.progress().has_namespaces()).await;
    eventually("the absence is told", 1, || world.notices().iter().filter(|n| n.is_warning()).count()).await;
    assert_eq!(world.kube_dns(), <[&str; 0]>::default());
    assert!(!world.watches.progress().has_kube_dns());
    // Under another name, with the label: that is the cluster's DNS.
    api.put(&service_path("coredns"), service("coredns", &["10.96.0.30"]));
    world.kube_dns_becomes(&["10.96.0.30"]).await;
    // The one with the name goes before.
    api.put(&service_path("kube-dns"), service("kube-dns", &["10.96.0.10"]));
    world.kube_dns_becomes(&["10.96.0.10"]).await;
}

#[tokio::test]
async fn services_without_an_address_are_no_kube_dns() {
    let api = MockApi::start().await;
    api.put(&service_path("kube-dns"), service("kube-dns", &["None"]));
    let mut metrics = service("kube-dns-metrics", &["10.96.0.40"]);
    metrics["spec"]["ports"] = json!([{"port": 9153}]);
    api.put(&service_path("kube-dns-metrics"), metrics);
    let mut external = service("elsewhere", &["10.96.0.41"]);
    external["spec"]["type"] = json!("ExternalName");
    api.put(&service_path("elsewhere"), external);
    let world = World::watch(&api);
    eventually("told", true, || world.notices().iter().any(Notice::is_warning)).await;
    assert_eq!(world.kube_dns(), <[&str; 0]>::default());
    // Of two that would do, the older one; it does not matter which was listed first.
    let mut young = service("a-young-one", &["10.96.0.50"]);
    young["metadata"]["creationTimestamp"] = json!("2026-06-01T00:00:00Z");
    api.put(&service_path("a-young-one"), young);
    world.kube_dns_becomes(&["10.96.0.50"]).await;
    api.put(&service_path("coredns"), service("coredns", &["10.96.0.30"]));
    world.kube_dns_becomes(&["10.96.0.30"]).await;
}

#[tokio::test]
async fn both_families_are_taken_in_the_services_order() {
    let api = MockApi::start().await;
    api.put(&service_path("kube-dns"), service("kube-dns", &["fd00:10:96::a", "10.96.0.10"]));
    let world = World::watch(&api);
    world.kube_dns_becomes(&["fd00:10:96::a", "10.96.0.10"]).await;
}

#[tokio::test]
async fn a_new_address_of_kube_dns_is_taken_and_told() {
    let world = World::synced().await;
    let before = world.snapshot.load().config.fingerprint().to_owned();
    world.api.delete(&service_path("kube-dns"));
    world.kube_dns_becomes(&[]).await;
    assert!(!world.watches.progress().has_kube_dns(), "row 14 holds while there is none");
    world.api.put(&service_path("kube-dns"), service("kube-dns", &["10.96.7.7"]));
    world.kube_dns_becomes(&["10.96.7.7"]).await;
    assert!(world.watches.progress().has_kube_dns());
    assert_ne!(world.snapshot.load().config.fingerprint(), before);
    let changed = world.notices().into_iter().filter(|n| matches!(n, Notice::KubeDnsChanged { .. })).count();
    assert_eq!(changed, 3, "found, gone, found: {:?}", world.notices());
}

#[tokio::test]
async fn labels_follow_and_what_does_not_matter_publishes_nothing() {
    let world = World::synced().await;
    world.api.put(&namespace_path("late"), namespace("late", json!({"team": "x"})));
    world.label_becomes("late", Some("")).await;
    let before = world.snapshot.load_full();
    world.api.put(&namespace_path("late"), namespace("late", json!({"team": "y"})));
    let mut noisy = namespace("late", json!({"team": "y"}));
    noisy["metadata"]["annotations"] = json!({"somebody/else": "1"});
    world.api.put(&namespace_path("late"), noisy);
    // Something that does matter, behind it in the stream.
    world.api.put(&namespace_path("marker"), namespace("marker", json!({})));
    world.label_becomes("marker", Some("")).await;
    let (Namespaces::Watched(old), Namespaces::Watched(new)) =
        (&*before.namespaces, &*world.snapshot.load_full().namespaces)
    else {
        panic!("watched");
    };
    assert!(Arc::ptr_eq(&old["late"], &new["late"]));
    world.api.put(&namespace_path("late"), namespace("late", json!({INJECTION_LABEL: "enabled"})));
    world.label_becomes("late", Some("enabled")).await;
    world.api.delete(&namespace_path("late"));
    world.label_becomes("late", None).await;
}

#[tokio::test]
async fn f23_an_api_server_that_is_away_changes_nothing_and_is_told_once() {
    let world = World::synced().await;
    let before = world.snapshot.load_full();
    world.api.mode(Mode::Away);
    let lost = |world: &World| world.notices().iter().filter(|n| matches!(n, Notice::Lost { .. })).count();
    eventually("both watches are lost", 2, || lost(&world)).await;
    // Several attempts later (the first waits are 0.8 and 1.6 s) nothing more was said, and nothing was forgotten.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(lost(&world), 2);
    assert!(Arc::ptr_eq(&before, &world.snapshot.load_full()));
    assert!(world.watches.progress().has_kube_dns() && world.watches.progress().has_namespaces());
    // What happened meanwhile is learned when it is back.
    world.api.put(&namespace_path("shop"), namespace("shop", json!({INJECTION_LABEL: "disabled"})));
    world.api.delete(&service_path("kube-dns"));
    world.api.put(&service_path("kube-dns"), service("kube-dns", &["10.96.7.7"]));
    world.api.mode(Mode::Up);
    world.label_becomes("shop", Some("disabled")).await;
    world.kube_dns_becomes(&["10.96.7.7"]).await;
    let back = |world: &World| world.notices().iter().filter(|n| matches!(n, Notice::Back { .. })).count();
    eventually("both are back", 2, || back(&world)).await;
}

#[tokio::test]
async fn a_server_that_forgot_its_history_is_listed_again_without_a_word() {
    let world = World::synced().await;
    // Both at once: the watches see 410, not the changes.
    world.api.mode(Mode::Silent);
    world.api.put(&namespace_path("shop"), namespace("shop", json!({INJECTION_LABEL: "disabled"})));
    world.api.put(&namespace_path("new"), namespace("new", json!({})));
    world.api.forget();
    world.api.mode(Mode::Up);
    world.label_becomes("shop", Some("disabled")).await;
    world.label_becomes("new", Some("")).await;
    world.api.delete(&namespace_path("new"));
    world.api.forget();
    world.label_becomes("new", None).await;
    assert!(!world.notices().iter().any(|n| matches!(n, Notice::Lost { .. })), "{:?}", world.notices());
}

#[tokio::test]
async fn refused_by_rbac_is_told_with_the_reason() {
    let api = MockApi::start().await;
    api.fail_next("GET /api/v1/namespaces?", 403);
    let world = World::watch(&api);
    eventually("told", true, || world.notices().iter().any(|n| n.to_string().contains("namespaces"))).await;
    let lost = world.notices().into_iter().find(|n| matches!(n, Notice::Lost { .. })).expect("it is lost");
    assert!(lost.to_string().contains("as the test asked"), "{lost}");
}

fn fresh(api: &MockApi) -> FreshLook {
    FreshLook::new(api.client(), Arc::new(InjectionSettings::default()))
}

#[tokio::test]
async fn a_fresh_look_sees_what_the_watch_has_not_and_is_shared() {
    let api = MockApi::start().await;
    api.put(&namespace_path("shop"), namespace("shop", json!({INJECTION_LABEL: "enabled"})));
    api.delay(Duration::from_millis(50));
    let fresh = fresh(&api);
    let looks = (0..100).map(|_| fresh.namespace("shop"));
    let answers = futures_util::future::join_all(looks).await;
    assert!(answers.iter().all(|a| a.as_ref().is_some_and(|f| f.label(INJECTION_LABEL) == Some("enabled"))));
    assert_eq!(api.requests().len(), 1, "{:?}", api.requests());
    // It stands for a moment, and no longer.
    assert!(fresh.namespace("shop").await.is_some());
    assert_eq!(api.requests().len(), 1);
    api.put(&namespace_path("shop"), namespace("shop", json!({})));
    tokio::time::sleep(BUDGET + LIFETIME).await;
    let later = fresh.namespace("shop").await.expect("it is there");
    assert_eq!(later.label(INJECTION_LABEL), None);
    assert_eq!(api.requests().len(), 2);
}

#[tokio::test]
async fn a_fresh_look_that_fails_leaves_the_decision_to_the_api_server() {
    let api = MockApi::start().await;
    assert!(fresh(&api).namespace("nowhere").await.is_none());
    for mode in [Mode::Away, Mode::Silent] {
        api.mode(mode);
        let begun = Instant::now();
        assert!(fresh(&api).namespace("shop").await.is_none());
        assert!(begun.elapsed() < BUDGET * 3, "{mode:?} took {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn fresh_looks_are_bounded() {
    let api = MockApi::start().await;
    api.mode(Mode::Silent);
    let fresh = fresh(&api);
    let looks = (0..LOOKS_MAX * 4).map(|n| {
        let fresh = fresh.clone();
        async move { fresh.namespace(&format!("ns-{n}")).await }
    });
    let answers = futures_util::future::join_all(looks).await;
    assert!(answers.iter().all(Option::is_none));
    assert!(api.requests().len() <= LOOKS_MAX, "{}", api.requests().len());
}
