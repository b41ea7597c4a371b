//! Small xDS resources for tests.

use prost::{Message, Name};
use weft_api::xds::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
            },
            core::v3::{
                Address, DataSource, SocketAddress, TransportSocket, address, data_source,
                socket_address, transport_socket,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
            },
            listener::v3::{Filter, FilterChain, Listener, filter},
            route::v3::{
                DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch,
                VirtualHost, WeightedCluster, route, route_action, route_match, weighted_cluster,
            },
        },
        extensions::{
            filters::{
                http::router::v3::Router,
                network::{
                    http_connection_manager::v3::{
                        HttpConnectionManager, HttpFilter, Rds, http_connection_manager,
                        http_filter,
                    },
                    tcp_proxy::v3::{TcpProxy, tcp_proxy},
                },
            },
            transport_sockets::tls::v3::{
                CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate,
                secret,
            },
        },
        service::discovery::v3::{DeltaDiscoveryResponse, Resource},
    },
    google::protobuf::{Any, BoolValue, UInt32Value},
};

use super::store::Kind;

pub fn any<T: Message + Name>(message: &T) -> Any {
    Any { type_url: T::type_url(), value: message.encode_to_vec() }
}

pub fn address(address: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.into(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    }
}

pub fn eds_cluster(name: &str) -> Cluster {
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig::default()),
        ..Cluster::default()
    }
}

pub fn assignment(name: &str, addresses: &[&str]) -> ClusterLoadAssignment {
    let endpoint = |text: &&str| {
        let (host, port) = text.rsplit_once(':').unwrap();
        let endpoint =
            Endpoint { address: Some(address(host, port.parse().unwrap())), ..Endpoint::default() };
        LbEndpoint {
            host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
            ..LbEndpoint::default()
        }
    };
    ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: addresses.iter().map(endpoint).collect(),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

/// One route for everything, split evenly over the clusters.
pub fn route_to(clusters: &[&str]) -> Route {
    let split = WeightedCluster {
        clusters: clusters
            .iter()
            .map(|name| weighted_cluster::ClusterWeight {
                name: (*name).into(),
                weight: Some(UInt32Value { value: 1 }),
                ..weighted_cluster::ClusterWeight::default()
            })
            .collect(),
        ..WeightedCluster::default()
    };
    Route {
        name: "default".into(),
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".into())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::WeightedClusters(split)),
            ..RouteAction::default()
        })),
        ..Route::default()
    }
}

pub fn virtual_host(name: &str, clusters: &[&str]) -> VirtualHost {
    VirtualHost {
        name: name.into(),
        domains: vec!["*".into()],
        routes: vec![route_to(clusters)],
        ..VirtualHost::default()
    }
}

pub fn route_config(name: &str, clusters: &[&str]) -> RouteConfiguration {
    RouteConfiguration {
        name: name.into(),
        virtual_hosts: vec![virtual_host("all", clusters)],
        ..RouteConfiguration::default()
    }
}

/// A virtual host that answers itself and needs nothing.
pub fn direct_host(name: &str) -> VirtualHost {
    let mut host = virtual_host(name, &[]);
    host.routes[0].action = Some(route::Action::DirectResponse(DirectResponseAction {
        status: 502,
        ..DirectResponseAction::default()
    }));
    host
}

pub fn connection_manager(
    routes: http_connection_manager::RouteSpecifier,
    mut filters: Vec<HttpFilter>,
) -> HttpConnectionManager {
    filters.push(HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..HttpFilter::default()
    });
    HttpConnectionManager {
        stat_prefix: "test".into(),
        route_specifier: Some(routes),
        http_filters: filters,
        ..HttpConnectionManager::default()
    }
}

pub fn listener_of<T: Message + Name>(name: &str, terminal: &T) -> Listener {
    Listener {
        name: name.into(),
        address: Some(address("127.0.0.1", 15006)),
        bind_to_port: Some(BoolValue { value: false }),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "terminal".into(),
                config_type: Some(filter::ConfigType::TypedConfig(any(terminal))),
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

pub fn rds_listener(name: &str, route: &str) -> Listener {
    let rds = Rds { route_config_name: route.into(), ..Rds::default() };
    let routes = http_connection_manager::RouteSpecifier::Rds(rds);
    listener_of(name, &connection_manager(routes, Vec::new()))
}

pub fn tcp_listener(name: &str, cluster: &str) -> Listener {
    let proxy = TcpProxy {
        stat_prefix: "test".into(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        ..TcpProxy::default()
    };
    listener_of(name, &proxy)
}

pub fn resource<T: Message + Name>(name: &str, version: &str, message: &T) -> Resource {
    Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(any(message)),
        ..Resource::default()
    }
}

pub fn response(kind: Kind, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).into()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

/// A secret with a certificate and its key, in PEM.
pub fn certificate_secret(name: &str, certificate: &str, key: &str) -> Secret {
    let inline = |text: &str| DataSource {
        specifier: Some(data_source::Specifier::InlineString(text.into())),
        ..DataSource::default()
    };
    Secret {
        name: name.into(),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(certificate)),
            private_key: Some(inline(key)),
            ..TlsCertificate::default()
        })),
    }
}

/// A listener of bytes that terminates TLS with a secret of the control plane.
pub fn tls_listener(name: &str, cluster: &str, secret: &str) -> Listener {
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![SdsSecretConfig {
                name: secret.into(),
                ..SdsSecretConfig::default()
            }],
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    };
    let mut listener = tcp_listener(name, cluster);
    listener.filter_chains[0].transport_socket = Some(TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
    });
    listener
}
