//! Gateways: which listeners and routes a proxy at the edge gets.

use serde_json::{Value, json};
use weft_api::node::{Interception, NodeInfo};
use weft_xds::ResourceType::{Cluster, Listener, Route, VirtualHost};

use crate::mesh::{Mesh, edge, order, stock};

/// A Gateway of namespace `edge`, created at a second.
pub fn gateway(name: &str, created: u8, servers: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: edge, creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}
spec: {{selector: {{istio: ingressgateway}}, servers: [{servers}]}}
---
"
    )
}

/// A VirtualService of namespace `default`, created at a second.
pub fn routes(name: &str, created: u8, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: default, creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}
spec: {{{spec}}}
---
"
    )
}

const HTTP: &str = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
const TO_ORDER: &str = "http: [{route: [{destination: {host: order, port: {number: 80}}}]}]";
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: edge}
spec:
  clusterIP: 10.0.0.9
  selector: {istio: ingressgateway}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]
---
";

pub fn names(mesh: &Mesh) -> Vec<String> {
    mesh.names(Listener, &edge())
}

fn listener(mesh: &Mesh, name: &str) -> Value {
    mesh.get_for(Listener, name, &edge())
}

/// Host, whether it redirects, and the routes' paths and clusters.
type Host = (String, bool, Vec<(String, String)>);

fn hosts(mesh: &Mesh, name: &str) -> Vec<Host> {
    let config = mesh.get_for(Route, name, &edge());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let hosts = config["virtualHosts"].as_array().into_iter().flatten();
    hosts
        .map(|host| {
            let routes = host["routes"].as_array().into_iter().flatten();
            let routes = routes.map(|route| (text(&route["match"][0]), text(&route["to"])));
            (text(&host["name"]), host["requireTls"] == json!(true), routes.collect())
        })
        .collect()
}

#[test]
fn a_port_of_http_is_one_listener_with_the_routes_of_its_virtual_services() {
    let mesh = Mesh::new(
        &(gateway("gw", 1, HTTP)
            + &routes(
                "shop",
                1,
                &format!("hosts: [shop.example.com], gateways: [edge/gw], {TO_ORDER}"),
            )),
    );
    assert_eq!(names(&mesh), ["0.0.0.0_80"]);
    let found = listener(&mesh, "0.0.0.0_80");
    assert_eq!(found["addresses"], json!(["0.0.0.0:80"]));
    assert_eq!(found["inspectors"], Value::Null);
    assert_eq!(
        found["chains"],
        json!([{"filters": [{"http": {
            "routes": "http.80", "filters": ["fault", "cors", "router"], "upgrades": ["websocket"],
        }}]}])
    );
    assert_eq!(mesh.names(Route, &edge()), ["http.80"]);
    let config = mesh.get_for(Route, "http.80", &edge());
    assert_eq!(config["virtualHosts"][0]["domains"], json!(["shop.example.com"]));
    assert_eq!(
        hosts(&mesh, "http.80"),
        [(
            "shop.example.com:80".into(),
            false,
            vec![("/*".into(), "outbound|80||order.default.svc.cluster.local".into())]
        )]
    );
    // Sidecars know nothing of it.
    assert_eq!(mesh.get(VirtualHost, "http_proxy/shop.example.com")["name"], json!("block_all"));
    assert_eq!(mesh.get_for(Listener, "0.0.0.0_80", &order()), Value::Null);
    // And the edge has nothing of a sidecar's.
    assert_eq!(listener(&mesh, "virtualInbound"), Value::Null);
    assert_eq!(listener(&mesh, "order_80"), Value::Null);
    let clusters = mesh.names(Cluster, &stock(edge()));
    assert!(clusters.contains(&"outbound|80||order.default.svc.cluster.local".to_owned()));
    assert!(
        !clusters.iter().any(|name| name.starts_with("inbound") || name.starts_with("Inbound"))
    );
}

#[test]
fn the_service_says_which_port_of_the_pod_it_is() {
    let mesh = Mesh::new(&(gateway("gw", 1, HTTP) + SERVICE));
    assert_eq!(names(&mesh), ["0.0.0.0_8080"]);
    let found = listener(&mesh, "0.0.0.0_8080");
    assert_eq!(found["addresses"], json!(["0.0.0.0:8080"]));
    assert_eq!(found["chains"][0]["filters"][0]["http"]["routes"], json!("http.80"));
    // Nobody routes anything yet.
    assert_eq!(hosts(&mesh, "http.80"), [("blackhole:80".into(), false, vec![])]);
    let alone = NodeInfo { interception: Interception::None, ..edge() };
    let found = mesh.get_for(Listener, "0.0.0.0_8080", &alone);
    assert_eq!(found["addresses"], json!(["127.20.8.1:8080"]), "without Kubernetes");
    let six = NodeInfo { pod_address: "fd00::8".parse().unwrap(), ..edge() };
    assert_eq!(mesh.get_for(Listener, "0.0.0.0_8080", &six)["addresses"], json!([":::8080"]));
}

