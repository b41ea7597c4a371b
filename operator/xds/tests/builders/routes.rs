//! Virtual hosts and routes.

use serde_json::{Value, json};
use weft_xds::ResourceType::{Route, VirtualHost};

use crate::mesh::{Mesh, order, stock, stranger, user};

const ORDER: &str = "order.default.svc.cluster.local";

fn default_retries() -> Value {
    json!({
        "on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "attempts": 2,
        "otherHosts": true,
    })
}

/// The routes of the virtual host that a request to `order` gets.
fn routes(yaml: &str) -> Value {
    Mesh::new(yaml).get(VirtualHost, "http_proxy/order")["routes"].clone()
}

fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: order}}\nspec:\n  hosts: [order]\n  http: {http}\n"
    )
}

/// One route of a VirtualService, without what every route of it has.
fn one(http: &str) -> Value {
    let mut routes = routes(&virtual_service(http));
    let route = routes[0].take();
    let Value::Object(mut route) = route else { panic!("no route: {routes}") };
    assert_eq!(
        route.remove("metadata"),
        Some(
            json!({"istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/order"}})
        )
    );
    if route.get("retries") == Some(&default_retries()) {
        route.remove("retries");
    }
    Value::Object(route)
}

#[test]
fn a_service_is_reached_by_every_form_of_its_name() {
    let mesh = Mesh::new("");
    let forms = json!([
        ORDER,
        format!("{ORDER}:80"),
        format!("{ORDER}."),
        format!("{ORDER}.:80"),
        "order",
        "order:80",
        "order.default",
        "order.default:80",
        "order.default.svc",
        "order.default.svc:80",
        "10.0.0.1",
        "10.0.0.1:80",
    ]);
    let expected = json!({
        "name": format!("{ORDER}:80"),
        "domains": forms,
        "routes": [{
            "name": "default", "match": ["/*"], "to": format!("outbound|80||{ORDER}"), "retries": default_retries(),
        }],
    });
    assert_eq!(mesh.get(VirtualHost, "http_proxy/order"), expected);
    // Asked for by another name, the answer is the same.
    assert_eq!(mesh.get(VirtualHost, "http_proxy/10.0.0.1:80"), expected);
    assert_eq!(mesh.get(VirtualHost, "http_proxy/Order.Default"), expected);
    // Without a port, 80 is meant: the other ports need it.
    let grpc = mesh.get(VirtualHost, "http_proxy/order:81");
    assert_eq!(
        grpc["domains"],
        json!([
            format!("{ORDER}:81"),
            format!("{ORDER}.:81"),
            "order:81",
            "order.default:81",
            "order.default.svc:81",
            "10.0.0.1:81",
        ])
    );
}

#[test]
fn a_short_name_means_the_own_namespace() {
    let mesh = Mesh::new("");
    assert_eq!(mesh.get_for(VirtualHost, "http_proxy/order", &stranger())["name"], "block_all");
    let found = mesh.get_for(VirtualHost, "http_proxy/order.default", &stranger());
    assert_eq!(found["name"], format!("{ORDER}:80"));
    let domains = found["domains"].as_array().unwrap();
    assert!(!domains.contains(&json!("order")) && domains.contains(&json!("order.default.svc")));
}

#[test]
fn what_the_mesh_does_not_know_is_refused_and_what_is_no_authority_is_absent() {
    let mesh = Mesh::new("");
    for authority in ["nobody", "order:9999", "order:82", "order:84", "example.com", "10.9.9.9:80"]
    {
        let expected = json!({
            "name": "block_all",
            "domains": [authority],
            "routes": [{"name": "block_all", "match": ["/*"], "answer": 502}],
        });
        assert_eq!(mesh.get(VirtualHost, &format!("http_proxy/{authority}")), expected);
    }
    for name in [
        "http_proxy/*",
        "http_proxy/*.example.com",
        "http_proxy/a b",
        "http_proxy/a:b",
        "other/order",
        "order",
    ] {
        assert_eq!(mesh.get(VirtualHost, name), Value::Null, "{name}");
    }
}

