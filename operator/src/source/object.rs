//! Resources of kinds that are not ours, and how any resource is named in a source.

use std::fmt;

use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use serde::de::DeserializeOwned;
use weft_crds::{AnyResource, DEFAULT_NAMESPACE, Object as Document};
use weft_index::{Kind, Object};

/// Names a resource among all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The key of a resource.
    pub fn of(object: &Object) -> Self {
        let metadata = object.metadata();
        Self {
            kind: object.kind(),
            namespace: metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What a document of a kind that is not ours is to the mesh.
#[derive(Debug)]
pub enum Understood {
    /// A resource that the mesh reads.
    Object(Object),
    /// Something without an effect on the mesh.
    Unused {
        /// Whether its author surely expected one.
        expected: bool,
    },
}

/// Reads a document of a kind that is not ours. Namespaces are checked and have no effect so far.
///
/// # Errors
/// What is wrong with it, for its author.
pub fn read(document: Document) -> Result<Understood, String> {
    if document.kind.is_empty() || document.api_version.is_empty() {
        return Err("a document without apiVersion and kind".into());
    }
    let label = format!(
        "{} {}/{}",
        document.kind,
        document.namespace().unwrap_or(DEFAULT_NAMESPACE),
        document.name().unwrap_or("(no name)")
    );
    if document.name().is_none_or(str::is_empty) {
        return Err(format!("{label}: metadata.name: is required"));
    }
    let object = match (document.api_version.as_str(), document.kind.as_str()) {
        ("v1", "Service") => typed(document).map(Object::Service),
        ("discovery.k8s.io/v1", "EndpointSlice") => typed(document).map(Object::EndpointSlice),
        ("v1", "Pod") => typed(document).map(Object::Pod),
        ("v1", "ConfigMap") => typed(document).map(Object::ConfigMap),
        ("v1", "Namespace") => return unused(typed::<Namespace>(document), &label),
        ("v1", "Secret") => typed(document).map(Object::Secret),
        (api_version, _) => {
            let group = api_version.split('/').next().unwrap_or_default();
            return Ok(Understood::Unused { expected: group.ends_with("istio.io") });
        }
    };
    let mut object = object.map_err(|reason| format!("{label}: {reason}"))?;
    metadata_mut(&mut object).namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.into());
    Ok(Understood::Object(object))
}

fn unused<T>(document: Result<T, String>, label: &str) -> Result<Understood, String> {
    match document {
        Ok(_) => Ok(Understood::Unused { expected: false }),
        Err(reason) => Err(format!("{label}: {reason}")),
    }
}

fn typed<T: DeserializeOwned>(document: Document) -> Result<Box<T>, String> {
    serde_json::from_value(document.value).map(Box::new).map_err(|error| error.to_string())
}

/// Says when a resource was created (seconds since the Unix epoch) where its manifest does not.
pub fn set_created(object: &mut Object, seconds: i64) {
    let metadata = metadata_mut(object);
    if metadata.creation_timestamp.is_none() {
        metadata.creation_timestamp = Timestamp::from_second(seconds).ok().map(Time);
    }
}

fn metadata_mut(object: &mut Object) -> &mut ObjectMeta {
    match object {
        Object::Service(object) => &mut object.metadata,
        Object::EndpointSlice(object) => &mut object.metadata,
        Object::Pod(object) => &mut object.metadata,
        Object::ConfigMap(object) => &mut object.metadata,
        Object::Secret(object) => &mut object.metadata,
        Object::Mesh(resource) => match resource.as_mut() {
            AnyResource::VirtualService(object) => &mut object.metadata,
            AnyResource::DestinationRule(object) => &mut object.metadata,
            AnyResource::Gateway(object) => &mut object.metadata,
            AnyResource::ServiceEntry(object) => &mut object.metadata,
            AnyResource::EnvoyFilter(object) => &mut object.metadata,
            AnyResource::PeerAuthentication(object) => &mut object.metadata,
            AnyResource::AuthorizationPolicy(object) => &mut object.metadata,
        },
    }
}