#[test]
fn only_proxies_that_a_gateway_selects_serve_it_in_whatever_namespace() {
    let mesh = Mesh::new(&gateway("gw", 1, HTTP));
    let elsewhere = NodeInfo { namespace: "other".into(), ..edge() };
    assert_eq!(mesh.names(Listener, &elsewhere), ["0.0.0.0_80"]);
    let unselected =
        NodeInfo { labels: [("istio".to_owned(), "egressgateway".to_owned())].into(), ..edge() };
    assert_eq!(mesh.names(Listener, &unselected), [""; 0]);
}

#[test]
fn hosts_are_what_server_and_virtual_service_have_in_common() {
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com', 'other/private.org']}";
    let to =
        |hosts: &str| routes("vs", 1, &format!("hosts: {hosts}, gateways: [edge/gw], {TO_ORDER}"));
    for (wanted, expected) in [
        ("[shop.example.com]", vec!["shop.example.com:80"]),
        ("['*']", vec!["*.example.com:80"]),
        ("[a.example.com, b.example.com, c.org]", vec!["a.example.com:80", "b.example.com:80"]),
        // The server wants VirtualServices of another namespace for it.
        ("[private.org]", vec!["blackhole:80"]),
        ("[example.com]", vec!["blackhole:80"]),
    ] {
        let mesh = Mesh::new(&(gateway("gw", 1, servers) + &to(wanted)));
        let found = hosts(&mesh, "http.80");
        let found: Vec<&str> = found.iter().map(|(name, _, _)| name.as_str()).collect();
        assert_eq!(found, expected, "{wanted}");
    }
}

#[test]
fn routes_of_one_host_come_together_and_those_for_everything_come_last() {
    let route = |path: &str, to: &str| {
        format!(
            "http: [{{match: [{{uri: {{prefix: {path}}}}}], route: [{{destination: {{host: {to}, port: {{number: 80}}}}}}]}}]"
        )
    };
    let bound = |name: &str, created, route: &str| {
        routes(name, created, &format!("hosts: [shop.example.com], gateways: [edge/gw], {route}"))
    };
    let mesh = Mesh::new(
        &(gateway("gw", 1, HTTP)
            + &bound("first", 1, &route("/", "order"))
            + &bound("second", 2, &route("/users", "user"))
            + &bound("third", 3, &route("/users/1", "order"))),
    );
    let prefixes: Vec<String> =
        hosts(&mesh, "http.80").remove(0).2.into_iter().map(|(prefix, _)| prefix).collect();
    assert_eq!(prefixes, ["/users*", "/users/1*", "/*"]);
}

#[test]
fn gateways_share_a_port_without_tls_and_matches_may_name_one_of_them() {
    let own = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [own.example.com]}";
    let spec = "hosts: [shop.example.com, own.example.com], gateways: [edge/gw, edge/own, mesh], http: [
        {match: [{uri: {exact: /gw}, gateways: [edge/gw]}], route: [{destination: {host: order, port: {number: 80}}}]},
        {match: [{uri: {exact: /mesh}, gateways: [mesh]}], route: [{destination: {host: order, port: {number: 81}}}]},
        {match: [{uri: {exact: /port}, port: 8080}], route: [{destination: {host: order, port: {number: 81}}}]},
        {match: [{uri: {exact: /labels}, sourceLabels: {app: user}}], route: [{destination: {host: user}}]},
        {match: [{uri: {exact: /}}], route: [{destination: {host: user}}]}]";
    let mesh =
        Mesh::new(&(gateway("gw", 1, HTTP) + &gateway("own", 2, own) + &routes("vs", 1, spec)));
    assert_eq!(names(&mesh), ["0.0.0.0_80"]);
    let user = || "outbound|80||user.default.svc.cluster.local".to_owned();
    let order = || "outbound|80||order.default.svc.cluster.local".to_owned();
    let both = vec![("=/gw".to_owned(), order()), ("=/".to_owned(), user())];
    assert_eq!(
        hosts(&mesh, "http.80"),
        [
            ("own.example.com:80".into(), false, both.clone()),
            ("shop.example.com:80".into(), false, both)
        ]
    );
    let sidecar = mesh.get(VirtualHost, "http_proxy/shop.example.com");
    let paths: Vec<&Value> =
        sidecar["routes"].as_array().unwrap().iter().map(|route| &route["match"][0]).collect();
    assert_eq!(paths, ["=/mesh", "=/"], "labels of user are not order's");
}

