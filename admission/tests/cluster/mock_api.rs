//! A mock API server: objects in memory behind the REST paths of Kubernetes, with the ways in which a real one disappoints.
//!
//! It knows get, list (label and field selectors, pages), watch (bookmarks left out, 410 for what it forgot), create, update with
//! resourceVersion, merge and apply patches, delete, and metadata-only answers. It validates nothing: what a real server refuses
//! is tested against a real one (`apiserver.rs`). Faults are set from the test: the server is away (connections break), silent
//! (connections stay, nothing is answered), forgets its history, answers a status, or lets another writer in before an update.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Collected, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::rest::{Selectors, Target, is_selected, merge, metadata_only, query};

/// How the server treats connections.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Answers.
    Up,
    /// Closes every connection, new ones too.
    Away,
    /// Takes requests and answers none; watches say nothing more.
    Silent,
}

/// The server; it ends when the test's runtime ends.
#[derive(Clone)]
pub(crate) struct MockApi {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The newest resourceVersion, for watches to wait on.
    version: watch::Sender<u64>,
    mode: watch::Sender<Mode>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<Target, Value>,
    history: Vec<Change>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
    requests: Vec<String>,
    interfere: BTreeMap<String, usize>,
    failures: VecDeque<(String, u16)>,
    delay: Duration,
}

#[derive(Clone)]
struct Change {
    version: u64,
    kind: &'static str,
    target: Target,
    object: Value,
}

type Body = BoxBody<Bytes, Infallible>;

impl MockApi {
    /// Serves on a port of the loopback. To be called within a tokio runtime.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a port");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            version: watch::Sender::new(0),
            mode: watch::Sender::new(Mode::Up),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        MockApi { addr, shared }
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A client for it.
    pub(crate) fn client(&self) -> kube::Client {
        let url = self.url().parse().expect("a good URL");
        kube::Client::try_from(kube::Config::new(url)).expect("a client without TLS")
    }

