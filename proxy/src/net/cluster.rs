//! Clusters at run time: the state that data threads share, and the circuit breakers that count in it.
//!
//! The control thread makes states through its [`StateStore`], so that they survive updates; data threads only touch
//! the atomics. Semantics are Envoy's ("Circuit breaking", "Outlier detection" of its documentation).

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use crate::config::cluster::CircuitBreakers;

pub mod hash;
pub mod lb;
pub mod outlier;

/// What the data threads share of a cluster: atomics only.
#[derive(Debug, Default)]
pub struct ClusterState {
    /// Connections that are open or being opened.
    pub connections: Gauge,
    /// Requests that wait for a connection.
    pub pending: Gauge,
    /// Requests under way.
    pub requests: Gauge,
    /// Retries under way.
    pub retries: Gauge,
    /// Set while a data thread decides on an ejection, so that two do not exceed the share that may be ejected.
    pub ejecting: AtomicBool,
    /// Goes up whenever an endpoint is ejected or comes back; data threads keep lists of what is available.
    pub health_version: AtomicU64,
    /// Totals.
    pub totals: ClusterTotals,
}

/// What is counted of a cluster since it is known, under Envoy's names.
#[derive(Debug, Default)]
pub struct ClusterTotals {
    pub upstream_cx_total: AtomicU64,
    pub upstream_cx_connect_fail: AtomicU64,
    pub upstream_cx_connect_timeout: AtomicU64,
    pub upstream_cx_overflow: AtomicU64,
    pub upstream_cx_destroy: AtomicU64,
    pub upstream_cx_rx_bytes_total: AtomicU64,
    pub upstream_cx_tx_bytes_total: AtomicU64,
    pub upstream_cx_max_requests: AtomicU64,
    pub upstream_cx_none_healthy: AtomicU64,
    pub upstream_rq_total: AtomicU64,
    pub upstream_rq_1xx: AtomicU64,
    pub upstream_rq_2xx: AtomicU64,
    pub upstream_rq_3xx: AtomicU64,
    pub upstream_rq_4xx: AtomicU64,
    pub upstream_rq_5xx: AtomicU64,
    pub upstream_rq_pending_total: AtomicU64,
    pub upstream_rq_pending_overflow: AtomicU64,
    pub upstream_rq_pending_failure_eject: AtomicU64,
    pub upstream_rq_timeout: AtomicU64,
    pub upstream_rq_per_try_timeout: AtomicU64,
    pub upstream_rq_rx_reset: AtomicU64,
    pub upstream_rq_tx_reset: AtomicU64,
    pub upstream_rq_retry: AtomicU64,
    pub upstream_rq_retry_success: AtomicU64,
    pub upstream_rq_retry_overflow: AtomicU64,
    pub upstream_rq_retry_limit_exceeded: AtomicU64,
    pub upstream_rq_cancelled: AtomicU64,
    pub ejections_enforced_total: AtomicU64,
    pub ejections_overflow: AtomicU64,
    pub ejections_consecutive_5xx: AtomicU64,
    pub ejections_consecutive_gateway_failure: AtomicU64,
    pub ejections_consecutive_local_origin_failure: AtomicU64,
    pub health_check_attempt: AtomicU64,
    pub health_check_success: AtomicU64,
    pub health_check_failure: AtomicU64,
    pub health_check_network_failure: AtomicU64,
}

/// Adds one to a total.
pub fn count(total: &AtomicU64) {
    total.fetch_add(1, Relaxed);
}

