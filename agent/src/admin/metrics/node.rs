//! The node's interface and packet rules: node-cache's one metric, and what it has no number for.

use nodens_node::{BackEnd, FailureKind, Part};

use super::Snapshot;
use crate::admin::exposition::{Exposition, Kind};

/// node-cache's word for a template or a ConfigMap that cannot be used.
const CONFIGMAP: &str = "configmap";

pub(super) fn write(snapshot: &Snapshot<'_>, out: &mut Exposition) {
    let mut family = out.family(
        Kind::Counter,
        "coredns_nodecache_setup_errors_total",
        "Failures to set up the node, by what failed; packet rules of either back end count as iptables.",
    );
    for kind in FailureKind::ALL {
        let count = snapshot.node.map_or(0, |node| node.errors(kind));
        family.sample(&[("errortype", kind.label())], count);
    }
    family.sample(&[("errortype", CONFIGMAP)], snapshot.control.templates_failed.get());
    let Some(node) = snapshot.node else { return };
    let mut family = out.family(
        Kind::Counter,
        "nodens_node_drifts_total",
        "How often others had changed a part of the node that was as it should be.",
    );
    for part in Part::ALL {
        family.sample(&[("part", part.label())], node.drifts(part));
    }
    out.counter("nodens_node_repairs_total", "How often something was put right.", node.repairs());
    out.gauge(
        "nodens_node_last_success_timestamp_seconds",
        "When the node was last seen to be as it should be; 0 for never.",
        node.last_success_s(),
    );
    let mut family = out.family(
        Kind::Gauge,
        "nodens_node_packet_rules",
        "1 for what writes packet rules; 0 for all while there are none.",
    );
    for back_end in BackEnd::ALL {
        let is_it = node.back_end() == Some(back_end);
        family.sample(&[("backend", &back_end.to_string())], u8::from(is_it));
    }
}
