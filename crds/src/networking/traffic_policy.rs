//! Traffic policy: connections, ejection and TLS towards a host (`istio-behaviours` 1.2).

use super::{LoadBalancerSettings, PortSelector};
use crate::{
    Duration,
    message::{enumeration, message},
};

message! {
    /// How a client treats the endpoints of a host.
    pub struct TrafficPolicy {
        /// Which endpoint is chosen.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// How many connections and requests at a time.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// Which endpoints are left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the endpoints. Unset means mutual TLS wherever the endpoint accepts it.
        pub tls: Option<ClientTlsSettings>,
        /// Policies of single ports. Each replaces the policy as a whole: what it leaves out has its default, not what is
        /// said here.
        #[schemars(length(max = 4096))]
        pub port_level_settings: Vec<PortTrafficPolicy>,
        /// Tunnels connections through a proxy.
        pub tunnel: Option<TunnelSettings>,
        /// Begins connections with a PROXY protocol header.
        pub proxy_protocol: Option<ProxyProtocol>,
        /// Limits retries to a share of the active requests.
        pub retry_budget: Option<RetryBudget>,
    }
}

message! {
    /// The policy of one port.
    pub struct PortTrafficPolicy {
        /// The service's port.
        pub port: Option<PortSelector>,
        /// Which endpoint is chosen.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// How many connections and requests at a time.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// Which endpoints are left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the endpoints.
        pub tls: Option<ClientTlsSettings>,
    }
}

message! {
    /// Limits of connections and requests to a host, per client.
    #[derive(Eq)]
    pub struct ConnectionPoolSettings {
        /// For all connections.
        pub tcp: Option<TcpSettings>,
        /// For HTTP.
        pub http: Option<HttpSettings>,
    }
}

message! {
    /// Limits for all connections.
    #[derive(Eq)]
    pub struct TcpSettings {
        /// How many connections at most. 0 is no limit.
        #[schemars(range(max = 2_147_483_647))]
        pub max_connections: u32,
        /// Time to connect. Unset is 10 s.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub connect_timeout: Option<Duration>,
        /// Probes of idle connections by the kernel.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// How long a connection may live. Unset is no limit.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub max_connection_duration: Option<Duration>,
        /// How long a connection may carry nothing. Unset is 1 h, zero is no limit.
        pub idle_timeout: Option<Duration>,
    }
}

message! {
    /// Probes of idle connections; what is unset is the kernel's default.
    #[derive(Eq)]
    pub struct TcpKeepalive {
        /// Unanswered probes before the connection is given up.
        pub probes: u32,
        /// Idle time before the first probe.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub time: Option<Duration>,
        /// Time between probes.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub interval: Option<Duration>,
    }
}

message! {
    /// Limits for HTTP. 0 is no limit.
    #[derive(Eq)]
    pub struct HttpSettings {
        /// Requests that may wait for a connection.
        #[schemars(range(max = 2_147_483_647))]
        pub http1_max_pending_requests: u32,
        /// Requests that may be active.
        #[schemars(range(max = 2_147_483_647))]
        pub http2_max_requests: u32,
        /// Requests that one connection carries before it is closed.
        #[schemars(range(max = 2_147_483_647))]
        pub max_requests_per_connection: u32,
        /// Retries that may be active.
        #[schemars(range(max = 2_147_483_647))]
        pub max_retries: u32,
        /// How long a connection may carry no request. Unset is 1 h.
        pub idle_timeout: Option<Duration>,
        /// Whether HTTP/1.1 requests go out as HTTP/2.
        pub h2_upgrade_policy: H2UpgradePolicy,
        /// Goes out with the protocol that the client used.
        pub use_client_protocol: bool,
        /// Streams on one HTTP/2 connection.
        #[schemars(range(max = 2_147_483_647))]
        pub max_concurrent_streams: u32,
        /// Pings on HTTP/2 connections. Unset is none.
        pub http2_keep_alive: Option<Http2KeepAlive>,
    }
}

enumeration! {
    /// Whether HTTP/1.1 requests go out as HTTP/2.
    pub enum H2UpgradePolicy {
        /// As the mesh's settings say.
        Default = "DEFAULT",
        /// They do not.
        DoNotUpgrade = "DO_NOT_UPGRADE",
        /// They do.
        Upgrade = "UPGRADE",
    }
}

message! {
    /// Pings on HTTP/2 connections.
    #[derive(Eq)]
    pub struct Http2KeepAlive {
        /// Time between pings.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub interval: Option<Duration>,
        /// Time for the answer, after which the connection is closed.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub timeout: Option<Duration>,
    }
}

