//! Clusters and endpoints.

use serde_json::{Value, json};
use weft_core::mesh::MeshConfig;
use weft_xds::ResourceType::{Cluster, Endpoints};

use crate::mesh::{Mesh, order, stock, stranger, user};

const ORDER: &str = "order.default.svc.cluster.local";

fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: order}}\nspec: {{host: order, {spec}}}\n"
    )
}

fn name(port: u16, subset: &str) -> String {
    format!("outbound|{port}|{subset}|{ORDER}")
}

fn mesh_tls(port: u16, subset: &str, alpn: &[&str]) -> Value {
    json!({
        "sni": format!("outbound_.{port}_.{subset}_.{ORDER}"),
        "context": {
            "certificate": ["default"],
            "trust": "ROOTCA",
            "peers": ["=spiffe://cluster.local/ns/default/sa/order"],
            "alpn": alpn,
        },
    })
}

fn described(port: u16) -> Value {
    json!({
        "services": [{"host": ORDER, "name": "order", "namespace": "default"}],
        "default_original_port": f64::from(port),
    })
}

#[test]
fn a_service_without_rules_is_unlimited_and_speaks_mutual_tls_with_those_that_take_it() {
    let expected = |port: u16, http: Value, alpn: &[&str]| {
        let mut expected = json!({
            "name": name(port, ""),
            "type": "EDS",
            "loadBalancer": "LEAST_REQUEST",
            "connectTimeout": "10s",
            "http": {"version": http},
            "tlsByEndpoint": {"tlsMode-istio": mesh_tls(port, "", alpn), "tlsMode-disabled": "plaintext"},
            "metadata": {"istio": described(port)},
        });
        if http.is_null() {
            expected.as_object_mut().unwrap().remove("http");
        }
        expected
    };
    let mesh = Mesh::new("");
    let table = [
        (80, json!("HTTP/1.1"), &["istio-http/1.1", "istio", "http/1.1"][..]),
        (81, json!("HTTP/2"), &["istio-h2", "istio", "h2"]),
        (82, Value::Null, &["istio-peer-exchange", "istio"]),
        (83, json!("as the client"), &["istio-peer-exchange", "istio"]),
        (84, Value::Null, &["istio-peer-exchange", "istio"]),
    ];
    for (port, http, alpn) in table {
        assert_eq!(mesh.get(Cluster, &name(port, "")), expected(port, http, alpn), "{port}");
    }
}

#[test]
fn what_is_not_there_has_no_cluster_and_no_endpoints() {
    let mesh = Mesh::new(&rule("subsets: [{name: v1, labels: {version: v1}}]"));
    let names = [
        name(85, ""),
        name(80, "v3"),
        "outbound|80||order".into(),
        "outbound|80||nobody.default.svc.cluster.local".into(),
        "inbound|9999||".into(),
        "nonsense".into(),
        String::new(),
    ];
    for name in names {
        assert_eq!(mesh.get(Cluster, &name), Value::Null, "{name}");
        assert_eq!(mesh.get(Endpoints, &name), Value::Null, "{name}");
    }
}

#[test]
fn a_circuit_breaker_is_as_the_example_wants_it() {
    let yaml = include_str!("../../../../samples/examples/circuit-breaker.yaml")
        .replace("user-service", "user");
    let found = Mesh::new(&yaml).get(Cluster, "outbound|80||user.default.svc.cluster.local");
    assert_eq!(found["limits"], json!({"connections": 100, "pendingRequests": 50}));
    assert_eq!(found["http"], json!({"version": "HTTP/1.1", "maxRequestsPerConnection": 2}));
    assert_eq!(
        found["outlierDetection"],
        json!({
            "consecutive5xx": 5, "interval": "30s", "baseEjectionTime": "30s", "maxEjectionPercent": 50,
        })
    );
}

