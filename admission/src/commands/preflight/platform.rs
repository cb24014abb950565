//! What clouds and network plug-ins want: Terway's list of addresses that stay on the node, and CoreDNS asking PrivateZone over UDP.

use std::net::IpAddr;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::cluster::read::{get, list};
use crate::commands::checks::Check;
use crate::commands::cidr;
use crate::commands::nodes::Nodes;

/// Where Terway is installed.
const SYSTEM: &str = "kube-system";

/// The first Terway with which node-local DNS works, in the modes that need it.
const TERWAY_MIN: [u32; 4] = [1, 0, 10, 301];

/// Terway, where it is installed.
pub(super) async fn terway(client: &Client, node_local: &[IpAddr]) -> Vec<Check> {
    const CHECK: &str = "Terway";
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM);
    let config = match get(&maps, "ConfigMap eni-config", "eni-config").await {
        Ok(Some(config)) => config,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![Check::unknown(CHECK, &error)],
    };
    let mut checks = Vec::new();
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), SYSTEM);
    match list(&sets, "DaemonSets", &ListParams::default()).await {
        Ok(sets) => checks.extend(sets.iter().filter_map(version)),
        Err(error) => checks.push(Check::unknown(CHECK, &error)),
    }
    let text = config.data.as_ref().and_then(|data| data.get("10-terway.conf")).map_or("", String::as_str);
    checks.extend(stack_cidrs(text, node_local));
    checks
}

fn version(set: &DaemonSet) -> Option<Check> {
    const CHECK: &str = "Terway version";
    if !set.name_any().starts_with("terway") {
        return None;
    }
    let containers = set.spec.as_ref()?.template.spec.as_ref()?.containers.iter();
    let image = containers.filter_map(|c| c.image.as_deref()).find(|image| image.contains("terway"))?;
    let (_, tag) = image.rsplit_once(':')?;
    let Some(numbers) = numbers(tag) else {
        return Some(Check::warning(
            CHECK,
            format!("{tag} is no version that can be compared"),
            "it has to be v1.0.10.301 or later",
        ));
    };
    Some(if numbers < TERWAY_MIN {
        Check::problem(CHECK, format!("{tag} is too old"), "upgrade Terway to v1.0.10.301 or later first")
    } else {
        Check::ok(CHECK, tag)
    })
}

/// `v1.0.10.301-1a2b3c4-aliyun`; what is missing is 0.
fn numbers(tag: &str) -> Option<[u32; 4]> {
    let version = tag.strip_prefix('v')?.split('-').next()?;
    let mut numbers = [0; 4];
    for (place, text) in version.split('.').enumerate() {
        *numbers.get_mut(place)? = text.parse().ok()?;
    }
    Some(numbers)
}

/// In IPVLAN mode Pods' packets leave the node past its own network, but for these addresses.
fn stack_cidrs(config: &str, node_local: &[IpAddr]) -> Option<Check> {
    const CHECK: &str = "Terway addresses";
    let Ok(config) = serde_json::from_str::<Value>(config) else {
        return Some(Check::warning(
            CHECK,
            "10-terway.conf in ConfigMap eni-config is no JSON",
            "look at it with your Terway's documentation",
        ));
    };
    let mode = config["eniip_virtual_type"].as_str().unwrap_or_default();
    if !mode.eq_ignore_ascii_case("ipvlan") && !mode.eq_ignore_ascii_case("datapathv2") {
        return None;
    }
    let ranges = config["host_stack_cidrs"].as_array();
    let ranges: Vec<&str> = ranges.into_iter().flatten().filter_map(Value::as_str).collect();
    let missing: Vec<String> = node_local
        .iter()
        .filter(|address| !ranges.iter().any(|range| cidr::holds(range, **address)))
        .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
        .collect();
    Some(if missing.is_empty() {
        Check::ok(CHECK, format!("host_stack_cidrs hold the node-local address ({mode})"))
    } else {
        let list = missing.join("\", \"");
        Check::problem(
            CHECK,
            format!("Terway runs as {mode}, and host_stack_cidrs lack {}", missing.join(", ")),
            format!(
                "add \"host_stack_cidrs\": [\"{list}\"] to 10-terway.conf in ConfigMap kube-system/eni-config and restart Terway's Pods"
            ),
        )
    })
}

