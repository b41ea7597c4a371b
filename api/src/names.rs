//! The names of xDS resources. They are Istio's where Istio has one, so that people find what they grep for.

use std::{fmt, str::FromStr};

/// The listener that takes every inbound connection of a workload.
pub const VIRTUAL_INBOUND: &str = "virtualInbound";
/// The listener that takes captured outbound connections; its own chains are for destinations that the mesh does not know.
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// The listener, and the route configuration, of the explicit HTTP proxy port (MeshConfig `proxyHttpPort`).
pub const HTTP_PROXY: &str = "http_proxy";
/// Where requests and connections go whose destination the mesh does not know and must not reach.
pub const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";
/// Where connections go whose destination the mesh does not know and may reach.
pub const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// Inbound connections to a port that no service names.
pub const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";
/// The secret that holds the workload's own certificate and key; the proxy makes it, it never travels.
pub const SECRET_DEFAULT: &str = "default";
/// The secret that holds the mesh's trust bundle; the proxy gets it with its certificate.
pub const SECRET_ROOT_CA: &str = "ROOTCA";

/// The direction of a cluster, seen from the proxy that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From elsewhere to this workload's application.
    Inbound,
    /// From this workload to a service.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

/// The name of a cluster: `outbound|<port>|<subset>|<fqdn>` or `inbound|<port>||`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName {
    /// Inbound or outbound.
    pub direction: Direction,
    /// Outbound: the service's port. Inbound: the workload's port.
    pub port: u16,
    /// A subset of a DestinationRule; empty for all endpoints.
    pub subset: String,
    /// The service's fully qualified name; empty for inbound.
    pub host: String,
}

impl ClusterName {
    /// The cluster of a service's port, or of a subset of it.
    pub fn outbound(port: u16, subset: &str, host: &str) -> Self {
        Self { direction: Direction::Outbound, port, subset: subset.into(), host: host.into() }
    }

    /// The cluster of the application's own port.
    pub fn inbound(port: u16) -> Self {
        Self { direction: Direction::Inbound, port, subset: String::new(), host: String::new() }
    }

    /// The SNI of a mesh-internal TLS connection to this cluster: `outbound_.<port>_.<subset>_.<fqdn>`.
    pub fn sni(&self) -> String {
        format!("{}_.{}_.{}_.{}", self.direction, self.port, self.subset, self.host)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}|{}|{}", self.direction, self.port, self.subset, self.host)
    }
}

/// A name that does not follow its pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{name:?} is not of the form {pattern}")]
pub struct NameError {
    /// The name as it came.
    pub name: String,
    /// What it should have looked like.
    pub pattern: &'static str,
}

impl FromStr for ClusterName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let error = || NameError {
            name: name.into(),
            pattern: "outbound|PORT|SUBSET|HOST or inbound|PORT||",
        };
        let mut parts = name.split('|');
        let (Some(direction), Some(port), Some(subset), Some(host), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error());
        };
        let port = port.parse().map_err(|_| error())?;
        let name = match direction {
            "outbound" if !host.is_empty() => Self::outbound(port, subset, host),
            "inbound" if host.is_empty() && subset.is_empty() => Self::inbound(port),
            _ => return Err(error()),
        };
        Ok(name)
    }
}

/// The name of an outbound listener: where a connection wants to go, `<host or IP>_<port>`.
///
/// The host is what the client named (short, qualified or an IP); the operator resolves it in the namespace of
/// the node that asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboundListenerName {
    /// A service's name as the client wrote it, or an IP address.
    pub host: String,
    /// The destination port.
    pub port: u16,
}

impl fmt::Display for OutboundListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.host, self.port)
    }
}

impl FromStr for OutboundListenerName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let error = || NameError { name: name.into(), pattern: "HOST_PORT" };
        let (host, port) = name.rsplit_once('_').ok_or_else(error)?;
        if host.is_empty() {
            return Err(error());
        }
        Ok(Self { host: host.into(), port: port.parse().map_err(|_| error())? })
    }
}

/// The name of a virtual host that is fetched on first use: `<route configuration>/<authority>` (Envoy's VHDS).
///
/// The authority is the request's, lower-cased, with its port when the client wrote one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualHostName {
    /// The route configuration that asks.
    pub route_config: String,
    /// The request's authority.
    pub authority: String,
}

impl fmt::Display for VirtualHostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.route_config, self.authority)
    }
}

impl FromStr for VirtualHostName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        match name.split_once('/') {
            Some((route_config, authority))
                if !route_config.is_empty() && !authority.is_empty() =>
            {
                Ok(Self { route_config: route_config.into(), authority: authority.into() })
            }
            _ => Err(NameError { name: name.into(), pattern: "ROUTE_CONFIG/AUTHORITY" }),
        }
    }
}

/// The route configuration of one service's port: `<fqdn>:<port>`, with one virtual host for every authority.
///
/// Istio uses the same name for the routes of a listener that serves a single service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceRouteName {
    /// The service's fully qualified name.
    pub host: String,
    /// The service's port.
    pub port: u16,
}

impl fmt::Display for ServiceRouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for ServiceRouteName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let error = || NameError { name: name.into(), pattern: "HOST:PORT" };
        let (host, port) = name.rsplit_once(':').ok_or_else(error)?;
        if host.is_empty() {
            return Err(error());
        }
        Ok(Self { host: host.into(), port: port.parse().map_err(|_| error())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in [
            "outbound|80|v1|reviews.default.svc.cluster.local",
            "outbound|80||a.b",
            "inbound|8080||",
        ] {
            assert_eq!(name.parse::<ClusterName>().unwrap().to_string(), name);
        }
        for name in ["10.96.0.1_80", "order-service_8080", "a_b.c_443"] {
            assert_eq!(name.parse::<OutboundListenerName>().unwrap().to_string(), name);
        }
        for name in ["http_proxy/order-service:8080", "80/reviews"] {
            assert_eq!(name.parse::<VirtualHostName>().unwrap().to_string(), name);
        }
        let name = "reviews.default.svc.cluster.local:80";
        assert_eq!(name.parse::<ServiceRouteName>().unwrap().to_string(), name);
    }

    #[test]
    fn names_of_another_shape_are_refused() {
        for name in [
            "outbound|80|v1",
            "outbound|x||h",
            "sideways|80||h",
            "inbound|80|v1|",
            "outbound|80||",
            "",
        ] {
            assert!(name.parse::<ClusterName>().is_err(), "{name}");
        }
        for name in ["_80", "host", "host_", "host_70000"] {
            assert!(name.parse::<OutboundListenerName>().is_err(), "{name}");
        }
        for name in ["/a", "a/", "a"] {
            assert!(name.parse::<VirtualHostName>().is_err(), "{name}");
        }
    }

    #[test]
    fn the_sni_of_a_cluster_is_istios() {
        let name = ClusterName::outbound(80, "v1", "reviews.default.svc.cluster.local");
        assert_eq!(name.sni(), "outbound_.80_.v1_.reviews.default.svc.cluster.local");
    }
}
