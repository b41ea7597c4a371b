//! The proxy's own form of configuration back in the shape of Envoy's JSON. What is at its default is left out.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use crate::{
    config::{
        cluster::CircuitBreakers,
        filter::Fraction,
        matcher::{HeaderMatcher, HeaderValueMatch, StringMatcher},
    },
    control::decode::endpoint::Locality,
};

pub mod cluster;
mod filter;
mod http;
pub mod listener;
mod rbac;
pub mod route;
mod tls;

/// Leaves out fields that say nothing: null, empty text, empty lists and objects, false.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| match value {
                    Value::Null | Value::Bool(false) => false,
                    Value::String(text) => !text.is_empty(),
                    Value::Array(list) => !list.is_empty(),
                    Value::Object(fields) => !fields.is_empty(),
                    _ => true,
                })
                .collect(),
        ),
        other => other,
    }
}

/// A socket address.
pub fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A duration as protobuf's JSON has it.
fn duration(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 {
        return json!(format!("{}s", duration.as_secs()));
    }
    let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
    json!(format!("{}s", text.trim_end_matches('0')))
}

/// A timeout; none is written as zero.
fn timeout(timeout: Option<Duration>) -> Value {
    timeout.map_or_else(|| json!("0s"), duration)
}

/// A locality.
pub fn locality((region, zone, sub_zone): &Locality) -> Value {
    pruned(json!({"region": region, "zone": zone, "sub_zone": sub_zone}))
}

/// Circuit breakers.
pub fn thresholds(limits: &CircuitBreakers) -> Value {
    pruned(json!({
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending_requests,
        "max_requests": limits.max_requests,
        "max_retries": limits.max_retries,
        "retry_budget": limits.retry_budget.map(|budget| json!({
            "budget_percent": {"value": budget.percent},
            "min_retry_concurrency": budget.min_concurrency,
        })),
    }))
}

fn fraction(fraction: Fraction) -> Value {
    if fraction.0.is_multiple_of(10_000) {
        json!({"numerator": fraction.0 / 10_000})
    } else {
        json!({"numerator": fraction.0, "denominator": "MILLION"})
    }
}

/// A regular expression as it came, without the anchors that it was compiled with.
fn regex(regex: &regex::Regex) -> Value {
    let text = regex.as_str();
    let text =
        text.strip_prefix(r"\A(?:").and_then(|inner| inner.strip_suffix(r")\z")).unwrap_or(text);
    json!({"regex": text})
}

fn string(matcher: &StringMatcher) -> Value {
    let (field, value, ignore_case) = match matcher {
        StringMatcher::Exact { value, ignore_case } => ("exact", json!(value), *ignore_case),
        StringMatcher::Prefix { value, ignore_case } => ("prefix", json!(value), *ignore_case),
        StringMatcher::Suffix { value, ignore_case } => ("suffix", json!(value), *ignore_case),
        StringMatcher::Contains { value, ignore_case } => ("contains", json!(value), *ignore_case),
        StringMatcher::Regex(value) => ("safe_regex", regex(value), false),
    };
    let mut matcher = json!({ field: value });
    if ignore_case {
        matcher["ignore_case"] = json!(true);
    }
    matcher
}

fn header(matcher: &HeaderMatcher) -> Value {
    let mut value = json!({"name": matcher.name});
    match &matcher.value {
        HeaderValueMatch::Present(present) => value["present_match"] = json!(present),
        HeaderValueMatch::String(matcher) => value["string_match"] = string(matcher),
        HeaderValueMatch::Range { start, end } => {
            value["range_match"] = json!({"start": start, "end": end});
        }
    }
    if matcher.invert {
        value["invert_match"] = json!(true);
    }
    if matcher.treat_missing_as_empty {
        value["treat_missing_header_as_empty"] = json!(true);
    }
    value
}
