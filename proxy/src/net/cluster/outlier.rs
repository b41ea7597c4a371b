//! Outlier detection: endpoints that keep failing are left out for a while.
//!
//! Ejection happens when a count of consecutive failures is reached; the endpoint comes back when its time is over,
//! without a sweep: whoever looks compares a time. The n-th ejection lasts n times the base; every interval without an
//! ejection takes one off n. At most `max_ejection_percent` of the endpoints are out, but one always may be.
//! Source: Envoy, "Outlier detection".

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{ClusterState, EndpointState, count};
use crate::{
    config::cluster::{Endpoint, OutlierDetection},
    net::clock::millis,
};
use std::sync::Arc;

/// What an attempt on an endpoint came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered with this status (a gRPC status is mapped to HTTP's first).
    Status(u16),
    /// It was connected to; resets only what counts failures of our own side.
    Connected,
    /// It could not be connected to.
    ConnectFailed,
    /// It did not answer in time.
    TimedOut,
    /// The connection or stream broke after the request went out.
    Reset,
}

impl Outcome {
    /// The status that stands for it when failures of both sides are counted together, as Envoy maps them.
    fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            Self::Connected => None,
            Self::ConnectFailed => Some(503),
            Self::TimedOut => Some(504),
            Self::Reset => Some(500),
        }
    }

    fn is_local_failure(self) -> bool {
        matches!(self, Self::ConnectFailed | Self::TimedOut)
    }
}

/// The HTTP status that a gRPC status counts as.
pub fn grpc_to_http(status: u32) -> u16 {
    match status {
        0 => 200,
        3 | 11 => 400,
        16 => 401,
        7 => 403,
        5 => 404,
        6 | 9 | 10 => 409,
        8 => 429,
        1 => 499,
        12 => 501,
        14 => 503,
        4 => 504,
        _ => 500,
    }
}

/// An endpoint's record.
#[derive(Debug, Default)]
pub struct EndpointOutlier {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    /// On the process's clock; 0: never ejected.
    ejected_until_ms: AtomicU64,
    /// How often it was ejected, less what was forgiven.
    ejections: AtomicU32,
}

impl EndpointOutlier {
    /// Whether it is left out at this time.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        now_ms < self.ejected_until_ms.load(Relaxed)
    }

    /// When it comes back, if it is left out.
    pub fn ejected_until(&self, now_ms: u64) -> Option<u64> {
        Some(self.ejected_until_ms.load(Relaxed)).filter(|until| now_ms < *until)
    }

    /// Ejections that count towards the length of the next one.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    fn reset(&self) {
        self.consecutive_5xx.store(0, Relaxed);
        self.consecutive_gateway.store(0, Relaxed);
        self.consecutive_local.store(0, Relaxed);
    }

    /// Counts; says which limit was reached.
    fn note(&self, outcome: Outcome, settings: &OutlierDetection) -> Option<Reason> {
        let mut reached = None;
        let mut bump = |counter: &AtomicU32, limit: u32, reason| {
            let seen = counter.fetch_add(1, Relaxed).saturating_add(1);
            if limit > 0 && seen >= limit {
                reached.get_or_insert(reason);
            }
        };
        if settings.split_external_local_origin_errors {
            if outcome.is_local_failure() {
                bump(
                    &self.consecutive_local,
                    settings.consecutive_local_origin_failure,
                    Reason::LocalOrigin,
                );
                return reached;
            }
            self.consecutive_local.store(0, Relaxed);
        }
        let Some(status) = outcome.status() else { return reached };
        if status < 500 {
            self.consecutive_5xx.store(0, Relaxed);
            self.consecutive_gateway.store(0, Relaxed);
            return reached;
        }
        bump(&self.consecutive_5xx, settings.consecutive_5xx, Reason::Consecutive5xx);
        if matches!(status, 502..=504) {
            bump(
                &self.consecutive_gateway,
                settings.consecutive_gateway_failure,
                Reason::GatewayFailure,
            );
        } else {
            self.consecutive_gateway.store(0, Relaxed);
        }
        reached
    }

    fn eject(&self, settings: &OutlierDetection, now_ms: u64) {
        let interval = millis(settings.interval).max(1);
        let back = self.ejected_until_ms.load(Relaxed);
        let forgiven = u32::try_from(now_ms.saturating_sub(back) / interval).unwrap_or(u32::MAX);
        let times = self.ejections.load(Relaxed).saturating_sub(forgiven).saturating_add(1);
        let base = millis(settings.base_ejection_time);
        let longest = millis(settings.max_ejection_time).max(base);
        let time = base.saturating_mul(u64::from(times)).min(longest);
        self.ejections.store(times, Relaxed);
        self.ejected_until_ms.store(now_ms.saturating_add(time), Relaxed);
        self.reset();
    }
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Consecutive5xx,
    GatewayFailure,
    LocalOrigin,
}

/// Notes what an attempt came to, and ejects the endpoint when that is due. True when it was ejected.
pub fn report(
    cluster: &ClusterState,
    endpoints: &[Arc<Endpoint>],
    endpoint: &EndpointState,
    settings: &OutlierDetection,
    (outcome, now_ms): (Outcome, u64),
) -> bool {
    let Some(reason) = endpoint.outlier.note(outcome, settings) else { return false };
    if endpoint.outlier.is_ejected(now_ms) || cluster.ejecting.swap(true, Relaxed) {
        return false;
    }
    let out = endpoints.iter().filter(|e| e.state.outlier.is_ejected(now_ms)).count() as u64;
    let allowed = endpoints.len() as u64 * u64::from(settings.max_ejection_percent);
    let eject = out == 0 || (out + 1) * 100 <= allowed;
    let totals = &cluster.totals;
    if eject {
        endpoint.outlier.eject(settings, now_ms);
        cluster.health_version.fetch_add(1, Relaxed);
        count(&totals.ejections_enforced_total);
        count(match reason {
            Reason::Consecutive5xx => &totals.ejections_consecutive_5xx,
            Reason::GatewayFailure => &totals.ejections_consecutive_gateway_failure,
            Reason::LocalOrigin => &totals.ejections_consecutive_local_origin_failure,
        });
    } else {
        count(&totals.ejections_overflow);
        endpoint.outlier.reset();
    }
    cluster.ejecting.store(false, Relaxed);
    eject
}

#[cfg(test)]
mod tests;