impl ClusterTotals {
    /// Every total with Envoy's name.
    pub fn list(&self) -> [(&'static str, u64); 36] {
        let t = self;
        [
            ("upstream_cx_total", &t.upstream_cx_total),
            ("upstream_cx_connect_fail", &t.upstream_cx_connect_fail),
            ("upstream_cx_connect_timeout", &t.upstream_cx_connect_timeout),
            ("upstream_cx_overflow", &t.upstream_cx_overflow),
            ("upstream_cx_destroy", &t.upstream_cx_destroy),
            ("upstream_cx_rx_bytes_total", &t.upstream_cx_rx_bytes_total),
            ("upstream_cx_tx_bytes_total", &t.upstream_cx_tx_bytes_total),
            ("upstream_cx_max_requests", &t.upstream_cx_max_requests),
            ("upstream_cx_none_healthy", &t.upstream_cx_none_healthy),
            ("upstream_rq_total", &t.upstream_rq_total),
            ("upstream_rq_1xx", &t.upstream_rq_1xx),
            ("upstream_rq_2xx", &t.upstream_rq_2xx),
            ("upstream_rq_3xx", &t.upstream_rq_3xx),
            ("upstream_rq_4xx", &t.upstream_rq_4xx),
            ("upstream_rq_5xx", &t.upstream_rq_5xx),
            ("upstream_rq_pending_total", &t.upstream_rq_pending_total),
            ("upstream_rq_pending_overflow", &t.upstream_rq_pending_overflow),
            ("upstream_rq_pending_failure_eject", &t.upstream_rq_pending_failure_eject),
            ("upstream_rq_timeout", &t.upstream_rq_timeout),
            ("upstream_rq_per_try_timeout", &t.upstream_rq_per_try_timeout),
            ("upstream_rq_rx_reset", &t.upstream_rq_rx_reset),
            ("upstream_rq_tx_reset", &t.upstream_rq_tx_reset),
            ("upstream_rq_retry", &t.upstream_rq_retry),
            ("upstream_rq_retry_success", &t.upstream_rq_retry_success),
            ("upstream_rq_retry_overflow", &t.upstream_rq_retry_overflow),
            ("upstream_rq_retry_limit_exceeded", &t.upstream_rq_retry_limit_exceeded),
            ("upstream_rq_cancelled", &t.upstream_rq_cancelled),
            ("outlier_detection.ejections_enforced_total", &t.ejections_enforced_total),
            ("outlier_detection.ejections_overflow", &t.ejections_overflow),
            ("outlier_detection.ejections_enforced_consecutive_5xx", &t.ejections_consecutive_5xx),
            (
                "outlier_detection.ejections_enforced_consecutive_gateway_failure",
                &t.ejections_consecutive_gateway_failure,
            ),
            (
                "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
                &t.ejections_consecutive_local_origin_failure,
            ),
            ("health_check.attempt", &t.health_check_attempt),
            ("health_check.success", &t.health_check_success),
            ("health_check.failure", &t.health_check_failure),
            ("health_check.network_failure", &t.health_check_network_failure),
        ]
        .map(|(name, total)| (name, total.load(Relaxed)))
    }

    /// Whether anything was ever sent there.
    pub fn has_had_connections(&self) -> bool {
        self.upstream_cx_total.load(Relaxed) > 0
    }

    /// Counts a response by the class of its status.
    pub fn response(&self, status: u16) {
        match status / 100 {
            1 => count(&self.upstream_rq_1xx),
            2 => count(&self.upstream_rq_2xx),
            3 => count(&self.upstream_rq_3xx),
            4 => count(&self.upstream_rq_4xx),
            _ => count(&self.upstream_rq_5xx),
        }
    }
}

/// What the data threads share of an endpoint: atomics only.
#[derive(Debug, Default)]
pub struct EndpointState {
    /// Requests under way: what least-request compares.
    pub active: Gauge,
    /// Connections that are open or being opened.
    pub connections: Gauge,
    /// Requests since it is known.
    pub rq_total: AtomicU64,
    /// Of these, answered by 5xx or not at all.
    pub rq_error: AtomicU64,
    /// Connections since it is known.
    pub cx_total: AtomicU64,
    /// Of these, those that failed.
    pub cx_connect_fail: AtomicU64,
    /// Outlier detection.
    pub outlier: outlier::EndpointOutlier,
    /// What active checks say: a [`Health`].
    health: AtomicU8,
}

/// What active checks say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has not been asked yet.
    Unknown,
    /// It can take requests.
    Healthy,
    /// It cannot.
    Failed,
}

impl EndpointState {
    /// What active checks say.
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            0 => Health::Unknown,
            1 => Health::Healthy,
            _ => Health::Failed,
        }
    }

    /// Notes what active checks say, for the balancers of all threads.
    pub fn set_health(&self, health: Health, cluster: &ClusterState) {
        let value = match health {
            Health::Unknown => 0,
            Health::Healthy => 1,
            Health::Failed => 2,
        };
        self.health.store(value, Relaxed);
        cluster.health_version.fetch_add(1, Relaxed);
    }
}

/// A number of things under way.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU32);

impl Gauge {
    /// The number now.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less. Only what was added is subtracted.
    pub fn sub(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// One more unless there are `max` already.
    pub fn try_add(&self, max: u32) -> bool {
        if max == u32::MAX {
            self.add();
            return true;
        }
        self.0.try_update(Relaxed, Relaxed, |now| (now < max).then_some(now + 1)).is_ok()
    }
}

/// Which of a cluster's limits something counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Connections,
    Pending,
    Requests,
    Retries,
}

