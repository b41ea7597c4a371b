//! Connections of Gateways that are forwarded as bytes: by `tcp` routes, and by the server names of `tls` routes
//! (`istio-behaviours`, items 13 and 26).

use std::collections::{BTreeMap, HashSet};

use weft_api::xds::envoy::{
    config::listener::v3::Filter,
    extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier,
};
use weft_core::{
    gateway::{Content, GatewayListener, GatewayServer},
    resource::Resource,
};
use weft_crds::networking::VirtualServiceSpec;

use crate::build::{outbound, scope::Scope};

type VirtualService = Resource<VirtualServiceSpec>;

/// The server names of a listener that somebody has already: Envoy refuses a name that two chains have.
pub(super) struct ServerNames(HashSet<String>);

impl ServerNames {
    /// Those of the servers that end TLS themselves.
    pub(super) fn of(listener: &GatewayListener) -> Self {
        let ending =
            listener.servers.iter().filter(|server| server.content != Content::Passthrough);
        Self(ending.flat_map(|server| &server.hosts).map(|host| host.name.clone()).collect())
    }
}

/// The properties of a connection that a match asks for, beside its server name.
struct Wanted<'a> {
    port: Option<u16>,
    gateways: &'a [String],
    subnets: &'a [String],
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
}

impl Wanted<'_> {
    /// Whether connections to a server may be meant. All conditions count, and labels are those of sidecars.
    fn is_for(&self, scope: &Scope<'_>, server: &GatewayServer) -> bool {
        let gateway = server.gateway_name();
        self.port.is_none_or(|port| port == server.port())
            && (self.gateways.is_empty() || self.gateways.contains(&gateway))
            && self.subnets.is_empty()
            && self.labels.is_empty()
            && (self.namespace.is_empty() || self.namespace == scope.namespace())
    }
}

/// The VirtualServices of a server that have a host in common with it, in order of precedence.
fn bound<'a>(
    scope: &Scope<'a>,
    server: &'a GatewayServer,
) -> impl Iterator<Item = &'a VirtualService> + use<'a> {
    let all = scope.virtual_services_of_gateway(&server.gateway_name());
    all.into_iter().map(|(_, resource)| &**resource).filter(move |resource| {
        let mut names = resource.spec.hosts.iter();
        names.any(|name| {
            let common = |host: &weft_core::gateway::ServerHost| {
                host.intersection(resource.namespace(), name).is_some()
            };
            server.hosts.iter().any(common)
        })
    })
}

fn filter(scope: &Scope<'_>, server: &GatewayServer, to: ClusterSpecifier) -> Filter {
    let name = match &to {
        ClusterSpecifier::Cluster(cluster) => cluster.clone(),
        ClusterSpecifier::WeightedClusters(_) => format!("outbound_0.0.0.0_{}", server.port()),
    };
    outbound::tcp_proxy(scope, name, to, None)
}

/// Where the bytes of a server go: as the first `tcp` route for it says. `None` when there is none.
pub(super) fn tcp(scope: &Scope<'_>, server: &GatewayServer) -> Option<Filter> {
    let routes = bound(scope, server).flat_map(|resource| &resource.spec.tcp);
    let to = routes.into_iter().find_map(|route| {
        let applies = route.matches.is_empty()
            || route.matches.iter().any(|wanted| {
                let wanted = Wanted {
                    port: wanted.port,
                    gateways: &wanted.gateways,
                    subnets: &wanted.destination_subnets,
                    namespace: &wanted.source_namespace,
                    labels: &wanted.source_labels,
                };
                wanted.is_for(scope, server)
            });
        applies.then(|| outbound::split(scope, server.port(), &route.route)).flatten()
    })?;
    Some(filter(scope, server, to))
}

/// Where the TLS connections of a server go, by server name; a name that two routes have belongs to the first.
pub(super) fn by_server_name(
    scope: &Scope<'_>,
    server: &GatewayServer,
    taken: &mut ServerNames,
) -> Vec<(Vec<String>, Filter)> {
    let mut chains = Vec::new();
    for resource in bound(scope, server) {
        for route in &resource.spec.tls {
            let mut names = Vec::new();
            for wanted in &route.matches {
                let properties = Wanted {
                    port: wanted.port,
                    gateways: &wanted.gateways,
                    subnets: &wanted.destination_subnets,
                    namespace: &wanted.source_namespace,
                    labels: &wanted.source_labels,
                };
                if !properties.is_for(scope, server) {
                    continue;
                }
                for name in &wanted.sni_hosts {
                    let name = name.to_ascii_lowercase();
                    let common = server.hosts.iter();
                    let common = common
                        .filter_map(|host| host.intersection(resource.namespace(), &name))
                        .map(str::to_owned);
                    names.extend(common.filter(|name| taken.0.insert(name.clone())));
                }
            }
            if names.is_empty() {
                continue;
            }
            if let Some(to) = outbound::split(scope, server.port(), &route.route) {
                chains.push((names, filter(scope, server, to)));
            }
        }
    }
    chains
}
