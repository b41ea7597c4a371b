//! Routes.

use serde_json::{Value, json};
use weft_api::xds::envoy::{
    config::{
        core::v3::HeaderValueOption,
        route::v3::{
            RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost, WeightedCluster,
            redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier},
            route::Action,
            route_action::{ClusterSpecifier, HostRewriteSpecifier, hash_policy::PolicySpecifier},
        },
    },
    extensions::filters::http::fault::v3::{HttpFault, fault_abort::ErrorType},
    r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
};

use super::{duration, listener, matching, metadata, object, object_of, unpack};

pub(super) fn config(config: &RouteConfiguration) -> Value {
    object([
        ("name", json!(config.name)),
        ("onDemand", json!(config.vhds.is_some())),
        ("virtualHosts", config.virtual_hosts.iter().map(virtual_host).collect()),
    ])
}

pub(super) fn virtual_host(host: &VirtualHost) -> Value {
    object([
        ("name", json!(host.name)),
        ("domains", json!(host.domains)),
        ("requireTls", json!(host.require_tls != 0)),
        ("routes", host.routes.iter().map(route).collect()),
    ])
}

fn route(route: &Route) -> Value {
    let mut fields = vec![
        ("name", json!(route.name)),
        ("match", json!(route.r#match.as_ref().map(matching::route).unwrap_or_default())),
    ];
    match &route.action {
        Some(Action::Route(action)) => fields.extend(forward(action)),
        Some(Action::Redirect(action)) => {
            let path = match &action.path_rewrite_specifier {
                Some(PathRewriteSpecifier::PathRedirect(path)) => json!(path),
                Some(PathRewriteSpecifier::PrefixRewrite(path)) => json!(format!("{path}*")),
                _ => Value::Null,
            };
            let scheme = match &action.scheme_rewrite_specifier {
                Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => json!(scheme),
                _ => Value::Null,
            };
            let redirect = object([
                ("code", json!(action.response_code().as_str_name())),
                ("scheme", scheme),
                ("host", json!(action.host_redirect)),
                (
                    "port",
                    if action.port_redirect == 0 {
                        Value::Null
                    } else {
                        json!(action.port_redirect)
                    },
                ),
                ("path", path),
            ]);
            fields.push(("redirect", redirect));
        }
        Some(Action::DirectResponse(answer)) => fields.push(("answer", json!(answer.status))),
        _ => {}
    }
    fields.push((
        "requestHeaders",
        headers(&route.request_headers_to_add, &route.request_headers_to_remove),
    ));
    fields.push((
        "responseHeaders",
        headers(&route.response_headers_to_add, &route.response_headers_to_remove),
    ));
    let mut filters: Vec<_> = route.typed_per_filter_config.iter().collect();
    filters.sort_by_key(|(name, _)| *name);
    let filters = filters.into_iter().map(|(name, config)| {
        let value = match unpack::<HttpFault>(config) {
            Some(fault) => self::fault(&fault),
            None => listener::http_filter_config(config),
        };
        (name.clone(), value)
    });
    fields.push(("filters", Value::Object(filters.collect())));
    fields.push(("metadata", metadata(route.metadata.as_ref())));
    object_of(fields)
}

/// In percent.
fn share(share: Option<&FractionalPercent>) -> f64 {
    let share = share.copied().unwrap_or_default();
    let whole = match share.denominator() {
        DenominatorType::Hundred => 100.0,
        DenominatorType::TenThousand => 10_000.0,
        DenominatorType::Million => 1_000_000.0,
    };
    f64::from(share.numerator) * 100.0 / whole
}

fn fault(fault: &HttpFault) -> Value {
    use weft_api::xds::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
    let delay = fault.delay.as_ref().map(|delay| {
        let fixed = match &delay.fault_delay_secifier {
            Some(FaultDelaySecifier::FixedDelay(fixed)) => duration(Some(fixed)),
            _ => Value::Null,
        };
        json!({ "percent": share(delay.percentage.as_ref()), "delay": fixed })
    });
    let abort = fault.abort.as_ref().map(|abort| {
        let error = match &abort.error_type {
            Some(ErrorType::HttpStatus(status)) => json!(status),
            Some(ErrorType::GrpcStatus(status)) => json!(format!("grpc {status}")),
            _ => Value::Null,
        };
        json!({ "percent": share(abort.percentage.as_ref()), "status": error })
    });
    object([("delay", json!(delay)), ("abort", json!(abort))])
}

fn headers(added: &[HeaderValueOption], removed: &[String]) -> Value {
    let added = added.iter().filter_map(|option| {
        let header = option.header.as_ref()?;
        let sign = match option.append_action().as_str_name() {
            "OVERWRITE_IF_EXISTS_OR_ADD" => "=",
            _ => "+",
        };
        Some(json!(format!("{sign}{}: {}", header.key, header.value)))
    });
    added.chain(removed.iter().map(|name| json!(format!("-{name}")))).collect()
}

fn split(split: &WeightedCluster) -> Value {
    let parts = split.clusters.iter().map(|part| {
        object([
            ("cluster", json!(part.name)),
            ("weight", json!(part.weight.as_ref().map(|weight| weight.value))),
            (
                "requestHeaders",
                headers(&part.request_headers_to_add, &part.request_headers_to_remove),
            ),
            (
                "responseHeaders",
                headers(&part.response_headers_to_add, &part.response_headers_to_remove),
            ),
        ])
    });
    parts.collect()
}

fn retries(policy: &RetryPolicy) -> Value {
    object([
        ("on", json!(policy.retry_on)),
        ("attempts", json!(policy.num_retries.as_ref().map(|retries| retries.value))),
        ("perTryTimeout", duration(policy.per_try_timeout.as_ref())),
        ("statuses", json!(policy.retriable_status_codes)),
        ("otherHosts", json!(!policy.retry_host_predicate.is_empty())),
    ])
}

fn forward(action: &RouteAction) -> Vec<(&'static str, Value)> {
    let to = match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => json!(name),
        Some(ClusterSpecifier::WeightedClusters(clusters)) => split(clusters),
        _ => Value::Null,
    };
    let authority = match &action.host_rewrite_specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => json!(host),
        _ => Value::Null,
    };
    let hash = action.hash_policy.iter().map(|policy| match &policy.policy_specifier {
        Some(PolicySpecifier::Header(header)) => json!(format!("header {}", header.header_name)),
        Some(PolicySpecifier::Cookie(cookie)) => json!(format!("cookie {}", cookie.name)),
        Some(PolicySpecifier::ConnectionProperties(_)) => json!("source address"),
        Some(PolicySpecifier::QueryParameter(query)) => json!(format!("query {}", query.name)),
        _ => Value::Null,
    });
    let mirrors = action.request_mirror_policies.iter().map(|mirror| {
        let share_of = mirror.runtime_fraction.as_ref().and_then(|f| f.default_value.as_ref());
        json!({ "cluster": mirror.cluster, "percent": share(share_of) })
    });
    let regex = action.regex_rewrite.as_ref().map(|rewrite| {
        let pattern = rewrite.pattern.as_ref().map_or("", |pattern| pattern.regex.as_str());
        json!(format!("{pattern} -> {}", rewrite.substitution))
    });
    let rewrite = object([
        ("prefix", json!(action.prefix_rewrite)),
        ("regex", json!(regex)),
        ("authority", authority),
    ]);
    let no_timeout = action.timeout.as_ref().is_some_and(|timeout| *timeout == Default::default());
    vec![
        ("to", to),
        ("timeout", if no_timeout { Value::Null } else { duration(action.timeout.as_ref()) }),
        ("retries", action.retry_policy.as_ref().map(retries).unwrap_or_default()),
        ("rewrite", rewrite),
        ("hash", hash.collect()),
        ("mirrors", mirrors.collect()),
    ]
}
