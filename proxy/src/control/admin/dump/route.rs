//! Route configurations, virtual hosts, routes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{duration, filter, fraction, header, pruned, regex, string, timeout};
use crate::config::{
    access_log::FormatPart,
    route::{
        CorsPolicy, Forward, ForwardTarget, HashPolicy, HeaderFormat, HeaderMutation, HostRewrite,
        PathMatch, Redirect, RetryOn, RetryPolicy, Route, RouteAction, RouteConfig, RouteMatch,
        TlsRequirement, VirtualHost, WeightedCluster,
    },
};

/// A route configuration with the virtual hosts that were fetched for it.
pub fn route_config(config: &RouteConfig, fetched: Vec<Value>) -> Value {
    let hosts = &config.hosts;
    let mut all: Vec<&Arc<VirtualHost>> = hosts
        .exact
        .values()
        .chain(hosts.suffixes.iter().map(|(_, host)| host))
        .chain(hosts.prefixes.iter().map(|(_, host)| host))
        .chain(&hosts.any)
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let hosts: Vec<_> = all.into_iter().map(|host| virtual_host(host)).chain(fetched).collect();
    let vhds = config.on_demand.then(|| json!({"config_source": {"ads": {}}}));
    pruned(with_headers(
        json!({"name": &*config.name, "virtual_hosts": hosts, "vhds": vhds}),
        &config.request_headers,
        &config.response_headers,
    ))
}

/// A virtual host.
pub fn virtual_host(host: &VirtualHost) -> Value {
    let routes: Vec<_> = host.routes.iter().map(|route| self::route(route)).collect();
    pruned(with_headers(
        json!({
            "name": &*host.name,
            "domains": host.domains,
            "require_tls": match host.require_tls {
                TlsRequirement::None => None,
                TlsRequirement::External => Some("EXTERNAL_ONLY"),
                TlsRequirement::All => Some("ALL"),
            },
            "routes": routes,
            "include_request_attempt_count": host.include_request_attempt_count,
            "retry_policy": host.retry.as_deref().map(retry),
            "typed_per_filter_config": filter::overrides(&host.filters),
        }),
        &host.request_headers,
        &host.response_headers,
    ))
}

fn route(route: &Route) -> Value {
    let (field, action) = match &route.action {
        RouteAction::Forward(action) => ("route", forward(action)),
        RouteAction::Redirect(action) => ("redirect", redirect(action)),
        RouteAction::Direct { status, body } => {
            let body = String::from_utf8_lossy(body);
            let body = (!body.is_empty()).then(|| json!({"inline_string": body}));
            ("direct_response", pruned(json!({"status": status.as_u16(), "body": body})))
        }
    };
    let metadata = route
        .config
        .as_ref()
        .map(|config| json!({"filter_metadata": {"istio": {"config": config}}}));
    let cors = match &route.action {
        RouteAction::Forward(action) => action.cors.as_deref().map(cors),
        _ => None,
    };
    let mut filters = filter::overrides(&route.filters);
    if let Some(cors) = cors {
        filters["envoy.filters.http.cors"] = cors;
    }
    pruned(with_headers(
        json!({
            "name": &*route.name,
            "match": route_match(&route.matches),
            field: action,
            "metadata": metadata,
            "typed_per_filter_config": filters,
        }),
        &route.request_headers,
        &route.response_headers,
    ))
}

fn route_match(matches: &RouteMatch) -> Value {
    let (field, value, ignore_case) = match &matches.path {
        PathMatch::Prefix { value, ignore_case } => ("prefix", json!(value), *ignore_case),
        PathMatch::Exact { value, ignore_case } => ("path", json!(value), *ignore_case),
        PathMatch::SeparatedPrefix { value, ignore_case } => {
            ("path_separated_prefix", json!(value), *ignore_case)
        }
        PathMatch::Regex(value) => ("safe_regex", regex(value), false),
        PathMatch::Connect => ("connect_matcher", json!({}), false),
    };
    let headers: Vec<_> = matches.headers.iter().map(header).collect();
    let query: Vec<_> = matches
        .query
        .iter()
        .map(|query| match &query.value {
            Some(matcher) => json!({"name": query.name, "string_match": string(matcher)}),
            None => json!({"name": query.name, "present_match": true}),
        })
        .collect();
    let mut result = pruned(json!({
        "headers": headers,
        "query_parameters": query,
        "runtime_fraction": matches.fraction.map(|share| json!({"default_value": fraction(share)})),
    }));
    result[field] = value;
    if ignore_case {
        result["case_sensitive"] = json!(false);
    }
    if matches.grpc {
        result["grpc"] = json!({});
    }
    result
}

