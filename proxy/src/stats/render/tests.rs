use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    config::cluster::{ServiceInfo, WorkloadInfo},
    net::flags::ResponseFlags,
    stats::{HttpRecord, Reporter, SecurityPolicy},
};

fn workload(name: &str) -> Arc<WorkloadInfo> {
    Arc::new(WorkloadInfo {
        workload: format!("{name}-v1").as_str().into(),
        namespace: "default".into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        cluster: "Kubernetes".into(),
        app: name.into(),
        version: "v1".into(),
    })
}

fn labels() -> TrafficLabels {
    TrafficLabels {
        reporter: Reporter::Source,
        source: workload("storefront"),
        source_principal: "spiffe://cluster.local/ns/default/sa/storefront".into(),
        destination: workload("order-service"),
        destination_principal: "spiffe://cluster.local/ns/default/sa/order-service".into(),
        service: ServiceInfo {
            host: "order-service.default.svc.cluster.local".into(),
            name: "order-service".into(),
            namespace: "default".into(),
        },
        security: SecurityPolicy::Unknown,
    }
}

const RECORD: HttpRecord = HttpRecord {
    protocol: RequestProtocol::Http,
    code: 200,
    grpc_status: None,
    flags: ResponseFlags::NONE,
    duration: Duration::from_micros(7_250),
    request_bytes: 120,
    response_bytes: 2_000,
    messages: None,
};

fn lines_with<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(name)).collect()
}

#[test]
fn requests_of_all_threads_are_one_series_with_istios_labels() {
    let registry = Registry::default();
    for _ in 0..2 {
        let thread = registry.thread();
        let traffic = thread.traffic(&labels());
        traffic.http(&RECORD);
        traffic.http(&RECORD);
    }
    let text = registry.render_prometheus(&ProxyConfig::default());
    assert_eq!(
        lines_with(&text, "istio_requests_total"),
        ["istio_requests_total{reporter=\"source\",source_workload=\"storefront-v1\",\
             source_canonical_service=\"storefront\",source_canonical_revision=\"v1\",\
             source_workload_namespace=\"default\",\
             source_principal=\"spiffe://cluster.local/ns/default/sa/storefront\",\
             source_app=\"storefront\",source_version=\"v1\",source_cluster=\"Kubernetes\",\
             destination_workload=\"order-service-v1\",destination_workload_namespace=\"default\",\
             destination_principal=\"spiffe://cluster.local/ns/default/sa/order-service\",\
             destination_app=\"order-service\",destination_version=\"v1\",\
             destination_service=\"order-service.default.svc.cluster.local\",\
             destination_canonical_service=\"order-service\",\
             destination_canonical_revision=\"v1\",\
             destination_service_name=\"order-service\",\
             destination_service_namespace=\"default\",destination_cluster=\"Kubernetes\",\
             connection_security_policy=\"unknown\",request_protocol=\"http\",\
             response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\"} 4"]
    );
    let buckets: Vec<u64> = lines_with(&text, "istio_request_duration_milliseconds_bucket")
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    let mut expected = vec![4; 20];
    expected[..3].fill(0);
    assert_eq!(buckets, expected);
    let sum = lines_with(&text, "istio_request_duration_milliseconds_sum");
    assert!(sum[0].ends_with(" 29"), "{sum:?}");
    assert_eq!(
        lines_with(&text, "# TYPE istio_requests_total"),
        ["# TYPE istio_requests_total counter"]
    );
    assert_eq!(lines_with(&text, "istio_build{component=\"proxy\"").len(), 1);
}

