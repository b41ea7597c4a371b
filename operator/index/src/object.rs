//! What the index is fed with.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Pod, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use weft_core::resource::ResourceRef;
use weft_crds::{AnyResource, Parsed};

/// The namespace of an object whose metadata names none.
const DEFAULT_NAMESPACE: &str = "default";

/// An object's namespace and name.
pub(crate) type ObjectKey = (Arc<str>, Arc<str>);

/// A kind that the mesh model is made from. Namespaces are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Kubernetes' `v1` Service.
    Service,
    /// Kubernetes' `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// Kubernetes' `v1` Pod.
    Pod,
    /// Kubernetes' `v1` ConfigMap: only that of the mesh's settings counts.
    ConfigMap,
    /// Kubernetes' `v1` Secret: those that Gateways name count.
    Secret,
    /// A kind of ours.
    Mesh(weft_crds::Kind),
}

impl Kind {
    /// The name in `kind:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Mesh(kind) => kind.as_str(),
        }
    }

    /// Points at an object of this kind.
    pub fn reference(self, namespace: &str, name: &str) -> ResourceRef {
        ResourceRef { kind: self.as_str(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object of one of the kinds. One without a namespace is in `default`; age and generation come from its metadata:
/// an object without a creation time counts as the oldest.
#[derive(Clone)]
pub enum Object {
    /// A Service.
    Service(Box<Service>),
    /// An EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// A Pod.
    Pod(Box<Pod>),
    /// A ConfigMap.
    ConfigMap(Box<ConfigMap>),
    /// A Secret.
    Secret(Box<Secret>),
    /// A resource of ours, parsed but not validated.
    Mesh(Box<AnyResource>),
}

/// Shows which object it is, and nothing of its content: it may be a Secret.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference().fmt(f)
    }
}

/// Why an object of Kubernetes could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{reference}: not a {}", reference.kind)]
pub struct ObjectError {
    /// The kind.
    pub kind: Kind,
    /// The object, as far as its metadata says; its name may be empty.
    pub reference: ResourceRef,
    /// What is wrong with it.
    #[source]
    pub source: serde_json::Error,
}

impl Object {
    /// Reads a parsed document; `None` when it is of a kind that the index has no use for.
    pub fn read(document: Parsed) -> Result<Option<Self>, ObjectError> {
        fn typed<T: DeserializeOwned>(
            kind: Kind,
            value: Value,
        ) -> Result<Option<Box<T>>, ObjectError> {
            let text = |field: &str| value.get("metadata")?.get(field)?.as_str();
            let reference = kind.reference(
                text("namespace").unwrap_or(DEFAULT_NAMESPACE),
                text("name").unwrap_or_default(),
            );
            serde_json::from_value(value)
                .map(|object| Some(Box::new(object)))
                .map_err(|source| ObjectError { kind, reference, source })
        }
        let object = match document {
            Parsed::Ours(resource) => return Ok(Some(Self::Mesh(resource))),
            Parsed::Other(object) => object,
        };
        Ok(match (object.api_version.as_str(), object.kind.as_str()) {
            ("v1", "Service") => typed(Kind::Service, object.value)?.map(Self::Service),
            ("v1", "Pod") => typed(Kind::Pod, object.value)?.map(Self::Pod),
            ("v1", "ConfigMap") => typed(Kind::ConfigMap, object.value)?.map(Self::ConfigMap),
            ("v1", "Secret") => typed(Kind::Secret, object.value)?.map(Self::Secret),
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                typed(Kind::EndpointSlice, object.value)?.map(Self::EndpointSlice)
            }
            _ => None,
        })
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Pod(_) => Kind::Pod,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::Secret(_) => Kind::Secret,
            Self::Mesh(resource) => Kind::Mesh(resource.kind()),
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::Mesh(resource) => resource.metadata(),
        }
    }

    /// Its kind, namespace and name.
    pub fn reference(&self) -> ResourceRef {
        reference(self.kind(), self.metadata())
    }
}

/// The reference of an object.
pub(crate) fn reference(kind: Kind, metadata: &ObjectMeta) -> ResourceRef {
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    kind.reference(
        namespace.unwrap_or(DEFAULT_NAMESPACE),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// When an object was created, in seconds since the Unix epoch.
pub(crate) fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}
