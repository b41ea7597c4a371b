//! Route configurations and virtual hosts: which services a node reaches by which authority (`istio-behaviours` 2.1, 2.2).

mod action;
mod filters;
mod headers;
mod retry;
mod rules;

use std::collections::{BTreeSet, HashSet};

use weft_api::{
    names::{self, ServiceRouteName},
    xds::envoy::config::route::v3::{
        DirectResponseAction, Route, RouteConfiguration, RouteMatch, Vhds, VirtualHost,
        route::Action, route_match::PathSpecifier,
    },
};
use weft_core::{
    host,
    protocol::Protocol,
    resource::Resource,
    service::{Service, ServicePort},
};
use weft_crds::networking::VirtualServiceSpec;

use super::{
    authority::{self, Authority},
    message::{ads, boolean},
    scope::Scope,
};

/// The virtual host, and route, of requests for what the mesh does not know.
const BLOCK_ALL: &str = "block_all";

/// The only port on which a VirtualService gives routes to a host that is no service (`istio-behaviours`, item 24).
pub(crate) const HOST_WITHOUT_SERVICE_PORT: u16 = 80;

/// Whose routes are built.
pub(crate) struct Subject<'a> {
    /// The fully qualified name.
    pub(crate) host: &'a str,
    /// The service's port.
    pub(crate) port: u16,
    /// `None` for a host that only a VirtualService knows.
    pub(crate) service: Option<&'a Service>,
    /// The Gateways that the requests come by, `<namespace>/<name>`; `None` for those of a sidecar.
    pub(crate) gateways: Option<&'a BTreeSet<String>>,
}

/// Every route configuration that the node may see.
pub(crate) fn names(scope: &Scope<'_>) -> Vec<String> {
    if scope.is_gateway() {
        return super::gateway::route_names(scope);
    }
    let mut names = vec![names::HTTP_PROXY.to_owned()];
    for service in scope.visible_services() {
        names.extend(service.ports.iter().filter(|port| carries_requests(port)).map(|port| {
            ServiceRouteName { host: service.hostname().into(), port: port.number }.to_string()
        }));
    }
    names
}

/// Whether a port's traffic is, or may be, HTTP.
pub(crate) fn carries_requests(port: &ServicePort) -> bool {
    port.protocol.is_http() || port.protocol == Protocol::Unsupported
}

/// A match of every path.
pub(crate) fn any_path() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() }
}

/// The routes of the explicit proxy port.
pub(crate) fn http_proxy(scope: &Scope<'_>) -> Option<RouteConfiguration> {
    let mut config = RouteConfiguration {
        name: names::HTTP_PROXY.into(),
        validate_clusters: Some(boolean(false)),
        ..RouteConfiguration::default()
    };
    if scope.is_on_demand() {
        config.vhds = Some(Vhds { config_source: Some(ads()) });
        return Some(config);
    }
    let mut taken = HashSet::new();
    let mut add = |mut host: VirtualHost| {
        // Envoy refuses a domain that two have; the first keeps it.
        host.domains.retain(|domain| taken.insert(domain.clone()));
        if !host.domains.is_empty() {
            config.virtual_hosts.push(host);
        }
    };
    for service in scope.visible_services() {
        for port in service.ports.iter().filter(|port| carries_requests(port)) {
            add(of_service_port(scope, service, port.number));
        }
    }
    for name in scope.routed_hosts() {
        if !host::is_wildcard(&name) && scope.service_named(&name).is_none() {
            let domains = authority::domains_of_name(&name, HOST_WITHOUT_SERVICE_PORT);
            if let Some(host) = of_host_without_service(scope, &name, domains) {
                add(host);
            }
        }
    }
    add(block_all("*"));
    Some(config)
}