#[test]
fn nothing_known_is_unknown_and_values_are_escaped() {
    let registry = Registry::default();
    let empty = TrafficLabels {
        source: Arc::default(),
        source_principal: Arc::default(),
        destination: Arc::default(),
        destination_principal: Arc::default(),
        service: ServiceInfo {
            host: "a\"b\\c\nd".into(),
            name: Arc::default(),
            namespace: Arc::default(),
        },
        ..labels()
    };
    registry.thread().traffic(&empty).http(&HttpRecord {
        code: 503,
        flags: ResponseFlags::UF | ResponseFlags::URX,
        ..RECORD
    });
    let text = registry.render_prometheus(&ProxyConfig::default());
    let line = lines_with(&text, "istio_requests_total")[0];
    for part in [
        "destination_service=\"a\\\"b\\\\c\\nd\"",
        "source_workload=\"unknown\"",
        "source_canonical_revision=\"latest\"",
        "destination_canonical_revision=\"latest\"",
        "response_code=\"503\"",
        "response_flags=\"UF,URX\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn grpc_messages_and_tcp_bytes_have_their_own_metrics() {
    let registry = Registry::default();
    let thread = registry.thread();
    let traffic = thread.traffic(&labels());
    traffic.http(&HttpRecord {
        protocol: RequestProtocol::Grpc,
        grpc_status: Some(14),
        messages: Some((3, 5)),
        ..RECORD
    });
    let connection = traffic.tcp();
    connection.bytes(10, 20);
    connection.bytes(1, 2);
    let value = |name: &str| -> u64 {
        let text = registry.render_prometheus(&ProxyConfig::default());
        let lines = lines_with(&text, &format!("{name}{{"));
        lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    for (name, expected) in [
        ("istio_request_messages_total", 3),
        ("istio_response_messages_total", 5),
        ("istio_tcp_connections_opened_total", 1),
        ("istio_tcp_connections_closed_total", 0),
        ("istio_tcp_received_bytes_total", 11),
        ("istio_tcp_sent_bytes_total", 22),
        ("istio_requests_total", 1),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    drop(connection);
    assert_eq!(value("istio_tcp_connections_closed_total"), 1);
    let text = registry.render_prometheus(&ProxyConfig::default());
    assert!(lines_with(&text, "istio_requests_total")[0].contains("grpc_response_status=\"14\""));
    assert!(!lines_with(&text, "istio_tcp_sent_bytes_total")[0].contains("response_code"));
}

#[test]
fn series_are_bounded_and_what_is_evicted_can_come_back() {
    let registry = Registry::default();
    let thread = registry.thread();
    let traffic = thread.traffic(&labels());
    for code in 0..5_000 {
        traffic.http(&HttpRecord { code, ..RECORD });
    }
    let text = registry.render_prometheus(&ProxyConfig::default());
    let series = lines_with(&text, "istio_requests_total{").len();
    assert!((1_500..=2_000).contains(&series), "{series}");
    assert!(lines_with(&text, "envoy_stats_series_evicted ")[0] != "envoy_stats_series_evicted 0");
    for code in 0..5_000 {
        traffic.http(&HttpRecord { code, ..RECORD });
    }
    traffic.http(&HttpRecord { code: 7, ..RECORD });
    let text = registry.render_prometheus(&ProxyConfig::default());
    assert_eq!(
        lines_with(&text, "istio_requests_total{")
            .iter()
            .filter(|line| line.contains("response_code=\"7\","))
            .count(),
        1
    );
}

#[test]
fn clusters_and_named_counters_appear_under_envoys_names() {
    use crate::net::cluster::tests::{cluster, endpoint};
    let registry = Registry::default();
    let thread = registry.thread();
    thread.counter("http.inbound_0.0.0.0_8080.downstream_rq_total").add(3);
    thread.counter("http.inbound_0.0.0.0_8080.rbac.allowed").inc();
    registry.thread().counter("http.inbound_0.0.0.0_8080.rbac.allowed").inc();
    let active = thread.gauge("listener.127.0.0.1_8080.downstream_cx_active").hold();
    let cluster = cluster(vec![endpoint(0, 1), endpoint(1, 1)]);
    cluster.state.totals.response(503);
    let mut config = ProxyConfig::default();
    config.clusters.insert(cluster.name.clone(), Arc::new(cluster));
    let text = registry.render_prometheus(&config);
    for line in [
        "envoy_cluster_upstream_rq{response_code_class=\"5xx\",cluster_name=\"outbound|80||orders.default.svc.cluster.local\"} 1",
        "envoy_cluster_membership_healthy{cluster_name=\"outbound|80||orders.default.svc.cluster.local\"} 2",
        "envoy_cluster_outlier_detection_ejections_active{cluster_name=\"outbound|80||orders.default.svc.cluster.local\"} 0",
        "envoy_http_downstream_rq_total{http_conn_manager_prefix=\"inbound_0.0.0.0_8080\"} 3",
        "envoy_http_rbac_allowed{http_conn_manager_prefix=\"inbound_0.0.0.0_8080\"} 2",
        "envoy_listener_downstream_cx_active{listener_address=\"127.0.0.1_8080\"} 1",
        "envoy_server_live 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
    drop(active);
    let text = registry.render_text(&config, |name| name.contains("downstream_cx_active"));
    assert_eq!(text, "listener.127.0.0.1_8080.downstream_cx_active: 0\n");
}
