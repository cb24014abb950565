//! The upstreams of all zones, each once.

use std::net::SocketAddr;
use std::time::Duration;

use nodens_core::config::{self, ForwardRules, UpstreamConfig, UpstreamTransport};
use nodens_core::wire::Rcode;

use super::{Fault, UpstreamId, name};
use crate::corefile::Diagnostic;
use crate::corefile::config::{ForwardOptions, Policy, ServerBlock, Transport};

/// Life of a connection where the Corefile says nothing. CoreDNS sets no bound and stays with the Pods it once found behind a
/// Service's address (semantics.md §4.2 row 37).
const MAX_AGE_DEFAULT: Duration = Duration::from_secs(60);
/// More than anybody needs and less than the arithmetic of time can bear.
const MAX_AGE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Upstreams by their whole settings: two zones that ask the same server in the same way share its health.
#[derive(Debug, Default)]
pub(super) struct Upstreams(Vec<UpstreamConfig>);

impl Upstreams {
    /// The `forward` of a server block.
    pub(super) fn forward(&mut self, block: &ServerBlock) -> Result<Option<ForwardRules>, Fault> {
        let Some(options) = block.forward.first() else { return Ok(None) };
        if let Some(second) = block.forward.get(1) {
            let fault =
                Diagnostic::error(&second.span, "a second `forward` in one server block is not served");
            return Err(Box::new(fault.help("give its zone a server block of its own")));
        }
        let upstreams = self.all(options)?;
        let policy = match options.policy {
            Policy::Random => config::Policy::Random,
            Policy::RoundRobin => config::Policy::RoundRobin,
            Policy::Sequential => config::Policy::Sequential,
            Policy::LeastOutstanding => config::Policy::LeastOutstanding,
        };
        let except = options.except.iter().map(|zone| name(zone, &options.span)).collect::<Result<_, _>>()?;
        Ok(Some(ForwardRules {
            from: name(&options.from, &options.span)?,
            except,
            upstreams,
            policy,
            max_concurrent: options.max_concurrent.unwrap_or(0),
            transport: match (options.force_tcp, options.prefer_udp) {
                (true, _) => UpstreamTransport::ForceTcp,
                (false, true) => UpstreamTransport::PreferUdp,
                (false, false) => UpstreamTransport::AsClient,
            },
            max_connect_attempts: options.max_connect_attempts,
            failover: options.failover.iter().map(|code| Rcode(*code)).collect(),
            failfast: options.failfast_all_unhealthy_upstreams,
            read_timeout: options.read_timeout,
        }))
    }

    /// Where these upstreams are.
    pub(super) fn addresses(&self, ids: &[UpstreamId]) -> Vec<SocketAddr> {
        ids.iter().map(|id| self.0[usize::from(id.0)].address).collect()
    }

    pub(super) fn into_config(self) -> Vec<UpstreamConfig> {
        self.0
    }

    fn all(&mut self, options: &ForwardOptions) -> Result<Vec<UpstreamId>, Fault> {
        let check = &options.health_check;
        let mut ids = Vec::with_capacity(options.to.len());
        for to in &options.to {
            // Sending in the clear what was to be encrypted would be worse than not starting.
            if to.transport != Transport::Dns {
                let fault = Diagnostic::error(&options.span, "upstreams are asked over UDP and TCP only");
                return Err(Box::new(fault.help("write the upstream without `tls://` or `https://`")));
            }
            let wanted = UpstreamConfig {
                address: to.addr,
                max_fails: options.max_fails,
                probe_interval: check.interval,
                probe_name: name(&check.domain, &options.span)?,
                probe_rd: check.recursion_desired,
                probe_transport: if options.force_tcp {
                    nodens_core::Transport::Tcp
                } else {
                    nodens_core::Transport::Udp
                },
                expire: options.expire,
                max_age: options.max_age.unwrap_or(MAX_AGE_DEFAULT).min(MAX_AGE_MAX),
            };
            let index = self.0.iter().position(|known| *known == wanted).unwrap_or_else(|| {
                self.0.push(wanted);
                self.0.len() - 1
            });
            let index = u16::try_from(index).map_err(|_| {
                Box::new(Diagnostic::error(&options.span, "this is the 65537th upstream of the file"))
            })?;
            ids.push(UpstreamId(index));
        }
        Ok(ids)
    }
}
