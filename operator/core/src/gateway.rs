//! Gateways: what a proxy at the mesh's edge accepts when several Gateways select it (`istio-behaviours` 2.3).
//!
//! Pure functions of a snapshot and a proxy; read by the builders of xDS resources and by the status. What cannot be
//! served has a [`Fault`], and never keeps the rest from being served.

mod fault;
mod host;
mod merge;

use std::{net::IpAddr, sync::Arc};

use weft_crds::networking::{GatewaySpec, Server, ServerTlsMode, ServerTlsSettings};

pub use self::{
    fault::{Fault, FaultReason},
    host::ServerHost,
    merge::{GatewayNode, Merged, merge},
};
use crate::resource::Resource;

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerKind {
    /// Requests without TLS; the authority decides.
    Http,
    /// TLS, terminated or not; the server name decides.
    Tls,
    /// Bytes: there is one server.
    Tcp,
}

/// What becomes of the connections of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Requests.
    Http,
    /// Requests inside TLS, which ends here.
    Https,
    /// Bytes inside TLS, which ends here.
    TerminatedTls,
    /// TLS, untouched.
    Passthrough,
    /// Bytes.
    Tcp,
}

impl Content {
    /// What a server's protocol and TLS settings mean; `None` for what no gateway serves.
    pub fn of(server: &Server) -> Option<Self> {
        let protocol = server.port.as_ref()?.protocol.to_ascii_uppercase();
        let passes = server.tls.as_ref().is_some_and(|tls| {
            matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
        });
        Some(match protocol.as_str() {
            "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY" => Self::Http,
            "HTTPS" | "TLS" if passes => Self::Passthrough,
            "HTTPS" => Self::Https,
            "TLS" => Self::TerminatedTls,
            "TCP" | "MONGO" | "REDIS" | "MYSQL" => Self::Tcp,
            _ => return None,
        })
    }

    /// What is spoken on its port.
    pub fn listener(self) -> ListenerKind {
        match self {
            Self::Http => ListenerKind::Http,
            Self::Https | Self::TerminatedTls | Self::Passthrough => ListenerKind::Tls,
            Self::Tcp => ListenerKind::Tcp,
        }
    }
}

/// A server of a Gateway, as far as it is served.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayServer {
    /// The Gateway.
    pub gateway: Arc<Resource<GatewaySpec>>,
    /// Which of its servers.
    pub index: usize,
    /// What it serves.
    pub content: Content,
    /// Its hosts, without those that an older server has on the same port.
    pub hosts: Vec<ServerHost>,
}

impl GatewayServer {
    /// The server as it is written.
    pub fn spec(&self) -> &Server {
        &self.gateway.spec.servers[self.index]
    }

    /// The port's number as it is written.
    pub fn port(&self) -> u16 {
        self.spec().port.as_ref().map_or(0, |port| port.number)
    }

    /// Its TLS settings.
    pub fn tls(&self) -> Option<&ServerTlsSettings> {
        self.spec().tls.as_ref()
    }

    /// Whether requests without TLS are sent to HTTPS.
    pub fn redirects(&self) -> bool {
        self.tls().is_some_and(|tls| tls.https_redirect)
    }

    /// `<namespace>/<name>` of the Gateway, as VirtualServices name it.
    pub fn gateway_name(&self) -> String {
        format!("{}/{}", self.gateway.reference.namespace, self.gateway.reference.name)
    }

    /// The name of its route configuration, Istio's: `http.<port>`, or `https.<port>.<port name>.<gateway>.<namespace>`,
    /// and the address when it is bound to one. `None` for bytes.
    pub fn route_name(&self) -> Option<String> {
        let spec = self.spec();
        let port = spec.port.as_ref()?;
        let reference = &self.gateway.reference;
        let bind = if spec.bind.is_empty() { String::new() } else { format!(".{}", spec.bind) };
        match self.content {
            Content::Http => Some(format!("http.{}{bind}", port.number)),
            Content::Https => Some(format!(
                "https.{}.{}.{}.{}{bind}",
                port.number, port.name, reference.name, reference.namespace
            )),
            Content::TerminatedTls | Content::Passthrough | Content::Tcp => None,
        }
    }
}

/// A port of a proxy at the edge and what is served there.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayListener {
    /// The address that it is bound to; `None` is all of the proxy's.
    pub bind: Option<IpAddr>,
    /// The proxy's port.
    pub port: u16,
    /// What is spoken there.
    pub kind: ListenerKind,
    /// The servers, oldest first. Never empty.
    pub servers: Vec<GatewayServer>,
}

impl GatewayListener {
    /// `<address>_<port>`, where all addresses are `0.0.0.0`.
    pub fn name(&self) -> String {
        let bind = self.bind.map_or_else(|| "0.0.0.0".to_owned(), |address| address.to_string());
        format!("{bind}_{}", self.port)
    }

    /// The route configuration of a port without TLS: that of its oldest server.
    pub fn http_route_name(&self) -> Option<String> {
        match self.kind {
            ListenerKind::Http => self.servers.first()?.route_name(),
            ListenerKind::Tls | ListenerKind::Tcp => None,
        }
    }
}
