//! Where a Pod will run, as far as its spec says: rows 9 to 11. A required node affinity is a list of alternatives; one that names
//! Windows or a virtual node is enough to stop, since the scheduler may choose it.

use super::Input;
use crate::names::{
    BURST_ANNOTATION, BURST_VALUES, OS_LABELS, VIRTUAL_NODE_LABEL, VIRTUAL_NODE_PREFIX, VIRTUAL_NODE_TAINT,
};
use crate::pod::{NodeSelectorRequirement, Pod};
use crate::reason::Reason;

const WINDOWS: &str = "windows";

/// Row 9.
pub(super) fn windows(input: &Input<'_>) -> Option<Reason> {
    let spec = &input.pod.spec;
    let by_field = spec.os.as_ref().and_then(|os| os.name.as_deref()) == Some(WINDOWS);
    let by_label =
        || spec.node_selector.iter().any(|s| OS_LABELS.iter().any(|key| s.get(key) == Some(WINDOWS)));
    let by_affinity = || {
        expressions(input.pod)
            .any(|condition| OS_LABELS.iter().any(|key| asks_for(condition, key, |value| value == WINDOWS)))
    };
    (by_field || by_label() || by_affinity()).then_some(Reason::Windows)
}

/// Row 10.
pub(super) fn virtual_node(input: &Input<'_>) -> Option<Reason> {
    let spec = &input.pod.spec;
    let (key, value) = VIRTUAL_NODE_LABEL;
    let is_virtual = |name: &str| name.starts_with(VIRTUAL_NODE_PREFIX);
    let by_name = spec.node_name.as_deref().is_some_and(is_virtual);
    let by_label = || spec.node_selector.as_ref().is_some_and(|selector| selector.get(key) == Some(value));
    let by_affinity = || {
        expressions(input.pod).any(|condition| asks_for(condition, key, |asked| asked == value))
            || fields(input.pod).any(|condition| asks_for(condition, "metadata.name", is_virtual))
    };
    let by_annotation =
        || input.pod.metadata.annotation(BURST_ANNOTATION).is_some_and(|value| BURST_VALUES.contains(&value));
    let found = by_name || by_label() || by_affinity() || by_annotation();
    found.then_some(Reason::VirtualNodePlacement)
}

/// Row 11. A toleration of everything (`operator: Exists` without a key) is what daemons have, and says nothing about virtual nodes.
pub(super) fn tolerates_virtual_node(pod: &Pod<'_>) -> bool {
    let mut tolerations = pod.spec.tolerations.iter().flatten();
    tolerations.any(|toleration| toleration.key.as_deref() == Some(VIRTUAL_NODE_TAINT))
}

fn expressions<'a>(pod: &'a Pod<'a>) -> impl Iterator<Item = &'a NodeSelectorRequirement<'a>> {
    pod.spec
        .required_node_terms()
        .iter()
        .flat_map(|term| term.match_expressions.iter().flatten().map(|o| &**o))
}

fn fields<'a>(pod: &'a Pod<'a>) -> impl Iterator<Item = &'a NodeSelectorRequirement<'a>> {
    pod.spec.required_node_terms().iter().flat_map(|term| term.match_fields.iter().flatten().map(|o| &**o))
}

fn asks_for(condition: &NodeSelectorRequirement<'_>, key: &str, value: impl Fn(&str) -> bool) -> bool {
    condition.key.as_deref() == Some(key)
        && condition.operator.as_deref() == Some("In")
        && condition.values.iter().flatten().any(|asked| value(asked))
}
