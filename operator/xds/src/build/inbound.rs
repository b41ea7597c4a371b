//! `virtualInbound`: every connection to a workload, by port and by what the client speaks (`istio-behaviours`, items 57, 58).

use std::sync::Arc;

use weft_api::{
    names::{BLACK_HOLE_CLUSTER, ClusterName, INBOUND_PASSTHROUGH_CLUSTER, VIRTUAL_INBOUND},
    xds::{
        envoy::{
            config::{
                core::v3::TrafficDirection,
                listener::v3::{
                    AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener,
                    ListenerFilterChainMatchPredicate,
                    listener_filter_chain_match_predicate::{MatchSet, Rule},
                },
                route::v3::{
                    RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost,
                    route::Action,
                    route_action::{ClusterSpecifier, MaxStreamDuration},
                },
            },
            extensions::filters::http::local_ratelimit::v3::LocalRateLimit,
            extensions::filters::network::{
                http_connection_manager::v3::{
                    HttpFilter, http_connection_manager::RouteSpecifier,
                },
                tcp_proxy::v3::tcp_proxy::ClusterSpecifier as TcpCluster,
            },
            r#type::v3::Int32Range,
        },
        google::protobuf::Duration,
    },
};
use weft_core::{protocol::Protocol, resource::Resource, snapshot::InboundPort};
use weft_crds::{networking::EnvoyFilterSpec, security::MutualTlsMode};

use super::{
    envoy_filter,
    http::{self, Side},
    listener,
    message::{address, boolean, uint32},
    outbound::{self, HTTP_INSPECTED},
    rbac,
    route::any_path,
    scope::Scope,
    tls,
};
use crate::wire;

/// Where captured inbound connections arrive, and in no mode anybody calls.
const INBOUND_PORT: u16 = 15006;

/// What a chain takes out of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Http,
    Tcp,
}

/// What a connection must look like for a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// Mutual TLS, with one of these protocols offered; any, when there are none.
    Mutual(&'static [&'static str]),
    /// The application's own TLS.
    Foreign,
    /// No TLS, and the HTTP inspector recognised HTTP.
    PlainHttp,
    /// No TLS.
    Plain,
    /// Whatever it looks like.
    Any,
}

