//! The times that a forwarded request has: in all, to move on, and what the upstream is told of it.

use std::{cell::Cell, time::Duration};

use crate::{
    config::route::{Forward, RetryPolicy},
    http::{
        grpc,
        head::{Head, names},
        replay::Replay,
        response::{Deadline, millis_value},
    },
    net::clock::Alarm,
};
use ::http::HeaderMap;

/// The route's timeout; for gRPC the client's, where the route lets it say one.
pub fn overall_timeout(forward: &Forward, head: &Head) -> Option<Duration> {
    let timeout = match forward.max_grpc_timeout {
        Some(max) if head.is_grpc() => {
            let asked = grpc::timeout(&head.headers);
            match (asked, max.is_zero()) {
                (asked, true) => asked,
                (Some(asked), false) if !asked.is_zero() => Some(asked.min(max)),
                (_, false) => Some(max),
            }
        }
        _ => forward.timeout,
    };
    timeout.filter(|timeout| !timeout.is_zero())
}

pub fn expected_timeout(
    headers: &mut HeaderMap,
    overall: Option<Duration>,
    policy: Option<&RetryPolicy>,
) {
    let per_try = policy.and_then(|policy| policy.per_try_timeout).filter(|limit| !limit.is_zero());
    let expected = match (per_try, overall) {
        (Some(per_try), Some(overall)) if per_try >= overall => Some(overall),
        (Some(per_try), _) => Some(per_try),
        (None, overall) => overall,
    };
    if let Some(expected) = expected {
        headers.insert(names::EXPECTED_TIMEOUT, millis_value(expected));
    }
}

pub async fn or_never(deadline: &mut Option<Deadline>) {
    match deadline {
        Some(deadline) => deadline.await,
        None => std::future::pending().await,
    }
}

/// Waits until the client's request has not moved for so long.
pub async fn idle(body: &Replay, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    let seen = Cell::new(body.received());
    loop {
        Alarm::after(limit).await;
        if seen.replace(body.received()) == body.received() {
            return;
        }
    }
}
