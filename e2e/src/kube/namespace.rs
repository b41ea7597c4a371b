//! What a test owns: a namespace, described when the test fails and removed when it ends.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ::kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use anyhow::{Context, ensure};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1,
};
use serde_json::{Value, json};

use super::{Cluster, Pod, until, until_for};
use crate::programs::sample;

/// Pods start one after the other on a small machine.
const ROLLOUT: Duration = Duration::from_secs(240);

/// Whether the mesh takes the pods of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// `istio-injection: enabled`.
    Istio,
    /// `weft-injection: enabled`.
    Weft,
    /// No label.
    Off,
}

impl Injection {
    fn label(self) -> Option<&'static str> {
        match self {
            Self::Istio => Some("istio-injection"),
            Self::Weft => Some("weft-injection"),
            Self::Off => None,
        }
    }
}

/// A namespace of one test.
pub struct Namespace {
    cluster: Cluster,
    name: String,
    /// What is taken away at the end.
    end: End,
}

enum End {
    /// All of it.
    Namespace,
    /// A label, and what was applied: YAML, the last first.
    Content { label: Option<&'static str>, applied: Mutex<Vec<String>> },
}

impl Cluster {
    /// Makes a namespace whose name begins with that of the test.
    ///
    /// # Errors
    /// When it cannot be made, or the mesh does not notice it.
    pub async fn namespace(&self, test: &str, injection: Injection) -> anyhow::Result<Namespace> {
        let suffix: String = std::iter::repeat_with(fastrand::lowercase).take(5).collect();
        let name = format!("{test}-{suffix}");
        let labels = injection.label().map(|label| (label.to_owned(), "enabled".to_owned()));
        let mut object = v1::Namespace::default();
        object.metadata.name = Some(name.clone());
        object.metadata.labels = Some(labels.into_iter().collect());
        let api: Api<v1::Namespace> = self.cluster_api();
        api.create(&PostParams::default(), &object).await.with_context(|| name.clone())?;
        let namespace = Namespace { cluster: self.clone(), name, end: End::Namespace };
        // Pods that start before these are there wait for the kubelet's next round.
        let accounts: Api<v1::ServiceAccount> = self.api(&namespace.name);
        until("the namespace should have its service account", async || {
            accounts.get("default").await.map_err(Into::into)
        })
        .await?;
        if injection != Injection::Off {
            namespace.has_root().await?;
        }
        Ok(namespace)
    }

    /// Takes the namespace `default`, for YAML that names it. One test at a time can have it.
    ///
    /// # Errors
    /// When the mesh does not notice it.
    pub async fn default_namespace(&self, injection: Injection) -> anyhow::Result<Namespace> {
        let label = injection.label();
        let end = End::Content { label, applied: Mutex::default() };
        let namespace = Namespace { cluster: self.clone(), name: "default".to_owned(), end };
        if let Some(label) = label {
            namespace.label(label, Some("enabled")).await?;
            namespace.has_root().await?;
        }
        Ok(namespace)
    }
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Waits until the mesh published its root here.
    ///
    /// # Errors
    /// When it does not.
    pub async fn has_root(&self) -> anyhow::Result<()> {
        let maps: Api<v1::ConfigMap> = self.cluster.api(&self.name);
        until("the namespace should have the mesh's root", async || {
            let map = maps.get("istio-ca-root-cert").await?;
            ensure!(map.data.is_some_and(|data| data.contains_key("root-cert.pem")), "empty");
            Ok(())
        })
        .await
    }