/// The chains of a port: what each takes, and as what.
fn chains(mode: MutualTlsMode, protocol: Protocol) -> &'static [(Transport, Content)] {
    use Content::{Http, Tcp};
    use Transport::{Any, Foreign, Mutual, Plain, PlainHttp};
    const MESH: Transport = Mutual(&tls::MESH_ALPN);
    const MESH_HTTP: Transport = Mutual(&tls::MESH_HTTP_ALPN);
    const MESH_TCP: Transport = Mutual(&tls::MESH_TCP_ALPN);
    let sniffed = protocol == Protocol::Unsupported;
    match mode {
        MutualTlsMode::Strict if sniffed => &[(MESH_HTTP, Http), (Mutual(&[]), Tcp)],
        MutualTlsMode::Strict if protocol.is_http() => &[(Mutual(&[]), Http)],
        MutualTlsMode::Strict => &[(Mutual(&[]), Tcp)],
        // Envoy does not fall back from a transport that matches to chains without one.
        MutualTlsMode::Disable if sniffed => &[(PlainHttp, Http), (Plain, Tcp), (Foreign, Tcp)],
        MutualTlsMode::Disable if protocol.is_http() => &[(Any, Http)],
        MutualTlsMode::Disable => &[(Any, Tcp)],
        MutualTlsMode::Permissive | MutualTlsMode::Unset if sniffed => {
            &[(MESH_HTTP, Http), (MESH_TCP, Tcp), (Foreign, Tcp), (PlainHttp, Http), (Plain, Tcp)]
        }
        MutualTlsMode::Permissive | MutualTlsMode::Unset if protocol.is_http() => {
            &[(MESH, Http), (Plain, Http)]
        }
        MutualTlsMode::Permissive | MutualTlsMode::Unset => {
            &[(MESH, Tcp), (Foreign, Tcp), (Plain, Tcp)]
        }
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

impl Transport {
    fn filter_chain_match(self, port: Option<u16>) -> FilterChainMatch {
        let (transport, applications): (_, &[&str]) = match self {
            Self::Mutual(alpn) => ("tls", alpn),
            Self::Foreign => ("tls", &[]),
            Self::PlainHttp => ("raw_buffer", &HTTP_INSPECTED),
            Self::Plain => ("raw_buffer", &[]),
            Self::Any => ("", &[]),
        };
        FilterChainMatch {
            destination_port: port.map(|port| uint32(port.into())),
            transport_protocol: transport.into(),
            application_protocols: strings(applications),
            ..FilterChainMatch::default()
        }
    }

    fn needs_tls_inspector(self) -> bool {
        self != Self::Any && self != Self::PlainHttp
    }
}

/// Everything that the chains of one node share.
struct Builder<'a, 's> {
    scope: &'a Scope<'s>,
    http_rbac: Vec<HttpFilter>,
    tcp_rbac: Vec<Filter>,
    filters: Vec<Arc<Resource<EnvoyFilterSpec>>>,
}

impl Builder<'_, '_> {
    fn chain(
        &self,
        name: String,
        transport: Transport,
        port: Option<u16>,
        (content, filter): (Content, Filter),
    ) -> FilterChain {
        let alpn: &[&str] = match content {
            Content::Http => &["h2", "http/1.1"],
            Content::Tcp => self.scope.metadata_exchange().alpn(),
        };
        let mut filters = Vec::new();
        if content == Content::Tcp {
            filters.extend(self.tcp_rbac.iter().cloned());
        }
        filters.push(filter);
        FilterChain {
            name,
            filter_chain_match: Some(transport.filter_chain_match(port)),
            transport_socket: matches!(transport, Transport::Mutual(_))
                .then(|| tls::downstream(self.scope.mesh(), alpn)),
            filters,
            ..FilterChain::default()
        }
    }

    /// The chains of a port that a service names.
    fn of_port(&self, port: &InboundPort, mode: MutualTlsMode) -> Vec<FilterChain> {
        let listed = chains(mode, port.port.protocol);
        let build = |(transport, content): &(Transport, Content)| {
            let filter = match content {
                Content::Http => self.http(port),
                Content::Tcp => {
                    let idle = outbound::idle_timeout(self.scope, &port.service, port.port.number);
                    self.tcp(ClusterName::inbound(port.target_port).to_string(), idle)
                }
            };
            let name = format!("0.0.0.0_{}", port.target_port);
            self.chain(name, *transport, Some(port.target_port), (*content, filter))
        };
        listed.iter().map(build).collect()
    }

    /// The chains of ports that no service names: bytes, to where they were going. `None` stands for every such port.
    fn passthrough(&self, port: Option<u16>, mode: MutualTlsMode) -> Vec<FilterChain> {
        let build = |(transport, content): &(Transport, Content)| {
            let filter = self.tcp(INBOUND_PASSTHROUGH_CLUSTER.into(), None);
            self.chain("virtualInbound".into(), *transport, port, (*content, filter))
        };
        chains(mode, Protocol::Tcp).iter().map(build).collect()
    }

    fn tcp(&self, cluster: String, idle_timeout: Option<weft_crds::Duration>) -> Filter {
        let to = TcpCluster::Cluster(cluster.clone());
        outbound::tcp_proxy(self.scope, cluster, to, idle_timeout)
    }

    fn http(&self, port: &InboundPort) -> Filter {
        let mut filters = self.http_rbac.clone();
        let limits = envoy_filter::inbound_http_filters(&self.filters, port.target_port);
        let mut routes = routes(port);
        envoy_filter::apply_to_inbound_route(&self.filters, &mut routes, port.target_port);
        let mut listed = routes.virtual_hosts.iter().flat_map(|host| &host.routes);
        if limits.is_empty() && listed.any(|route| !route.typed_per_filter_config.is_empty()) {
            // A route's limit counts only where the filter is.
            let unlimited = LocalRateLimit {
                stat_prefix: "http_local_rate_limiter".into(),
                ..LocalRateLimit::default()
            };
            filters.push(http::filter(http::LOCAL_RATE_LIMIT, wire::pack(&unlimited)));
        }
        filters.extend(limits);
        http::manager(
            self.scope,
            Side::Inbound,
            format!("inbound_0.0.0.0_{}", port.target_port),
            RouteSpecifier::RouteConfig(routes),
            filters,
            &["websocket"],
        )
    }
}

/// The one route of a port (`istio-behaviours`, item 50).
fn routes(port: &InboundPort) -> RouteConfiguration {
    let name = ClusterName::inbound(port.target_port).to_string();
    let mut action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(name.clone())),
        timeout: Some(Duration::default()),
        max_stream_duration: Some(MaxStreamDuration {
            grpc_timeout_header_max: Some(Duration::default()),
            ..MaxStreamDuration::default()
        }),
        ..RouteAction::default()
    };
    if port.port.protocol != Protocol::Grpc {
        // The application closed an idle connection as the request was written to it.
        action.retry_policy = Some(RetryPolicy {
            retry_on: "reset-before-request".into(),
            num_retries: Some(uint32(2)),
            ..RetryPolicy::default()
        });
    }
    RouteConfiguration {
        name,
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{}", port.port.number),
            domains: vec!["*".into()],
            routes: vec![Route {
                name: "default".into(),
                r#match: Some(any_path()),
                action: Some(Action::Route(action)),
                ..Route::default()
            }],
            ..VirtualHost::default()
        }],
        validate_clusters: Some(boolean(false)),
        ..RouteConfiguration::default()
    }
}

