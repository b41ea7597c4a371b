use std::time::Duration;

use super::*;

const SETTINGS: OutlierDetection = OutlierDetection {
    consecutive_5xx: 5,
    consecutive_gateway_failure: 0,
    consecutive_local_origin_failure: 0,
    split_external_local_origin_errors: false,
    interval: Duration::from_secs(10),
    base_ejection_time: Duration::from_secs(30),
    max_ejection_time: Duration::from_secs(300),
    max_ejection_percent: 50,
};

struct Test {
    cluster: ClusterState,
    endpoints: Vec<Arc<Endpoint>>,
    settings: OutlierDetection,
    now: u64,
}

impl Test {
    fn new(endpoints: u16, settings: OutlierDetection) -> Self {
        let endpoints =
            (0..endpoints).map(|i| crate::net::cluster::tests::endpoint(i, 1)).collect();
        Self { cluster: ClusterState::default(), endpoints, settings, now: 1_000_000 }
    }

    fn report(&self, endpoint: usize, outcome: Outcome) -> bool {
        let state = &self.endpoints[endpoint].state;
        report(&self.cluster, &self.endpoints, state, &self.settings, (outcome, self.now))
    }

    fn fail(&self, endpoint: usize, times: usize) -> bool {
        (0..times).fold(false, |_, _| self.report(endpoint, Outcome::Status(503)))
    }

    fn ejected(&self) -> Vec<usize> {
        let out = |e: &Arc<Endpoint>| e.state.outlier.is_ejected(self.now);
        self.endpoints.iter().enumerate().filter(|(_, e)| out(e)).map(|(i, _)| i).collect()
    }
}

#[test]
fn an_endpoint_is_ejected_after_consecutive_failures_only() {
    let test = Test::new(4, SETTINGS);
    assert!(!test.fail(0, 4));
    test.report(0, Outcome::Status(200));
    assert!(!test.fail(0, 4));
    assert!(test.fail(0, 1));
    assert_eq!(test.ejected(), [0]);
    assert_eq!(test.cluster.health_version.load(Relaxed), 1);
}

#[test]
fn every_ejection_lasts_longer_and_quiet_intervals_are_forgiven() {
    let mut test = Test::new(4, SETTINGS);
    for times in 1..=3_u64 {
        assert!(test.fail(1, 5));
        test.now += times * 30_000 - 1;
        assert_eq!(test.ejected(), [1], "ejection {times}");
        test.now += 1;
        assert_eq!(test.ejected(), [] as [usize; 0], "ejection {times}");
    }
    // Two intervals in service: two are taken off.
    test.now += 20_000;
    assert!(test.fail(1, 5));
    assert_eq!(test.endpoints[1].state.outlier.ejections(), 2);
}

#[test]
fn an_ejection_never_lasts_longer_than_the_maximum() {
    let mut test = Test::new(4, SETTINGS);
    for _ in 0..20 {
        assert!(test.fail(1, 5));
        test.now = test.endpoints[1].state.outlier.ejected_until(test.now).unwrap();
    }
    assert!(test.fail(1, 5));
    assert_eq!(test.endpoints[1].state.outlier.ejected_until(test.now), Some(test.now + 300_000));
}

#[test]
fn at_most_the_allowed_share_is_out_but_one_always_may_be() {
    for (endpoints, percent, expected) in [
        (1, 50, 1),
        (2, 50, 1),
        (3, 50, 1),
        (4, 50, 2),
        (5, 50, 2),
        (10, 10, 1),
        (5, 10, 1),
        (3, 100, 3),
        (4, 0, 1),
    ] {
        let test =
            Test::new(endpoints, OutlierDetection { max_ejection_percent: percent, ..SETTINGS });
        for endpoint in 0..usize::from(endpoints) {
            test.fail(endpoint, 5);
        }
        assert_eq!(test.ejected().len(), expected, "{endpoints} endpoints, {percent} %");
    }
}

#[test]
fn gateway_failures_are_counted_on_their_own() {
    let settings =
        OutlierDetection { consecutive_5xx: 0, consecutive_gateway_failure: 2, ..SETTINGS };
    let test = Test::new(4, settings);
    for status in [502, 500, 503, 500, 504] {
        assert!(!test.report(0, Outcome::Status(status)), "{status}");
    }
    assert!(test.report(0, Outcome::Status(502)));
}

#[test]
fn failures_to_connect_count_as_5xx_unless_they_are_split_off() {
    let test = Test::new(4, SETTINGS);
    let outcomes =
        [Outcome::ConnectFailed, Outcome::TimedOut, Outcome::Reset, Outcome::ConnectFailed];
    for outcome in outcomes {
        assert!(!test.report(0, outcome));
        assert!(!test.report(0, Outcome::Connected));
    }
    assert!(test.report(0, Outcome::Status(500)));

    let split = OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: 3,
        ..SETTINGS
    };
    let test = Test::new(4, split);
    test.report(0, Outcome::ConnectFailed);
    test.report(0, Outcome::ConnectFailed);
    test.report(0, Outcome::Connected);
    test.report(0, Outcome::ConnectFailed);
    test.report(0, Outcome::TimedOut);
    assert!(test.report(0, Outcome::ConnectFailed));
}

#[test]
fn what_an_ejected_endpoint_still_answers_changes_nothing() {
    let mut test = Test::new(4, SETTINGS);
    assert!(test.fail(2, 5));
    let until = test.endpoints[2].state.outlier.ejected_until(test.now);
    test.now += 10;
    assert!(!test.fail(2, 20));
    assert_eq!(test.endpoints[2].state.outlier.ejected_until(test.now), until);
}
