//! HTTP filters of a connection manager, and what routes say of them.

use std::{collections::HashMap, sync::Arc};

use weft_api::xds::{
    envoy::{
        config::route::v3::{CorsPolicy as PbOldCors, FilterConfig},
        extensions::filters::{
            http::{
                cors::v3::{Cors, CorsPolicy as PbCors},
                fault::v3::HttpFault,
                local_ratelimit::v3::LocalRateLimit as PbLimit,
                rbac::v3::{Rbac as PbRbac, RbacPerRoute},
                router::v3::Router,
            },
            network::http_connection_manager::v3::{HttpFilter as PbFilter, http_filter},
        },
        r#type::matcher::v3::StringMatcher as PbString,
    },
    google::protobuf::Any,
};

use super::{
    Context, fault, header,
    invalid::{At, Invalid, each},
    matcher, rate_limit, rate_limit_struct, rbac,
    value::{flag, is, runtime_fraction, type_name, unpack},
};
use crate::config::{
    filter::{FilterOverrides, Fraction, HttpFilter},
    route::CorsPolicy,
};

/// Filters that stock Envoy needs for what weft-proxy does by itself.
const BUILT_IN: &[&str] = &[
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.on_demand.v3.OnDemand",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    "io.istio.http.peer_metadata.Config",
    "stats.PluginConfig",
];

/// The filters of a connection manager; the last must be the router, which is implied.
pub fn filters(context: &Context<'_>, filters: &[PbFilter]) -> Result<Vec<HttpFilter>, Invalid> {
    let Some((last, others)) = filters.split_last() else {
        return Err(Invalid::missing("http_filters"));
    };
    let last_config = config(last);
    if !last_config.is_ok_and(is::<Router>) {
        return Err(Invalid::missing("router at the end")).at("http_filters");
    }
    let decoded = each(others, "http_filters", |filter| {
        if filter.disabled {
            return Err(Invalid::unsupported("disabled"));
        }
        match one(context, config(filter)?).at("typed_config") {
            Err(_) if filter.is_optional => Ok(None),
            result => result,
        }
    })?;
    Ok(decoded.into_iter().flatten().collect())
}

fn config(filter: &PbFilter) -> Result<&Any, Invalid> {
    match &filter.config_type {
        Some(http_filter::ConfigType::TypedConfig(config)) => Ok(config),
        Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
            Err(Invalid::unsupported("config_discovery"))
        }
        None => Err(Invalid::missing("typed_config")),
    }
}

fn one(context: &Context<'_>, config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    if is::<PbRbac>(config) {
        let rbac = rbac::http(&unpack(config)?)?;
        return Ok(Some(HttpFilter::Rbac(Arc::new(rbac))));
    }
    if let Some(limit) = limit(config)? {
        let limit = rate_limit::local_rate_limit(context, &limit)?;
        return Ok(Some(HttpFilter::LocalRateLimit(Arc::new(limit))));
    }
    if is::<HttpFault>(config) {
        let fault = fault::fault(&unpack(config)?)?;
        return Ok(Some(HttpFilter::Fault(fault.map(Arc::new))));
    }
    if is::<Cors>(config) {
        return Ok(Some(HttpFilter::Cors));
    }
    if BUILT_IN.contains(&type_name(config)) {
        return Ok(None);
    }
    Err(Invalid::unsupported_value(type_name(config)))
}

/// A local rate limit in either form; `None` when the `Any` is something else.
fn limit(config: &Any) -> Result<Option<PbLimit>, Invalid> {
    if is::<PbLimit>(config) {
        return unpack(config).map(Some);
    }
    if !rate_limit_struct::is_typed_struct(config) {
        return Ok(None);
    }
    let typed = rate_limit_struct::typed_struct(config)?;
    let name = typed.type_url.rsplit('/').next().unwrap_or_default();
    if name != <PbLimit as prost::Name>::full_name() {
        return Err(Invalid::unsupported_value(name));
    }
    let value = typed.value.unwrap_or_default();
    rate_limit_struct::local_rate_limit(&value).map(Some).at("value")
}

/// What a route, virtual host or weighted cluster says of filters, and its cross-origin policy.
#[derive(Default)]
pub struct Overrides {
    /// What filters read.
    pub filters: FilterOverrides,
    /// What the route itself reads.
    pub cors: Option<Arc<CorsPolicy>>,
}

