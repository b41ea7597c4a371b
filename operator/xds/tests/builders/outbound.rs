//! Outbound listeners and the explicit proxy port.

use serde_json::{Value, json};
use weft_core::mesh::MeshConfig;
use weft_xds::ResourceType::Listener;

use crate::mesh::{Mesh, order, stranger};

const ORDER: &str = "order.default.svc.cluster.local";

fn http(port: u16) -> Value {
    json!([{"http": {
        "routes": format!("{ORDER}:{port}"), "filters": ["fault", "cors", "router"], "upgrades": ["websocket"],
    }}])
}

fn tcp(port: u16) -> Value {
    json!([{"tcp": format!("outbound|{port}||{ORDER}")}])
}

#[test]
fn the_protocol_of_a_port_decides_its_listener() {
    let mesh = Mesh::new("");
    let table = [
        ("order_80", json!({"name": "order_80", "chains": [{"filters": http(80)}]})),
        ("10.0.0.1_81", json!({"name": "10.0.0.1_81", "chains": [{"filters": http(81)}]})),
        ("order.default_82", json!({"name": "order.default_82", "chains": [{"filters": tcp(82)}]})),
        (
            "order_83",
            json!({
                "name": "order_83",
                "inspectors": ["tls_inspector", "http_inspector"],
                "chains": [{
                    "match": {"transport": "raw_buffer", "alpn": ["http/1.0", "http/1.1", "h2c"]},
                    "filters": http(83),
                }],
                "otherwise": {"filters": tcp(83)},
            }),
        ),
        ("order_84", json!({"name": "order_84", "chains": [{"filters": tcp(84)}]})),
    ];
    for (name, expected) in table {
        assert_eq!(mesh.get(Listener, name), expected, "{name}");
    }
    for name in ["order_9", "nobody_80", "10.9.9.9_80", "order", "_80", "", "order_99999"] {
        assert_eq!(mesh.get(Listener, name), Value::Null, "{name}");
    }
    assert_eq!(mesh.get_for(Listener, "order_80", &stranger()), Value::Null);
}

#[test]
fn bytes_are_split_as_tcp_routes_say() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: order}
spec:
  hosts: [order]
  tcp:
  - match: [{port: 82, sourceLabels: {app: user}}]
    route: [{destination: {host: user}}]
  - match: [{port: 82}]
    route:
    - {destination: {host: order, port: {number: 82}}, weight: 80}
    - {destination: {host: user}, weight: 20}
";
    let found = Mesh::new(yaml).get(Listener, "order_82");
    assert_eq!(
        found["chains"],
        json!([{"filters": [{"tcp": [
            {"cluster": format!("outbound|82||{ORDER}"), "weight": 80},
            {"cluster": "outbound|80||user.default.svc.cluster.local", "weight": 20},
        ]}]}])
    );
}

#[test]
fn tls_routes_go_by_server_name() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: order}
spec:
  hosts: [order]
  tls:
  - match: [{port: 84, sniHosts: [order]}]
    route: [{destination: {host: user}}]
";
    let found = Mesh::new(yaml).get(Listener, "order_84");
    assert_eq!(
        found,
        json!({
            "name": "order_84",
            "inspectors": ["tls_inspector"],
            "chains": [{
                "match": {"serverNames": ["order"]},
                "filters": [{"tcp": "outbound|80||user.default.svc.cluster.local"}],
            }],
            "otherwise": {"filters": tcp(84)},
        })
    );
}

#[test]
fn the_explicit_proxy_port_is_beside_the_application() {
    assert_eq!(
        Mesh::new("").get(Listener, "http_proxy"),
        json!({
            "name": "http_proxy",
            "addresses": ["127.30.1.1:15007"],
            "chains": [{"filters": [{"http": {
                "routes": "http_proxy", "filters": ["fault", "cors", "router"], "upgrades": ["websocket", "CONNECT"],
            }}]}],
        })
    );
    let config = MeshConfig { proxy_http_port: 0, ..MeshConfig::default() };
    let mesh = Mesh::with(config, "");
    assert_eq!(mesh.get(Listener, "http_proxy"), Value::Null);
    assert_eq!(mesh.names(Listener, &order()), ["virtualInbound"]);
}

#[test]
fn silent_connections_end_when_the_rule_says() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: order}
spec: {host: order, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 10m}}}}
";
    let mesh = Mesh::new(rule);
    let expected = |cluster: &str| json!({"tcp": cluster, "idleTimeout": "600s"});
    let outbound = mesh.get(Listener, "order_82");
    assert_eq!(outbound["chains"][0]["filters"][0], expected(&format!("outbound|82||{ORDER}")));
    let inbound = mesh.get(Listener, "virtualInbound");
    let chains = inbound["chains"].as_array().unwrap().iter();
    let filters: Vec<_> = chains.map(|chain| &chain["filters"][0]).collect();
    assert!(filters.contains(&&expected("inbound|8082||")));
}
