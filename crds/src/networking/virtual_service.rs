//! VirtualService: how requests for a host are routed (`istio-behaviours` 1.1, 2.2).

use std::collections::BTreeMap;

use kube::CustomResource;

use crate::{
    Bytes, Duration, Percent, ResourceStatus, StringMatch,
    message::{enumeration, message},
};

message! {
    /// How requests for hosts are routed. Routes are tried in order; the first that matches decides.
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "VirtualService",
        plural = "virtualservices",
        shortname = "vs",
        namespaced,
        status = "ResourceStatus",
        schema = "disabled",
        derive = "PartialEq",
        derive = "Default",
        doc = "Routes requests for hosts: by what they carry, by weight, with timeouts, retries and faults."
    )]
    pub struct VirtualServiceSpec {
        /// The hosts that the routes are for: names of services (short ones are of this resource's namespace), domain
        /// names, wildcards such as `*.example.com`, or IP addresses. None makes this a delegate of another one.
        pub hosts: Vec<String>,
        /// Where the routes apply: `name` or `namespace/name` of gateways, and `mesh` for every sidecar. None means
        /// `mesh`.
        pub gateways: Vec<String>,
        /// Routes for HTTP and gRPC.
        #[schemars(length(max = 32768))]
        pub http: Vec<HttpRoute>,
        /// Routes by SNI for TLS that nobody terminates.
        pub tls: Vec<TlsRoute>,
        /// Routes for other TCP.
        pub tcp: Vec<TcpRoute>,
        /// The namespaces that see this resource: `.` for its own, `*` for all, or names. None means the mesh's default.
        pub export_to: Vec<String>,
    }
}

message! {
    /// Requests of a kind and what happens to them.
    pub struct HttpRoute {
        /// A name, for access logs.
        pub name: String,
        /// Which requests: any of these. None means all.
        #[serde(rename = "match")]
        pub matches: Vec<HttpMatchRequest>,
        /// Where they go.
        pub route: Vec<HttpRouteDestination>,
        /// Answers with a redirect instead of forwarding.
        pub redirect: Option<HttpRedirect>,
        /// Answers at once instead of forwarding.
        pub direct_response: Option<HttpDirectResponse>,
        /// Another VirtualService that holds the routes for these requests.
        pub delegate: Option<Delegate>,
        /// Changes path and authority before forwarding.
        pub rewrite: Option<HttpRewrite>,
        /// Time for the whole request, retries included. Unset or zero is no limit.
        pub timeout: Option<Duration>,
        /// When a request is tried again. Unset means the mesh's default; see `HttpRetry`.
        pub retries: Option<HttpRetry>,
        /// Faults made on purpose.
        pub fault: Option<HttpFaultInjection>,
        /// A destination that gets a copy of each request; its answers are dropped.
        pub mirror: Option<Destination>,
        /// Several destinations for copies.
        pub mirrors: Vec<HttpMirrorPolicy>,
        /// Deprecated: the share of `mirror` in whole per cent.
        #[serde(alias = "mirror_percent")]
        pub mirror_percent: Option<u32>,
        /// The share of requests that `mirror` gets. Unset is all of them, 0 none.
        pub mirror_percentage: Option<Percent>,
        /// Cross-origin requests from browsers.
        pub cors_policy: Option<CorsPolicy>,
        /// Changes to headers.
        pub headers: Option<Headers>,
    }
}

message! {
    /// Requests that have all of these properties.
    pub struct HttpMatchRequest {
        /// A name, appended to the route's in access logs.
        pub name: String,
        /// The path without its query. A prefix is plain text: `/foo` also covers `/foobar`.
        pub uri: Option<StringMatch>,
        /// The scheme.
        pub scheme: Option<StringMatch>,
        /// The method.
        pub method: Option<StringMatch>,
        /// The authority (`Host`).
        pub authority: Option<StringMatch>,
        /// Headers by lower-case name. An empty match asks for presence. On gateways `@request.auth.claims.NAME` is a
        /// claim of the request's token.
        pub headers: BTreeMap<String, StringMatch>,
        /// The port of the service that is called.
        pub port: Option<u16>,
        /// Labels of the calling workload; sidecars only.
        pub source_labels: BTreeMap<String, String>,
        /// Narrows the resource's `gateways` for this match.
        pub gateways: Vec<String>,
        /// Query parameters by name.
        pub query_params: BTreeMap<String, StringMatch>,
        /// Compares exact paths and prefixes without regard to case.
        pub ignore_uri_case: bool,
        /// Headers that must not match; an absent header does not.
        pub without_headers: BTreeMap<String, StringMatch>,
        /// The calling workload's namespace; sidecars only.
        pub source_namespace: String,
        /// Prefix of statistics kept for this match.
        pub stat_prefix: String,
    }
}