message! {
    /// Endpoints that fail are left out for a while, longer each time.
    #[derive(Eq)]
    pub struct OutlierDetection {
        /// Deprecated: counts as `consecutive5xxErrors`.
        #[schemars(range(max = 2_147_483_647))]
        pub consecutive_errors: u32,
        /// Counts errors of this side (such as a refused connection) apart from the endpoint's own.
        pub split_external_local_origin_errors: bool,
        /// Errors of this side in a row. Unset is 5; only if they are counted apart.
        pub consecutive_local_origin_failures: Option<u32>,
        /// Gateway errors (502, 503, 504) in a row. Unset or 0 does not look at them.
        pub consecutive_gateway_errors: Option<u32>,
        /// 5xx in a row. Unset is 5, 0 does not look at them.
        #[serde(rename = "consecutive5xxErrors")]
        pub consecutive_5xx_errors: Option<u32>,
        /// Time between looks at endpoints. Unset is 10 s.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub interval: Option<Duration>,
        /// How long the first ejection lasts. Unset is 30 s.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub base_ejection_time: Option<Duration>,
        /// The share of endpoints, in per cent, that can be out at once; 0 means 10. One endpoint can always be out.
        #[schemars(range(max = 100))]
        pub max_ejection_percent: u32,
        /// Below this share of healthy endpoints, in per cent, all are used again. 0 is never.
        #[schemars(range(max = 100))]
        pub min_health_percent: u32,
        /// Status codes that count as errors of the endpoint. None means all of 5xx.
        pub outlier_detection_http_error_codes: Vec<u32>,
    }
}

impl OutlierDetection {
    /// The 5xx in a row that eject, whichever field says it: `None` is the default.
    pub fn consecutive_5xx(&self) -> Option<u32> {
        let deprecated = (self.consecutive_errors > 0).then_some(self.consecutive_errors);
        self.consecutive_5xx_errors.or(deprecated)
    }
}

message! {
    /// TLS towards a host.
    #[derive(Eq)]
    pub struct ClientTlsSettings {
        /// The kind of TLS.
        pub mode: ClientTlsMode,
        /// MUTUAL: file with the client's certificate.
        pub client_certificate: String,
        /// MUTUAL: file with the client's key.
        pub private_key: String,
        /// File with the authorities to trust. Empty is the system's.
        pub ca_certificates: String,
        /// Secret with certificate, key and authorities, in place of files.
        pub credential_name: String,
        /// Names of which the server's certificate must have one.
        pub subject_alt_names: Vec<String>,
        /// The server name to send. Empty follows the request's authority.
        pub sni: String,
        /// Trusts whatever certificate the server shows.
        pub insecure_skip_verify: Option<bool>,
        /// File with revoked certificates.
        pub ca_crl: String,
    }
}

enumeration! {
    /// The kind of TLS towards a host.
    pub enum ClientTlsMode {
        /// None.
        Disable = "DISABLE",
        /// TLS that shows no certificate.
        Simple = "SIMPLE",
        /// TLS with the certificate that the settings name.
        Mutual = "MUTUAL",
        /// TLS with the workload's own identity.
        IstioMutual = "ISTIO_MUTUAL",
    }
}

message! {
    /// A tunnel through a proxy.
    #[derive(Eq)]
    #[schemars(extend("required" = ["targetHost", "targetPort"]))]
    pub struct TunnelSettings {
        /// `CONNECT` (also if empty) or `POST`.
        pub protocol: String,
        /// Where the tunnel ends.
        #[schemars(length(min = 1))]
        pub target_host: String,
        /// The port where the tunnel ends.
        #[schemars(range(min = 1))]
        pub target_port: u16,
    }
}

message! {
    /// A PROXY protocol header.
    #[derive(Eq)]
    pub struct ProxyProtocol {
        /// The protocol's version.
        pub version: ProxyProtocolVersion,
    }
}

enumeration! {
    /// A version of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// Text.
        V1 = "V1",
        /// Binary.
        V2 = "V2",
    }
}

message! {
    /// Retries as a share of the active requests.
    pub struct RetryBudget {
        /// The share in per cent. Unset is 20.
        pub percent: Option<f64>,
        /// Retries that are always allowed. 0 means 3.
        pub min_retry_concurrency: u32,
        /// How far back active requests count. Unset is now only.
        pub budget_interval: Option<Duration>,
    }
}
