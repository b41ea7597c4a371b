//! What routes do: forward, redirect, answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use weft_api::xds::envoy::config::{
    core::v3::Metadata,
    route::v3::{
        DirectResponseAction, RedirectAction, RouteAction as PbAction, WeightedCluster as PbSplit,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        route::Action,
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier, HashPolicy as PbHash,
            HostRewriteSpecifier, InternalRedirectAction, RequestMirrorPolicy,
            hash_policy::PolicySpecifier,
        },
        weighted_cluster::{ClusterWeight, cluster_weight},
    },
};

use super::{
    Context, filter, header,
    invalid::{At, Invalid, each, refuse, refuse_all},
    matcher::substitute,
    retry,
    value::{fraction, inline, number, port, timeout_or},
};
use crate::config::{
    filter::Fraction,
    route::{
        Forward, ForwardTarget, HashPolicy, HostRewrite, Mirror, Redirect, RouteAction,
        WeightedCluster,
    },
};

/// What Envoy waits for a response when it is not told.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// A route's action. `body_limit` bounds direct responses.
pub fn action(
    context: &Context<'_>,
    action: Option<&Action>,
    body_limit: usize,
) -> Result<RouteAction, Invalid> {
    match action {
        Some(Action::Route(action)) => forward(context, action)
            .map(|forward| RouteAction::Forward(Box::new(forward)))
            .at("route"),
        Some(Action::Redirect(action)) => redirect(action)
            .map(|redirect| RouteAction::Redirect(Box::new(redirect)))
            .at("redirect"),
        Some(Action::DirectResponse(response)) => {
            direct(response, body_limit).at("direct_response")
        }
        Some(Action::FilterAction(_)) => Err(Invalid::unsupported("filter_action")),
        Some(Action::NonForwardingAction(_)) => Err(Invalid::unsupported("non_forwarding_action")),
        None => Err(Invalid::missing("action")),
    }
}

fn forward(context: &Context<'_>, action: &PbAction) -> Result<Forward, Invalid> {
    refuse_forward(action)?;
    let (grpc_max, grpc_field) = match &action.max_stream_duration {
        Some(limits) if limits.grpc_timeout_header_max.is_some() => {
            (limits.grpc_timeout_header_max.as_ref(), "max_stream_duration.grpc_timeout_header_max")
        }
        _ => (action.max_grpc_timeout.as_ref(), "max_grpc_timeout"),
    };
    let max_grpc_timeout = grpc_max.map(super::value::duration).transpose().at(grpc_field)?;
    let not_empty = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Into::into);
    Ok(Forward {
        target: target(context, action)?,
        timeout: timeout_or(action.timeout.as_ref(), "timeout", Some(DEFAULT_TIMEOUT))?,
        idle_timeout: timeout_or(action.idle_timeout.as_ref(), "idle_timeout", None)?,
        retry: action
            .retry_policy
            .as_ref()
            .map(|policy| retry::retry(policy).map(Arc::new))
            .transpose()
            .at("retry_policy")?,
        prefix_rewrite: not_empty(&action.prefix_rewrite),
        regex_rewrite: action
            .regex_rewrite
            .as_ref()
            .map(substitute)
            .transpose()
            .at("regex_rewrite")?,
        host_rewrite: host_rewrite(action.host_rewrite_specifier.as_ref())?,
        hash: each(&action.hash_policy, "hash_policy", hash)?,
        mirrors: each(&action.request_mirror_policies, "request_mirror_policies", mirror)?,
        cors: action
            .cors
            .as_ref()
            .map(filter::old_cors)
            .transpose()
            .at("cors")?
            .flatten()
            .map(Arc::new),
        upgrades: upgrades(action)?,
        cluster_not_found: match ClusterNotFoundResponseCode::try_from(
            action.cluster_not_found_response_code,
        ) {
            Ok(ClusterNotFoundResponseCode::NotFound) => StatusCode::NOT_FOUND,
            Ok(ClusterNotFoundResponseCode::InternalServerError) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        },
        max_grpc_timeout,
    })
}

fn refuse_forward(action: &PbAction) -> Result<(), Invalid> {
    let stream_limit = match &action.max_stream_duration {
        Some(limits) => timeout_or(
            limits.max_stream_duration.as_ref(),
            "max_stream_duration.max_stream_duration",
            None,
        )?,
        None => None,
    };
    refuse_all(&[
        (stream_limit.is_some(), "max_stream_duration.max_stream_duration"),
        (has_subset(action.metadata_match.as_ref()), "metadata_match"),
        (action.path_rewrite_policy.is_some(), "path_rewrite_policy"),
        (!action.path_rewrite.is_empty(), "path_rewrite"),
        (action.append_x_forwarded_host, "append_x_forwarded_host"),
        (action.retry_policy_typed_config.is_some(), "retry_policy_typed_config"),
        (!action.rate_limits.is_empty(), "rate_limits"),
        (action.grpc_timeout_offset.is_some(), "grpc_timeout_offset"),
        (action.internal_redirect_policy.is_some(), "internal_redirect_policy"),
        (
            action.internal_redirect_action
                != InternalRedirectAction::PassThroughInternalRedirect as i32,
            "internal_redirect_action",
        ),
        (action.hedge_policy.is_some(), "hedge_policy"),
        (action.flush_timeout.is_some(), "flush_timeout"),
    ])
}

