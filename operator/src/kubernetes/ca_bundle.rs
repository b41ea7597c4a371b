//! The roots by which the API server knows our webhooks: `caBundle` of both webhook configurations. Written by the
//! leader by server-side apply, so that this one field is ours and all others are the chart's.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::watcher::watch_object,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{interval, sleep};
use weft_ca::authority::AuthorityStore;

use super::FIELD_MANAGER;
use crate::backoff::Backoff;

/// The configuration of the injector.
pub const INJECTOR: &str = "weft-sidecar-injector";
/// The configuration of validation.
pub const VALIDATOR: &str = "weft-validator";
/// How often it is looked whether the roots are others.
const REPAIR: Duration = Duration::from_secs(10);

/// A kind of webhook configuration.
pub trait Configuration:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static
{
    /// Its webhooks: their names, and how they are called.
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), &webhook.client_config)).collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), &webhook.client_config)).collect()
    }
}

/// What makes the webhooks' roots these; `None` when they are.
fn patch<K: Configuration>(configuration: &K, bundle: &str) -> Option<Value> {
    let webhooks = configuration.webhooks();
    let right = |config: &WebhookClientConfig| {
        config.ca_bundle.as_ref().is_some_and(|held| held.0 == bundle.as_bytes())
    };
    if webhooks.iter().all(|(_, config)| right(config)) {
        return None;
    }
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let webhooks = webhooks
        .iter()
        .map(|(name, _)| json!({ "name": name, "clientConfig": { "caBundle": bundle } }));
    Some(json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": configuration.meta().name },
        "webhooks": webhooks.collect::<Value>(),
    }))
}

/// Keeps the roots of one configuration right, for as long as it runs.
pub async fn maintain<K: Configuration>(
    client: Client,
    name: &'static str,
    authority: Arc<AuthorityStore>,
) {
    let api = Api::<K>::all(client);
    let mut watched = watch_object(api.clone(), name).boxed();
    let mut current: Option<K> = None;
    let mut repair = interval(REPAIR);
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            event = watched.next() => match event {
                Some(Ok(configuration)) => {
                    if configuration.is_none() {
                        tracing::warn!(configuration = name, "is not there: nothing calls this webhook");
                    }
                    current = configuration;
                    backoff.reset();
                }
                Some(Err(error)) => {
                    backoff.tell(&format!("{name} cannot be followed"), &error);
                    sleep(backoff.next()).await;
                }
                None => return,
            },
            _ = repair.tick() => {}
        }
        let bundle = authority.current().trust_bundle();
        let Some(patch) = current.as_ref().and_then(|held| patch(held, &bundle)) else { continue };
        let options = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch(name, &options, &Patch::Apply(patch)).await {
            Ok(written) => {
                tracing::info!(configuration = name, "webhooks have the mesh's roots");
                current = Some(written);
                backoff.reset();
            }
            Err(error) => {
                backoff.tell(&format!("the roots of {name} cannot be written"), &error);
                sleep(backoff.next()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: &[Option<&str>]) -> ValidatingWebhookConfiguration {
        let webhooks = bundles.iter().enumerate().map(|(n, bundle)| {
            let bundle = bundle.map(|text| ByteString(text.into()));
            json!({
                "name": format!("w{n}.weft.internal"),
                "clientConfig": { "caBundle": bundle, "service": { "name": "s", "namespace": "n" } },
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
            })
        });
        let value =
            json!({ "metadata": { "name": VALIDATOR }, "webhooks": webhooks.collect::<Value>() });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_the_roots_are_written_and_only_when_they_differ() {
        assert_eq!(patch(&configuration(&[Some("roots"), Some("roots")]), "roots"), None);
        assert_eq!(patch(&configuration(&[]), "roots"), None);
        for held in [[Some("roots"), None], [Some("old"), Some("roots")]] {
            let bundle = json!(ByteString("roots".into()));
            let webhook =
                |name: &str| json!({ "name": name, "clientConfig": { "caBundle": bundle } });
            assert_eq!(
                patch(&configuration(&held), "roots"),
                Some(json!({
                    "apiVersion": "admissionregistration.k8s.io/v1",
                    "kind": "ValidatingWebhookConfiguration",
                    "metadata": { "name": VALIDATOR },
                    "webhooks": [webhook("w0.weft.internal"), webhook("w1.weft.internal")],
                }))
            );
        }
    }
}
