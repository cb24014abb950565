//! Path to answer.
//!
//! A [`Router`] says what one address serves; [`Router::answer`] is a pure function of method and path, so tests need
//! no socket. Only GET and HEAD exist here.

use std::fmt;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::http::HeaderValue;
use hyper::{Method, Response, StatusCode};

use super::exposition::CONTENT_TYPE as METRICS_TYPE;
use super::readiness::Readiness;

/// Makes the text of `/metrics`.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// What one address serves.
#[derive(Clone, Default)]
pub struct Router {
    /// `/health`.
    pub health: bool,
    /// `/ready`.
    pub ready: Option<Arc<Readiness>>,
    /// `/metrics`.
    pub metrics: Option<Render>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router({})", self.paths().join(" "))
    }
}

impl Router {
    /// The answer to a request. Bodies and headers of requests are never looked at.
    pub fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            // Unconditional, as in CoreDNS: it says that the process and its control thread are alive.
            "/health" if self.health => text(StatusCode::OK, "OK"),
            "/ready" => match &self.ready {
                None => self.not_found(),
                Some(readiness) => match readiness.check() {
                    Ok(()) => text(StatusCode::OK, "OK"),
                    Err(missing) => text(StatusCode::SERVICE_UNAVAILABLE, missing),
                },
            },
            "/metrics" => match &self.metrics {
                None => self.not_found(),
                Some(render) => {
                    let mut response = text(StatusCode::OK, render());
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(METRICS_TYPE));
                    response
                }
            },
            _ => self.not_found(),
        }
    }

    fn paths(&self) -> Vec<&'static str> {
        let here = [
            (self.health, "/health"),
            (self.ready.is_some(), "/ready"),
            (self.metrics.is_some(), "/metrics"),
        ];
        here.into_iter().filter(|(served, _)| *served).map(|(_, path)| path).collect()
    }

    fn not_found(&self) -> Response<Full<Bytes>> {
        text(StatusCode::NOT_FOUND, format!("served here: {}\n", self.paths().join(" ")))
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Router {
        Router {
            health: true,
            ready: Some(Arc::new(Readiness::new(["sockets"]))),
            metrics: Some(Arc::new(|| "a 1\n".to_owned())),
        }
    }

    #[test]
    fn m58_health_is_200_and_ready_follows_the_latch() {
        let router = everything();
        assert_eq!(router.answer(&Method::GET, "/health").status(), 200);
        assert_eq!(router.answer(&Method::GET, "/ready").status(), 503);
        router.ready.as_ref().expect("set above").set_ready("sockets");
        assert_eq!(router.answer(&Method::GET, "/ready").status(), 200);
    }

    #[test]
    fn only_what_was_asked_for_is_served() {
        let router = Router { health: true, ..Router::default() };
        assert_eq!(router.answer(&Method::GET, "/metrics").status(), 404);
        assert_eq!(router.answer(&Method::GET, "/ready").status(), 404);
        assert_eq!(router.answer(&Method::GET, "/").status(), 404);
        assert_eq!(Router::default().answer(&Method::GET, "/health").status(), 404);
    }

    #[test]
    fn other_methods_are_405_and_say_what_is_allowed() {
        let response = everything().answer(&Method::POST, "/health");
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        assert_eq!(everything().answer(&Method::HEAD, "/metrics").status(), 200);
    }
}
