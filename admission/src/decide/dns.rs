//! The `dnsConfig` of an injected Pod: the cluster's entries first, then the user's, as the kubelet does it for `ClusterFirst`
//! (appendDNSConfig in pkg/kubelet/network/dns).
//!
//! | list | ours | then the user's | limit |
//! |---|---|---|---|
//! | nameservers | node-local, kube-dns | those that are not there yet | cut to 3, as the kubelet cuts |
//! | searches | NAMESPACE.svc.DOMAIN, svc.DOMAIN, DOMAIN, configured ones | those that are not there yet | none is dropped: row 16 |
//! | options | ndots, attempts, timeout, where the user has none of that name | all, first and untouched | none |
//!
//! The lists are atomic in the API, so each is written whole. Options and unknown fields of the user's are copied byte for byte.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};
use serde_json::value::RawValue;

use super::Input;
use crate::pod::{DnsOption, Text};
use crate::settings::{DualStack, InjectionSettings, MergeMode};
use crate::validate::{self, Broken};

/// What is written to `spec.dnsConfig`.
#[derive(Clone, Debug)]
pub struct DnsSettings<'a> {
    /// At most three, in canonical form.
    pub nameservers: Vec<IpAddr>,
    /// Without duplicates.
    pub searches: Vec<Cow<'a, str>>,
    /// The user's, then ours.
    pub options: Vec<OptionEntry<'a>>,
    /// The user's fields that this version does not know.
    pub others: Vec<(Text<'a>, &'a RawValue)>,
    /// Nameservers of the user's that found no place.
    pub nameservers_cut: usize,
}

/// An entry of `options`.
#[derive(Clone, Debug)]
pub enum OptionEntry<'a> {
    /// As the user wrote it.
    User(DnsOption<'a>),
    /// Ours.
    Ours {
        /// As in `ndots`.
        name: &'static str,
        /// As in `3`.
        value: u32,
    },
}

impl OptionEntry<'_> {
    /// As in `ndots`.
    pub fn name(&self) -> &str {
        match self {
            Self::User(option) => &option.name,
            Self::Ours { name, .. } => name,
        }
    }
}

impl DnsSettings<'_> {
    /// Against the API server's rules, which ask for a nameserver where the policy is `None`.
    pub fn validate(&self) -> Result<(), Broken> {
        if self.nameservers.is_empty() {
            return Err(Broken::NoNameserver);
        }
        let nameservers: Vec<String> = self.nameservers.iter().map(ToString::to_string).collect();
        validate::dns_config(
            nameservers.iter().map(String::as_str),
            self.searches.iter().map(|search| &**search),
            self.options.iter().map(OptionEntry::name),
        )
    }
}

/// Puts ours and the user's together; checked against the API's rules.
pub(super) fn merged<'a>(input: &Input<'a>) -> Result<DnsSettings<'a>, Broken> {
    let settings = input.config.settings();
    let mut result = ours(input)?;
    let user = input.pod.spec.dns_config.as_ref().filter(|_| settings.merge != MergeMode::Overwrite);
    if let Some(user) = user {
        // A Pod that breaks the rules by itself is not ours to mend: the API server tells its author.
        validate::dns_config(
            user.nameservers.iter().map(|text| &**text),
            user.searches.iter().map(|text| &**text),
            user.options.iter().map(|option| &*option.name),
        )?;
        for address in user.nameservers.iter().filter_map(|text| text.parse().ok()) {
            push_address(&mut result.nameservers, address);
        }
        for search in &user.searches {
            push_search(&mut result.searches, search.0.clone());
        }
        result.options.retain(|ours| user.options.iter().all(|option| &*option.name != ours.name()));
        let users = user.options.iter().cloned().map(OptionEntry::User);
        result.options.splice(..0, users);
        result.others.clone_from(&user.others);
    }
    result.nameservers_cut = result.nameservers.len().saturating_sub(validate::NAMESERVERS_MAX);
    result.nameservers.truncate(validate::NAMESERVERS_MAX);
    result.validate().map(|()| result)
}

fn ours<'a>(input: &Input<'a>) -> Result<DnsSettings<'a>, Broken> {
    let settings = input.config.settings();
    let overrides = &input.overrides;
    let namespace = input.request.namespace();
    if !validate::is_dns1123_label(namespace) {
        return Err(Broken::NotADomain);
    }
    let backups = match settings.include_kube_dns && !overrides.single_nameserver {
        true => input.config.kube_dns(),
        false => &[],
    };
    let mut nameservers = Vec::with_capacity(validate::NAMESERVERS_MAX);
    for address in
        node_local(settings, input.config.kube_dns().first()).into_iter().chain(backups.iter().copied())
    {
        push_address(&mut nameservers, address);
    }
    nameservers.truncate(validate::NAMESERVERS_MAX);
    let domain = settings.cluster_domain.as_str();
    let mut searches = Vec::with_capacity(4);
    let cluster = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    for search in cluster.iter().chain(&settings.extra_searches).chain(&overrides.searches) {
        push_search(&mut searches, Cow::Owned(search.clone()));
    }
    let ours = |name, value| OptionEntry::Ours { name, value };
    let options = vec![
        ours("ndots", overrides.ndots.unwrap_or(settings.ndots)),
        ours("attempts", overrides.attempts.unwrap_or(settings.attempts)),
        ours("timeout", overrides.timeout_s.unwrap_or(settings.timeout_s)),
    ];
    Ok(DnsSettings { nameservers, searches, options, others: Vec::new(), nameservers_cut: 0 })
}

/// The node-local addresses to use. The cluster's primary family, which is that of kube-dns' first address, goes first.
pub fn node_local(settings: &InjectionSettings, primary: Option<&IpAddr>) -> Vec<IpAddr> {
    let mut locals = settings.node_local.clone();
    if let Some(primary) = primary {
        // Stable, so it changes nothing where the order is right.
        locals.sort_by_key(|local| local.is_ipv4() != primary.is_ipv4());
    }
    if settings.dual_stack == DualStack::BothBackups {
        locals.truncate(1);
    }
    locals
}

fn push_address(list: &mut Vec<IpAddr>, address: IpAddr) {
    if !list.iter().any(|known| known.to_canonical() == address.to_canonical()) {
        list.push(address);
    }
}

/// Names are equal whatever the case of their letters and with or without the final dot.
fn push_search<'a>(list: &mut Vec<Cow<'a, str>>, search: Cow<'a, str>) {
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if !list.iter().any(|known| bare(known) == bare(&search)) {
        list.push(search);
    }
}

impl Serialize for OptionEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::User(option) => option.raw.serialize(serializer),
            Self::Ours { name, value } => {
                let mut entry = serializer.serialize_struct("option", 2)?;
                entry.serialize_field("name", name)?;
                entry.serialize_field("value", &value.to_string())?;
                entry.end()
            }
        }
    }
}

impl Serialize for DnsSettings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3 + self.others.len()))?;
        map.serialize_entry("nameservers", &self.nameservers)?;
        map.serialize_entry("options", &self.options)?;
        map.serialize_entry("searches", &self.searches)?;
        for (key, value) in &self.others {
            map.serialize_entry(&**key, value)?;
        }
        map.end()
    }
}