#[test]
fn a_port_of_unknown_protocol_takes_requests() {
    assert_eq!(
        Mesh::new("").get(VirtualHost, "http_proxy/order:83")["name"],
        format!("{ORDER}:83")
    );
}

#[test]
fn a_canary_is_split_after_its_beta_users() {
    let canary =
        include_str!("../../../../samples/examples/canary.yaml").replace("order-service", "order");
    let to = |subset: &str| format!("outbound|80|{subset}|{ORDER}");
    let metadata = json!({"istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/order"}});
    assert_eq!(
        routes(&canary),
        json!([
            {"match": ["/*", "user-type=beta"], "to": to("v2"), "retries": default_retries(), "metadata": metadata},
            {
                "match": ["/*"],
                "to": [{"cluster": to("v1"), "weight": 90}, {"cluster": to("v2"), "weight": 10}],
                "retries": default_retries(),
                "metadata": metadata,
            },
        ])
    );
}

#[test]
fn matches_become_envoys() {
    let table = [
        ("uri: {prefix: /a}", json!(["/a*"])),
        ("uri: {exact: /a}, ignoreUriCase: true", json!(["=/a(any case)"])),
        ("uri: {regex: '/a/[0-9]+'}", json!(["~/a/[0-9]+"])),
        (
            "headers: {X-A: {prefix: p}, x-b: {}, x-c: {regex: '*'}}",
            json!(["/*", "x-a".to_owned() + "p*", "x-b present", "x-c present"]),
        ),
        (
            "withoutHeaders: {x-a: {exact: v}, x-b: {}}",
            json!(["/*", "not x-a=v (or missing)", "not x-b present"]),
        ),
        (
            "method: {exact: GET}, authority: {regex: a.*}, scheme: {exact: https}",
            json!(["/*", ":method=GET", ":authority~a.*", ":scheme=https"]),
        ),
        ("queryParams: {a: {exact: '1'}, b: {}}", json!(["/*", "?a=1", "?b present"])),
        ("port: 80", json!(["/*"])),
        ("sourceLabels: {app: order}, sourceNamespace: default", json!(["/*"])),
        ("gateways: [mesh], sourceLabels: {app: nobody}", json!(["/*"])),
    ];
    for (wanted, expected) in table {
        let route =
            one(&format!("[{{match: [{{{wanted}}}], route: [{{destination: {{host: order}}}}]}}]"));
        assert_eq!(route["match"], expected, "{wanted}");
    }
}

#[test]
fn matches_for_other_clients_and_ports_are_left_out() {
    for wanted in [
        "port: 81",
        "sourceLabels: {app: user}",
        "sourceNamespace: other",
        "gateways: [default/edge]",
    ] {
        let http = format!(
            "[{{name: x, match: [{{{wanted}}}], route: [{{destination: {{host: user}}}}]}}]"
        );
        // No route is left: the service keeps its own.
        assert_eq!(routes(&virtual_service(&http))[0]["name"], "default", "{wanted}");
    }
    let http =
        "[{name: x, match: [{sourceLabels: {app: user}}], route: [{destination: {host: user}}]}]";
    let mesh = Mesh::new(&virtual_service(http));
    let found = mesh.get_for(VirtualHost, "http_proxy/order", &user());
    assert_eq!(found["routes"][0]["name"], "x");
}

#[test]
fn evaluation_ends_at_a_route_for_everything_and_each_match_is_a_route() {
    let http = "
  - {name: a, match: [{name: one, uri: {prefix: /1}}, {name: two, uri: {prefix: /2}}], route: [{destination: {host: order}}]}
  - {name: b, route: [{destination: {host: order}}]}
  - {name: never, match: [{uri: {prefix: /3}}], route: [{destination: {host: order}}]}";
    let routes = routes(&virtual_service(http));
    let names: Vec<_> =
        routes.as_array().unwrap().iter().map(|route| route["name"].as_str()).collect();
    assert_eq!(names, [Some("a.one"), Some("a.two"), Some("b")]);
}

