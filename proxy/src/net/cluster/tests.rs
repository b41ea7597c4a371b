use std::time::Duration;

use super::*;
use crate::config::cluster::{
    Cluster, Discovery, Endpoint, Endpoints, LbPolicy, RetryBudget, UpstreamProtocol,
};

/// An endpoint that nobody listens at: 127.0.0.1, port `index + 1`.
pub fn endpoint_of(index: u16, weight: u32) -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([127, 0, 0, 1], index + 1)),
        hostname: None,
        priority: 0,
        weight,
        healthy: true,
        transport: None,
        locality: Default::default(),
        workload: None,
        state: Arc::default(),
    }
}

pub fn endpoint(index: u16, weight: u32) -> Arc<Endpoint> {
    Arc::new(endpoint_of(index, weight))
}

/// A plaintext HTTP/1 cluster in round robin without limits.
pub fn cluster(endpoints: Vec<Arc<Endpoint>>) -> Cluster {
    Cluster {
        name: "outbound|80||orders.default.svc.cluster.local".into(),
        discovery: Discovery::Told,
        lb: LbPolicy::RoundRobin,
        connect_timeout: Duration::from_secs(10),
        protocol: UpstreamProtocol::Http1,
        max_requests_per_connection: 0,
        idle_timeout: Some(Duration::from_secs(3600)),
        max_connection_duration: None,
        max_concurrent_streams: u32::MAX,
        http2_keepalive: None,
        tcp_keepalive: None,
        limits: CircuitBreakers::default(),
        outlier: None,
        panic_threshold: 0,
        health_check: None,
        transports: Vec::new(),
        bind_source: Box::default(),
        service: None,
        endpoints: Arc::new(Endpoints { all: endpoints }),
        state: Arc::default(),
    }
}

#[test]
fn places_under_a_limit_are_given_back() {
    let state = Arc::new(ClusterState::default());
    let limits = CircuitBreakers { max_pending_requests: 2, ..CircuitBreakers::default() };
    let first = state.pending(&limits);
    let second = state.pending(&limits);
    assert!(first.is_some() && second.is_some());
    assert!(state.pending(&limits).is_none());
    drop(first);
    assert!(state.pending(&limits).is_some());
    drop(second);
    assert_eq!(state.pending.get(), 0);
    let totals = &state.totals;
    assert_eq!(totals.upstream_rq_pending_total.load(Relaxed), 3);
    assert_eq!(totals.upstream_rq_pending_overflow.load(Relaxed), 1);
}

#[test]
fn a_limit_of_nothing_lets_nothing_through() {
    let state = Arc::new(ClusterState::default());
    let limits = CircuitBreakers {
        max_connections: 0,
        max_pending_requests: 0,
        max_requests: 0,
        max_retries: 0,
        retry_budget: None,
    };
    assert!(state.pending(&limits).is_none());
    assert!(state.request(&limits).is_none());
    assert!(state.retry(&limits).is_none());
    assert!(state.connection(&limits, false).is_none());
    assert!(state.connection(&limits, true).is_some());
}

#[test]
fn a_retry_budget_follows_what_is_active() {
    let state = Arc::new(ClusterState::default());
    let budget = RetryBudget { percent: 20.0, min_concurrency: 3 };
    let limits = CircuitBreakers { retry_budget: Some(budget), ..CircuitBreakers::default() };
    let few: Vec<_> = (0..3).map(|_| state.retry(&limits)).collect();
    assert!(few.iter().all(Option::is_some));
    assert!(state.retry(&limits).is_none());
    let requests: Vec<_> = (0..25).map(|_| state.request(&limits)).collect();
    let more: Vec<_> = (0..2).map(|_| state.retry(&limits)).collect();
    assert!(more.iter().all(Option::is_some));
    assert!(state.retry(&limits).is_none());
    drop(requests);
    assert_eq!(state.totals.upstream_rq_retry_overflow.load(Relaxed), 2);
}

#[test]
fn states_are_found_again_as_long_as_somebody_holds_them() {
    let mut store = StateStore::default();
    let (name, address) = (Arc::<str>::from("c"), SocketAddr::from(([127, 0, 0, 1], 1)));
    let state = store.endpoint(&name, address);
    state.active.add();
    assert_eq!(store.endpoint(&name, address).active.get(), 1);
    assert_eq!(store.endpoint(&"d".into(), address).active.get(), 0);
    drop(state);
    assert_eq!(store.endpoint(&name, address).active.get(), 0);
    for i in 0..10_000_u16 {
        store.endpoint(&name, SocketAddr::from(([127, 0, 0, 1], i)));
    }
    assert!(store.endpoints.len() < 1_000);
}

#[test]
fn a_limit_holds_for_all_threads_together() {
    let state = Arc::new(ClusterState::default());
    let limits = CircuitBreakers { max_requests: 10, ..CircuitBreakers::default() };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    let permits: Vec<_> = (0..5).map(|_| state.request(&limits)).collect();
                    assert!(state.requests.get() <= 10);
                    drop(permits);
                }
            });
        }
    });
    assert_eq!(state.requests.get(), 0);
}
