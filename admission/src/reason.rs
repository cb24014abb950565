//! Why a Pod was injected or left alone. One closed list, spelled the same in metrics, audit annotations, warnings, logs,
//! `explain` and `docs/admission.md`.

use std::fmt;

/// The outcome of the decision table; the first row that matches wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Row 1: the request creates no Pod.
    NotPodCreate,
    /// Row 2: the object is missing or no Pod that can be read.
    Undecodable,
    /// Row 3: system namespace, the release's own, or configured.
    NamespaceExempt,
    /// Row 4: the namespace's Pods run on virtual nodes.
    NamespaceVirtualNode,
    /// Row 5: the namespace does not ask for injection.
    NamespaceNotEnabled,
    /// Row 6: the Pod declines.
    PodOptOut,
    /// Row 7: the Pod runs on a virtual node.
    PodVirtualNode,
    /// Row 8: the picture of a static Pod.
    MirrorPod,
    /// Row 9: for Windows nodes.
    Windows,
    /// Row 10: placed on a virtual node.
    VirtualNodePlacement,
    /// Row 11: may land on a virtual node.
    VirtualNodePossible,
    /// Row 12: `dnsPolicy: Default`.
    DnsPolicyDefault,
    /// Row 12: `dnsPolicy: None`.
    DnsPolicyNone,
    /// Row 12: host network with `ClusterFirst`, which the kubelet treats as `Default`.
    HostNetworkClusterFirst,
    /// Row 12: `ClusterFirstWithHostNet` without host network.
    ClusterFirstWithHostNetWithoutHostNetwork,
    /// Row 12: a policy that does not exist yet.
    DnsPolicyUnknown,
    /// Row 13: the node-local address is there already.
    AlreadyConfigured,
    /// Row 14: kube-dns' address is not known.
    UpstreamUnknown,
    /// Row 15: a `dnsConfig` of its own, and the mode is to respect it.
    UserDnsConfig,
    /// Row 16: with ours it would break one of the API's limits, or breaks one already.
    LimitsExceeded,
    /// Row 17: its owner's turn has not come.
    Rollout,
    /// Row 18: injected.
    Injected,
    /// Not in the table: the patch did not pass the check that precedes every answer. A defect, counted as an error.
    PatchUnproven,
}

