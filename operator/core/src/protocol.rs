//! The application protocol of a service's port.

/// What is spoken on a port, as far as the mesh was told (`istio-behaviours` 2.7, item 52).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1, and whatever it upgrades to.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web over HTTP/1.1.
    GrpcWeb,
    /// HTTP inside the application's own TLS: opaque but for the SNI.
    Https,
    /// The application's own TLS: opaque but for the SNI.
    Tls,
    /// Opaque bytes; also `mongo`, `mysql` and `redis`.
    Tcp,
    /// Never proxied.
    Udp,
    /// Not said: found out from the first bytes.
    Unsupported,
}

/// Ports on which the server speaks first, so that waiting for the client's first bytes would wait for ever.
const SERVER_FIRST_PORTS: [u16; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// Whether requests are visible: routes, HTTP filters and HTTP metrics apply.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the endpoints are spoken to in HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }

    /// Whether the bytes are opaque.
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Https | Self::Tls)
    }

    /// Whether proxies of the mesh handle it at all.
    pub fn is_proxied(self) -> bool {
        self != Self::Udp
    }

    /// Reads the name of a protocol as ServiceEntry, Gateway and port names write it; anything else is `Unsupported`.
    pub fn from_name(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" | "mongo" | "mysql" | "redis" => Self::Tcp,
            "udp" => Self::Udp,
            _ => Self::Unsupported,
        }
    }

    /// The protocol of a Kubernetes Service's port: `appProtocol`, else the part of the port's name before the first
    /// dash, else what is well known of the number, else sniffing (item 52). `transport` is `TCP` where Kubernetes
    /// leaves it out; whatever is not TCP is never proxied.
    pub fn of_service_port(
        transport: Option<&str>,
        app_protocol: Option<&str>,
        name: &str,
        number: u16,
    ) -> Self {
        if transport.is_some_and(|transport| transport != "TCP") {
            return Self::Udp;
        }
        match app_protocol {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            _ => {}
        }
        let name = app_protocol.unwrap_or(name);
        let web = name.get(..8).is_some_and(|prefix| prefix.eq_ignore_ascii_case("grpc-web"));
        let protocol = if web {
            Self::GrpcWeb
        } else {
            Self::from_name(name.split_once('-').map_or(name, |(prefix, _)| prefix))
        };
        if protocol == Self::Unsupported && SERVER_FIRST_PORTS.contains(&number) {
            return Self::Tcp;
        }
        protocol
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_app_protocol_then_name_then_number_then_sniffed() {
        use Protocol::*;
        let cases = [
            (None, None, "http", 80, Http),
            (None, None, "http-web", 80, Http),
            (None, None, "HTTP2-x", 80, Http2),
            (None, None, "grpc", 80, Grpc),
            (None, None, "grpc-web", 80, GrpcWeb),
            (None, None, "gRPC-Web-x", 80, GrpcWeb),
            (None, None, "https", 443, Https),
            (None, None, "tls-x", 443, Tls),
            (None, None, "mongo", 1, Tcp),
            (None, None, "redis-0", 1, Tcp),
            (None, None, "mysql", 1, Tcp),
            (None, None, "httpweb", 80, Unsupported),
            (None, None, "", 80, Unsupported),
            (None, None, "", 3306, Tcp),
            (None, None, "", 25, Tcp),
            (None, None, "web", 27017, Tcp),
            (None, None, "http", 53, Http),
            (None, None, "udp-dns", 5353, Udp),
            (Some("UDP"), Some("http"), "http", 53, Udp),
            (Some("SCTP"), None, "", 80, Udp),
            (Some("TCP"), Some("grpc"), "http", 80, Grpc),
            (None, Some("tcp"), "http", 80, Tcp),
            (None, Some("kubernetes.io/h2c"), "tcp", 80, Http2),
            (None, Some("kubernetes.io/ws"), "tcp", 80, Http),
            (None, Some("kubernetes.io/wss"), "tcp", 80, Https),
            (None, Some("example.com/own"), "http", 80, Unsupported),
        ];
        for (transport, app, name, number, expected) in cases {
            let got = Protocol::of_service_port(transport, app, name, number);
            assert_eq!(got, expected, "{transport:?} {app:?} {name:?} {number}");
        }
    }
}