#[test]
fn policies_become_envoys() {
    let table = [
        (
            "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}",
            "loadBalancer",
            json!("ROUND_ROBIN"),
        ),
        ("trafficPolicy: {loadBalancer: {simple: RANDOM}}", "loadBalancer", json!("RANDOM")),
        (
            "trafficPolicy: {loadBalancer: {simple: LEAST_CONN}}",
            "loadBalancer",
            json!("LEAST_REQUEST"),
        ),
        ("trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}", "type", json!("ORIGINAL_DST")),
        (
            "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: h}}}",
            "loadBalancer",
            json!("RING_HASH"),
        ),
        (
            "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: h, maglev: {}}}}",
            "loadBalancer",
            json!("MAGLEV"),
        ),
        (
            "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 250ms}}}",
            "connectTimeout",
            json!("0.25s"),
        ),
        (
            "trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}",
            "http",
            json!({"version": "HTTP/2"}),
        ),
        (
            "trafficPolicy: {connectionPool: {http: {useClientProtocol: true}}}",
            "http",
            json!({"version": "as the client"}),
        ),
        (
            "trafficPolicy: {connectionPool: {http: {http2MaxRequests: 7, maxRetries: 2, idleTimeout: 5m}}}",
            "limits",
            json!({"requests": 7, "retries": 2}),
        ),
        (
            "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 3}}",
            "outlierDetection",
            json!({"consecutive5xx": "off", "consecutiveGatewayErrors": 3}),
        ),
        (
            "trafficPolicy: {retryBudget: {percent: 30, minRetryConcurrency: 5}}",
            "limits",
            json!({"retryBudget": {"percent": 30.0, "atLeast": 5}}),
        ),
        (
            "trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}",
            "loadBalancer",
            json!("RANDOM"),
        ),
    ];
    for (spec, field, expected) in table {
        assert_eq!(Mesh::new(&rule(spec)).get(Cluster, &name(80, ""))[field], expected, "{spec}");
    }
}

#[test]
fn a_rules_tls_takes_the_place_of_automatic_mutual_tls() {
    let tls = |settings: &str| {
        let found = Mesh::new(&rule(&format!("trafficPolicy: {{tls: {settings}}}")))
            .get(Cluster, &name(80, ""));
        (found["tls"].clone(), found["tlsByEndpoint"].clone(), found["http"].clone())
    };
    let http = json!({"version": "HTTP/1.1"});
    assert_eq!(tls("{mode: DISABLE}"), (Value::Null, Value::Null, http.clone()));
    let alpn = ["istio-http/1.1", "istio", "http/1.1"];
    assert_eq!(tls("{mode: ISTIO_MUTUAL}"), (mesh_tls(80, "", &alpn), Value::Null, http.clone()));
    let named = tls("{mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://other/ns/a/sa/b']}").0;
    assert_eq!(named["context"]["peers"], json!(["=spiffe://other/ns/a/sa/b"]));
    assert_eq!(
        tls("{mode: SIMPLE, sni: api.example, subjectAltNames: [api.example]}"),
        (
            json!({"sni": "api.example", "context": {"trust": "files", "peers": ["=api.example"], "alpn": ["http/1.1"]}}),
            Value::Null,
            http,
        )
    );
    let by_request =
        json!({"version": "HTTP/1.1", "sniFromRequest": true, "checkedNameFromRequest": true});
    assert_eq!(tls("{mode: SIMPLE}").2, by_request);
    let anyone = tls("{mode: SIMPLE, insecureSkipVerify: true}");
    assert_eq!(anyone.0, json!({"context": {"trust": "anyone", "alpn": ["http/1.1"]}}));
}

#[test]
fn without_automatic_mutual_tls_there_is_none() {
    let config = MeshConfig { enable_auto_mtls: false, ..MeshConfig::default() };
    let found = Mesh::with(config, "").get(Cluster, &name(80, ""));
    assert_eq!((&found["tls"], &found["tlsByEndpoint"]), (&Value::Null, &Value::Null));
}

#[test]
fn trust_domain_aliases_name_servers_too() {
    let config =
        MeshConfig { trust_domain_aliases: vec!["old.local".into()], ..MeshConfig::default() };
    let found = Mesh::with(config, "").get(Cluster, &name(80, ""));
    assert_eq!(
        found["tlsByEndpoint"]["tlsMode-istio"]["context"]["peers"],
        json!([
            "=spiffe://cluster.local/ns/default/sa/order",
            "=spiffe://old.local/ns/default/sa/order"
        ])
    );
}

#[test]
fn endpoints_say_who_they_are_and_whether_they_take_mutual_tls() {
    let mesh = Mesh::new(&rule(
        "subsets: [{name: v1, labels: {version: v1}}, {name: none, labels: {version: v9}}]",
    ));
    let v1 = json!({
        "address": "127.20.1.1:8080",
        "metadata": {
            "envoy.transport_socket_match": {"tlsMode": "istio"},
            "istio": {"workload": "order-v1;default;order;v1;Kubernetes"},
        },
    });
    let v2 = json!({
        "address": "127.20.1.2:8080",
        "metadata": {"istio": {"workload": "order-v2;default;order;v2;Kubernetes"}},
    });
    assert_eq!(
        mesh.get(Endpoints, &name(80, "")),
        json!({"name": name(80, ""), "endpoints": [v1, v2]})
    );
    assert_eq!(
        mesh.get(Endpoints, &name(80, "v1")),
        json!({"name": name(80, "v1"), "endpoints": [v1]})
    );
    // Nothing matches: the cluster is there, and empty.
    assert_eq!(mesh.get(Endpoints, &name(80, "none")), json!({"name": name(80, "none")}));
}

