//! The part of a Pod that the decision looks at, borrowed from the request's bytes. Everything else, which is nearly all of a Pod, is
//! skipped without being kept; so unknown fields, of this version of the API or a later one, cannot be lost.
//!
//! `null` counts as absent everywhere, as it does in Kubernetes.

mod json;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

pub use json::{NotAPod, Object, Pairs, Text};

/// A Pod, as far as the decision looks; see [`Pod::read`].
#[derive(Debug, serde::Deserialize)]
pub struct Pod<'a> {
    /// Labels, annotations, owners.
    #[serde(borrow)]
    pub metadata: Object<Metadata<'a>>,
    /// Placement and DNS.
    #[serde(borrow)]
    pub spec: Object<Spec<'a>>,
}

impl<'a> Pod<'a> {
    /// Reads a Pod's JSON, or says what is no Pod's, and near which field.
    pub fn read(json: &'a str) -> Result<Self, NotAPod> {
        serde_json::from_str::<Object<Self>>(json)
            .map(|pod| pod.0)
            .map_err(|error| NotAPod::new(json, &error))
    }
}

/// `metadata`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// Empty for a Pod that is to get a generated name.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// What the generated name begins with.
    #[serde(borrow, default)]
    pub generate_name: Option<Text<'a>>,
    /// Empty in controllers' Pods on old API servers; the request's counts.
    #[serde(borrow, default)]
    pub namespace: Option<Text<'a>>,
    /// Labels.
    #[serde(borrow, default)]
    pub labels: Option<Pairs<'a>>,
    /// Annotations.
    #[serde(borrow, default)]
    pub annotations: Option<Pairs<'a>>,
    /// Who made it.
    #[serde(borrow, default)]
    pub owner_references: Option<Vec<Object<OwnerReference<'a>>>>,
}

impl Metadata<'_> {
    /// One label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key)
    }

    /// One annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key)
    }

    /// The controller among the owners, else the first.
    pub fn owner(&self) -> Option<&OwnerReference<'_>> {
        let owners = self.owner_references.as_deref()?;
        owners
            .iter()
            .find(|owner| owner.controller == Some(true))
            .or_else(|| owners.first())
            .map(|owner| &**owner)
    }

    /// The name, or its beginning and a star while it is to be generated.
    pub fn display_name(&self) -> String {
        match (&self.name, &self.generate_name) {
            (Some(name), _) if !name.is_empty() => name.to_string(),
            (_, Some(prefix)) => format!("{}*", &**prefix),
            _ => String::new(),
        }
    }
}

/// `metadata.ownerReferences[]`
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference<'a> {
    /// As in `apps/v1`.
    #[serde(borrow, default)]
    pub api_version: Option<Text<'a>>,
    /// As in `ReplicaSet`.
    #[serde(borrow, default)]
    pub kind: Option<Text<'a>>,
    /// Its name.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// Its UID.
    #[serde(borrow, default)]
    pub uid: Option<Text<'a>>,
    /// Whether it is the one that manages the Pod.
    #[serde(default)]
    pub controller: Option<bool>,
}

/// `spec`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec<'a> {
    /// The node's own network.
    #[serde(default)]
    pub host_network: Option<bool>,
    /// The API server writes `ClusterFirst` where it is absent.
    #[serde(borrow, default)]
    pub dns_policy: Option<Text<'a>>,
    /// What the user wants besides.
    #[serde(borrow, default)]
    pub dns_config: Option<DnsConfig<'a>>,
    /// Set by those who schedule themselves.
    #[serde(borrow, default)]
    pub node_name: Option<Text<'a>>,
    /// Labels that the node must have.
    #[serde(borrow, default)]
    pub node_selector: Option<Pairs<'a>>,
    /// Only the required node affinity is looked at.
    #[serde(borrow, default)]
    pub affinity: Option<Object<Affinity<'a>>>,
    /// Taints that are no obstacle.
    #[serde(borrow, default)]
    pub tolerations: Option<Vec<Object<Toleration<'a>>>>,
    /// The operating system.
    #[serde(borrow, default)]
    pub os: Option<Object<Os<'a>>>,
}