/// `typed_per_filter_config`. The type says which filter is meant.
pub fn overrides(
    context: &Context<'_>,
    configs: &HashMap<String, Any>,
) -> Result<Overrides, Invalid> {
    let mut overrides = Overrides::default();
    // In the order of the names, so that equal limits find their buckets again.
    let mut names: Vec<_> = configs.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    for (name, config) in names {
        override_one(context, &mut overrides, config).at_key("typed_per_filter_config", name)?;
    }
    Ok(overrides)
}

fn override_one(
    context: &Context<'_>,
    overrides: &mut Overrides,
    config: &Any,
) -> Result<(), Invalid> {
    if is::<FilterConfig>(config) {
        let wrapper: FilterConfig = unpack(config)?;
        if wrapper.disabled {
            return Err(Invalid::unsupported("disabled"));
        }
        let inner = wrapper.config.as_ref().ok_or_else(|| Invalid::missing("config"))?;
        if is::<FilterConfig>(inner) {
            return Err(Invalid::unsupported("config in config"));
        }
        return match override_one(context, overrides, inner).at("config") {
            Err(_) if wrapper.is_optional => Ok(()),
            result => result,
        };
    }
    if let Some(limit) = limit(config)? {
        let limit = rate_limit::local_rate_limit(context, &limit)?;
        overrides.filters.local_rate_limit = Some(Arc::new(limit));
    } else if is::<HttpFault>(config) {
        overrides.filters.fault = fault::fault(&unpack(config)?)?.map(Arc::new);
    } else if is::<RbacPerRoute>(config) {
        let per_route: RbacPerRoute = unpack(config)?;
        let rbac = per_route.rbac.as_ref().map(rbac::http).transpose().at("rbac")?;
        overrides.filters.rbac = Some(rbac.map(Arc::new));
    } else if is::<PbCors>(config) {
        overrides.cors = cors(&unpack(config)?)?.map(Arc::new);
    } else {
        return Err(Invalid::unsupported_value(type_name(config)));
    }
    Ok(())
}

/// `envoy.extensions.filters.http.cors.v3.CorsPolicy`; `None` when it is switched off.
pub fn cors(policy: &PbCors) -> Result<Option<CorsPolicy>, Invalid> {
    let enabled =
        runtime_fraction(policy.filter_enabled.as_ref(), Fraction::ALL).at("filter_enabled")?;
    if enabled != Fraction::ALL {
        return if enabled == Fraction(0) {
            Ok(None)
        } else {
            Err(Invalid::unsupported("filter_enabled"))
        };
    }
    let value = |text: &str, field: &str| {
        Some(text)
            .filter(|text| !text.is_empty())
            .map(|text| header::value(text).at(field))
            .transpose()
    };
    Ok(Some(CorsPolicy {
        allow_origins: origins(&policy.allow_origin_string_match)?,
        allow_methods: value(&policy.allow_methods, "allow_methods")?,
        allow_headers: value(&policy.allow_headers, "allow_headers")?,
        expose_headers: value(&policy.expose_headers, "expose_headers")?,
        max_age: value(&policy.max_age, "max_age")?,
        allow_credentials: flag(policy.allow_credentials.as_ref()),
        forward_unmatched_preflights: policy
            .forward_not_matching_preflights
            .as_ref()
            .is_none_or(|forward| forward.value),
    }))
}

/// The policy in a route's own field, which has the same content.
pub fn old_cors(policy: &PbOldCors) -> Result<Option<CorsPolicy>, Invalid> {
    if policy.enabled_specifier.is_some() {
        return Err(Invalid::unsupported("filter_enabled"));
    }
    cors(&PbCors {
        allow_origin_string_match: policy.allow_origin_string_match.clone(),
        allow_methods: policy.allow_methods.clone(),
        allow_headers: policy.allow_headers.clone(),
        expose_headers: policy.expose_headers.clone(),
        max_age: policy.max_age.clone(),
        allow_credentials: policy.allow_credentials,
        forward_not_matching_preflights: policy.forward_not_matching_preflights,
        ..PbCors::default()
    })
}

fn origins(matchers: &[PbString]) -> Result<Vec<crate::config::matcher::StringMatcher>, Invalid> {
    each(matchers, "allow_origin_string_match", matcher::string)
}