#[test]
fn an_endpoint_whose_policy_disables_mutual_tls_is_spoken_to_in_plaintext() {
    let policy = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: off}
spec: {selector: {matchLabels: {app: order}}, mtls: {mode: DISABLE}, portLevelMtls: {8081: {mode: STRICT}}}
";
    let mesh = Mesh::new(policy);
    let socket = |port: u16| {
        mesh.get(Endpoints, &name(port, ""))["endpoints"][0]["metadata"]["envoy.transport_socket_match"].clone()
    };
    assert_eq!((socket(80), socket(81)), (Value::Null, json!({"tlsMode": "istio"})));
}

#[test]
fn the_applications_port_is_where_only_its_proxy_calls() {
    let mesh = Mesh::new(&rule(
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}, outlierDetection: {}}",
    ));
    assert_eq!(
        mesh.get(Cluster, "inbound|8080||"),
        json!({
            "name": "inbound|8080||",
            "type": "STATIC",
            "loadBalancer": "ROUND_ROBIN",
            "connectTimeout": "10s",
            "limits": {"connections": 9},
            "http": {"version": "HTTP/1.1"},
            "endpoints": [{"address": "127.30.1.1:8080"}],
            "metadata": {"istio": {"services": [{"host": ORDER, "name": "order", "namespace": "default"}]}},
        })
    );
    assert_eq!(mesh.get_for(Cluster, "inbound|8081||", &user()), Value::Null);
}

#[test]
fn clusters_of_a_service_entry_are_found_as_it_says() {
    let entry = |resolution: &str, more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec: {{hosts: [api.example], \
             location: MESH_EXTERNAL, resolution: {resolution}, ports: [{{number: 80, name: http, protocol: HTTP}}]{more}}}\n"
        )
    };
    let name = "outbound|80||api.example";
    let table = [
        ("DNS", "", "STRICT_DNS", json!([{"address": "api.example:80"}])),
        ("DNS_ROUND_ROBIN", "", "LOGICAL_DNS", json!([{"address": "api.example:80"}])),
        // Nothing is captured, so what the client named is all there is to go by.
        ("NONE", "", "STRICT_DNS", json!([{"address": "api.example:80"}])),
        ("STATIC", ", endpoints: [{address: 127.9.9.9}]", "EDS", Value::Null),
    ];
    for (resolution, more, kind, endpoints) in table {
        let found = Mesh::new(&entry(resolution, more)).get(Cluster, name);
        assert_eq!(
            (&found["type"], &found["endpoints"], &found["tlsByEndpoint"]),
            (&json!(kind), &endpoints, &Value::Null),
            "{resolution}"
        );
    }
}

#[test]
fn every_proxy_has_the_two_ends() {
    let mesh = Mesh::new("");
    assert_eq!(
        mesh.get(Cluster, "BlackHoleCluster"),
        json!({"name": "BlackHoleCluster", "type": "STATIC", "loadBalancer": "ROUND_ROBIN", "connectTimeout": "10s"})
    );
    assert_eq!(mesh.get(Cluster, "InboundPassthroughCluster")["type"], "ORIGINAL_DST");
}

#[test]
fn a_wildcard_is_what_the_node_may_see_and_every_name_of_it_resolves() {
    let hidden = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: hidden}
spec: {hosts: [hidden.example], exportTo: ['.'], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
";
    let mesh =
        Mesh::new(&[&rule("subsets: [{name: v1, labels: {version: v1}}]"), "---", hidden].concat());
    let own = mesh.names(Cluster, &order());
    assert!(own.contains(&"outbound|80||hidden.example".to_owned()));
    assert!(own.contains(&name(80, "v1")) && own.contains(&"inbound|8080||".to_owned()));
    for name in &own {
        assert_ne!(mesh.get(Cluster, name), Value::Null, "{name}");
    }
    let foreign = mesh.names(Cluster, &stranger());
    assert!(!foreign.contains(&"outbound|80||hidden.example".to_owned()));
    assert!(!foreign.iter().any(|name| name.starts_with("inbound")));
}

#[test]
fn a_stock_envoy_offers_no_exchange_of_metadata() {
    let mesh = Mesh::new("");
    let found = mesh.get_for(Cluster, &name(82, ""), &stock(order()));
    assert_eq!(found["tlsByEndpoint"]["tlsMode-istio"]["context"]["alpn"], json!(["istio"]));
}
