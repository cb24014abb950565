//! The decision table, row by row. Each row is a question and a function that says whether it stops here, and why.

use super::{Input, placement};
use crate::names::{self, DISABLED, ENABLED, INJECTION_LABEL};
use crate::pod::DnsConfig;
use crate::reason::Reason;
use crate::rollout;
use crate::settings::{InjectionSettings, MergeMode, SoftPlacement};
use crate::snapshot::NamespaceView;
use std::net::IpAddr;

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// 1 to 17; row 2 is not here, and row 18 is what is left.
    pub number: u8,
    /// What has to hold for a Pod to pass, for people.
    pub wants: &'static str,
    /// The reason to leave the Pod alone, if the row says so.
    pub stops: fn(&Input<'_>) -> Option<Reason>,
}

/// All rows in their order.
pub const ROWS: [Row; 16] = [
    Row { number: 1, wants: "the request creates a Pod", stops: not_pod_create },
    Row { number: 3, wants: "the namespace is not exempt", stops: namespace_exempt },
    Row { number: 4, wants: "the namespace is not for virtual nodes", stops: namespace_virtual_node },
    Row {
        number: 5,
        wants: "the namespace is labelled node-local-dns-injection=enabled",
        stops: namespace_not_enabled,
    },
    Row { number: 6, wants: "the Pod is not labelled node-local-dns-injection=disabled", stops: pod_opt_out },
    Row { number: 7, wants: "the Pod carries no label of virtual nodes", stops: pod_virtual_node },
    Row { number: 8, wants: "the Pod is not the mirror of a static Pod", stops: mirror_pod },
    Row { number: 9, wants: "the Pod is not for Windows", stops: placement::windows },
    Row { number: 10, wants: "the Pod is not placed on a virtual node", stops: placement::virtual_node },
    Row { number: 11, wants: "the Pod does not tolerate virtual nodes", stops: virtual_node_possible },
    Row {
        number: 12,
        wants: "dnsPolicy is ClusterFirst, or ClusterFirstWithHostNet with host network",
        stops: dns_policy,
    },
    Row { number: 13, wants: "the Pod does not name the node-local address yet", stops: already_configured },
    Row { number: 14, wants: "the address of kube-dns is known", stops: upstream_unknown },
    Row { number: 15, wants: "the Pod's own dnsConfig may be merged", stops: user_dns_config },
    Row { number: 16, wants: "the result keeps the API's limits", stops: limits_exceeded },
    Row { number: 17, wants: "the rollout has reached the Pod's owner", stops: rollout_gate },
];

fn settings<'a>(input: &'a Input<'_>) -> &'a InjectionSettings {
    input.config.settings()
}

fn not_pod_create(input: &Input<'_>) -> Option<Reason> {
    (!input.request.is_pod_create()).then_some(Reason::NotPodCreate)
}

fn namespace_exempt(input: &Input<'_>) -> Option<Reason> {
    settings(input).is_exempt(input.request.namespace()).then_some(Reason::NamespaceExempt)
}

fn namespace_virtual_node(input: &Input<'_>) -> Option<Reason> {
    let NamespaceView::Known(facts) = input.namespace else { return None };
    let found = facts.labels().any(|(key, _)| settings(input).is_namespace_virtual_node_key(key));
    found.then_some(Reason::NamespaceVirtualNode)
}

fn namespace_not_enabled(input: &Input<'_>) -> Option<Reason> {
    let settings = settings(input);
    let NamespaceView::Known(facts) = input.namespace else { return None };
    let enabled = match facts.label(INJECTION_LABEL) {
        // Exactly so: the API server's selector compares bytes too.
        Some(value) if !settings.default_enabled => value == ENABLED,
        Some(value) => value != DISABLED,
        None => settings.default_enabled,
    };
    let asked = settings.pod_opt_in && input.pod.metadata.label(INJECTION_LABEL) == Some(ENABLED);
    (!enabled && !asked).then_some(Reason::NamespaceNotEnabled)
}

