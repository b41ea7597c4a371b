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
use tokio::time::{Instant, interval, sleep};
use weft_ca::authority::AuthorityStore;

use super::FIELD_MANAGER;
use crate::backoff::Backoff;

/// The configuration of the injector.
pub const INJECTOR: &str = "weft-sidecar-injector";
/// The configuration of validation.
pub const VALIDATOR: &str = "weft-validator";
/// How often it is looked whether the roots are others.
const REPAIR: Duration = Duration::from_secs(10);
/// Roots that are no longer the mesh's stay for so long: replicas take a new authority one after the other, and the API
/// server learns of new roots a moment after they were written.
const OVERLAP: Duration = Duration::from_secs(60);

/// The roots to write: the mesh's, and for a while those before.
#[derive(Debug)]
struct Roots {
    current: String,
    before: Option<(String, Instant)>,
}

impl Roots {
    fn new(current: String) -> Self {
        Self { current, before: None }
    }

    /// The mesh's roots are these now.
    fn bundle(&mut self, current: String, now: Instant) -> String {
        if current != self.current {
            let before = std::mem::replace(&mut self.current, current);
            self.before = Some((before, now));
        }
        self.before = self.before.take().filter(|(_, since)| now - *since < OVERLAP);
        let mut bundle = self.current.clone();
        for before in self.before.iter().flat_map(|(before, _)| certificates(before)) {
            if !certificates(&self.current).any(|current| current == before) {
                if !bundle.ends_with('\n') {
                    bundle.push('\n');
                }
                bundle.push_str(before);
                bundle.push('\n');
            }
        }
        bundle
    }
}

/// The certificates of a text in PEM.
fn certificates(pem: &str) -> impl Iterator<Item = &str> {
    const BEGIN: &str = "-----BEGIN";
    pem.match_indices(BEGIN).map(|(start, _)| {
        let rest = &pem[start..];
        let end = rest[BEGIN.len()..].find(BEGIN).map_or(rest.len(), |end| end + BEGIN.len());
        rest[..end].trim_end()
    })
}

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
    let mut changes = authority.changes();
    let mut roots = Roots::new(authority.current().trust_bundle());
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
            // Its sender lives as long as the authority.
            _ = changes.changed() => {}
        }
        let bundle = roots.bundle(authority.current().trust_bundle(), Instant::now());
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
    fn roots_that_are_replaced_stay_for_a_while() {
        let pem = |name: &str| format!("-----BEGIN C-----\n{name}\n-----END C-----\n");
        let (old, new) = (pem("old"), pem("new"));
        let start = Instant::now();
        let mut roots = Roots::new(old.clone());
        assert_eq!(roots.bundle(old.clone(), start), old);
        // Rotated with an overlap.
        let both = old.clone() + &new;
        assert_eq!(roots.bundle(both.clone(), start), both);
        assert_eq!(roots.bundle(both.clone(), start + OVERLAP), both);
        // One after the other.
        let end = start + 2 * OVERLAP;
        assert_eq!(roots.bundle(new.clone(), end), new.clone() + &old);
        assert_eq!(roots.bundle(new.clone(), end + OVERLAP / 2), new.clone() + &old);
        assert_eq!(roots.bundle(new.clone(), end + OVERLAP), new);
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
