//! A scripted upstream: a DNS server that does what the test says.
//!
//! It listens on one port for UDP and TCP, writes down every message and runs
//! the actions its handler returns. It knows no zones and keeps no state of
//! its own: whatever a query is answered with stands in the test. Dropping it
//! closes everything and fails the test if a handler panicked.

mod action;
mod received;
mod serve;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use action::Action;
pub use received::{Received, Transport};

use crate::lock;
use crate::msg::{Response, name_from_wire, name_to_wire, type_number};
use crate::port::next_port;
use action::Timer;
use serve::{Sockets, State};

/// How long [`Upstream::restart`] tries to get its port back.
const REBIND_PATIENCE: Duration = Duration::from_secs(5);

/// A handler that answers every query with the response `respond` makes.
pub fn answers(
    respond: impl Fn(&Received) -> Response + Send + Sync + 'static,
) -> impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static {
    move |query| vec![Action::Send(respond(query).bytes())]
}

/// A running scripted upstream.
pub struct Upstream {
    addr: SocketAddr,
    state: Arc<State>,
    sockets: Mutex<Option<Sockets>>,
    timer_thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts an upstream on a free port of 127.0.0.1.
    ///
    /// The handler runs in the receiving thread: it may compute, but waiting
    /// belongs into [`Action::Delay`].
    pub fn start(handler: impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static) -> Self {
        let state = new_state(handler);
        for _ in 0..1000 {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, next_port()));
            if let Ok(sockets) = Sockets::open(addr, &state) {
                return Self::running(state, sockets);
            }
        }
        panic!("none of 1000 ports of 127.0.0.1 could be bound for UDP and TCP")
    }

    /// Starts an upstream on a given address (port 0: any free one).
    pub fn on(addr: SocketAddr, handler: impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static) -> Self {
        let state = new_state(handler);
        let sockets = Sockets::open(addr, &state)
            .unwrap_or_else(|why| panic!("no upstream can run on {addr} (UDP and TCP): {why}"));
        Self::running(state, sockets)
    }

    /// Where it listens, also while stopped.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every message so far, in the order of arrival, those during a pause
    /// included.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state.received).clone()
    }

    /// The number of messages so far.
    pub fn count(&self) -> usize {
        lock(&self.state.received).len()
    }

    /// The number of queries for a name (in any spelling) and a type.
    pub fn count_for(&self, name: &str, qtype: &str) -> usize {
        let name = name_from_wire(&name_to_wire(name)).to_ascii_lowercase();
        let qtype = type_number(qtype);
        self.count_if(|query| query.qname == name && query.qtype == qtype)
    }

    /// The number of messages over UDP.
    pub fn udp_count(&self) -> usize {
        self.count_if(|query| query.transport == Transport::Udp)
    }

    /// The number of messages over TCP.
    pub fn tcp_count(&self) -> usize {
        self.count_if(|query| query.transport == Transport::Tcp)
    }

    /// The number of messages for which `wanted` holds.
    pub fn count_if(&self, wanted: impl Fn(&Received) -> bool) -> usize {
        lock(&self.state.received).iter().filter(|query| wanted(query)).count()
    }

    /// The number of TCP connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The number of TCP connections open now.
    pub fn open_connections(&self) -> usize {
        lock(&self.sockets).as_ref().map_or(0, Sockets::open_connections)
    }

    /// Waits until at least `n` messages came; `false` if the time is up.
    pub fn wait_for_count(&self, n: usize, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut log = lock(&self.state.received);
        while log.len() < n {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            let woken = self.state.arrived.wait_timeout(log, left);
            log = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    /// Forgets the messages so far; numbering starts again.
    pub fn clear(&self) {
        lock(&self.state.received).clear();
    }

    /// Replaces the handler for all queries from now on.
    pub fn set_handler(&self, handler: impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static) {
        let mut slot = self.state.handler.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *slot = Arc::new(handler);
    }

    /// Turns silent: messages are read and written down, but not handled.
    pub fn pause(&self) {
        self.state.paused.store(true, Ordering::SeqCst);
    }

    /// Ends the silence; what came meanwhile stays unanswered.
    pub fn resume(&self) {
        self.state.paused.store(false, Ordering::SeqCst);
    }

    /// Closes all sockets: clients see refused connections and ICMP errors.
    pub fn stop(&self) {
        *lock(&self.sockets) = None;
    }

    /// Binds the same port again after [`stop`](Self::stop).
    pub fn restart(&self) {
        let mut sockets = lock(&self.sockets);
        *sockets = None;
        *sockets = Some(serve::reopen(self.addr, &self.state, REBIND_PATIENCE));
    }

    fn running(state: Arc<State>, sockets: Sockets) -> Self {
        let timer_thread = thread::spawn({
            let state = state.clone();
            move || state.timer.run(|script| state.guarded(|| script.run(&state.timer)))
        });
        Self {
            addr: sockets.addr,
            state,
            sockets: Mutex::new(Some(sockets)),
            timer_thread: Some(timer_thread),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
        self.state.timer.stop();
        if let Some(thread) = self.timer_thread.take() {
            drop(thread.join());
        }
        let failed = self.state.panicked.load(Ordering::SeqCst);
        assert!(!failed || thread::panicking(), "a handler of the upstream on {} panicked", self.addr);
    }
}

fn new_state(handler: impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static) -> Arc<State> {
    Arc::new(State {
        handler: RwLock::new(Arc::new(handler)),
        received: Mutex::new(Vec::new()),
        arrived: Condvar::new(),
        paused: AtomicBool::new(false),
        panicked: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        timer: Arc::new(Timer::default()),
    })
}

#[cfg(test)]
mod tests;
