//! Route configurations, virtual hosts and routes.

use std::{collections::hash_map::Entry, sync::Arc};

use foldhash::HashMap;
use weft_api::xds::envoy::config::{
    core::v3::Metadata,
    route::v3::{
        Route as PbRoute, RouteConfiguration, RouteMatch as PbMatch, VirtualHost as PbHost,
        route_match::PathSpecifier, virtual_host::TlsRequirementType,
    },
};

use super::{
    Context, action, filter, header,
    invalid::{At, Invalid, Reason, each, refuse_all},
    matcher, retry,
    value::{number, runtime_fraction, text_of},
};
use crate::config::{
    filter::Fraction,
    route::{
        PathMatch, Route, RouteAction, RouteConfig, RouteMatch, TlsRequirement, VirtualHost,
        VirtualHosts,
    },
};

/// Envoy's bound of a direct response's body.
const DEFAULT_BODY_LIMIT: u32 = 4096;
/// What a route configuration may raise that bound to.
const MOST_BODY_LIMIT: u32 = 1 << 20;

/// `RouteConfiguration`.
pub fn route_configuration(
    context: &Context<'_>,
    config: &RouteConfiguration,
) -> Result<RouteConfig, Invalid> {
    refuse_all(&[
        (!config.internal_only_headers.is_empty(), "internal_only_headers"),
        (config.most_specific_header_mutations_wins, "most_specific_header_mutations_wins"),
        (!config.cluster_specifier_plugins.is_empty(), "cluster_specifier_plugins"),
        (!config.request_mirror_policies.is_empty(), "request_mirror_policies"),
        (!config.vhost_header.is_empty(), "vhost_header"),
        (config.ignore_path_parameters_in_path_matching, "ignore_path_parameters_in_path_matching"),
        (!config.typed_per_filter_config.is_empty(), "typed_per_filter_config"),
        (!config.route_specifiers.is_empty(), "route_specifiers"),
    ])?;
    let body_limit =
        number(config.max_direct_response_body_size_bytes.as_ref(), DEFAULT_BODY_LIMIT)
            .min(MOST_BODY_LIMIT);
    let body_limit = usize::try_from(body_limit).unwrap_or(usize::MAX);
    let hosts = each(&config.virtual_hosts, "virtual_hosts", |host| {
        virtual_host_within(context, host, body_limit).map(Arc::new)
    })?;
    Ok(RouteConfig {
        name: context.intern(&config.name),
        hosts: virtual_hosts(&hosts).at("virtual_hosts")?,
        on_demand: config.vhds.is_some(),
        ignore_port_in_host: config.ignore_port_in_host_matching,
        request_headers: header::mutations(
            &config.request_headers_to_add,
            "request_headers_to_add",
            &config.request_headers_to_remove,
            "request_headers_to_remove",
        )?,
        response_headers: header::mutations(
            &config.response_headers_to_add,
            "response_headers_to_add",
            &config.response_headers_to_remove,
            "response_headers_to_remove",
        )?,
    })
}

/// Sorts virtual hosts by their domains. A domain belongs to one virtual host only.
fn virtual_hosts(hosts: &[Arc<VirtualHost>]) -> Result<VirtualHosts, Invalid> {
    let duplicate = |domain: &str| Invalid {
        path: "domains".to_owned(),
        reason: Reason::Duplicate(domain.to_owned()),
    };
    let mut sorted = VirtualHosts::default();
    let mut suffixes = HashMap::default();
    let mut prefixes = HashMap::default();
    for host in hosts {
        for domain in &host.domains {
            if &**domain == "*" {
                if sorted.any.replace(host.clone()).is_some() {
                    return Err(duplicate(domain));
                }
                continue;
            }
            let (names, name) = if let Some(suffix) = domain.strip_prefix('*') {
                (&mut suffixes, suffix)
            } else if let Some(prefix) = domain.strip_suffix('*') {
                (&mut prefixes, prefix)
            } else {
                (&mut sorted.exact, &**domain)
            };
            match names.entry(Box::<str>::from(name)) {
                Entry::Vacant(entry) => entry.insert(host.clone()),
                Entry::Occupied(_) => return Err(duplicate(domain)),
            };
        }
    }
    let longest_first = |names: HashMap<Box<str>, Arc<VirtualHost>>| {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        names
    };
    sorted.suffixes = longest_first(suffixes);
    sorted.prefixes = longest_first(prefixes);
    Ok(sorted)
}

/// `VirtualHost`, as a resource of its own.
pub fn virtual_host(context: &Context<'_>, host: &PbHost) -> Result<VirtualHost, Invalid> {
    let body_limit = usize::try_from(DEFAULT_BODY_LIMIT).unwrap_or(usize::MAX);
    virtual_host_within(context, host, body_limit)
}

