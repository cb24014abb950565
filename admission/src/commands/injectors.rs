//! What makes the API server inject: webhook configurations and mutating admission policies that speak of our label.

use std::fmt;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::cluster::read::{ReadError, ask, list};
use crate::names::INJECTION_LABEL;

/// Kinds in the order in which they are taken away: what leads to injection before what it leads to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// Puts a policy into force.
    #[serde(rename = "MutatingAdmissionPolicyBinding")]
    PolicyBinding,
    /// Injects inside the API server.
    #[serde(rename = "MutatingAdmissionPolicy")]
    Policy,
    /// Calls this server.
    #[serde(rename = "MutatingWebhookConfiguration")]
    WebhookConfiguration,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::PolicyBinding => "MutatingAdmissionPolicyBinding",
            Kind::Policy => "MutatingAdmissionPolicy",
            Kind::WebhookConfiguration => "MutatingWebhookConfiguration",
        })
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Injector {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    #[serde(skip)]
    version: &'static str,
}

/// Versions under which policies may be served, the newest first.
const POLICY_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

const GROUP: &str = "admissionregistration.k8s.io";

/// Webhook configurations that select by our label.
pub async fn webhook_configurations(client: &Client) -> Result<Vec<MutatingWebhookConfiguration>, ReadError> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let mut all = list(&api, "MutatingWebhookConfigurations", &ListParams::default()).await?;
    all.retain(is_about_us);
    Ok(all)
}

/// All that inject, in the order in which they are to be taken away.
pub async fn find(client: &Client) -> Result<Vec<Injector>, ReadError> {
    let mut found = Vec::new();
    for version in POLICY_VERSIONS {
        let policies = objects(client, Kind::Policy, version);
        let policies = list(&policies, "MutatingAdmissionPolicies", &ListParams::default()).await?;
        let ours = policies.iter().filter(|policy| is_about_us(*policy));
        let ours: Vec<_> = ours.map(ResourceExt::name_any).collect();
        if ours.is_empty() {
            continue;
        }
        let bindings = objects(client, Kind::PolicyBinding, version);
        let bindings = list(&bindings, "MutatingAdmissionPolicyBindings", &ListParams::default()).await?;
        let binds = |binding: &&DynamicObject| {
            binding.data["spec"]["policyName"].as_str().is_some_and(|name| ours.iter().any(|our| our == name))
        };
        let kind = Kind::PolicyBinding;
        found.extend(bindings.iter().filter(binds).map(|b| Injector { kind, name: b.name_any(), version }));
        let kind = Kind::Policy;
        found.extend(ours.into_iter().map(|name| Injector { kind, name, version }));
        // Under another version these are the same objects.
        break;
    }
    let kind = Kind::WebhookConfiguration;
    let webhooks = webhook_configurations(client).await?;
    found.extend(webhooks.iter().map(|w| Injector { kind, name: w.name_any(), version: "v1" }));
    found.sort();
    Ok(found)
}

/// Deletes one; whether it was still there.
pub async fn delete(client: &Client, injector: &Injector) -> Result<bool, ReadError> {
    const NOT_FOUND: u16 = 404;
    let api = objects(client, injector.kind, injector.version);
    let what = format!("{} {} (to delete it)", injector.kind, injector.name);
    match ask(&what, api.delete(&injector.name, &DeleteParams::default())).await {
        Ok(_) => Ok(true),
        Err(error) if error.code == Some(NOT_FOUND) => Ok(false),
        Err(error) => Err(error),
    }
}

fn objects(client: &Client, kind: Kind, version: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, &kind.to_string()));
    Api::all_with(client.clone(), &resource)
}

/// Only a selector or an expression of ours names this label.
fn is_about_us(object: &impl Serialize) -> bool {
    serde_json::to_value(object).is_ok_and(|value| {
        let part = |key: &str| value[key].to_string().contains(INJECTION_LABEL);
        part("webhooks") || part("spec")
    })
}