    /// A kubeconfig document for it, for processes.
    pub(crate) fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "mock",
            "clusters": [{"name": "mock", "cluster": {"server": self.url()}}],
            "contexts": [{"name": "mock", "context": {"cluster": "mock", "user": "mock"}}],
            "users": [{"name": "mock", "user": {}}],
        })
        .to_string()
    }

    /// Creates or replaces the object at `path` (`/api/v1/namespaces/x/services/y`).
    pub(crate) fn put(&self, path: &str, object: Value) {
        let target = Target::parse(path).expect("a path of an object");
        assert!(!target.name.is_empty(), "{path} names no object");
        self.state().store(target, object);
        self.announce();
    }

    /// Deletes the object at `path`.
    pub(crate) fn delete(&self, path: &str) {
        let target = Target::parse(path).expect("a path of an object");
        assert!(self.state().remove(&target).is_some(), "there is no {path}");
        self.announce();
    }

    /// The object at `path` as it is stored.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(&Target::parse(path)?).cloned()
    }

    /// All objects below a collection's path.
    pub(crate) fn list(&self, path: &str) -> Vec<Value> {
        let wanted = Target::parse(path).expect("a path of a collection");
        let state = self.state();
        state
            .objects
            .iter()
            .filter(|(target, _)| wanted.holds(target))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// From now on connections are treated like this; those that are open too.
    pub(crate) fn mode(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Forgets all changes: watches from before get 410 Gone, and end.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.history.clear();
        state.version += 1;
        state.forgotten = state.version;
        drop(state);
        self.announce();
    }

    /// The next `times` updates of the object at `path` find that somebody else was faster.
    pub(crate) fn interfere(&self, path: &str, times: usize) {
        self.state().interfere.insert(path.to_owned(), times);
    }

    /// The next request whose "METHOD /path" starts with `prefix` is answered with `status`.
    pub(crate) fn fail_next(&self, prefix: &str, status: u16) {
        self.state().failures.push_back((prefix.to_owned(), status));
    }

    /// Every answer comes this much later.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// The requests so far, "METHOD /path?query", watches included.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test panicked with it")
    }

    fn announce(&self) {
        let version = self.state().version;
        self.shared.version.send_replace(version);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path_and_query = parts.uri.path_and_query().map_or("", |p| p.as_str()).to_owned();
        let line = format!("{} {path_and_query}", parts.method);
        let (delay, failure) = {
            let mut state = self.state();
            state.requests.push(line.clone());
            let failure = state.failures.iter().position(|(prefix, _)| line.starts_with(prefix));
            (state.delay, failure.and_then(|at| state.failures.remove(at)))
        };
        tokio::time::sleep(delay).await;
        if let Some((_, code)) = failure {
            return status(code, "as the test asked");
        }
        let Some(target) = Target::parse(parts.uri.path()) else {
            return match parts.uri.path() {
                "/version" => document(
                    200,
                    &json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0-mock",
                    "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "",
                    "platform": ""}),
                ),
                _ => status(404, "no such path"),
            };
        };
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let query = query(parts.uri.query().unwrap_or(""));
        let header =
            |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let metadata = header(ACCEPT).contains("PartialObjectMetadata");
        let response = match parts.method {
            Method::GET if query.get("watch").is_some_and(|w| w == "true" || w == "1") => {
                self.watch(target, &query, metadata)
            }
            Method::GET if target.name.is_empty() => self.page(&target, &query, metadata),
            Method::GET => match self.state().objects.get(&target) {
                Some(object) if metadata => document(200, &metadata_only(object)),
                Some(object) => document(200, object),
                None => status(404, "not found"),
            },
            Method::DELETE => match self.state().remove(&target) {
                Some(object) => document(200, &object),
                None => status(404, "not found"),
            },
            // A dry run is answered as if, and stores nothing.
            Method::POST if query.contains_key("dryRun") => Response::builder()
                .status(StatusCode::CREATED)
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body).boxed())
                .expect("a good response"),
            Method::POST | Method::PUT | Method::PATCH => {
                let Ok(body) = serde_json::from_slice(&body) else { return status(400, "no JSON") };
                self.write(&parts.method, target, parts.uri.path(), body, &header(CONTENT_TYPE))
            }
            _ => status(405, "no such method"),
        };
        self.announce();
        response
    }

    fn write(
        &self,
        method: &Method,
        mut target: Target,
        path: &str,
        body: Value,
        content: &str,
    ) -> Response<Body> {
        let mut state = self.state();
        if *method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap_or("").to_owned();
            let generated =
                body["metadata"]["generateName"].as_str().map(|g| format!("{g}{:05}", state.version));
            target.name = if name.is_empty() { generated.unwrap_or_default() } else { name };
            if state.objects.contains_key(&target) {
                return status(409, "already exists");
            }
            let mut body = body;
            body["metadata"]["name"] = json!(target.name);
            if !target.namespace.is_empty() {
                body["metadata"]["namespace"] = json!(target.namespace);
            }
            return document(201, &state.store(target, body));
        }
        if let Some(times) = state.interfere.get_mut(path).filter(|times| **times > 0) {
            *times -= 1;
            if let Some(object) = state.objects.get(&target).cloned() {
                state.store(target.clone(), object);
            }
        }
        let Some(stored) = state.objects.get(&target).cloned() else {
            if *method == Method::PATCH && content.starts_with("application/apply-patch") {
                return document(201, &state.store(target, body));
            }
            return status(404, "not found");
        };
        let wanted = &body["metadata"]["resourceVersion"];
        if wanted.as_str().is_some_and(|wanted| stored["metadata"]["resourceVersion"] != wanted) {
            return status(409, "the object has been modified");
        }
        let new = if *method == Method::PUT { body } else { merge(stored, body) };
        document(200, &state.store(target, new))
    }

    fn page(&self, target: &Target, query: &BTreeMap<String, String>, metadata: bool) -> Response<Body> {
        let state = self.state();
        let selectors = Selectors::of(query);
        let all =
            state.objects.iter().filter(|(t, object)| target.holds(t) && is_selected(object, &selectors));
        let limit = query.get("limit").and_then(|l| l.parse().ok()).filter(|l| *l > 0).unwrap_or(usize::MAX);
        let from: usize = query.get("continue").and_then(|from| from.parse().ok()).unwrap_or(0);
        let shape = |object: &Value| if metadata { metadata_only(object) } else { object.clone() };
        let mut rest = all.skip(from);
        let items: Vec<_> = rest.by_ref().take(limit).map(|(_, object)| shape(object)).collect();
        let mut list = json!({"kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": state.version.to_string()}, "items": items});
        if metadata {
            list["kind"] = json!("PartialObjectMetadataList");
            list["apiVersion"] = json!("meta.k8s.io/v1");
        }
        if rest.next().is_some() {
            list["metadata"]["continue"] = json!((from + limit).to_string());
        }
        document(200, &list)
    }

    fn watch(&self, target: Target, query: &BTreeMap<String, String>, metadata: bool) -> Response<Body> {
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let seconds = query.get("timeoutSeconds").and_then(|s| s.parse().ok()).unwrap_or(300);
        let watch = Watch {
            api: self.clone(),
            target,
            selectors: Selectors::of(query),
            metadata,
            seen: from,
            until: tokio::time::Instant::now() + Duration::from_secs(seconds),
            version: self.shared.version.subscribe(),
            ended: false,
        };
        let frames = stream::unfold(watch, |mut watch| async move {
            let line = watch.next().await?;
            Some((Ok(Frame::data(Bytes::from(line))), watch))
        });
        Response::builder()
            .header(CONTENT_TYPE, "application/json")
            .body(BodyExt::boxed(StreamBody::new(Box::pin(frames))))
            .expect("a good response")
    }
}

