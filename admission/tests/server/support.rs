//! The server as a child process, and clients that talk TLS to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use nodens_testkit::Process;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name under which the API server knows the webhook.
pub(crate) const NAME: &str = "node-local-dns-admission-controller.kube-system.svc";

/// Long enough for a busy machine, short enough to wait for.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A directory of a test's own, gone with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("nodens-admission-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), contents).expect("a file in a temporary directory");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// An authority of the test's own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A leaf for [`NAME`]: certificate and key as PEM. `days` is how long it is good from now on; it began a day ago, or ended then.
    pub(crate) fn leaf(&self, days: i64) -> (String, String) {
        let day = time::Duration::days(1);
        self.leaf_within(-day * 2, day * days as i32)
    }

    /// A leaf that is good from then to then, counted from now.
    pub(crate) fn leaf_within(&self, from: time::Duration, to: time::Duration) -> (String, String) {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now + from;
        params.not_after = now + to;
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("signed");
        (leaf.pem(), key.serialize_pem())
    }

    pub(crate) fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        client_config(roots)
    }
}

/// A client that trusts these, and offers what the API server offers.
pub(crate) fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The binary at work, with a certificate in files.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) webhook: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) trust: Arc<ClientConfig>,
    pub(crate) authority: Authority,
    pub(crate) folder: Folder,
}

/// Flags that every test's server has.
const FLAGS: [&str; 7] = [
    "--no-kube",
    "--kube-dns-ip=172.21.0.10",
    "--listen=127.0.0.1:0",
    "--http-listen=127.0.0.1:0",
    "--cert-mode=files",
    "--shutdown-delay=200ms",
    "-v=4",
];

impl Server {
    pub(crate) fn start(more: &[&str]) -> Self {
        let folder = Folder::new();
        let authority = Authority::new();
        let (certificate, key) = authority.leaf(1);
        folder.write("tls.crt", certificate);
        folder.write("tls.key", key);
        Self::start_in(folder, authority, more, None)
    }

    /// `wrapper` starts the binary: `taskset -c 0`.
    pub(crate) fn start_in(
        folder: Folder,
        authority: Authority,
        more: &[&str],
        wrapper: Option<&[&str]>,
    ) -> Self {
        let binary = env!("CARGO_BIN_EXE_nodens-admission");
        let directory = format!("--cert-dir={}", folder.path().display());
        let mut words: Vec<&str> = wrapper.unwrap_or_default().to_vec();
        words.push(binary);
        words.extend(FLAGS);
        words.push(&directory);
        words.extend(more);
        let process = Process::start(words[0], &words[1..], &[]);
        let line = process.wait_for_line("listens on", LONG);
        let line = line.unwrap_or_else(|| panic!("it does not start: {}", process.dump()));
        let addresses: Vec<SocketAddr> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let trust = authority.trusted();
        Self { process, webhook: addresses[0], http: addresses[1], trust, authority, folder }
    }

    /// Waits until it has its certificate.
    pub(crate) async fn ready(&self) {
        for _ in 0..400 {
            if self.get("/readyz").await.0 == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("it does not get ready: {}", self.process.dump());
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.webhook, Arc::clone(&self.trust)).await.expect("a TLS connection")
    }

    /// A TLS connection to write anything to.
    pub(crate) async fn raw(&self) -> TlsStream<TcpStream> {
        tls(self.webhook, Arc::clone(&self.trust)).await.expect("a TLS connection")
    }

    /// Sends bytes as they are, and returns what comes until the server closes.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.raw().await;
        // It may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        read_to_end(&mut stream).await
    }

    /// GET on the plain port.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).await.expect("the plain port");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut text = String::new();
        timeout(LONG, stream.read_to_string(&mut text)).await.expect("an answer in time").expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    /// The value of a series of `/metrics`, its name without the prefix.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let (_, text) = self.get("/metrics").await;
        let name = format!("nodelocaldns_admission_{series} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().expect("a number")
    }

    /// How often this went wrong.
    pub(crate) async fn errors(&self, kind: &str) -> u64 {
        self.metric(&format!("errors_total{{kind=\"{kind}\"}}")).await
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        status_kib(self.process.pid(), "VmRSS:")
    }

    /// The most that was ever resident, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        status_kib(self.process.pid(), "VmHWM:")
    }
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of Linux");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

pub(crate) async fn read_to_end(stream: &mut TlsStream<TcpStream>) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is the server's right when it did not read all that was sent.
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("an end in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) async fn tls(to: SocketAddr, trust: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(NAME).expect("a name");
    timeout(LONG, TlsConnector::from(trust).connect(name, stream)).await?
}

/// One kept-alive connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr, trust: Arc<ClientConfig>) -> std::io::Result<Self> {
        let stream = tls(to, trust).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> hyper::Result<Reply> {
        let mut request = Request::builder().method(method).uri(path).header("host", NAME);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        self.sender.ready().await?;
        let reply = timeout(LONG, self.sender.send_request(request)).await.expect("an answer in time")?;
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        let body = timeout(LONG, reply.into_body().collect()).await.expect("a body in time")?.to_bytes();
        Ok(Reply { status, headers, body })
    }

    /// A review as the API server sends it.
    pub(crate) async fn review(&mut self, review: impl Into<Bytes>) -> hyper::Result<Reply> {
        self.send(Method::POST, "/inject?timeout=3s", Some("application/json"), review).await
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// That it allows, and whether it has a patch.
    #[track_caller]
    pub(crate) fn has_patch(&self) -> bool {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        let response = &self.json()["response"];
        assert_eq!(response["allowed"], true, "{response}");
        response.get("patch").is_some()
    }
}

/// A review of a Pod in `default`.
pub(crate) fn review(uid: &str, object: Value) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "default",
            "operation": "CREATE",
            "object": object,
            "dryRun": false,
        }
    });
    review.to_string().into_bytes()
}

/// A Pod as small as one can be after the API server's defaults.
pub(crate) fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alpine", "namespace": "default"},
        "spec": {"dnsPolicy": "ClusterFirst", "containers": [{"name": "alpine", "image": "alpine"}]}
    })
}
