//! Route configurations, virtual hosts and routes (`envoy.config.route.v3`).

use std::{sync::Arc, time::Duration};

use ::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use foldhash::HashMap;

use super::{
    filter::{FilterOverrides, Fraction},
    matcher::{HeaderMatcher, QueryMatcher, StringMatcher},
};

/// A route configuration.
#[derive(Clone, Debug, Default)]
pub struct RouteConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Virtual hosts by domain.
    pub hosts: VirtualHosts,
    /// Authorities that match no domain are asked for: `<name>/<authority>`.
    pub on_demand: bool,
    /// Longest response body of a direct response is bounded by the decoder; ports in the authority are ignored when set.
    pub ignore_port_in_host: bool,
    /// Mutations of every request.
    pub request_headers: Vec<HeaderMutation>,
    /// Mutations of every response.
    pub response_headers: Vec<HeaderMutation>,
}

/// Virtual hosts by domain: exact names first, then the longest `*.suffix`, then the longest `prefix.*`, then `*`.
/// Domains are lower-cased.
#[derive(Clone, Debug, Default)]
pub struct VirtualHosts {
    /// Whole names, with or without a port.
    pub exact: HashMap<Box<str>, Arc<VirtualHost>>,
    /// `*.suffix` without the star, longest first.
    pub suffixes: Vec<(Box<str>, Arc<VirtualHost>)>,
    /// `prefix.*` without the star, longest first.
    pub prefixes: Vec<(Box<str>, Arc<VirtualHost>)>,
    /// `*`.
    pub any: Option<Arc<VirtualHost>>,
}

/// A virtual host.
#[derive(Clone, Debug, Default)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// Its domains, lower-cased.
    pub domains: Vec<Box<str>>,
    /// Requests that did not come by TLS are redirected.
    pub require_tls: TlsRequirement,
    /// Routes; the first that matches counts.
    pub routes: Vec<Arc<Route>>,
    /// `x-envoy-attempt-count` is added to requests.
    pub include_request_attempt_count: bool,
    /// For every route that has none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Mutations of requests, before the route's.
    pub request_headers: Vec<HeaderMutation>,
    /// Mutations of responses, before the route's.
    pub response_headers: Vec<HeaderMutation>,
    /// What it says of filters.
    pub filters: FilterOverrides,
}

/// `require_tls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsRequirement {
    /// Nobody is redirected.
    #[default]
    None,
    /// Clients are redirected that are not internal: no client of an edge is.
    External,
    /// Everybody is redirected.
    All,
}

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name, for the access log.
    pub name: Arc<str>,
    /// When it applies.
    pub matches: RouteMatch,
    /// What it does.
    pub action: RouteAction,
    /// Mutations of requests.
    pub request_headers: Vec<HeaderMutation>,
    /// Mutations of responses.
    pub response_headers: Vec<HeaderMutation>,
    /// What it says of filters.
    pub filters: FilterOverrides,
    /// The resource it was made of (`filter_metadata["istio"]["config"]`), for explanations.
    pub config: Option<Box<str>>,
}

/// `envoy.config.route.v3.RouteMatch`.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The path without query.
    pub path: PathMatch,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    /// All must match.
    pub query: Vec<QueryMatcher>,
    /// Only gRPC requests (`content-type: application/grpc`).
    pub grpc: bool,
    /// Only this share of the requests (`runtime_fraction`).
    pub fraction: Option<Fraction>,
}

/// What a path must be.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Its beginning (`ignore_case` when `case_sensitive` is false).
    Prefix { value: Box<str>, ignore_case: bool },
    /// The whole path.
    Exact { value: Box<str>, ignore_case: bool },
    /// Its beginning, ending at a slash or at the end.
    SeparatedPrefix { value: Box<str>, ignore_case: bool },
    /// The whole path by a regular expression (anchored).
    Regex(regex::Regex),
    /// CONNECT requests.
    Connect,
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum RouteAction {
    /// Forwards.
    Forward(Box<Forward>),
    /// Redirects.
    Redirect(Box<Redirect>),
    /// Answers itself.
    Direct { status: StatusCode, body: Bytes },
}

/// Forwarding to a cluster (`RouteAction`).
#[derive(Clone, Debug)]
pub struct Forward {
    /// Where to.
    pub target: ForwardTarget,
    /// For the whole request with all retries; `None` is without limit.
    pub timeout: Option<Duration>,
    /// No progress for so long; `None` leaves the connection manager's.
    pub idle_timeout: Option<Duration>,
    /// Retries.
    pub retry: Option<Arc<RetryPolicy>>,
    /// The path's matched prefix is replaced.
    pub prefix_rewrite: Option<Box<str>>,
    /// The path is rewritten by a regular expression and its substitution (`\1` form translated to the regex crate's).
    pub regex_rewrite: Option<(regex::Regex, Box<str>)>,
    /// The authority is replaced.
    pub host_rewrite: Option<HostRewrite>,
    /// Hash inputs for consistent hashing, in order.
    pub hash: Vec<HashPolicy>,
    /// Copies of the request.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin policy.
    pub cors: Option<Arc<CorsPolicy>>,
    /// Upgrades that this route allows beyond the connection manager's.
    pub upgrades: Vec<Box<str>>,
    /// The status when the cluster does not exist, usually 503.
    pub cluster_not_found: StatusCode,
    /// Longest timeout that a gRPC client may ask for (`grpc-timeout`), `Some(0)` = what it asks; `None`: header ignored.
    pub max_grpc_timeout: Option<Duration>,
}

