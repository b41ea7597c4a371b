//! Listeners and their filters.

use serde_json::{Value, json};
use weft_api::xds::{
    envoy::{
        config::{
            listener::v3::{Filter, FilterChain, FilterChainMatch, Listener, filter},
            rbac::v3::Rbac as Rules,
        },
        extensions::filters::{
            http::{local_ratelimit::v3::LocalRateLimit, rbac::v3::Rbac as HttpRbac},
            network::{
                http_connection_manager::v3::{
                    HttpConnectionManager, http_connection_manager::RouteSpecifier, http_filter,
                },
                rbac::v3::Rbac as NetworkRbac,
                tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
            },
        },
    },
    google::protobuf::Any,
};

use super::{address, cluster, duration, object, route, unpack};

pub(super) fn listener(listener: &Listener) -> Value {
    let bound = listener.bind_to_port.as_ref().is_none_or(|bind| bind.value);
    let more = listener.additional_addresses.iter().filter_map(|more| more.address.as_ref());
    let addresses = listener.address.iter().chain(more).map(|at| json!(address(at)));
    let inspectors = listener.listener_filters.iter().map(|filter| {
        let name = filter.name.rsplit('.').next().unwrap_or_default();
        match filter.filter_disabled {
            Some(_) => json!(format!("{name} (not on every port)")),
            None => json!(name),
        }
    });
    object([
        ("name", json!(listener.name)),
        ("addresses", if bound { addresses.collect() } else { Value::Null }),
        ("inspectors", inspectors.collect()),
        ("chains", listener.filter_chains.iter().map(chain).collect()),
        ("otherwise", listener.default_filter_chain.as_ref().map(chain).unwrap_or_default()),
    ])
}

fn chain(chain: &FilterChain) -> Value {
    let wanted = chain.filter_chain_match.clone().unwrap_or_default();
    object([
        ("match", matching(&wanted)),
        ("tls", chain.transport_socket.as_ref().map(cluster::transport).unwrap_or_default()),
        ("filters", chain.filters.iter().map(filter).collect()),
    ])
}

fn matching(wanted: &FilterChainMatch) -> Value {
    object([
        ("port", json!(wanted.destination_port.as_ref().map(|port| port.value))),
        ("transport", json!(wanted.transport_protocol)),
        ("alpn", json!(wanted.application_protocols)),
        ("serverNames", json!(wanted.server_names)),
    ])
}

fn filter(filter: &Filter) -> Value {
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        return json!(filter.name);
    };
    if let Some(manager) = unpack::<HttpConnectionManager>(config) {
        return object([("http", connection_manager(&manager))]);
    }
    if let Some(proxy) = unpack::<TcpProxy>(config) {
        let to = match &proxy.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => json!(name),
            Some(ClusterSpecifier::WeightedClusters(split)) => split
                .clusters
                .iter()
                .map(|part| json!({ "cluster": part.name, "weight": part.weight }))
                .collect(),
            None => Value::Null,
        };
        return object([("tcp", to), ("idleTimeout", duration(proxy.idle_timeout.as_ref()))]);
    }
    if let Some(rbac) = unpack::<NetworkRbac>(config) {
        return object([("rbac", rules(rbac.rules.as_ref(), rbac.shadow_rules.as_ref()))]);
    }
    json!(filter.name)
}

fn connection_manager(manager: &HttpConnectionManager) -> Value {
    let routes = match &manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => json!(rds.route_config_name),
        Some(RouteSpecifier::RouteConfig(config)) => route::config(config),
        _ => Value::Null,
    };
    let filters = manager.http_filters.iter().map(|filter| match &filter.config_type {
        Some(http_filter::ConfigType::TypedConfig(config)) => {
            let name = filter.name.rsplit('.').next().unwrap_or_default();
            match http_filter_config(config) {
                Value::Null => json!(name),
                config => object([(name, config)]),
            }
        }
        _ => json!(filter.name),
    });
    let upgrades = manager.upgrade_configs.iter().map(|upgrade| json!(upgrade.upgrade_type));
    object([
        ("routes", routes),
        ("filters", filters.collect()),
        ("upgrades", upgrades.collect()),
        ("accessLog", json!(!manager.access_log.is_empty())),
    ])
}

/// The settings of a filter that decides about requests; null for the others.
pub(super) fn http_filter_config(config: &Any) -> Value {
    if let Some(rbac) = unpack::<HttpRbac>(config) {
        return rules(rbac.rules.as_ref(), rbac.shadow_rules.as_ref());
    }
    if let Some(limit) = unpack::<LocalRateLimit>(config) {
        let Some(bucket) = limit.token_bucket else { return Value::Null };
        return object([
            ("tokens", json!(bucket.max_tokens)),
            ("perFill", json!(bucket.tokens_per_fill.map(|tokens| tokens.value))),
            ("interval", duration(bucket.fill_interval.as_ref())),
        ]);
    }
    Value::Null
}

fn rules(rules: Option<&Rules>, shadow: Option<&Rules>) -> Value {
    let show = |rules: &Rules| {
        let mut names: Vec<_> = rules.policies.keys().collect();
        names.sort();
        json!({ "action": rules.action().as_str_name(), "policies": names })
    };
    object([
        ("rules", rules.map(show).unwrap_or_default()),
        ("dryRun", shadow.map(show).unwrap_or_default()),
    ])
}
