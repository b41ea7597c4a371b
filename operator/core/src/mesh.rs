//! Mesh-wide settings, with the names and defaults of Istio's MeshConfig.

use std::{sync::Arc, time::Duration};

/// What happens to traffic for a destination that the mesh does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboundTrafficPolicy {
    /// It goes where it wants to.
    #[default]
    AllowAny,
    /// It is refused: HTTP 502, or the connection is closed.
    RegistryOnly,
}

/// How paths are normalised before routing and authorization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathNormalization {
    /// Not at all.
    None,
    /// RFC 3986: dot segments, and backslashes as slashes.
    #[default]
    Base,
    /// As `Base`, and runs of slashes are merged.
    MergeSlashes,
    /// As `MergeSlashes`, after decoding `%2F` and `%5C`.
    DecodeAndMergeSlashes,
}

/// How access-log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogEncoding {
    /// Istio's text format.
    #[default]
    Text,
    /// Istio's JSON keys.
    Json,
}

/// The settings of the mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// Trust domain of the mesh's identities.
    pub trust_domain: Arc<str>,
    /// Other trust domains whose identities count as ours.
    pub trust_domain_aliases: Vec<Arc<str>>,
    /// Domain of the mesh's services.
    pub domain: Arc<str>,
    /// Where mesh-wide policies live.
    pub root_namespace: Arc<str>,
    /// mTLS between meshed workloads without being asked for.
    pub enable_auto_mtls: bool,
    /// Unknown destinations.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// Time to connect to an endpoint.
    pub connect_timeout: Duration,
    /// How long sniffing waits for a client's first bytes; zero waits for ever.
    pub protocol_detection_timeout: Duration,
    /// Where access logs go; empty is nowhere. `/dev/stdout` is usual.
    pub access_log_file: Arc<str>,
    /// How access logs are written.
    pub access_log_encoding: AccessLogEncoding,
    /// Path normalisation.
    pub path_normalization: PathNormalization,
    /// The explicit HTTP proxy port; 0 is none. Weft's default outside Kubernetes is 15007.
    pub proxy_http_port: u16,
    /// Time that in-flight requests get when listeners change or the proxy stops.
    pub drain_duration: Duration,
    /// `exportTo` of services that do not say.
    pub default_service_export_to: Vec<Arc<str>>,
    /// `exportTo` of VirtualServices that do not say.
    pub default_virtual_service_export_to: Vec<Arc<str>>,
    /// `exportTo` of DestinationRules that do not say.
    pub default_destination_rule_export_to: Vec<Arc<str>>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            enable_auto_mtls: true,
            outbound_traffic_policy: OutboundTrafficPolicy::AllowAny,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: Duration::ZERO,
            access_log_file: "".into(),
            access_log_encoding: AccessLogEncoding::Text,
            path_normalization: PathNormalization::Base,
            proxy_http_port: 15007,
            drain_duration: Duration::from_secs(45),
            default_service_export_to: vec!["*".into()],
            default_virtual_service_export_to: vec!["*".into()],
            default_destination_rule_export_to: vec!["*".into()],
        }
    }
}
