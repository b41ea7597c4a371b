//! Clusters and endpoints.

use serde_json::{Value, json};
use weft_api::xds::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster, OutlierDetection,
                cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
            },
            core::v3::{TransportSocket, transport_socket},
            endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
        },
        extensions::{
            transport_sockets::tls::v3::{
                CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext,
                common_tls_context::ValidationContextType,
            },
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                },
            },
        },
    },
    google::protobuf::UInt32Value,
};

use super::{address, duration, matching, metadata, object, unpack};

/// A limit, where there is one.
fn limit(value: Option<&UInt32Value>) -> Value {
    match value {
        Some(value) if value.value != u32::MAX => json!(value.value),
        _ => Value::Null,
    }
}

fn count(value: Option<&UInt32Value>) -> Value {
    json!(value.map(|value| value.value))
}

pub(super) fn cluster(cluster: &Cluster) -> Value {
    let kind = match cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind).ok(),
        _ => None,
    };
    let sockets = cluster
        .transport_socket_matches
        .iter()
        .map(|matched| {
            let socket = matched.transport_socket.as_ref().map(transport).unwrap_or_default();
            (matched.name.clone(), socket)
        })
        .collect();
    let options = cluster.typed_extension_protocol_options.values().find_map(unpack);
    object([
        ("name", json!(cluster.name)),
        ("type", json!(kind.map(|kind| kind.as_str_name()))),
        (
            "loadBalancer",
            json!(LbPolicy::try_from(cluster.lb_policy).ok().map(|lb| lb.as_str_name())),
        ),
        ("connectTimeout", duration(cluster.connect_timeout.as_ref())),
        ("limits", cluster.circuit_breakers.as_ref().map(limits).unwrap_or_default()),
        ("outlierDetection", cluster.outlier_detection.as_ref().map(outlier).unwrap_or_default()),
        ("http", options.map(|options| protocol(&options)).unwrap_or_default()),
        ("tls", cluster.transport_socket.as_ref().map(transport).unwrap_or_default()),
        ("tlsByEndpoint", Value::Object(sockets)),
        ("endpoints", cluster.load_assignment.as_ref().map(endpoints).unwrap_or_default()),
        ("metadata", metadata(cluster.metadata.as_ref())),
    ])
}

fn limits(breakers: &CircuitBreakers) -> Value {
    let Some(limits) = breakers.thresholds.first() else { return Value::Null };
    let budget = limits.retry_budget.as_ref().map(|budget| {
        object([
            ("percent", json!(budget.budget_percent.as_ref().map(|percent| percent.value))),
            ("atLeast", count(budget.min_retry_concurrency.as_ref())),
            ("interval", duration(budget.budget_interval.as_ref())),
        ])
    });
    object([
        ("connections", limit(limits.max_connections.as_ref())),
        ("pendingRequests", limit(limits.max_pending_requests.as_ref())),
        ("requests", limit(limits.max_requests.as_ref())),
        ("retries", limit(limits.max_retries.as_ref())),
        ("retryBudget", budget.unwrap_or_default()),
    ])
}

fn outlier(outlier: &OutlierDetection) -> Value {
    let enforced = |errors: Option<&UInt32Value>, enforcing: Option<&UInt32Value>| match enforcing {
        Some(UInt32Value { value: 0 }) => json!("off"),
        _ => count(errors),
    };
    object([
        (
            "consecutive5xx",
            enforced(outlier.consecutive_5xx.as_ref(), outlier.enforcing_consecutive_5xx.as_ref()),
        ),
        (
            "consecutiveGatewayErrors",
            enforced(
                outlier.consecutive_gateway_failure.as_ref(),
                outlier.enforcing_consecutive_gateway_failure.as_ref(),
            ),
        ),
        ("consecutiveLocalOriginErrors", count(outlier.consecutive_local_origin_failure.as_ref())),
        ("interval", duration(outlier.interval.as_ref())),
        ("baseEjectionTime", duration(outlier.base_ejection_time.as_ref())),
        ("maxEjectionPercent", count(outlier.max_ejection_percent.as_ref())),
    ])
}

