//! Routes of Gateways: the VirtualServices bound to them, merged by host (`istio-behaviours`, items 9, 10 and 30).

use std::collections::{BTreeMap, BTreeSet};

use weft_api::xds::envoy::config::route::v3::{
    Route, RouteConfiguration, VirtualHost, virtual_host::TlsRequirementType,
};
use weft_core::{
    gateway::{GatewayListener, GatewayServer, ListenerKind},
    resource::Resource,
    virtual_service::table::Tier,
};
use weft_crds::networking::VirtualServiceSpec;

use crate::build::{
    message::boolean,
    route::{self, Subject},
    scope::Scope,
};

type VirtualService = Resource<VirtualServiceSpec>;

/// Every route configuration of the proxy.
pub(crate) fn names(scope: &Scope<'_>) -> Vec<String> {
    let merged = scope.gateways();
    let of = |listener: &GatewayListener| match listener.kind {
        ListenerKind::Http => listener.http_route_name().into_iter().collect(),
        ListenerKind::Tls | ListenerKind::Tcp => {
            listener.servers.iter().filter_map(GatewayServer::route_name).collect::<Vec<_>>()
        }
    };
    let names: BTreeSet<String> = merged.listeners.iter().flat_map(of).collect();
    names.into_iter().collect()
}

/// A VirtualService of some of a route configuration's Gateways.
struct Bound<'a> {
    tier: Tier,
    resource: &'a VirtualService,
    gateways: BTreeSet<String>,
    port: u16,
}

/// What is served under a host.
#[derive(Default)]
struct Host<'a> {
    redirects: bool,
    bound: Vec<Bound<'a>>,
}

impl<'a> Host<'a> {
    /// A VirtualService is bound to it by a server's Gateway.
    fn bind(&mut self, server: &GatewayServer, tier: Tier, resource: &'a VirtualService) {
        self.redirects |= server.redirects();
        let (port, gateway) = (server.port(), server.gateway_name());
        let same = |bound: &&mut Bound<'_>| {
            bound.port == port && bound.resource.reference == resource.reference
        };
        match self.bound.iter_mut().find(same) {
            Some(bound) => _ = bound.gateways.insert(gateway),
            None => self.bound.push(Bound { tier, resource, gateways: [gateway].into(), port }),
        }
    }

    /// The routes of all that are bound, in order of precedence.
    fn routes(&mut self, scope: &Scope<'_>, host: &str) -> Vec<Route> {
        let order = |bound: &Bound<'a>| (bound.tier, bound.resource.age());
        self.bound.sort_by(|a, b| order(a).cmp(&order(b)));
        let of = |bound: &Bound<'a>| {
            let subject =
                Subject { host, port: bound.port, service: None, gateways: Some(&bound.gateways) };
            route::of_virtual_service(scope, &subject, bound.resource)
        };
        route::catch_all_last(self.bound.iter().flat_map(of).collect())
    }
}

/// The hosts that a server and a VirtualService have in common.
fn common_hosts<'a>(
    server: &'a GatewayServer,
    resource: &'a VirtualService,
) -> impl Iterator<Item = String> + use<'a> {
    let hosts = server.hosts.iter();
    hosts.flat_map(move |host| {
        let names = resource.spec.hosts.iter();
        names
            .filter_map(move |name| host.intersection(resource.namespace(), name))
            .map(str::to_owned)
    })
}

/// A route configuration by name; `None` when no server has it.
pub(crate) fn routes(scope: &Scope<'_>, name: &str) -> Option<RouteConfiguration> {
    let merged = scope.gateways();
    let servers: Vec<&GatewayServer> = merged.routed_by(name).collect();
    let port = servers.first()?.port();
    let mut hosts: BTreeMap<String, Host<'_>> = BTreeMap::new();
    for server in &servers {
        if server.redirects() {
            // Also where no VirtualService routes what was redirected.
            for host in &server.hosts {
                hosts.entry(host.name.clone()).or_default().redirects = true;
            }
        }
        for (tier, resource) in scope.virtual_services_of_gateway(&server.gateway_name()) {
            for host in common_hosts(server, resource) {
                hosts.entry(host).or_default().bind(server, tier, resource);
            }
        }
    }
    let mut config = RouteConfiguration {
        name: name.to_owned(),
        validate_clusters: Some(boolean(false)),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    };
    for (name, mut host) in hosts {
        let routes = host.routes(scope, &name);
        if !routes.is_empty() || host.redirects {
            let mut built = virtual_host(format!("{name}:{port}"), name, routes);
            if host.redirects {
                built.require_tls = TlsRequirementType::All.into();
            }
            config.virtual_hosts.push(built);
        }
    }
    if config.virtual_hosts.is_empty() {
        let nothing = virtual_host(format!("blackhole:{port}"), "*".into(), Vec::new());
        config.virtual_hosts.push(nothing);
    }
    Some(config)
}

fn virtual_host(name: String, domain: String, routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name,
        domains: vec![domain],
        routes,
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}
