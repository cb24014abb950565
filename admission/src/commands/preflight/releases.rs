//! Helm releases of the original chart, and the safe way from each of them.
//!
//! The chart's documentation makes it depend on values of old versions: Pods that were injected with the node-local address alone lose
//! their DNS when the agents go. Helm keeps a release as JSON, compressed, in a Secret; this reads the values back.

use std::io::Read;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::Value;

use super::Options;
use crate::cluster::read::list;
use crate::commands::checks::Check;
use crate::names::INJECTION_LABEL;

const CHECK: &str = "older release";

/// The original chart.
const CHART: &str = "ack-node-local-dns";

/// Most that a release may be when it is decompressed. A Secret holds 1 MiB, and manifests compress to a tenth.
const RELEASE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The API version of webhook configurations that Kubernetes dropped with 1.22.
const OLD_API: &str = "admissionregistration.k8s.io/v1beta1";

/// What a release looked like when it was installed.
#[derive(Debug, Deserialize)]
struct Release {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    chart: Chart,
    /// What the user set.
    #[serde(default)]
    config: Value,
    #[serde(default)]
    manifest: String,
}

#[derive(Debug, Default, Deserialize)]
struct Chart {
    #[serde(default)]
    metadata: ChartMetadata,
    /// The chart's defaults.
    #[serde(default)]
    values: Value,
}

#[derive(Debug, Default, Deserialize)]
struct ChartMetadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
}

/// Looks at the releases that are deployed.
pub(super) async fn checks(
    client: &Client,
    options: &Options,
    kube_dns: &[IpAddr],
    labelled: &[String],
    minor: u32,
) -> Vec<Check> {
    let name = options.release.as_ref().map_or(String::new(), |name| format!(",name={name}"));
    let selected = ListParams::default().labels(&format!("owner=helm,status=deployed{name}"));
    let secrets: Api<Secret> = Api::all(client.clone());
    let secrets = match list(&secrets, "Helm's Secrets", &selected).await {
        Ok(secrets) => secrets,
        Err(error) => return vec![Check::unknown(CHECK, &error)],
    };
    let releases = secrets.iter().filter_map(|secret| read(&secret.data.as_ref()?.get("release")?.0));
    let ours = |release: &Release| options.release.is_some() || release.chart.metadata.name == CHART;
    let mut checks: Vec<Check> = releases
        .filter(ours)
        .flat_map(|release| judge(&release, options, kube_dns, labelled, minor))
        .collect();
    if checks.is_empty() {
        checks.push(match &options.release {
            Some(name) => Check::problem(
                CHECK,
                format!("no release {name} is deployed, or it cannot be read"),
                "`helm list -A` names them",
            ),
            None => Check::ok(CHECK, "none of the original chart"),
        });
    }
    checks
}

/// Base64 of gzip of JSON; Helm's first versions left out the gzip.
fn read(data: &[u8]) -> Option<Release> {
    const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
    let bytes = STANDARD.decode(data).ok()?;
    if !bytes.starts_with(&GZIP) {
        return serde_json::from_slice(&bytes).ok();
    }
    let mut text = Vec::new();
    GzDecoder::new(&*bytes).take(RELEASE_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn judge(
    release: &Release,
    options: &Options,
    kube_dns: &[IpAddr],
    labelled: &[String],
    minor: u32,
) -> Vec<Check> {
    let Release { name, namespace, chart, config, manifest } = release;
    let what = format!("{namespace}/{name} ({} {})", chart.metadata.name, chart.metadata.version);
    let value = |key| find(config, key).or_else(|| find(&chart.values, key));
    let local = value("local_dns_ip").and_then(Value::as_str).and_then(|text| text.parse::<IpAddr>().ok());
    let is_ha = value("high_availability").is_some_and(is_true);
    let is_old = value("local_dns_ip").is_some() || value("high_availability").is_some();
    let uninstall = format!("helm uninstall {name} -n {namespace}");
    let mut checks = vec![match local {
        _ if !is_old => {
            Check::ok(CHECK, format!("{what} can be upgraded in place: its names and selectors are kept"))
        }
        Some(local) if kube_dns.contains(&local) => Check::warning(
            CHECK,
            format!("{what} listens on kube-dns' own address {local}; it can be removed at once"),
            format!("{uninstall}, then install"),
        ),
        Some(local) if is_ha && options.settings.node_local.contains(&local) => Check::warning(
            CHECK,
            format!("{what} listens on {local} with kube-dns behind it; it can be removed at once"),
            format!("{uninstall}, then install"),
        ),
        _ => {
            let seen = local.map_or("an address that is not in its values".into(), |local| local.to_string());
            let unlabel = match labelled {
                [] => String::new(),
                all => format!("kubectl label namespace {} {INJECTION_LABEL}-; ", all.join(" ")),
            };
            Check::problem(
                CHECK,
                format!(
                    "{what} gave its Pods {seen} without kube-dns behind it: they lose their DNS with it"
                ),
                format!(
                    "{unlabel}recreate the Pods that `nodens-admission list-injected --nameserver {seen}` names; {uninstall}; then install"
                ),
            )
        }
    }];
    if manifest.contains(OLD_API) && minor >= super::MINOR_MIN {
        checks.push(Check::problem(
            CHECK,
            format!("{what} is stored with {OLD_API}, which this cluster does not serve: helm can neither upgrade nor remove it"),
            format!("helm plugin install https://github.com/helm/helm-mapkubeapis && helm mapkubeapis {name} -n {namespace}"),
        ));
    }
    checks
}

/// The value of a key, however deep it stands: versions put these in different places.
fn find<'a>(values: &'a Value, key: &str) -> Option<&'a Value> {
    let map = values.as_object()?;
    map.get(key).or_else(|| map.values().find_map(|inner| find(inner, key)))
}

/// Helm's `--set` makes booleans, `--set-string` strings.
fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true) || value.as_str() == Some("true")
}
