//! The certificates' store in a cluster: a Secret, and the `caBundle` of the webhook configuration.
//!
//! The Secret is replaced as a whole under its resourceVersion, with whatever labels and annotations its owner gave it. The bundle is
//! applied server-side under a field manager of our own, `caBundle` alone: charts and GitOps tools own the rest of the configuration,
//! and neither side overwrites the other. Needs `get` and `update` on the Secret (`create` if nobody made it), `get` and `patch`
//! on the configuration.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use super::follow::error_text;
use crate::certificates::store::{CertificateStore, StoreError, Stored, StoredBundles, StoredSecret};

/// Who owns `caBundle`, as `kubectl get --show-managed-fields` shows it.
const FIELD_MANAGER: &str = "nodens-admission";

/// The two objects.
#[derive(Clone, Debug)]
pub struct KubeStore {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    secret: String,
    secret_namespace: String,
    configuration: String,
}

impl KubeStore {
    /// The Secret `secret` of `namespace`, and the MutatingWebhookConfiguration `configuration`.
    pub fn new(client: Client, namespace: &str, secret: &str, configuration: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            configurations: Api::all(client),
            secret: secret.to_owned(),
            secret_namespace: namespace.to_owned(),
            configuration: configuration.to_owned(),
        }
    }

    fn the_secret(&self) -> String {
        format!("Secret {}/{}", self.secret_namespace, self.secret)
    }

    fn the_configuration(&self) -> String {
        format!("MutatingWebhookConfiguration {}", self.configuration)
    }

    async fn replace_secret(
        &self,
        data: &BTreeMap<String, Vec<u8>>,
        version: Option<&str>,
    ) -> Result<(), StoreError> {
        let what = self.the_secret();
        let data = data.iter().map(|(key, bytes)| (key.clone(), ByteString(bytes.clone()))).collect();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let Some(version) = version else {
            let metadata = ObjectMeta { name: Some(self.secret.clone()), ..ObjectMeta::default() };
            let secret =
                Secret { metadata, data: Some(data), type_: Some("Opaque".into()), ..Secret::default() };
            return self
                .secrets
                .create(&params, &secret)
                .await
                .map(drop)
                .map_err(|e| failed("create", &what, &e));
        };
        let stored = self.secrets.get_opt(&self.secret).await.map_err(|e| failed("read", &what, &e))?;
        let Some(mut secret) = stored else { return Err(StoreError::Conflict) };
        if secret.meta().resource_version.as_deref() != Some(version) {
            return Err(StoreError::Conflict);
        }
        secret.data = Some(data);
        self.secrets
            .replace(&self.secret, &params, &secret)
            .await
            .map(drop)
            .map_err(|e| failed("write", &what, &e))
    }

    async fn apply_bundles(&self, bundle: &[u8], version: &str) -> Result<(), StoreError> {
        let what = self.the_configuration();
        let stored =
            self.configurations.get_opt(&self.configuration).await.map_err(|e| failed("read", &what, &e))?;
        let Some(stored) = stored else { return Err(StoreError::Conflict) };
        if stored.meta().resource_version.as_deref() != Some(version) {
            return Err(StoreError::Conflict);
        }
        let bundle = STANDARD.encode(bundle);
        let ours = |name: &String| json!({"name": name, "clientConfig": {"caBundle": bundle}});
        let webhooks: Vec<Value> =
            stored.webhooks.iter().flatten().map(|webhook| ours(&webhook.name)).collect();
        let applied = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.configuration, "resourceVersion": version},
            "webhooks": webhooks,
        });
        // By force: the field is ours, whoever wrote it before.
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = self.configurations.patch(&self.configuration, &params, &Patch::Apply(applied)).await;
        applied.map(drop).map_err(|e| failed("write", &what, &e))
    }
}

impl CertificateStore for KubeStore {
    fn secret(&self) -> Stored<'_, Option<StoredSecret>> {
        Box::pin(async {
            let stored = self
                .secrets
                .get_opt(&self.secret)
                .await
                .map_err(|e| failed("read", &self.the_secret(), &e))?;
            Ok(stored.map(|secret| StoredSecret {
                version: secret.metadata.resource_version.unwrap_or_default(),
                data: secret
                    .data
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(key, bytes)| (key, bytes.0))
                    .collect(),
            }))
        })
    }

    fn put_secret<'a>(
        &'a self,
        data: &'a BTreeMap<String, Vec<u8>>,
        version: Option<&'a str>,
    ) -> Stored<'a, ()> {
        Box::pin(self.replace_secret(data, version))
    }

    fn bundles(&self) -> Stored<'_, Option<StoredBundles>> {
        Box::pin(async {
            let stored = self.configurations.get_opt(&self.configuration).await;
            let stored = stored.map_err(|e| failed("read", &self.the_configuration(), &e))?;
            Ok(stored.map(|configuration| StoredBundles {
                version: configuration.metadata.resource_version.unwrap_or_default(),
                bundles: configuration
                    .webhooks
                    .unwrap_or_default()
                    .into_iter()
                    .map(|webhook| webhook.client_config.ca_bundle.map_or_else(Vec::new, |bundle| bundle.0))
                    .collect(),
            }))
        })
    }

    fn put_bundles<'a>(&'a self, bundle: &'a [u8], version: &'a str) -> Stored<'a, ()> {
        Box::pin(self.apply_bundles(bundle, version))
    }
}

fn failed(verb: &str, what: &str, error: &kube::Error) -> StoreError {
    const CONFLICT: u16 = 409;
    const FORBIDDEN: u16 = 403;
    match error {
        kube::Error::Api(status) if status.code == CONFLICT => StoreError::Conflict,
        kube::Error::Api(status) if status.code == FORBIDDEN => {
            let message = &status.message;
            StoreError::Failed(format!(
                "{what} may not be used ({message}); give the server's role that right"
            ))
        }
        kube::Error::Api(status) => StoreError::Failed(format!("cannot {verb} {what}: {}", status.message)),
        other => StoreError::Failed(format!("cannot {verb} {what}: {}", error_text(other))),
    }
}
