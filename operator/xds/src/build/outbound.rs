//! Outbound listeners: one destination, as requests, as bytes or as either (`istio-behaviours`, items 53, 55 and 56).

use std::{net::IpAddr, time::Duration};

use weft_api::{
    names::{ClusterName, OutboundListenerName, ServiceRouteName},
    xds::envoy::{
        config::{
            core::v3::TrafficDirection,
            listener::v3::{Filter, FilterChain, FilterChainMatch, Listener},
        },
        extensions::filters::network::{
            http_connection_manager::v3::{Rds, http_connection_manager::RouteSpecifier},
            tcp_proxy::v3::{
                TcpProxy,
                tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight},
            },
        },
    },
};
use weft_core::{
    protocol::Protocol,
    selector::selects,
    service::{Service, ServicePort},
    virtual_service::MESH_GATEWAY,
};
use weft_crds::networking::{Destination, RouteDestination};

use super::{
    access_log,
    http::{self, Side},
    listener,
    message::{address, ads, boolean, duration},
    scope::Scope,
};
use crate::wire;

const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

/// What plain bytes look like to the HTTP inspector when they are HTTP.
pub(crate) const HTTP_INSPECTED: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// Routes by name, from the stream that the listener came by.
pub(crate) fn routes(name: String) -> RouteSpecifier {
    RouteSpecifier::Rds(Rds { config_source: Some(ads()), route_config_name: name })
}

/// How long a connection's first bytes are waited for. Without a setting Envoy's 15 seconds count; then the connection is
/// taken as bytes, so that servers that speak first work, late.
pub(crate) fn inspection_timeout(
    timeout: Duration,
) -> Option<weft_api::xds::google::protobuf::Duration> {
    (!timeout.is_zero()).then(|| duration(timeout))
}

/// The listener for a destination; `None` when the mesh knows no such.
pub(crate) fn listener(scope: &Scope<'_>, name: &OutboundListenerName) -> Option<Listener> {
    let host = name.host.to_ascii_lowercase();
    let service = scope.service(host.strip_suffix('.').unwrap_or(&host))?;
    let port = service.port(name.port).filter(|port| port.protocol.is_proxied())?;
    let routes = ServiceRouteName { host: service.hostname().into(), port: port.number };
    Some(to_service(scope, name, (service, port), &routes.to_string()))
}

/// A listener that binds nothing.
pub(crate) fn unbound(name: &OutboundListenerName) -> Listener {
    // The address only has to be one.
    let ip = name.host.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    Listener {
        name: name.to_string(),
        address: Some(address(ip, name.port)),
        bind_to_port: Some(boolean(false)),
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    }
}

/// The listener for a service's port, whose requests have these routes.
pub(crate) fn to_service(
    scope: &Scope<'_>,
    name: &OutboundListenerName,
    (service, port): (&Service, &ServicePort),
    routes: &str,
) -> Listener {
    let bytes =
        || FilterChain { filters: vec![tcp(scope, service, port)], ..FilterChain::default() };
    let requests = || FilterChain {
        filters: vec![http_filter(scope, port.number, routes)],
        ..FilterChain::default()
    };
    let mut listener = unbound(name);
    match port.protocol {
        protocol if protocol.is_http() => listener.filter_chains = vec![requests()],
        Protocol::Unsupported => {
            listener.filter_chains = vec![plain_http(requests())];
            listener.default_filter_chain = Some(bytes());
            listener.listener_filters =
                vec![listener::tls_inspector(None), listener::http_inspector(None)];
        }
        protocol => {
            let by_name = if matches!(protocol, Protocol::Tls | Protocol::Https) {
                by_server_name(scope, service, port)
            } else {
                Vec::new()
            };
            if by_name.is_empty() {
                listener.filter_chains = vec![bytes()];
            } else {
                listener.filter_chains = by_name;
                listener.default_filter_chain = Some(bytes());
                listener.listener_filters = vec![listener::tls_inspector(None)];
            }
        }
    }
    with_patience(scope, listener)
}

/// A chain for what the HTTP inspector recognises.
pub(crate) fn plain_http(chain: FilterChain) -> FilterChain {
    FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            transport_protocol: "raw_buffer".into(),
            application_protocols: HTTP_INSPECTED.map(str::to_owned).to_vec(),
            ..FilterChainMatch::default()
        }),
        ..chain
    }
}

/// Says how long the first bytes are waited for, where they are looked at.
pub(crate) fn with_patience(scope: &Scope<'_>, mut listener: Listener) -> Listener {
    if !listener.listener_filters.is_empty() {
        listener.listener_filters_timeout =
            inspection_timeout(scope.mesh().protocol_detection_timeout);
        listener.continue_on_listener_filters_timeout = true;
    }
    listener
}

/// The filter for requests to a port, with the route configuration of this name.
pub(crate) fn http_filter(scope: &Scope<'_>, port: u16, name: &str) -> Filter {
    http::manager(
        scope,
        Side::Outbound,
        format!("outbound_0.0.0.0_{port}"),
        routes(name.to_owned()),
        Vec::new(),
        &["websocket"],
    )
}