fn virtual_host_within(
    context: &Context<'_>,
    host: &PbHost,
    body_limit: usize,
) -> Result<VirtualHost, Invalid> {
    refuse_all(&[
        (host.matcher.is_some(), "matcher"),
        (!host.rate_limits.is_empty(), "rate_limits"),
        (host.include_attempt_count_in_response, "include_attempt_count_in_response"),
        (host.retry_policy_typed_config.is_some(), "retry_policy_typed_config"),
        (host.hedge_policy.is_some(), "hedge_policy"),
        (host.include_is_timeout_retry_header, "include_is_timeout_retry_header"),
        (!host.route_specifiers.is_empty(), "route_specifiers"),
    ])?;
    let domains = each(&host.domains, "domains", |domain| {
        let lower = domain.to_ascii_lowercase();
        let inner =
            lower.strip_prefix('*').unwrap_or_else(|| lower.strip_suffix('*').unwrap_or(&lower));
        if lower.is_empty() || inner.contains('*') {
            return Err(Invalid::value(domain, "a domain, *.suffix, prefix.* or *"));
        }
        Ok(Box::<str>::from(lower))
    })?;
    let overrides = filter::overrides(context, &host.typed_per_filter_config)?;
    let cors = match overrides.cors {
        Some(cors) => Some(cors),
        None => {
            host.cors.as_ref().map(filter::old_cors).transpose().at("cors")?.flatten().map(Arc::new)
        }
    };
    let mirrors = each(&host.request_mirror_policies, "request_mirror_policies", action::mirror)?;
    let routes = each(&host.routes, "routes", |pb| {
        let mut route = route(context, pb, body_limit)?;
        if let RouteAction::Forward(forward) = &mut route.action {
            if forward.cors.is_none() {
                forward.cors.clone_from(&cors);
            }
            if forward.mirrors.is_empty() {
                forward.mirrors.clone_from(&mirrors);
            }
        }
        Ok(Arc::new(route))
    })?;
    Ok(VirtualHost {
        name: context.intern(&host.name),
        domains,
        require_tls: match TlsRequirementType::try_from(host.require_tls) {
            Ok(TlsRequirementType::None) => TlsRequirement::None,
            Ok(TlsRequirementType::ExternalOnly) => TlsRequirement::External,
            Ok(TlsRequirementType::All) => TlsRequirement::All,
            Err(_) => return Err(Invalid::unsupported("require_tls")),
        },
        routes,
        include_request_attempt_count: host.include_request_attempt_count,
        retry: host
            .retry_policy
            .as_ref()
            .map(|policy| retry::retry(policy).map(Arc::new))
            .transpose()
            .at("retry_policy")?,
        request_headers: header::mutations(
            &host.request_headers_to_add,
            "request_headers_to_add",
            &host.request_headers_to_remove,
            "request_headers_to_remove",
        )?,
        response_headers: header::mutations(
            &host.response_headers_to_add,
            "response_headers_to_add",
            &host.response_headers_to_remove,
            "response_headers_to_remove",
        )?,
        filters: overrides.filters,
    })
}

fn route(context: &Context<'_>, route: &PbRoute, body_limit: usize) -> Result<Route, Invalid> {
    refuse_all(&[(!route.route_specifiers.is_empty(), "route_specifiers")])?;
    let matches = route.r#match.as_ref().ok_or_else(|| Invalid::missing("match"))?;
    let mut action = action::action(context, route.action.as_ref(), body_limit)?;
    let overrides = filter::overrides(context, &route.typed_per_filter_config)?;
    if let (Some(cors), RouteAction::Forward(forward)) = (overrides.cors, &mut action) {
        forward.cors = Some(cors);
    }
    Ok(Route {
        name: context.intern(&route.name),
        matches: route_match(matches).at("match")?,
        action,
        request_headers: header::mutations(
            &route.request_headers_to_add,
            "request_headers_to_add",
            &route.request_headers_to_remove,
            "request_headers_to_remove",
        )?,
        response_headers: header::mutations(
            &route.response_headers_to_add,
            "response_headers_to_add",
            &route.response_headers_to_remove,
            "response_headers_to_remove",
        )?,
        filters: overrides.filters,
        config: origin(route.metadata.as_ref()),
    })
}

/// The resource that a route was made of.
fn origin(metadata: Option<&Metadata>) -> Option<Box<str>> {
    let istio = metadata?.filter_metadata.get("istio")?;
    text_of(istio, "config").map(Into::into)
}

fn route_match(matches: &PbMatch) -> Result<RouteMatch, Invalid> {
    refuse_all(&[
        (!matches.cookies.is_empty(), "cookies"),
        (matches.tls_context.is_some(), "tls_context"),
        (!matches.dynamic_metadata.is_empty(), "dynamic_metadata"),
        (!matches.filter_state.is_empty(), "filter_state"),
    ])?;
    let fraction = match &matches.runtime_fraction {
        Some(value) => Some(runtime_fraction(Some(value), Fraction::ALL).at("runtime_fraction")?),
        None => None,
    };
    Ok(RouteMatch {
        path: path(matches)?,
        headers: each(&matches.headers, "headers", matcher::header)?,
        query: each(&matches.query_parameters, "query_parameters", matcher::query)?,
        grpc: matches.grpc.is_some(),
        fraction,
    })
}

fn path(matches: &PbMatch) -> Result<PathMatch, Invalid> {
    let ignore_case = matches.case_sensitive.as_ref().is_some_and(|sensitive| !sensitive.value);
    let value = |text: &str| -> Box<str> {
        if ignore_case { text.to_ascii_lowercase().into() } else { text.into() }
    };
    match &matches.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => {
            Ok(PathMatch::Prefix { value: value(prefix), ignore_case })
        }
        Some(PathSpecifier::Path(path)) => Ok(PathMatch::Exact { value: value(path), ignore_case }),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            if prefix.contains(['?', '#']) || prefix.ends_with('/') || !prefix.starts_with('/') {
                return Err(Invalid::value(prefix, "a path without query and final slash"))
                    .at("path_separated_prefix");
            }
            Ok(PathMatch::SeparatedPrefix { value: value(prefix), ignore_case })
        }
        Some(PathSpecifier::SafeRegex(regex)) => {
            matcher::regex(regex).map(PathMatch::Regex).at("safe_regex")
        }
        Some(PathSpecifier::ConnectMatcher(_)) => Ok(PathMatch::Connect),
        Some(PathSpecifier::PathMatchPolicy(_)) => Err(Invalid::unsupported("path_match_policy")),
        None => Err(Invalid::missing("path_specifier")),
    }
}
