//! Which addresses serve HTTP now.
//!
//! [`AdminServer::apply`] makes the running listeners equal to what the Corefile wants: what is new is opened, what is gone is
//! closed, what stays is not touched (its router is exchanged under it). So a reload can never lose the health port by
//! closing and reopening it, and no reload leaks one.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::listen::{self, BindError};
use super::readiness::Readiness;
use super::router::{Render, Router};
use super::server::serve;
use crate::corefile::ListenAddr;

/// What the Corefile wants on one address. Several blocks that name the same address are one endpoint.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Endpoint {
    /// Where.
    pub addr: ListenAddr,
    /// Serve `/health`.
    pub health: bool,
    /// Serve `/ready`.
    pub ready: bool,
    /// Serve `/metrics`.
    pub metrics: bool,
}

impl Endpoint {
    /// An address with nothing on it yet.
    pub const fn at(addr: ListenAddr) -> Self {
        Endpoint { addr, health: false, ready: false, metrics: false }
    }

    fn paths(&self) -> String {
        let all = [(self.health, "/health"), (self.ready, "/ready"), (self.metrics, "/metrics")];
        all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, path)| path).collect::<Vec<_>>().join(" and ")
    }
}

/// Endpoints whose sockets are there; connections wait in the kernel until [`AdminServer::serve`].
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<(Endpoint, std::net::TcpListener)>,
    /// Those that another process serves as well.
    pub shared: Vec<ListenAddr>,
}

impl Bound {
    /// Those of `other` as well.
    pub fn join(&mut self, other: Bound) {
        self.listeners.extend(other.listeners);
        self.shared.extend(other.shared);
    }

    /// Opens the sockets, so that a start fails here before anything answers.
    pub fn open(wanted: &[Endpoint]) -> Result<Bound, BindError> {
        let addresses = wanted.iter().map(|endpoint| endpoint.addr);
        let shared = addresses.filter(|addr| listen::held_by_another(*addr)).collect();
        let open = |endpoint: &Endpoint| match listen::bind(endpoint.addr) {
            Ok(listener) => Ok((*endpoint, listener)),
            Err(cause) => Err(BindError { addr: endpoint.addr, paths: endpoint.paths(), cause }),
        };
        Ok(Bound { listeners: wanted.iter().map(open).collect::<Result<_, _>>()?, shared })
    }
}

/// The running HTTP endpoints. Dropping it closes them.
pub struct AdminServer {
    readiness: Arc<Readiness>,
    render: Render,
    running: Vec<Running>,
}

struct Running {
    endpoint: Endpoint,
    local: SocketAddr,
    router: Arc<ArcSwap<Router>>,
    accepting: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl AdminServer {
    /// Nothing is served yet. `readiness` answers `/ready`, `render` makes `/metrics`.
    pub fn new(readiness: Arc<Readiness>, render: Render) -> Self {
        AdminServer { readiness, render, running: Vec::new() }
    }

    /// Serves what is bound, in addition. To be called within a tokio runtime.
    pub fn serve(&mut self, bound: Bound) -> std::io::Result<()> {
        for (endpoint, listener) in bound.listeners {
            let router = Arc::new(self.router(&endpoint));
            self.running.push(start(endpoint, listener, router)?);
        }
        Ok(())
    }

    /// Those of `wanted` that have no socket yet.
    pub fn missing(&self, wanted: &[Endpoint]) -> Vec<Endpoint> {
        let is_missing = |wanted: &&Endpoint| !self.running.iter().any(|r| r.endpoint.addr == wanted.addr);
        wanted.iter().filter(is_missing).copied().collect()
    }

    /// Serves exactly `wanted` from now on, as far as it can; returns what could not be opened. To be called within a tokio
    /// runtime. For a running agent: an error is a line in the log, DNS goes on either way.
    pub fn apply(&mut self, wanted: &[Endpoint]) -> Vec<BindError> {
        self.running.retain(|running| wanted.iter().any(|endpoint| endpoint.addr == running.endpoint.addr));
        let mut errors = Vec::new();
        for endpoint in wanted {
            let router = Arc::new(self.router(endpoint));
            if let Some(running) = self.running.iter_mut().find(|r| r.endpoint.addr == endpoint.addr) {
                running.router.store(router);
                running.endpoint = *endpoint;
                continue;
            }
            match listen::bind(endpoint.addr).and_then(|listener| start(*endpoint, listener, router)) {
                Ok(running) => self.running.push(running),
                Err(cause) => {
                    errors.push(BindError { addr: endpoint.addr, paths: endpoint.paths(), cause });
                }
            }
        }
        errors
    }

    /// What is served and where it really is: the port differs from the endpoint's if that was 0.
    pub fn addresses(&self) -> impl Iterator<Item = (Endpoint, SocketAddr)> + '_ {
        self.running.iter().map(|running| (running.endpoint, running.local))
    }

    fn router(&self, endpoint: &Endpoint) -> Router {
        Router {
            health: endpoint.health,
            ready: endpoint.ready.then(|| Arc::clone(&self.readiness)),
            metrics: endpoint.metrics.then(|| Arc::clone(&self.render)),
        }
    }
}

fn start(
    endpoint: Endpoint,
    listener: std::net::TcpListener,
    router: Arc<Router>,
) -> std::io::Result<Running> {
    let listener = TcpListener::from_std(listener)?;
    let local = listener.local_addr()?;
    let router = Arc::new(ArcSwap::new(router));
    let accepting = tokio::spawn(serve(listener, Arc::clone(&router))).abort_handle();
    Ok(Running { endpoint, local, router, accepting })
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
