//! The mesh's roots where proxies look for them: ConfigMap `istio-ca-root-cert` in every namespace that has, or may
//! get, a proxy. Written by the leader.
//!
//! Namespaces without a label of injection count when a pod in them has a proxy. A ConfigMap stays when its namespace
//! loses the label: its pods may still need it. Istio calls its ConfigMap the same: while Istio injects in the same cluster
//! (`istioLabels: false`), what it wrote stays wherever nobody asks for Weft.

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
use tokio::{
    sync::watch,
    time::{interval, sleep},
};
use weft_ca::authority::AuthorityStore;
use weft_webhook::InjectConfig;

use super::{Cluster, FIELD_MANAGER, MANAGED_BY};
use crate::{backoff::Backoff, mesh::LatestView};

/// The ConfigMap that proxies mount.
pub const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
/// A label of pods that have a proxy, gateways among them.
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// How often all of it is looked at without a reason.
const REPAIR: Duration = Duration::from_secs(10);

/// Who a namespace's labels ask for proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Nobody,
    /// By the labels that Istio has.
    Istio,
    Weft,
}

impl Asks {
    fn of(metadata: &ObjectMeta) -> Self {
        let label = |key: &str| metadata.labels.as_ref()?.get(key).map(String::as_str);
        if label("weft-injection") == Some("enabled") {
            Self::Weft
        } else if label("istio-injection") == Some("enabled")
            || label("istio.io/rev") == Some("default")
        {
            Self::Istio
        } else {
            Self::Nobody
        }
    }
}

/// The roots that a namespace has.
#[derive(Debug, PartialEq, Eq)]
struct Published {
    bundle: String,
    /// Whether the operator wrote them.
    own: bool,
}

/// What is known of the cluster's namespaces.
#[derive(Debug, Default)]
struct Known {
    /// Namespaces that are not about to go.
    namespaces: BTreeMap<String, Asks>,
    published: BTreeMap<String, Published>,
    /// Whether all there is of both was listed. While a list is under way, what it has not shown yet seems to be missing.
    listed: (bool, bool),
}

