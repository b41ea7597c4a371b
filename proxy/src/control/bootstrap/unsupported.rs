//! Fields that Envoy knows and that would change what the proxy does, in messages that it otherwise reads.
//!
//! The decoder refuses what it looks at and cannot do; these it does not look at. What is in neither place and not decoded
//! concerns Envoy's own process: sizes of buffers, jitter, statistics.

/// Messages and their fields.
const FIELDS: &[(&str, &[&str])] = &[
    ("envoy.config.listener.v3.Listener", &["deprecated_v1", "freebind", "enable_mptcp"]),
    (
        "envoy.config.cluster.v3.Cluster",
        &[
            "dns_resolvers",
            "use_tcp_for_dns_lookups",
            "dns_resolution_config",
            "typed_dns_resolver_config",
            "lrs_server",
            "preconnect_policy",
        ],
    ),
    (
        "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        &[
            "ignore_new_hosts_until_first_hc",
            "close_connections_on_host_set_change",
            "consistent_hashing_lb_config",
        ],
    ),
    (
        "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
        &["active_request_bias", "slow_start_config"],
    ),
    ("envoy.config.cluster.v3.Cluster.RoundRobinLbConfig", &["slow_start_config"]),
    (
        "envoy.config.cluster.v3.OutlierDetection",
        &["always_eject_one_host", "detect_degraded_hosts"],
    ),
    (
        "envoy.config.core.v3.BindConfig",
        &["freebind", "additional_source_addresses", "local_address_selector"],
    ),
    ("envoy.config.core.v3.Http1ProtocolOptions", &["ignore_http_11_upgrade"]),
    ("envoy.config.core.v3.HttpProtocolOptions", &["max_response_headers_kb"]),
    (
        "envoy.config.core.v3.SocketAddress",
        &["resolver_name", "ipv4_compat", "network_namespace_filepath"],
    ),
    ("envoy.config.endpoint.v3.ClusterLoadAssignment.Policy", &["overprovisioning_factor"]),
    ("envoy.config.endpoint.v3.Endpoint", &["health_check_config"]),
    (
        "envoy.config.endpoint.v3.LocalityLbEndpoints",
        &["load_balancer_endpoints", "leds_cluster_locality_config"],
    ),
    ("envoy.config.rbac.v3.RBAC", &["audit_logging_options"]),
    ("envoy.config.route.v3.CorsPolicy", &["allow_private_network_access"]),
    ("envoy.config.route.v3.RetryPolicy", &["refresh_cluster_on_retry"]),
    ("envoy.config.route.v3.WeightedCluster", &["use_hash_policy"]),
    ("envoy.extensions.filters.http.cors.v3.CorsPolicy", &["allow_private_network_access"]),
    (
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        &["vh_rate_limits", "always_consume_default_token_bucket"],
    ),
    (
        "envoy.extensions.filters.http.router.v3.Router",
        &[
            "upstream_log",
            "upstream_log_options",
            "suppress_envoy_headers",
            "strict_check_headers",
            "respect_expected_rq_timeout",
            "upstream_http_filters",
        ],
    ),
    (
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        &["close_connection_on_client_hello_parsing_errors"],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &[
            "access_log_flush_interval",
            "flush_access_log_on_new_request",
            "access_log_options",
            "internal_address_config",
            "proxy_100_continue",
            "request_id_extension",
        ],
    ),
    ("envoy.extensions.filters.network.rbac.v3.RBAC", &["enforcement_type"]),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        &[
            "downstream_idle_timeout",
            "upstream_idle_timeout",
            "backoff_options",
            "access_log_flush_interval",
            "flush_access_log_on_connected",
            "access_log_options",
            "max_early_data_bytes",
        ],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        &["require_signed_certificate_timestamp", "max_verify_depth"],
    ),
    ("envoy.extensions.transport_sockets.tls.v3.CommonTlsContext", &["key_log"]),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
        &["ocsp_staple", "signed_certificate_timestamp"],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
        &["ecdh_curves", "signature_algorithms", "compliance_policies"],
    ),
];

/// Whether a field of a message would be passed over although it means something.
pub fn is_unsupported(message: &str, field: &str) -> bool {
    FIELDS.iter().any(|(name, fields)| *name == message && fields.contains(&field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::bootstrap::schema::Schema;

    #[test]
    fn every_field_is_one_of_envoys() {
        let schema = Schema::default();
        for (name, fields) in FIELDS {
            let message = schema.message(name).unwrap_or_else(|| panic!("{name}"));
            for field in *fields {
                assert!(message.field(field).is_some(), "{name}.{field}");
            }
        }
    }
}
