//! The upstreams of all zones, each once.

use std::net::SocketAddr;

use nodens_core::config::{self, ForwardRules, UpstreamConfig};

use super::{Fault, UpstreamId, name};
use crate::corefile::Diagnostic;
use crate::corefile::config::{ForwardOptions, Policy, ServerBlock, Transport};

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
        };
        Ok(Some(ForwardRules {
            from: name(&options.from, &options.span)?,
            upstreams,
            policy,
            max_concurrent: options.max_concurrent.unwrap_or(0),
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
