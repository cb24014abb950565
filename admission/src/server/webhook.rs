//! `/inject` and `/mutate` (the same), and `/healthz`, as the original server has them on its TLS port.
//!
//! | what comes                                  | answer                                      | counted as      |
//! |---------------------------------------------|---------------------------------------------|-----------------|
//! | another path                                | 404                                         | `path`          |
//! | another method than POST                    | 405                                         | `method`        |
//! | a `Content-Type` that is not JSON           | 415                                         | `content-type`  |
//! | a body above the limit                      | 413                                         | `body-too-long` |
//! | a body that does not come in time           | 408                                         | `body-too-slow` |
//! | too much in all bodies together             | 503                                         | `no-room`       |
//! | what is no AdmissionReview                  | 400                                         | `undecodable`   |
//! | a review whose object is no Pod             | 200, allowed, no patch                      | `undecodable`   |
//! | one whose object names another namespace    | 200, as the request's namespace decides     | `other-namespace` |
//! | an answer that is not ready in time         | 504                                         | `overdue`       |
//! | a review                                    | 200, allowed, with a patch or without       | its reason      |
//! | a defect of ours while answering            | 500                                         | `internal`      |
//!
//! Every answer but 200 means to the API server that the webhook failed, and `failurePolicy: Ignore` lets the Pod pass as it is.
//! Each has one line in the log, within a budget.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::body::{self, BodyError, Held};
use super::limits::Limits;
use super::probes::text;
use super::serve::{Answer, Handler, Telling};
use crate::duration;
use crate::log::{Kind, Level};
use crate::metrics::ErrorKind;
use crate::reason::Reason;
use crate::review::Answered;

/// Of the time that a request gives us, what is kept back for the way of the answer: a tenth.
const WAY_BACK: f64 = 0.1;

/// What answers reviews; [`crate::reviewer`] does.
pub trait Review: Send + Sync + 'static {
    /// The answer to the bytes of one AdmissionReview, before the deadline if it can be.
    fn review<'a>(&'a self, body: &'a [u8], deadline: Instant) -> BoxFuture<'a, Answered>;
}

/// Answers API servers.
pub struct Webhook {
    review: Arc<dyn Review>,
    limits: Limits,
    held: Arc<Held>,
    telling: Telling,
    verbose: bool,
}

/// Why there is no review to answer.
struct Refusal {
    status: StatusCode,
    kind: ErrorKind,
    why: Cow<'static, str>,
}

fn refusal(status: StatusCode, kind: ErrorKind, why: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal { status, kind, why: why.into() }
}

impl Handler for Webhook {
    fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> BoxFuture<'_, Answer> {
        Box::pin(self.answer(request, peer))
    }
}

