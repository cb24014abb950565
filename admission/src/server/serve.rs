//! The loop that accepts, and what happens to a connection from its first byte to its last.
//!
//! HTTP/1.1 only, in TLS' offer (ALPN) too: the API server's webhook client asks for exactly that, so that its requests spread over the
//! replicas. A connection costs a task and a few buffers; everything it may wait for has a deadline (see `life`).

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::life::{Lives, Phase, Place};
use super::limits::{
    ACCEPT_PAUSE, EVICTION_POLL, HEADER_BYTES_MAX, HEADER_FIELDS_MAX, Limits, SWEEP_INTERVAL,
};
use super::watched::Watched;
use crate::log::{Kind, Level, Log};
use crate::metrics::{ErrorKind, Metrics};
use crate::tls::Tls;

/// An answer: all of it at once, since all of ours are small.
pub type Answer = Response<Full<Bytes>>;

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// The answer to one request.
    fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> BoxFuture<'_, Answer>;
}

/// Where a listener tells what happens to it.
#[derive(Clone, Debug)]
pub struct Telling {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Lines.
    pub log: Log,
}

/// A listener at work. Dropping it stops accepting and ends its connections.
#[derive(Debug)]
pub struct Serving {
    local: SocketAddr,
    lives: Arc<Lives>,
    accepting: JoinHandle<()>,
    sweeping: JoinHandle<()>,
}

struct Shared {
    lives: Arc<Lives>,
    tls: Option<Arc<Tls>>,
    handler: Arc<dyn Handler>,
    telling: Telling,
}

/// Serves `handler` on `listener`, in TLS if `tls` is given. To be called within a tokio runtime.
pub fn serve(
    listener: std::net::TcpListener,
    tls: Option<Arc<Tls>>,
    handler: Arc<dyn Handler>,
    limits: Limits,
    telling: Telling,
) -> io::Result<Serving> {
    let listener = TcpListener::from_std(listener)?;
    let local = listener.local_addr()?;
    let lives = Arc::new(Lives::new(limits));
    let shared = Arc::new(Shared { lives: Arc::clone(&lives), tls, handler, telling });
    let sweeping = tokio::spawn(sweep(Arc::clone(&shared)));
    let accepting = tokio::spawn(accept(listener, shared));
    Ok(Serving { local, lives, accepting, sweeping })
}

impl Serving {
    /// Where it listens: the port differs from what was asked for if that was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Takes no more connections, closes each one after its next answer, and comes back when all are closed or `time` is over; then
    /// how many were cut off.
    pub async fn drain(self, time: Duration) -> usize {
        self.accepting.abort();
        self.lives.drain();
        let _ = timeout(time, self.lives.empty()).await;
        self.lives.count()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.accepting.abort();
        self.sweeping.abort();
        self.lives.end_all();
    }
}

async fn sweep(shared: Arc<Shared>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.lives.sweep();
        if shared.tls.is_some() {
            shared.telling.metrics.connections(shared.lives.count());
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: the connection waits in the kernel, and trying again at once would only spin.
                shared.trouble(ErrorKind::Accept, Kind::Connection, || {
                    format!("a connection cannot be accepted: {error}; check the limit on open files")
                });
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Whoever has to go for a newcomer goes first: so many are never exceeded by more than one.
        while shared.lives.is_over_full() {
            sleep(EVICTION_POLL).await;
        }
        let phase = if shared.tls.is_some() { Phase::Handshake } else { Phase::Idle };
        match shared.lives.admit(phase) {
            Some(place) => {
                tokio::spawn(attend(stream, peer, place, Arc::clone(&shared)));
            }
            None => shared.trouble(ErrorKind::NoPlace, Kind::Connection, || {
                format!(
                    "{peer} is sent away: all {} connections are at work",
                    shared.lives.limits().connections_max
                )
            }),
        }
    }
}

/// One connection, from the handshake to the end.
async fn attend(stream: TcpStream, peer: SocketAddr, place: Place, shared: Arc<Shared>) {
    // Answers are one write each; nothing is gained by waiting for more. Without the option they are only slower.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &shared.tls else { return talk(stream, peer, &place, &shared).await };
    let Some(acceptor) = tls.acceptor() else {
        return shared.trouble(ErrorKind::Handshake, Kind::Handshake, || {
            format!("{peer} is sent away: there is no certificate yet")
        });
    };
    let handshake = tokio::select! {
        handshake = acceptor.accept(stream) => handshake,
        () = place.life.ended() => Err(io::ErrorKind::TimedOut.into()),
    };
    match handshake {
        Ok(stream) => {
            place.life.enter(Phase::Idle);
            talk(stream, peer, &place, &shared).await;
        }
        Err(error) => shared.trouble(ErrorKind::Handshake, Kind::Handshake, || {
            format!("TLS handshake with {peer} failed: {error}")
        }),
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    peer: SocketAddr,
    place: &Place,
    shared: &Arc<Shared>,
) {
    let life = &place.life;
    let service = service_fn(|request| {
        life.enter(Phase::Busy);
        async move {
            let mut answer = shared.handler.handle(request, peer).await;
            if life.is_old() || shared.lives.is_draining() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            life.enter(Phase::Writing);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // Deadlines are the sweep's business.
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADER_FIELDS_MAX)
        .serve_connection(TokioIo::new(Watched::new(stream, Arc::clone(life))), service);
    let mut connection = pin!(connection);
    let finished = tokio::select! {
        result = &mut connection => Some(result),
        () = life.ended() => None,
    };
    let result = match finished {
        Some(result) => result,
        // Told to go, but a request came at the same moment: it gets its answer, which is the last.
        None if life.phase() == Phase::Busy => {
            let limits = shared.lives.limits();
            let longest = limits.body_timeout + limits.answer_timeout + limits.write_timeout;
            timeout(longest, connection).await.unwrap_or(Ok(()))
        }
        None => {
            // Quiet connections come and go; one that stops within a request or an answer is worth a line.
            if matches!(life.phase(), Phase::Head | Phase::Writing) {
                let what = if life.phase() == Phase::Head { "send its request" } else { "take its answer" };
                shared.trouble(ErrorKind::TimedOut, Kind::Connection, || {
                    format!("{peer} did not {what} in time")
                });
            }
            return;
        }
    };
    if let Err(error) = result
        && life.phase() != Phase::Idle
    {
        shared.trouble(ErrorKind::Http, Kind::Connection, || match error.is_parse() {
            true => format!("{peer} does not speak HTTP/1.1: {error}"),
            false => format!("the connection of {peer} ended within a request: {error}"),
        });
    }
}

impl Shared {
    fn trouble(&self, error: ErrorKind, kind: Kind, text: impl FnOnce() -> String) {
        self.telling.metrics.error(error);
        self.telling.log.limited(kind, Level::Warning, text);
    }
}
