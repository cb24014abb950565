//! The agent asking its own `/health`.
//!
//! CoreDNS does so once a second and exports how long it took; people alert on it, because a slow answer to oneself
//! means a machine that has no CPU left for DNS either. Same question, same metrics.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodens_core::stats::{Counter, Histogram};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time between two probes.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A probe that takes longer counts as failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Upper bounds in microseconds, as CoreDNS has them, then +Inf.
pub const PROBE_BOUNDS_US: [u64; 5] = [250, 2_500, 25_000, 250_000, 2_500_000];
/// The whole answer to a probe is some 120 bytes.
const REPLY_BYTES_MAX: u64 = 1024;

/// What the probes found.
#[derive(Debug, Default)]
pub struct HealthProbe {
    /// How long `/health` took, in microseconds, failures included.
    pub duration: Histogram<6>,
    /// Probes without a 200.
    pub failures: Counter,
}

/// Probes `/health` at `local` for ever. Tasks that share a [`HealthProbe`] must share a thread: its counters have one writer.
pub async fn run(local: SocketAddr, probe: Arc<HealthProbe>) {
    let target = reachable(local);
    let mut ticks = tokio::time::interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begin = Instant::now();
        let healthy = tokio::time::timeout(PROBE_TIMEOUT, ask(target)).await;
        let elapsed_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        probe.duration.observe(elapsed_us, &PROBE_BOUNDS_US);
        if !matches!(healthy, Ok(Ok(true))) {
            probe.failures.add(1);
        }
    }
}

/// A wildcard address is no address to connect to.
fn reachable(local: SocketAddr) -> SocketAddr {
    let ip = match local.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        // A dual-stack socket takes IPv4 as well, and IPv4's loopback is there even where IPv6's was removed.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(ip, local.port())
}

async fn ask(target: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: self\r\nConnection: close\r\n\r\n").await?;
    let mut reply = Vec::new();
    stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply).await?;
    Ok(reply.starts_with(b"HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{AdminServer, Endpoint, Readiness};
    use crate::corefile::ListenAddr;

    #[tokio::test]
    async fn a_probe_is_measured_and_a_dead_port_is_a_failure() {
        let mut server = AdminServer::new(Arc::new(Readiness::new([])), Arc::new(String::new));
        assert!(server.apply(&[Endpoint { health: true, ..Endpoint::at(ListenAddr::any(0)) }]).is_empty());
        let local = server.addresses().next().expect("one endpoint").1;
        let probe = Arc::new(HealthProbe::default());
        let _ = tokio::time::timeout(Duration::from_millis(500), run(local, Arc::clone(&probe))).await;
        assert_eq!((probe.duration.count(), probe.failures.get()), (1, 0));

        server.apply(&[]);
        tokio::task::yield_now().await;
        let _ = tokio::time::timeout(Duration::from_millis(500), run(local, Arc::clone(&probe))).await;
        assert_eq!((probe.duration.count(), probe.failures.get()), (2, 1));
    }
}
