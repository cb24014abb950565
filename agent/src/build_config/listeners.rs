//! Which zone is served on which address.
//!
//! Server blocks that share an address and port share its listener. A zone name can be served once per address; where two
//! blocks want it the fault names both. (What the text alone shows the Corefile's own check has found; here the
//! addresses of interfaces are known too.)

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nodens_core::config::{Listener, Route};

use super::{Environment, name};
use crate::admin::metrics::{ListenerLabels, RouteLabels};
use crate::corefile::config::ServerBlock;
use crate::corefile::{Diagnostic, Span};

/// Listening addresses, parallel in the first three fields.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) config: Vec<Listener>,
    pub(super) labels: Vec<ListenerLabels>,
    /// Per server block: what its first listener is called.
    pub(super) servers: Vec<String>,
}

/// Where a zone name is served already: by which block, and where that is written.
type Claims<'a> = HashMap<(SocketAddr, &'a str), (usize, &'a Span)>;

pub(super) fn collect(
    blocks: &[ServerBlock],
    environment: &Environment<'_>,
    faults: &mut Vec<Diagnostic>,
) -> Listeners {
    let mut listeners = Listeners::default();
    let mut claims = Claims::new();
    for (zone, block) in blocks.iter().enumerate() {
        let plugins = plugins(block);
        let ips = match addresses(block, environment) {
            Ok(ips) => ips,
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        let mut first = None;
        for key in &block.zones {
            let apex = match name(&key.name, &key.span) {
                Ok(apex) => apex,
                Err(fault) => {
                    faults.push(*fault);
                    continue;
                }
            };
            for ip in &ips {
                let address = SocketAddr::new(*ip, key.port.unwrap_or(environment.default_port));
                if let Some((other, place)) = claims.insert((address, &key.name), (zone, &key.span)) {
                    // Twice in one block means the same thing twice.
                    if other != zone {
                        faults.push(twice(&key.name, address, &key.span, place));
                    }
                    continue;
                }
                let at = listeners.at(address);
                listeners.config[at].routes.push(Route { apex: apex.clone(), zone });
                listeners.labels[at].routes.push(RouteLabels {
                    zone: key.name.clone(),
                    plugins: plugins.clone(),
                    counted: block.prometheus.is_some(),
                });
                first.get_or_insert(at);
            }
        }
        listeners.servers.push(first.map_or_else(String::new, |at| listeners.labels[at].server.clone()));
    }
    listeners
}

impl Listeners {
    fn at(&mut self, address: SocketAddr) -> usize {
        self.addresses.iter().position(|known| *known == address).unwrap_or_else(|| {
            self.addresses.push(address);
            self.config.push(Listener::default());
            self.labels.push(ListenerLabels { server: server(address), routes: Vec::new() });
            self.addresses.len() - 1
        })
    }
}

/// The addresses of a block, each once, in the order of the file.
fn addresses(block: &ServerBlock, environment: &Environment<'_>) -> Result<Vec<IpAddr>, Diagnostic> {
    let Some(line) = block.bind.first() else {
        let mut all = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        all.extend(environment.has_ipv6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        return Ok(all);
    };
    let mut ips: Vec<IpAddr> = Vec::new();
    for bind in &block.bind {
        let found = bind.addresses(environment.interface).map_err(|interface| {
            Diagnostic::error(&bind.span, format!("this machine has no interface `{interface}`"))
                .help("write an address, or the name of an interface that `ip link` shows")
        })?;
        for ip in found {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
    }
    if ips.is_empty() {
        let fault = Diagnostic::error(&line.span, "this `bind` comes to no address at all");
        return Err(fault.help("the interface has no address, or `except` takes all of them out"));
    }
    Ok(ips)
}

fn twice(zone: &str, address: SocketAddr, place: &Span, other: &Span) -> Diagnostic {
    Diagnostic::error(place, format!("the zone `{zone}` is served twice on {address}"))
        .help(format!("the other place is {other}; remove one, or give them different addresses with `bind`"))
}

/// What CoreDNS calls a listener.
fn server(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("dns://:{}", address.port()),
        false => format!("dns://{address}"),
    }
}

/// The plug-ins of a block that see queries, as CoreDNS lists them in `coredns_plugin_enabled`.
fn plugins(block: &ServerBlock) -> Vec<&'static str> {
    let all = [
        ("bufsize", block.bufsize.is_some()),
        ("prometheus", block.prometheus.is_some()),
        ("errors", block.errors.is_some()),
        ("log", !block.log.is_empty()),
        ("cache", block.cache.is_some()),
        ("forward", !block.forward.is_empty()),
    ];
    all.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
}