/// CoreDNS is asked over TCP and asks its own upstream over the same; some regions' PrivateZone answers UDP only.
pub(super) async fn private_zone(client: &Client, nodes: &Nodes, namespace: &str) -> Check {
    const CHECK: &str = "PrivateZone";
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let corefile = match get(&maps, "ConfigMap coredns", "coredns").await {
        Ok(map) => map.and_then(|map| map.data?.remove("Corefile")),
        Err(error) => return Check::unknown(CHECK, &error),
    };
    let Some(corefile) = corefile else {
        return Check::note(CHECK, "CoreDNS' ConfigMap is not there; not looked at");
    };
    if forwards_prefer_udp(&corefile) {
        return Check::ok(CHECK, "CoreDNS asks its upstream over UDP (prefer_udp)");
    }
    if !nodes.is_alibaba_cloud {
        return Check::ok(CHECK, "only of interest on Alibaba Cloud");
    }
    Check::warning(
        CHECK,
        "CoreDNS forwards with the protocol it was asked with, which is TCP; PrivateZone does not answer that everywhere",
        "if you use PrivateZone, add `prefer_udp` to the forward block in ConfigMap kube-system/coredns",
    )
}

/// Whether every `forward` of a Corefile has `prefer_udp`. A Corefile without `forward` has nothing to prefer.
fn forwards_prefer_udp(corefile: &str) -> bool {
    let mut lines = corefile.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    while let Some(line) = lines.next() {
        if line.split_whitespace().next() != Some("forward") {
            continue;
        }
        if !line.ends_with('{') {
            return false;
        }
        let block = lines.by_ref().take_while(|line| *line != "}");
        // Read to its end even when it is found.
        if block.filter(|line| *line == "prefer_udp").count() == 0 {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::checks::Verdict;

    #[test]
    fn terways_versions_are_compared_as_numbers() {
        assert_eq!(numbers("v1.0.10.301-1a2b3c4-aliyun"), Some([1, 0, 10, 301]));
        assert_eq!(numbers("v1.5.6"), Some([1, 5, 6, 0]));
        assert!(numbers("v1.0.9.999-x") < Some(TERWAY_MIN));
        assert!(numbers("v1.0.10.302") > Some(TERWAY_MIN));
        assert_eq!((numbers("latest"), numbers("v1.2.3.4.5"), numbers("v1.x")), (None, None, None));
    }

    #[test]
    fn terways_addresses_matter_in_ipvlan_mode_only() {
        let local = ["169.254.20.10".parse().expect("an address")];
        let verdict = |config: &str| stack_cidrs(config, &local).map(|check| check.verdict);
        assert_eq!(verdict(r#"{"eniip_virtual_type": "Veth"}"#), None);
        assert_eq!(verdict(r#"{"eniip_virtual_type": "IPVlan"}"#), Some(Verdict::Problem));
        let with =
            |range: &str| format!(r#"{{"eniip_virtual_type": "IPVlan", "host_stack_cidrs": ["{range}"]}}"#);
        assert_eq!(verdict(&with("169.254.20.10/32")), Some(Verdict::Ok));
        assert_eq!(verdict(&with("100.64.0.0/10")), Some(Verdict::Problem));
        assert_eq!(verdict("{"), Some(Verdict::Warning));
        let check = stack_cidrs(r#"{"eniip_virtual_type": "IPVlan"}"#, &local).expect("a check");
        assert!(check.remedy.contains(r#"["169.254.20.10/32"]"#), "{}", check.remedy);
    }

    #[test]
    fn every_forward_has_to_prefer_udp() {
        for (corefile, wanted) in [
            (".:53 {\n  forward . /etc/resolv.conf\n}\n", false),
            (".:53 {\n  forward . /etc/resolv.conf {\n    max_concurrent 1000\n  }\n}\n", false),
            (".:53 {\n  forward . /etc/resolv.conf {\n    prefer_udp # for PrivateZone\n  }\n}\n", true),
            ("a {\n  forward . 1.1.1.1 {\n    prefer_udp\n  }\n}\nb {\n  forward . 1.1.1.1\n}\n", false),
            (".:53 {\n  # forward . 1.1.1.1\n  cache\n}\n", true),
            (".:53 {\n  forward . /etc/resolv.conf {\n    perfer_udp\n  }\n}\n", false),
        ] {
            assert_eq!(forwards_prefer_udp(corefile), wanted, "{corefile}");
        }
    }
}
