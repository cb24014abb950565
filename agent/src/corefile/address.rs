//! Addresses that HTTP endpoints listen on, as Go spells them: `host:port`, where the host may be missing.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr};

use super::diagnostic::quote;

/// Where an HTTP endpoint listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddr {
    /// None for `:8080`: every address of the machine, of both families.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl ListenAddr {
    /// Every address, this port.
    pub const fn any(port: u16) -> Self {
        Self { ip: None, port }
    }

    /// This machine only, this port.
    pub const fn localhost(port: u16) -> Self {
        Self { ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), port }
    }

    /// Reads `host:port`, `[v6]:port` or `:port`. The host is an IP address or `localhost`: other names would have to be
    /// looked up with the very service that is being started. The error says what is wrong and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, (String, String)> {
        let spelling = || "write `:PORT`, `IP:PORT` or `[IPv6]:PORT`".to_owned();
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(("has no port".into(), spelling()));
        };
        let Ok(port) = port.parse::<u16>() else {
            return Err((
                format!("has the port {}, which is not a number up to 65535", quote(port)),
                spelling(),
            ));
        };
        let bare = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').filter(|inner| inner.contains(':')),
            None if host.contains(':') => None,
            None => Some(host),
        };
        let Some(bare) = bare else {
            return Err(("is not an address with a port".into(), spelling()));
        };
        match bare {
            "" => Ok(Self::any(port)),
            "localhost" => Ok(Self::localhost(port)),
            _ => match bare.parse() {
                Ok(ip) => Ok(Self { ip: Some(ip), port }),
                Err(_) => Err((
                    format!("has the host {}, which is not an IP address", quote(bare)),
                    "write the IP address, `localhost`, or nothing in front of the colon".into(),
                )),
            },
        }
    }
}

impl Display for ListenAddr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.ip {
            None => write!(f, ":{}", self.port),
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_read_as_they_are_written() {
        for (text, back) in [
            (":8080", ":8080"),
            ("localhost:9153", "127.0.0.1:9153"),
            ("169.254.20.10:8080", "169.254.20.10:8080"),
            ("[::1]:80", "[::1]:80"),
            ("0.0.0.0:9253", "0.0.0.0:9253"),
        ] {
            assert_eq!(ListenAddr::parse(text).unwrap().to_string(), back);
        }
        for text in
            ["", "bla", "bla:a", "bla:53", ":", ":65536", "::1:80", "[::1]", "[1.2.3.4]:5", "/foo", "1.2.3.4"]
        {
            assert!(ListenAddr::parse(text).is_err(), "{text}");
        }
    }
}
