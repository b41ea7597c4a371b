//! What a captured workload's connections meet on their way out: listeners by address, routes by port and authority
//! (`istio-behaviours`, items 53 to 56, 59 and 60).
//!
//! A connection to an address that the mesh knows goes by that service's port. Where requests are spoken the authority
//! decides, among all services that have the port. What the mesh does not know goes where `outboundTrafficPolicy` says.

use std::{collections::HashSet, net::IpAddr};

use weft_api::{
    names::{
        BLACK_HOLE_CLUSTER, OutboundListenerName, PASSTHROUGH_CLUSTER, ServiceRouteName,
        VIRTUAL_OUTBOUND,
    },
    xds::{
        envoy::config::{
            core::v3::TrafficDirection,
            listener::v3::{Filter, FilterChain, FilterChainMatch, Listener},
            route::v3::{
                Route, RouteAction, RouteConfiguration, Vhds, VirtualHost, route::Action,
                route_action::ClusterSpecifier,
            },
        },
        envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier as TcpCluster,
        google::protobuf::Duration,
    },
};
use weft_core::{
    endpoint::EndpointAddress,
    host,
    mesh::OutboundTrafficPolicy,
    protocol::Protocol,
    service::{Service, ServicePort},
};

use super::{
    authority::{self, Authority},
    listener,
    message::{address, ads, boolean, uint32},
    outbound, route,
    scope::Scope,
};

/// Where captured outbound connections arrive, and in no mode anybody calls.
const OUTBOUND_PORT: u16 = 15001;
/// The virtual host and route of requests that go where they wanted to anyway.
const ALLOW_ANY: &str = "allow_any";

/// The listener that captured connections come in by. Its own chains are for destinations that the mesh does not know.
pub(crate) fn listener(scope: &Scope<'_>) -> Option<Listener> {
    if !scope.is_captured() {
        return None;
    }
    let black_hole = TcpCluster::Cluster(BLACK_HOLE_CLUSTER.into());
    let own_port = FilterChainMatch {
        destination_port: Some(uint32(OUTBOUND_PORT.into())),
        ..FilterChainMatch::default()
    };
    Some(Listener {
        name: VIRTUAL_OUTBOUND.into(),
        address: Some(address([0, 0, 0, 0].into(), OUTBOUND_PORT)),
        traffic_direction: TrafficDirection::Outbound.into(),
        use_original_dst: Some(boolean(true)),
        filter_chains: vec![FilterChain {
            name: "virtualOutbound-blackhole".into(),
            filter_chain_match: Some(own_port),
            filters: vec![outbound::tcp_proxy(scope, BLACK_HOLE_CLUSTER.into(), black_hole, None)],
            ..FilterChain::default()
        }],
        default_filter_chain: Some(FilterChain {
            name: "virtualOutbound-catchall-tcp".into(),
            filters: vec![unknown(scope)],
            ..FilterChain::default()
        }),
        ..Listener::default()
    })
}

/// Bytes to where the mesh knows nothing.
fn unknown(scope: &Scope<'_>) -> Filter {
    let cluster = match scope.mesh().outbound_traffic_policy {
        OutboundTrafficPolicy::AllowAny => PASSTHROUGH_CLUSTER,
        OutboundTrafficPolicy::RegistryOnly => BLACK_HOLE_CLUSTER,
    };
    outbound::tcp_proxy(scope, cluster.into(), TcpCluster::Cluster(cluster.into()), None)
}

/// The listener for connections to an address. `None` where the mesh has nothing to say of address and port.
pub(crate) fn to_address(
    scope: &Scope<'_>,
    name: &OutboundListenerName,
    address: IpAddr,
) -> Option<Listener> {
    if let Some(service) = scope.service(&address.to_string())
        && let Some(port) = service.port(name.port).filter(|port| port.protocol.is_proxied())
    {
        return Some(to_service(scope, name, service, port));
    }
    let services = scope.visible_services();
    if let Some((service, port)) = headless(scope, &services, name.port, address) {
        return Some(to_service(scope, name, service, port));
    }
    to_port(scope, name, &services)
}

/// Where only requests are spoken, the authority may mean another service than the address does.
fn to_service(
    scope: &Scope<'_>,
    name: &OutboundListenerName,
    service: &Service,
    port: &ServicePort,
) -> Listener {
    let routes = if port.protocol.is_http() {
        port.number.to_string()
    } else {
        ServiceRouteName { host: service.hostname().into(), port: port.number }.to_string()
    };
    outbound::to_service(scope, name, (service, port), &routes)
}

/// The headless service that has an endpoint at this address, for ports where the address is all there is to go by.
fn headless<'a>(
    scope: &Scope<'_>,
    services: &[&'a std::sync::Arc<Service>],
    number: u16,
    address: IpAddr,
) -> Option<(&'a Service, &'a ServicePort)> {
    services.iter().filter(|service| service.headless).find_map(|service| {
        let port = service.port(number).filter(|port| port.protocol.is_proxied())?;
        if port.protocol.is_http() {
            return None;
        }
        let endpoints = scope.endpoints(service, number);
        let found = endpoints.at(&EndpointAddress::Ip(address)).next().is_some();
        found.then_some((&***service, port))
    })
}

