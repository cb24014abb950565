//! The labels and annotations that steer injection. The labels are those of the ack-node-local-dns chart, so a cluster that is
//! labelled for it needs no change; the annotations are ours.

use std::net::{IpAddr, Ipv4Addr};

/// On a namespace: `enabled` asks for injection. On a Pod: `disabled` declines it.
pub const INJECTION_LABEL: &str = "node-local-dns-injection";

/// The value of [`INJECTION_LABEL`] that asks for injection.
pub const ENABLED: &str = "enabled";

/// The value of [`INJECTION_LABEL`] that declines injection.
pub const DISABLED: &str = "disabled";

/// Where the node-local DNS listens, unless told otherwise.
pub const NODE_LOCAL_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

/// Namespaces that never get injection, whatever is configured: cluster DNS itself and what it needs live there.
pub const ALWAYS_EXEMPT: [&str; 2] = ["kube-system", "kube-public"];

/// Label keys that send a Pod to a virtual node, where no node-local DNS listens. Their presence counts, not their value.
pub const POD_VIRTUAL_NODE_KEYS: [&str; 2] = ["eci", "alibabacloud.com/eci"];

/// The same for a namespace and all its Pods.
pub const NAMESPACE_VIRTUAL_NODE_KEYS: [&str; 3] =
    ["virtual-node-affinity-injection", "eci", "alibabacloud.com/eci"];

/// Prefix of the annotations below.
pub const ANNOTATION_PREFIX: &str = "node-local-dns/";

/// Written to injected Pods: the version and the configuration that did it.
pub const STATUS_ANNOTATION: &str = "node-local-dns/status";

/// Override of `ndots`, on a Pod or a namespace.
pub const NDOTS_ANNOTATION: &str = "node-local-dns/ndots";

/// Override of `attempts`, on a Pod or a namespace.
pub const ATTEMPTS_ANNOTATION: &str = "node-local-dns/attempts";

/// Override of `timeout` in seconds, on a Pod or a namespace.
pub const TIMEOUT_ANNOTATION: &str = "node-local-dns/timeout";

/// Further search domains, separated by commas, on a Pod or a namespace.
pub const SEARCHES_ANNOTATION: &str = "node-local-dns/searches";

/// `true`: only the node-local address, without kube-dns as backup; on a Pod or a namespace.
pub const SINGLE_NAMESERVER_ANNOTATION: &str = "node-local-dns/single-nameserver";

/// Override of the rollout percentage, on a namespace.
pub const ROLLOUT_ANNOTATION: &str = "node-local-dns/rollout";

/// Marks the API server's picture of a static Pod: the kubelet runs the file, not the object.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Alibaba Cloud's way to send a Pod to elastic containers.
pub const BURST_ANNOTATION: &str = "alibabacloud.com/burst-resource";

/// Values of [`BURST_ANNOTATION`] that do.
pub const BURST_VALUES: [&str; 2] = ["eci", "eci_only"];

/// The taint of virtual nodes.
pub const VIRTUAL_NODE_TAINT: &str = "virtual-kubelet.io/provider";

/// How virtual nodes' names begin.
pub const VIRTUAL_NODE_PREFIX: &str = "virtual-kubelet-";

/// The node label and value that virtual nodes carry.
pub const VIRTUAL_NODE_LABEL: (&str, &str) = ("type", "virtual-kubelet");

/// Node labels that name the operating system.
pub const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
