//! Another webhook, of somebody else: it labels every Pod, which makes the API server call ours again.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use nodens_admission::log::Log;
use nodens_admission::metrics::Metrics;
use nodens_admission::server::limits::Limits;
use nodens_admission::server::serve::{Answer, Handler, Serving, Telling, serve};
use nodens_admission::tls::{Identity, Tls};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::admission::Authority;

/// Serves as `SERVICE.kube-system.svc` on a port of the loopback.
pub(crate) fn start(authority: &Authority, service: &str) -> Serving {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has a port");
    listener.set_nonblocking(true).expect("a socket");
    let tls = Arc::new(Tls::default());
    let (chain, key) = authority.leaf_der(service);
    let key = PrivateKeyDer::Pkcs8(key.into());
    tls.install(Identity { chain: vec![chain.into()], key, client_authorities: Vec::new() })
        .expect("a good certificate");
    let telling = Telling { metrics: Arc::new(Metrics::new()), log: Log::silent() };
    serve(listener, Some(tls), Arc::new(Labeller), Limits::default(), telling).expect("it serves")
}

struct Labeller;

impl Handler for Labeller {
    fn handle(&self, request: Request<Incoming>, _: SocketAddr) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let review: Value = serde_json::from_slice(&body).expect("a review");
            let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"somebody": "else"}}]);
            let answer = json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "response": {"uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch",
                    "patch": STANDARD.encode(patch.to_string())},
            });
            Answer::new(Full::new(Bytes::from(answer.to_string())))
        })
    }
}
