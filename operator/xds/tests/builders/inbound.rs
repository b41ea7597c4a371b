//! `virtualInbound`: modes of mutual TLS, authorization and rate limits as chains and filters.

use serde_json::{Value, json};
use weft_core::mesh::MeshConfig;
use weft_xds::ResourceType::Listener;

use crate::mesh::{Mesh, order, stock, stranger, user};

const ANY: [&str; 5] =
    ["istio-http/1.0", "istio-http/1.1", "istio-h2", "istio", "istio-peer-exchange"];
const HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
const TCP: [&str; 2] = ["istio", "istio-peer-exchange"];
const PLAIN_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

fn policy(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

/// A chain in short: what it wants, whether it terminates TLS, and what takes the connection.
fn short(chain: &Value) -> (String, Vec<String>, bool, &'static str) {
    let alpn = chain["match"]["alpn"].as_array().into_iter().flatten();
    let last = chain["filters"].as_array().unwrap().last().unwrap();
    (
        chain["match"]["transport"].as_str().unwrap_or("any").to_owned(),
        alpn.map(|name| name.as_str().unwrap().to_owned()).collect(),
        !chain["tls"].is_null(),
        if last.get("http").is_some() { "http" } else { "tcp" },
    )
}

type Short = (&'static str, &'static [&'static str], bool, &'static str);

fn chains(listener: &Value, port: u16) -> Vec<(String, Vec<String>, bool, &'static str)> {
    let chains = listener["chains"].as_array().unwrap().iter();
    chains.filter(|chain| chain["match"]["port"] == json!(port)).map(short).collect()
}

#[test]
fn the_mode_and_the_protocol_decide_the_chains_of_a_port() {
    let table: [(&str, u16, &[Short]); 9] = [
        ("PERMISSIVE", 8080, &[("tls", &ANY, true, "http"), ("raw_buffer", &[], false, "http")]),
        (
            "PERMISSIVE",
            8082,
            &[
                ("tls", &ANY, true, "tcp"),
                ("tls", &[], false, "tcp"),
                ("raw_buffer", &[], false, "tcp"),
            ],
        ),
        (
            "PERMISSIVE",
            8083,
            &[
                ("tls", &HTTP, true, "http"),
                ("tls", &TCP, true, "tcp"),
                ("tls", &[], false, "tcp"),
                ("raw_buffer", &PLAIN_HTTP, false, "http"),
                ("raw_buffer", &[], false, "tcp"),
            ],
        ),
        ("STRICT", 8080, &[("tls", &[], true, "http")]),
        ("STRICT", 8082, &[("tls", &[], true, "tcp")]),
        ("STRICT", 8083, &[("tls", &HTTP, true, "http"), ("tls", &[], true, "tcp")]),
        ("DISABLE", 8080, &[("any", &[], false, "http")]),
        ("DISABLE", 8082, &[("any", &[], false, "tcp")]),
        (
            "DISABLE",
            8083,
            &[
                ("raw_buffer", &PLAIN_HTTP, false, "http"),
                ("raw_buffer", &[], false, "tcp"),
                ("tls", &[], false, "tcp"),
            ],
        ),
    ];
    for (mode, port, expected) in table {
        let listener = Mesh::new(&policy(mode)).get(Listener, "virtualInbound");
        let expected: Vec<_> = expected
            .iter()
            .map(|(transport, alpn, tls, content)| {
                (
                    (*transport).to_owned(),
                    alpn.iter().map(|name| (*name).to_owned()).collect(),
                    *tls,
                    *content,
                )
            })
            .collect();
        assert_eq!(chains(&listener, port), expected, "{mode} {port}");
    }
}

#[test]
fn a_port_may_have_a_mode_of_its_own() {
    let policy = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: own}
spec: {selector: {matchLabels: {app: order}}, mtls: {mode: STRICT}, portLevelMtls: {8081: {mode: DISABLE}}}
";
    let mesh = Mesh::new(policy);
    let listener = mesh.get(Listener, "virtualInbound");
    assert_eq!(chains(&listener, 8080), [("tls".into(), vec![], true, "http")]);
    assert_eq!(chains(&listener, 8081), [("any".into(), vec![], false, "http")]);
    let other = mesh.get_for(Listener, "virtualInbound", &user());
    assert_eq!(chains(&other, 8080).len(), 2);
}

#[test]
fn the_listener_is_bound_where_clients_call_and_15006_leads_nowhere() {
    let listener = Mesh::new("").get_for(Listener, "virtualInbound", &user());
    let http = |tls: Value| {
        let mut chain = json!({
            "match": {"port": 8080},
            "filters": [{"http": {
                "routes": {
                    "name": "inbound|8080||",
                    "virtualHosts": [{
                        "name": "inbound|http|80",
                        "domains": ["*"],
                        "routes": [{
                            "name": "default", "match": ["/*"], "to": "inbound|8080||",
                            "retries": {"on": "reset-before-request", "attempts": 2},
                        }],
                    }],
                },
                "filters": ["fault", "router"],
                "upgrades": ["websocket"],
            }}],
        });
        if tls.is_null() {
            chain["match"]["transport"] = json!("raw_buffer");
        } else {
            chain["match"]["transport"] = json!("tls");
            chain["match"]["alpn"] = json!(ANY);
            chain["tls"] = tls;
        }
        chain
    };
    let tls = json!({
        "certificate": ["default"], "trust": "ROOTCA", "peers": ["spiffe://cluster.local/*"], "alpn": ["h2", "http/1.1"],
                    "clientCertificate": true,
    });
    assert_eq!(
        listener,
        json!({
            "name": "virtualInbound",
            "addresses": ["127.20.1.3:15006", "127.20.1.3:8080"],
            "inspectors": ["tls_inspector"],
            "chains": [{"match": {"port": 15006}, "filters": [{"tcp": "BlackHoleCluster"}]}, http(tls), http(Value::Null)],
        })
    );
}

#[test]
fn a_workload_without_services_has_no_ports() {
    let listener = Mesh::new("").get_for(Listener, "virtualInbound", &stranger());
    assert_eq!(listener["addresses"], json!(["127.20.9.9:15006"]));
    assert_eq!(listener["chains"].as_array().unwrap().len(), 1);
}

#[test]
fn bytes_are_looked_at_only_where_something_hangs_on_them() {
    let inspectors = |mode: &str, stock_envoy: bool| {
        let node = if stock_envoy { stock(order()) } else { order() };
        Mesh::new(&policy(mode)).get_for(Listener, "virtualInbound", &node)["inspectors"].clone()
    };
    assert_eq!(inspectors("PERMISSIVE", false), json!(["tls_inspector", "http_inspector"]));
    let not_everywhere =
        json!(["tls_inspector (not on every port)", "http_inspector (not on every port)"]);
    assert_eq!(inspectors("DISABLE", true), not_everywhere);
    assert_eq!(
        inspectors("PERMISSIVE", true),
        json!(["tls_inspector", "http_inspector (not on every port)"])
    );
}

fn filters(listener: &Value, port: u16) -> Vec<Value> {
    let chains = listener["chains"].as_array().unwrap().iter();
    let mut chains = chains.filter(|chain| chain["match"]["port"] == json!(port));
    let chain = chains.next_back().unwrap();
    let filters = chain["filters"].as_array().unwrap();
    match filters.last().unwrap().get("http") {
        Some(http) => http["filters"].as_array().unwrap().clone(),
        None => filters.clone(),
    }
}

#[test]
fn authorization_comes_first_deny_before_allow() {
    let authorization = |name: &str, action: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec: {{selector: \
             {{matchLabels: {{app: order}}}}, action: {action}, rules: [{{from: [{{source: {{namespaces: [default]}}}}]}}]}}\n"
        )
    };
    let yaml = [authorization("a", "ALLOW"), authorization("d", "DENY")].concat();
    let mesh = Mesh::new(&yaml);
    let listener = mesh.get(Listener, "virtualInbound");
    let rbac = |action: &str, name: &str| json!({"rbac": {"rules": {"action": action, "policies": [format!("ns[default]-policy[{name}]-rule[0]")]}}});
    assert_eq!(
        filters(&listener, 8080),
        [rbac("DENY", "d"), rbac("ALLOW", "a"), json!("fault"), json!("router")]
    );
    assert_eq!(
        filters(&listener, 8082),
        [rbac("DENY", "d"), rbac("ALLOW", "a"), json!({"tcp": "inbound|8082||"})]
    );
    let other = mesh.get_for(Listener, "virtualInbound", &user());
    assert_eq!(filters(&other, 8080), [json!("fault"), json!("router")]);
}

