//! The types of resources that Weft serves.

use weft_api::type_url;

/// A type of xDS resource. The order is the order of a push: what is referred to comes before what refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// SDS: of proxies at the edge only.
    Secret,
    /// LDS.
    Listener,
    /// RDS.
    Route,
    /// VHDS.
    VirtualHost,
}

impl ResourceType {
    /// Every type, in the order of a push.
    pub const ALL: [Self; 6] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Secret,
        Self::Listener,
        Self::Route,
        Self::VirtualHost,
    ];

    /// The type with this URL.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// The type's URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoints => type_url::CLUSTER_LOAD_ASSIGNMENT,
            Self::Secret => type_url::SECRET,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE_CONFIGURATION,
            Self::VirtualHost => type_url::VIRTUAL_HOST,
        }
    }

    /// `cds`, `eds`, `sds`, `lds`, `rds` or `vhds`.
    pub fn short(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Endpoints => "eds",
            Self::Secret => "sds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::VirtualHost => "vhds",
        }
    }

    /// Whether an empty first subscription asks for everything: only in the types where Envoy's history has it so.
    pub(crate) fn has_legacy_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Whether taking such a resource away can break a route that still names it.
    pub(crate) fn is_referred_to(self) -> bool {
        matches!(self, Self::Cluster | Self::Endpoints | Self::Secret)
    }
}
