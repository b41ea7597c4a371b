use std::time::Duration;

use super::*;
use crate::{
    config::cluster::OutlierDetection,
    net::cluster::{
        outlier::{Outcome, report},
        tests::{cluster, endpoint, endpoint_of},
    },
};

fn balancer(lb: LbPolicy, endpoints: Vec<Arc<Endpoint>>) -> Balancer {
    Balancer::new(Arc::new(Cluster { lb, ..cluster(endpoints) }))
}

fn shares(balancer: &Balancer, picks: usize) -> Vec<usize> {
    let mut counts = vec![0; balancer.cluster.endpoints.all.len()];
    for _ in 0..picks {
        let picked = balancer.pick(None, &[], 0).unwrap();
        let index = balancer.cluster.endpoints.all.iter().position(|e| Arc::ptr_eq(e, &picked));
        counts[index.unwrap()] += 1;
    }
    counts
}

fn assert_near(counts: &[usize], expected: &[usize], by: usize) {
    for (count, expected) in counts.iter().zip(expected) {
        assert!(count.abs_diff(*expected) <= by, "{counts:?}, expected about {expected:?}");
    }
}

#[test]
fn round_robin_takes_turns() {
    let even = balancer(LbPolicy::RoundRobin, (0..3).map(|i| endpoint(i, 1)).collect());
    assert_eq!(shares(&even, 300), [100, 100, 100]);
    let weighted = vec![endpoint(0, 1), endpoint(1, 3), endpoint(2, 6)];
    assert_near(&shares(&balancer(LbPolicy::RoundRobin, weighted), 1000), &[100, 300, 600], 2);
}

#[test]
fn random_choices_follow_the_weights() {
    let endpoints = vec![endpoint(0, 1), endpoint(1, 3), endpoint(2, 6)];
    // Five standard deviations of a binomial of 30,000 at 1/2 are 433.
    let counts = shares(&balancer(LbPolicy::Random, endpoints), 30_000);
    assert_near(&counts, &[3_000, 9_000, 18_000], 433);
}

#[test]
fn least_request_prefers_who_has_less_to_do() {
    let endpoints: Vec<_> = (0..2).map(|i| endpoint(i, 1)).collect();
    endpoints[0].state.active.add();
    let two = balancer(LbPolicy::LeastRequest { choices: 2 }, endpoints);
    assert_eq!(shares(&two, 100), [0, 100]);

    let idle = vec![endpoint(0, 1), endpoint(1, 3)];
    let idle = balancer(LbPolicy::LeastRequest { choices: 2 }, idle);
    assert_near(&shares(&idle, 40_000), &[10_000, 30_000], 433);
}

