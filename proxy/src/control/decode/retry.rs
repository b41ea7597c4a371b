//! Retry policies.

use std::time::Duration;

use weft_api::xds::envoy::config::route::v3::{RetryPolicy as PbRetry, retry_policy};

use super::{
    invalid::{At, Invalid, refuse_all},
    value::{duration_or, number, timeout_or, type_name},
};
use crate::config::route::{RetryOn, RetryPolicy};

const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

/// `envoy.config.route.v3.RetryPolicy`.
pub fn retry(policy: &PbRetry) -> Result<RetryPolicy, Invalid> {
    refuse_all(&[
        (policy.retry_priority.is_some(), "retry_priority"),
        (!policy.retry_options_predicates.is_empty(), "retry_options_predicates"),
        (policy.rate_limited_retry_back_off.is_some(), "rate_limited_retry_back_off"),
        (!policy.retriable_headers.is_empty(), "retriable_headers"),
        (!policy.retriable_request_headers.is_empty(), "retriable_request_headers"),
    ])?;
    if timeout_or(policy.per_try_idle_timeout.as_ref(), "per_try_idle_timeout", None)?.is_some() {
        return Err(Invalid::unsupported("per_try_idle_timeout"));
    }
    let back_off = policy.retry_back_off.unwrap_or_default();
    let backoff_base = duration_or(
        back_off.base_interval.as_ref(),
        "retry_back_off.base_interval",
        Duration::from_millis(25),
    )?
    .max(Duration::from_millis(1));
    let backoff_max = duration_or(
        back_off.max_interval.as_ref(),
        "retry_back_off.max_interval",
        backoff_base.saturating_mul(10),
    )?;
    if backoff_max < backoff_base {
        return Err(Invalid::value(format!("{backoff_max:?}"), "base_interval or longer"))
            .at("retry_back_off.max_interval");
    }
    let statuses = policy
        .retriable_status_codes
        .iter()
        .map(|status| {
            u16::try_from(*status)
                .ok()
                .filter(|status| (100..600).contains(status))
                .ok_or_else(|| Invalid::value(status.to_string(), "a status"))
                .at("retriable_status_codes")
        })
        .collect::<Result<_, _>>()?;
    Ok(RetryPolicy {
        on: retry_on(&policy.retry_on).at("retry_on")?,
        retries: number(policy.num_retries.as_ref(), 1),
        per_try_timeout: timeout_or(policy.per_try_timeout.as_ref(), "per_try_timeout", None)?,
        statuses,
        avoid_previous_hosts: avoid_previous_hosts(policy)?,
        host_selection_attempts: u32::try_from(policy.host_selection_retry_max_attempts)
            .unwrap_or_default()
            .max(1),
        backoff_base,
        backoff_max,
    })
}

fn avoid_previous_hosts(policy: &PbRetry) -> Result<bool, Invalid> {
    for predicate in &policy.retry_host_predicate {
        let known = match &predicate.config_type {
            Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(config)) => {
                type_name(config) == PREVIOUS_HOSTS
            }
            None => predicate.name == "envoy.retry_host_predicates.previous_hosts",
        };
        if !known {
            return Err(Invalid::unsupported_value(&predicate.name)).at("retry_host_predicate");
        }
    }
    Ok(!policy.retry_host_predicate.is_empty())
}

fn retry_on(list: &str) -> Result<RetryOn, Invalid> {
    let mut on = RetryOn::default();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let field = match name {
            "5xx" => &mut on.server_error,
            "gateway-error" => &mut on.gateway_error,
            "reset" => &mut on.reset,
            "reset-before-request" => &mut on.reset_before_request,
            "connect-failure" => &mut on.connect_failure,
            "refused-stream" => &mut on.refused_stream,
            "retriable-4xx" => &mut on.retriable_4xx,
            "retriable-status-codes" => &mut on.retriable_status_codes,
            "retriable-headers" => &mut on.retriable_headers,
            "envoy-ratelimited" => &mut on.envoy_ratelimited,
            "http3-post-connect-failure" => &mut on.http3_post_connect_failure,
            "cancelled" => &mut on.grpc_cancelled,
            "deadline-exceeded" => &mut on.grpc_deadline_exceeded,
            "internal" => &mut on.grpc_internal,
            "resource-exhausted" => &mut on.grpc_resource_exhausted,
            "unavailable" => &mut on.grpc_unavailable,
            other => return Err(Invalid::unsupported_value(other)),
        };
        *field = true;
    }
    Ok(on)
}