/// Which cluster.
#[derive(Clone, Debug)]
pub enum ForwardTarget {
    /// One.
    Cluster(Arc<str>),
    /// One of several by weight.
    Weighted { clusters: Vec<WeightedCluster>, total: u64 },
    /// The one that a header names.
    Header(HeaderName),
}

/// A cluster with its share.
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    /// The cluster.
    pub name: Arc<str>,
    /// Its weight.
    pub weight: u32,
    /// Mutations of requests, before the route's.
    pub request_headers: Vec<HeaderMutation>,
    /// Mutations of responses, before the route's.
    pub response_headers: Vec<HeaderMutation>,
    /// The authority is replaced.
    pub host_rewrite: Option<HeaderValue>,
    /// What it says of filters.
    pub filters: FilterOverrides,
}

/// How the authority is replaced.
#[derive(Clone, Debug)]
pub enum HostRewrite {
    /// By this.
    Literal(HeaderValue),
    /// By the endpoint's hostname (`auto_host_rewrite`).
    Auto,
}

/// Which failures are retried; see Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    pub server_error: bool,
    pub gateway_error: bool,
    pub reset: bool,
    pub reset_before_request: bool,
    pub connect_failure: bool,
    pub refused_stream: bool,
    pub retriable_4xx: bool,
    pub retriable_status_codes: bool,
    pub retriable_headers: bool,
    pub envoy_ratelimited: bool,
    pub http3_post_connect_failure: bool,
    pub grpc_cancelled: bool,
    pub grpc_deadline_exceeded: bool,
    pub grpc_internal: bool,
    pub grpc_resource_exhausted: bool,
    pub grpc_unavailable: bool,
}

/// `envoy.config.route.v3.RetryPolicy`.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Which failures.
    pub on: RetryOn,
    /// Retries beyond the first attempt.
    pub retries: u32,
    /// Time for each attempt; `None` leaves the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Statuses for `retriable_status_codes`.
    pub statuses: Vec<u16>,
    /// Endpoints that were tried are avoided.
    pub avoid_previous_hosts: bool,
    /// How often another endpoint is looked for.
    pub host_selection_attempts: u32,
    /// First wait; doubles each time, with full jitter.
    pub backoff_base: Duration,
    /// Longest wait.
    pub backoff_max: Duration,
}

/// `envoy.config.route.v3.RedirectAction`.
#[derive(Clone, Debug)]
pub struct Redirect {
    pub status: StatusCode,
    pub scheme: Option<Box<str>>,
    pub https: bool,
    pub host: Option<Box<str>>,
    pub port: Option<u16>,
    pub path: Option<Box<str>>,
    pub prefix_rewrite: Option<Box<str>>,
    pub regex_rewrite: Option<(regex::Regex, Box<str>)>,
    pub strip_query: bool,
}

/// What is done with a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderMutation {
    /// Removed.
    Remove(HeaderName),
    /// Replaced, or added where missing.
    Set(HeaderName, HeaderFormat),
    /// Added beside what is there.
    Append(HeaderName, HeaderFormat),
    /// Added where missing.
    AddIfAbsent(HeaderName, HeaderFormat),
}

/// A header's value: literal, or with `%COMMAND%`s of the access log's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderFormat {
    /// As it is.
    Literal(HeaderValue),
    /// Filled in for each request.
    Format(super::access_log::Format),
}

/// `envoy.config.route.v3.RouteAction.HashPolicy`.
#[derive(Clone, Debug)]
pub enum HashPolicy {
    Header { name: HeaderName, terminal: bool },
    Cookie { name: Box<str>, path: Box<str>, ttl: Option<Duration>, terminal: bool },
    SourceIp { terminal: bool },
    Query { name: Box<str>, terminal: bool },
}

/// A copy of requests that goes to another cluster.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Where to.
    pub cluster: Arc<str>,
    /// Which share.
    pub fraction: Fraction,
    /// The authority keeps its name instead of getting `-shadow`.
    pub keep_host: bool,
}

/// `envoy.extensions.filters.http.cors.v3.CorsPolicy`.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    pub allow_origins: Vec<StringMatcher>,
    pub allow_methods: Option<HeaderValue>,
    pub allow_headers: Option<HeaderValue>,
    pub expose_headers: Option<HeaderValue>,
    pub max_age: Option<HeaderValue>,
    pub allow_credentials: bool,
    pub forward_unmatched_preflights: bool,
}