fn protocol(options: &HttpProtocolOptions) -> Value {
    let version = match &options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => match config.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => "HTTP/2",
            _ => "HTTP/1.1",
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => "as the client",
        _ => "?",
    };
    let common = options.common_http_protocol_options.unwrap_or_default();
    let names = options.upstream_http_protocol_options.clone().unwrap_or_default();
    object([
        ("version", json!(version)),
        ("idleTimeout", duration(common.idle_timeout.as_ref())),
        ("maxConnectionDuration", duration(common.max_connection_duration.as_ref())),
        ("maxRequestsPerConnection", count(common.max_requests_per_connection.as_ref())),
        ("sniFromRequest", json!(names.auto_sni)),
        ("checkedNameFromRequest", json!(names.auto_san_validation)),
    ])
}

/// How a connection is secured; plaintext says so.
pub(super) fn transport(socket: &TransportSocket) -> Value {
    let Some(transport_socket::ConfigType::TypedConfig(config)) = &socket.config_type else {
        return Value::Null;
    };
    if let Some(upstream) = unpack::<UpstreamTlsContext>(config) {
        let common = upstream.common_tls_context.unwrap_or_default();
        return object([("sni", json!(upstream.sni)), ("context", context(&common))]);
    }
    if let Some(downstream) = unpack::<DownstreamTlsContext>(config) {
        let required = downstream.require_client_certificate.is_some_and(|required| required.value);
        let mut shown = context(&downstream.common_tls_context.unwrap_or_default());
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("clientCertificate".into(), json!(required));
        }
        return shown;
    }
    json!("plaintext")
}

fn context(common: &CommonTlsContext) -> Value {
    let (trust, names) = match &common.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => (
            combined
                .validation_context_sds_secret_config
                .as_ref()
                .map_or(Value::Null, |secret| json!(secret.name)),
            combined
                .default_validation_context
                .as_ref()
                .map(|context| context.match_typed_subject_alt_names.as_slice())
                .unwrap_or_default(),
        ),
        Some(ValidationContextType::ValidationContext(context)) => {
            (json!("files"), context.match_typed_subject_alt_names.as_slice())
        }
        _ => (json!("anyone"), &[][..]),
    };
    let names =
        names.iter().filter_map(|name| Some(json!(matching::string(name.matcher.as_ref()?))));
    let secrets = common.tls_certificate_sds_secret_configs.iter().map(|secret| json!(secret.name));
    let files = common.tls_certificates.iter().map(|_| json!("file"));
    object([
        ("certificate", secrets.chain(files).collect()),
        ("trust", trust),
        ("peers", names.collect()),
        ("alpn", json!(common.alpn_protocols)),
    ])
}

pub(super) fn assignment(assignment: &ClusterLoadAssignment) -> Value {
    object([("name", json!(assignment.cluster_name)), ("endpoints", endpoints(assignment))])
}

fn endpoints(assignment: &ClusterLoadAssignment) -> Value {
    let localities = assignment.endpoints.iter().flat_map(|group| {
        let place = group.locality.clone().unwrap_or_default();
        let place = [place.region, place.zone, place.sub_zone].join("/");
        group.lb_endpoints.iter().map(move |one| endpoint(place.trim_end_matches('/'), one))
    });
    localities.collect()
}

fn endpoint(place: &str, one: &LbEndpoint) -> Value {
    let at = match &one.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint.address.as_ref().map(address),
        _ => None,
    };
    let health = match one.health_status().as_str_name() {
        "HEALTHY" | "UNKNOWN" => Value::Null,
        other => json!(other),
    };
    let weight = one.load_balancing_weight.as_ref().map(|weight| weight.value);
    object([
        ("address", json!(at)),
        ("health", health),
        ("weight", json!(weight.filter(|weight| *weight != 1))),
        ("locality", json!(place)),
        ("metadata", metadata(one.metadata.as_ref())),
    ])
}
