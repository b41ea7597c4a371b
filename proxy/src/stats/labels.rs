//! The labels of Istio's metrics.

use std::sync::Arc;

use crate::config::{
    cluster::{Cluster, ServiceInfo, WorkloadInfo},
    listener::TrafficDirection,
};

/// Who reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's proxy.
    Destination,
}

impl Reporter {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl From<TrafficDirection> for Reporter {
    fn from(direction: TrafficDirection) -> Self {
        match direction {
            TrafficDirection::Inbound => Self::Destination,
            TrafficDirection::Outbound => Self::Source,
        }
    }
}

/// How the connection was protected, as the destination sees it. The source always reports `Unknown`, as Istio does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecurityPolicy {
    /// The source's report.
    #[default]
    Unknown,
    /// Mutual TLS.
    MutualTls,
    /// Plaintext, or TLS without a verified client.
    None,
}

impl SecurityPolicy {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::MutualTls => "mutual_tls",
            Self::None => "none",
        }
    }
}

/// `request_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestProtocol {
    Http,
    Grpc,
    Tcp,
}

impl RequestProtocol {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// The labels that all requests between two workloads for a service share. Empty values become `unknown` (revisions:
/// `latest`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrafficLabels {
    /// Who reports.
    pub reporter: Reporter,
    /// The client.
    pub source: Arc<WorkloadInfo>,
    /// The client's identity, `spiffe://...`; empty when it is not known.
    pub source_principal: Arc<str>,
    /// The server.
    pub destination: Arc<WorkloadInfo>,
    /// The server's identity.
    pub destination_principal: Arc<str>,
    /// What the client asked for.
    pub service: ServiceInfo,
    /// How the connection was protected.
    pub security: SecurityPolicy,
}

impl TrafficLabels {
    /// Names and values, in the order of Istio's proxies, without those that differ between requests.
    pub(super) fn pairs(&self) -> [(&'static str, &str); 21] {
        let (s, d) = (&self.source, &self.destination);
        [
            ("reporter", self.reporter.as_str()),
            ("source_workload", or_unknown(&s.workload)),
            ("source_canonical_service", or_unknown(&s.canonical_name)),
            ("source_canonical_revision", or_latest(&s.canonical_revision)),
            ("source_workload_namespace", or_unknown(&s.namespace)),
            ("source_principal", or_unknown(&self.source_principal)),
            ("source_app", or_unknown(&s.app)),
            ("source_version", or_unknown(&s.version)),
            ("source_cluster", or_unknown(&s.cluster)),
            ("destination_workload", or_unknown(&d.workload)),
            ("destination_workload_namespace", or_unknown(&d.namespace)),
            ("destination_principal", or_unknown(&self.destination_principal)),
            ("destination_app", or_unknown(&d.app)),
            ("destination_version", or_unknown(&d.version)),
            ("destination_service", or_unknown(&self.service.host)),
            ("destination_canonical_service", or_unknown(&d.canonical_name)),
            ("destination_canonical_revision", or_latest(&d.canonical_revision)),
            ("destination_service_name", or_unknown(&self.service.name)),
            ("destination_service_namespace", or_unknown(&self.service.namespace)),
            ("destination_cluster", or_unknown(&d.cluster)),
            ("connection_security_policy", self.security.as_str()),
        ]
    }
}

fn or_unknown(value: &str) -> &str {
    if value.is_empty() { "unknown" } else { value }
}

fn or_latest(value: &str) -> &str {
    if value.is_empty() { "latest" } else { value }
}

/// The service that a cluster stands for. Without one it is the authority that was asked for, and the name of the
/// cluster where that is one of Istio's special ones.
pub fn service_of(cluster: &Cluster, authority: &str) -> ServiceInfo {
    use weft_api::names::{BLACK_HOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, PASSTHROUGH_CLUSTER};
    if let Some(service) = &cluster.service {
        return service.clone();
    }
    let special = [BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER];
    let host: Arc<str> = authority.into();
    let name = if special.contains(&&*cluster.name) { cluster.name.clone() } else { host.clone() };
    ServiceInfo { host, name, namespace: Arc::default() }
}
