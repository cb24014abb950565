//! HTTP connections and their limits.
//!
//! Who can reach these ports is not always who should: every bound below holds against a client that sends nothing, one byte a
//! second, a megabyte of headers or an endless body. A connection carries one request; a monitoring system that comes
//! every 15 seconds loses nothing by connecting again, and no idle connection has to be kept.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::router::Router;

/// Connections per listener at once. Probes and scrapers need two or three; when a further one comes the oldest is closed,
/// so that clients which hold connections cannot keep the kubelet's probe out.
pub const CONNECTIONS_MAX: usize = 16;
/// Request line and headers together. Ours are read for the path only.
pub const HEADER_BYTES_MAX: usize = 8 * 1024;
/// From accepting a connection to its end, whatever happens on it.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptors left): long enough not to spin, short enough for a probe to succeed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until it is dropped. Needs a tokio runtime with I/O and time.
pub async fn serve(listener: TcpListener, router: Arc<ArcSwap<Router>>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS_MAX);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() == CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(connection(stream, router.load_full())).abort_handle());
    }
}

async fn connection(stream: TcpStream, router: Arc<Router>) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let response = router.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away or speaks nonsense is its own affair; hyper has told it what it could.
    let _ = tokio::time::timeout(REQUEST_TIMEOUT, served).await;
}
