//! What a route does: forwarding with its timeouts, retries and rewrites, redirects, and answers of its own
//! (`istio-behaviours`, items 12 and 16 to 21).

use weft_api::{
    names::ClusterName,
    xds::envoy::{
        config::{
            core::v3::{DataSource, data_source::Specifier},
            route::v3::{
                DirectResponseAction, RedirectAction, RouteAction, WeightedCluster,
                redirect_action::{
                    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
                },
                route::Action,
                route_action::{
                    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, MaxStreamDuration,
                    RequestMirrorPolicy, hash_policy,
                },
                weighted_cluster::{
                    ClusterWeight, cluster_weight::HostRewriteSpecifier as WeightHostRewrite,
                },
            },
        },
        r#type::matcher::v3::RegexMatchAndSubstitute,
    },
};
use weft_crds::networking::{
    ConsistentHashLb, Destination, HttpDirectResponse, HttpRedirect, HttpRewrite, HttpRoute,
    HttpRouteDestination, RedirectPortSelection,
};

use super::{
    Subject,
    headers::Mutations,
    retry::{self, PreviousHosts},
};
use crate::build::{
    matcher,
    message::{duration, runtime_percent, uint32},
    scope::Scope,
};

/// The action of a route; `None` when it has nothing to do.
pub(super) fn build(scope: &Scope<'_>, subject: &Subject<'_>, rule: &HttpRoute) -> Option<Action> {
    if let Some(found) = &rule.redirect {
        return redirect(found, subject).map(Action::Redirect);
    }
    if let Some(found) = &rule.direct_response {
        return Some(Action::DirectResponse(direct_response(found)));
    }
    forward(scope, subject, rule).map(Action::Route)
}

/// Forwarding to the service itself.
pub(super) fn default(scope: &Scope<'_>, subject: &Subject<'_>) -> Action {
    let own = Destination { host: subject.host.into(), ..Destination::default() };
    let mut action = without_timeout();
    let (cluster, hash) = destination(scope, subject, &own);
    action.cluster_specifier = Some(ClusterSpecifier::Cluster(cluster));
    let hosts = if hash.is_some() { PreviousHosts::Allow } else { PreviousHosts::Avoid };
    action.hash_policy = hash.into_iter().collect();
    action.retry_policy = retry::build(None, hosts);
    Action::Route(action)
}

/// Envoy's own 15 seconds are off; what a gRPC client asks for counts.
fn without_timeout() -> RouteAction {
    timed(RouteAction::default(), std::time::Duration::ZERO)
}

fn timed(action: RouteAction, timeout: std::time::Duration) -> RouteAction {
    let timeout = duration(timeout);
    RouteAction {
        timeout: Some(timeout),
        max_stream_duration: Some(MaxStreamDuration {
            grpc_timeout_header_max: Some(timeout),
            ..MaxStreamDuration::default()
        }),
        ..action
    }
}

fn forward(scope: &Scope<'_>, subject: &Subject<'_>, rule: &HttpRoute) -> Option<RouteAction> {
    let timeout = rule.timeout.map_or(std::time::Duration::ZERO, |timeout| timeout.0);
    let mut action = timed(RouteAction::default(), timeout);
    let mut hashes = Vec::new();
    action.cluster_specifier = Some(match rule.route.as_slice() {
        [] => return None,
        [only] => {
            let (cluster, hash) = destination(scope, subject, &only.destination);
            hashes.extend(hash);
            ClusterSpecifier::Cluster(cluster)
        }
        several => {
            let shares = several.iter().filter(|share| share.weight > 0);
            let clusters: Vec<_> = shares
                .map(|share| {
                    let (cluster, hash) = destination(scope, subject, &share.destination);
                    hashes.extend(hash.filter(|hash| !hashes.contains(hash)));
                    weight(share, cluster)
                })
                .collect();
            if clusters.is_empty() {
                return None;
            }
            ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters,
                ..WeightedCluster::default()
            })
        }
    });
    let hosts = if hashes.is_empty() { PreviousHosts::Avoid } else { PreviousHosts::Allow };
    action.hash_policy = hashes;
    action.retry_policy = retry::build(rule.retries.as_ref(), hosts);
    action.request_mirror_policies = mirrors(scope, subject, rule);
    rewrite(&mut action, rule);
    Some(action)
}

fn weight(share: &HttpRouteDestination, cluster: String) -> ClusterWeight {
    let mutations = Mutations::of(share.headers.as_ref());
    ClusterWeight {
        name: cluster,
        weight: Some(uint32(share.weight)),
        request_headers_to_add: mutations.request_add,
        request_headers_to_remove: mutations.request_remove,
        response_headers_to_add: mutations.response_add,
        response_headers_to_remove: mutations.response_remove,
        host_rewrite_specifier: mutations.authority.map(WeightHostRewrite::HostRewriteLiteral),
        ..ClusterWeight::default()
    }
}

