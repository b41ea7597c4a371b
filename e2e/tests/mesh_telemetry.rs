//! What the proxies say of the traffic: metrics with Istio's names and labels, and access logs.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use anyhow::ensure;
use serde_json::Value;
use weft_e2e::{
    mesh::{Mesh, Options},
    metrics::{Sample, sum},
    wait,
};

const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// The only series of requests to order-service v1 in a scrape.
fn series(samples: &[Sample], reporter: &str) -> anyhow::Result<Sample> {
    let wanted = |sample: &&Sample| {
        sample.name == "istio_requests_total"
            && sample.label("reporter") == reporter
            && sample.label("destination_version") == "v1"
            && sample.label("destination_service_name") == "order-service"
    };
    let mut found = samples.iter().filter(wanted);
    let first = found.next().cloned();
    ensure!(found.next().is_none(), "more than one series");
    first.ok_or_else(|| anyhow::anyhow!("no series in {samples:#?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_count_a_request_with_all_labels() {
    let mesh = Mesh::shop(Options::default()).await.unwrap();
    let storefront = mesh.workload("storefront-v1-1").unwrap();
    let orders = mesh.workload("order-service-v1-1").unwrap();
    let client = storefront.client();
    let mut served = 0.0;
    for _ in 0..100 {
        let answer = client.get("http://order-service/x").await.unwrap().answer().unwrap();
        served += f64::from(u8::from(answer.version == "v1"));
    }
    let common = [
        ("source_workload", "storefront-v1"),
        ("source_canonical_service", "storefront"),
        ("source_canonical_revision", "v1"),
        ("source_workload_namespace", "default"),
        ("source_principal", "spiffe://cluster.local/ns/default/sa/storefront"),
        ("source_app", "storefront"),
        ("source_version", "v1"),
        ("source_cluster", "Kubernetes"),
        ("destination_workload", "order-service-v1"),
        ("destination_workload_namespace", "default"),
        ("destination_principal", "spiffe://cluster.local/ns/default/sa/order-service"),
        ("destination_app", "order-service"),
        ("destination_version", "v1"),
        ("destination_service", "order-service.default.svc.cluster.local"),
        ("destination_canonical_service", "order-service"),
        ("destination_canonical_revision", "v1"),
        ("destination_service_name", "order-service"),
        ("destination_service_namespace", "default"),
        ("destination_cluster", "Kubernetes"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("response_flags", "-"),
    ];
    for (workload, reporter, security) in
        [(storefront, "source", "unknown"), (orders, "destination", "mutual_tls")]
    {
        let sample = wait::until_ok("the requests should be counted", async || {
            let samples = workload.metrics().await?;
            let sample = series(&samples, reporter)?;
            ensure!(sample.value == served, "{} of {served}", sample.value);
            let durations = sum(
                &samples,
                "istio_request_duration_milliseconds_count",
                &[
                    ("reporter", reporter),
                    ("destination_service_name", "order-service"),
                    ("destination_version", "v1"),
                ],
            );
            ensure!(durations == served, "{durations} durations of {served}");
            Ok(sample)
        });
        let sample = sample.await.unwrap();
        for label in LABELS {
            let there = sample.labels.contains_key(label) || label == "grpc_response_status";
            assert!(there, "{reporter}: no label {label}");
        }
        let seen = common.map(|(name, _)| (name, sample.label(name)));
        assert_eq!(seen, common, "{reporter}");
        assert_eq!(sample.label("connection_security_policy"), security);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_logs_name_route_cluster_and_peer() {
    let proxy_arguments = vec!["--access-log".to_owned(), "json".to_owned()];
    let mesh = Mesh::shop(Options { proxy_arguments, ..Options::default() }).await.unwrap();
    let storefront = mesh.workload("storefront-v1-1").unwrap();
    let client = storefront.client();
    client.get("http://user-service/logged?x=1").await.unwrap();
    let line = wait::until_ok("the request should be logged", async || {
        let log = storefront.proxy_log();
        let line = log.lines().find(|line| line.contains("/logged?x=1"));
        let line = line.ok_or_else(|| anyhow::anyhow!("not in {log}"))?;
        Ok(serde_json::from_str::<Value>(line)?)
    });
    let line = line.await.unwrap();
    let seen = [
        "method",
        "path",
        "protocol",
        "response_code",
        "response_flags",
        "upstream_cluster",
        "authority",
        "route_name",
    ]
    .map(|key| line[key].clone());
    let expected = [
        Value::from("GET"),
        "/logged?x=1".into(),
        "HTTP/1.1".into(),
        200.into(),
        "-".into(),
        "outbound|80||user-service.default.svc.cluster.local".into(),
        "user-service".into(),
        "default".into(),
    ];
    assert_eq!(seen, expected, "{line}");
}
