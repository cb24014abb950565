//! The admission server as a child process, and the webhook configuration that leads to it, as the chart writes it.
//!
//! The way is the real one, `clientConfig.service`: the Service is an ExternalName that leads to the loopback, so the API server
//! calls the process by the name that its certificate has, `SERVICE.NAMESPACE.svc`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use nodens_testkit::{Process, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, LONG};
use crate::pods::{create, is_injected, pod};

/// Where the server is installed.
const NAMESPACE: &str = "kube-system";

/// An authority of the test's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"),
        )
    }

    /// As in `caBundle`.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a Service of [`NAMESPACE`].
    fn leaf(&self, service: &str) -> (String, String) {
        let (certificate, key) = self.sign(service);
        (certificate.pem(), key.serialize_pem())
    }

    /// The same in DER; the key is PKCS #8.
    pub(crate) fn leaf_der(&self, service: &str) -> (Vec<u8>, Vec<u8>) {
        let (certificate, key) = self.sign(service);
        (certificate.der().to_vec(), key.serialize_der())
    }

    fn sign(&self, service: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![format!("{service}.{NAMESPACE}.svc")]).expect("a name");
        let now = time::OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - time::Duration::HOUR, now + time::Duration::DAY);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("signed"), key)
    }
}

/// What a scenario changes about the installation.
pub(crate) struct Install<'a> {
    /// The webhook configuration's name, and the Service's.
    pub(crate) name: &'a str,
    /// Flags besides those that every server has.
    pub(crate) flags: &'a [&'a str],
    /// Merged into the webhook.
    pub(crate) webhook: Value,
    /// All rights, or only those of the server's roles.
    pub(crate) is_admin: bool,
    /// The server keeps certificate and caBundle itself.
    pub(crate) is_own_authority: bool,
    /// Another way to the API server.
    pub(crate) via: Option<&'a str>,
}

impl<'a> Install<'a> {
    pub(crate) fn named(name: &'a str) -> Self {
        Self { name, flags: &[], webhook: json!({}), is_admin: true, is_own_authority: false, via: None }
    }
}

/// The installed server.
pub(crate) struct Admission {
    pub(crate) process: Process,
    pub(crate) name: String,
    http: u16,
    cert_dir: PathBuf,
    client: Client,
}

