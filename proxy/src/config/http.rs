//! The HTTP connection manager and its filters' settings (`http_connection_manager.v3`).

use std::{sync::Arc, time::Duration};

use ::http::HeaderValue;

use super::{
    access_log::AccessLog, filter::HttpFilter, listener::TrafficDirection, route::RouteConfig,
};

/// Which HTTP the client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecType {
    /// By ALPN or the first bytes.
    Auto,
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Where the routes come from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// In the listener itself.
    Inline(Arc<RouteConfig>),
    /// A route configuration of this name.
    Rds(Arc<str>),
}

/// `x-forwarded-client-cert` (`forward_client_cert_details`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Removed.
    #[default]
    Sanitize,
    /// Left as it is when the connection is mutual TLS, removed otherwise.
    ForwardOnly,
    /// The client's certificate is appended when the connection is mutual TLS; removed otherwise.
    AppendForward,
    /// Replaced by the client's certificate when the connection is mutual TLS; removed otherwise.
    SanitizeSet,
    /// Left as it is, always.
    AlwaysForwardOnly,
}

/// What of the client's certificate goes into `x-forwarded-client-cert`, besides `By` and `Hash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `Subject`.
    pub subject: bool,
    /// `URI`.
    pub uri: bool,
    /// `DNS`.
    pub dns: bool,
}

/// Path normalisation; applied once, before filters and routes, and forwarded so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathNormalization {
    /// RFC 3986: dot segments, backslashes.
    pub normalize: bool,
    /// Runs of slashes are merged.
    pub merge_slashes: bool,
    /// `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// What happens to `%2F` and `%5C` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Kept.
    #[default]
    Keep,
    /// The request is refused with 400.
    Reject,
    /// Decoded, then the client is redirected to the decoded path.
    UnescapeAndRedirect,
    /// Decoded.
    UnescapeAndForward,
}

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Clone, Debug)]
pub struct HttpConnectionManager {
    /// For statistics, e.g. `inbound_0.0.0.0_8080`.
    pub stat_prefix: Box<str>,
    /// Which way the traffic flows.
    pub direction: TrafficDirection,
    /// Which HTTP.
    pub codec: CodecType,
    /// The routes.
    pub routes: RouteSource,
    /// Filters in order; the router is implied at the end.
    pub filters: Vec<HttpFilter>,
    /// Access logs.
    pub access_logs: Vec<Arc<AccessLog>>,
    /// The connection is closed after so long without a request.
    pub idle_timeout: Option<Duration>,
    /// A stream is reset after so long without progress; `None` is never.
    pub stream_idle_timeout: Option<Duration>,
    /// Time for the request's head.
    pub request_headers_timeout: Option<Duration>,
    /// Time for the whole request to arrive.
    pub request_timeout: Option<Duration>,
    /// Longest life of a connection, after which it is drained.
    pub max_connection_duration: Option<Duration>,
    /// Time between the first and the final GOAWAY, and for the last requests of a draining connection.
    pub drain_timeout: Duration,
    /// Longest request head in bytes (answered by 431).
    pub max_request_headers_bytes: usize,
    /// Most header fields of a request (answered by 431).
    pub max_request_headers: usize,
    /// HTTP/1.0 is accepted.
    pub accept_http_10: bool,
    /// The value of the `server` response header.
    pub server_name: HeaderValue,
    /// The upstream's `server` header is left (`PASS_THROUGH`), kept if there (`APPEND_IF_ABSENT`) or replaced.
    pub server_header: ServerHeader,
    /// `x-forwarded-for` and scheme are taken from the connection (edge), not from headers.
    pub use_remote_address: bool,
    /// Trusted hops in `x-forwarded-for`.
    pub xff_trusted_hops: u32,
    /// `x-request-id` is made where missing.
    pub generate_request_id: bool,
    /// An edge keeps the `x-request-id` of its clients (`preserve_external_request_id`).
    pub preserve_request_id: bool,
    /// Client certificate header.
    pub forward_client_cert: ForwardClientCert,
    /// Client certificate header's content.
    pub client_cert_details: ClientCertDetails,
    /// Path normalisation.
    pub path: PathNormalization,
    /// Protocols that a request may switch to: `websocket`, `CONNECT`; lower-cased.
    pub upgrades: Vec<Box<str>>,
    /// HTTP/2: streams at once on one connection.
    pub max_concurrent_streams: Option<u32>,
}

/// `server_header_transformation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerHeader {
    /// Replaced by ours.
    #[default]
    Overwrite,
    /// Ours where there is none.
    AppendIfAbsent,
    /// Left alone.
    PassThrough,
}
