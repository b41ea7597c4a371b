//! What the API server and the operators say: all that is judged.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        apps::v1::Deployment,
        core::v1::{ConfigMap, Container, Namespace, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::version::Info,
};
use kube::{ResourceExt, api::ListParams};
use serde_json::Value;
use weft_crds::Kind;

use super::{pieces, rights};
use crate::{
    kubernetes::{self, Cluster, QueryError},
    names::{ADMIN_PORT, OPERATOR, ROOT_CONFIG_MAP, ROOT_KEY},
};

/// Something fetched, or why it is not there.
pub type Fetched<T> = Result<T, String>;

/// What is judged.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The API server's address.
    pub server: String,
    /// Namespace of the control plane.
    pub namespace: String,
    /// Kubernetes' version.
    pub version: Info,
    /// Definitions of our kinds, by name; `None` is not there.
    pub definitions: BTreeMap<String, Fetched<Option<CustomResourceDefinition>>>,
    /// Whether each piece of the chart is there.
    pub pieces: Vec<(pieces::Piece, Fetched<bool>)>,
    /// All that change objects on their way in.
    pub mutating: Fetched<Vec<MutatingWebhookConfiguration>>,
    /// All that judge objects on their way in.
    pub validating: Fetched<Vec<ValidatingWebhookConfiguration>>,
    /// The operator's.
    pub deployment: Fetched<Option<Deployment>>,
    /// All namespaces.
    pub namespaces: Fetched<Vec<Namespace>>,
    /// All pods.
    pub pods: Fetched<Vec<Pod>>,
    /// The root certificate, by namespace.
    pub roots: Fetched<BTreeMap<String, String>>,
    /// What each operator says of its proxies, by pod.
    pub proxies: BTreeMap<String, Fetched<Value>>,
    /// What each operator says of resources, by pod.
    pub statuses: BTreeMap<String, Fetched<Value>>,
    /// Whether each right is there that the operator needs, or, where it is not installed, who installs it.
    pub rights: Vec<(rights::Right, Fetched<bool>)>,
}

/// Fetches all.
///
/// # Errors
/// When the API server does not answer.
pub async fn fetch(cluster: &Cluster) -> anyhow::Result<Facts> {
    let version = cluster.version().await?;
    let pods = fetched(kubernetes::list(&cluster.all::<Pod>(), ListParams::default()).await);
    let pieces = pieces::fetch(cluster).await;
    let installed = pieces.iter().any(|(_, there)| *there == Ok(true));
    let mut facts = Facts {
        server: cluster.server().to_owned(),
        namespace: cluster.namespace.clone(),
        version,
        definitions: definitions(cluster).await,
        pieces,
        mutating: fetched(kubernetes::list(&cluster.all(), ListParams::default()).await),
        validating: fetched(kubernetes::list(&cluster.all(), ListParams::default()).await),
        deployment: fetched(kubernetes::get(&cluster.own(), OPERATOR).await),
        namespaces: fetched(kubernetes::list(&cluster.all(), ListParams::default()).await),
        pods,
        roots: roots(cluster).await,
        proxies: BTreeMap::new(),
        statuses: BTreeMap::new(),
        rights: rights::fetch(cluster, installed).await?,
    };
    let operators: Vec<String> = facts.operator_pods().map(ResourceExt::name_any).collect();
    for pod in operators {
        facts.proxies.insert(pod.clone(), ask(cluster, &pod, "/debug/syncz").await);
        facts.statuses.insert(pod.clone(), ask(cluster, &pod, "/debug/status").await);
    }
    Ok(facts)
}

impl Facts {
    /// The operator's pods.
    pub fn operator_pods(&self) -> impl Iterator<Item = &Pod> {
        let pods = self.pods.as_deref().unwrap_or_default();
        pods.iter().filter(|pod| {
            pod.metadata.namespace.as_ref() == Some(&self.namespace)
                && pod.labels().get("app").is_some_and(|app| app == OPERATOR)
        })
    }

    /// Pods with a proxy of Weft's.
    pub fn meshed_pods(&self) -> impl Iterator<Item = &Pod> {
        let pods = self.pods.as_deref().unwrap_or_default();
        pods.iter().filter(|pod| is_meshed(pod))
    }
}

/// The proxy of a pod, Weft's or Istio's.
pub fn proxy(pod: &Pod) -> Option<&Container> {
    let spec = pod.spec.as_ref()?;
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.find(|container| container.name == "istio-proxy")
}

/// Whether a pod carries a proxy of Weft's. Istio's container has the same name and another command line: `proxy sidecar`.
pub fn is_meshed(pod: &Pod) -> bool {
    let first = proxy(pod).and_then(|container| container.args.as_ref()?.first());
    first.is_some_and(|first| matches!(first.as_str(), "sidecar" | "router"))
}

async fn definitions(
    cluster: &Cluster,
) -> BTreeMap<String, Fetched<Option<CustomResourceDefinition>>> {
    let mut found = BTreeMap::new();
    for kind in Kind::ALL {
        let name = format!("{}.{}", kind.plural(), kind.group());
        let definition = fetched(kubernetes::get(&cluster.all(), &name).await);
        found.insert(name, definition);
    }
    found
}

async fn roots(cluster: &Cluster) -> Fetched<BTreeMap<String, String>> {
    let named = ListParams::default().fields(&format!("metadata.name={ROOT_CONFIG_MAP}"));
    let found = fetched(kubernetes::list(&cluster.all::<ConfigMap>(), named).await)?;
    Ok(found
        .into_iter()
        .map(|mut map| {
            let root = map.data.as_mut().and_then(|data| data.remove(ROOT_KEY));
            (map.namespace().unwrap_or_default(), root.unwrap_or_default())
        })
        .collect())
}

async fn ask(cluster: &Cluster, pod: &str, path: &str) -> Fetched<Value> {
    let answer = kubernetes::get_json(cluster, &cluster.namespace, pod, ADMIN_PORT, path).await;
    answer.map_err(|error| format!("{error:#}"))
}

fn fetched<T>(result: Result<T, QueryError>) -> Fetched<T> {
    result.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}
