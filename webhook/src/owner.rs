//! The workload that a pod belongs to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// What people deployed: the Deployment behind a ReplicaSet, the CronJob behind a Job, or the pod itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its `kind`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Owner {
    /// The workload of a pod. Only the pod itself is asked: what stands behind a ReplicaSet or a Job shows in its name.
    pub fn of(pod: &ObjectMeta) -> Self {
        let references = pod.owner_references.as_deref().unwrap_or_default();
        let controller = references
            .iter()
            .find(|reference| reference.controller == Some(true))
            .and_then(|reference| Self::behind(reference, pod));
        controller.unwrap_or_else(|| {
            let name = pod.name.as_deref().filter(|name| !name.is_empty());
            let generated = pod.generate_name.as_deref().unwrap_or_default().trim_end_matches('-');
            Self::new("v1", "Pod", name.unwrap_or(generated))
        })
    }

    fn new(api_version: &str, kind: &str, name: &str) -> Self {
        Self { api_version: api_version.into(), kind: kind.into(), name: name.into() }
    }

    fn behind(reference: &OwnerReference, pod: &ObjectMeta) -> Option<Self> {
        let label = |key: &str| pod.labels.as_ref().and_then(|labels| labels.get(key));
        let OwnerReference { api_version, kind, name, .. } = reference;
        let owner = match kind.as_str() {
            "ReplicaSet" if label("rollouts-pod-template-hash").is_some() => {
                label("rollouts-pod-template-hash")
                    .and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'))
                    .map(|name| Self::new("argoproj.io/v1alpha1", "Rollout", name))
            }
            "ReplicaSet" => label("pod-template-hash")
                .and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'))
                .map(|name| Self::new("apps/v1", "Deployment", name)),
            "ReplicationController" => label("deploymentconfig")
                .filter(|config| name.starts_with(config.as_str()))
                .map(|name| Self::new("apps.openshift.io/v1", "DeploymentConfig", name)),
            "Job" => name
                .rsplit_once('-')
                // A CronJob's jobs end in the minute that they are of.
                .filter(|(_, time)| {
                    (8..=10).contains(&time.len()) && time.bytes().all(|b| b.is_ascii_digit())
                })
                .map(|(name, _)| Self::new("batch/v1", "CronJob", name)),
            _ => None,
        };
        let owner = owner.unwrap_or_else(|| Self::new(api_version, kind, name));
        (!owner.name.is_empty()).then_some(owner)
    }

    /// The workload as Istio's telemetry names it.
    pub(crate) fn uri(&self, namespace: &str) -> String {
        let kind = self.kind.to_ascii_lowercase();
        let Self { api_version, name, .. } = self;
        format!("kubernetes://apis/{api_version}/namespaces/{namespace}/{kind}s/{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_workload_is_what_people_deployed() {
        let owned = |kind: &str, version: &str, name: &str, labels: serde_json::Value| {
            json!({
                "generateName": format!("{name}-"),
                "labels": labels,
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "0"},
                    {"apiVersion": version, "kind": kind, "name": name, "uid": "1", "controller": true},
                ],
            })
        };
        for (pod, expected) in [
            (
                owned(
                    "ReplicaSet",
                    "apps/v1",
                    "web-5d4f8b",
                    json!({"pod-template-hash": "5d4f8b"}),
                ),
                ("apps/v1", "Deployment", "web"),
            ),
            (owned("ReplicaSet", "apps/v1", "web", json!({})), ("apps/v1", "ReplicaSet", "web")),
            (
                owned("ReplicaSet", "apps/v1", "a-7", json!({"rollouts-pod-template-hash": "7"})),
                ("argoproj.io/v1alpha1", "Rollout", "a"),
            ),
            (owned("StatefulSet", "apps/v1", "db", json!({})), ("apps/v1", "StatefulSet", "db")),
            (owned("DaemonSet", "apps/v1", "agent", json!({})), ("apps/v1", "DaemonSet", "agent")),
            (owned("Job", "batch/v1", "mail-29012345", json!({})), ("batch/v1", "CronJob", "mail")),
            (owned("Job", "batch/v1", "mail-1", json!({})), ("batch/v1", "Job", "mail-1")),
            (
                owned("ReplicationController", "v1", "a-3", json!({"deploymentconfig": "a"})),
                ("apps.openshift.io/v1", "DeploymentConfig", "a"),
            ),
            (json!({"name": "alone"}), ("v1", "Pod", "alone")),
            (json!({"generateName": "run-"}), ("v1", "Pod", "run")),
        ] {
            let owner = Owner::of(&serde_json::from_value(pod).unwrap());
            let (api_version, kind, name) = expected;
            assert_eq!(owner, Owner::new(api_version, kind, name));
        }
        assert_eq!(
            Owner::new("apps/v1", "Deployment", "web").uri("shop"),
            "kubernetes://apis/apps/v1/namespaces/shop/deployments/web"
        );
    }
}
