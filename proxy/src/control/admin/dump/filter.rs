//! HTTP filters and what routes say of them.

use serde_json::{Map, Value, json};

use super::{duration, fraction, header, pruned, rbac, route};
use crate::config::filter::{Abort, Fault, FilterOverrides, HttpFilter, LocalRateLimit};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http.";

fn typed(name: &str, message: &str, fields: Value) -> Value {
    let mut config = Map::new();
    config.insert("@type".to_owned(), json!(format!("{FILTERS}{message}")));
    if let Value::Object(fields) = fields {
        config.extend(fields);
    }
    json!({"name": name, "typed_config": config})
}

/// The filters of a connection manager, with the router that is implied.
pub fn filters(filters: &[HttpFilter]) -> Vec<Value> {
    filters
        .iter()
        .map(|filter| match filter {
            HttpFilter::Rbac(config) => {
                typed("envoy.filters.http.rbac", "rbac.v3.RBAC", rbac::rbac(config))
            }
            HttpFilter::LocalRateLimit(config) => typed(
                "envoy.filters.http.local_ratelimit",
                "local_ratelimit.v3.LocalRateLimit",
                local_rate_limit(config),
            ),
            HttpFilter::Fault(config) => typed(
                "envoy.filters.http.fault",
                "fault.v3.HTTPFault",
                config.as_deref().map_or_else(|| json!({}), fault),
            ),
            HttpFilter::Cors => typed("envoy.filters.http.cors", "cors.v3.Cors", json!({})),
        })
        .chain([typed("envoy.filters.http.router", "router.v3.Router", json!({}))])
        .collect()
}

/// `typed_per_filter_config`.
pub fn overrides(overrides: &FilterOverrides) -> Value {
    let mut configs = Map::new();
    if let Some(limit) = &overrides.local_rate_limit {
        configs.insert("envoy.filters.http.local_ratelimit".to_owned(), local_rate_limit(limit));
    }
    if let Some(config) = &overrides.fault {
        configs.insert("envoy.filters.http.fault".to_owned(), fault(config));
    }
    if let Some(config) = &overrides.rbac {
        let config = config.as_deref().map(rbac::rbac);
        configs.insert("envoy.filters.http.rbac".to_owned(), pruned(json!({"rbac": config})));
    }
    Value::Object(configs)
}

fn local_rate_limit(limit: &LocalRateLimit) -> Value {
    let bucket = &limit.bucket;
    pruned(json!({
        "stat_prefix": limit.stat_prefix,
        "token_bucket": {
            "max_tokens": bucket.max_tokens,
            "tokens_per_fill": bucket.tokens_per_fill,
            "fill_interval": duration(bucket.fill_interval),
        },
        "filter_enabled": {"default_value": fraction(limit.enabled)},
        "filter_enforced": {"default_value": fraction(limit.enforced)},
        "status": {"code": limit.status},
        "response_headers_to_add": route::additions(&limit.response_headers),
    }))
}

fn fault(fault: &Fault) -> Value {
    let delay = fault.delay.map(|(how_long, share)| {
        json!({"fixed_delay": duration(how_long), "percentage": fraction(share)})
    });
    let abort = fault.abort.map(|(how, share)| match how {
        Abort::Http(status) => json!({"http_status": status, "percentage": fraction(share)}),
        Abort::Grpc(status) => json!({"grpc_status": status, "percentage": fraction(share)}),
    });
    let headers: Vec<_> = fault.headers.iter().map(header).collect();
    pruned(json!({"delay": delay, "abort": abort, "headers": headers}))
}
