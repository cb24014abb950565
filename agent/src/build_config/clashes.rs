//! Addresses that are written twice with two meanings: HTTP where DNS is served, and upstreams that are ourselves.
//!
//! The sockets would not tell. All of them share their ports, so that two versions of the agent can overlap, and the kernel would
//! give some connections to HTTP and some to DNS.

use std::net::{IpAddr, SocketAddr};

use super::listeners::Listeners;
use crate::corefile::config::ServerBlock;
use crate::corefile::{Diagnostic, ListenAddr, Span};

/// Reports HTTP endpoints on the address and port of a listener.
pub(super) fn endpoints(blocks: &[ServerBlock], listeners: &Listeners, faults: &mut Vec<Diagnostic>) {
    for (name, addr, span) in blocks.iter().flat_map(written) {
        if let Some(listener) = listeners.addresses.iter().find(|listener| meet(addr, **listener)) {
            let message = format!("`{name}` on {addr} meets {listener}, where DNS is served");
            faults.push(Diagnostic::error(span, message).help("give it a port of its own"));
        }
    }
}

/// Reports upstreams that are a listener of the very block that asks them: as an error where the address is the same, as a warning
/// where the listener takes every address of the machine.
pub(super) fn loops(
    blocks: &[ServerBlock],
    listeners: &Listeners,
    faults: &mut Vec<Diagnostic>,
    warnings: &mut Vec<Diagnostic>,
) {
    for (index, block) in blocks.iter().enumerate() {
        let serves_it = |at: usize| listeners.config[at].routes.iter().any(|route| route.zone == index);
        let own: Vec<_> = (0..listeners.addresses.len()).filter(|at| serves_it(*at)).collect();
        for (upstream, span) in
            block.forward.iter().flat_map(|f| f.to.iter().map(move |to| (to.addr, &f.span)))
        {
            for listener in own.iter().map(|at| listeners.addresses[*at]) {
                let help =
                    "every query would come back until it fails; name the server that knows the answer";
                if listener == upstream && listener.port() != 0 {
                    let message = format!("this block listens on {upstream} and would ask itself");
                    faults.push(Diagnostic::error(span, message).help(help));
                } else if upstream.ip().is_loopback()
                    && covers(listener.ip(), upstream.ip())
                    && listener.port() == upstream.port()
                {
                    let message =
                        format!("this block listens on {listener}, so {upstream} may be nodens itself");
                    warnings.push(Diagnostic::warning(span, message).help(help));
                }
            }
        }
    }
}

/// The endpoints of a block and where they are written.
fn written(block: &ServerBlock) -> impl Iterator<Item = (&'static str, ListenAddr, &Span)> {
    let health = block.health.iter().map(|it| ("health", it.addr, &it.span));
    let ready = block.ready.iter().map(|it| ("ready", it.addr, &it.span));
    let prometheus = block.prometheus.iter().map(|it| ("prometheus", it.addr, &it.span));
    health.chain(ready).chain(prometheus)
}

/// Whether some connection could be meant for both. Port 0 is chosen by the kernel and never one that is taken.
fn meet(endpoint: ListenAddr, listener: SocketAddr) -> bool {
    let same_ip = match endpoint.ip {
        // Without an address, or with `[::]`, an endpoint takes both families.
        None => true,
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => true,
        Some(ip) => covers(ip, listener.ip()) || covers(listener.ip(), ip),
    };
    endpoint.port != 0 && endpoint.port == listener.port() && same_ip
}

/// Whether a socket on `listening` takes what is sent to `ip`.
fn covers(listening: IpAddr, ip: IpAddr) -> bool {
    listening == ip || listening.is_unspecified() && listening.is_ipv4() == ip.is_ipv4()
}
