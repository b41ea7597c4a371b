//! Listeners by name.

use weft_api::xds::envoy::extensions::filters::listener::{
    http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
    tls_inspector::v3::TlsInspector,
};
use weft_api::{
    names::{HTTP_PROXY, OutboundListenerName, VIRTUAL_INBOUND, VIRTUAL_OUTBOUND},
    xds::envoy::config::{
        core::v3::TrafficDirection,
        listener::v3::{
            FilterChain, Listener, ListenerFilter, ListenerFilterChainMatchPredicate,
            listener_filter,
        },
    },
};

use super::{
    captured, gateway,
    http::{self, Side},
    inbound,
    message::address,
    outbound,
    scope::Scope,
};
use crate::wire;

/// Every listener that the node may see.
pub(crate) fn names(scope: &Scope<'_>) -> Vec<String> {
    if scope.is_gateway() {
        return gateway::names(scope);
    }
    let mut names = vec![VIRTUAL_INBOUND.to_owned()];
    if scope.is_captured() {
        names.push(VIRTUAL_OUTBOUND.into());
    }
    if scope.mesh().proxy_http_port > 0 {
        names.push(HTTP_PROXY.into());
    }
    if scope.is_captured() {
        for service in scope.visible_services() {
            for address in &service.addresses {
                names.extend(service.ports.iter().filter(|port| port.protocol.is_proxied()).map(
                    |port| {
                        let host = address.to_string();
                        OutboundListenerName { host, port: port.number }.to_string()
                    },
                ));
            }
        }
    }
    names
}

pub(crate) fn build(scope: &Scope<'_>, name: &str) -> Option<Listener> {
    if scope.is_gateway() {
        return gateway::listener(scope, name);
    }
    match name {
        VIRTUAL_INBOUND => Some(inbound::listener(scope)),
        VIRTUAL_OUTBOUND => captured::listener(scope),
        HTTP_PROXY => http_proxy(scope),
        name => {
            let name = super::outbound_name(name)?;
            match name.host.parse() {
                Ok(address) if scope.is_captured() => captured::to_address(scope, &name, address),
                _ => outbound::listener(scope, &name),
            }
        }
    }
}

/// The explicit proxy port of a workload.
fn http_proxy(scope: &Scope<'_>) -> Option<Listener> {
    let port = scope.mesh().proxy_http_port;
    if port == 0 {
        return None;
    }
    let manager = http::manager(
        scope,
        Side::Outbound,
        format!("outbound_{HTTP_PROXY}"),
        outbound::routes(HTTP_PROXY.into()),
        Vec::new(),
        &["websocket", "CONNECT"],
    );
    Some(Listener {
        name: HTTP_PROXY.into(),
        address: Some(address(scope.app_address(), port)),
        filter_chains: vec![FilterChain { filters: vec![manager], ..FilterChain::default() }],
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    })
}

fn listener_filter(name: &str, config: weft_api::xds::google::protobuf::Any) -> ListenerFilter {
    ListenerFilter {
        name: name.into(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        filter_disabled: None,
    }
}

/// Looks for a TLS ClientHello, except on some connections.
pub(crate) fn tls_inspector(except: Option<ListenerFilterChainMatchPredicate>) -> ListenerFilter {
    let filter = listener_filter(
        "envoy.filters.listener.tls_inspector",
        wire::pack(&TlsInspector::default()),
    );
    ListenerFilter { filter_disabled: except, ..filter }
}

/// Looks for HTTP, except on some connections.
pub(crate) fn http_inspector(except: Option<ListenerFilterChainMatchPredicate>) -> ListenerFilter {
    let filter =
        listener_filter("envoy.filters.listener.http_inspector", wire::pack(&HttpInspector {}));
    ListenerFilter { filter_disabled: except, ..filter }
}

/// Asks the kernel where a captured connection was meant to go.
pub(crate) fn original_destination() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", wire::pack(&OriginalDst {}))
}
