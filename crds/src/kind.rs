//! The kinds of resources that are ours, and their names in Kubernetes.

use std::{fmt, sync::OnceLock};

use crate::{
    networking::{
        DestinationRuleSpec, EnvoyFilterSpec, GatewaySpec, ServiceEntrySpec, VirtualServiceSpec,
    },
    schema,
    security::{AuthorizationPolicySpec, PeerAuthenticationSpec},
    shape::Shape,
};

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Routes for a host.
    VirtualService,
    /// What clients of a host do after routing.
    DestinationRule,
    /// What the mesh's edge accepts.
    Gateway,
    /// A service that Kubernetes does not know.
    ServiceEntry,
    /// Patches of proxy configuration.
    EnvoyFilter,
    /// Mutual TLS that workloads demand.
    PeerAuthentication,
    /// Who may do what with workloads.
    AuthorizationPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::VirtualService,
        Self::DestinationRule,
        Self::Gateway,
        Self::ServiceEntry,
        Self::EnvoyFilter,
        Self::PeerAuthentication,
        Self::AuthorizationPolicy,
    ];

    /// The name in `kind:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::Gateway => "Gateway",
            Self::ServiceEntry => "ServiceEntry",
            Self::EnvoyFilter => "EnvoyFilter",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
        }
    }

    /// The API group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::PeerAuthentication | Self::AuthorizationPolicy => SECURITY,
            _ => NETWORKING,
        }
    }

    /// The versions that are served; all have one schema. The first is the one that is stored.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::EnvoyFilter => &["v1alpha3"],
            Self::PeerAuthentication | Self::AuthorizationPolicy => &["v1", "v1beta1"],
            _ => &["v1", "v1beta1", "v1alpha3"],
        }
    }

    /// The plural in Kubernetes' paths.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::VirtualService => "virtualservices",
            Self::DestinationRule => "destinationrules",
            Self::Gateway => "gateways",
            Self::ServiceEntry => "serviceentries",
            Self::EnvoyFilter => "envoyfilters",
            Self::PeerAuthentication => "peerauthentications",
            Self::AuthorizationPolicy => "authorizationpolicies",
        }
    }

    /// The kind that a group and name stand for.
    pub fn find(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == kind && k.group() == group)
    }

    /// The schema of the kind's spec, in the plain form.
    pub(crate) fn spec_schema(self) -> serde_json::Value {
        match self {
            Self::VirtualService => schema::plain::<VirtualServiceSpec>(),
            Self::DestinationRule => schema::plain::<DestinationRuleSpec>(),
            Self::Gateway => schema::plain::<GatewaySpec>(),
            Self::ServiceEntry => schema::plain::<ServiceEntrySpec>(),
            Self::EnvoyFilter => schema::plain::<EnvoyFilterSpec>(),
            Self::PeerAuthentication => schema::plain::<PeerAuthenticationSpec>(),
            Self::AuthorizationPolicy => schema::plain::<AuthorizationPolicySpec>(),
        }
    }

    /// What the kind's spec must look like.
    pub(crate) fn spec_shape(self) -> &'static Shape {
        static SHAPES: [OnceLock<Shape>; Kind::ALL.len()] = [const { OnceLock::new() }; 7];
        SHAPES[self as usize].get_or_init(|| match self {
            Self::VirtualService => Shape::of::<VirtualServiceSpec>(),
            Self::DestinationRule => Shape::of::<DestinationRuleSpec>(),
            Self::Gateway => Shape::of::<GatewaySpec>(),
            Self::ServiceEntry => Shape::of::<ServiceEntrySpec>(),
            Self::EnvoyFilter => Shape::of::<EnvoyFilterSpec>(),
            Self::PeerAuthentication => Shape::of::<PeerAuthenticationSpec>(),
            Self::AuthorizationPolicy => Shape::of::<AuthorizationPolicySpec>(),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
