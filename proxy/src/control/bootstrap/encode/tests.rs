use serde_json::json;
use weft_api::xds::envoy::config::{
    cluster::v3::{Cluster, cluster::ClusterDiscoveryType},
    core::v3::{HeaderValueOption, Metadata, TransportSocket, transport_socket::ConfigType},
    route::v3::{RouteAction, route_action::ClusterSpecifier},
};

use super::*;
use crate::control::bootstrap::{document, message as read};

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

fn refused(name: &str, value: &Value) -> String {
    message(&Schema::default(), name, value).unwrap_err().to_string()
}

#[test]
fn a_document_becomes_the_message_that_it_describes() {
    let yaml = "
name: one
type: STRICT_DNS
connectTimeout: 0.25s
lb_policy: 1
per_connection_buffer_limit_bytes: 32768
common_lb_config: { healthy_panic_threshold: { value: 12.5 } }
respect_dns_ttl: yes
dns_lookup_family: V4_ONLY
metadata:
  filter_metadata:
    istio: { services: [ { host: a.b, weight: 2, ok: true, none: null } ] }
load_assignment:
  cluster_name: one
  endpoints:
  - lb_endpoints:
    - endpoint: { address: { socket_address: { address: a.b, port_value: 80 } } }
    - endpoint: { address: { socket_address: { address: a.c, port_value: \"8080\" } } }
      load_balancing_weight: 3
";
    let cluster: Cluster = read(&document::read(yaml).unwrap()).unwrap();
    assert_eq!(cluster.name, "one");
    assert_eq!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(1)));
    let timeout = cluster.connect_timeout.unwrap();
    assert_eq!((timeout.seconds, timeout.nanos), (0, 250_000_000));
    assert_eq!(cluster.lb_policy, 1);
    assert_eq!(cluster.per_connection_buffer_limit_bytes.unwrap().value, 32768);
    let panic = cluster.common_lb_config.unwrap().healthy_panic_threshold.unwrap();
    assert!((panic.value - 12.5).abs() < f64::EPSILON);
    #[allow(deprecated)]
    let respected = cluster.respect_dns_ttl;
    assert!(respected);
    assert_eq!(cluster.dns_lookup_family, 1);
    let Metadata { filter_metadata, .. } = cluster.metadata.unwrap();
    let services = json!({"services": [{"host": "a.b", "weight": 2, "ok": true, "none": null}]});
    let services = well_known::encode("Struct", &services).unwrap();
    let services = weft_api::xds::google::protobuf::Struct::decode(&services[..]).unwrap();
    assert_eq!(filter_metadata["istio"], services);
    let endpoints = &cluster.load_assignment.unwrap().endpoints[0].lb_endpoints;
    assert_eq!(endpoints.len(), 2);
    assert_eq!(endpoints[1].load_balancing_weight.unwrap().value, 3);
}

#[test]
fn json_is_read_as_yaml_is() {
    let json = r#"{"name": "one", "type": "LOGICAL_DNS", "connect_timeout": "5s"}"#;
    let yaml = "{name: one, type: LOGICAL_DNS, connect_timeout: 5s}";
    let read = |text| read::<Cluster>(&document::read(text).unwrap()).unwrap();
    assert_eq!(read(json), read(yaml));
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let yaml = "
name: one
transport_socket_matches:
- &base { name: a, match: { k: v } }
- { <<: *base, name: b }
";
    let cluster: Cluster = read(&document::read(yaml).unwrap()).unwrap();
    let matches = cluster.transport_socket_matches;
    assert_eq!(matches[1].name, "b");
    assert_eq!(matches[1].r#match, matches[0].r#match);
}

#[test]
fn typed_configurations_are_read_by_their_type() {
    let socket = json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "a.b",
    }});
    let socket: TransportSocket = read(&socket).unwrap();
    let Some(ConfigType::TypedConfig(any)) = socket.config_type else { panic!("no config") };
    let name = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    assert_eq!(any.type_url, format!("type.googleapis.com/{name}"));
    assert_eq!(any.value, message(&Schema::default(), name, &json!({"sni": "a.b"})).unwrap());
}

