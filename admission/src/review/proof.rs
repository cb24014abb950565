//! The last look at a patch before it leaves: read back from its bytes, it must be exactly what this Pod takes. The rules are written
//! again here, from the API's side, and not shared with the code that made the patch.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decide::DnsSettings;
use crate::pod::{DnsConfig, Pairs, Pod, Text};
use crate::validate;

#[derive(Deserialize)]
struct Operation<'a> {
    #[serde(borrow)]
    op: Text<'a>,
    #[serde(borrow)]
    path: Text<'a>,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// Whether the patch applies to this Pod, and the result would be accepted and left alone by a second look.
pub(super) fn check(patch: &[u8], pod: &Pod<'_>, wanted: &DnsSettings<'_>) -> Result<(), String> {
    let operations: Vec<Operation<'_>> =
        serde_json::from_slice(patch).map_err(|error| format!("the patch cannot be read back: {error}"))?;
    let (mut policy, mut config) = (false, false);
    for operation in &operations {
        if &*operation.op != "add" {
            return Err(format!("an operation {:?}", &*operation.op));
        }
        let value = operation.value.get();
        // `metadata` and `spec` are objects: a Pod without them was not read.
        match &*operation.path {
            "/spec/dnsPolicy" => policy = value == "\"None\"",
            "/spec/dnsConfig" => {
                config = true;
                accepted(value, wanted)?;
            }
            "/metadata/annotations" => fresh_map(value, pod.metadata.annotations.as_ref())?,
            "/metadata/labels" => fresh_map(value, pod.metadata.labels.as_ref())?,
            path => {
                let map = match path.rsplit_once('/') {
                    Some(("/metadata/annotations", _)) => pod.metadata.annotations.as_ref(),
                    Some(("/metadata/labels", _)) => pod.metadata.labels.as_ref(),
                    _ => return Err(format!("a path {path:?}")),
                };
                if map.is_none() || serde_json::from_str::<Text<'_>>(value).is_err() {
                    return Err(format!("nothing at {path:?} to add to"));
                }
            }
        }
    }
    match policy && config {
        true => Ok(()),
        false => Err("dnsPolicy and dnsConfig must both be set".into()),
    }
}

/// A whole map may only be written where there is none, or it would delete what is there.
fn fresh_map(value: &str, there: Option<&Pairs<'_>>) -> Result<(), String> {
    match (there, serde_json::from_str::<Pairs<'_>>(value)) {
        (None, Ok(_)) => Ok(()),
        (Some(_), _) => Err("a map that exists would be replaced".into()),
        (_, Err(error)) => Err(error.to_string()),
    }
}

fn accepted(value: &str, wanted: &DnsSettings<'_>) -> Result<(), String> {
    let config: DnsConfig<'_> = serde_json::from_str(value).map_err(|error| error.to_string())?;
    validate::dns_config(
        config.nameservers.iter().map(|text| &**text),
        config.searches.iter().map(|text| &**text),
        config.options.iter().map(|option| &*option.name),
    )
    .map_err(|broken| broken.to_string())?;
    let first = config.nameservers.first().and_then(|text| text.parse::<IpAddr>().ok());
    if first.is_none() || first != wanted.nameservers.first().copied() {
        return Err("the node-local address does not come first".into());
    }
    let same = config.searches.len() == wanted.searches.len()
        && config.options.len() == wanted.options.len()
        && config.others.len() == wanted.others.len();
    same.then_some(()).ok_or_else(|| "entries were lost".into())
}
