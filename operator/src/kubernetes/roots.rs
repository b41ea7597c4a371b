//! The mesh's roots where proxies look for them: ConfigMap `istio-ca-root-cert` in every namespace that has, or may
//! get, a proxy. Written by the leader.
//!
//! Namespaces without a label of injection count when a pod in them has a proxy. A ConfigMap stays when its namespace
//! loses the label: its pods may still need it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::watcher::{self, watcher},
};
use serde_json::{Value, json};
use tokio::time::{interval, sleep};
use weft_ca::authority::AuthorityStore;

use super::{Cluster, FIELD_MANAGER, MANAGED_BY};
use crate::{backoff::Backoff, mesh::LatestView};

/// The ConfigMap that proxies mount.
pub const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
/// A label of pods that have a proxy, gateways among them.
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// How often all of it is looked at without a reason.
const REPAIR: Duration = Duration::from_secs(10);

/// What is known of the cluster's namespaces.
#[derive(Debug, Default)]
struct Known {
    /// Namespaces that are not about to go, and whether their labels ask for proxies.
    namespaces: BTreeMap<String, bool>,
    /// The roots that a namespace has.
    published: BTreeMap<String, String>,
}

impl Known {
    /// Namespaces whose ConfigMap is missing or out of date.
    fn outdated<'a>(
        &'a self,
        with_proxies: &'a BTreeSet<Arc<str>>,
        bundle: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        self.namespaces
            .iter()
            .filter(|(name, injects)| **injects || with_proxies.contains(name.as_str()))
            .map(|(name, _)| name.as_str())
            .filter(move |name| self.published.get(*name).is_none_or(|text| text != bundle))
    }
}

/// Whether a namespace's labels ask for proxies in it.
fn injects(metadata: &ObjectMeta) -> bool {
    let label = |key: &str| metadata.labels.as_ref()?.get(key).map(String::as_str);
    label("istio-injection") == Some("enabled")
        || label("weft-injection") == Some("enabled")
        || label("istio.io/rev").is_some()
}

fn config_map(namespace: &str, bundle: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": { MANAGED_BY.0: MANAGED_BY.1, "istio.io/config": "true" },
        },
        "data": { KEY: bundle },
    })
}

/// Keeps the ConfigMaps right, for as long as it runs.
pub async fn publish(cluster: Cluster, authority: Arc<AuthorityStore>, mut view: LatestView) {
    let client = cluster.client;
    let config = watcher::Config::default();
    let mut namespaces =
        watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), config.clone()).boxed();
    let own = config.fields(&format!("metadata.name={NAME}"));
    let mut config_maps = watcher(Api::<ConfigMap>::all(client.clone()), own).boxed();
    let mut known = Known::default();
    let mut ready = (false, false);
    let mut repair = interval(REPAIR);
    let mut backoff = Backoff::default();
    loop {
        let failed = tokio::select! {
            event = namespaces.next() => match event {
                Some(Ok(event)) => {
                    ready.0 |= matches!(event, watcher::Event::InitDone);
                    namespace(&mut known, event);
                    None
                }
                Some(Err(error)) => Some(error),
                None => return,
            },
            event = config_maps.next() => match event {
                Some(Ok(event)) => {
                    ready.1 |= matches!(event, watcher::Event::InitDone);
                    published(&mut known, event);
                    None
                }
                Some(Err(error)) => Some(error),
                None => return,
            },
            changed = view.changed() => {
                if changed.is_err() {
                    return;
                }
                None
            }
            _ = repair.tick() => None,
        };
        if let Some(error) = failed {
            backoff.tell("namespaces or ConfigMaps of roots cannot be followed", &error);
            sleep(backoff.next()).await;
            continue;
        }
        if ready != (true, true) {
            continue;
        }
        let bundle = authority.current().trust_bundle();
        let with_proxies = namespaces_with_proxies(&mut view);
        let outdated: Vec<String> =
            known.outdated(&with_proxies, &bundle).map(str::to_owned).collect();
        let mut failed = false;
        for name in outdated {
            match write(&client, &name, &bundle).await {
                Ok(()) => {
                    tracing::info!(namespace = name, "roots published");
                    known.published.insert(name, bundle.clone());
                }
                // It is about to go.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    backoff.tell(&format!("no roots for namespace {name}"), &error);
                    failed = true;
                }
            }
        }
        if failed {
            sleep(backoff.next()).await;
        } else {
            backoff.reset();
        }
    }
}

fn namespaces_with_proxies(view: &mut LatestView) -> BTreeSet<Arc<str>> {
    let Some(view) = view.borrow_and_update().clone() else { return BTreeSet::new() };
    let with_proxies = view.snapshot.workloads.iter().filter(|workload| {
        // Gateways have a proxy, and nobody speaks mutual TLS to them unasked. Injected pods and gateways are labelled.
        workload.meshed || workload.labels.contains_key(CANONICAL_NAME)
    });
    with_proxies.map(|workload| workload.namespace.clone()).collect()
}

async fn write(client: &kube::Client, namespace: &str, bundle: &str) -> kube::Result<()> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let options = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(NAME, &options, &Patch::Apply(config_map(namespace, bundle))).await.map(drop)
}

fn namespace(known: &mut Known, event: watcher::Event<PartialObjectMeta<Namespace>>) {
    match event {
        watcher::Event::Init => known.namespaces.clear(),
        watcher::Event::InitDone => {}
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let metadata = object.metadata;
            let name = metadata.name.clone().unwrap_or_default();
            if metadata.deletion_timestamp.is_some() {
                known.namespaces.remove(&name);
            } else {
                known.namespaces.insert(name, injects(&metadata));
            }
        }
        watcher::Event::Delete(object) => {
            known.namespaces.remove(&object.metadata.name.unwrap_or_default());
        }
    }
}

fn published(known: &mut Known, event: watcher::Event<ConfigMap>) {
    match event {
        watcher::Event::Init => known.published.clear(),
        watcher::Event::InitDone => {}
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let text = object.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
            known.published.insert(object.metadata.namespace.unwrap_or_default(), text);
        }
        watcher::Event::Delete(object) => {
            known.published.remove(&object.metadata.namespace.unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaced(labels: &[(&str, &str)]) -> ObjectMeta {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }
    }

    #[test]
    fn labels_say_which_namespaces_inject() {
        for (labels, expected) in [
            (&[("istio-injection", "enabled")][..], true),
            (&[("weft-injection", "enabled")], true),
            (&[("istio.io/rev", "canary")], true),
            (&[("istio-injection", "disabled")], false),
            (&[("team", "shop")], false),
            (&[], false),
        ] {
            assert_eq!(injects(&namespaced(labels)), expected, "{labels:?}");
        }
    }

    #[test]
    fn roots_are_written_where_proxies_are_or_may_come_and_where_they_differ() {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let known = Known {
            namespaces: [
                ("fresh", true),
                ("old", true),
                ("plain", false),
                ("right", true),
                ("single", false),
            ]
            .map(|(name, injects)| (name.to_owned(), injects))
            .into(),
            published: [text("old", "before"), text("right", "roots"), text("gone", "before")]
                .into(),
        };
        let with_proxies = ["single", "gone"].map(Arc::from).into();
        let outdated: Vec<_> = known.outdated(&with_proxies, "roots").collect();
        assert_eq!(outdated, ["fresh", "old", "single"]);
    }
}
