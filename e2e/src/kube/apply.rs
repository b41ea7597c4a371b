//! `kubectl apply` and `kubectl delete` of YAML documents: server-side apply of whatever kind the cluster knows.

use ::kube::api::{DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use anyhow::Context;
use serde_json::Value;

use super::Cluster;

/// Who owns the fields that tests apply.
const MANAGER: &str = "weft-e2e";

pub(super) fn group_version_kind(api_version: &str, kind: &str) -> GroupVersionKind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    GroupVersionKind::gvk(group, version, kind)
}

/// A document's kind, name and namespace.
struct Named<'a> {
    api_version: &'a str,
    kind: &'a str,
    name: &'a str,
    namespace: &'a str,
}

fn named<'a>(document: &'a Value, namespace: &'a str) -> anyhow::Result<Named<'a>> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let need = |pointer: &str| {
        text(pointer).with_context(|| format!("{pointer} is missing in {document}"))
    };
    Ok(Named {
        api_version: need("/apiVersion")?,
        kind: need("/kind")?,
        name: need("/metadata/name")?,
        namespace: text("/metadata/namespace").unwrap_or(namespace),
    })
}

/// The documents of a YAML text.
///
/// # Errors
/// When it is not YAML.
pub(super) fn documents(yaml: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

impl Cluster {
    /// `kubectl apply -n NAMESPACE -f -`.
    ///
    /// # Errors
    /// What the API server says, such as a webhook's denial.
    pub async fn apply(&self, namespace: &str, yaml: &str) -> anyhow::Result<()> {
        for document in documents(yaml)? {
            let Named { api_version, kind, name, namespace } = named(&document, namespace)?;
            let api = self.dynamic(api_version, kind, namespace).await?;
            let params = PatchParams::apply(MANAGER).force();
            let applied = api.patch(name, &params, &Patch::Apply(&document)).await;
            applied.with_context(|| format!("apply of {kind} {namespace}/{name}"))?;
        }
        Ok(())
    }

    /// `kubectl delete -n NAMESPACE -f -`; what is not there is fine.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn delete(&self, namespace: &str, yaml: &str) -> anyhow::Result<()> {
        for document in documents(yaml)? {
            let Named { api_version, kind, name, namespace } = named(&document, namespace)?;
            let api = self.dynamic(api_version, kind, namespace).await?;
            match api.delete(name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(::kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("delete {kind} {namespace}/{name}"));
                }
            }
        }
        Ok(())
    }

    /// `kubectl get KIND NAME -o json`.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<Value> {
        let api = self.dynamic(api_version, kind, namespace).await?;
        let object: DynamicObject = api.get(name).await?;
        Ok(serde_json::to_value(object)?)
    }

    /// `kubectl patch KIND NAME --type merge`.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn patch(
        &self,
        (api_version, kind): (&str, &str),
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> anyhow::Result<()> {
        let api = self.dynamic(api_version, kind, namespace).await?;
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }
}
