//! Every bound on what a client can make the server hold or wait for.

use std::time::Duration;

/// Bounds of one listener. The defaults are the webhook's; tests shorten the times.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time. API servers keep a handful each; the rest is room for mistakes, at about 50 KiB each.
    pub connections_max: usize,
    /// Longest body. The API server takes at most 3 MiB from its clients, and a review holds an object twice.
    pub body_bytes_max: usize,
    /// What every request may hold of its body without asking: nearly all Pods fit, so they find room however much others send.
    pub body_bytes_free: usize,
    /// What all bodies together may hold beyond that; a quarter of the memory limit that the chart sets.
    pub bodies_bytes_max: usize,
    /// From the accepted connection to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to the end of its header.
    pub head_timeout: Duration,
    /// From the end of the header to the end of the body.
    pub body_timeout: Duration,
    /// From the request to the answer, unless the request says less: the chart's `timeoutSeconds`.
    pub answer_timeout: Duration,
    /// For a client to take its answer.
    pub write_timeout: Duration,
    /// A connection without a request. Longer than the 90 s after which the API server's client closes it: the side that sends requests
    /// must be the one to close, or a request can meet a connection that is just being closed.
    pub idle_timeout: Duration,
    /// After this age, give or take [`AGE_SPREAD`], an answer says `Connection: close`, so that load spreads again after a replica came back.
    pub age_max: Duration,
}

/// Longest header of a request, in bytes; also hyper's buffer for each connection.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Longest list of header fields. The API server sends about eight.
pub const HEADER_FIELDS_MAX: usize = 64;

/// Connections are to end at different times: the fraction of [`Limits::age_max`] by which each one's age may differ.
pub const AGE_SPREAD: f64 = 0.2;

/// How often deadlines of connections are looked at. Every one of them is at least four times as long.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Connections the kernel may hold for us until they are accepted.
pub const BACKLOG: i32 = 1024;

/// How long nothing is accepted after the system refused a connection for want of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether a connection that had to go is gone; mostly it is at once.
pub const EVICTION_POLL: Duration = Duration::from_millis(1);

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            body_bytes_max: 8 * 1024 * 1024,
            body_bytes_free: 16 * 1024,
            bodies_bytes_max: 32 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(3),
            write_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(120),
            age_max: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// For the plain-HTTP endpoints: few clients, no bodies.
    pub fn probes() -> Self {
        Self { connections_max: 64, body_bytes_max: 0, bodies_bytes_max: 0, ..Self::default() }
    }
}
