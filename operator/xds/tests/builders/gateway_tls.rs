//! Gateways with TLS: chains by server name, contexts, and who gets which secret.

use prost::Message;
use serde_json::{Value, json};
use weft_api::{
    node::NodeInfo,
    xds::envoy::extensions::transport_sockets::tls::v3::{Secret as PbSecret, secret::Type},
};
use weft_xds::ResourceType::{Listener, Route, Secret};

use crate::{
    gateway::{gateway, names, routes},
    mesh::{Mesh, edge, order},
};

const TO_ORDER: &str = "http: [{route: [{destination: {host: order, port: {number: 80}}}]}]";

/// Certificate and key in PEM.
fn certificate(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn secret(namespace: &str, name: &str, data: &[(&str, &str)]) -> String {
    let lines: String = data
        .iter()
        .map(|(key, value)| {
            format!("  {key}: |\n    {}\n", value.trim_end().replace('\n', "\n    "))
        })
        .collect();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData:\n{lines}---\n"
    )
}

/// A Secret of the edge with certificate and key.
fn pair(name: &str) -> String {
    let (chain, key) = certificate("shop.example.com");
    secret("edge", name, &[("tls.crt", &chain), ("tls.key", &key)])
}

fn https(number: u16, name: &str, hosts: &str, tls: &str) -> String {
    format!(
        "{{port: {{number: {number}, name: {name}, protocol: HTTPS}}, hosts: {hosts}, tls: {{{tls}}}}}"
    )
}

fn chains(mesh: &Mesh) -> Value {
    mesh.get_for(Listener, "0.0.0.0_443", &edge())["chains"].clone()
}

#[test]
fn servers_of_a_tls_port_are_told_by_server_name() {
    let servers = [
        https(
            443,
            "shop",
            "[shop.example.com, '*.shop.example.com']",
            "mode: SIMPLE, credentialName: shop",
        ),
        https(
            443,
            "any",
            "['*']",
            "mode: MUTUAL, credentialName: shop, subjectAltNames: [client.example.com]",
        ),
    ];
    let (authority, _) = certificate("authority");
    let mesh = Mesh::new(
        &(gateway("gw", 1, &servers.join(", "))
            + &pair("shop")
            + &secret("edge", "shop-cacert", &[("cacert", &authority)])
            + &routes(
                "vs",
                1,
                &format!("hosts: [shop.example.com], gateways: [edge/gw], {TO_ORDER}"),
            )),
    );
    let http = |routes: &str| json!([{"http": {"routes": routes, "filters": ["fault", "cors", "router"], "upgrades": ["websocket"]}}]);
    assert_eq!(
        chains(&mesh),
        json!([
            {
                "match": {"serverNames": ["*.shop.example.com", "shop.example.com"]},
                "tls": {
                    "certificate": ["kubernetes://shop"], "trust": "anyone", "alpn": ["h2", "http/1.1"],
                    "clientCertificate": false,
                },
                "filters": http("https.443.shop.gw.edge"),
            },
            {
                "tls": {
                    "certificate": ["kubernetes://shop"], "trust": "kubernetes://shop-cacert",
                    "peers": ["=client.example.com"], "alpn": ["h2", "http/1.1"], "clientCertificate": true,
                },
                "filters": http("https.443.any.gw.edge"),
            },
        ])
    );
    let listener = mesh.get_for(Listener, "0.0.0.0_443", &edge());
    assert_eq!(listener["inspectors"], json!(["tls_inspector"]));
    assert_eq!(mesh.names(Route, &edge()), ["https.443.any.gw.edge", "https.443.shop.gw.edge"]);
    let config = mesh.get_for(Route, "https.443.shop.gw.edge", &edge());
    assert_eq!(config["virtualHosts"][0]["name"], json!("shop.example.com:443"));
    for name in ["kubernetes://shop", "kubernetes://shop-cacert"] {
        assert_eq!(mesh.get_for(Secret, name, &edge())["name"], json!(name));
    }
}

