//! Captured workloads: listeners by address, routes by port, and what the mesh does not know.

use serde_json::{Value, json};
use weft_api::node::{Interception, NodeInfo};
use weft_core::mesh::{MeshConfig, OutboundTrafficPolicy};
use weft_xds::ResourceType::{Cluster, Endpoints, Listener, Route, VirtualHost};

use crate::mesh::{Mesh, order, stock};

const MORE: &str = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: tcp, port: 3306}, {name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: default, labels: {app: db, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: db, containers: [{name: app, image: app}]}
status: {podIP: 10.1.0.7, podIPs: [{ip: 10.1.0.7}], phase: Running, conditions: [{type: Ready, status: \"True\"}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: default}
spec:
  hosts: [api.example]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 80, name: http, protocol: HTTP}]
";

fn captured(node: NodeInfo) -> NodeInfo {
    NodeInfo { interception: Interception::Redirect, app_address: None, ..node }
}

struct Captured {
    mesh: Mesh,
    node: NodeInfo,
}

impl Captured {
    fn new(policy: OutboundTrafficPolicy) -> Self {
        let config = MeshConfig { outbound_traffic_policy: policy, ..MeshConfig::default() };
        Self { mesh: Mesh::with(config, MORE), node: captured(order()) }
    }

    fn get(&self, kind: weft_xds::ResourceType, name: &str) -> Value {
        self.mesh.get_for(kind, name, &self.node)
    }
}

fn http(routes: &str) -> Value {
    json!([{"http": {"routes": routes, "filters": ["fault", "cors", "router"], "upgrades": ["websocket"]}}])
}

#[test]
fn what_the_mesh_does_not_know_goes_by_the_policy() {
    for (policy, cluster) in [
        (OutboundTrafficPolicy::AllowAny, "PassthroughCluster"),
        (OutboundTrafficPolicy::RegistryOnly, "BlackHoleCluster"),
    ] {
        let test = Captured::new(policy);
        assert_eq!(
            test.get(Listener, "virtualOutbound"),
            json!({
                "name": "virtualOutbound",
                "addresses": ["0.0.0.0:15001"],
                "chains": [{"match": {"port": 15001}, "filters": [{"tcp": "BlackHoleCluster"}]}],
                "otherwise": {"filters": [{"tcp": cluster}]},
            })
        );
        let routes = test.get(Route, "80");
        assert_eq!(routes["onDemand"], true);
        let host = &routes["virtualHosts"][0];
        assert_eq!(host["domains"], json!(["*"]));
        let (name, passes) = match policy {
            OutboundTrafficPolicy::AllowAny => ("allow_any", true),
            OutboundTrafficPolicy::RegistryOnly => ("block_all", false),
        };
        assert_eq!(host["name"], name);
        assert_eq!(host["routes"].to_string().contains("PassthroughCluster"), passes);
        for unknown in ["80/nobody.example", "80/10.9.9.9", "8080/order", "80/"] {
            assert_eq!(test.get(VirtualHost, unknown), Value::Null, "{unknown}");
        }
    }
    let mesh = Mesh::new("");
    assert_eq!(mesh.get(Listener, "virtualOutbound"), Value::Null, "nothing is captured");
    assert_eq!(mesh.get(Route, "80"), Value::Null);
    assert_eq!(mesh.get(VirtualHost, "80/order"), Value::Null);
}

#[test]
fn an_address_means_its_service_and_requests_go_by_their_authority() {
    let test = Captured::new(OutboundTrafficPolicy::AllowAny);
    assert_eq!(test.get(Listener, "10.0.0.1_80")["chains"], json!([{"filters": http("80")}]));
    let host = "order.default.svc.cluster.local";
    let bytes = json!([{"filters": [{"tcp": format!("outbound|82||{host}")}]}]);
    assert_eq!(test.get(Listener, "10.0.0.1_82")["chains"], bytes);
    let sniffed = test.get(Listener, "10.0.0.1_83");
    assert_eq!(sniffed["chains"][0]["filters"], http(&format!("{host}:83")));
    assert_eq!(sniffed["otherwise"]["filters"], json!([{"tcp": format!("outbound|83||{host}")}]));
    // The connection's port counts, not the one that a client may have written.
    for authority in ["user", "user.default:80", "10.0.0.2", "user:9999"] {
        let found = test.get(VirtualHost, &format!("80/{authority}"));
        assert_eq!(found["name"], "user.default.svc.cluster.local:80", "{authority}");
        assert!(found["domains"].as_array().unwrap().contains(&json!(authority)), "{found}");
    }
}

#[test]
fn addresses_of_nobody_are_told_apart_by_what_the_client_sends() {
    let test = Captured::new(OutboundTrafficPolicy::AllowAny);
    let requests = test.get(Listener, "192.0.2.1_80");
    assert_eq!(
        requests["chains"],
        json!([{
            "match": {"transport": "raw_buffer", "alpn": ["http/1.0", "http/1.1", "h2c"]},
            "filters": http("80"),
        }])
    );
    assert_eq!(requests["otherwise"]["filters"], json!([{"tcp": "PassthroughCluster"}]));
    let tls = test.get(Listener, "192.0.2.1_443");
    assert_eq!(
        tls["chains"],
        json!([{
            "match": {"serverNames": ["api.example"]},
            "filters": [{"tcp": "outbound|443||api.example"}],
        }])
    );
    assert_eq!(tls["otherwise"]["filters"], json!([{"tcp": "PassthroughCluster"}]));
    assert_eq!(test.get(Listener, "192.0.2.1_9999"), Value::Null);
    assert_eq!(test.get(Listener, "10.0.0.1_9999"), Value::Null, "a known service's other port");
}

#[test]
fn pods_of_a_headless_service_are_called_by_address_and_keep_their_identity() {
    let test = Captured::new(OutboundTrafficPolicy::AllowAny);
    let cluster = "outbound|3306||db.default.svc.cluster.local";
    let own = test.get(Listener, "10.1.0.7_3306");
    assert_eq!(own["chains"], json!([{"filters": [{"tcp": cluster}]}]));
    assert_eq!(test.get(Listener, "10.1.0.8_3306"), Value::Null, "no pod of it");
    assert_eq!(test.get(VirtualHost, "8080/db-0.db")["name"], "db.default.svc.cluster.local:8080");
    let found = test.get(Cluster, cluster);
    assert_eq!(
        (&found["type"], &found["loadBalancer"]),
        (&json!("EDS"), &json!("CLUSTER_PROVIDED"))
    );
    assert!(found["tlsByEndpoint"].is_object() || found["tlsByEndpoint"].is_array(), "{found}");
    assert_ne!(test.get(Endpoints, cluster), Value::Null);
    // Stock Envoy has no such cluster.
    let envoy = stock(test.node.clone());
    let found = test.mesh.get_for(Cluster, cluster, &envoy);
    assert_eq!(found["type"], "ORIGINAL_DST");
}

#[test]
fn a_new_pod_of_a_headless_service_changes_what_its_address_means() {
    let mut test = Captured::new(OutboundTrafficPolicy::AllowAny);
    let before = test.mesh.resolve(Listener, "10.1.0.8_3306", &test.node);
    assert_eq!(before.resource, None);
    let pod =
        MORE.split("---").nth(1).unwrap().replace("db-0", "db-1").replace("10.1.0.7", "10.1.0.8");
    let change = test.mesh.apply(&pod);
    assert!(before.dependencies.touched_by(&change));
    assert_ne!(test.get(Listener, "10.1.0.8_3306"), Value::Null);
}

#[test]
fn a_stock_envoy_has_every_host_of_a_port() {
    let test = Captured::new(OutboundTrafficPolicy::AllowAny);
    let routes = test.mesh.get_for(Route, "80", &stock(test.node.clone()));
    let hosts = routes["virtualHosts"].as_array().unwrap();
    let names: Vec<_> = hosts.iter().map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "api.example:80",
            "order.default.svc.cluster.local:80",
            "user.default.svc.cluster.local:80",
            "allow_any",
        ]
    );
}