#[test]
fn an_ejected_endpoint_is_left_out_until_its_time_is_over() {
    let endpoints: Vec<_> = (0..3).map(|i| endpoint(i, 1)).collect();
    let balancer = balancer(LbPolicy::RoundRobin, endpoints.clone());
    assert_eq!(shares(&balancer, 3), [1, 1, 1]);
    let settings = OutlierDetection {
        consecutive_5xx: 1,
        consecutive_gateway_failure: 0,
        consecutive_local_origin_failure: 0,
        split_external_local_origin_errors: false,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 50,
    };
    let state = &balancer.cluster.state;
    assert!(report(state, &endpoints, &endpoints[1].state, &settings, (Outcome::Reset, 5)));
    let picks = |now| -> Vec<_> {
        let mut ports: Vec<_> =
            (0..6).map(|_| balancer.pick(None, &[], now).unwrap().address.port()).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(picks(30_004), [1, 1, 1, 3, 3, 3]);
    assert_eq!(picks(30_005), [1, 1, 2, 2, 3, 3]);
}

#[test]
fn endpoints_that_were_tried_are_avoided_where_there_are_others() {
    for lb in [
        LbPolicy::RoundRobin,
        LbPolicy::Random,
        LbPolicy::LeastRequest { choices: 2 },
        LbPolicy::RingHash { minimum_size: 64 },
        LbPolicy::Maglev { table_size: 101 },
    ] {
        let endpoints: Vec<_> = (0..3).map(|i| endpoint(i, 1)).collect();
        let tried = [endpoints[0].address, endpoints[2].address];
        let balancer = balancer(lb, endpoints);
        for _ in 0..50 {
            assert_eq!(balancer.pick(Some(7), &tried, 0).unwrap().address.port(), 2, "{lb:?}");
        }
        let all: Vec<_> = balancer.cluster.endpoints.all.iter().map(|e| e.address).collect();
        assert!(balancer.pick(Some(7), &all, 0).is_some(), "{lb:?}");
    }
}

#[test]
fn the_next_priority_is_used_as_far_as_the_first_is_missing() {
    for (available, expected) in [
        (vec![(10, 10), (10, 10)], vec![100, 0]),
        (vec![(5, 10), (10, 10)], vec![70, 30]),
        (vec![(0, 10), (10, 10)], vec![0, 100]),
        (vec![(1, 10), (1, 10)], vec![50, 50]),
        (vec![(0, 10), (0, 10), (3, 10)], vec![0, 0, 100]),
        (vec![(0, 10)], vec![0]),
    ] {
        let loads: Vec<u32> = loads(&available).into_iter().map(|(load, _)| load).collect();
        assert_eq!(loads, expected, "{available:?}");
    }
}

#[test]
fn unhealthy_endpoints_are_used_only_in_a_panic() {
    let sick = |port| Arc::new(Endpoint { healthy: false, ..endpoint_of(port, 1) });
    let endpoints = vec![endpoint(0, 1), sick(1), sick(2), sick(3)];
    let calm = balancer(LbPolicy::RoundRobin, endpoints.clone());
    assert_eq!(shares(&calm, 8), [8, 0, 0, 0]);
    let panic = Balancer::new(Arc::new(Cluster { panic_threshold: 50, ..cluster(endpoints) }));
    assert_eq!(shares(&panic, 8), [2, 2, 2, 2]);

    let all_sick = vec![sick(1), sick(2)];
    let calm = balancer(LbPolicy::RoundRobin, all_sick.clone());
    assert!(calm.pick(None, &[], 0).is_none());
    let panic = Balancer::new(Arc::new(Cluster { panic_threshold: 50, ..cluster(all_sick) }));
    assert_eq!(shares(&panic, 8), [4, 4]);
}

#[test]
fn an_empty_cluster_has_nobody() {
    for lb in [
        LbPolicy::RoundRobin,
        LbPolicy::Random,
        LbPolicy::LeastRequest { choices: 2 },
        LbPolicy::RingHash { minimum_size: 1024 },
        LbPolicy::Maglev { table_size: 65_537 },
    ] {
        assert!(balancer(lb, Vec::new()).pick(Some(1), &[], 0).is_none(), "{lb:?}");
    }
}

#[test]
fn hashes_keep_their_endpoint_when_another_one_leaves() {
    for lb in [LbPolicy::RingHash { minimum_size: 1024 }, LbPolicy::Maglev { table_size: 65_537 }] {
        let all: Vec<_> = (0..5).map(|i| endpoint(i, 1)).collect();
        let fewer: Vec<_> = all.iter().filter(|e| e.address.port() != 3).cloned().collect();
        let (before, after) = (balancer(lb, all), balancer(lb, fewer));
        let mut counts = [0; 6];
        let mut moved = 0;
        for i in 0..5_000_u64 {
            let hash = Some(super::super::hash::xxh64(&i.to_be_bytes(), 0));
            let old = before.pick(hash, &[], 0).unwrap().address.port();
            let new = after.pick(hash, &[], 0).unwrap().address.port();
            counts[usize::from(old)] += 1;
            moved += usize::from(old != 3 && old != new);
        }
        assert!(counts[1..].iter().all(|count| (500..1500).contains(count)), "{lb:?}: {counts:?}");
        // A fifth belonged to the one that left; of the others few move (those that remain get more points).
        assert!(moved < 800, "{lb:?}: {moved} moved");
    }
}
