//! A resource of any of our kinds.

use kube::core::ObjectMeta;

use crate::{
    Kind,
    networking::{DestinationRule, EnvoyFilter, Gateway, ServiceEntry, VirtualService},
    security::{AuthorizationPolicy, PeerAuthentication},
};

/// A resource of any of our kinds. Its metadata has a name and a namespace.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // boxed where it is kept
pub enum AnyResource {
    /// Routes for a host.
    VirtualService(VirtualService),
    /// What clients of a host do after routing.
    DestinationRule(DestinationRule),
    /// What the mesh's edge accepts.
    Gateway(Gateway),
    /// A service that Kubernetes does not know.
    ServiceEntry(ServiceEntry),
    /// Patches of proxy configuration.
    EnvoyFilter(EnvoyFilter),
    /// Mutual TLS that workloads demand.
    PeerAuthentication(PeerAuthentication),
    /// Who may do what with workloads.
    AuthorizationPolicy(AuthorizationPolicy),
}

/// The same expression for the resource of any kind.
macro_rules! each {
    ($any:expr, $resource:ident => $body:expr) => {
        match $any {
            AnyResource::VirtualService($resource) => $body,
            AnyResource::DestinationRule($resource) => $body,
            AnyResource::Gateway($resource) => $body,
            AnyResource::ServiceEntry($resource) => $body,
            AnyResource::EnvoyFilter($resource) => $body,
            AnyResource::PeerAuthentication($resource) => $body,
            AnyResource::AuthorizationPolicy($resource) => $body,
        }
    };
}

impl AnyResource {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::VirtualService(_) => Kind::VirtualService,
            Self::DestinationRule(_) => Kind::DestinationRule,
            Self::Gateway(_) => Kind::Gateway,
            Self::ServiceEntry(_) => Kind::ServiceEntry,
            Self::EnvoyFilter(_) => Kind::EnvoyFilter,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
        }
    }

    /// Name, namespace, labels and so on.
    pub const fn metadata(&self) -> &ObjectMeta {
        each!(self, resource => &resource.metadata)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }

    /// The resource as JSON, in the version that is stored.
    pub fn to_value(&self) -> serde_json::Value {
        each!(self, resource => serde_json::to_value(resource)).unwrap_or_default()
    }
}
