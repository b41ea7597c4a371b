//! Listeners, filter chains and what chooses between them (`envoy.config.listener.v3`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{access_log::AccessLog, http::HttpConnectionManager, rbac::Rbac, tls::DownstreamTls};

/// Which way a listener's traffic flows, as Istio's reporters name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDirection {
    /// To the workload's application (`reporter="destination"`).
    Inbound,
    /// From the workload's application (`reporter="source"`).
    Outbound,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Every address to bind, the main one first; empty with `bind_to_port: false`.
    pub binds: Vec<SocketAddr>,
    /// Its direction.
    pub direction: TrafficDirection,
    /// Clients are announced by a proxy before this one.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The first bytes are looked at for a TLS ClientHello (`tls_inspector`).
    pub inspect_tls: bool,
    /// The first bytes are looked at for HTTP (`http_inspector`).
    pub inspect_http: bool,
    /// How long looking may take; `None` is for ever. With `continue_on_timeout` the connection is then taken as it is, unless
    /// its announcement is missing.
    pub inspect_timeout: Option<Duration>,
    /// See `inspect_timeout`.
    pub continue_on_timeout: bool,
    /// Chains, tried by Envoy's precedence: destination port, destination address, server name, transport, ALPN.
    pub chains: Vec<Arc<FilterChain>>,
    /// When no chain matches; without it the connection is closed.
    pub default_chain: Option<Arc<FilterChain>>,
    /// Access logs of connections that no chain takes.
    pub access_logs: Vec<Arc<AccessLog>>,
}

/// `envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Connections without a header are taken as they are.
    pub optional: bool,
    /// Version 1 is taken; else it is as any other bytes.
    pub v1: bool,
    /// Version 2 likewise.
    pub v2: bool,
}

/// What the transport looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportMatch {
    /// `tls`.
    Tls,
    /// `raw_buffer`.
    Raw,
}

/// `envoy.config.listener.v3.FilterChainMatch`; empty lists match everything.
#[derive(Clone, Debug, Default)]
pub struct FilterChainMatch {
    /// The connection's destination port.
    pub destination_port: Option<u16>,
    /// The connection's destination address.
    pub destination_ranges: Vec<IpNet>,
    /// The client's address.
    pub source_ranges: Vec<IpNet>,
    /// SNI: exact names, or `*.suffix`; lower-cased.
    pub server_names: Vec<Box<str>>,
    /// TLS or not.
    pub transport: Option<TransportMatch>,
    /// Any of these was offered (TLS ALPN, or `http/1.1`/`h2c` found by HTTP inspection).
    pub application_protocols: Vec<Box<[u8]>>,
}

/// A filter chain.
#[derive(Clone, Debug)]
pub struct FilterChain {
    /// Its name.
    pub name: Box<str>,
    /// When it applies.
    pub matches: FilterChainMatch,
    /// TLS is terminated with this; `None`: bytes are taken as they come.
    pub tls: Option<Arc<DownstreamTls>>,
    /// Time for the TLS handshake (`transport_socket_connect_timeout`).
    pub handshake_timeout: Option<Duration>,
    /// Network RBAC, in order; all must allow.
    pub rbac: Vec<Arc<Rbac>>,
    /// What takes the connection.
    pub terminal: Terminal,
}

/// The last filter of a chain.
#[derive(Clone, Debug)]
pub enum Terminal {
    /// Requests.
    Http(Arc<HttpConnectionManager>),
    /// Bytes.
    Tcp(Arc<TcpProxy>),
}

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Clone, Debug)]
pub struct TcpProxy {
    /// For statistics.
    pub stat_prefix: Box<str>,
    /// Where to: one or several clusters with weights.
    pub clusters: Vec<(Arc<str>, u32)>,
    /// Both sides silent for so long: closed. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Attempts to connect, at least 1.
    pub max_connect_attempts: u32,
    /// Access logs.
    pub access_logs: Vec<Arc<AccessLog>>,
}