/// The cluster of a destination: without a port, the service's only one, else that being listened on (item 17). And how
/// its rule wants requests hashed.
fn destination(
    scope: &Scope<'_>,
    subject: &Subject<'_>,
    wanted: &Destination,
) -> (String, Option<HashPolicy>) {
    let own = subject.service.filter(|service| service.hostname() == wanted.host);
    let service = own.or_else(|| scope.service(&wanted.host).map(|service| &**service));
    let only_port = service.and_then(|service| match service.ports.as_slice() {
        [only] => Some(only.number),
        _ => None,
    });
    let named_port = wanted.port.as_ref().map(|port| port.number).filter(|port| *port > 0);
    let port = named_port.or(only_port).unwrap_or(subject.port);
    let hash = service.and_then(|service| {
        let policy = scope.destination_rule(service)?.traffic_policy(port, &wanted.subset)?;
        hash_policy(policy.load_balancer?.consistent_hash.as_ref()?)
    });
    let host = service.map_or(wanted.host.as_str(), |service| service.hostname());
    (ClusterName::outbound(port, &wanted.subset, host).to_string(), hash)
}

fn hash_policy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let specifier = if let Some(header_name) = &hash.http_header_name {
        hash_policy::PolicySpecifier::Header(hash_policy::Header {
            header_name: header_name.clone(),
            ..hash_policy::Header::default()
        })
    } else if let Some(cookie) = &hash.http_cookie {
        hash_policy::PolicySpecifier::Cookie(hash_policy::Cookie {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            ttl: cookie.ttl.map(|ttl| duration(ttl.0)),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| hash_policy::CookieAttribute {
                    name: attribute.name.clone(),
                    value: attribute.value.clone(),
                })
                .collect(),
        })
    } else if hash.use_source_ip == Some(true) {
        let properties = hash_policy::ConnectionProperties { source_ip: true };
        hash_policy::PolicySpecifier::ConnectionProperties(properties)
    } else {
        let name = hash.http_query_parameter_name.clone()?;
        hash_policy::PolicySpecifier::QueryParameter(hash_policy::QueryParameter { name })
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..HashPolicy::default() })
}

fn mirrors(scope: &Scope<'_>, subject: &Subject<'_>, rule: &HttpRoute) -> Vec<RequestMirrorPolicy> {
    let deprecated = rule.mirror_percent.map_or(100.0, f64::from);
    let share = rule.mirror_percentage.map_or(deprecated, |percentage| percentage.value);
    let one = rule.mirror.iter().map(|destination| (destination, share));
    let several = rule.mirrors.iter().map(|mirror| {
        (&mirror.destination, mirror.percentage.map_or(100.0, |percentage| percentage.value))
    });
    one.chain(several)
        .filter(|(_, share)| *share > 0.0)
        .map(|(wanted, share)| RequestMirrorPolicy {
            cluster: destination(scope, subject, wanted).0,
            runtime_fraction: Some(runtime_percent(share)),
            ..RequestMirrorPolicy::default()
        })
        .collect()
}

fn rewrite(action: &mut RouteAction, rule: &HttpRoute) {
    let mut authority = Mutations::of(rule.headers.as_ref()).authority;
    if let [only] = rule.route.as_slice() {
        authority = Mutations::of(only.headers.as_ref()).authority.or(authority);
    }
    if let Some(HttpRewrite { uri, authority: rewritten, uri_regex_rewrite }) = &rule.rewrite {
        if let Some(regex) = uri_regex_rewrite {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(matcher::regex(&regex.pattern)),
                substitution: regex.rewrite.clone(),
            });
        } else {
            action.prefix_rewrite.clone_from(uri);
        }
        if !rewritten.is_empty() {
            authority = Some(rewritten.clone());
        }
    }
    action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
}

fn redirect(wanted: &HttpRedirect, subject: &Subject<'_>) -> Option<RedirectAction> {
    let code = match wanted.redirect_code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let path = if !wanted.prefix_rewrite.is_empty() {
        Some(PathRewriteSpecifier::PrefixRewrite(wanted.prefix_rewrite.clone()))
    } else if !wanted.uri.is_empty() {
        Some(PathRewriteSpecifier::PathRedirect(wanted.uri.clone()))
    } else {
        None
    };
    let from_request = wanted.derive_port == Some(RedirectPortSelection::FromRequestPort);
    // The scheme's own ports are left out of the location.
    let derived = (from_request && ![80, 443].contains(&subject.port)).then_some(subject.port);
    Some(RedirectAction {
        response_code: code.into(),
        host_redirect: wanted.authority.clone(),
        port_redirect: wanted.port.or(derived).map_or(0, u32::from),
        scheme_rewrite_specifier: (!wanted.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(wanted.scheme.clone())),
        path_rewrite_specifier: path,
        ..RedirectAction::default()
    })
}

fn direct_response(wanted: &HttpDirectResponse) -> DirectResponseAction {
    let body = wanted.body.as_ref().map(|body| DataSource {
        specifier: Some(Specifier::InlineBytes(body.content().to_vec())),
        ..DataSource::default()
    });
    DirectResponseAction { status: wanted.status, body, ..DirectResponseAction::default() }
}
