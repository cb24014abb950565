//! What the API server accepts as a Pod's DNS configuration: `validatePodDNSConfig` of Kubernetes 1.28 and later, written again
//! from its rules. A patch whose result breaks one of them would get the user's Pod rejected, and `failurePolicy: Ignore` does not
//! help there; so nothing is sent that did not pass here.
//!
//! Since 1.32 search names may hold underscores, or be a lone dot. That is accepted in what a Pod brings (where it is not allowed the Pod
//! is rejected with and without us), never in what we add.

use std::fmt;
use std::net::IpAddr;

/// Nameservers at most: the resolver reads no more (`MaxDNSNameservers`).
pub const NAMESERVERS_MAX: usize = 3;

/// Search domains at most (`MaxDNSSearchPaths`).
pub const SEARCHES_MAX: usize = 32;

/// Characters of all search domains together, one space between each two (`MaxDNSSearchListChars`).
pub const SEARCH_CHARS_MAX: usize = 2048;

/// Characters of a DNS-1123 subdomain at most.
const SUBDOMAIN_MAX: usize = 253;

/// Characters of a DNS-1123 label at most.
const LABEL_MAX: usize = 63;

/// The first rule that a DNS configuration breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// `dnsPolicy: None` needs one at least.
    NoNameserver,
    /// Above [`NAMESERVERS_MAX`].
    Nameservers(usize),
    /// One is no IP address.
    NotAnAddress,
    /// Above [`SEARCHES_MAX`].
    Searches(usize),
    /// Above [`SEARCH_CHARS_MAX`].
    SearchChars(usize),
    /// One is no DNS name.
    NotADomain,
    /// One has no name.
    NamelessOption,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNameserver => f.write_str("no nameserver"),
            Self::Nameservers(count) => write!(f, "{count} nameservers, {NAMESERVERS_MAX} are allowed"),
            Self::NotAnAddress => f.write_str("a nameserver that is no IP address"),
            Self::Searches(count) => write!(f, "{count} searches, {SEARCHES_MAX} are allowed"),
            Self::SearchChars(count) => {
                write!(f, "{count} characters of searches, {SEARCH_CHARS_MAX} are allowed")
            }
            Self::NotADomain => f.write_str("a search that is no DNS name"),
            Self::NamelessOption => f.write_str("an option without a name"),
        }
    }
}

/// The rules for a `dnsConfig`, whatever the policy.
pub fn dns_config<'a>(
    nameservers: impl Iterator<Item = &'a str> + Clone,
    searches: impl Iterator<Item = &'a str> + Clone,
    mut option_names: impl Iterator<Item = &'a str>,
) -> Result<(), Broken> {
    let count = nameservers.clone().count();
    if count > NAMESERVERS_MAX {
        return Err(Broken::Nameservers(count));
    }
    if nameservers.into_iter().any(|address| address.parse::<IpAddr>().is_err()) {
        return Err(Broken::NotAnAddress);
    }
    let count = searches.clone().count();
    if count > SEARCHES_MAX {
        return Err(Broken::Searches(count));
    }
    let chars = searches.clone().map(str::len).sum::<usize>() + count.saturating_sub(1);
    if chars > SEARCH_CHARS_MAX {
        return Err(Broken::SearchChars(chars));
    }
    if !searches.into_iter().all(is_search_domain) {
        return Err(Broken::NotADomain);
    }
    if option_names.any(str::is_empty) {
        return Err(Broken::NamelessOption);
    }
    Ok(())
}

/// A DNS-1123 subdomain: labels of lower-case letters, digits and inner hyphens. Like the API server, this bounds the name's length
/// but not the labels'.
pub fn is_dns1123_subdomain(name: &str) -> bool {
    name.len() <= SUBDOMAIN_MAX && name.split('.').all(is_label)
}

/// A DNS-1123 label, as a namespace's name is.
pub fn is_dns1123_label(name: &str) -> bool {
    name.len() <= LABEL_MAX && is_label(name)
}

fn is_label(label: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    !label.is_empty()
        && label.as_bytes().iter().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The relaxed rule of 1.32: a lone dot, or a subdomain that may hold underscores and end in a dot.
fn is_search_domain(name: &str) -> bool {
    let name = match name {
        "." => return true,
        _ => name.strip_suffix('.').unwrap_or(name),
    };
    let byte = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let label = |label: &str| {
        !label.is_empty()
            && label.as_bytes().iter().all(byte)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= SUBDOMAIN_MAX && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searches(list: &[&str]) -> Result<(), Broken> {
        dns_config([].into_iter(), list.iter().copied(), [].into_iter())
    }

    #[test]
    fn limits_are_exact() {
        let addresses = ["10.0.0.1", "fd00::1", "10.0.0.2", "10.0.0.3"];
        let nameservers =
            |count| dns_config(addresses[..count].iter().copied(), [].into_iter(), [].into_iter());
        assert_eq!(nameservers(3), Ok(()));
        assert_eq!(nameservers(4), Err(Broken::Nameservers(4)));
        assert_eq!(searches(&["a"; 32]), Ok(()));
        assert_eq!(searches(&["a"; 33]), Err(Broken::Searches(33)));
        // 16 names of 127 characters and 15 spaces are 2047.
        let name = format!("{}.{}", "a".repeat(63), "b".repeat(63));
        let mut list = vec![name.as_str(); 16];
        assert_eq!(searches(&list), Ok(()));
        let longer = format!("{name}c");
        list[0] = &longer;
        assert_eq!(searches(&list), Ok(()));
        list[1] = &longer;
        assert_eq!(searches(&list), Err(Broken::SearchChars(2049)));
    }

    #[test]
    fn names_follow_the_api_servers_rules() {
        for good in ["a", "a.b", "a-b.c1", "xn--abc", &"a".repeat(253)] {
            assert!(is_dns1123_subdomain(good), "{good}");
        }
        for bad in ["", ".", "a.", "a..b", "-a", "a-", "A", "a_b", "a b", "ä", &"a".repeat(254)] {
            assert!(!is_dns1123_subdomain(bad), "{bad}");
        }
        assert!(searches(&[".", "a.", "_tcp.a_b", "a"]).is_ok());
        for bad in ["", "..", "a..", "A", "a b", "-a", "a\n"] {
            assert_eq!(searches(&[bad]), Err(Broken::NotADomain), "{bad}");
        }
        assert!(is_dns1123_label(&"a".repeat(63)));
        assert!(!is_dns1123_label(&"a".repeat(64)) && !is_dns1123_label("a.b"));
    }

    #[test]
    fn addresses_and_options_are_looked_at() {
        for bad in ["", "ns", "10.0.0", "fe80::1%eth0", "010.0.0.1", "10.0.0.1:53"] {
            let result = dns_config([bad].into_iter(), [].into_iter(), [].into_iter());
            assert_eq!(result, Err(Broken::NotAnAddress), "{bad}");
        }
        let nameless = dns_config([].into_iter(), [].into_iter(), ["ndots", ""].into_iter());
        assert_eq!(nameless, Err(Broken::NamelessOption));
    }
}
