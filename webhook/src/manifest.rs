//! Injection of what people deploy: the pod templates of workloads, and lists of them.

use serde_json::Value;
use weft_crds::DEFAULT_NAMESPACE;

use crate::{
    config::InjectConfig,
    inject::{self, InjectError, Outcome},
    json,
    owner::Owner,
};

/// What became of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The document, changed or not.
    pub value: Value,
    /// Whether it was changed.
    pub changed: bool,
    /// What its author should know, each with the object that it is about.
    pub warnings: Vec<String>,
}

/// Gives the pods of a document their proxies: Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController,
/// Job, CronJob, and lists. Anything else stays as it is.
///
/// # Errors
/// When a pod asks for something that cannot be had; the text names the object.
pub fn inject_document(
    mut document: Value,
    namespace: Option<&str>,
    config: &InjectConfig,
) -> Result<Document, String> {
    let mut warnings = Vec::new();
    let changed = inject_any(&mut document, namespace, config, &mut warnings)?;
    Ok(Document { value: document, changed, warnings })
}

fn inject_any(
    document: &mut Value,
    namespace: Option<&str>,
    config: &InjectConfig,
    warnings: &mut Vec<String>,
) -> Result<bool, String> {
    let kind = json::text(document, "kind").unwrap_or_default().to_owned();
    if kind.ends_with("List")
        && let Some(Value::Array(items)) = document.get_mut("items")
    {
        let mut changed = false;
        for item in items {
            changed |= inject_any(item, namespace, config, warnings)?;
        }
        return Ok(changed);
    }
    let path: &[&str] = match (json::text(document, "apiVersion").unwrap_or_default(), &*kind) {
        ("v1", "Pod") => &[],
        ("v1", "ReplicationController")
        | ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch/v1", "Job") => &["spec", "template"],
        ("batch/v1", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
        _ => return Ok(false),
    };
    let metadata = document.get("metadata").cloned().unwrap_or_default();
    let own = json::text(&metadata, "namespace");
    let namespace = own.or(namespace).unwrap_or(DEFAULT_NAMESPACE);
    let owner = owner(document, &metadata, &kind);
    let label = format!("{kind} {namespace}/{}", owner.name);
    let Some(template) = path.iter().try_fold(&mut *document, |value, key| value.get_mut(key))
    else {
        return Err(format!("{label}: {} is required", path.join(".")));
    };
    let owner = (kind != "Pod").then_some(owner);
    match inject::inject(template.clone(), namespace, owner, config) {
        Ok(Outcome::Injected(injected)) => {
            *template = injected.pod;
            warnings.extend(injected.warnings.iter().map(|warning| format!("{label}: {warning}")));
            Ok(true)
        }
        Ok(Outcome::Skipped(skip)) => {
            warnings.push(format!("{label}: not injected: {skip}"));
            Ok(false)
        }
        Err(error @ (InjectError::NotAPod(_) | InjectError::NoSpec)) if !path.is_empty() => {
            Err(format!("{label}: {}: {error}", path.join(".")))
        }
        Err(error) => Err(format!("{label}: {error}")),
    }
}

fn owner(document: &Value, metadata: &Value, kind: &str) -> Owner {
    let text = |value: &Value, key: &str| json::text(value, key).map(str::to_owned);
    let generated = || text(metadata, "generateName").map(|name| name.trim_end_matches('-').into());
    Owner {
        api_version: text(document, "apiVersion").unwrap_or_default(),
        kind: kind.to_owned(),
        name: text(metadata, "name").or_else(generated).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
