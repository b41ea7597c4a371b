//! From objects of the API server to those of the index.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::core::{DynamicObject, ObjectMeta};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_core::resource::ResourceRef;
use weft_crds::{FieldError, Parsed, ResourceStatus};
use weft_index::{Kind, Object};

use crate::source::{Event, object::ObjectKey};

/// The key of an object that Kubernetes listed under a kind.
pub(super) fn key(kind: Kind, metadata: &ObjectMeta) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

/// What an object says to the index.
pub(super) fn read(kind: Kind, api_version: &str, mut object: DynamicObject) -> Event {
    object.metadata.managed_fields = None;
    let key = key(kind, &object.metadata);
    let generation = object.metadata.generation;
    let read = match kind {
        Kind::Service => typed::<Service>(object).map(|(mut object, metadata)| {
            object.metadata = metadata;
            Object::Service(object)
        }),
        Kind::EndpointSlice => typed::<EndpointSlice>(object).map(|(mut object, metadata)| {
            object.metadata = metadata;
            Object::EndpointSlice(object)
        }),
        Kind::Pod => typed::<Pod>(object).map(|(mut object, metadata)| {
            object.metadata = metadata;
            Object::Pod(object)
        }),
        Kind::ConfigMap => typed::<ConfigMap>(object).map(|(mut object, metadata)| {
            object.metadata = metadata;
            Object::ConfigMap(object)
        }),
        Kind::Secret => typed::<Secret>(object).map(|(mut object, metadata)| {
            object.metadata = metadata;
            Object::Secret(object)
        }),
        Kind::Mesh(kind) => ours(kind, api_version, object),
    };
    match read {
        Ok(object) => Event::Apply(object),
        Err(problems) => Event::Invalid { key, generation, problems },
    }
}

/// The metadata was read before; the rest is in `data`.
fn typed<T: DeserializeOwned>(
    object: DynamicObject,
) -> Result<(Box<T>, ObjectMeta), Vec<FieldError>> {
    serde_json::from_value(object.data)
        .map(|read| (Box::new(read), object.metadata))
        .map_err(|error| vec![FieldError { path: String::new(), reason: error.to_string() }])
}

fn ours(
    kind: weft_crds::Kind,
    api_version: &str,
    mut object: DynamicObject,
) -> Result<Object, Vec<FieldError>> {
    let whole = |reason: String| vec![FieldError { path: String::new(), reason }];
    let metadata =
        serde_json::to_value(&object.metadata).map_err(|error| whole(error.to_string()))?;
    let mut document = json!({
        "apiVersion": api_version,
        "kind": kind.as_str(),
        "metadata": metadata,
    });
    // A status is our own word, and not for the index.
    if let (Some(document), Some(data)) = (document.as_object_mut(), object.data.as_object_mut()) {
        data.remove("status");
        document.extend(std::mem::take(data));
    }
    match weft_crds::parse_document(document) {
        Ok(Parsed::Ours(resource)) => Ok(Object::Mesh(resource)),
        Ok(Parsed::Other(_)) => Err(whole(format!("is not of kind {kind}"))),
        Err(error) if error.problems().is_empty() => Err(whole(error.to_string())),
        Err(error) => Err(error.problems().to_vec()),
    }
}

/// The status that a resource of ours has in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// The version of the API that it was read in.
    pub api_version: String,
    /// Tells it from one of the same name that was there before.
    pub uid: String,
    /// Its latest generation.
    pub generation: i64,
    /// What it says; empty when it cannot be read.
    pub status: ResourceStatus,
}

/// The statuses that our resources have in Kubernetes, as far as the watches know.
#[derive(Clone, Debug, Default)]
pub struct HeldStatuses(Arc<Mutex<HashMap<ResourceRef, Arc<Held>>>>);

impl HeldStatuses {
    /// The status of a resource; `None` when there is no such resource.
    pub fn get(&self, reference: &ResourceRef) -> Option<Arc<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(reference).cloned()
    }

    /// Notes what a resource of ours says in its status.
    pub(crate) fn note(&self, kind: Kind, api_version: &str, object: &DynamicObject) {
        let key = key(kind, &object.metadata);
        let status = object.data.get("status").cloned().unwrap_or(Value::Null);
        let held = Held {
            api_version: api_version.to_owned(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            status: serde_json::from_value(status).unwrap_or_default(),
        };
        let reference = kind.reference(&key.namespace, &key.name);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(reference, Arc::new(held));
    }

    /// Forgets a resource that is gone.
    pub(super) fn forget(&self, key: &ObjectKey) {
        let reference = key.kind.reference(&key.namespace, &key.name);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&reference);
    }
}