/// A place under one of a cluster's limits, given back on drop.
#[derive(Debug)]
pub struct Permit {
    state: Arc<ClusterState>,
    limit: Limit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.gauge(self.limit).sub();
    }
}

impl ClusterState {
    fn gauge(&self, limit: Limit) -> &Gauge {
        match limit {
            Limit::Connections => &self.connections,
            Limit::Pending => &self.pending,
            Limit::Requests => &self.requests,
            Limit::Retries => &self.retries,
        }
    }

    fn permit(self: &Arc<Self>, limit: Limit, max: u32) -> Option<Permit> {
        self.gauge(limit).try_add(max).then(|| Permit { state: self.clone(), limit })
    }

    /// A place for a connection, or for one beyond the limit when `must` is set (a pool's first: what waits there
    /// would otherwise wait for connections that another thread has).
    pub fn connection(self: &Arc<Self>, limits: &CircuitBreakers, must: bool) -> Option<Permit> {
        let permit = self.permit(Limit::Connections, limits.max_connections);
        if permit.is_none() {
            count(&self.totals.upstream_cx_overflow);
            if must {
                return self.permit(Limit::Connections, u32::MAX);
            }
        }
        permit
    }

    /// A place for a request that waits for a connection.
    pub fn pending(self: &Arc<Self>, limits: &CircuitBreakers) -> Option<Permit> {
        let permit = self.permit(Limit::Pending, limits.max_pending_requests);
        count(match permit {
            Some(_) => &self.totals.upstream_rq_pending_total,
            None => &self.totals.upstream_rq_pending_overflow,
        });
        permit
    }

    /// A place for a request under way.
    pub fn request(self: &Arc<Self>, limits: &CircuitBreakers) -> Option<Permit> {
        let permit = self.permit(Limit::Requests, limits.max_requests);
        if permit.is_none() {
            count(&self.totals.upstream_rq_pending_overflow);
        }
        permit
    }

    /// A place for a retry, by the cluster's budget where it has one, else by `max_retries`.
    pub fn retry(self: &Arc<Self>, limits: &CircuitBreakers) -> Option<Permit> {
        let max = match limits.retry_budget {
            None => limits.max_retries,
            Some(budget) => {
                let active = f64::from(self.requests.get()) + f64::from(self.pending.get());
                // A float's conversion saturates; a budget is never beyond what 32 bits hold.
                ((active * budget.percent / 100.0) as u32).max(budget.min_concurrency)
            }
        };
        let permit = self.permit(Limit::Retries, max);
        count(match permit {
            Some(_) => &self.totals.upstream_rq_retry,
            None => &self.totals.upstream_rq_retry_overflow,
        });
        permit
    }
}

/// Where the control thread finds the states of clusters and endpoints again when it decodes an update.
#[derive(Debug, Default)]
pub struct StateStore {
    clusters: HashMap<Arc<str>, Weak<ClusterState>>,
    endpoints: HashMap<(Arc<str>, SocketAddr), Weak<EndpointState>>,
    /// Entries at which what nobody holds is looked for.
    sweep_at: usize,
}

impl StateStore {
    /// The state of a cluster; a new one when nobody holds it any more.
    pub fn cluster(&mut self, name: &Arc<str>) -> Arc<ClusterState> {
        self.sweep();
        upgrade_or_insert(self.clusters.entry(name.clone()).or_default())
    }

    /// The state of a cluster's endpoint; a new one when nobody holds it any more.
    pub fn endpoint(&mut self, cluster: &Arc<str>, address: SocketAddr) -> Arc<EndpointState> {
        self.sweep();
        upgrade_or_insert(self.endpoints.entry((cluster.clone(), address)).or_default())
    }

    /// Forgets what nobody holds, at a cost spread over the calls.
    fn sweep(&mut self) {
        if self.clusters.len() + self.endpoints.len() > self.sweep_at {
            self.clusters.retain(|_, state| state.strong_count() > 0);
            self.endpoints.retain(|_, state| state.strong_count() > 0);
            self.sweep_at = 2 * (self.clusters.len() + self.endpoints.len()) + 64;
        }
    }
}

fn upgrade_or_insert<T: Default>(slot: &mut Weak<T>) -> Arc<T> {
    slot.upgrade().unwrap_or_else(|| {
        let state = Arc::new(T::default());
        *slot = Arc::downgrade(&state);
        state
    })
}

#[cfg(test)]
pub(crate) mod tests;
