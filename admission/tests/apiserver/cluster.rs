//! A kube-apiserver with its etcd, as small as they go: no controllers, no nodes, no kubelets.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nodens_testkit::{Process, free_port};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Long enough for a machine so busy that a kube-apiserver takes more than 90 s to start, which was seen.
pub(crate) const LONG: Duration = Duration::from_secs(240);

/// May do everything.
const ADMIN: &str = "admin-token";

/// May do what the chart's roles let the admission server do.
const SERVER: &str = "server-token";

/// The user behind [`SERVER`].
pub(crate) const SERVER_USER: &str = "nodens-admission";

/// Annotations are wanted; objects are not.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "verbs": ["create"], "resources": [{"group": "", "resources": ["pods"]}]}, {"level": "None"}]}"#;

/// The cluster; its processes end with it.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) version: String,
    folder: PathBuf,
    pub(crate) url: String,
    _apiserver: Process,
    _etcd: Process,
}

impl Cluster {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(assets: &Path) -> Self {
        let folder = std::env::temp_dir().join(format!("nodens-apiserver-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a temporary file");
            path.display().to_string()
        };
        let key = rcgen::KeyPair::generate().expect("a key");
        let (public, key) = (
            file("service-account.pub", &key.public_key_pem()),
            file("service-account.key", &key.serialize_pem()),
        );
        let tokens =
            file("tokens.csv", &format!("{ADMIN},admin,1,system:masters\n{SERVER},{SERVER_USER},2\n"));
        let policy = file("audit-policy.json", AUDIT_POLICY);
        let path = |name: &str| folder.join(name).display().to_string();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let etcd = Process::start(
            assets.join("etcd"),
            &[
                "--data-dir",
                &path("etcd"),
                "--unsafe-no-fsync",
                "--listen-client-urls",
                &etcd_url,
                "--advertise-client-urls",
                &etcd_url,
                "--listen-peer-urls",
                &peer_url,
            ],
            &[],
        );
        let apiserver = Process::start(
            assets.join("kube-apiserver"),
            &[
                "--etcd-servers",
                &etcd_url,
                "--bind-address",
                "127.0.0.1",
                "--secure-port",
                &port.to_string(),
                "--cert-dir",
                &path("certs"),
                "--service-cluster-ip-range",
                "10.96.0.0/16",
                "--service-account-issuer",
                "https://kubernetes.default.svc",
                "--service-account-key-file",
                &public,
                "--service-account-signing-key-file",
                &key,
                "--authorization-mode",
                "RBAC",
                "--token-auth-file",
                &tokens,
                "--disable-admission-plugins",
                "ServiceAccount",
                "--audit-policy-file",
                &policy,
                "--audit-log-path",
                &path("audit.log"),
            ],
            &[],
        );
        let url = format!("https://127.0.0.1:{port}");
        let client = client(&folder, &url, ADMIN).await;
        let end = Instant::now() + LONG;
        loop {
            let ready = client.request_text(request("/readyz")).await;
            if ready.is_ok() {
                break;
            }
            let is_dead = apiserver.wait_for_line("command failed", Duration::ZERO).is_some();
            assert!(
                !is_dead && Instant::now() < end,
                "kube-apiserver is not ready:\n{}\n{}",
                etcd.dump(),
                apiserver.dump()
            );
            sleep(Duration::from_millis(200)).await;
        }
        let version = client.apiserver_version().await.expect("it has a version").git_version;
        let cluster = Self { client, version, folder, url, _apiserver: apiserver, _etcd: etcd };
        cluster.kube_dns("10.96.0.10").await;
        cluster
    }

    /// A folder for files of one scenario.
    pub(crate) fn folder(&self) -> PathBuf {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let path = self.folder.join(format!("files-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        path
    }

    /// A kubeconfig file for the admission server: all rights, or only those of its roles.
    pub(crate) fn kubeconfig(&self, is_admin: bool, via: Option<&str>) -> String {
        let path = self.folder().join("kubeconfig");
        let url = via.unwrap_or(&self.url);
        std::fs::write(&path, kubeconfig(url, if is_admin { ADMIN } else { SERVER }))
            .expect("a temporary file");
        path.display().to_string()
    }

    /// Creates a namespace with these labels.
    pub(crate) async fn namespace(&self, name: &str, labels: Value) {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.create::<Namespace>(Api::all(self.client.clone()), object).await;
    }

    /// Adds labels to a namespace.
    pub(crate) async fn label(&self, name: &str, labels: Value) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let label = Patch::Merge(json!({"metadata": {"labels": labels}}));
        namespaces.patch(name, &PatchParams::default(), &label).await.expect("labelled");
    }

    /// (Re-)creates the Service kube-dns; another address means another Service.
    pub(crate) async fn kube_dns(&self, address: &str) {
        let services: Api<Service> = Api::namespaced(self.client.clone(), "kube-system");
        if services.get_opt("kube-dns").await.expect("an answer").is_some() {
            services.delete("kube-dns", &DeleteParams::default()).await.expect("deleted");
        }
        let object = json!({
            "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": address, "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ]},
        });
        // The address is free a moment after its Service is gone.
        let end = Instant::now() + LONG;
        let service: Service = serde_json::from_value(object).expect("a Service");
        while let Err(why) = services.create(&PostParams::default(), &service).await {
            assert!(Instant::now() < end, "{why}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Creates an object.
    pub(crate) async fn create<K>(&self, api: Api<K>, object: Value) -> K
    where
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("an object of this kind");
        api.create(&PostParams::default(), &object).await.expect("the API server takes it")
    }

    /// The sum over a metric of the API server with these labels (`name="x"`).
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.client.request_text(request("/metrics")).await.expect("metrics");
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        // An empty sum of floats is -0.
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>().abs()
    }

    /// The audit events about Pods so far.
    pub(crate) fn audit_log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join("audit.log")).expect("the audit log");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn request(path: &str) -> hyper::Request<Vec<u8>> {
    hyper::Request::get(path).body(Vec::new()).expect("a good request")
}

fn kubeconfig(url: &str, token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "insecure-skip-tls-verify": true}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {"token": token}}],
    })
    .to_string()
}

async fn client(folder: &Path, url: &str, token: &str) -> Client {
    let path = folder.join("admin.kubeconfig");
    std::fs::write(&path, kubeconfig(url, token)).expect("a temporary file");
    nodens_admission::cluster::client(Some(path), None).await.expect("a client")
}
