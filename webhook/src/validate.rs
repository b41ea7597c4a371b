//! Whether a resource of the mesh may be stored.
//!
//! Errors refuse it, all of them told at once; warnings go with the answer. What cannot have an effect on the mesh is never
//! in the way: other kinds, deletions, statuses, and changes of what an object already was.

use serde_json::{Value, json};
use weft_crds::{AnyResource, Parsed, parse_document};

use crate::{
    json,
    review::{Answer, Request},
};

/// The judgement on a resource.
#[derive(Debug, PartialEq)]
pub(crate) enum Judgement {
    /// Not judged: it is not ours, or the change cannot make it worse.
    Waved(Option<String>),
    Accepted {
        warnings: Vec<String>,
    },
    Refused {
        message: String,
        /// For metrics.
        reason: &'static str,
    },
}

impl Judgement {
    pub(crate) fn into_answer(self) -> Answer {
        match self {
            Self::Waved(warning) => {
                Answer { warnings: warning.into_iter().collect(), ..Answer::default() }
            }
            Self::Accepted { warnings } => Answer { warnings, ..Answer::default() },
            Self::Refused { message, .. } => Answer { denied: Some(message), ..Answer::default() },
        }
    }
}

/// Judges what a request is about to store.
pub(crate) fn judge(request: &Request) -> Judgement {
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE")
        || request.sub_resource.as_deref().is_some_and(|sub| !sub.is_empty())
        || is_going(&request.object)
        || (request.operation == "UPDATE" && same_content(&request.object, &request.old_object))
    {
        return Judgement::Waved(None);
    }
    match parse_document(placed(request)) {
        Ok(Parsed::Other(other)) => {
            let group = other.api_version.split('/').next().unwrap_or_default();
            let warning = group.ends_with("istio.io").then(|| {
                format!("{} {}: Weft does not act on this kind", other.api_version, other.kind)
            });
            Judgement::Waved(warning)
        }
        Ok(Parsed::Ours(resource)) => judge_resource(&resource),
        Err(error) => Judgement::Refused { message: error.to_string(), reason: "invalid_shape" },
    }
}

fn judge_resource(resource: &AnyResource) -> Judgement {
    let validation = weft_crds::validate(resource);
    if validation.is_valid() {
        let warnings = validation.warnings.iter().map(ToString::to_string).collect();
        return Judgement::Accepted { warnings };
    }
    let errors: Vec<_> = validation.errors.iter().map(ToString::to_string).collect();
    let (kind, namespace, name) = (resource.kind(), resource.namespace(), resource.name());
    let message = format!("{kind} {namespace}/{name}: {}", errors.join("; "));
    Judgement::Refused { message, reason: "invalid_resource" }
}

/// Whether an object is only waiting for its finalizers.
fn is_going(object: &Value) -> bool {
    object.get("metadata").is_some_and(|metadata| metadata["deletionTimestamp"].is_string())
}

/// Whether nothing but metadata or status changed. An update of an object that was invalid before is judged as any
/// other, unless what makes it invalid is not what is being changed.
fn same_content(object: &Value, old: &Value) -> bool {
    let content = |value: &Value| {
        let Value::Object(object) = value else { return None };
        let mut object = object.clone();
        for key in ["metadata", "status"] {
            object.remove(key);
        }
        Some(object)
    };
    content(old).is_some_and(|old| content(object) == Some(old))
}

/// The object with the name and namespace that it will have. What the API server keeps in the metadata is not the
/// author's and not judged.
fn placed(request: &Request) -> Value {
    let mut object = request.object.clone();
    if !object.is_object() {
        return object;
    }
    let metadata = json::object_mut(&mut object, "metadata");
    metadata.remove("managedFields");
    if let Some(namespace) = request.namespace.as_deref().filter(|namespace| !namespace.is_empty())
    {
        metadata.entry("namespace").or_insert_with(|| json!(namespace));
    }
    if metadata.get("name").is_none()
        && let Some(prefix) = metadata.get("generateName").and_then(Value::as_str)
    {
        let name = format!("{prefix}00000");
        metadata.insert("name".into(), json!(name));
    }
    object
}

#[cfg(test)]
mod tests;