/// The filter that forwards bytes to a cluster.
pub(crate) fn tcp_proxy(
    scope: &Scope<'_>,
    stat_prefix: String,
    to: ClusterSpecifier,
    idle_timeout: Option<weft_crds::Duration>,
) -> Filter {
    let proxy = TcpProxy {
        stat_prefix,
        idle_timeout: idle_timeout.map(|timeout| duration(timeout.0)),
        access_log: access_log::build(scope.mesh()),
        cluster_specifier: Some(to),
        ..TcpProxy::default()
    };
    http::network_filter(TCP_PROXY, wire::pack(&proxy))
}

/// The cluster of a destination: without a port, the service's only one, else the one being listened on.
fn cluster(scope: &Scope<'_>, port: u16, to: &Destination) -> String {
    let service = scope.service(&to.host);
    let only = service.and_then(|service| match service.ports.as_slice() {
        [only] => Some(only.number),
        _ => None,
    });
    let named = to.port.as_ref().map(|port| port.number).filter(|port| *port > 0);
    let host = service.map_or(to.host.as_str(), |service| service.hostname());
    ClusterName::outbound(named.or(only).unwrap_or(port), &to.subset, host).to_string()
}

/// Where a rule's bytes go; `None` when it names no destination with a share.
pub(crate) fn split(
    scope: &Scope<'_>,
    port: u16,
    to: &[RouteDestination],
) -> Option<ClusterSpecifier> {
    match to {
        [] => None,
        [only] => Some(ClusterSpecifier::Cluster(cluster(scope, port, &only.destination))),
        several => {
            let shares = several.iter().filter(|share| share.weight > 0);
            let clusters: Vec<_> = shares
                .map(|share| ClusterWeight {
                    name: cluster(scope, port, &share.destination),
                    weight: share.weight,
                    ..ClusterWeight::default()
                })
                .collect();
            (!clusters.is_empty())
                .then_some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }))
        }
    }
}

/// The bytes of a service's port: as the first `tcp` route for this client says, else to the service itself.
pub(crate) fn tcp(scope: &Scope<'_>, service: &Service, port: &ServicePort) -> Filter {
    let own = ClusterName::outbound(port.number, "", service.hostname()).to_string();
    let rules = scope.virtual_service(service.hostname());
    let routed = rules.iter().flat_map(|rules| &rules.spec.tcp).find_map(|rule| {
        let applies = rule.matches.is_empty()
            || rule.matches.iter().any(|wanted| {
                wanted.destination_subnets.is_empty()
                    && wanted.port.is_none_or(|number| number == port.number)
                    && is_for_client(
                        scope,
                        &wanted.gateways,
                        &wanted.source_namespace,
                        &wanted.source_labels,
                    )
            });
        applies.then(|| split(scope, port.number, &rule.route)).flatten()
    });
    let to = routed.unwrap_or_else(|| ClusterSpecifier::Cluster(own.clone()));
    tcp_proxy(scope, own, to, idle_timeout(scope, service, port.number))
}

/// How long both sides may be silent, when the service's rule says; else an hour.
pub(crate) fn idle_timeout(
    scope: &Scope<'_>,
    service: &Service,
    port: u16,
) -> Option<weft_crds::Duration> {
    let policy = scope.destination_rule(service)?.traffic_policy(port, "")?;
    policy.connection_pool?.tcp?.idle_timeout
}

/// For bytes every condition counts, gateways or not (`istio-behaviours`, item 13).
fn is_for_client(
    scope: &Scope<'_>,
    gateways: &[String],
    namespace: &str,
    labels: &std::collections::BTreeMap<String, String>,
) -> bool {
    (gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH_GATEWAY))
        && (namespace.is_empty() || namespace == scope.namespace())
        && (labels.is_empty() || selects(labels, scope.labels()))
}

/// The chains of a service's `tls` routes, by SNI; a name that two routes have belongs to the first.
pub(crate) fn by_server_name(
    scope: &Scope<'_>,
    service: &Service,
    port: &ServicePort,
) -> Vec<FilterChain> {
    let Some(rules) = scope.virtual_service(service.hostname()) else { return Vec::new() };
    let mut taken = std::collections::HashSet::new();
    let mut chains = Vec::new();
    for rule in &rules.spec.tls {
        let mut names = Vec::new();
        for wanted in &rule.matches {
            let applies = wanted.destination_subnets.is_empty()
                && wanted.port.is_none_or(|number| number == port.number)
                && is_for_client(
                    scope,
                    &wanted.gateways,
                    &wanted.source_namespace,
                    &wanted.source_labels,
                );
            if applies {
                let fresh = wanted.sni_hosts.iter().map(|name| name.to_ascii_lowercase());
                names.extend(fresh.filter(|name| name != "*" && taken.insert(name.clone())));
            }
        }
        let Some(to) = split(scope, port.number, &rule.route) else { continue };
        if names.is_empty() {
            continue;
        }
        let own = ClusterName::outbound(port.number, "", service.hostname()).to_string();
        chains.push(FilterChain {
            filter_chain_match: Some(FilterChainMatch {
                server_names: names,
                ..FilterChainMatch::default()
            }),
            filters: vec![tcp_proxy(scope, own, to, idle_timeout(scope, service, port.number))],
            ..FilterChain::default()
        });
    }
    chains
}
