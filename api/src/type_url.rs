//! The type URLs of the xDS resources that Weft serves.

/// `envoy.config.listener.v3.Listener` (LDS).
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// `envoy.config.route.v3.RouteConfiguration` (RDS).
pub const ROUTE_CONFIGURATION: &str =
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// `envoy.config.route.v3.VirtualHost` (VHDS).
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// `envoy.config.cluster.v3.Cluster` (CDS).
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
pub const CLUSTER_LOAD_ASSIGNMENT: &str =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// The prefix of every type URL.
pub const PREFIX: &str = "type.googleapis.com/";

/// The short name of a type, as Istio's metrics and `proxy-status` spell it: `lds`, `rds`, `vhds`, `cds`, `eds`, `sds`.
pub fn short(type_url: &str) -> &str {
    match type_url {
        LISTENER => "lds",
        ROUTE_CONFIGURATION => "rds",
        VIRTUAL_HOST => "vhds",
        CLUSTER => "cds",
        CLUSTER_LOAD_ASSIGNMENT => "eds",
        SECRET => "sds",
        other => other,
    }
}