impl<'a> Spec<'a> {
    /// The terms of the required node affinity; one of them has to hold.
    pub fn required_node_terms(&self) -> &[Object<NodeSelectorTerm<'a>>] {
        self.affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref())
            .and_then(|selector| selector.node_selector_terms.as_deref())
            .unwrap_or_default()
    }

    /// The user's `dnsConfig`, unless there is nothing in it.
    pub fn own_dns_config(&self) -> Option<&DnsConfig<'a>> {
        self.dns_config.as_ref().filter(|config| !config.is_empty())
    }
}

/// `spec.os`
#[derive(Debug, serde::Deserialize)]
pub struct Os<'a> {
    /// `linux` or `windows`.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
}

/// `spec.tolerations[]`
#[derive(Debug, serde::Deserialize)]
pub struct Toleration<'a> {
    /// Absent means every taint.
    #[serde(borrow, default)]
    pub key: Option<Text<'a>>,
}

/// `spec.affinity`
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affinity<'a> {
    #[serde(borrow, default)]
    node_affinity: Option<Object<NodeAffinity<'a>>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeAffinity<'a> {
    #[serde(borrow, default)]
    required_during_scheduling_ignored_during_execution: Option<Object<NodeSelector<'a>>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSelector<'a> {
    #[serde(borrow, default)]
    node_selector_terms: Option<Vec<Object<NodeSelectorTerm<'a>>>>,
}

/// One alternative of the required node affinity.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelectorTerm<'a> {
    /// About the node's labels.
    #[serde(borrow, default)]
    pub match_expressions: Option<Vec<Object<NodeSelectorRequirement<'a>>>>,
    /// About the node's fields, of which there is one: `metadata.name`.
    #[serde(borrow, default)]
    pub match_fields: Option<Vec<Object<NodeSelectorRequirement<'a>>>>,
}

/// One condition on the node.
#[derive(Debug, serde::Deserialize)]
pub struct NodeSelectorRequirement<'a> {
    /// Label key or field.
    #[serde(borrow, default)]
    pub key: Option<Text<'a>>,
    /// As in `In`.
    #[serde(borrow, default)]
    pub operator: Option<Text<'a>>,
    /// What it is compared with.
    #[serde(borrow, default)]
    pub values: Option<Vec<Text<'a>>>,
}

/// `spec.dnsConfig`. Options and fields that are not known are kept as they stand in the request.
#[derive(Debug, Default)]
pub struct DnsConfig<'a> {
    /// As written.
    pub nameservers: Vec<Text<'a>>,
    /// As written.
    pub searches: Vec<Text<'a>>,
    /// As written.
    pub options: Vec<DnsOption<'a>>,
    /// Fields that this version does not know.
    pub others: Vec<(Text<'a>, &'a RawValue)>,
}

/// `spec.dnsConfig.options[]`
#[derive(Clone, Debug)]
pub struct DnsOption<'a> {
    /// As in `ndots`.
    pub name: Text<'a>,
    /// The whole element, byte for byte.
    pub raw: &'a RawValue,
}

impl DnsConfig<'_> {
    fn is_empty(&self) -> bool {
        self.nameservers.is_empty()
            && self.searches.is_empty()
            && self.options.is_empty()
            && self.others.is_empty()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for DnsOption<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Named<'a> {
            #[serde(borrow, default)]
            name: Option<Text<'a>>,
            #[serde(borrow, default, rename = "value")]
            _value: Option<Text<'a>>,
        }

        let raw = <&'de RawValue>::deserialize(deserializer)?;
        let named: Object<Named<'a>> = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        Ok(Self { name: named.0.name.unwrap_or_default(), raw })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for DnsConfig<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ConfigVisitor<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for ConfigVisitor<'a> {
            type Value = DnsConfig<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a dnsConfig")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<DnsConfig<'a>, M::Error> {
                let mut config = DnsConfig::default();
                while let Some(key) = map.next_key::<Text<'a>>()? {
                    match &*key {
                        "nameservers" => config.nameservers = or_empty(map.next_value()?),
                        "searches" => config.searches = or_empty(map.next_value()?),
                        "options" => config.options = or_empty(map.next_value()?),
                        _ => config.others.push((key, map.next_value()?)),
                    }
                }
                Ok(config)
            }
        }

        deserializer.deserialize_map(ConfigVisitor(PhantomData))
    }
}

fn or_empty<T>(list: Option<Vec<T>>) -> Vec<T> {
    list.unwrap_or_default()
}
