//! What a proxy at the edge of the mesh gets: listeners, routes and secrets of the Gateways that select it
//! (`istio-behaviours` 2.3).

mod routes;
mod streams;
mod tls;

use weft_api::xds::envoy::{
    config::{
        core::v3::{DataSource, TrafficDirection, data_source::Specifier},
        listener::v3::{Filter, FilterChain, FilterChainMatch, Listener},
    },
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret, TlsCertificate, secret::Type as SecretType,
    },
};
use weft_core::{
    gateway::{Content, GatewayListener, GatewayServer, ListenerKind},
    snapshot::WorkloadAuthorization,
};
use weft_crds::networking::ServerTlsMode;

pub(crate) use self::routes::{names as route_names, routes};
use super::{
    http::{self, Side},
    listener,
    message::address,
    outbound, rbac,
    scope::Scope,
};

/// Every listener of the proxy.
pub(crate) fn names(scope: &Scope<'_>) -> Vec<String> {
    scope.gateways().listeners.iter().map(GatewayListener::name).collect()
}

/// A listener by name; `None` when no Gateway has such a port.
pub(crate) fn listener(scope: &Scope<'_>, name: &str) -> Option<Listener> {
    let merged = scope.gateways();
    let found = merged.listener(name)?;
    let edge = Edge { scope, authorization: scope.authorization() };
    let chains = edge.chains(found);
    if chains.is_empty() {
        return None;
    }
    let bind = found.bind.unwrap_or_else(|| scope.edge_address());
    let mut listener = Listener {
        name: found.name(),
        address: Some(address(bind, found.port)),
        filter_chains: chains,
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    };
    if found.kind == ListenerKind::Tls {
        listener.listener_filters.push(listener::tls_inspector(None));
    }
    Some(listener)
}

/// What all chains of a proxy share.
struct Edge<'a, 's> {
    scope: &'a Scope<'s>,
    authorization: WorkloadAuthorization,
}

impl Edge<'_, '_> {
    fn chains(&self, listener: &GatewayListener) -> Vec<FilterChain> {
        match listener.kind {
            ListenerKind::Http => {
                let routes = listener.http_route_name();
                let chain = routes.map(|routes| FilterChain {
                    filters: vec![self.http(listener.port, routes)],
                    ..FilterChain::default()
                });
                chain.into_iter().collect()
            }
            ListenerKind::Tcp => {
                let served = listener.servers.iter().find_map(|server| {
                    let filters = self.with_rbac(streams::tcp(self.scope, server)?);
                    Some(FilterChain { filters, ..FilterChain::default() })
                });
                served.into_iter().collect()
            }
            ListenerKind::Tls => {
                let mut names = streams::ServerNames::of(listener);
                listener
                    .servers
                    .iter()
                    .flat_map(|server| self.tls(listener, server, &mut names))
                    .collect()
            }
        }
    }

    /// The chains of a server that is told by the name in TLS.
    fn tls(
        &self,
        listener: &GatewayListener,
        server: &GatewayServer,
        names: &mut streams::ServerNames,
    ) -> Vec<FilterChain> {
        let terminated = |filters: Vec<Filter>, alpn: &[&str]| FilterChain {
            filter_chain_match: names_match(server.hosts.iter().map(|host| host.name.clone())),
            transport_socket: tls::downstream(self.scope.mesh(), server, alpn),
            filters,
            ..FilterChain::default()
        };
        match server.content {
            Content::Https => server
                .route_name()
                .map(|routes| terminated(vec![self.http(listener.port, routes)], http_alpn(server)))
                .into_iter()
                .collect(),
            Content::TerminatedTls => streams::tcp(self.scope, server)
                .map(|filter| {
                    terminated(self.with_rbac(filter), self.scope.metadata_exchange().alpn())
                })
                .into_iter()
                .collect(),
            Content::Passthrough => streams::by_server_name(self.scope, server, names)
                .into_iter()
                .map(|(names, filter)| FilterChain {
                    filter_chain_match: names_match(names.into_iter()),
                    filters: self.with_rbac(filter),
                    ..FilterChain::default()
                })
                .collect(),
            Content::Http | Content::Tcp => Vec::new(),
        }
    }

    fn http(&self, port: u16, routes: String) -> Filter {
        http::manager(
            self.scope,
            Side::Edge,
            format!("outbound_0.0.0.0_{port}"),
            outbound::routes(routes),
            rbac::http_filters(&self.authorization, self.scope.mesh()),
            &["websocket"],
        )
    }

    fn with_rbac(&self, last: Filter) -> Vec<Filter> {
        let mut filters = rbac::network_filters(&self.authorization, self.scope.mesh(), "tcp.");
        filters.push(last);
        filters
    }
}

/// What is offered to clients that speak HTTP inside TLS. A sidecar that was not told so of the gateway's port offers what
/// stands for any protocol of the mesh.
fn http_alpn(server: &GatewayServer) -> &'static [&'static str] {
    match server.tls().map(|tls| tls.mode) {
        Some(ServerTlsMode::IstioMutual) => &["h2", "http/1.1", "istio"],
        _ => &["h2", "http/1.1"],
    }
}

/// A match of server names; none for every name.
fn names_match(names: impl Iterator<Item = String>) -> Option<FilterChainMatch> {
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    (!names.iter().any(|name| name == "*"))
        .then(|| FilterChainMatch { server_names: names, ..FilterChainMatch::default() })
}

/// A secret by the name that TLS contexts have for it; `None` when no Gateway of this proxy names it, or it cannot be used.
pub(crate) fn secret(scope: &Scope<'_>, name: &str) -> Option<Secret> {
    if !scope.is_gateway() {
        return None;
    }
    let wanted = tls::SecretName::parse(name)?;
    let merged = scope.gateways();
    let servers = merged.listeners.iter().flat_map(|listener| &listener.servers);
    let named = servers.filter_map(GatewayServer::tls).any(|settings| wanted.is_of(settings));
    if !named {
        return None;
    }
    let bytes = |bytes: &[u8]| DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec())),
        ..DataSource::default()
    };
    let credentials = scope.credentials();
    let content = match wanted {
        tls::SecretName::Pair(own) => {
            let pair = credentials.key_pair(scope.namespace(), own).ok()?;
            SecretType::TlsCertificate(TlsCertificate {
                certificate_chain: Some(bytes(&pair.chain)),
                private_key: Some(bytes(pair.key.expose())),
                ..TlsCertificate::default()
            })
        }
        tls::SecretName::Authorities(own) => {
            let authorities = credentials.authorities(scope.namespace(), own).ok()?;
            SecretType::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(bytes(&authorities)),
                ..CertificateValidationContext::default()
            })
        }
    };
    Some(Secret { name: name.to_owned(), r#type: Some(content) })
}