#[test]
fn scalars_in_a_oneof_are_kept_even_when_they_are_nothing() {
    let action: RouteAction = read(&json!({"cluster": ""})).unwrap();
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster(String::new())));
}

#[test]
fn bytes_are_base_64() {
    let option: HeaderValueOption =
        read(&json!({"header": {"key": "k", "raw_value": "aGk_"}})).unwrap();
    assert_eq!(option.header.unwrap().raw_value, b"hi?");
}

#[test]
fn what_is_wrong_is_said_with_its_path() {
    let any = |inner: Value| json!({"transport_socket": {"typed_config": inner}});
    for (value, wanted) in [
        (json!({"nam": "x"}), "nam: no such field"),
        (json!({"load_assignment": {"endpoint": []}}), "load_assignment.endpoint: no such field"),
        (
            json!({"load_assignment": {"endpoints": [{}, {"lb_endpoints": [{"endpoints": {}}]}]}}),
            "load_assignment.endpoints[1].lb_endpoints[0].endpoints: no such field",
        ),
        (json!({"name": 5}), "name: \"5\" is not a text (put it in quotes)"),
        (
            json!({"name": "a", "connect_timeout": "5"}),
            "connect_timeout: \"5\" is not a duration in seconds, as 1.5s",
        ),
        (json!({"type": "MAGIC"}), "type: \"MAGIC\" is not one of the values that Envoy knows"),
        (
            json!({"circuit_breakers": {"thresholds": {}}}),
            "circuit_breakers.thresholds: \"{}\" is not a list",
        ),
        (
            json!({"max_requests_per_connection": -1}),
            "max_requests_per_connection: \"-1\" is not a number in range",
        ),
        (
            json!({"max_requests_per_connection": 1.5}),
            "max_requests_per_connection: \"1.5\" is not a whole number",
        ),
        (json!({"respect_dns_ttl": "maybe"}), "respect_dns_ttl: \"maybe\" is not true or false"),
        (json!({"type": "STATIC", "cluster_type": {}}), "type and cluster_type exclude each other"),
        (json!({"lb_policy": 0, "lbPolicy": 0}), "\"lbPolicy\" is given twice"),
        (any(json!({"sni": "x"})), "transport_socket.typed_config.@type: missing"),
        (
            any(
                json!({"@type": "x/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport"}),
            ),
            "transport_socket.typed_config: \"envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport\" is not supported",
        ),
        (
            any(
                json!({"@type": "x/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", "a": 1}),
            ),
            "transport_socket.typed_config.a: no such field",
        ),
        (json!({"lrs_server": {"self": {}}}), "lrs_server: not supported"),
        (
            json!({"common_lb_config": {"close_connections_on_host_set_change": true}}),
            "common_lb_config.close_connections_on_host_set_change: not supported",
        ),
        (
            json!({"eds_cluster_config": {"eds_config": {"self": {}, "ads": {}}}}),
            "eds_cluster_config.eds_config: self and ads exclude each other",
        ),
    ] {
        assert_eq!(refused(CLUSTER, &value), wanted);
    }
    let tracing = refused("envoy.config.bootstrap.v3.Bootstrap", &json!({"tracing": {"http": {}}}));
    assert_eq!(tracing, "tracing: not supported");
    assert_eq!(refused(CLUSTER, &json!([])), "\"[]\" is not a mapping");
}

#[test]
fn durations_have_nanoseconds_and_signs() {
    for (text, wanted) in [
        ("0s", Some((0, 0))),
        ("1.5s", Some((1, 500_000_000))),
        ("0.000000001s", Some((0, 1))),
        ("-2.25s", Some((-2, -250_000_000))),
        ("1.s", Some((1, 0))),
        ("s", None),
        ("1", None),
        ("1ms", None),
        ("0.0000000001s", None),
        ("1e3s", None),
    ] {
        let value: Result<prost_types::Duration, _> = well_known::encode("Duration", &json!(text))
            .map(|bytes| prost_types::Duration::decode(&bytes[..]).unwrap());
        assert_eq!(value.ok().map(|d| (d.seconds, d.nanos)), wanted, "{text}");
    }
}
