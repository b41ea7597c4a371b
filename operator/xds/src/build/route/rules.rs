//! A VirtualService's HTTP routes, as far as they are for this client and port (`istio-behaviours`, items 8 to 14).

use weft_api::xds::envoy::config::{
    core::v3::Metadata,
    route::v3::{Route, RouteMatch, route_match::PathSpecifier},
};
use weft_core::{resource::Resource, selector::selects, virtual_service::MESH_GATEWAY};
use weft_crds::{
    StringMatch,
    networking::{HttpMatchRequest, HttpRoute, VirtualServiceSpec},
};

use super::{Subject, action, any_path, filters, headers};
use crate::build::{
    matcher,
    message::{boolean, metadata, object, text},
    scope::Scope,
};

/// The routes that replace a host's default route, in order. `None` when no VirtualService has any for this client and
/// port. A request that none of them matches gets 404.
pub(super) fn routes(scope: &Scope<'_>, subject: &Subject<'_>) -> Option<Vec<Route>> {
    let resource = scope.virtual_service(subject.host)?;
    let routes = of_resource(scope, subject, &resource);
    (!routes.is_empty()).then_some(routes)
}

/// The routes of a VirtualService for this client and port, in order.
pub(super) fn of_resource(
    scope: &Scope<'_>,
    subject: &Subject<'_>,
    resource: &Resource<VirtualServiceSpec>,
) -> Vec<Route> {
    let mut routes = Vec::new();
    'rules: for rule in &resource.spec.http {
        let unconditional = [HttpMatchRequest::default()];
        let matches = if rule.matches.is_empty() { &unconditional[..] } else { &rule.matches[..] };
        for wanted in matches {
            if !is_for_client(scope, subject, wanted) {
                continue;
            }
            let found = route_match(wanted);
            let catches_all = catches_all(&found);
            if let Some(route) = route(scope, subject, (resource, rule), wanted, found) {
                routes.push(route);
            }
            if catches_all {
                // Nothing after it can match.
                break 'rules;
            }
        }
    }
    routes
}

/// The route of a service that no VirtualService routes.
pub(super) fn default(scope: &Scope<'_>, subject: &Subject<'_>) -> Route {
    Route {
        name: "default".into(),
        r#match: Some(any_path()),
        action: Some(action::default(scope, subject)),
        ..Route::default()
    }
}

/// Whether a match is for this client and port at all. With gateways named, the client's labels do not count; without, they
/// mean sidecars (item 13).
fn is_for_client(scope: &Scope<'_>, subject: &Subject<'_>, wanted: &HttpMatchRequest) -> bool {
    if wanted.port.is_some_and(|port| port != subject.port) {
        return false;
    }
    if !wanted.gateways.is_empty() {
        return wanted.gateways.iter().any(|gateway| match subject.gateways {
            Some(names) => names.contains(gateway),
            None => gateway == MESH_GATEWAY,
        });
    }
    if subject.gateways.is_some() && !wanted.source_labels.is_empty() {
        return false;
    }
    let namespace = &wanted.source_namespace;
    (namespace.is_empty() || namespace == scope.namespace())
        && (wanted.source_labels.is_empty() || selects(&wanted.source_labels, scope.labels()))
}

fn route_match(wanted: &HttpMatchRequest) -> RouteMatch {
    let path = match &wanted.uri {
        None | Some(StringMatch::Unset) => PathSpecifier::Prefix("/".into()),
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(prefix)) => PathSpecifier::Prefix(prefix.clone()),
        Some(StringMatch::Regex(regex)) if regex == "*" => PathSpecifier::Prefix("/".into()),
        Some(StringMatch::Regex(regex)) => PathSpecifier::SafeRegex(matcher::regex(regex)),
    };
    let with = wanted.headers.iter().map(|(name, value)| matcher::header(name, value));
    let without =
        wanted.without_headers.iter().map(|(name, value)| matcher::without_header(name, value));
    let pseudo = [
        (":method", &wanted.method),
        (":authority", &wanted.authority),
        (":scheme", &wanted.scheme),
    ];
    let pseudo =
        pseudo.into_iter().filter_map(|(name, value)| Some(matcher::header(name, value.as_ref()?)));
    let query =
        wanted.query_params.iter().map(|(name, value)| matcher::query_parameter(name, value));
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: wanted.ignore_uri_case.then(|| boolean(false)),
        headers: with.chain(without).chain(pseudo).collect(),
        query_parameters: query.collect(),
        ..RouteMatch::default()
    }
}

/// Whether a match takes every request.
pub(super) fn catches_all(found: &RouteMatch) -> bool {
    let any_path = match &found.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    any_path && found.headers.is_empty() && found.query_parameters.is_empty()
}

/// One route of one match; `None` when it has nothing to do.
fn route(
    scope: &Scope<'_>,
    subject: &Subject<'_>,
    (resource, rule): (&Resource<VirtualServiceSpec>, &HttpRoute),
    wanted: &HttpMatchRequest,
    found: RouteMatch,
) -> Option<Route> {
    let name = match (rule.name.as_str(), wanted.name.as_str()) {
        (rule, "") => rule.to_owned(),
        (rule, wanted) => format!("{rule}.{wanted}"),
    };
    let mut route = Route {
        name,
        r#match: Some(found),
        action: Some(action::build(scope, subject, rule)?),
        metadata: Some(origin(resource)),
        typed_per_filter_config: filters::of_rule(rule),
        stat_prefix: wanted.stat_prefix.clone(),
        ..Route::default()
    };
    headers::apply(&mut route, rule);
    Some(route)
}

/// Which resource a route was made of, for explanations.
fn origin(resource: &Resource<VirtualServiceSpec>) -> Metadata {
    let path = format!(
        "/apis/networking.istio.io/v1/namespaces/{}/virtual-service/{}",
        resource.reference.namespace, resource.reference.name
    );
    metadata([("istio", object([("config", text(path))]))])
}