#[test]
fn actions_become_envoys() {
    let own = format!("outbound|80||{ORDER}");
    let route = |fields: &str| format!("[{{route: [{{destination: {{host: order}}}}], {fields}}}]");
    let with = |fields: Value| {
        let mut expected = json!({"match": ["/*"], "to": own});
        expected.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        expected
    };
    let user = "outbound|80||user.default.svc.cluster.local";
    let table = [
        (route("timeout: 3s"), with(json!({"timeout": "3s"}))),
        (route("timeout: 1500ms"), with(json!({"timeout": "1.5s"}))),
        (
            route("retries: {attempts: 3, perTryTimeout: 1s, retryOn: '5xx,503'}"),
            with(json!({"retries": {
                "on": "5xx,retriable-status-codes", "attempts": 3, "perTryTimeout": "1s", "statuses": [503],
                "otherHosts": true,
            }})),
        ),
        (route("retries: {attempts: 0}"), with(json!({}))),
        (
            route("rewrite: {uri: /v2, authority: other}"),
            with(json!({"rewrite": {"prefix": "/v2", "authority": "other"}})),
        ),
        (
            route("rewrite: {uriRegexRewrite: {match: '/a/(.*)', rewrite: '/b/\\1'}}"),
            with(json!({"rewrite": {"regex": "/a/(.*) -> /b/\\1"}})),
        ),
        (
            route("fault: {delay: {percentage: {value: 10}, fixedDelay: 5s}, abort: {percentage: {value: 0.5}, httpStatus: 503}}"),
            with(json!({"filters": {"envoy.filters.http.fault": {
                "delay": {"percent": 10.0, "delay": "5s"}, "abort": {"percent": 0.5, "status": 503},
            }}})),
        ),
        (route("fault: {delay: {fixedDelay: 5s}}"), with(json!({}))),
        (
            route("fault: {abort: {percentage: {value: 100}, grpcStatus: UNAVAILABLE}}"),
            with(json!({"filters": {"envoy.filters.http.fault": {"abort": {"percent": 100.0, "status": "grpc 14"}}}})),
        ),
        (
            route("mirror: {host: user}, mirrorPercentage: {value: 25}"),
            with(json!({"mirrors": [{"cluster": user, "percent": 25.0}]})),
        ),
        (route("mirror: {host: user}, mirrorPercentage: {value: 0}"), with(json!({}))),
        (
            route("headers: {request: {set: {a: '1', Host: h}, add: {b: '50%'}, remove: [c]}, response: {remove: [server]}}"),
            with(json!({
                "rewrite": {"authority": "h"}, "requestHeaders": ["=a: 1", "+b: 50%%", "-c"],
                "responseHeaders": ["-server"],
            })),
        ),
        (
            "[{redirect: {uri: /new, authority: other, redirectCode: 302, scheme: https, port: 8443}}]".into(),
            json!({"match": ["/*"], "redirect": {
                "code": "FOUND", "scheme": "https", "host": "other", "port": 8443, "path": "/new",
            }}),
        ),
        ("[{directResponse: {status: 418, body: {string: no}}}]".into(), json!({"match": ["/*"], "answer": 418})),
    ];
    for (http, expected) in table {
        let mut route = one(&http);
        let route = route.as_object_mut().unwrap();
        if !http.contains("name:") {
            route.remove("name");
        }
        assert_eq!(Value::Object(route.clone()), expected, "{http}");
    }
}

#[test]
fn destinations_become_clusters() {
    let table = [
        // The only port of the service that is named.
        ("{host: user}", json!("outbound|80||user.default.svc.cluster.local")),
        ("{host: user, port: {number: 8}}", json!("outbound|8||user.default.svc.cluster.local")),
        ("{host: order, port: {number: 81}}", json!(format!("outbound|81||{ORDER}"))),
        // Several ports: the one being listened on.
        ("{host: order}", json!(format!("outbound|80||{ORDER}"))),
        ("{host: nobody}", json!("outbound|80||nobody.default.svc.cluster.local")),
    ];
    for (destination, expected) in table {
        assert_eq!(
            one(&format!("[{{route: [{{destination: {destination}}}]}}]"))["to"],
            expected,
            "{destination}"
        );
    }
    let split = "[{route: [{destination: {host: order}, weight: 1}, {destination: {host: user}, weight: 0}, \
                 {destination: {host: user}, weight: 3, headers: {request: {set: {a: b}}}}]}]";
    assert_eq!(
        one(split)["to"],
        json!([
            {"cluster": format!("outbound|80||{ORDER}"), "weight": 1},
            {"cluster": "outbound|80||user.default.svc.cluster.local", "weight": 3, "requestHeaders": ["=a: b"]},
        ])
    );
}

