//! What an edge of the mesh does to a request that is not from another proxy: it believes nothing that only proxies say.
//!
//! Source: Envoy's `ConnectionManagerUtility` with `use_remote_address`; no client counts as internal.

use std::net::IpAddr;

use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::head::names;

/// What clients outside could say to steer the proxies behind.
const STEERING: [HeaderName; 19] = [
    HeaderName::from_static("x-envoy-internal"),
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-envoy-original-host"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-url"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
];

/// Removes what only proxies may say, and says who the client is.
pub fn sanitize(headers: &mut HeaderMap, client: IpAddr) {
    let is_steering =
        |name: &&HeaderName| name.as_str().starts_with("x-envoy-") && STEERING.contains(name);
    let found: Vec<_> = headers.keys().filter(is_steering).cloned().collect();
    for name in found {
        headers.remove(name);
    }
    if let Ok(value) = HeaderValue::try_from(client.to_string()) {
        headers.insert(names::EXTERNAL_ADDRESS, value);
    }
}
