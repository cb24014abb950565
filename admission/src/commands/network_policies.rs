//! Which NetworkPolicies stand between a Pod and the node-local address.
//!
//! Policies only ever add: a Pod that some policy isolates for egress may talk to what any of the policies that select it allows. The usual
//! DNS rule names kube-dns' Pods by label; the node-local address is no Pod, so that rule does not cover it, and an `ipBlock` is
//! needed. Some network plug-ins let traffic to a Pod's own node through whatever policies say, so what is found here may work.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::cidr;
use crate::pod::Pairs;

/// The port of DNS (RFC 1035 §4.2).
const DNS_PORT: i32 = 53;

/// The policies of one namespace that isolate for egress.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    egress: Vec<NetworkPolicy>,
}

/// What they do to a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing stands in the way.
    Open,
    /// Nothing allows these protocols; the policies that isolate the Pod.
    Blocked {
        /// As in `UDP and TCP`.
        protocols: &'static str,
        /// Their names.
        policies: Vec<String>,
    },
}

impl Policies {
    /// Takes a policy in, if it is about egress.
    pub(super) fn add(&mut self, policy: NetworkPolicy) {
        let Some(spec) = &policy.spec else { return };
        let is_egress = match &spec.policy_types {
            Some(types) if !types.is_empty() => types.iter().any(|kind| kind == "Egress"),
            // Without a list of types, rules say it.
            _ => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        };
        if is_egress {
            self.egress.push(policy);
        }
    }

    /// Whether a Pod with these labels can ask `address`.
    pub(super) fn reach(&self, labels: Option<&Pairs<'_>>, address: IpAddr) -> Reach {
        let selecting: Vec<_> = self.egress.iter().filter(|policy| selects(policy, labels)).collect();
        if selecting.is_empty() {
            return Reach::Open;
        }
        let rules = || selecting.iter().filter_map(|p| p.spec.as_ref()?.egress.as_ref()).flatten();
        let is_allowed = |protocol| rules().any(|rule| allows(rule, address, protocol));
        let protocols = match (is_allowed("UDP"), is_allowed("TCP")) {
            (true, true) => return Reach::Open,
            (false, false) => "UDP and TCP",
            (false, true) => "UDP",
            (true, false) => "TCP",
        };
        Reach::Blocked { protocols, policies: selecting.iter().map(|policy| policy.name_any()).collect() }
    }
}

fn selects(policy: &NetworkPolicy, labels: Option<&Pairs<'_>>) -> bool {
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
    selector.is_none_or(|selector| is_match(selector, labels))
}