impl Admission {
    /// Installs the server with the chart's selectors, which also ask that the namespace carries `scenario=NAME`, so that scenarios do
    /// not meet. Waits until the API server reaches it.
    pub(crate) async fn install(cluster: &Cluster, install: Install<'_>) -> Self {
        let name = install.name;
        let (port, http) = (free_port(), free_port());
        let client = cluster.client.clone();
        let cert_dir = cluster.folder();
        let authority = Authority::new();
        let service = json!({
            "metadata": {"name": name},
            "spec": {"type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"port": port}]},
        });
        cluster.create::<Service>(Api::namespaced(client.clone(), NAMESPACE), service).await;
        let mut configuration = configuration(name, port);
        merge(&mut configuration["webhooks"][0], &install.webhook);
        if !install.is_own_authority {
            configuration["webhooks"][0]["clientConfig"]["caBundle"] =
                json!(STANDARD.encode(authority.pem()));
        }
        cluster.create::<MutatingWebhookConfiguration>(Api::all(client.clone()), configuration).await;
        let mut flags = vec![
            format!("--listen=127.0.0.1:{port}"),
            format!("--http-listen=127.0.0.1:{http}"),
            format!("--kubeconfig={}", cluster.kubeconfig(install.is_admin, install.via)),
            format!("--cert-dir={}", cert_dir.display()),
            "--shutdown-delay=100ms".into(),
            "-v=4".into(),
        ];
        flags.extend(install.flags.iter().map(|flag| (*flag).to_owned()));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        if !install.is_own_authority {
            write_leaf(&cert_dir, &authority, name);
        }
        let process = Process::start(env!("CARGO_BIN_EXE_nodens-admission"), &flags, &[]);
        let admission = Self { process, name: name.to_owned(), http, cert_dir, client };
        admission.ready().await;
        admission
    }

    /// Waits until `/readyz` is content.
    pub(crate) async fn ready(&self) {
        let end = Instant::now() + LONG;
        while self.http("/readyz").await.is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < end, "{}: not ready: {}", self.name, self.process.dump());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Another certificate by another authority, as the kubelet would bring it: the folder `..data` points to is exchanged.
    pub(crate) fn replace_leaf(&self, authority: &Authority) {
        write_leaf(&self.cert_dir, authority, &self.name);
    }

    /// Creates Pods in a namespace until one is injected: until the API server's own copies of labels and configurations are current.
    pub(crate) async fn injected_from_now_on(&self, client: &Client, namespace: &str) {
        let end = Instant::now() + LONG;
        for count in 0.. {
            let metadata = json!({"generateName": format!("until-{count}-")});
            if is_injected(&create(client, namespace, pod(metadata, json!({}))).await) {
                return;
            }
            assert!(Instant::now() < end, "{namespace} is never injected: {}", self.process.dump());
        }
    }

    /// What the API server trusts from now on.
    pub(crate) async fn trust_pem(&self, bundle: &str) {
        let mut live = self.configurations().get(&self.name).await.expect("it is there");
        for webhook in live.webhooks.iter_mut().flatten() {
            webhook.client_config.ca_bundle = Some(ByteString(bundle.as_bytes().to_vec()));
        }
        self.configurations().replace(&self.name, &PostParams::default(), &live).await.expect("replaced");
    }

    /// The live configuration.
    pub(crate) fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    /// The value of one of the server's counters, summed over lines that contain all of `labels`.
    pub(crate) async fn counter(&self, name: &str, labels: &[&str]) -> u64 {
        let (_, text) = self.http("/metrics").await.expect("metrics");
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Reviews that were answered for this reason.
    pub(crate) async fn reviews(&self, reason: &str) -> u64 {
        self.counter("nodelocaldns_admission_requests_total", &[&format!("reason=\"{reason}\"")]).await
    }

    /// Takes the configuration away, so that other scenarios' Pods do not wait for this server.
    pub(crate) async fn remove(self) {
        unconfigure(&self.client, &self.name).await;
    }

    /// Status and body of a plain-HTTP path.
    async fn http(&self, path: &str) -> Option<(u16, String)> {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", self.http)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}

/// Makes the API server call `https://127.0.0.1:PORT/inject` as the Service `name`, for Pods of namespaces labelled `scenario=NAME`.
pub(crate) async fn configure(
    cluster: &Cluster,
    name: &str,
    port: u16,
    webhook: &Value,
    trusted: Option<String>,
) {
    let service = json!({
        "metadata": {"name": name},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"port": port}]},
    });
    cluster.create::<Service>(Api::namespaced(cluster.client.clone(), NAMESPACE), service).await;
    let mut configuration = configuration(name, port);
    merge(&mut configuration["webhooks"][0], webhook);
    if let Some(trusted) = trusted {
        configuration["webhooks"][0]["clientConfig"]["caBundle"] = json!(STANDARD.encode(trusted));
    }
    cluster.create::<MutatingWebhookConfiguration>(Api::all(cluster.client.clone()), configuration).await;
}

/// Takes that back.
pub(crate) async fn unconfigure(client: &Client, name: &str) {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    configurations.delete(name, &DeleteParams::default()).await.expect("it was there");
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    services.delete(name, &DeleteParams::default()).await.expect("it was there");
}

/// The kubelet's way to exchange a Secret's files.
fn write_leaf(folder: &std::path::Path, authority: &Authority, service: &str) {
    let (certificate, key) = authority.leaf(service);
    let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
    let version = folder.join(format!("..{stamp}"));
    std::fs::create_dir_all(&version).expect("a folder");
    std::fs::write(version.join("tls.crt"), certificate).expect("a file");
    std::fs::write(version.join("tls.key"), key).expect("a file");
    let next = folder.join("..data_tmp");
    std::os::unix::fs::symlink(&version, &next).expect("a link");
    std::fs::rename(&next, folder.join("..data")).expect("exchanged");
    for name in ["tls.crt", "tls.key"] {
        // There since the first time.
        drop(std::os::unix::fs::symlink(format!("..data/{name}"), folder.join(name)));
    }
}

/// What the chart installs, without a caBundle.
fn configuration(name: &str, port: u16) -> Value {
    let absent = |key: &str| json!({"key": key, "operator": "DoesNotExist"});
    json!({
        "metadata": {"name": name},
        "webhooks": [{
            "name": format!("{name}.nodens.test"),
            "clientConfig": {"service": {"name": name, "namespace": NAMESPACE, "path": "/inject", "port": port}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"], "scope": "Namespaced"}],
            "admissionReviewVersions": ["v1"],
            "failurePolicy": "Ignore",
            "timeoutSeconds": 3,
            "matchPolicy": "Equivalent",
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "namespaceSelector": {
                "matchLabels": {"node-local-dns-injection": "enabled", "scenario": name},
                "matchExpressions": [
                    absent("virtual-node-affinity-injection"), absent("eci"), absent("alibabacloud.com/eci"),
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "kube-public"]},
                ],
            },
            "objectSelector": {"matchExpressions": [
                absent("eci"), absent("alibabacloud.com/eci"),
                {"key": "node-local-dns-injection", "operator": "NotIn", "values": ["disabled"]},
            ]},
        }],
    })
}

/// Members of `from` replace those of `into`.
fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().expect("an object") {
        into[key] = value.clone();
    }
}
