//! Tests on a real Kubernetes that `KUBECONFIG` names: a namespace per test with the mesh injecting its pods,
//! resources applied as a user applies them, and requests sent from inside a pod as its application sends them.
//!
//! `Cluster` is the way in; `Namespace` is what a test owns, removed when it ends and described when it fails; `Pod`
//! talks to one pod. Nothing sleeps: conditions are asked again until they hold.

mod apply;
mod dump;
mod forward;
pub mod helm;
mod namespace;
pub mod node;
mod pod;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::kube::{
    Api, Client, Config, Resource,
    api::{ApiResource, DynamicObject},
    config::KubeConfigOptions,
    discovery::Scope,
};
use anyhow::{Context, bail};

use crate::wait;

pub use forward::Forward;
pub use namespace::{Injection, Namespace};
pub use node::Node;
pub use pod::Pod;

/// The namespace of the control plane.
pub const SYSTEM: &str = "weft-system";

/// Far beyond what anything takes on a busy machine; only failures wait so long.
pub const PATIENCE: Duration = Duration::from_secs(120);

const AGAIN: Duration = Duration::from_millis(150);

/// Asks until the answer is `Ok`; fails with the last error after [`PATIENCE`].
///
/// # Errors
/// When the deadline passes.
pub async fn until<T>(
    what: &str,
    ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    until_for(PATIENCE, what, ask).await
}

/// As [`until`], with another deadline.
///
/// # Errors
/// When the deadline passes.
pub async fn until_for<T>(
    patience: Duration,
    what: &str,
    ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    wait::until_ok_every(AGAIN, patience, what, ask).await
}

type Kinds = HashMap<(String, String), (ApiResource, Scope)>;

/// The cluster under test.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    kinds: Arc<Mutex<Kinds>>,
}

impl Cluster {
    /// The cluster that `KUBECONFIG` names.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub async fn connect() -> anyhow::Result<Self> {
        if std::env::var_os("KUBECONFIG").is_none() {
            bail!(
                "KUBECONFIG names no cluster: ./justw cluster-test makes one and runs these tests"
            );
        }
        let mut config = Config::from_kubeconfig(&KubeConfigOptions::default()).await?;
        // Tests come in bursts.
        config.read_timeout = None;
        Ok(Self { client: Client::try_from(config)?, kinds: Arc::default() })
    }

    /// The cluster with the mesh in it: installed by the first who asks.
    ///
    /// # Errors
    /// When the mesh cannot be installed, or does not become ready.
    pub async fn with_mesh() -> anyhow::Result<Self> {
        let cluster = Self::connect().await?;
        helm::ensure_installed(&cluster).await?;
        Ok(cluster)
    }

    /// The client of the API server.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Objects of a kind in a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = ::kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client(), namespace)
    }

    /// Objects of a kind that have no namespace.
    pub fn cluster_api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = ::kube::core::ClusterResourceScope>,
        K::DynamicType: Default,
    {
        Api::all(self.client())
    }

    /// A pod of the operator.
    ///
    /// # Errors
    /// When there is none.
    pub async fn operator(&self) -> anyhow::Result<Pod> {
        let pods = self.pods(SYSTEM, "app=weft-operator").await?;
        pods.into_iter().next().context("no pod of the operator")
    }

    /// Objects of a kind by its names, in a namespace where it has those.
    async fn dynamic(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
    ) -> anyhow::Result<Api<DynamicObject>> {
        let key = (api_version.to_owned(), kind.to_owned());
        let known = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let (resource, scope) = match known {
            Some(known) => known,
            None => {
                let gvk = apply::group_version_kind(api_version, kind);
                let (resource, capabilities) =
                    ::kube::discovery::pinned_kind(&self.client, &gvk).await?;
                let found = (resource, capabilities.scope);
                let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
                kinds.insert(key, found.clone());
                found
            }
        };
        Ok(match scope {
            Scope::Namespaced => Api::namespaced_with(self.client(), namespace, &resource),
            Scope::Cluster => Api::all_with(self.client(), &resource),
        })
    }
}
