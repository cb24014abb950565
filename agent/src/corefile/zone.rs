//! Zone names, and address blocks that stand for reverse zones.
//!
//! A zone is normalised to lower case with its final dot. `10.0.0.0/15` becomes the reverse zones that make it up: an octet
//! (or, in IPv6, a digit) is the smallest step a reverse name can take, so a block between two steps is several zones
//! (RFC 1035 §3.5, RFC 3596 §2.5).

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::diagnostic::quote;

/// Longest name in characters, without the final dot (RFC 1035 §3.1: 255 octets on the wire, two of them not text).
const NAME_MAX: usize = 253;

/// Longest label (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;

/// What is wrong with a name, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameError {
    pub(crate) problem: String,
    pub(crate) help: String,
}

fn wrong<T>(problem: impl Into<String>, help: impl Into<String>) -> Result<T, NameError> {
    Err(NameError { problem: problem.into(), help: help.into() })
}

/// A name in lower case with its final dot.
pub(crate) fn normalize(name: &str) -> Result<String, NameError> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.is_empty() {
        return if name.len() <= 1 { Ok(".".into()) } else { wrong("has an empty label", "remove a dot") };
    }
    if let Some(odd) = bare.chars().find(|c| !c.is_ascii_graphic()) {
        let what = if odd.is_control() || odd.is_whitespace() {
            "holds a blank or control character".to_owned()
        } else {
            format!("holds `{odd}`")
        };
        return wrong(what, "write names with their ASCII characters, international ones in the `xn--` form");
    }
    if bare.contains('\\') {
        return wrong("holds an escape", "zone names with escaped characters are not supported");
    }
    if bare.len() > NAME_MAX {
        return wrong(format!("has {} characters", bare.len()), format!("a name has at most {NAME_MAX}"));
    }
    for label in bare.split('.') {
        if label.is_empty() {
            return wrong("has an empty label", "remove a dot");
        }
        if label.len() > LABEL_MAX {
            let problem = format!("has a label of {} characters", label.len());
            return wrong(problem, format!("between two dots there are at most {LABEL_MAX}"));
        }
    }
    Ok(format!("{}.", bare.to_ascii_lowercase()))
}

/// The zones that a name or an address block stands for: one, or several for a block between two steps.
pub(crate) fn expand(text: &str) -> Result<Vec<String>, NameError> {
    let Some((address, length)) = text.rsplit_once('/') else {
        return Ok(vec![normalize(text)?]);
    };
    // RFC 2317 has names with a slash in them, so what is no address block is a name.
    let Ok(address) = address.parse::<IpAddr>() else { return Ok(vec![normalize(text)?]) };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match length.parse::<u32>() {
        Ok(length) if length <= longest => Ok(match address {
            IpAddr::V4(ip) => reverse_v4(ip, length),
            IpAddr::V6(ip) => reverse_v6(ip, length),
        }),
        _ => wrong(
            format!("has the prefix length {}", quote(length)),
            format!("an address block is written ADDRESS/LENGTH with a length of 0 to {longest}"),
        ),
    }
}

fn reverse_v4(ip: Ipv4Addr, length: u32) -> Vec<String> {
    let octets = length.div_ceil(8);
    let first = u32::from(ip).checked_shr(32 - length).unwrap_or(0);
    let spare = octets * 8 - length;
    (0..1_u32 << spare)
        .map(|low| {
            let prefix = first << spare | low;
            let mut name = String::new();
            for i in 0..octets {
                let _ = write!(name, "{}.", prefix >> (8 * i) & 0xff);
            }
            name + "in-addr.arpa."
        })
        .collect()
}

fn reverse_v6(ip: Ipv6Addr, length: u32) -> Vec<String> {
    let digits = length.div_ceil(4);
    let first = u128::from(ip).checked_shr(128 - length).unwrap_or(0);
    let spare = digits * 4 - length;
    (0..1_u128 << spare)
        .map(|low| {
            let prefix = first << spare | low;
            let mut name = String::new();
            for i in 0..digits {
                let _ = write!(name, "{:x}.", prefix >> (4 * i) & 0xf);
            }
            name + "ip6.arpa."
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_lower_case_and_absolute() {
        for (name, normal) in
            [("", "."), (".", "."), ("Example.ORG", "example.org."), ("a.b.", "a.b."), ("_x.*", "_x.*.")]
        {
            assert_eq!(normalize(name).as_deref(), Ok(normal));
        }
        let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert!(normalize(&longest).is_ok());
        for name in ["a..b", "..", ".a", "a b", "é", "a\\.b", &"x".repeat(64), &format!("{longest}d")] {
            assert!(normalize(name).is_err(), "{name}");
        }
    }

    #[test]
    fn address_blocks_become_reverse_zones() {
        for (block, zones) in [
            ("10.0.0.0/8", vec!["10.in-addr.arpa."]),
            ("10.0.0.0/15", vec!["0.10.in-addr.arpa.", "1.10.in-addr.arpa."]),
            ("10.1.2.3/15", vec!["0.10.in-addr.arpa.", "1.10.in-addr.arpa."]),
            ("192.168.1.0/24", vec!["1.168.192.in-addr.arpa."]),
            ("192.168.1.7/32", vec!["7.1.168.192.in-addr.arpa."]),
            ("0.0.0.0/0", vec!["in-addr.arpa."]),
            ("::/0", vec!["ip6.arpa."]),
            ("2001:db8::/32", vec!["8.b.d.0.1.0.0.2.ip6.arpa."]),
            ("fd00::/7", vec!["c.f.ip6.arpa.", "d.f.ip6.arpa."]),
            ("0/26.2.0.192.in-addr.arpa", vec!["0/26.2.0.192.in-addr.arpa."]),
        ] {
            assert_eq!(
                expand(block).as_deref(),
                Ok(zones.iter().map(|z| (*z).to_owned()).collect::<Vec<_>>().as_slice())
            );
        }
        assert_eq!(expand("10.9.3.0/18").unwrap().len(), 64);
        assert_eq!(expand("10.9.3.0/18").unwrap()[0], "0.9.10.in-addr.arpa.");
        assert_eq!(expand("2001:db8::/128").unwrap()[0].len(), 64 + "ip6.arpa.".len());
        assert_eq!(expand("1.2.3.4/32").unwrap().len(), 1);
        for block in ["10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0.0/x"] {
            assert!(expand(block).is_err(), "{block}");
        }
    }
}