impl Reason {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 23] = [
        Self::NotPodCreate,
        Self::Undecodable,
        Self::NamespaceExempt,
        Self::NamespaceVirtualNode,
        Self::NamespaceNotEnabled,
        Self::PodOptOut,
        Self::PodVirtualNode,
        Self::MirrorPod,
        Self::Windows,
        Self::VirtualNodePlacement,
        Self::VirtualNodePossible,
        Self::DnsPolicyDefault,
        Self::DnsPolicyNone,
        Self::HostNetworkClusterFirst,
        Self::ClusterFirstWithHostNetWithoutHostNetwork,
        Self::DnsPolicyUnknown,
        Self::AlreadyConfigured,
        Self::UpstreamUnknown,
        Self::UserDnsConfig,
        Self::LimitsExceeded,
        Self::Rollout,
        Self::Injected,
        Self::PatchUnproven,
    ];

    /// Its name in metrics, logs and everywhere else.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotPodCreate => "not-pod-create",
            Self::Undecodable => "undecodable",
            Self::NamespaceExempt => "namespace-exempt",
            Self::NamespaceVirtualNode => "namespace-virtual-node",
            Self::NamespaceNotEnabled => "namespace-not-enabled",
            Self::PodOptOut => "pod-opt-out",
            Self::PodVirtualNode => "pod-virtual-node",
            Self::MirrorPod => "mirror-pod",
            Self::Windows => "windows",
            Self::VirtualNodePlacement => "virtual-node-placement",
            Self::VirtualNodePossible => "virtual-node-possible",
            Self::DnsPolicyDefault => "dns-policy-default",
            Self::DnsPolicyNone => "dns-policy-none",
            Self::HostNetworkClusterFirst => "host-network-cluster-first",
            Self::ClusterFirstWithHostNetWithoutHostNetwork => {
                "cluster-first-with-host-net-without-host-network"
            }
            Self::DnsPolicyUnknown => "dns-policy-unknown",
            Self::AlreadyConfigured => "already-configured",
            Self::UpstreamUnknown => "upstream-unknown",
            Self::UserDnsConfig => "user-dns-config",
            Self::LimitsExceeded => "limits-exceeded",
            Self::Rollout => "rollout",
            Self::Injected => "injected",
            Self::PatchUnproven => "patch-unproven",
        }
    }

    /// Its row in the decision table, 1 to 18; the safety net has none.
    pub const fn row(self) -> Option<u8> {
        Some(match self {
            Self::NotPodCreate => 1,
            Self::Undecodable => 2,
            Self::NamespaceExempt => 3,
            Self::NamespaceVirtualNode => 4,
            Self::NamespaceNotEnabled => 5,
            Self::PodOptOut => 6,
            Self::PodVirtualNode => 7,
            Self::MirrorPod => 8,
            Self::Windows => 9,
            Self::VirtualNodePlacement => 10,
            Self::VirtualNodePossible => 11,
            Self::DnsPolicyDefault
            | Self::DnsPolicyNone
            | Self::HostNetworkClusterFirst
            | Self::ClusterFirstWithHostNetWithoutHostNetwork
            | Self::DnsPolicyUnknown => 12,
            Self::AlreadyConfigured => 13,
            Self::UpstreamUnknown => 14,
            Self::UserDnsConfig => 15,
            Self::LimitsExceeded => 16,
            Self::Rollout => 17,
            Self::Injected => 18,
            Self::PatchUnproven => return None,
        })
    }

    /// The reason with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// Its place in [`ALL`](Self::ALL), for arrays of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NotPodCreate => "the request does not create a Pod",
            Self::Undecodable => "the object is missing or cannot be read as a Pod",
            Self::NamespaceExempt => {
                "the namespace is a system namespace, the release's own, or exempt by configuration"
            }
            Self::NamespaceVirtualNode => "a label on the namespace says that its Pods run on virtual nodes",
            Self::NamespaceNotEnabled => "the namespace does not ask for injection",
            Self::PodOptOut => "the Pod declines injection by label",
            Self::PodVirtualNode => "a label on the Pod says that it runs on a virtual node",
            Self::MirrorPod => {
                "it is the mirror of a static Pod; the kubelet runs the file on the node, not this object"
            }
            Self::Windows => "the Pod is for Windows nodes, where no node-local DNS runs",
            Self::VirtualNodePlacement => "the Pod is placed on a virtual node, where no node-local DNS runs",
            Self::VirtualNodePossible => {
                "the Pod tolerates virtual nodes and may land where no node-local DNS runs"
            }
            Self::DnsPolicyDefault => "dnsPolicy Default: the Pod uses its node's resolver, not cluster DNS",
            Self::DnsPolicyNone => "dnsPolicy None: the Pod brings its whole DNS configuration",
            Self::HostNetworkClusterFirst => {
                "host network with dnsPolicy ClusterFirst: the kubelet gives such Pods the node's resolver"
            }
            Self::ClusterFirstWithHostNetWithoutHostNetwork => {
                "dnsPolicy ClusterFirstWithHostNet without host network"
            }
            Self::DnsPolicyUnknown => "a dnsPolicy that this version does not know",
            Self::AlreadyConfigured => "the Pod's nameservers hold the node-local address already",
            Self::UpstreamUnknown => "the address of kube-dns, the backup nameserver, is not known",
            Self::UserDnsConfig => "the Pod brings a dnsConfig, and the server is told to respect it",
            Self::LimitsExceeded => {
                "the Pod's DNS configuration breaks one of the API's limits, alone or with ours"
            }
            Self::Rollout => "the gradual rollout has not reached the Pod's owner",
            Self::Injected => "the Pod uses node-local DNS",
            Self::PatchUnproven => {
                "the patch failed the server's own check and was not sent; the Pod is unchanged"
            }
        }
    }

    /// What to do if another outcome is wanted. `NAMESPACE` and `POD` stand for names.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NotPodCreate => "restrict the webhook's rules to CREATE of pods, as the chart does",
            Self::Undecodable => "send the object to `nodens-admission explain -f`, which names the field",
            Self::NamespaceExempt => {
                "run the workload in another namespace; kube-system and kube-public are always exempt"
            }
            Self::NamespaceVirtualNode => {
                "kubectl label namespace NAMESPACE virtual-node-affinity-injection- eci- alibabacloud.com/eci-"
            }
            Self::NamespaceNotEnabled => "kubectl label namespace NAMESPACE node-local-dns-injection=enabled",
            Self::PodOptOut => "remove the label node-local-dns-injection=disabled from the Pod template",
            Self::PodVirtualNode => "remove the labels eci and alibabacloud.com/eci from the Pod template",
            Self::MirrorPod => {
                "write dnsPolicy and dnsConfig into the static Pod's file: `nodens-admission inject -f FILE`"
            }
            Self::Windows => "none: Windows nodes are not supported",
            Self::VirtualNodePlacement => {
                "remove nodeName, nodeSelector, affinity or annotation that places the Pod on virtual nodes"
            }
            Self::VirtualNodePossible => {
                "remove the toleration of virtual-kubelet.io/provider, or start the server with --virtual-node-soft-policy=inject"
            }
            Self::DnsPolicyDefault => "set dnsPolicy: ClusterFirst if the Pod is meant to use cluster DNS",
            Self::DnsPolicyNone => {
                "set dnsPolicy: ClusterFirst, and keep what you need of dnsConfig: it is merged"
            }
            Self::HostNetworkClusterFirst => "set dnsPolicy: ClusterFirstWithHostNet",
            Self::ClusterFirstWithHostNetWithoutHostNetwork => {
                "set dnsPolicy: ClusterFirst, or hostNetwork: true"
            }
            Self::DnsPolicyUnknown => "set dnsPolicy: ClusterFirst",
            Self::AlreadyConfigured => "nothing: the Pod uses node-local DNS",
            Self::UpstreamUnknown => {
                "check `kubectl -n kube-system get service kube-dns`, or give its address with --kube-dns-ip"
            }
            Self::UserDnsConfig => {
                "remove dnsConfig from the Pod template, or start the server with --merge=merge"
            }
            Self::LimitsExceeded => {
                "keep dnsConfig within 3 nameservers, 32 searches and 2048 characters, the cluster's own included"
            }
            Self::Rollout => {
                "raise --rollout-percent, or kubectl annotate namespace NAMESPACE node-local-dns/rollout=100"
            }
            Self::Injected => "to leave the Pod out, label its template node-local-dns-injection=disabled",
            Self::PatchUnproven => "report it with the Pod's manifest: this is a defect of the server",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
            assert_eq!(reason.index(), place);
            assert!(reason.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
        assert_eq!(Reason::parse("Injected"), None);
    }

    #[test]
    fn rows_rise_through_the_whole_table() {
        let mut rows: Vec<u8> = Reason::ALL.into_iter().filter_map(Reason::row).collect();
        assert!(rows.is_sorted());
        rows.dedup();
        assert_eq!(rows, (1..=18).collect::<Vec<u8>>());
    }
}