impl Known {
    /// Namespaces whose ConfigMap is missing or out of date. `istio_labels`: Istio's labels ask for Weft.
    fn outdated<'a>(
        &'a self,
        with_proxies: &'a BTreeSet<Arc<str>>,
        istio_labels: bool,
        bundle: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        let complete = self.listed == (true, true);
        self.namespaces
            .iter()
            .filter(move |_| complete)
            .filter(move |(name, asks)| {
                let foreign = self.published.get(*name).is_some_and(|published| !published.own);
                match asks {
                    Asks::Weft => true,
                    Asks::Istio if istio_labels => true,
                    // Proxies may be Istio's.
                    Asks::Istio | Asks::Nobody => {
                        with_proxies.contains(name.as_str()) && (istio_labels || !foreign)
                    }
                }
            })
            .map(|(name, _)| name.as_str())
            .filter(move |name| {
                self.published.get(*name).is_none_or(|published| published.bundle != bundle)
            })
    }
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
pub async fn publish(
    cluster: Cluster,
    authority: Arc<AuthorityStore>,
    mut view: LatestView,
    injection: watch::Receiver<Arc<InjectConfig>>,
) {
    let client = cluster.client;
    let config = watcher::Config::default();
    let mut namespaces =
        watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), config.clone()).boxed();
    let own = config.fields(&format!("metadata.name={NAME}"));
    let mut config_maps = watcher(Api::<ConfigMap>::all(client.clone()), own).boxed();
    let mut known = Known::default();
    let mut repair = interval(REPAIR);
    let mut backoff = Backoff::default();
    let mut changes = authority.changes();
    loop {
        let failed = tokio::select! {
            event = namespaces.next() => match event {
                Some(Ok(event)) => {
                    namespace(&mut known, event);
                    None
                }
                Some(Err(error)) => Some(error),
                None => return,
            },
            event = config_maps.next() => match event {
                Some(Ok(event)) => {
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
            _ = changes.changed() => None,
        };
        if let Some(error) = failed {
            backoff.tell("namespaces or ConfigMaps of roots cannot be followed", &error);
            sleep(backoff.next()).await;
            continue;
        }
        let bundle = authority.current().trust_bundle();
        let with_proxies = namespaces_with_proxies(&mut view);
        let istio_labels = injection.borrow().istio_labels;
        let outdated: Vec<String> =
            known.outdated(&with_proxies, istio_labels, &bundle).map(str::to_owned).collect();
        let mut failed = false;
        for name in outdated {
            match write(&client, &name, &bundle).await {
                Ok(()) => {
                    tracing::info!(namespace = name, "roots published");
                    let published = Published { bundle: bundle.clone(), own: true };
                    known.published.insert(name, published);
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
        watcher::Event::Init => {
            known.namespaces.clear();
            known.listed.0 = false;
        }
        watcher::Event::InitDone => known.listed.0 = true,
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let metadata = object.metadata;
            let name = metadata.name.clone().unwrap_or_default();
            if metadata.deletion_timestamp.is_some() {
                known.namespaces.remove(&name);
            } else {
                known.namespaces.insert(name, Asks::of(&metadata));
            }
        }
        watcher::Event::Delete(object) => {
            known.namespaces.remove(&object.metadata.name.unwrap_or_default());
        }
    }
}

fn published(known: &mut Known, event: watcher::Event<ConfigMap>) {
    match event {
        watcher::Event::Init => {
            known.published.clear();
            known.listed.1 = false;
        }
        watcher::Event::InitDone => known.listed.1 = true,
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let bundle = object.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
            let labels = object.metadata.labels.unwrap_or_default();
            let own = labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
            let namespace = object.metadata.namespace.unwrap_or_default();
            known.published.insert(namespace, Published { bundle, own });
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
    fn labels_say_who_injects() {
        for (labels, expected) in [
            (&[("istio-injection", "enabled")][..], Asks::Istio),
            (&[("weft-injection", "enabled")], Asks::Weft),
            (&[("weft-injection", "enabled"), ("istio-injection", "enabled")], Asks::Weft),
            (&[("istio.io/rev", "default")], Asks::Istio),
            (&[("istio.io/rev", "canary")], Asks::Nobody),
            (&[("istio-injection", "disabled")], Asks::Nobody),
            (&[("team", "shop")], Asks::Nobody),
            (&[], Asks::Nobody),
        ] {
            assert_eq!(Asks::of(&namespaced(labels)), expected, "{labels:?}");
        }
    }

    #[test]
    fn roots_are_written_where_proxies_are_or_may_come_and_where_they_differ() {
        let text = |name: &str, bundle: &str, own| {
            (name.to_owned(), Published { bundle: bundle.to_owned(), own })
        };
        let known = Known {
            namespaces: [
                ("fresh", Asks::Weft),
                ("istio", Asks::Istio),
                ("istio-fresh", Asks::Istio),
                ("old", Asks::Weft),
                ("plain", Asks::Nobody),
                ("right", Asks::Weft),
                ("single", Asks::Nobody),
                ("single-istio", Asks::Nobody),
                ("taken", Asks::Weft),
            ]
            .map(|(name, asks)| (name.to_owned(), asks))
            .into(),
            published: [
                text("gone", "before", true),
                text("istio", "istio's", false),
                text("old", "before", true),
                text("right", "roots", true),
                text("single-istio", "istio's", false),
                text("taken", "istio's", false),
            ]
            .into(),
            listed: (true, true),
        };
        let with_proxies = ["gone", "istio", "single", "single-istio"].map(Arc::from).into();
        let outdated = |istio_labels| -> Vec<_> {
            known.outdated(&with_proxies, istio_labels, "roots").collect()
        };
        let alone = ["fresh", "istio", "istio-fresh", "old", "single", "single-istio", "taken"];
        assert_eq!(outdated(true), alone);
        assert_eq!(outdated(false), ["fresh", "old", "single", "taken"], "beside Istio");
    }

    #[test]
    fn nothing_seems_to_be_missing_while_a_list_is_under_way() {
        let mut known = Known::default();
        let name = |name: &str| ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        let shop = PartialObjectMeta::<Namespace> {
            metadata: ObjectMeta {
                name: Some("shop".into()),
                ..namespaced(&[("weft-injection", "enabled")])
            },
            ..PartialObjectMeta::default()
        };
        let there = |text: &str| ConfigMap {
            metadata: ObjectMeta { namespace: Some("shop".into()), ..name(NAME) },
            data: Some([(KEY.to_owned(), text.to_owned())].into()),
            ..ConfigMap::default()
        };
        let none = BTreeSet::new();
        let outdated = |known: &Known| known.outdated(&none, true, "roots").count();
        for round in 0..2 {
            namespace(&mut known, watcher::Event::Init);
            namespace(&mut known, watcher::Event::InitApply(shop.clone()));
            namespace(&mut known, watcher::Event::InitDone);
            published(&mut known, watcher::Event::Init);
            assert_eq!(outdated(&known), 0, "round {round}");
            published(&mut known, watcher::Event::InitApply(there("roots")));
            published(&mut known, watcher::Event::InitDone);
            assert_eq!(outdated(&known), 0, "round {round}");
        }
        published(&mut known, watcher::Event::Apply(there("another's")));
        assert_eq!(outdated(&known), 1);
    }
}