#[test]
fn a_consistent_hash_of_the_destination_hashes_requests_and_lets_retries_stay() {
    let rule = |lb: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: order}}\nspec: {{host: order, \
         trafficPolicy: {{loadBalancer: {{consistentHash: {lb}}}}}}}\n"
        )
    };
    let table = [
        ("{httpHeaderName: x-user}", "header x-user"),
        ("{httpCookie: {name: c, ttl: 0s}}", "cookie c"),
        ("{useSourceIp: true}", "source address"),
        ("{httpQueryParameterName: q}", "query q"),
    ];
    for (lb, expected) in table {
        let route = &routes(&rule(lb))[0];
        assert_eq!(
            (&route["hash"], &route["retries"]["otherHosts"]),
            (&json!([expected]), &Value::Null)
        );
    }
}

#[test]
fn a_virtual_service_for_a_host_that_is_no_service_has_effect_on_port_80() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside}
spec: {hosts: [shop.example], http: [{route: [{destination: {host: order}}]}]}
";
    let mesh = Mesh::new(yaml);
    let found = mesh.get(VirtualHost, "http_proxy/shop.example");
    assert_eq!(
        (&found["name"], &found["domains"], &found["routes"][0]["to"]),
        (
            &json!("shop.example:80"),
            &json!(["shop.example"]),
            &json!(format!("outbound|80||{ORDER}"))
        )
    );
    assert_eq!(mesh.get(VirtualHost, "http_proxy/shop.example:81")["name"], "block_all");
    let all = mesh.get_for(Route, "http_proxy", &stock(order()));
    let hosts = all["virtualHosts"].as_array().unwrap();
    assert!(hosts.iter().any(|host| host["name"] == "shop.example:80"));
}

#[test]
fn the_proxy_port_has_everything_for_a_stock_envoy_and_nothing_for_one_that_asks() {
    let mesh = Mesh::new("");
    assert_eq!(mesh.get(Route, "http_proxy"), json!({"name": "http_proxy", "onDemand": true}));
    let all = mesh.get_for(Route, "http_proxy", &stock(order()));
    let hosts = all["virtualHosts"].as_array().unwrap();
    let names: Vec<_> = hosts.iter().map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            &format!("{ORDER}:80"),
            &format!("{ORDER}:81"),
            &format!("{ORDER}:83"),
            "user.default.svc.cluster.local:80",
            "block_all",
        ]
    );
    let mut domains: Vec<_> =
        hosts.iter().flat_map(|host| host["domains"].as_array().unwrap()).collect();
    let count = domains.len();
    domains.sort_by_key(ToString::to_string);
    domains.dedup();
    assert_eq!(domains.len(), count, "Envoy refuses a domain that is there twice");
}

#[test]
fn a_services_own_routes_are_for_every_authority() {
    let mesh = Mesh::new("");
    assert_eq!(
        mesh.get(Route, &format!("{ORDER}:81")),
        json!({
            "name": format!("{ORDER}:81"),
            "virtualHosts": [{
                "name": format!("{ORDER}:81"),
                "domains": ["*"],
                "routes": [{
                    "name": "default", "match": ["/*"], "to": format!("outbound|81||{ORDER}"),
                    "retries": default_retries(),
                }],
            }],
        })
    );
    for name in [
        format!("{ORDER}:82"),
        format!("{ORDER}:99"),
        "nobody:80".into(),
        "order:80".into(),
        "x".into(),
    ] {
        assert_eq!(mesh.get(Route, &name), Value::Null, "{name}");
    }
}
