//! The documents: policy, binding, parameters.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Unsupported;
use super::conditions::conditions;
use super::variables::{mutation, variables};
use crate::decide;
use crate::names::{
    ALWAYS_EXEMPT, DISABLED, ENABLED, INJECTION_LABEL, NAMESPACE_VIRTUAL_NODE_KEYS, POD_VIRTUAL_NODE_KEYS,
};
use crate::patch::Status;
use crate::settings::InjectionSettings;
use crate::snapshot::Config;

/// The API that the documents are written for.
const API_VERSION: &str = "admissionregistration.k8s.io/v1";

/// What the objects are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Policy and binding.
    pub policy: String,
    /// The ConfigMap of parameters.
    pub parameters: String,
    /// Where it is.
    pub namespace: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            policy: "node-local-dns-injection".into(),
            parameters: "node-local-dns-injection".into(),
            namespace: "kube-system".into(),
        }
    }
}

/// Everything that makes up policy mode, as Kubernetes objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Documents {
    /// `MutatingAdmissionPolicy`
    pub policy: Value,
    /// `MutatingAdmissionPolicyBinding`
    pub binding: Value,
    /// `ConfigMap`
    pub parameters: Value,
}

impl Documents {
    /// In the order in which they should be created: a policy without its parameters would spare everybody.
    pub fn all(&self) -> [&Value; 3] {
        [&self.parameters, &self.policy, &self.binding]
    }
}

/// Makes the documents, or says which setting no policy can carry out.
pub fn documents(config: &Config, names: &Names) -> Result<Documents, Unsupported> {
    let settings = config.settings();
    let unsupported = |setting, help| Err(Unsupported { setting, help });
    if settings.pod_opt_in {
        return unsupported("opting in by Pod label", "selectors of one policy are ANDed; use the webhook");
    }
    if settings.rollout_percent < 100 {
        return unsupported(
            "rollout percentage",
            "enable namespaces one after the other, or use the webhook",
        );
    }
    if settings.report_only {
        return unsupported("report-only mode", "leave the binding out, or use the webhook");
    }
    let conditions: Vec<Value> = conditions(settings)
        .into_iter()
        .map(|c| json!({"name": format!("not-{}", c.reason), "expression": c.expression}))
        .collect();
    let variables: Vec<Value> = variables(settings)
        .into_iter()
        .map(|(name, expression)| json!({"name": name, "expression": expression}))
        .collect();
    let policy = json!({
        "apiVersion": API_VERSION,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": names.policy},
        "spec": {
            "failurePolicy": "Ignore",
            "reinvocationPolicy": "IfNeeded",
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": constraints(settings),
            "matchConditions": conditions,
            "variables": variables,
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mutation(settings)}}],
        },
    });
    let binding = json!({
        "apiVersion": API_VERSION,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": names.policy},
        "spec": {
            "policyName": names.policy,
            "paramRef": {
                "name": names.parameters,
                "namespace": names.namespace,
                // Allow here means: without parameters the Pod goes by as it is.
                "parameterNotFoundAction": "Allow",
            },
        },
    });
    let parameters = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.parameters, "namespace": names.namespace},
        "data": parameters(config),
    });
    Ok(Documents { policy, binding, parameters })
}

/// The ConfigMap's data: what changes with the cluster and the operator's numbers. Whoever watches kube-dns keeps it in step.
pub fn parameters(config: &Config) -> BTreeMap<String, String> {
    let settings = config.settings();
    let joined = |addresses: &[std::net::IpAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    let local = decide::node_local(settings, config.kube_dns().first());
    let entries = [
        ("local", joined(&local)),
        ("upstream", joined(config.kube_dns())),
        ("domain", settings.cluster_domain.clone()),
        ("searches", settings.extra_searches.join(",")),
        ("ndots", settings.ndots.to_string()),
        ("attempts", settings.attempts.to_string()),
        ("timeout", settings.timeout_s.to_string()),
        ("status", Status::new(config.fingerprint()).to_string()),
    ];
    entries.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Rows 1 and 3 to 7.
fn constraints(settings: &InjectionSettings) -> Value {
    let extra = || settings.virtual_node_keys.iter().map(String::as_str);
    let absent = |key: &str| json!({"key": key, "operator": "DoesNotExist"});
    let exempt: Vec<&str> =
        ALWAYS_EXEMPT.into_iter().chain(settings.exempt_namespaces.iter().map(String::as_str)).collect();
    let mut namespace: Vec<Value> =
        NAMESPACE_VIRTUAL_NODE_KEYS.into_iter().chain(extra()).map(absent).collect();
    namespace.push(json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": exempt}));
    namespace.push(match settings.default_enabled {
        true => json!({"key": INJECTION_LABEL, "operator": "NotIn", "values": [DISABLED]}),
        false => json!({"key": INJECTION_LABEL, "operator": "In", "values": [ENABLED]}),
    });
    let mut object: Vec<Value> = POD_VIRTUAL_NODE_KEYS.into_iter().chain(extra()).map(absent).collect();
    object.push(json!({"key": INJECTION_LABEL, "operator": "NotIn", "values": [DISABLED]}));
    json!({
        "matchPolicy": "Equivalent",
        "namespaceSelector": {"matchExpressions": namespace},
        "objectSelector": {"matchExpressions": object},
        "resourceRules": [{
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["pods"],
            "scope": "Namespaced",
        }],
    })
}