fn has_subset(metadata: Option<&Metadata>) -> bool {
    metadata.is_some_and(|metadata| metadata.filter_metadata.contains_key("envoy.lb"))
}

fn target(context: &Context<'_>, action: &PbAction) -> Result<ForwardTarget, Invalid> {
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            refuse(name.is_empty(), "cluster that is empty")?;
            Ok(ForwardTarget::Cluster(context.intern(name)))
        }
        Some(ClusterSpecifier::WeightedClusters(split)) => {
            weighted(context, split).at("weighted_clusters")
        }
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            header::name(name).map(ForwardTarget::Header).at("cluster_header")
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => {
            Err(Invalid::unsupported("cluster_specifier_plugin"))
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(Invalid::unsupported("inline_cluster_specifier_plugin"))
        }
        None => Err(Invalid::missing("cluster")),
    }
}

fn weighted(context: &Context<'_>, split: &PbSplit) -> Result<ForwardTarget, Invalid> {
    refuse(split.random_value_specifier.is_some(), "random_value_specifier")?;
    let clusters = each(&split.clusters, "clusters", |cluster| weight(context, cluster))?;
    let total = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if total == 0 {
        return Err(Invalid::value("0", "a sum of weights")).at("clusters");
    }
    Ok(ForwardTarget::Weighted { clusters, total })
}

fn weight(context: &Context<'_>, cluster: &ClusterWeight) -> Result<WeightedCluster, Invalid> {
    refuse_all(&[
        (!cluster.cluster_header.is_empty(), "cluster_header"),
        (has_subset(cluster.metadata_match.as_ref()), "metadata_match"),
        (cluster.name.is_empty(), "name that is empty"),
    ])?;
    let overrides = filter::overrides(context, &cluster.typed_per_filter_config)?;
    refuse(overrides.cors.is_some(), "typed_per_filter_config with a CORS policy")?;
    Ok(WeightedCluster {
        name: context.intern(&cluster.name),
        weight: number(cluster.weight.as_ref(), 0),
        request_headers: header::mutations(
            &cluster.request_headers_to_add,
            "request_headers_to_add",
            &cluster.request_headers_to_remove,
            "request_headers_to_remove",
        )?,
        response_headers: header::mutations(
            &cluster.response_headers_to_add,
            "response_headers_to_add",
            &cluster.response_headers_to_remove,
            "response_headers_to_remove",
        )?,
        host_rewrite: match &cluster.host_rewrite_specifier {
            Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                Some(header::value(host).at("host_rewrite_literal")?)
            }
            None => None,
        },
        filters: overrides.filters,
    })
}