fn forward(action: &Forward) -> Value {
    let (field, target) = match &action.target {
        ForwardTarget::Cluster(name) => ("cluster", json!(&**name)),
        ForwardTarget::Weighted { clusters, .. } => {
            let clusters: Vec<_> = clusters.iter().map(weighted).collect();
            ("weighted_clusters", json!({"clusters": clusters}))
        }
        ForwardTarget::Header(name) => ("cluster_header", json!(name.as_str())),
    };
    let hash: Vec<_> = action.hash.iter().map(hash_policy).collect();
    let mirrors: Vec<_> = action
        .mirrors
        .iter()
        .map(|mirror| {
            json!({
                "cluster": &*mirror.cluster,
                "runtime_fraction": {"default_value": fraction(mirror.fraction)},
            })
        })
        .collect();
    let upgrades: Vec<_> =
        action.upgrades.iter().map(|name| json!({"upgrade_type": name})).collect();
    let (literal, auto) = match &action.host_rewrite {
        Some(HostRewrite::Literal(host)) => (Some(String::from_utf8_lossy(host.as_bytes())), false),
        Some(HostRewrite::Auto) => (None, true),
        None => (None, false),
    };
    pruned(json!({
        field: target,
        "timeout": timeout(action.timeout),
        "idle_timeout": action.idle_timeout.map(duration),
        "retry_policy": action.retry.as_deref().map(retry),
        "prefix_rewrite": action.prefix_rewrite,
        "regex_rewrite": action.regex_rewrite.as_ref().map(rewrite),
        "host_rewrite_literal": literal,
        "auto_host_rewrite": auto,
        "hash_policy": hash,
        "request_mirror_policies": mirrors,
        "upgrade_configs": upgrades,
        "max_grpc_timeout": action.max_grpc_timeout.map(duration),
    }))
}

fn rewrite((pattern, substitution): &(regex::Regex, Box<str>)) -> Value {
    json!({"pattern": regex(pattern), "substitution": substitution})
}

fn weighted(cluster: &WeightedCluster) -> Value {
    pruned(with_headers(
        json!({
            "name": &*cluster.name,
            "weight": cluster.weight,
            "host_rewrite_literal":
                cluster.host_rewrite.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes())),
            "typed_per_filter_config": filter::overrides(&cluster.filters),
        }),
        &cluster.request_headers,
        &cluster.response_headers,
    ))
}

fn hash_policy(policy: &HashPolicy) -> Value {
    let (value, terminal) = match policy {
        HashPolicy::Header { name, terminal } => {
            (json!({"header": {"header_name": name.as_str()}}), terminal)
        }
        HashPolicy::Cookie { name, path, ttl, terminal } => (
            json!({"cookie": pruned(json!({
                "name": name, "path": path, "ttl": ttl.map(duration),
            }))}),
            terminal,
        ),
        HashPolicy::SourceIp { terminal } => {
            (json!({"connection_properties": {"source_ip": true}}), terminal)
        }
        HashPolicy::Query { name, terminal } => {
            (json!({"query_parameter": {"name": name}}), terminal)
        }
    };
    let mut value = value;
    if *terminal {
        value["terminal"] = json!(true);
    }
    value
}

fn retry(policy: &RetryPolicy) -> Value {
    let predicates: Vec<_> = policy
        .avoid_previous_hosts
        .then(|| json!({"name": "envoy.retry_host_predicates.previous_hosts"}))
        .into_iter()
        .collect();
    pruned(json!({
        "retry_on": retry_on(&policy.on),
        "num_retries": policy.retries,
        "per_try_timeout": policy.per_try_timeout.map(duration),
        "retriable_status_codes": policy.statuses,
        "retry_host_predicate": predicates,
        "host_selection_retry_max_attempts": policy.host_selection_attempts,
        "retry_back_off": {
            "base_interval": duration(policy.backoff_base),
            "max_interval": duration(policy.backoff_max),
        },
    }))
}