/// A selector without terms matches every Pod.
fn is_match(selector: &LabelSelector, labels: Option<&Pairs<'_>>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let labels_hold = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    labels_hold
        && selector.match_expressions.iter().flatten().all(|term| {
            let value = value(&term.key);
            let is_listed = || value.is_some_and(|v| term.values.iter().flatten().any(|wanted| wanted == v));
            match term.operator.as_str() {
                "In" => is_listed(),
                "NotIn" => !is_listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

fn allows(rule: &NetworkPolicyEgressRule, address: IpAddr, protocol: &str) -> bool {
    let peers = rule.to.as_deref().unwrap_or_default();
    let ports = rule.ports.as_deref().unwrap_or_default();
    let is_reached = peers.is_empty()
        || peers.iter().filter_map(|peer| peer.ip_block.as_ref()).any(|block| {
            cidr::holds(&block.cidr, address)
                && !block.except.iter().flatten().any(|range| cidr::holds(range, address))
        });
    is_reached && (ports.is_empty() || ports.iter().any(|port| is_dns(port, protocol)))
}

fn is_dns(port: &NetworkPolicyPort, protocol: &str) -> bool {
    if port.protocol.as_deref().unwrap_or("TCP") != protocol {
        return false;
    }
    match &port.port {
        None => true,
        Some(IntOrString::Int(first)) => (*first..=port.end_port.unwrap_or(*first)).contains(&DNS_PORT),
        // A name is one of a Pod's ports; the node-local address is no Pod.
        Some(IntOrString::String(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NODE_LOCAL: &str = "169.254.20.10";

    fn reach(specs: &[Value], labels: &str) -> Reach {
        let mut policies = Policies::default();
        for (n, spec) in specs.iter().enumerate() {
            let policy = json!({"metadata": {"name": format!("p{n}")}, "spec": spec});
            policies.add(serde_json::from_value(policy).expect("a policy"));
        }
        let labels: Pairs<'_> = serde_json::from_str(labels).expect("labels");
        policies.reach(Some(&labels), NODE_LOCAL.parse().expect("an address"))
    }

    fn blocked(protocols: &'static str, policies: &[&str]) -> Reach {
        Reach::Blocked { protocols, policies: policies.iter().map(|name| (*name).to_owned()).collect() }
    }

    /// Egress for every Pod with these rules.
    fn all(egress: Value) -> Value {
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress})
    }

    #[test]
    fn the_usual_dns_rule_by_label_blocks_the_node_local_address() {
        let by_label = all(json!([{
            "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
        }]));
        assert_eq!(reach(std::slice::from_ref(&by_label), "{}"), blocked("UDP and TCP", &["p0"]));
        // Another policy that allows it is enough.
        let by_address = all(json!([{"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}]}]));
        assert_eq!(reach(&[by_label, by_address], "{}"), Reach::Open);
    }

    #[test]
    fn rules_are_read_as_kubernetes_reads_them() {
        let both = "UDP and TCP";
        for (what, egress, wanted) in [
            ("no rule: nothing is allowed", json!([]), blocked(both, &["p0"])),
            ("an empty rule allows all", json!([{}]), Reach::Open),
            (
                "no peers: all",
                json!([{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}]),
                Reach::Open,
            ),
            ("the protocol is TCP unless named", json!([{"ports": [{"port": 53}]}]), blocked("UDP", &["p0"])),
            ("UDP alone", json!([{"ports": [{"port": 53, "protocol": "UDP"}]}]), blocked("TCP", &["p0"])),
            (
                "other ports",
                json!([{"ports": [{"port": 443}, {"port": 54, "protocol": "UDP"}]}]),
                blocked(both, &["p0"]),
            ),
            (
                "a range of ports",
                json!([{"ports": [{"port": 1, "endPort": 100, "protocol": "UDP"}, {"protocol": "TCP"}]}]),
                Reach::Open,
            ),
            (
                "an exception",
                json!([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]}]),
                blocked(both, &["p0"]),
            ),
            (
                "a named port",
                json!([{"ports": [{"port": "dns", "protocol": "UDP"}]}]),
                blocked(both, &["p0"]),
            ),
        ] {
            assert_eq!(reach(&[all(egress)], "{}"), wanted, "{what}");
        }
    }

    #[test]
    fn only_policies_that_select_the_pod_and_isolate_egress_count() {
        let ingress = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []});
        assert_eq!(reach(&[ingress], "{}"), Reach::Open);
        // No list of types: egress rules make it one.
        let implied = json!({"podSelector": {}, "egress": [{"ports": [{"port": 443}]}]});
        assert_eq!(reach(&[implied], "{}"), blocked("UDP and TCP", &["p0"]));
        let deny = |selector: Value| json!({"podSelector": selector, "policyTypes": ["Egress"]});
        let web = deny(json!({"matchLabels": {"app": "web"}}));
        assert_eq!(reach(std::slice::from_ref(&web), r#"{"app": "db"}"#), Reach::Open);
        assert_eq!(reach(&[web], r#"{"app": "web"}"#), blocked("UDP and TCP", &["p0"]));
        for (operator, values, labels, is_selected) in [
            ("In", json!(["web"]), r#"{"app": "web"}"#, true),
            ("In", json!(["web"]), "{}", false),
            ("NotIn", json!(["web"]), r#"{"app": "web"}"#, false),
            ("NotIn", json!(["web"]), "{}", true),
            ("Exists", json!([]), r#"{"app": ""}"#, true),
            ("Exists", json!([]), "{}", false),
            ("DoesNotExist", json!([]), "{}", true),
        ] {
            let selector =
                json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
            let wanted = if is_selected { blocked("UDP and TCP", &["p0"]) } else { Reach::Open };
            assert_eq!(reach(&[deny(selector)], labels), wanted, "{operator} {labels}");
        }
    }
}