fn pod_opt_out(input: &Input<'_>) -> Option<Reason> {
    (input.pod.metadata.label(INJECTION_LABEL) == Some(DISABLED)).then_some(Reason::PodOptOut)
}

fn pod_virtual_node(input: &Input<'_>) -> Option<Reason> {
    let mut labels = input.pod.metadata.labels.iter().flat_map(super::super::pod::Pairs::iter);
    labels.any(|(key, _)| settings(input).is_pod_virtual_node_key(key)).then_some(Reason::PodVirtualNode)
}

fn mirror_pod(input: &Input<'_>) -> Option<Reason> {
    input.pod.metadata.annotation(names::MIRROR_ANNOTATION).map(|_| Reason::MirrorPod)
}

fn virtual_node_possible(input: &Input<'_>) -> Option<Reason> {
    let skip = settings(input).soft_placement == SoftPlacement::Skip;
    (skip && placement::tolerates_virtual_node(input.pod)).then_some(Reason::VirtualNodePossible)
}

/// | dnsPolicy | without host network | with host network |
/// |---|---|---|
/// | `ClusterFirst`, or none | passes | stops: to the kubelet this is `Default` |
/// | `ClusterFirstWithHostNet` | stops, unless the operator is lenient | passes |
/// | `Default`, `None`, others | stops | stops |
fn dns_policy(input: &Input<'_>) -> Option<Reason> {
    let host_network = input.pod.spec.host_network.unwrap_or(false);
    let lenient = settings(input).host_net_policy_without_host_network;
    match input.pod.spec.dns_policy.as_deref().unwrap_or_default() {
        "" | "ClusterFirst" => host_network.then_some(Reason::HostNetworkClusterFirst),
        "ClusterFirstWithHostNet" => {
            (!host_network && !lenient).then_some(Reason::ClusterFirstWithHostNetWithoutHostNetwork)
        }
        "Default" => Some(Reason::DnsPolicyDefault),
        "None" => Some(Reason::DnsPolicyNone),
        _ => Some(Reason::DnsPolicyUnknown),
    }
}

fn already_configured(input: &Input<'_>) -> Option<Reason> {
    let own: &DnsConfig<'_> = input.pod.spec.dns_config.as_ref()?;
    let local = |address: IpAddr| {
        settings(input).node_local.iter().any(|local| local.to_canonical() == address.to_canonical())
    };
    let found = own.nameservers.iter().filter_map(|text| text.parse().ok()).any(local);
    found.then_some(Reason::AlreadyConfigured)
}

fn upstream_unknown(input: &Input<'_>) -> Option<Reason> {
    let wanted = settings(input).include_kube_dns && !input.overrides.single_nameserver;
    (wanted && input.config.kube_dns().is_empty()).then_some(Reason::UpstreamUnknown)
}

fn user_dns_config(input: &Input<'_>) -> Option<Reason> {
    let skip = settings(input).merge == MergeMode::Skip;
    (skip && input.pod.spec.own_dns_config().is_some()).then_some(Reason::UserDnsConfig)
}

fn limits_exceeded(input: &Input<'_>) -> Option<Reason> {
    input.dns_settings().is_err().then_some(Reason::LimitsExceeded)
}

/// Pods without an owner go by their own name, since they have no UID yet.
fn rollout_gate(input: &Input<'_>) -> Option<Reason> {
    let percent = input.overrides.rollout_percent.unwrap_or(settings(input).rollout_percent);
    let metadata = &input.pod.metadata;
    let admitted = match metadata.owner().and_then(|owner| owner.uid.as_deref()) {
        Some(uid) => rollout::admits(percent, uid),
        None => {
            rollout::admits(percent, &format!("{}/{}", input.request.namespace(), metadata.display_name()))
        }
    };
    (!admitted).then_some(Reason::Rollout)
}
