//! The endpoints over real connections on the loopback.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::admin::server::{CONNECTIONS_MAX, HEADER_BYTES_MAX, REQUEST_TIMEOUT};

fn server() -> AdminServer {
    AdminServer::new(Arc::new(Readiness::new(["sockets"])), Arc::new(|| "up 1\n".to_owned()))
}

fn everything(port: u16) -> Endpoint {
    Endpoint { addr: ListenAddr::localhost(port), health: true, ready: true, metrics: true }
}

fn only_address(server: &AdminServer) -> SocketAddr {
    server.addresses().next().expect("one endpoint").1
}

async fn exchange(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut reply = Vec::new();
    // A reset after the reply is the server's right when it did not read all that was sent.
    let _ = stream.read_to_end(&mut reply).await;
    String::from_utf8(reply).expect("text")
}

async fn get(to: SocketAddr, path: &str) -> String {
    exchange(to, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

#[tokio::test]
async fn m58_three_endpoints_share_one_address() {
    let mut server = server();
    assert!(server.apply(&[everything(0)]).is_empty());
    let to = only_address(&server);
    let health = get(to, "/health").await;
    assert!(health.starts_with("HTTP/1.1 200 ") && health.ends_with("\r\n\r\nOK"), "{health}");
    let ready = get(to, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("\r\n\r\nsockets"), "{ready}");
    server.readiness.set_ready("sockets");
    assert!(get(to, "/ready").await.starts_with("HTTP/1.1 200 "));
    let metrics = get(to, "/metrics").await;
    assert!(metrics.contains("content-type: text/plain; version=0.0.4") && metrics.ends_with("up 1\n"));
}

#[tokio::test]
async fn head_has_no_body_and_post_is_refused() {
    let mut server = server();
    server.apply(&[everything(0)]);
    let to = only_address(&server);
    let head = exchange(to, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let post = exchange(to, "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\nabc").await;
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
}

#[tokio::test]
async fn s24_a_header_that_is_too_long_is_refused() {
    let mut server = server();
    server.apply(&[everything(0)]);
    let long = "x".repeat(2 * HEADER_BYTES_MAX);
    let reply =
        exchange(only_address(&server), &format!("GET /health HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"))
            .await;
    assert!(!reply.contains(" 200 "), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn m93_a_client_that_never_finishes_its_request_is_closed() {
    let mut server = server();
    server.apply(&[everything(0)]);
    let mut slow = TcpStream::connect(only_address(&server)).await.expect("connect");
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n").await.expect("write");
    let before = tokio::time::Instant::now();
    let mut reply = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(60), slow.read_to_end(&mut reply)).await;
    closed.expect("it is closed").expect("in order");
    assert!(reply.is_empty());
    assert!(before.elapsed() <= REQUEST_TIMEOUT + Duration::from_millis(50));
}

#[tokio::test]
async fn s24_idle_connections_keep_nobody_out() {
    let mut server = server();
    server.apply(&[everything(0)]);
    let to = only_address(&server);
    let mut idle = Vec::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        idle.push(TcpStream::connect(to).await.expect("connect"));
    }
    let before = Instant::now();
    assert!(get(to, "/health").await.starts_with("HTTP/1.1 200 "));
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn m78_m81_a_reload_touches_only_what_changed() {
    let mut server = server();
    server.apply(&[everything(0)]);
    let kept = only_address(&server);
    // The same address is to serve less.
    let less = Endpoint { metrics: false, ..everything(0) };
    assert!(server.apply(&[less]).is_empty());
    assert_eq!(only_address(&server), kept);
    assert!(get(kept, "/health").await.starts_with("HTTP/1.1 200 "));
    assert!(get(kept, "/metrics").await.starts_with("HTTP/1.1 404 "));
    // Gone from the Corefile: closed.
    assert!(server.apply(&[]).is_empty());
    tokio::task::yield_now().await;
    assert!(TcpStream::connect(kept).await.is_err());
}

#[tokio::test]
async fn a_taken_port_is_reported_and_the_rest_is_served() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut server = server();
    let errors = server.apply(&[everything(taken.local_addr().expect("bound").port()), everything(0)]);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().starts_with("cannot serve /health and /ready and /metrics on 127.0.0.1:"));
    assert!(get(only_address(&server), "/health").await.starts_with("HTTP/1.1 200 "));
}
