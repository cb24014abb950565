//! What happens when the answering itself goes wrong: a panic, and an answer that does not come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nodens_admission::log::Log;
use nodens_admission::metrics::{ErrorKind, Metrics};
use nodens_admission::review::{self, Answered};
use nodens_admission::server::limits::Limits;
use nodens_admission::server::listen::{ListenAddress, bind};
use nodens_admission::server::serve::{Serving, Telling, serve};
use nodens_admission::server::webhook::{Review, Webhook};
use nodens_admission::settings::InjectionSettings;
use nodens_admission::snapshot::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{LONG, pod, review};

/// Panics for `panic`, is silent for `silent`, answers all others.
struct Faulty;

impl Review for Faulty {
    fn review<'a>(&'a self, body: &'a [u8], _deadline: tokio::time::Instant) -> BoxFuture<'a, Answered> {
        Box::pin(async move {
            let text = String::from_utf8_lossy(body);
            assert!(!text.contains("\"panic\""), "a planted defect");
            if text.contains("\"silent\"") {
                std::future::pending::<()>().await;
            }
            let snapshot = Snapshot::alone(InjectionSettings::default(), Vec::new());
            review::answer(body, &snapshot)
        })
    }
}

fn start() -> (Serving, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let telling = Telling { metrics: Arc::clone(&metrics), log: Log::silent() };
    let handler = Arc::new(Webhook::new(Arc::new(Faulty), Limits::default(), telling.clone(), false));
    let listener = bind(ListenAddress::parse("127.0.0.1:0").expect("an address"), "listen").expect("a port");
    (serve(listener, None, handler, Limits::default(), telling).expect("served"), metrics)
}

/// Two requests on one connection; everything that comes.
async fn two(to: SocketAddr, first: &str) -> String {
    let mut stream = TcpStream::connect(to).await.expect("connected");
    for (path, uid, more) in [("/inject?timeout=1s", first, ""), ("/mutate", "good", "Connection: close\r\n")]
    {
        let body = review(uid, pod());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("written");
    }
    let mut text = String::new();
    timeout(LONG, stream.read_to_string(&mut text)).await.expect("an end in time").expect("text");
    text
}

#[tokio::test]
async fn a_panic_costs_its_own_review_alone() {
    let (serving, metrics) = start();
    let text = two(serving.local_addr(), "panic").await;
    assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
    assert!(text.contains("HTTP/1.1 200 OK") && text.contains("\"uid\":\"good\""), "{text}");
    assert_eq!(metrics.errors(ErrorKind::Internal), 1);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up_before_the_api_server_does() {
    let (serving, metrics) = start();
    let began = Instant::now();
    let text = two(serving.local_addr(), "silent").await;
    assert!(text.starts_with("HTTP/1.1 504 "), "{text}");
    assert!(text.contains("HTTP/1.1 200 OK") && text.contains("\"uid\":\"good\""), "{text}");
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(metrics.errors(ErrorKind::Overdue), 1);
    assert!(metrics.text().contains("_in_flight 0\n"), "{}", metrics.text());
}
