//! The servers a `forward` line names: addresses, files like resolv.conf, and what is not there yet.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use super::check::Checker;
use super::config::{Transport, Upstream};
use super::diagnostic::quote;
use super::lexer::Token;
use super::zone;

/// Port of plain DNS.
const DNS_PORT: u16 = 53;
/// Port of DNS over TLS (RFC 7858 §3.1).
const TLS_PORT: u16 = 853;
/// Port of HTTPS.
const HTTPS_PORT: u16 = 443;

/// Adds the servers that one TO argument stands for, each once.
pub(crate) fn read(checker: &mut Checker<'_>, token: &Token, upstreams: &mut Vec<Upstream>) {
    let mut add = |upstream: Upstream| {
        if !upstreams.contains(&upstream) {
            upstreams.push(upstream);
        }
    };
    let Some((transport, rest)) = transport(checker, token) else { return };
    let (host, server_name) = split_server_name(rest);
    let (default_port, option) = match transport {
        Transport::Dns => (DNS_PORT, ""),
        Transport::Tls => (TLS_PORT, "tls://"),
        Transport::Https => (HTTPS_PORT, "https://"),
    };
    if transport == Transport::Https && host.contains('/') {
        let message =
            format!("{} has a path; paths are not allowed in HTTPS upstream addresses", quote(&token.text));
        checker.error(&token.span, message, "remove it; `/dns-query` is asked (RFC 8484)");
        return;
    }
    checker.stand("forward", option, &token.span);
    match parse_address(&host, default_port) {
        Some(addr) if addr.port() == 0 => {
            checker.error(
                &token.span,
                format!("{} has port 0", quote(&token.text)),
                "leave the port out for 53",
            );
        }
        Some(_) if transport == Transport::Dns && server_name.is_some() => {
            let message = format!("{} has an interface scope", quote(&token.text));
            checker.error(&token.span, message, "use an address that needs none");
        }
        Some(addr) => add(Upstream { addr, transport, tls_server_name: server_name }),
        None if transport == Transport::Dns => {
            for addr in from_file(checker, token, rest) {
                add(Upstream { addr: SocketAddr::new(addr, DNS_PORT), transport, tls_server_name: None });
            }
        }
        None => unresolved(checker, token, &host),
    }
}

fn transport<'t>(checker: &mut Checker<'_>, token: &'t Token) -> Option<(Transport, &'t str)> {
    let Some((scheme, rest)) = token.text.split_once("://") else {
        if token.text.is_empty() {
            checker.error(&token.span, "an empty upstream", "write the IP address of a DNS server");
            return None;
        }
        return Some((Transport::Dns, &token.text));
    };
    let transport = match scheme {
        "dns" => Transport::Dns,
        "tls" => Transport::Tls,
        "https" => Transport::Https,
        _ => {
            let message = format!("{} is not a way to speak to an upstream", quote(scheme));
            checker.error(
                &token.span,
                message,
                "write the address alone, or with `dns://`, `tls://` or `https://`",
            );
            return None;
        }
    };
    Some((transport, rest))
}

/// Takes the name behind `%` out of `host%name:port`: the name that the server's certificate must carry.
fn split_server_name(text: &str) -> (String, Option<String>) {
    let Some((host, name)) = text.rsplit_once('%') else { return (text.to_owned(), None) };
    let mut host = host.to_owned();
    if host.starts_with('[') {
        host.push(']');
    }
    let mut name = name;
    if let Some((before, port)) = name.rsplit_once(':') {
        host = format!("{host}:{port}");
        name = before;
    }
    (host, Some(name.trim_end_matches(']').to_owned()))
}

/// `ip`, `[ip]`, `ip:port` or `[ip]:port`.
fn parse_address(text: &str, default_port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, default_port)),
        Err(_) => text.parse().ok(),
    }
}

/// The nameservers of a resolv.conf. Reports if `path` is no such file.
fn from_file(checker: &mut Checker<'_>, token: &Token, path: &str) -> Vec<IpAddr> {
    let bytes = match checker.source.read(path) {
        Ok(bytes) => bytes,
        Err(e) if path.contains('/') => {
            let message = format!("{} cannot be read: {e}", quote(path));
            checker.error(
                &token.span,
                message,
                "name a file with `nameserver` lines, or write the servers' addresses",
            );
            return Vec::new();
        }
        Err(e) => {
            if e.kind() != ErrorKind::NotFound {
                let message = format!("{} is no IP address, and cannot be read as a file: {e}", quote(path));
                checker.error(&token.span, message, "write the IP address of a DNS server");
            } else {
                unresolved(checker, token, path);
            }
            return Vec::new();
        }
    };
    let mut servers = Vec::new();
    for line in String::from_utf8_lossy(&bytes).lines() {
        let mut fields = line.split_whitespace();
        if fields.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = fields.next() else { continue };
        // The scope of a link-local server says nothing to a socket that is not told the interface's number.
        match server.split('%').next().unwrap_or(server).parse() {
            Ok(ip) => servers.push(ip),
            Err(_) => {
                let message =
                    format!("{} names the nameserver {}, which is no IP address", quote(path), quote(server));
                checker.error(&token.span, message, "correct the file, or write the servers' addresses here");
            }
        }
    }
    servers
}

/// Reports what is neither address nor file.
fn unresolved(checker: &mut Checker<'_>, token: &Token, host: &str) {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let message = format!("{} is neither an IP address nor a file", quote(&token.text));
    let help = "write the IP address of a DNS server, or the path of a file like /etc/resolv.conf";
    checker.error(&token.span, message, help);
    let is_name = !name.is_empty() && !name.contains(['/', ':', '[', ']']) && zone::normalize(name).is_ok();
    if is_name {
        checker.stand("forward", "host names", &token.span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The transport in front is cut off before; the expectations are those of CoreDNS' test of the same name.
    #[test]
    fn k27_k36_split_zone() {
        for (text, host, name) in [
            ("127.0.0.1%example.net:854", "127.0.0.1:854", Some("example.net")),
            ("127.0.0.1%example.net", "127.0.0.1", Some("example.net")),
            ("127.0.0.1", "127.0.0.1", None),
            ("127.0.0.1:854", "127.0.0.1:854", None),
            ("foo%bar:baz", "foo:baz", Some("bar")),
            ("[2400:3200::1%dns.alidns.com]:853", "[2400:3200::1]:853", Some("dns.alidns.com")),
            ("[::1%example.net]:854", "[::1]:854", Some("example.net")),
            ("fe80::1%example.com", "fe80::1", Some("example.com")),
        ] {
            assert_eq!(split_server_name(text), (host.to_owned(), name.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn addresses_come_with_and_without_ports() {
        for (text, addr) in [
            ("127.0.0.1", Some("127.0.0.1:53")),
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("::1", Some("[::1]:53")),
            ("[::1]", Some("[::1]:53")),
            ("[2003::1]:5353", Some("[2003::1]:5353")),
            ("a27.0.0.1", None),
            ("127.0.0.1:", None),
            ("127.0.0.1:99999", None),
            ("010.0.0.1", None),
        ] {
            assert_eq!(parse_address(text, 53), addr.map(|a| a.parse().unwrap()), "{text}");
        }
    }
}
