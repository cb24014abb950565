//! How the server that runs in a cluster was started, so that a command judges as the server does without being told its flags again.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client, ResourceExt};

use super::injectors;
use super::serve::{InjectionOptions, ServeOptions};
use crate::cluster::read::{get, list};

/// From webhook configuration to Service to Deployment to flags. None where that way leads nowhere.
pub async fn injection(client: &Client) -> Option<InjectionOptions> {
    let webhooks = injectors::webhook_configurations(client).await.ok()?;
    let reference = webhooks
        .into_iter()
        .flat_map(|w| w.webhooks.unwrap_or_default())
        .find_map(|w| w.client_config.service)?;
    let services: Api<Service> = Api::namespaced(client.clone(), &reference.namespace);
    let selector = get(&services, "the webhook's Service", &reference.name).await.ok()??.spec?.selector?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &reference.namespace);
    let deployments = list(&deployments, "Deployments", &Default::default()).await.ok()?;
    let is_selected = |deployment: &&Deployment| {
        let labels =
            deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref()?.labels.as_ref());
        labels.is_some_and(|labels| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
    };
    let mut deployment = deployments.into_iter().find(|d| is_selected(&d) && !d.name_any().is_empty())?;
    deployment.spec.as_mut()?.template.spec.take()?.containers.into_iter().find_map(|container| {
        let mut words: Vec<String> = container.command.unwrap_or_default().into_iter().skip(1).collect();
        words.extend(container.args.unwrap_or_default());
        words.retain(|word| word != "serve");
        ServeOptions::parse(&words).ok().map(|options| options.injection)
    })
}
