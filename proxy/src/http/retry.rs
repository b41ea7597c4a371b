//! When a failed attempt is repeated, and after how long.
//!
//! Source: Envoy's `RetryStateImpl`: which failures count, in which order the limits are looked at, full jitter.

use std::time::Duration;

use ::http::{HeaderMap, StatusCode};

use super::{grpc, head::names};
use crate::config::route::{RetryOn, RetryPolicy};

/// How an attempt failed without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// A circuit breaker was open: never repeated.
    Overflow,
    /// No connection came about.
    ConnectFailure,
    /// The endpoint says that it did not process the request.
    Refused,
    /// The connection or stream broke.
    Broken {
        /// Nothing of the request was sent.
        before_request: bool,
    },
    /// The attempt took too long.
    PerTryTimeout,
}

/// What a policy says of a failure, limits aside.
pub fn retries_reset(policy: &RetryPolicy, reset: Reset) -> bool {
    let on = &policy.on;
    let any = on.reset || on.server_error || on.gateway_error;
    match reset {
        Reset::Overflow => false,
        Reset::ConnectFailure => any || on.reset_before_request || on.connect_failure,
        Reset::Refused => any || on.refused_stream,
        Reset::Broken { before_request } => any || (before_request && on.reset_before_request),
        Reset::PerTryTimeout => any,
    }
}

/// What a policy says of a response, limits aside.
pub fn retries_response(policy: &RetryPolicy, status: StatusCode, headers: &HeaderMap) -> bool {
    let on = &policy.on;
    // Whoever is overloaded is not asked again.
    if headers.contains_key(names::OVERLOADED) {
        return false;
    }
    if headers.contains_key(names::RATE_LIMITED) {
        return on.envoy_ratelimited;
    }
    let code = status.as_u16();
    (on.server_error && status.is_server_error())
        || (on.gateway_error && matches!(code, 502..=504))
        || (on.retriable_4xx && code == 409)
        || (on.retriable_status_codes && policy.statuses.contains(&code))
        || retries_grpc(on, headers)
}

/// gRPC statuses count where they are in the head (trailers-only responses): what came after a body cannot be repeated.
fn retries_grpc(on: &RetryOn, headers: &HeaderMap) -> bool {
    let wanted = on.grpc_cancelled
        || on.grpc_deadline_exceeded
        || on.grpc_internal
        || on.grpc_resource_exhausted
        || on.grpc_unavailable;
    wanted
        && match grpc::status(headers) {
            Some(grpc::CANCELLED) => on.grpc_cancelled,
            Some(grpc::DEADLINE_EXCEEDED) => on.grpc_deadline_exceeded,
            Some(grpc::INTERNAL) => on.grpc_internal,
            Some(grpc::RESOURCE_EXHAUSTED) => on.grpc_resource_exhausted,
            Some(grpc::UNAVAILABLE) => on.grpc_unavailable,
            _ => false,
        }
}

/// The wait before the n-th retry (from 1): between nothing and `base * 2^(n-1)`, at most `max`.
pub fn backoff(policy: &RetryPolicy, retry: u32) -> Duration {
    let factor = 1_u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX);
    let ceiling = policy.backoff_base.saturating_mul(factor).min(policy.backoff_max);
    ceiling.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderName, HeaderValue};

    use super::*;

    fn policy(on: RetryOn) -> RetryPolicy {
        RetryPolicy {
            on,
            retries: 2,
            per_try_timeout: None,
            statuses: vec![418],
            avoid_previous_hosts: true,
            host_selection_attempts: 5,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
        }
    }

    #[test]
    fn resets_are_retried_as_the_policy_says() {
        let none = RetryOn::default();
        let unsent = Reset::Broken { before_request: true };
        let sent = Reset::Broken { before_request: false };
        for (on, retried) in [
            (none, vec![]),
            (
                RetryOn { server_error: true, ..none },
                vec![Reset::ConnectFailure, Reset::Refused, unsent, sent, Reset::PerTryTimeout],
            ),
            (
                RetryOn { gateway_error: true, ..none },
                vec![Reset::ConnectFailure, Reset::Refused, unsent, sent, Reset::PerTryTimeout],
            ),
            (
                RetryOn { reset: true, ..none },
                vec![Reset::ConnectFailure, Reset::Refused, unsent, sent, Reset::PerTryTimeout],
            ),
            (RetryOn { reset_before_request: true, ..none }, vec![Reset::ConnectFailure, unsent]),
            (RetryOn { connect_failure: true, ..none }, vec![Reset::ConnectFailure]),
            (RetryOn { refused_stream: true, ..none }, vec![Reset::Refused]),
            (RetryOn { retriable_4xx: true, retriable_status_codes: true, ..none }, vec![]),
        ] {
            let policy = policy(on);
            for reset in [
                Reset::Overflow,
                Reset::ConnectFailure,
                Reset::Refused,
                unsent,
                sent,
                Reset::PerTryTimeout,
            ] {
                assert_eq!(
                    retries_reset(&policy, reset),
                    retried.contains(&reset),
                    "{on:?} {reset:?}"
                );
            }
        }
    }

    #[test]
    fn responses_are_retried_as_the_policy_says() {
        let none = RetryOn::default();
        let five = RetryOn { server_error: true, ..none };
        let unavailable = RetryOn { grpc_unavailable: true, ..none };
        for (on, status, header, expected) in [
            (none, 503, None, false),
            (five, 500, None, true),
            (five, 503, None, true),
            (five, 429, None, false),
            (five, 503, Some(("x-envoy-overloaded", "true")), false),
            (five, 503, Some(("x-envoy-ratelimited", "true")), false),
            (
                RetryOn { envoy_ratelimited: true, ..none },
                429,
                Some(("x-envoy-ratelimited", "true")),
                true,
            ),
            (RetryOn { gateway_error: true, ..none }, 500, None, false),
            (RetryOn { gateway_error: true, ..none }, 504, None, true),
            (RetryOn { retriable_4xx: true, ..none }, 409, None, true),
            (RetryOn { retriable_4xx: true, ..none }, 404, None, false),
            (RetryOn { retriable_status_codes: true, ..none }, 418, None, true),
            (RetryOn { retriable_status_codes: true, ..none }, 503, None, false),
            (unavailable, 200, Some(("grpc-status", "14")), true),
            (unavailable, 200, Some(("grpc-status", "13")), false),
            (unavailable, 200, Some(("grpc-status", "x")), false),
            (RetryOn { grpc_cancelled: true, ..none }, 200, Some(("grpc-status", "1")), true),
        ] {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                retries_response(&policy(on), status, &headers),
                expected,
                "{on:?} {status} {header:?}"
            );
        }
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let policy = policy(RetryOn::default());
        for (retry, ceiling) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250)] {
            for _ in 0..100 {
                assert!(backoff(&policy, retry) <= Duration::from_millis(ceiling), "{retry}");
            }
        }
    }
}