/// The routes of one service's port, for whatever authority.
pub(crate) fn of_service(scope: &Scope<'_>, name: &ServiceRouteName) -> Option<RouteConfiguration> {
    let mut host = match scope.service_named(&name.host) {
        Some(service) => {
            service.port(name.port).filter(|port| carries_requests(port))?;
            of_service_port(scope, service, name.port)
        }
        None if name.port == HOST_WITHOUT_SERVICE_PORT => {
            of_host_without_service(scope, &name.host, Vec::new())?
        }
        None => return None,
    };
    host.domains = vec!["*".into()];
    Some(RouteConfiguration {
        name: name.to_string(),
        virtual_hosts: vec![host],
        validate_clusters: Some(boolean(false)),
        ..RouteConfiguration::default()
    })
}

/// The virtual host that a request with this authority gets at the explicit proxy port. `None` for what is no authority.
pub(crate) fn of_authority(scope: &Scope<'_>, asked: &str) -> Option<VirtualHost> {
    let Authority { host, port } = Authority::parse(asked)?;
    let mut found = match scope.service(&host) {
        Some(service) if service.port(port).is_some_and(carries_requests) => {
            of_service_port(scope, service, port)
        }
        Some(_) => block_all(asked),
        None if port == HOST_WITHOUT_SERVICE_PORT => {
            let name = host::resolve(&host, scope.namespace(), &scope.mesh().domain);
            of_host_without_service(scope, &name, Vec::new()).unwrap_or_else(|| block_all(asked))
        }
        None => block_all(asked),
    };
    // Whatever the client wrote is a domain too; where it is one anyway, every way of asking has the same answer.
    found.domains.push(asked.to_ascii_lowercase());
    found.domains = authority::unique(found.domains);
    Some(found)
}

pub(crate) fn of_service_port(scope: &Scope<'_>, service: &Service, port: u16) -> VirtualHost {
    let domains = authority::domains(service, port, scope.namespace(), &scope.mesh().domain);
    let subject =
        Subject { host: service.hostname(), port, service: Some(service), gateways: None };
    let routes =
        rules::routes(scope, &subject).unwrap_or_else(|| vec![rules::default(scope, &subject)]);
    virtual_host(&subject, domains, routes)
}

pub(crate) fn of_host_without_service(
    scope: &Scope<'_>,
    host: &str,
    domains: Vec<String>,
) -> Option<VirtualHost> {
    let subject = Subject { host, port: HOST_WITHOUT_SERVICE_PORT, service: None, gateways: None };
    let routes = rules::routes(scope, &subject)?;
    Some(virtual_host(&subject, domains, routes))
}

fn virtual_host(subject: &Subject<'_>, domains: Vec<String>, routes: Vec<Route>) -> VirtualHost {
    let name = ServiceRouteName { host: subject.host.into(), port: subject.port };
    VirtualHost {
        name: name.to_string(),
        domains,
        routes,
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

/// The routes that a VirtualService has for requests by some Gateways; those that any request takes stand last in each.
pub(crate) fn of_virtual_service(
    scope: &Scope<'_>,
    subject: &Subject<'_>,
    resource: &Resource<VirtualServiceSpec>,
) -> Vec<Route> {
    rules::of_resource(scope, subject, resource)
}

/// Routes of several VirtualServices: those that take every request come after all others (`istio-behaviours`, item 9).
pub(crate) fn catch_all_last(routes: Vec<Route>) -> Vec<Route> {
    let (last, mut first): (Vec<_>, Vec<_>) = routes
        .into_iter()
        .partition(|route| route.r#match.as_ref().is_some_and(rules::catches_all));
    first.extend(last);
    first
}

pub(crate) fn block_all(domain: &str) -> VirtualHost {
    let refuse = DirectResponseAction { status: 502, ..DirectResponseAction::default() };
    VirtualHost {
        name: BLOCK_ALL.into(),
        domains: vec![domain.to_ascii_lowercase()],
        routes: vec![Route {
            name: BLOCK_ALL.into(),
            r#match: Some(any_path()),
            action: Some(Action::DirectResponse(refuse)),
            ..Route::default()
        }],
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}
