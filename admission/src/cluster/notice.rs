//! What the watches have to say to people: one line each, when something begins or ends, never once per attempt.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What a watch is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The Service of the cluster's DNS.
    KubeDns,
    /// Namespaces' labels and annotations.
    Namespaces,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Subject::KubeDns => "Services",
            Subject::Namespaces => "namespaces",
        })
    }
}

/// Something to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The API server cannot be reached or refuses.
    Lost {
        /// Which watch.
        subject: Subject,
        /// What it said.
        error: String,
    },
    /// It answers again.
    Back {
        /// Which watch.
        subject: Subject,
    },
    /// The cluster DNS has other addresses than before. Pods that exist keep the old ones.
    KubeDnsChanged {
        /// `namespace/name` of the Service that was found; None: there is none with an address.
        service: Option<String>,
        /// Before.
        old: Vec<IpAddr>,
        /// From now on.
        new: Vec<IpAddr>,
    },
    /// The first list of namespaces is in.
    NamespacesKnown {
        /// How many there are.
        count: usize,
        /// How many of them ask for injection.
        enabled: usize,
    },
}

impl Notice {
    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        match self {
            Notice::Lost { .. } => true,
            Notice::KubeDnsChanged { new, old, .. } => new.is_empty() || !old.is_empty(),
            Notice::Back { .. } | Notice::NamespacesKnown { .. } => false,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Lost { subject, error } => {
                write!(f, "the watch of {subject} is interrupted ({error}); going on with what is known, trying again")
            }
            Notice::Back { subject } => write!(f, "the watch of {subject} goes on"),
            Notice::KubeDnsChanged { service: Some(service), old, new } if old.is_empty() => {
                write!(f, "cluster DNS is Service {service} at {}", list(new))
            }
            Notice::KubeDnsChanged { service: Some(service), old, new } => write!(
                f,
                "cluster DNS, Service {service}, moved from {} to {}; Pods injected before keep the old address until they are recreated \
                 (see `nodens-admission audit`)",
                list(old),
                list(new)
            ),
            Notice::KubeDnsChanged { service: None, .. } => f.write_str(
                "no Service of the cluster DNS with a ClusterIP is found; new Pods are not injected until there is one \
                 (check `kubectl -n kube-system get service kube-dns`, or give its address with --kube-dns-ip)",
            ),
            Notice::NamespacesKnown { count, enabled } => {
                write!(f, "{count} namespaces are known, {enabled} of them ask for injection")
            }
        }
    }
}

/// Takes notices; called from the watches, so it must not block.
pub type Notify = Arc<dyn Fn(Notice) + Send + Sync>;

/// `10.96.0.10 and fd00::a`.
fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ")
}