#[test]
fn a_secret_goes_to_proxies_of_its_namespace_that_serve_it_and_to_nobody_else() {
    let tls = "mode: SIMPLE, credentialName: shop";
    let (chain, key) = certificate("shop.example.com");
    let mesh = Mesh::new(
        &(gateway("gw", 1, &https(443, "https", "['*']", tls))
            + &secret("edge", "shop", &[("tls.crt", &chain), ("tls.key", &key)])
            + &pair("unnamed")),
    );
    let found = mesh.resolve(Secret, "kubernetes://shop", &edge()).resource.unwrap();
    let Some(Type::TlsCertificate(sent)) = PbSecret::decode(&*found.body).unwrap().r#type else {
        panic!("no certificate");
    };
    use weft_api::xds::envoy::config::core::v3::data_source::Specifier::InlineBytes;
    let bytes = |source: Option<weft_api::xds::envoy::config::core::v3::DataSource>| match source
        .unwrap()
        .specifier
        .unwrap()
    {
        InlineBytes(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!((bytes(sent.certificate_chain), bytes(sent.private_key)), (chain, key));
    assert_eq!(
        mesh.get_for(Secret, "kubernetes://shop", &edge()),
        json!({"name": "kubernetes://shop", "holds": "certificate and key"})
    );

    let unselected = NodeInfo { labels: [].into(), ..edge() };
    let elsewhere = NodeInfo { namespace: "other".into(), ..edge() };
    let sidecar = NodeInfo { kind: order().kind, ..edge() };
    for (name, node) in [
        ("kubernetes://unnamed", &edge()),
        ("kubernetes://edge/shop", &edge()),
        ("kubernetes://shop-cacert", &edge()),
        ("shop", &edge()),
        ("default", &edge()),
        ("kubernetes://shop", &unselected),
        ("kubernetes://shop", &elsewhere),
        ("kubernetes://shop", &sidecar),
    ] {
        assert_eq!(mesh.get_for(Secret, name, node), Value::Null, "{name} {}", node.id());
    }
    assert_eq!(mesh.names(Listener, &elsewhere), [""; 0], "what lacks its secret is not bound");
}

#[test]
fn a_secret_that_is_missing_or_broken_takes_its_own_server_only() {
    let servers = [
        https(443, "good", "[good.example.com]", "mode: SIMPLE, credentialName: good"),
        https(443, "bad", "[bad.example.com]", "mode: SIMPLE, credentialName: bad"),
    ];
    let mut mesh = Mesh::new(&(gateway("gw", 1, &servers.join(", ")) + &pair("good")));
    let served = |mesh: &Mesh| -> Vec<String> {
        let chains = chains(mesh);
        let names = chains
            .as_array()
            .unwrap()
            .iter()
            .map(|chain| chain["match"]["serverNames"][0].as_str().unwrap().to_owned());
        names.collect()
    };
    assert_eq!(served(&mesh), ["good.example.com"], "missing");
    let (chain, _) = certificate("a");
    let (_, key) = certificate("b");
    let change = mesh.apply(&secret("edge", "bad", &[("tls.crt", &chain), ("tls.key", &key)]));
    assert!(change.gateways);
    assert_eq!(served(&mesh), ["good.example.com"], "key of another certificate");
    mesh.apply(&pair("bad"));
    assert_eq!(served(&mesh), ["good.example.com", "bad.example.com"]);
    let before = mesh.resolve(Secret, "kubernetes://bad", &edge()).resource;
    mesh.apply(&secret("edge", "bad", &[("tls.crt", "nonsense"), ("tls.key", &key)]));
    assert_eq!(
        mesh.resolve(Secret, "kubernetes://bad", &edge()).resource,
        before,
        "the last good one stays"
    );
    assert_eq!(served(&mesh), ["good.example.com", "bad.example.com"]);
    mesh.apply(&pair("bad"));
    assert_ne!(mesh.resolve(Secret, "kubernetes://bad", &edge()).resource, before, "rotated");
    mesh.index.delete(weft_index::Kind::Secret, "edge", "bad");
    mesh.apply("");
    assert_eq!(served(&mesh), ["good.example.com"], "deleted");
}

#[test]
fn of_two_servers_with_a_host_the_older_gateway_has_it() {
    let server = |credential: &str| {
        https(
            443,
            "https",
            "[shop.example.com]",
            &format!("mode: SIMPLE, credentialName: {credential}"),
        )
    };
    let more = https(443, "more", "[more.example.com]", "mode: ISTIO_MUTUAL");
    let mut mesh = Mesh::new(
        &(gateway("young", 2, &format!("{}, {more}", server("young")))
            + &gateway("old", 1, &server("old"))
            + &pair("young")
            + &pair("old")),
    );
    let chains = chains(&mesh);
    assert_eq!(chains[0]["tls"]["certificate"], json!(["kubernetes://old"]));
    assert_eq!(chains[1]["match"]["serverNames"], json!(["more.example.com"]));
    assert_eq!(chains[1]["tls"]["certificate"], json!(["default"]));
    assert_eq!(chains[1]["tls"]["clientCertificate"], json!(true));
    assert_eq!(chains.as_array().unwrap().len(), 2);
    // Nor does the younger one get it while the older one's secret is away.
    mesh.index.delete(weft_index::Kind::Secret, "edge", "old");
    mesh.apply("");
    let left = mesh.get_for(Listener, "0.0.0.0_443", &edge());
    assert_eq!(left["chains"].as_array().unwrap().len(), 1);
}

#[test]
fn tls_that_passes_through_is_routed_by_server_name() {
    let server = "{port: {number: 443, name: tls, protocol: TLS}, hosts: ['*.example.com'], tls: {mode: PASSTHROUGH}}";
    let spec = "hosts: ['*.example.com'], gateways: [edge/gw], tls: [
        {match: [{port: 443, sniHosts: [shop.example.com]}], route: [{destination: {host: order, port: {number: 84}}}]},
        {match: [{sniHosts: [shop.example.com, '*.example.com']}], route: [
            {destination: {host: order, port: {number: 84}}, weight: 1}, {destination: {host: user}, weight: 3}]},
        {match: [{port: 1, sniHosts: [never.example.com]}], route: [{destination: {host: user}}]}]";
    let mesh = Mesh::new(&(gateway("gw", 1, server) + &routes("vs", 1, spec)));
    assert_eq!(names(&mesh), ["0.0.0.0_443"]);
    assert_eq!(
        chains(&mesh),
        json!([
            {
                "match": {"serverNames": ["shop.example.com"]},
                "filters": [{"tcp": "outbound|84||order.default.svc.cluster.local"}],
            },
            {
                "match": {"serverNames": ["*.example.com"]},
                "filters": [{"tcp": [
                    {"cluster": "outbound|84||order.default.svc.cluster.local", "weight": 1},
                    {"cluster": "outbound|80||user.default.svc.cluster.local", "weight": 3},
                ]}],
            },
        ])
    );
}

#[test]
fn tls_may_end_here_and_bytes_go_on() {
    let server = "{port: {number: 443, name: tls, protocol: TLS}, hosts: [db.example.com], tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}";
    let spec = "hosts: [db.example.com], gateways: [edge/gw], tcp: [{route: [{destination: {host: order, port: {number: 82}}}]}]";
    let mesh = Mesh::new(&(gateway("gw", 1, server) + &routes("vs", 1, spec)));
    assert_eq!(
        chains(&mesh),
        json!([{
            "match": {"serverNames": ["db.example.com"]},
            "tls": {
                "certificate": ["file"], "trust": "anyone", "alpn": ["istio-peer-exchange", "istio"],
                "clientCertificate": false,
            },
            "filters": [{"tcp": "outbound|82||order.default.svc.cluster.local"}],
        }])
    );
}