fn retry_on(on: &RetryOn) -> String {
    [
        (on.server_error, "5xx"),
        (on.gateway_error, "gateway-error"),
        (on.reset, "reset"),
        (on.reset_before_request, "reset-before-request"),
        (on.connect_failure, "connect-failure"),
        (on.refused_stream, "refused-stream"),
        (on.retriable_4xx, "retriable-4xx"),
        (on.retriable_status_codes, "retriable-status-codes"),
        (on.retriable_headers, "retriable-headers"),
        (on.envoy_ratelimited, "envoy-ratelimited"),
        (on.http3_post_connect_failure, "http3-post-connect-failure"),
        (on.grpc_cancelled, "cancelled"),
        (on.grpc_deadline_exceeded, "deadline-exceeded"),
        (on.grpc_internal, "internal"),
        (on.grpc_resource_exhausted, "resource-exhausted"),
        (on.grpc_unavailable, "unavailable"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect::<Vec<_>>()
    .join(",")
}

fn redirect(redirect: &Redirect) -> Value {
    pruned(json!({
        "scheme_redirect": redirect.scheme,
        "https_redirect": redirect.https,
        "host_redirect": redirect.host,
        "port_redirect": redirect.port,
        "path_redirect": redirect.path,
        "prefix_rewrite": redirect.prefix_rewrite,
        "regex_rewrite": redirect.regex_rewrite.as_ref().map(rewrite),
        "response_code": redirect.status.as_u16(),
        "strip_query": redirect.strip_query,
    }))
}

fn cors(policy: &CorsPolicy) -> Value {
    let text = |value: &Option<::http::HeaderValue>| {
        value.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let origins: Vec<_> = policy.allow_origins.iter().map(string).collect();
    pruned(json!({
        "allow_origin_string_match": origins,
        "allow_methods": text(&policy.allow_methods),
        "allow_headers": text(&policy.allow_headers),
        "expose_headers": text(&policy.expose_headers),
        "max_age": text(&policy.max_age),
        "allow_credentials": policy.allow_credentials,
    }))
}

/// Adds what is done with headers.
fn with_headers(
    mut value: Value,
    request: &[HeaderMutation],
    response: &[HeaderMutation],
) -> Value {
    for (prefix, mutations) in [("request", request), ("response", response)] {
        let removals: Vec<_> = mutations
            .iter()
            .filter_map(|mutation| match mutation {
                HeaderMutation::Remove(name) => Some(json!(name.as_str())),
                _ => None,
            })
            .collect();
        if let Value::Object(fields) = &mut value {
            fields.insert(format!("{prefix}_headers_to_add"), json!(additions(mutations)));
            fields.insert(format!("{prefix}_headers_to_remove"), json!(removals));
        }
    }
    pruned(value)
}

/// `*_headers_to_add`.
pub fn additions(mutations: &[HeaderMutation]) -> Vec<Value> {
    mutations
        .iter()
        .filter_map(|mutation| {
            let (name, format, action) = match mutation {
                HeaderMutation::Remove(_) => return None,
                HeaderMutation::Set(name, format) => (name, format, "OVERWRITE_IF_EXISTS_OR_ADD"),
                HeaderMutation::Append(name, format) => (name, format, "APPEND_IF_EXISTS_OR_ADD"),
                HeaderMutation::AddIfAbsent(name, format) => (name, format, "ADD_IF_ABSENT"),
            };
            Some(json!({
                "header": {"key": name.as_str(), "value": header_format(format)},
                "append_action": action,
            }))
        })
        .collect()
}

fn header_format(format: &HeaderFormat) -> String {
    match format {
        HeaderFormat::Literal(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        HeaderFormat::Format(format) => format
            .parts
            .iter()
            .map(|part| match part {
                FormatPart::Literal(text) => text.to_string(),
                FormatPart::Command { command, .. } => format!("%{command:?}%"),
            })
            .collect(),
    }
}