#[test]
fn the_example_of_a_rate_limit_limits_every_port() {
    let yaml = include_str!("../../../../samples/examples/rate-limit-envoyfilter.yaml");
    let listener = Mesh::new(yaml).get(Listener, "virtualInbound");
    let limit = json!({"local_ratelimit": {"tokens": 100, "perFill": 100, "interval": "60s"}});
    assert_eq!(filters(&listener, 8080), [limit, json!("fault"), json!("router")]);
}

#[test]
fn a_rate_limit_of_a_route_brings_its_filter() {
    let yaml = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit}
spec:
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {context: SIDECAR_INBOUND, routeConfiguration: {vhost: {name: 'inbound|http|80', route: {action: ANY}}}}
    patch:
      operation: MERGE
      value:
        typed_per_filter_config:
          envoy.filters.http.local_ratelimit:
            '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
            stat_prefix: http_local_rate_limiter
            token_bucket: {max_tokens: 4, tokens_per_fill: 2, fill_interval: 1s}
";
    let listener = Mesh::new(yaml).get(Listener, "virtualInbound");
    assert_eq!(filters(&listener, 8080)[0], json!("local_ratelimit"));
    let chain = &listener["chains"][1];
    let route = &chain["filters"][0]["http"]["routes"]["virtualHosts"][0]["routes"][0];
    assert_eq!(
        route["filters"],
        json!({"envoy.filters.http.local_ratelimit": {"tokens": 4, "perFill": 2, "interval": "1s"}})
    );
    assert_eq!(filters(&listener, 8081), [json!("fault"), json!("router")]);
}

#[test]
fn access_logs_are_written_where_the_mesh_says() {
    let config = MeshConfig { access_log_file: "/dev/stdout".into(), ..MeshConfig::default() };
    let listener = Mesh::with(config, "").get(Listener, "virtualInbound");
    assert_eq!(listener["chains"][1]["filters"][0]["http"]["accessLog"], json!(true));
}