/// One watch in progress.
struct Watch {
    api: MockApi,
    target: Target,
    selectors: Selectors,
    metadata: bool,
    seen: u64,
    until: tokio::time::Instant,
    version: watch::Receiver<u64>,
    ended: bool,
}

impl Watch {
    /// The next lines, once there are some; None at the end.
    async fn next(&mut self) -> Option<String> {
        while !self.ended {
            self.version.borrow_and_update();
            let lines = self.changes();
            if !lines.is_empty() {
                return Some(lines);
            }
            tokio::time::timeout_at(self.until, self.version.changed()).await.ok()?.ok()?;
        }
        None
    }

    fn changes(&mut self) -> String {
        let state = self.api.state();
        if self.seen < state.forgotten {
            self.ended = true;
            let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                "reason": "Expired", "message": "too old resource version", "metadata": {}});
            return format!("{}\n", json!({"type": "ERROR", "object": gone}));
        }
        let mut lines = String::new();
        let new = state.history.iter().filter(|change| change.version > self.seen);
        for change in new.filter(|c| self.target.holds(&c.target) && is_selected(&c.object, &self.selectors))
        {
            let object = if self.metadata { metadata_only(&change.object) } else { change.object.clone() };
            lines += &format!("{}\n", json!({"type": change.kind, "object": object}));
        }
        self.seen = state.version;
        lines
    }
}

impl State {
    fn store(&mut self, target: Target, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("00000000-0000-0000-0000-{:012}", self.version));
        }
        let kind = if self.objects.contains_key(&target) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(target.clone(), object.clone());
        self.history.push(Change { version: self.version, kind, target, object: object.clone() });
        object
    }

    fn remove(&mut self, target: &Target) -> Option<Value> {
        let object = self.objects.remove(target)?;
        self.version += 1;
        let change =
            Change { version: self.version, kind: "DELETED", target: target.clone(), object: object.clone() };
        self.history.push(change);
        Some(object)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((socket, peer)) = listener.accept().await {
        let api = MockApi { addr: peer, shared: Arc::clone(&shared) };
        let mut mode = shared.mode.subscribe();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let api = api.clone();
                async move {
                    let mut mode = api.shared.mode.subscribe();
                    let response = api.answer(request).await;
                    // Silence holds back what is done, too.
                    let heard = mode.wait_for(|mode| *mode != Mode::Silent).await;
                    heard.map(|_| response)
                }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            tokio::select! {
                _ = connection => {}
                _ = mode.wait_for(|mode| *mode == Mode::Away) => {}
            }
        });
    }
}

fn document(code: u16, document: &Value) -> Response<Body> {
    Response::builder()
        .status(StatusCode::from_u16(code).expect("a good code"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(document.to_string())).boxed())
        .expect("a good response")
}

fn status(code: u16, message: &str) -> Response<Body> {
    let reason = match code {
        404 => "NotFound",
        409 if message.starts_with("already") => "AlreadyExists",
        409 => "Conflict",
        403 => "Forbidden",
        _ => "",
    };
    document(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code}),
    )
}
