//! Retries (`istio-behaviours` 2.6).

use weft_api::xds::envoy::{
    config::route::v3::{
        RetryPolicy,
        retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate},
    },
    extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
};
use weft_crds::networking::HttpRetry;

use crate::{
    build::message::{duration, uint32},
    wire,
};

/// What is retried unless somebody says otherwise: failures after which the request certainly had no effect.
const DEFAULT_RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const DEFAULT_RETRIES: u32 = 2;
const STATUS_CODES: &str = "retriable-status-codes";

/// Whether endpoints that were tried are avoided: not where a hash decides (item 41).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreviousHosts {
    Avoid,
    Allow,
}

fn policy(retry_on: String, retries: u32, hosts: PreviousHosts) -> RetryPolicy {
    let mut policy =
        RetryPolicy { retry_on, num_retries: Some(uint32(retries)), ..RetryPolicy::default() };
    if hosts == PreviousHosts::Avoid {
        policy.retry_host_predicate = vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".into(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(wire::pack(
                &PreviousHostsPredicate {},
            ))),
        }];
        policy.host_selection_retry_max_attempts = 5;
    }
    policy
}

/// The retries of a route; `None` when there are to be none.
pub(super) fn build(settings: Option<&HttpRetry>, hosts: PreviousHosts) -> Option<RetryPolicy> {
    let Some(settings) = settings else {
        return Some(policy(DEFAULT_RETRY_ON.into(), DEFAULT_RETRIES, hosts));
    };
    if settings.attempts == 0 {
        return None;
    }
    let (retry_on, codes) = conditions(&settings.retry_on);
    let hosts = match settings.retry_ignore_previous_hosts {
        Some(false) => PreviousHosts::Allow,
        _ => hosts,
    };
    let mut policy = policy(retry_on, settings.attempts, hosts);
    policy.retriable_status_codes = codes;
    policy.per_try_timeout =
        settings.per_try_timeout.filter(|t| !t.is_zero()).map(|timeout| duration(timeout.0));
    policy.retry_back_off = settings.backoff.map(|backoff| RetryBackOff {
        base_interval: Some(duration(backoff.0)),
        max_interval: None,
    });
    Some(policy)
}

/// Numbers among the conditions are status codes.
fn conditions(retry_on: &str) -> (String, Vec<u32>) {
    let mut names = Vec::new();
    let mut codes = Vec::new();
    for condition in retry_on.split(',').map(str::trim).filter(|condition| !condition.is_empty()) {
        match condition.parse::<u32>() {
            Ok(code) => codes.push(code),
            Err(_) => names.push(condition),
        }
    }
    if names.is_empty() && codes.is_empty() {
        return (DEFAULT_RETRY_ON.into(), codes);
    }
    if !codes.is_empty() && !names.contains(&STATUS_CODES) {
        names.push(STATUS_CODES);
    }
    (names.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_names_and_status_codes() {
        let table: [(&str, &str, &[u32]); 5] = [
            ("", DEFAULT_RETRY_ON, &[]),
            ("5xx,reset", "5xx,reset", &[]),
            ("503, 429", "retriable-status-codes", &[503, 429]),
            ("reset,503,retriable-status-codes", "reset,retriable-status-codes", &[503]),
            (" , ", DEFAULT_RETRY_ON, &[]),
        ];
        for (text, names, codes) in table {
            assert_eq!(conditions(text), (names.to_owned(), codes.to_vec()), "{text}");
        }
    }
}