fn host_rewrite(specifier: Option<&HostRewriteSpecifier>) -> Result<Option<HostRewrite>, Invalid> {
    match specifier {
        None => Ok(None),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            Ok(Some(HostRewrite::Literal(header::value(host).at("host_rewrite_literal")?)))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) => {
            Ok(auto.value.then_some(HostRewrite::Auto))
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(_)) => {
            Err(Invalid::unsupported("host_rewrite_header"))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => {
            Err(Invalid::unsupported("host_rewrite_path_regex"))
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => Err(Invalid::unsupported("host_rewrite")),
    }
}

fn hash(policy: &PbHash) -> Result<HashPolicy, Invalid> {
    let terminal = policy.terminal;
    match &policy.policy_specifier {
        Some(PolicySpecifier::Header(by)) => {
            refuse(by.regex_rewrite.is_some(), "header.regex_rewrite")?;
            let name = header::name(&by.header_name).at("header.header_name")?;
            Ok(HashPolicy::Header { name, terminal })
        }
        Some(PolicySpecifier::Cookie(cookie)) => {
            refuse(!cookie.attributes.is_empty(), "cookie.attributes")?;
            refuse(cookie.name.is_empty(), "cookie.name that is empty")?;
            let ttl =
                cookie.ttl.as_ref().map(super::value::duration).transpose().at("cookie.ttl")?;
            Ok(HashPolicy::Cookie {
                name: cookie.name.as_str().into(),
                path: cookie.path.as_str().into(),
                ttl,
                terminal,
            })
        }
        Some(PolicySpecifier::ConnectionProperties(properties)) => {
            refuse(!properties.source_ip, "connection_properties without source_ip")?;
            Ok(HashPolicy::SourceIp { terminal })
        }
        Some(PolicySpecifier::QueryParameter(parameter)) => {
            Ok(HashPolicy::Query { name: parameter.name.as_str().into(), terminal })
        }
        Some(PolicySpecifier::FilterState(_)) => Err(Invalid::unsupported("filter_state")),
        None => Err(Invalid::missing("policy_specifier")),
    }
}

/// `request_mirror_policies`.
pub fn mirror(policy: &RequestMirrorPolicy) -> Result<Mirror, Invalid> {
    refuse_all(&[
        (!policy.cluster_header.is_empty(), "cluster_header"),
        (!policy.request_headers_mutations.is_empty(), "request_headers_mutations"),
        (!policy.host_rewrite_literal.is_empty(), "host_rewrite_literal"),
        (policy.cluster.is_empty(), "cluster that is empty"),
    ])?;
    let share = match policy.runtime_fraction.as_ref().and_then(|f| f.default_value.as_ref()) {
        Some(value) => fraction(value).at("runtime_fraction.default_value")?,
        None => Fraction::ALL,
    };
    Ok(Mirror {
        cluster: policy.cluster.as_str().into(),
        fraction: share,
        keep_host: policy.disable_shadow_host_suffix_append,
    })
}

fn upgrades(action: &PbAction) -> Result<Vec<Box<str>>, Invalid> {
    let mut upgrades = Vec::new();
    for upgrade in &action.upgrade_configs {
        let enabled = upgrade.enabled.as_ref().is_none_or(|enabled| enabled.value);
        refuse(!enabled, "upgrade_configs with enabled: false")?;
        if let Some(connect) = &upgrade.connect_config {
            refuse(
                connect.proxy_protocol_config.is_some(),
                "upgrade_configs.proxy_protocol_config",
            )?;
            refuse(connect.allow_post, "upgrade_configs.allow_post")?;
        }
        upgrades.push(upgrade.upgrade_type.to_ascii_lowercase().into());
    }
    Ok(upgrades)
}

fn redirect(action: &RedirectAction) -> Result<Redirect, Invalid> {
    let not_empty =
        |text: &str| -> Option<Box<str>> { Some(text).filter(|t| !t.is_empty()).map(Into::into) };
    let status = match RedirectResponseCode::try_from(action.response_code) {
        Ok(RedirectResponseCode::MovedPermanently) => StatusCode::MOVED_PERMANENTLY,
        Ok(RedirectResponseCode::Found) => StatusCode::FOUND,
        Ok(RedirectResponseCode::SeeOther) => StatusCode::SEE_OTHER,
        Ok(RedirectResponseCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Ok(RedirectResponseCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
        Err(_) => return Err(Invalid::unsupported("response_code")),
    };
    let (mut scheme, mut https) = (None, false);
    match &action.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(value)) => https = *value,
        Some(SchemeRewriteSpecifier::SchemeRedirect(value)) => scheme = not_empty(value),
        None => {}
    }
    let (mut path, mut prefix_rewrite, mut regex_rewrite) = (None, None, None);
    match &action.path_rewrite_specifier {
        Some(PathRewriteSpecifier::PathRedirect(value)) => path = not_empty(value),
        Some(PathRewriteSpecifier::PrefixRewrite(value)) => {
            prefix_rewrite = Some(value.as_str().into());
        }
        Some(PathRewriteSpecifier::RegexRewrite(value)) => {
            regex_rewrite = Some(substitute(value).at("regex_rewrite")?);
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            return Err(Invalid::unsupported("path_rewrite"));
        }
        None => {}
    }
    header::value(&action.host_redirect).at("host_redirect")?;
    header::value(path.as_deref().unwrap_or_default()).at("path_redirect")?;
    Ok(Redirect {
        status,
        scheme,
        https,
        host: not_empty(&action.host_redirect),
        port: match action.port_redirect {
            0 => None,
            value => Some(port(value).at("port_redirect")?),
        },
        path,
        prefix_rewrite,
        regex_rewrite,
        strip_query: action.strip_query,
    })
}

fn direct(response: &DirectResponseAction, body_limit: usize) -> Result<RouteAction, Invalid> {
    refuse(response.body_format.is_some(), "body_format")?;
    let status = u16::try_from(response.status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| Invalid::value(response.status.to_string(), "a status of 200 to 599"))
        .at("status")?;
    let body = match &response.body {
        Some(source) => Bytes::from(inline(source).at("body")?),
        None => Bytes::new(),
    };
    if body.len() > body_limit {
        return Err(Invalid::value(
            format!("{} bytes", body.len()),
            "within max_direct_response_body_size_bytes",
        ))
        .at("body");
    }
    Ok(RouteAction::Direct { status, body })
}
