//! `/livez`, `/readyz`, `/healthz` and `/metrics` in plain HTTP, on a port of their own: probes must not depend on the certificate that
//! is being exchanged.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::serve::{Answer, Handler};
use crate::metrics::{self, Metrics};
use crate::readiness::Readiness;

/// Answers kubelets and Prometheus.
#[derive(Debug)]
pub struct Probes {
    /// What `/readyz` says.
    pub readiness: Arc<Readiness>,
    /// What `/metrics` says.
    pub metrics: Arc<Metrics>,
}

impl Handler for Probes {
    fn handle(&self, request: Request<Incoming>, _peer: SocketAddr) -> BoxFuture<'_, Answer> {
        let answer = self.answer(request.method(), request.uri().path());
        Box::pin(std::future::ready(answer))
    }
}

impl Probes {
    fn answer(&self, method: &Method, path: &str) -> Answer {
        if !matches!(path, "/livez" | "/readyz" | "/healthz" | "/metrics") {
            return text(StatusCode::NOT_FOUND, "here are /livez, /readyz, /healthz and /metrics\n");
        }
        if method != Method::GET && method != Method::HEAD {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/metrics" => {
                self.metrics.ready(self.readiness.missing().is_empty());
                let mut answer = text(StatusCode::OK, self.metrics.text());
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
                answer
            }
            "/readyz" => match self.readiness.missing().join("\n") {
                missing if missing.is_empty() => text(StatusCode::OK, "ok\n"),
                missing => text(StatusCode::SERVICE_UNAVAILABLE, missing + "\n"),
            },
            // Being able to answer is being alive; nothing else is a reason to be killed.
            _ => text(StatusCode::OK, "ok\n"),
        }
    }
}

/// An answer in words.
pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