#[test]
fn an_http_server_may_send_everybody_to_https() {
    let server = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example.com, '*.org'], tls: {httpsRedirect: true}}";
    let mesh = Mesh::new(
        &(gateway("gw", 1, server)
            + &routes("vs", 1, &format!("hosts: [a.org], gateways: [edge/gw], {TO_ORDER}"))),
    );
    let shown: Vec<_> = hosts(&mesh, "http.80")
        .into_iter()
        .map(|(name, tls, routes)| (name, tls, routes.len()))
        .collect();
    assert_eq!(
        shown,
        [
            ("*.org:80".into(), true, 0),
            ("a.org:80".into(), true, 1),
            ("shop.example.com:80".into(), true, 0)
        ]
    );
}

#[test]
fn authorization_policies_that_select_the_gateway_guard_it() {
    let policy = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard, namespace: edge}
spec: {selector: {matchLabels: {istio: ingressgateway}}, action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}
---
";
    let mesh = Mesh::new(&(gateway("gw", 1, HTTP) + policy));
    let found = listener(&mesh, "0.0.0.0_80");
    assert_eq!(
        found["chains"][0]["filters"][0]["http"]["filters"][0],
        json!({"rbac": {"rules": {"action": "DENY", "policies": ["ns[edge]-policy[guard]-rule[0]"]}}})
    );
}

#[test]
fn bytes_go_where_tcp_routes_say() {
    let server = "{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ['*']}";
    let route = "tcp: [{match: [{port: 1}], route: [{destination: {host: user}}]}, {match: [{port: 31400}], route: [{destination: {host: order, port: {number: 82}}}]}]";
    let mut mesh = Mesh::new(&gateway("gw", 1, server));
    assert_eq!(listener(&mesh, "0.0.0.0_31400"), Value::Null, "without routes nothing is bound");
    let change = mesh.apply(&routes(
        "vs",
        1,
        &format!("hosts: [db.example.com], gateways: [edge/gw], {route}"),
    ));
    assert!(change.gateways);
    assert_eq!(
        listener(&mesh, "0.0.0.0_31400")["chains"],
        json!([{"filters": [{"tcp": "outbound|82||order.default.svc.cluster.local"}]}])
    );
}

#[test]
fn what_changes_at_the_edge_is_resolved_again_and_sidecars_are_left_alone() {
    let mut mesh = Mesh::new(&gateway("gw", 1, HTTP));
    let before = mesh.resolve(Route, "http.80", &edge());
    let listener = mesh.resolve(Listener, "0.0.0.0_80", &edge());
    let sidecar = mesh.resolve(Listener, "virtualInbound", &order());
    let change = mesh.apply(&routes(
        "vs",
        1,
        &format!("hosts: [shop.example.com], gateways: [edge/gw], {TO_ORDER}"),
    ));
    assert!(before.dependencies.touched_by(&change));
    assert!(!sidecar.dependencies.touched_by(&change));
    assert!(change.hosts.is_empty(), "{change:?}");
    let second = "{port: {number: 81, name: more, protocol: HTTP}, hosts: ['*']}";
    let change = mesh.apply(&gateway("gw", 1, &format!("{HTTP}, {second}")));
    assert!(listener.dependencies.touched_by(&change));
    assert_eq!(names(&mesh), ["0.0.0.0_80", "0.0.0.0_81"]);
}

#[test]
fn what_speaks_otherwise_on_a_taken_port_is_left_out() {
    let tcp = "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}";
    let mesh = Mesh::new(
        &(gateway("young", 2, tcp)
            + &gateway("old", 1, HTTP)
            + &routes(
                "vs",
                1,
                "hosts: ['*'], gateways: [edge/young], tcp: [{route: [{destination: {host: user}}]}]",
            )),
    );
    assert_eq!(names(&mesh), ["0.0.0.0_80"]);
    let found = listener(&mesh, "0.0.0.0_80");
    assert_eq!(found["chains"][0]["filters"][0]["http"]["routes"], json!("http.80"));
}