impl Webhook {
    /// `verbose` writes a line for every review.
    pub fn new(review: Arc<dyn Review>, limits: Limits, telling: Telling, verbose: bool) -> Self {
        Self { review, limits, held: Arc::default(), telling, verbose }
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        if request.uri().path() == "/healthz" && matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::OK, "ok\n");
        }
        let line = format!("{} {}", request.method(), request.uri().path());
        match self.reviewed(request).await {
            Ok(answer) => answer,
            Err(Refusal { status, kind, why }) => {
                self.telling.metrics.error(kind);
                self.telling.log.limited(Kind::Refused, Level::Warning, || {
                    format!("{line} of {peer} is answered with {}: {why}", status.as_u16())
                });
                let mut answer = text(status, format!("{why}\n"));
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                }
                if !matches!(kind, ErrorKind::Undecodable | ErrorKind::Overdue | ErrorKind::Internal) {
                    // What is left of its body is not worth reading.
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        }
    }

    async fn reviewed(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let began = Instant::now();
        if !matches!(request.uri().path(), "/inject" | "/mutate") {
            let why = "here are /inject, /mutate and /healthz";
            return Err(refusal(StatusCode::NOT_FOUND, ErrorKind::Path, why));
        }
        if request.method() != Method::POST {
            let why = "reviews are sent with POST";
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::Method, why));
        }
        if !is_json(request.headers().get(CONTENT_TYPE)) {
            let why = "the Content-Type of a review is application/json";
            return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorKind::ContentType, why));
        }
        let time = self.time(request.uri().query());
        let deadline = began + time;
        let in_flight = self.telling.metrics.in_flight();
        let body_time = self.limits.body_timeout.min(time);
        let read = body::read(request.into_body(), &self.limits, &self.held, body_time).await;
        let read = read.map_err(|error| self.body_refused(error))?;
        let answering = AssertUnwindSafe(self.review.review(&read.bytes, deadline)).catch_unwind();
        let answered = match timeout_at(deadline, answering).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => {
                let why = "a defect of the server, whose log shows it; please report it";
                return Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Internal, why));
            }
            Err(_) => {
                let why = format!("no answer within {time:?}");
                return Err(refusal(StatusCode::GATEWAY_TIMEOUT, ErrorKind::Overdue, why));
            }
        };
        drop((read, in_flight));
        self.told(answered, began.elapsed())
    }

    /// Metrics, log, and the answer itself.
    fn told(&self, answered: Answered, took: Duration) -> Result<Answer, Refusal> {
        let Telling { metrics, log } = &self.telling;
        let outcome = match answered.outcome {
            Ok(outcome) => outcome,
            Err(bad) => {
                let status = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::BAD_REQUEST);
                return Err(refusal(status, ErrorKind::Undecodable, bad.to_string()));
            }
        };
        metrics.review(outcome.action, outcome.reason, outcome.dry_run, outcome.patch_bytes, took);
        match outcome.reason {
            Reason::Undecodable => metrics.error(ErrorKind::Undecodable),
            Reason::PatchUnproven => metrics.error(ErrorKind::Internal),
            _ => {}
        }
        if outcome.names_other_namespace {
            metrics.error(ErrorKind::OtherNamespace);
        }
        if matches!(outcome.reason, Reason::Undecodable | Reason::PatchUnproven) || !outcome.notes.is_empty()
        {
            log.limited(Kind::Trouble, Level::Warning, || outcome.to_string());
        } else if self.verbose {
            log.limited(Kind::Review, Level::Info, || outcome.to_string());
        }
        let mut answer = Answer::new(answered.body.into());
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(answer)
    }

    /// How long a request may take: what it says, less the way back, but no longer than our own limit.
    fn time(&self, query: Option<&str>) -> Duration {
        let said = query
            .and_then(|query| query.split('&').find_map(|field| field.strip_prefix("timeout=")))
            .and_then(duration::parse)
            .filter(|time| !time.is_zero());
        said.map_or(self.limits.answer_timeout, |time| {
            time.mul_f64(1.0 - WAY_BACK).min(self.limits.answer_timeout)
        })
    }

    fn body_refused(&self, error: BodyError) -> Refusal {
        match error {
            BodyError::TooLong => {
                let why = format!("the body is longer than {} bytes", self.limits.body_bytes_max);
                refusal(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::BodyTooLong, why)
            }
            BodyError::TooSlow => {
                let why = "the body did not come in time";
                refusal(StatusCode::REQUEST_TIMEOUT, ErrorKind::BodyTooSlow, why)
            }
            BodyError::NoRoom => {
                let why = "too much is being sent at the same time";
                refusal(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::NoRoom, why)
            }
            BodyError::Broken => {
                let why = "the body ended before its end, or is no HTTP";
                refusal(StatusCode::BAD_REQUEST, ErrorKind::BodyBroken, why)
            }
        }
    }
}

/// `application/json`, with parameters or without. Upper and lower case are the same (RFC 9110 §8.3.1).
fn is_json(content_type: Option<&HeaderValue>) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_json_with_parameters_too() {
        for (text, is) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json;", true),
            ("application/jsonp", false),
            ("text/json", false),
            ("", false),
        ] {
            assert_eq!(is_json(Some(&HeaderValue::from_static(text))), is, "{text}");
        }
        assert!(!is_json(None));
        assert!(!is_json(HeaderValue::from_bytes(b"application/json\xff").ok().as_ref()));
    }
}
