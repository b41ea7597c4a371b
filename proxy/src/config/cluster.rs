//! Clusters and their endpoints (`envoy.config.cluster.v3`, `envoy.config.endpoint.v3`).
//!
//! State that outlives an update (ejections, counts) is not here: it is `net::cluster`'s, found by cluster name and
//! endpoint address, and carried in `state`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{health::HealthCheck, tls::UpstreamTls};
use crate::net::cluster::Health;

/// A cluster with its endpoints.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: Arc<str>,
    /// How endpoints are found.
    pub discovery: Discovery,
    /// How one is chosen.
    pub lb: LbPolicy,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// Requests on one connection; 0 is without limit.
    pub max_requests_per_connection: u32,
    /// A connection without requests is closed after so long; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// HTTP/2: streams at once on one connection.
    pub max_concurrent_streams: u32,
    /// HTTP/2 PING interval.
    pub http2_keepalive: Option<Duration>,
    /// TCP keepalive: time, interval, probes.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Limits.
    pub limits: CircuitBreakers,
    /// Outlier detection.
    pub outlier: Option<OutlierDetection>,
    /// Share of healthy endpoints, in percent, under which health is ignored; 0 is never.
    pub panic_threshold: u8,
    /// How endpoints are asked whether they are healthy.
    pub health_check: Option<Arc<HealthCheck>>,
    /// How endpoints are spoken to: the first that matches, see [`TransportSocket`].
    pub transports: Vec<TransportSocket>,
    /// Connections are made from these addresses (`upstream_bind_config`), one for each family; where there are any, not
    /// from others.
    pub bind_source: Box<[std::net::IpAddr]>,
    /// The service it stands for, for telemetry (cluster metadata `istio.services`).
    pub service: Option<ServiceInfo>,
    /// The endpoints.
    pub endpoints: Arc<Endpoints>,
    /// State shared by the data threads that survives updates. Made by `net::cluster`.
    pub state: Arc<crate::net::cluster::ClusterState>,
}

/// How endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Told by the control plane: by EDS or in the cluster itself.
    Told,
    /// The connection's own destination.
    OriginalDestination,
    /// All addresses of names.
    StrictDns,
    /// The first address of a name.
    LogicalDns,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LbPolicy {
    RoundRobin,
    /// Of so many random ones, that with the fewest active requests.
    LeastRequest {
        choices: u32,
    },
    Random,
    RingHash {
        minimum_size: u32,
    },
    Maglev {
        table_size: u32,
    },
    /// The connection's own destination.
    ClusterProvided,
}

/// What is spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// What the client spoke.
    Downstream,
}

/// TCP keepalive of upstream connections; `None` leaves the system's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
    pub probes: Option<u32>,
}

/// `CircuitBreakers.Thresholds` of the default priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreakers {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    /// Share of active requests that may be retries, and how many always may; replaces `max_retries`.
    pub retry_budget: Option<RetryBudget>,
}

impl Default for CircuitBreakers {
    /// Istio's: without limit.
    fn default() -> Self {
        Self {
            max_connections: u32::MAX,
            max_pending_requests: u32::MAX,
            max_requests: u32::MAX,
            max_retries: u32::MAX,
            retry_budget: None,
        }
    }
}

/// `CircuitBreakers.Thresholds.RetryBudget`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Percent of active and pending requests.
    pub percent: f64,
    /// Retries that are always allowed.
    pub min_concurrency: u32,
}

impl Eq for RetryBudget {}

/// `envoy.config.cluster.v3.OutlierDetection`; 0 of a count switches it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    pub consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub consecutive_local_origin_failure: u32,
    pub split_external_local_origin_errors: bool,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_percent: u32,
}

/// One of `transport_socket_matches`: used for endpoints whose `envoy.transport_socket_match` metadata has all of `matches`.
#[derive(Clone, Debug)]
pub struct TransportSocket {
    /// Its name, e.g. `tlsMode-istio`.
    pub name: Box<str>,
    /// Keys and values that the endpoint must have; empty matches every endpoint.
    pub matches: Vec<(Box<str>, Box<str>)>,
    /// TLS; `None` is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// A service, for telemetry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceInfo {
    /// Fully qualified.
    pub host: Arc<str>,
    /// Short.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
}

/// The endpoints of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// All of them, ordered by priority, then address.
    pub all: Vec<Arc<Endpoint>>,
}

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Its name, for `auto_host_rewrite`.
    pub hostname: Option<Box<str>>,
    /// 0 is used first.
    pub priority: u32,
    /// At least 1.
    pub weight: u32,
    /// Gets new requests (`HEALTHY` or `UNKNOWN`).
    pub healthy: bool,
    /// Index into [`Cluster::transports`]; `None`: plaintext.
    pub transport: Option<usize>,
    /// Region, zone, sub-zone.
    pub locality: (Box<str>, Box<str>, Box<str>),
    /// Who it is (endpoint metadata `istio.workload`).
    pub workload: Option<Arc<WorkloadInfo>>,
    /// State shared by the data threads that survives updates. Made by `net::cluster`.
    pub state: Arc<crate::net::cluster::EndpointState>,
}

impl Cluster {
    /// Whether an endpoint is healthy as far as is told, and by the checks that the cluster has.
    pub fn is_healthy(&self, endpoint: &Endpoint) -> bool {
        endpoint.healthy && !self.fails_check(endpoint)
    }

    /// Whether an endpoint has not passed the cluster's checks.
    pub fn fails_check(&self, endpoint: &Endpoint) -> bool {
        self.health_check.is_some() && endpoint.state.health() != Health::Healthy
    }
}

/// Who an endpoint or a peer is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WorkloadInfo {
    pub workload: Arc<str>,
    pub namespace: Arc<str>,
    pub canonical_name: Arc<str>,
    pub canonical_revision: Arc<str>,
    pub cluster: Arc<str>,
    /// From labels `app` and `version`, when known.
    pub app: Arc<str>,
    pub version: Arc<str>,
}
