//! A whole server inside a test: workers of one runtime on loopback, with a cache of their own.

use crate::clients::ClientLimits;
use crate::clock::Clock;
use crate::listen::{BoundListener, Listeners};
use crate::worker::{Runtime, WorkerHandle, WorkerSpec};
use arc_swap::ArcSwap;
use nodens_cache::SharedCache;
use nodens_core::cache::Cache;
use nodens_core::config::{
    CacheRules, ForwardRules, ForwardZone, Limits, Listener, Policy, Route, UDP_SIZE_DEFAULT, UpstreamConfig,
};
use nodens_core::stats::Counter;
use nodens_core::wire::Name;
use nodens_core::{Config, Duration, Event, ListenerId, Seed, Stats, UpstreamId, ZoneId};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};

/// Enough for any test, little enough to be filled by one.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// A configuration with one listener that caches everything and forwards it to `upstream`, and logs both queries and failures.
pub fn forwarding_to(upstream: SocketAddr) -> Config {
    let forward = ForwardRules { policy: Policy::Sequential, ..ForwardRules::to(vec![UpstreamId(0)]) };
    Config {
        listeners: vec![Listener { routes: vec![Route { apex: Name::root(), zone: 0 }] }],
        zones: vec![ForwardZone {
            id: ZoneId(0),
            cache: Some(CacheRules::coredns()),
            forward: Some(forward),
            udp_size_max: UDP_SIZE_DEFAULT,
            log_queries: true,
            log_errors: true,
        }],
        upstreams: vec![UpstreamConfig::new(upstream)],
        trust_ad: true,
        limits: Limits::default(),
    }
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Where it listens, UDP and TCP.
    pub addr: SocketAddr,
    /// Its workers.
    pub workers: Vec<WorkerHandle>,
}

/// Starts two workers of `R` on a free port of 127.0.0.1. The configuration must have one listener.
pub fn start<R: Runtime>(config: Config) -> Running {
    let cache = Arc::new(SharedCache::new(CACHE_BYTES, &Seed([1; 32])));
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    start_with::<R, _>(config, cache, here, 2, ClientLimits::per_worker(2))
}

/// The same with a cache, an address, a number of workers and caps of the test's choice.
pub fn start_with<R: Runtime, C: Cache + Send + Sync + 'static>(
    config: Config,
    cache: Arc<C>,
    address: SocketAddr,
    workers: usize,
    clients: ClientLimits,
) -> Running {
    config.check().expect("the test's configuration is sound");
    assert_eq!(config.listeners.len(), 1, "the harness binds one address");
    // Not port 0: to a socket with SO_REUSEPORT the kernel may give a port that another test's server listens on already, and
    // then each gets some of the other's queries.
    let port = if address.port() == 0 { nodens_testkit::free_port() } else { address.port() };
    let address = SocketAddr::new(address.ip(), port);
    let listeners = Listeners::bind(&[address], workers).expect("loopback can be bound");
    let addr = listeners.addresses()[0];
    let config = Arc::new(ArcSwap::from_pointee(config));
    let start_one = |(id, listeners)| {
        R::start(WorkerSpec {
            id,
            config: Arc::clone(&config),
            cache: Arc::clone(&cache),
            // Fixed, so that a failure can be repeated; different, as the contract asks.
            seed: Seed([id as u8 + 2; 32]),
            listeners,
            clients,
            clock: Clock::system(),
        })
        .expect("the worker starts")
    };
    Running { addr, workers: listeners.into_workers().into_iter().enumerate().map(start_one).collect() }
}

impl Running {
    /// The counters, worker by worker.
    pub fn stats(&self) -> impl Iterator<Item = &Arc<Stats>> {
        self.workers.iter().map(|worker| &worker.stats)
    }

    /// The sum of one counter over all workers.
    pub fn sum(&self, counter: impl Fn(&Stats) -> &Counter) -> u64 {
        self.stats().map(|stats| counter(stats).get()).sum()
    }

    /// Gives all workers a new configuration and waits until it is in force everywhere; `added` has the sockets of each worker, or
    /// is empty. Returns the counters from now on.
    pub fn reconfigure(
        &self,
        config: &Config,
        added: Vec<Vec<BoundListener>>,
        gone: &[ListenerId],
    ) -> io::Result<Vec<Arc<Stats>>> {
        config.check().expect("the test's configuration is sound");
        let config = Arc::new(config.clone());
        let mut added = added.into_iter();
        let order = |worker: &WorkerHandle| {
            worker.reconfigure(Arc::clone(&config), added.next().unwrap_or_default(), gone.to_vec())
        };
        let orders: Vec<_> = self.workers.iter().map(order).collect();
        orders
            .iter()
            .map(|in_force| {
                let deadline = std::time::Instant::now() + Duration::from_secs(5);
                loop {
                    match in_force.poll() {
                        Some(result) => return result,
                        None => assert!(std::time::Instant::now() < deadline, "no worker answers the order"),
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
            .collect()
    }

    /// Waits until `holds`, for at most five seconds; returns whether it came true.
    pub fn wait_until(&self, holds: impl Fn(&Self) -> bool) -> bool {
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while std::time::Instant::now() < deadline {
            if holds(self) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        holds(self)
    }

    /// Takes the event channels of all workers.
    pub fn take_events(&mut self) -> Vec<mpsc::Receiver<Event>> {
        self.workers.iter_mut().filter_map(WorkerHandle::take_events).collect()
    }

    /// Tells all workers to stop and waits for them. Panics if one failed.
    pub fn stop(self, grace: Duration) {
        for worker in &self.workers {
            worker.stop(grace);
        }
        for worker in self.workers {
            worker.join().expect("workers end well");
        }
    }
}
