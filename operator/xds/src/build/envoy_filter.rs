//! EnvoyFilter: the local rate limit, as a filter of inbound requests or as a setting of an inbound route.
//!
//! Which patches have an effect is `weft-crds`'s to say ([`PatchEffect`]); validation reports the others.

use std::sync::Arc;

use weft_api::xds::{
    envoy::{
        config::{
            core::v3::{
                HeaderValue, HeaderValueOption, RuntimeFractionalPercent,
                header_value_option::HeaderAppendAction,
            },
            route::v3::RouteConfiguration,
        },
        extensions::filters::{
            http::local_ratelimit::v3::LocalRateLimit as EnvoyLimit,
            network::http_connection_manager::v3::{
                HttpFilter, http_filter::ConfigType as HttpConfig,
            },
        },
        r#type::v3::{
            FractionalPercent, HttpStatus, TokenBucket, fractional_percent::DenominatorType,
        },
    },
    google::protobuf::Any,
};
use weft_core::resource::Resource;
use weft_crds::networking::{
    EnvoyConfigObjectPatch, EnvoyFilterSpec, LocalRateLimit, PatchEffect, RuntimeFraction,
};

use super::message::{duration, uint32};
use crate::wire;

use super::http::LOCAL_RATE_LIMIT as FILTER;

/// The HTTP filters that EnvoyFilters insert into the inbound chains of a workload's port, in order. They stand
/// before the router, whichever filter the patch names as its neighbour.
pub(crate) fn inbound_http_filters(
    filters: &[Arc<Resource<EnvoyFilterSpec>>],
    port: u16,
) -> Vec<HttpFilter> {
    let limit = |patch: &EnvoyConfigObjectPatch| match patch.effect() {
        PatchEffect::LocalRateLimit(limit) if matches_listener(patch, port) => Some(HttpFilter {
            name: FILTER.into(),
            config_type: Some(HttpConfig::TypedConfig(packed(&limit))),
            ..HttpFilter::default()
        }),
        _ => None,
    };
    patches(filters).filter_map(limit).collect()
}

/// Merges what EnvoyFilters say of an inbound port's routes into its route configuration.
pub(crate) fn apply_to_inbound_route(
    filters: &[Arc<Resource<EnvoyFilterSpec>>],
    config: &mut RouteConfiguration,
    port: u16,
) {
    for patch in patches(filters) {
        if let PatchEffect::RouteLocalRateLimit(limit) = patch.effect() {
            limit_routes(config, patch, port, &packed(&limit));
        }
    }
}

fn limit_routes(
    config: &mut RouteConfiguration,
    patch: &EnvoyConfigObjectPatch,
    port: u16,
    limit: &Any,
) {
    let wanted = patch.matches.as_ref().and_then(|m| m.route_configuration.as_ref());
    if wanted.is_some_and(|wanted| !is_or_unset(wanted.port_number, port)) {
        return;
    }
    let vhost = wanted.and_then(|wanted| wanted.vhost.as_ref());
    let route = vhost.and_then(|vhost| vhost.route.as_ref());
    let named = |wanted: Option<&String>, name: &str| {
        wanted.is_none_or(|wanted| wanted.is_empty() || wanted == name)
    };
    for host in &mut config.virtual_hosts {
        if named(vhost.map(|vhost| &vhost.name), &host.name) {
            for candidate in &mut host.routes {
                if named(route.map(|route| &route.name), &candidate.name) {
                    candidate.typed_per_filter_config.insert(FILTER.into(), limit.clone());
                }
            }
        }
    }
}

fn patches(
    filters: &[Arc<Resource<EnvoyFilterSpec>>],
) -> impl Iterator<Item = &EnvoyConfigObjectPatch> {
    filters.iter().flat_map(|filter| &filter.spec.config_patches)
}

fn is_or_unset(wanted: u32, port: u16) -> bool {
    wanted == 0 || wanted == u32::from(port)
}

fn matches_listener(patch: &EnvoyConfigObjectPatch, port: u16) -> bool {
    let listener = patch.matches.as_ref().and_then(|matches| matches.listener.as_ref());
    listener.is_none_or(|listener| {
        let chain = listener.filter_chain.as_ref();
        is_or_unset(listener.port_number, port)
            && chain.is_none_or(|chain| is_or_unset(chain.destination_port, port))
    })
}

fn packed(limit: &LocalRateLimit) -> Any {
    let prefix = limit.stat_prefix.as_str();
    let header = |option: &weft_crds::networking::HeaderValueOption| HeaderValueOption {
        header: Some(HeaderValue {
            key: option.header.key.clone(),
            value: option.header.value.clone(),
            ..HeaderValue::default()
        }),
        append_action: if option.replaces() {
            HeaderAppendAction::OverwriteIfExistsOrAdd
        } else {
            HeaderAppendAction::AppendIfExistsOrAdd
        } as i32,
        keep_empty_value: option.keep_empty_value,
        ..HeaderValueOption::default()
    };
    wire::pack(&EnvoyLimit {
        stat_prefix: if prefix.is_empty() { "http_local_rate_limiter" } else { prefix }.into(),
        status: limit
            .status
            .and_then(|status| Some(HttpStatus { code: i32::try_from(status.code).ok()? })),
        token_bucket: limit.token_bucket.map(|bucket| TokenBucket {
            max_tokens: bucket.max_tokens,
            tokens_per_fill: bucket.tokens_per_fill.map(uint32),
            fill_interval: Some(duration(bucket.fill_interval.into())),
        }),
        // Envoy's own default is 0 %, which would make what people write down do nothing. Without a bucket it is right:
        // such a filter is there for the routes that have one.
        filter_enabled: limit.token_bucket.map(|_| share(limit.filter_enabled.as_ref())),
        filter_enforced: limit.token_bucket.map(|_| share(limit.filter_enforced.as_ref())),
        response_headers_to_add: limit.response_headers_to_add.iter().map(header).collect(),
        rate_limited_as_resource_exhausted: limit.rate_limited_as_resource_exhausted,
        ..EnvoyLimit::default()
    })
}

fn share(given: Option<&RuntimeFraction>) -> RuntimeFractionalPercent {
    let default_value = match given.map(|share| &share.default_value) {
        None => FractionalPercent { numerator: 100, denominator: DenominatorType::Hundred as i32 },
        Some(given) => FractionalPercent {
            numerator: given.numerator,
            denominator: DenominatorType::from_str_name(&given.denominator)
                .unwrap_or(DenominatorType::Hundred) as i32,
        },
    };
    RuntimeFractionalPercent { default_value: Some(default_value), runtime_key: String::new() }
}

#[cfg(test)]
mod tests;
