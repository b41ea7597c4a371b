//! Listeners.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{http, pruned, rbac, socket_address, timeout, tls};
use crate::config::listener::{
    FilterChain, FilterChainMatch, Listener, ProxyProtocol, TcpProxy, Terminal, TransportMatch,
};

const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network.";

/// A listener.
pub fn listener(listener: &Listener) -> Value {
    let mut binds = listener.binds.iter().map(|address| socket_address(*address));
    let address = binds.next();
    let additional: Vec<_> = binds.map(|address| json!({"address": address})).collect();
    let mut inspectors = Vec::new();
    if let Some(settings) = listener.proxy_protocol {
        inspectors.push(proxy_protocol(settings));
    }
    if listener.inspect_tls {
        inspectors.push(json!({"name": "envoy.filters.listener.tls_inspector"}));
    }
    if listener.inspect_http {
        inspectors.push(json!({"name": "envoy.filters.listener.http_inspector"}));
    }
    let chains: Vec<_> = listener.chains.iter().map(|chain| filter_chain(chain)).collect();
    let mut value = pruned(json!({
        "name": &*listener.name,
        "address": address,
        "additional_addresses": additional,
        "filter_chains": chains,
        "default_filter_chain": listener.default_chain.as_deref().map(filter_chain),
        "listener_filters": inspectors,
        "listener_filters_timeout": timeout(listener.inspect_timeout),
        "continue_on_listener_filters_timeout": listener.continue_on_timeout,
        "traffic_direction": http::direction(listener.direction),
    }));
    if listener.binds.is_empty() {
        value["bind_to_port"] = json!(false);
    }
    value
}

fn proxy_protocol(settings: ProxyProtocol) -> Value {
    let disallowed: Vec<_> = [(settings.v1, "V1"), (settings.v2, "V2")]
        .iter()
        .filter_map(|(taken, version)| (!taken).then_some(*version))
        .collect();
    json!({
        "name": "envoy.filters.listener.proxy_protocol",
        "typed_config": pruned(json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
            "allow_requests_without_proxy_protocol": settings.optional,
            "disallowed_versions": disallowed,
        })),
    })
}

fn filter_chain(chain: &FilterChain) -> Value {
    let mut filters: Vec<Value> = chain
        .rbac
        .iter()
        .map(|rules| typed("envoy.filters.network.rbac", "rbac.v3.RBAC", rbac::rbac(rules)))
        .collect();
    filters.push(match &chain.terminal {
        Terminal::Http(manager) => json!({
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": http::connection_manager(manager),
        }),
        Terminal::Tcp(proxy) => {
            typed("envoy.filters.network.tcp_proxy", "tcp_proxy.v3.TcpProxy", tcp_proxy(proxy))
        }
    });
    pruned(json!({
        "name": chain.name,
        "filter_chain_match": chain_match(&chain.matches),
        "filters": filters,
        "transport_socket": chain.tls.as_deref().map(tls::downstream),
    }))
}

fn typed(name: &str, message: &str, fields: Value) -> Value {
    let mut config = Map::new();
    config.insert("@type".to_owned(), json!(format!("{NETWORK}{message}")));
    if let Value::Object(fields) = fields {
        config.extend(fields);
    }
    json!({"name": name, "typed_config": config})
}

fn chain_match(matches: &FilterChainMatch) -> Value {
    let ranges = |ranges: &[IpNet]| -> Vec<Value> {
        ranges
            .iter()
            .map(|range| {
                json!({"address_prefix": range.addr().to_string(), "prefix_len": range.prefix_len()})
            })
            .collect()
    };
    let protocols: Vec<_> =
        matches.application_protocols.iter().map(|name| String::from_utf8_lossy(name)).collect();
    let transport = matches.transport.map(|transport| match transport {
        TransportMatch::Tls => "tls",
        TransportMatch::Raw => "raw_buffer",
    });
    pruned(json!({
        "destination_port": matches.destination_port,
        "prefix_ranges": ranges(&matches.destination_ranges),
        "source_prefix_ranges": ranges(&matches.source_ranges),
        "server_names": matches.server_names,
        "transport_protocol": transport,
        "application_protocols": protocols,
    }))
}

fn tcp_proxy(proxy: &TcpProxy) -> Value {
    let mut value = pruned(json!({
        "stat_prefix": proxy.stat_prefix,
        "idle_timeout": timeout(proxy.idle_timeout),
        "max_connect_attempts": proxy.max_connect_attempts,
    }));
    match proxy.clusters.as_slice() {
        [(name, _)] => value["cluster"] = json!(&**name),
        clusters => {
            let clusters: Vec<_> = clusters
                .iter()
                .map(|(name, weight)| json!({"name": &**name, "weight": weight}))
                .collect();
            value["weighted_clusters"] = json!({"clusters": clusters});
        }
    }
    value
}