message! {
    /// A destination with its share.
    pub struct HttpRouteDestination {
        /// Where.
        pub destination: Destination,
        /// Its share, relative to the sum over the route's destinations. With one destination it does not matter; with
        /// several, 0 gets nothing.
        pub weight: u32,
        /// Changes to headers for this destination only.
        pub headers: Option<Headers>,
    }
}

message! {
    /// A service, as the client names it.
    #[derive(Eq)]
    pub struct Destination {
        /// The service's host. A short name is of the resource's namespace.
        pub host: String,
        /// A subset that a DestinationRule of the host defines. Empty means all endpoints.
        pub subset: String,
        /// The service's port. Not needed where it has one only, or where the request's own port is meant.
        pub port: Option<PortSelector>,
    }
}

message! {
    /// A service's port.
    #[derive(Eq)]
    pub struct PortSelector {
        /// Its number.
        pub number: u16,
    }
}

message! {
    /// The VirtualService that holds the routes.
    #[derive(Eq)]
    pub struct Delegate {
        /// Its name.
        pub name: String,
        /// Its namespace; empty is the root's.
        pub namespace: String,
    }
}

message! {
    /// Changes to the headers of request and response.
    #[derive(Eq)]
    pub struct Headers {
        /// Before the request is forwarded.
        pub request: Option<HeaderOperations>,
        /// Before the response is returned.
        pub response: Option<HeaderOperations>,
    }
}

message! {
    /// Changes to headers.
    #[derive(Eq)]
    pub struct HeaderOperations {
        /// Gives headers these values in place of any others.
        pub set: BTreeMap<String, String>,
        /// Adds values to headers.
        pub add: BTreeMap<String, String>,
        /// Takes headers away.
        pub remove: Vec<String>,
    }
}

message! {
    /// A redirect.
    #[derive(Eq)]
    #[schemars(extend("x-weft-one-of" = [["port", "derivePort"]]))]
    pub struct HttpRedirect {
        /// The new path.
        pub uri: String,
        /// The new authority.
        pub authority: String,
        /// The new port.
        pub port: Option<u16>,
        /// How the new port follows from the request.
        pub derive_port: Option<RedirectPortSelection>,
        /// The new scheme.
        pub scheme: String,
        /// The status: 301 (the default, also for 0), 302, 303, 307 or 308.
        pub redirect_code: u32,
        /// Replaces the prefix that the route matched, in place of the whole path.
        pub prefix_rewrite: String,
    }
}

enumeration! {
    /// How the port of a redirect is chosen.
    pub enum RedirectPortSelection {
        /// 80 or 443 by scheme.
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT",
        /// The port that the client called.
        FromRequestPort = "FROM_REQUEST_PORT",
    }
}

message! {
    /// An answer that is given without asking anyone.
    #[derive(Eq)]
    pub struct HttpDirectResponse {
        /// The status.
        pub status: u32,
        /// The body; none if unset.
        pub body: Option<HttpBody>,
    }
}

message! {
    /// A body, as text or as bytes.
    #[derive(Eq)]
    #[schemars(extend("x-weft-one-of" = [["string", "bytes"]]))]
    pub struct HttpBody {
        /// Text.
        pub string: Option<String>,
        /// Bytes in base64.
        pub bytes: Option<Bytes>,
    }
}

impl HttpBody {
    /// What is sent.
    pub fn content(&self) -> &[u8] {
        match (&self.string, &self.bytes) {
            (Some(text), _) => text.as_bytes(),
            (None, Some(bytes)) => &bytes.0,
            (None, None) => &[],
        }
    }
}

