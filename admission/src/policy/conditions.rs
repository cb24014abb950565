//! Rows 8 to 13 and 15 in CEL: what has to hold for a Pod to be looked at further. Each expression stands alone, since conditions see no
//! variables; every field is asked for in a way that an absent one is no error, since an error would count as a failure of the policy.

use super::{literal, literals};
use crate::names::{
    ALWAYS_EXEMPT, BURST_ANNOTATION, BURST_VALUES, MIRROR_ANNOTATION, OS_LABELS, VIRTUAL_NODE_LABEL,
    VIRTUAL_NODE_PREFIX, VIRTUAL_NODE_TAINT,
};
use crate::reason::Reason;
use crate::settings::{InjectionSettings, MergeMode, SoftPlacement};

/// One match condition.
pub(super) struct Condition {
    /// The reason that it spares the Pod for.
    pub(super) reason: Reason,
    /// True for a Pod that passes.
    pub(super) expression: String,
}

/// All of them, in the table's order.
pub(super) fn conditions(settings: &InjectionSettings) -> Vec<Condition> {
    let exempt = ALWAYS_EXEMPT.into_iter().chain(settings.exempt_namespaces.iter().map(String::as_str));
    let mut all = vec![
        (Reason::NamespaceExempt, format!("!(request.namespace in {})", literals(exempt))),
        (
            Reason::MirrorPod,
            format!("!({} in object.metadata.?annotations.orValue({{}}))", literal(MIRROR_ANNOTATION)),
        ),
        (Reason::Windows, not_windows()),
        (Reason::VirtualNodePlacement, no_virtual_node()),
    ];
    if settings.soft_placement == SoftPlacement::Skip {
        let taint = literal(VIRTUAL_NODE_TAINT);
        all.push((
            Reason::VirtualNodePossible,
            format!("!object.spec.?tolerations.orValue([]).exists(t, t.?key.orValue('') == {taint})"),
        ));
    }
    all.push((Reason::DnsPolicyUnknown, dns_policy(settings.host_net_policy_without_host_network)));
    all.push((Reason::AlreadyConfigured, not_configured(settings)));
    if settings.merge == MergeMode::Skip {
        let empty = |list: &str| format!("object.spec.?dnsConfig.?{list}.orValue([]).size() == 0");
        let lists = ["nameservers", "searches", "options"].map(empty).join(" && ");
        all.push((Reason::UserDnsConfig, lists));
    }
    all.into_iter().map(|(reason, expression)| Condition { reason, expression }).collect()
}

/// The terms of the required node affinity, and those of their conditions that ask for one of several values.
fn asks(part: &str, condition: &str) -> String {
    format!(
        "object.spec.?affinity.?nodeAffinity.?requiredDuringSchedulingIgnoredDuringExecution.?nodeSelectorTerms.orValue([])\
         .exists(t, t.?{part}.orValue([]).exists(c, c.operator == 'In' && {condition}))"
    )
}

fn not_windows() -> String {
    let keys = literals(OS_LABELS);
    let selector = format!("{keys}.exists(k, object.spec.?nodeSelector[?k].orValue('') == 'windows')");
    let affinity =
        asks("matchExpressions", &format!("c.key in {keys} && 'windows' in c.?values.orValue([])"));
    format!("!(object.spec.?os.?name.orValue('') == 'windows' || {selector} || {affinity})")
}

fn no_virtual_node() -> String {
    let (key, value) = (literal(VIRTUAL_NODE_LABEL.0), literal(VIRTUAL_NODE_LABEL.1));
    let prefix = literal(VIRTUAL_NODE_PREFIX);
    let parts = [
        format!("object.spec.?nodeName.orValue('').startsWith({prefix})"),
        format!("object.spec.?nodeSelector[?{key}].orValue('') == {value}"),
        asks("matchExpressions", &format!("c.key == {key} && {value} in c.?values.orValue([])")),
        asks(
            "matchFields",
            &format!("c.key == 'metadata.name' && c.?values.orValue([]).exists(v, v.startsWith({prefix}))"),
        ),
        format!(
            "object.metadata.?annotations[?{}].orValue('') in {}",
            literal(BURST_ANNOTATION),
            literals(BURST_VALUES)
        ),
    ];
    format!("!({})", parts.join(" || "))
}

fn dns_policy(lenient: bool) -> String {
    let policy = "object.spec.?dnsPolicy.orValue('ClusterFirst')";
    let host = "object.spec.?hostNetwork.orValue(false)";
    let with_host_net = format!("{policy} == 'ClusterFirstWithHostNet'");
    let with_host_net = if lenient { with_host_net } else { format!("{with_host_net} && {host}") };
    format!("({policy} in ['', 'ClusterFirst'] && !{host}) || ({with_host_net})")
}

/// The addresses compare as addresses: two ways to write one are one.
fn not_configured(settings: &InjectionSettings) -> String {
    let locals: Vec<String> = settings.node_local.iter().map(ToString::to_string).collect();
    let locals = literals(locals.iter().map(String::as_str));
    format!(
        "!object.spec.?dnsConfig.?nameservers.orValue([]).exists(n, isIP(n) && string(ip(n)) in {locals})"
    )
}