/// The listener for a port at any address: services of that port which are not known by an address are told from what
/// the client sends.
fn to_port(
    scope: &Scope<'_>,
    name: &OutboundListenerName,
    services: &[&std::sync::Arc<Service>],
) -> Option<Listener> {
    let mut requests = false;
    let mut bytes = None;
    let mut chains = Vec::new();
    let mut taken = HashSet::new();
    for service in services {
        let Some(port) = service.port(name.port).filter(|port| port.protocol.is_proxied()) else {
            continue;
        };
        // An ExternalName means its target, and nobody sends its own name there but in requests.
        let anywhere = service.addresses.is_empty()
            && service.networks.is_empty()
            && !service.headless
            && service.external_name.is_none();
        match port.protocol {
            protocol if protocol.is_http() => requests = true,
            Protocol::Unsupported if anywhere => requests = true,
            Protocol::Tls | Protocol::Https if anywhere => {
                for mut chain in by_server_name(scope, service, port) {
                    if let Some(matched) = &mut chain.filter_chain_match {
                        matched.server_names.retain(|name| taken.insert(name.clone()));
                        if !matched.server_names.is_empty() {
                            chains.push(chain);
                        }
                    }
                }
            }
            Protocol::Unsupported | Protocol::Tls | Protocol::Https => {}
            _ if anywhere => bytes = bytes.or_else(|| Some(outbound::tcp(scope, service, port))),
            _ => {}
        }
    }
    if !requests && bytes.is_none() && chains.is_empty() {
        return None;
    }
    let mut listener = outbound::unbound(name);
    if requests || !chains.is_empty() {
        listener.listener_filters.push(listener::tls_inspector(None));
    }
    if requests {
        listener.listener_filters.push(listener::http_inspector(None));
        let filter = outbound::http_filter(scope, name.port, &name.port.to_string());
        let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
        chains.push(outbound::plain_http(chain));
    }
    listener.filter_chains = chains;
    let otherwise = vec![bytes.unwrap_or_else(|| unknown(scope))];
    listener.default_filter_chain =
        Some(FilterChain { filters: otherwise, ..FilterChain::default() });
    Some(outbound::with_patience(scope, listener))
}

/// The chains of a service whose clients name it in TLS: those of its routes, else one to itself.
fn by_server_name(scope: &Scope<'_>, service: &Service, port: &ServicePort) -> Vec<FilterChain> {
    let routed = outbound::by_server_name(scope, service, port);
    if !routed.is_empty() || service.hostname() == "*" {
        return routed;
    }
    vec![FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            server_names: vec![service.hostname().to_owned()],
            ..FilterChainMatch::default()
        }),
        filters: vec![outbound::tcp(scope, service, port)],
        ..FilterChain::default()
    }]
}

/// The routes of captured requests to a port. What no virtual host names has the one for every authority, also where
/// virtual hosts are asked for one by one.
pub(crate) fn routes(scope: &Scope<'_>, port: u16) -> Option<RouteConfiguration> {
    if !scope.is_captured() {
        return None;
    }
    let mut config = RouteConfiguration {
        name: port.to_string(),
        validate_clusters: Some(boolean(false)),
        ..RouteConfiguration::default()
    };
    if scope.is_on_demand() {
        config.vhds = Some(Vhds { config_source: Some(ads()) });
    } else {
        config.virtual_hosts = every_host(scope, port);
    }
    config.virtual_hosts.push(match scope.mesh().outbound_traffic_policy {
        OutboundTrafficPolicy::AllowAny => allow_any(),
        OutboundTrafficPolicy::RegistryOnly => route::block_all("*"),
    });
    Some(config)
}

fn every_host(scope: &Scope<'_>, port: u16) -> Vec<VirtualHost> {
    let mut hosts = Vec::new();
    let mut taken = HashSet::new();
    let mut add = |mut host: VirtualHost| {
        // Envoy refuses a domain that two have; the first keeps it.
        host.domains.retain(|domain| taken.insert(domain.clone()));
        if !host.domains.is_empty() {
            hosts.push(host);
        }
    };
    for service in scope.visible_services() {
        if service.port(port).is_some_and(route::carries_requests) {
            add(route::of_service_port(scope, service, port));
        }
    }
    if port == route::HOST_WITHOUT_SERVICE_PORT {
        for name in scope.routed_hosts() {
            if !host::is_wildcard(&name) && scope.service_named(&name).is_none() {
                let domains = authority::domains_of_name(&name, port);
                if let Some(host) = route::of_host_without_service(scope, &name, domains) {
                    add(host);
                }
            }
        }
    }
    hosts
}

fn allow_any() -> VirtualHost {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(PASSTHROUGH_CLUSTER.into())),
        timeout: Some(Duration::default()),
        ..RouteAction::default()
    };
    VirtualHost {
        name: ALLOW_ANY.into(),
        domains: vec!["*".into()],
        routes: vec![Route {
            name: ALLOW_ANY.into(),
            r#match: Some(route::any_path()),
            action: Some(Action::Route(action)),
            ..Route::default()
        }],
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

/// The virtual host of a captured request with this authority to a port; `None` when the mesh knows no such. The port
/// that the client may have written does not count: the one that it connected to does.
pub(crate) fn of_authority(scope: &Scope<'_>, port: u16, asked: &str) -> Option<VirtualHost> {
    if !scope.is_captured() {
        return None;
    }
    let Authority { host, .. } = Authority::parse(asked)?;
    let mut found = match scope.service(&host) {
        Some(service) => {
            service.port(port).filter(|port| route::carries_requests(port))?;
            route::of_service_port(scope, service, port)
        }
        None if port == route::HOST_WITHOUT_SERVICE_PORT => {
            let name = host::resolve(&host, scope.namespace(), &scope.mesh().domain);
            route::of_host_without_service(scope, &name, Vec::new())?
        }
        None => return None,
    };
    found.domains.push(asked.to_ascii_lowercase());
    found.domains = authority::unique(found.domains);
    Some(found)
}