message! {
    /// Changes to path and authority.
    #[derive(Eq)]
    pub struct HttpRewrite {
        /// Replaces the part of the path that a prefix matched, else the whole path.
        pub uri: String,
        /// Replaces the authority.
        pub authority: String,
        /// Replaces a part of the path by a regular expression.
        pub uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// A replacement by regular expression.
    #[derive(Eq)]
    pub struct RegexRewrite {
        /// The regular expression (RE2).
        #[serde(rename = "match")]
        pub pattern: String,
        /// What takes the place of each match; `\1` is the first group.
        pub rewrite: String,
    }
}

message! {
    /// When a request is tried again.
    #[derive(Eq)]
    pub struct HttpRetry {
        /// How often, beyond the first try. 0 is never.
        pub attempts: u32,
        /// Time for each try. Unset is the route's timeout.
        pub per_try_timeout: Option<Duration>,
        /// Conditions and status codes, separated by commas. Empty is the default list.
        pub retry_on: String,
        /// Whether tries may go to other localities.
        pub retry_remote_localities: Option<bool>,
        /// Whether endpoints that were tried are passed over. Unset is yes.
        pub retry_ignore_previous_hosts: Option<bool>,
        /// The shortest pause between tries; it grows. Unset is 25 ms.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub backoff: Option<Duration>,
    }
}

message! {
    /// Cross-origin requests from browsers.
    #[derive(Eq)]
    pub struct CorsPolicy {
        /// Deprecated: origins, exactly or `*`. Use `allowOrigins`.
        pub allow_origin: Vec<String>,
        /// Origins that may call.
        pub allow_origins: Vec<StringMatch>,
        /// Methods that may be used.
        pub allow_methods: Vec<String>,
        /// Request headers that may be used.
        pub allow_headers: Vec<String>,
        /// Response headers that scripts may read.
        pub expose_headers: Vec<String>,
        /// How long a preflight's answer can be kept; whole seconds.
        pub max_age: Option<Duration>,
        /// Whether credentials may be sent.
        pub allow_credentials: Option<bool>,
        /// Preflights of other origins.
        pub unmatched_preflights: UnmatchedPreflights,
    }
}

enumeration! {
    /// What happens to preflights of origins that are not allowed.
    pub enum UnmatchedPreflights {
        /// As FORWARD.
        Unspecified = "UNSPECIFIED",
        /// They go to the application.
        Forward = "FORWARD",
        /// They are answered without permission.
        Ignore = "IGNORE",
    }
}

message! {
    /// Faults made on purpose, to test how clients bear them.
    pub struct HttpFaultInjection {
        /// Requests that wait. Comes before `abort`.
        pub delay: Option<FaultDelay>,
        /// Requests that fail.
        pub abort: Option<FaultAbort>,
    }
}

message! {
    /// Requests that wait.
    #[schemars(extend("x-weft-one-of" = [["fixedDelay", "exponentialDelay"]]))]
    pub struct FaultDelay {
        /// Deprecated: the share of requests in whole per cent. Use `percentage`.
        pub percent: u32,
        /// How long they wait.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub fixed_delay: Option<Duration>,
        /// Not implemented, here or elsewhere.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub exponential_delay: Option<Duration>,
        /// The share of requests. Unset is none.
        pub percentage: Option<Percent>,
    }
}

impl FaultDelay {
    /// The share of requests in per cent, whichever field says it.
    pub fn share(&self) -> f64 {
        self.percentage.map_or(f64::from(self.percent), |p| p.value)
    }
}

message! {
    /// Requests that fail.
    #[schemars(extend("x-weft-one-of" = [["httpStatus", "grpcStatus", "http2Error"]]))]
    pub struct FaultAbort {
        /// The HTTP status to answer with.
        pub http_status: Option<u32>,
        /// The gRPC status to answer with: a name such as `UNAVAILABLE`, or its number.
        pub grpc_status: Option<String>,
        /// Not implemented, here or elsewhere.
        pub http2_error: Option<String>,
        /// The share of requests. Unset is none.
        pub percentage: Option<Percent>,
    }
}

impl FaultAbort {
    /// The share of requests in per cent.
    pub fn share(&self) -> f64 {
        self.percentage.map_or(0.0, |p| p.value)
    }
}

message! {
    /// A destination for copies of requests.
    pub struct HttpMirrorPolicy {
        /// Where.
        pub destination: Destination,
        /// The share of requests. Unset is all of them.
        pub percentage: Option<Percent>,
    }
}

message! {
    /// TLS connections and where they go.
    #[derive(Eq)]
    pub struct TlsRoute {
        /// Which connections: any of these.
        #[serde(rename = "match")]
        pub matches: Vec<TlsMatchAttributes>,
        /// Where they go.
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// TLS connections that have all of these properties.
    #[derive(Eq)]
    pub struct TlsMatchAttributes {
        /// Server names, wildcards allowed; within the resource's hosts.
        pub sni_hosts: Vec<String>,
        /// Addresses or CIDR ranges that were called.
        pub destination_subnets: Vec<String>,
        /// The port that was called.
        pub port: Option<u16>,
        /// Labels of the calling workload.
        pub source_labels: BTreeMap<String, String>,
        /// Narrows the resource's `gateways`.
        pub gateways: Vec<String>,
        /// The calling workload's namespace.
        pub source_namespace: String,
    }
}

message! {
    /// TCP connections and where they go.
    #[derive(Eq)]
    pub struct TcpRoute {
        /// Which connections: any of these. None means all.
        #[serde(rename = "match")]
        pub matches: Vec<L4MatchAttributes>,
        /// Where they go.
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// TCP connections that have all of these properties.
    #[derive(Eq)]
    pub struct L4MatchAttributes {
        /// Addresses or CIDR ranges that were called.
        pub destination_subnets: Vec<String>,
        /// The port that was called.
        pub port: Option<u16>,
        /// Not implemented, here or elsewhere.
        pub source_subnet: String,
        /// Labels of the calling workload.
        pub source_labels: BTreeMap<String, String>,
        /// Narrows the resource's `gateways`.
        pub gateways: Vec<String>,
        /// The calling workload's namespace.
        pub source_namespace: String,
    }
}

message! {
    /// A destination of connections with its share.
    #[derive(Eq)]
    pub struct RouteDestination {
        /// Where.
        pub destination: Destination,
        /// Its share, relative to the sum over the route's destinations.
        pub weight: u32,
    }
}