    /// Puts a label on it, or takes it off.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn label(&self, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        let api: Api<v1::Namespace> = self.cluster.cluster_api();
        let patch = json!({"metadata": {"labels": {key: value}}});
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// `kubectl apply -f -` in this namespace.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        if let End::Content { applied, .. } = &self.end {
            applied.lock().unwrap_or_else(PoisonError::into_inner).push(yaml.to_owned());
        }
        self.cluster.apply(&self.name, yaml).await
    }

    /// `kubectl delete -f -` in this namespace.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn delete(&self, yaml: &str) -> anyhow::Result<()> {
        self.cluster.delete(&self.name, yaml).await
    }

    /// Applies files of `samples/kubernetes` and waits until their pods serve.
    ///
    /// # Errors
    /// When a file is refused, or a pod does not become ready.
    pub async fn deploy(&self, services: &[&str]) -> anyhow::Result<()> {
        for service in services {
            self.apply(&sample(&format!("kubernetes/{service}.yaml"))?).await?;
        }
        self.rolled_out().await
    }

    /// Waits until every Deployment and StatefulSet runs as it is written down, and nothing of before is left.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn rolled_out(&self) -> anyhow::Result<()> {
        let deployments: Api<Deployment> = self.cluster.api(&self.name);
        let sets: Api<StatefulSet> = self.cluster.api(&self.name);
        until_for(ROLLOUT, "everything should be rolled out", async || {
            for deployment in deployments.list(&ListParams::default()).await? {
                let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                let status = deployment.status.clone().unwrap_or_default();
                let seen = status.observed_generation == deployment.metadata.generation;
                let counts = [status.updated_replicas, status.available_replicas, status.replicas];
                let there = counts.map(Option::unwrap_or_default);
                let name = deployment.name_any();
                ensure!(seen && there == [wanted; 3], "{name}: {there:?} of {wanted}");
            }
            for set in sets.list(&ListParams::default()).await? {
                let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                let status = set.status.clone().unwrap_or_default();
                let seen = status.observed_generation == set.metadata.generation;
                let there = [status.ready_replicas, status.updated_replicas];
                let there = there.map(Option::unwrap_or_default);
                ensure!(seen && there == [wanted; 2], "{}: {there:?} of {wanted}", set.name_any());
            }
            Ok(())
        })
        .await
    }

    /// `kubectl rollout restart deployment NAME`, and waits for its end, and for that of the pods it replaces.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn restart(&self, deployment: &str) -> anyhow::Result<()> {
        let api: Api<Deployment> = self.cluster.api(&self.name);
        api.restart(deployment).await?;
        self.rolled_out().await?;
        let pods: Api<v1::Pod> = self.cluster.api(&self.name);
        until_for(ROLLOUT, "the pods of before should be gone", async || {
            let pods = pods.list(&ListParams::default()).await?.items;
            let leaving = pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_some());
            ensure!(
                leaving.is_none(),
                "{} leaves",
                leaving.map(ResourceExt::name_any).unwrap_or_default()
            );
            Ok(())
        })
        .await
    }

    /// The pods that match a selector.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, selector: &str) -> anyhow::Result<Vec<Pod>> {
        self.cluster.pods(&self.name, selector).await
    }

    /// The one pod that matches a selector.
    ///
    /// # Errors
    /// When there is none, or more.
    pub async fn pod(&self, selector: &str) -> anyhow::Result<Pod> {
        let mut pods = self.pods(selector).await?;
        let pod = pods.pop().with_context(|| format!("no pod with {selector}"))?;
        ensure!(pods.is_empty(), "{} more pods with {selector}", pods.len());
        Ok(pod)
    }

    /// The conditions of a resource of ours: type and status, reason and message.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn conditions(
        &self,
        api_version: &str,
        kind: &str,
        name: &str,
    ) -> anyhow::Result<Vec<Value>> {
        let object = self.cluster.get(api_version, kind, &self.name, name).await?;
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        Ok(conditions.cloned().unwrap_or_default())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let (name, failed) = (self.name.clone(), std::thread::panicking());
        let content = match &mut self.end {
            End::Namespace => None,
            End::Content { label, applied } => {
                let applied = applied.get_mut().unwrap_or_else(PoisonError::into_inner);
                Some((*label, std::mem::take(applied)))
            }
        };
        // The test's runtime may be ending: a thread of its own does the last calls.
        let end = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let cluster = Cluster::connect().await?;
                if failed {
                    super::dump::namespace(&cluster, &name).await;
                    if std::env::var_os("WEFT_KEEP_NAMESPACES").is_some() {
                        return Ok(());
                    }
                }
                let api: Api<v1::Namespace> = cluster.cluster_api();
                if let Some((label, applied)) = content {
                    for yaml in applied.iter().rev() {
                        cluster.delete(&name, yaml).await?;
                    }
                    if let Some(label) = label {
                        let patch = json!({"metadata": {"labels": {label: null}}});
                        let params = PatchParams::default();
                        api.patch(&name, &params, &Patch::Merge(&patch)).await?;
                    }
                    return Ok(());
                }
                api.delete(&name, &DeleteParams::background()).await?;
                anyhow::Ok(())
            })
        });
        // What is left over is in nobody's way.
        let _ = end.join();
    }
}
