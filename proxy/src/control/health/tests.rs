use std::{cell::Cell, sync::atomic::Ordering::Relaxed};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    config::health::Probe,
    control::{bootstrap::message, decode::health::health_check},
    data::testing::{Proxy, backend, cluster, config_of, nobody, raw_backend, run, text, until},
    net::cluster::lb::Balancer,
};

/// A check with this probe that asks often.
fn check(more: &serde_json::Value) -> Result<HealthCheck, String> {
    let mut document = json!({
        "timeout": "5s", "interval": "0.02s", "no_traffic_interval": "0.02s",
        "unhealthy_threshold": 2, "healthy_threshold": 2,
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    let check: weft_api::xds::envoy::config::core::v3::HealthCheck =
        message(&document).map_err(|error| error.to_string())?;
    health_check(&check, "backend").map_err(|error| error.to_string())
}

/// A proxy with one cluster of these endpoints that is checked so.
fn checked(addresses: &[SocketAddr], check: HealthCheck) -> Proxy {
    let mut cluster = cluster("backend", addresses);
    cluster.health_check = Some(Arc::new(check));
    let proxy = Proxy::new(config_of(Vec::new(), vec![cluster]));
    spawn_local(super::run((*proxy.shared).clone()));
    proxy
}

fn health(proxy: &Proxy) -> Vec<Health> {
    let config = proxy.shared.config.load();
    let endpoints = &config.clusters["backend"].endpoints.all;
    endpoints.iter().map(|endpoint| endpoint.state.health()).collect()
}

#[test]
fn an_endpoint_that_fails_gets_no_requests_until_it_is_well_again() {
    run(async {
        let status = Rc::new(Cell::new(200));
        let told = status.clone();
        let sick = backend(move |request| {
            assert_eq!(request.uri().path(), "/healthz");
            assert_eq!(request.headers()["host"], "backend");
            assert_eq!(request.headers()["x-check"], "yes");
            let answer = text(told.get(), "");
            async move { answer }
        });
        let well = backend(|_| async { text(204, "") });
        let addresses = [sick.await, well.await];
        let probe = json!({"http_health_check": {
            "path": "/healthz",
            "expected_statuses": [{"start": 200, "end": 205}],
            "request_headers_to_add": [{"header": {"key": "x-check", "value": "yes"}}],
        }});
        let proxy = checked(&addresses, check(&probe).unwrap());
        assert_eq!(health(&proxy), [Health::Unknown, Health::Unknown]);
        until(|| health(&proxy) == [Health::Healthy, Health::Healthy]).await;
        let cluster = proxy.shared.config.load().clusters["backend"].clone();
        let balancer = Balancer::new(cluster.clone());
        let picked = || {
            let all: std::collections::HashSet<_> =
                (0..60).filter_map(|_| balancer.pick(None, &[], 0)).map(|e| e.address).collect();
            addresses.map(|address| all.contains(&address))
        };
        assert_eq!(picked(), [true, true]);
        // The endpoint says so itself: once is enough.
        status.set(503);
        until(|| health(&proxy) == [Health::Failed, Health::Healthy]).await;
        assert_eq!(picked(), [false, true]);
        status.set(200);
        until(|| health(&proxy) == [Health::Healthy, Health::Healthy]).await;
        assert_eq!(picked(), [true, true]);
        let totals = &cluster.state.totals;
        assert!(totals.health_check_failure.load(Relaxed) >= 1);
        assert_eq!(totals.health_check_network_failure.load(Relaxed), 0);
        let known =
            totals.health_check_success.load(Relaxed) + totals.health_check_failure.load(Relaxed);
        assert!(totals.health_check_attempt.load(Relaxed) >= known);
    });
}

#[test]
fn http2_is_asked_by_http2() {
    run(async {
        let address = backend(|request| async move {
            text(if request.version() == http::Version::HTTP_2 { 200 } else { 500 }, "")
        });
        let probe = json!({"http_health_check": {"path": "/", "codec_client_type": "HTTP2"}});
        let proxy = checked(&[address.await], check(&probe).unwrap());
        until(|| health(&proxy) == [Health::Healthy]).await;
    });
}

#[test]
fn tcp_is_asked_for_a_connection_and_for_bytes() {
    run(async {
        let talks = raw_backend(|mut stream| async move {
            let mut asked = [0; 4];
            if stream.read_exact(&mut asked).await.is_ok() && &asked == b"PING" {
                let _ = stream.write_all(b"..PO.NG!").await;
            }
        })
        .await;
        let silent = raw_backend(|stream| async move { drop(stream) }).await;
        let mut addresses = [talks, silent, nobody()];
        addresses.sort_unstable();
        let of = |wanted: [SocketAddr; 1]| addresses.map(|address| wanted.contains(&address));
        let healthy =
            |proxy: &Proxy| health(proxy).iter().map(|h| *h == Health::Healthy).collect::<Vec<_>>();
        let decided = |proxy: &Proxy| !health(proxy).contains(&Health::Unknown);

        let bytes = json!({"tcp_health_check": {
            "send": {"text": "50494e47"},
            "receive": [{"text": "504f"}, {"binary": "Tkc="}],
        }});
        let proxy = checked(&addresses, check(&bytes).unwrap());
        until(|| decided(&proxy)).await;
        assert_eq!(healthy(&proxy), of([talks]));

        let connect = checked(&addresses, check(&json!({"tcp_health_check": {}})).unwrap());
        until(|| decided(&connect)).await;
        assert_eq!(healthy(&connect).iter().filter(|healthy| **healthy).count(), 2);
    });
}

#[test]
fn answers_in_a_row_change_what_is_thought() {
    let check = check(&json!({"unhealthy_threshold": 3, "tcp_health_check": {}})).unwrap();
    let (good, bad, none) = (Verdict::Good, Verdict::Bad, Verdict::None);
    for (start, answers, end) in [
        (Health::Unknown, vec![good], Health::Healthy),
        (Health::Unknown, vec![none], Health::Failed),
        (Health::Healthy, vec![none, none], Health::Healthy),
        (Health::Healthy, vec![none, none, none], Health::Failed),
        (Health::Healthy, vec![none, none, good, none, none], Health::Healthy),
        (Health::Healthy, vec![bad], Health::Failed),
        (Health::Failed, vec![good], Health::Failed),
        (Health::Failed, vec![good, good], Health::Healthy),
        (Health::Failed, vec![good, bad, good], Health::Failed),
    ] {
        let mut opinion = Opinion::default();
        let found = answers.iter().fold(start, |now, answer| opinion.after(now, *answer, &check));
        assert_eq!(found, end, "{start:?} {answers:?}");
    }
}

#[test]
fn pauses_depend_on_what_is_thought_and_on_traffic() {
    let check = check(&json!({
        "interval": "1s", "no_traffic_interval": "2s", "no_traffic_healthy_interval": "3s",
        "unhealthy_interval": "4s", "unhealthy_edge_interval": "5s", "healthy_edge_interval": "6s",
        "tcp_health_check": {},
    }))
    .unwrap();
    assert!(matches!(&check.probe, Probe::Tcp { send, .. } if send.is_empty()));
    for (health, changed, traffic, seconds) in [
        (Health::Healthy, false, true, 1),
        (Health::Failed, false, false, 2),
        (Health::Healthy, true, false, 3),
        (Health::Failed, false, true, 4),
        (Health::Failed, true, true, 5),
        (Health::Healthy, true, true, 6),
    ] {
        assert_eq!(pause(&check, health, changed, traffic), Duration::from_secs(seconds));
    }
}

#[test]
fn what_cannot_be_asked_is_refused() {
    for (more, wanted) in [
        (json!({}), "health_checker: missing"),
        (json!({"grpc_health_check": {}}), "grpc_health_check: not supported"),
        (json!({"timeout": null, "tcp_health_check": {}}), "timeout: missing"),
        (json!({"interval": "0s", "tcp_health_check": {}}), "interval: \"0s\" is not more"),
        (json!({"healthy_threshold": null, "tcp_health_check": {}}), "healthy_threshold: missing"),
        (
            json!({"http_health_check": {"path": "x"}}),
            "http_health_check.path: \"x\" is not a path",
        ),
        (
            json!({"http_health_check": {"path": "/", "expected_statuses": [{"start": 300, "end": 200}]}}),
            "http_health_check.expected_statuses[0]: \"300..200\" is not a range of statuses from 100 to 600",
        ),
        (
            json!({"tcp_health_check": {"send": {"text": "5"}}}),
            "tcp_health_check.send.text: \"5\" is not bytes in hexadecimal digits",
        ),
    ] {
        assert_eq!(check(&more).unwrap_err(), wanted, "{more}");
    }
}