/// Connections to these ports.
fn to_ports(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let one = |port: &u16| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range {
            start: i32::from(*port),
            end: i32::from(*port) + 1,
        })),
    };
    match ports {
        [] => None,
        [only] => Some(one(only)),
        several => {
            let rules = several.iter().map(one).collect();
            Some(ListenerFilterChainMatchPredicate {
                rule: Some(Rule::OrMatch(MatchSet { rules })),
            })
        }
    }
}

/// The listener for all inbound traffic of a node.
pub(crate) fn listener(scope: &Scope<'_>) -> Listener {
    let ports = scope.inbound_ports();
    let modes = scope.peer_authentication();
    let authorization = scope.authorization();
    let builder = Builder {
        scope,
        http_rbac: rbac::http_filters(&authorization, scope.mesh()),
        tcp_rbac: rbac::network_filters(&authorization, scope.mesh(), "tcp."),
        filters: scope.envoy_filters(),
    };
    let black_hole = outbound::tcp_proxy(
        scope,
        BLACK_HOLE_CLUSTER.into(),
        TcpCluster::Cluster(BLACK_HOLE_CLUSTER.into()),
        None,
    );
    let mut chains = vec![FilterChain {
        name: "virtualInbound-blackhole".into(),
        filter_chain_match: Some(Transport::Any.filter_chain_match(Some(INBOUND_PORT))),
        filters: vec![black_hole],
        ..FilterChain::default()
    }];
    for port in &ports {
        chains.extend(builder.of_port(port, modes.mode(port.target_port)));
    }
    let mut listener = Listener {
        name: VIRTUAL_INBOUND.into(),
        address: Some(address(scope.address(), INBOUND_PORT)),
        traffic_direction: TrafficDirection::Inbound.into(),
        listener_filters_timeout: outbound::inspection_timeout(
            scope.mesh().protocol_detection_timeout,
        ),
        continue_on_listener_filters_timeout: true,
        ..Listener::default()
    };
    let needs_tls = |port: &InboundPort| {
        let listed = self::chains(modes.mode(port.target_port), port.port.protocol);
        listed.iter().any(|(transport, _)| transport.needs_tls_inspector())
    };
    let without_tls: Vec<u16> =
        ports.iter().filter(|port| !needs_tls(port)).map(|port| port.target_port).collect();
    let without_http: Vec<u16> = ports
        .iter()
        .filter(|port| port.port.protocol != Protocol::Unsupported)
        .map(|port| port.target_port)
        .collect();
    // A weft-proxy looks only where a chain of the port needs it; Envoy has to be told.
    let except = |ports: &[u16]| if scope.is_on_demand() { None } else { to_ports(ports) };
    if without_tls.len() < ports.len() || scope.is_captured() {
        listener.listener_filters.push(listener::tls_inspector(except(&without_tls)));
    }
    if without_http.len() < ports.len() {
        listener.listener_filters.push(listener::http_inspector(except(&without_http)));
    }
    if scope.is_captured() {
        for port in modes.ports.keys() {
            if !ports.iter().any(|served| served.target_port == *port) {
                chains.extend(builder.passthrough(Some(*port), modes.mode(*port)));
            }
        }
        chains.extend(builder.passthrough(None, modes.default));
        listener.use_original_dst = Some(boolean(true));
        listener.listener_filters.insert(0, listener::original_destination());
    } else {
        listener.additional_addresses = ports
            .iter()
            .filter(|port| port.target_port != INBOUND_PORT)
            .map(|port| AdditionalAddress {
                address: Some(address(scope.address(), port.target_port)),
                ..AdditionalAddress::default()
            })
            .collect();
    }
    listener.filter_chains = chains;
    listener
}
