//! The operator in this process, over real sockets: certificates, identities, configuration streams, administration.
#![allow(clippy::unwrap_used)]

mod client;

use std::{fs, time::Duration};

use client::{Test, csr};
use rcgen::KeyPair;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;
use weft_api::{
    node::{Interception, NodeInfo, ProxyKind},
    type_url,
    xds::envoy::service::discovery::v3::DeltaDiscoveryRequest,
};

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {clusterIP: 10.0.0.7, selector: {app: orders}, ports: [{name: http, port: 80}]}
";

const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: orders, namespace: shop}
spec: {hosts: [orders], http: [{route: [{destination: {host: orders}}]}]}
";

fn node(namespace: &str, account: &str) -> NodeInfo {
    NodeInfo {
        kind: ProxyKind::Sidecar,
        pod_address: "127.0.0.9".parse().unwrap(),
        pod_name: "orders-1".into(),
        namespace: namespace.into(),
        service_account: account.into(),
        workload_name: "orders".into(),
        labels: [].into(),
        cluster_id: "Kubernetes".into(),
        interception: Interception::None,
        app_address: None,
        on_demand: true,
        domain: "cluster.local".into(),
    }
}

#[tokio::test]
async fn a_workload_gets_a_certificate_for_its_token_and_streams_configuration_with_it() {
    let test = Test::start().await;
    let identity = test.identity("shop", "orders").await;
    assert_eq!(identity.chain.len(), 2);
    let mut ads = test.ads(Some(&identity)).await;
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let request = DeltaDiscoveryRequest {
        node: Some(node("shop", "orders").to_node()),
        type_url: type_url::CLUSTER.into(),
        resource_names_subscribe: vec!["outbound|99||nowhere.example".into()],
        ..DeltaDiscoveryRequest::default()
    };
    sender.send(request).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut responses = ads.delta_aggregated_resources(requests).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert_eq!(response.removed_resources, ["outbound|99||nowhere.example"]);
    let proxies = test.json("/debug/syncz").await;
    assert_eq!(proxies[0]["proxy"], "orders-1.shop");
    assert_eq!(proxies[0]["identity"], "spiffe://cluster.local/ns/shop/sa/orders");
    let dump = test.json("/debug/config_dump?proxyID=orders-1.shop").await;
    assert!(dump["types"]["cds"]["resources"][0]["name"].is_string(), "{dump}");
    test.stop().await;
    // The stream ends with the operator, and so does the proxy's entry.
    while let Ok(Some(_)) = responses.message().await {}
}

#[tokio::test]
async fn what_is_written_into_the_folder_reaches_the_streams() {
    const CLUSTER: &str = "outbound|80||orders.shop.svc.cluster.local";
    let test = Test::start().await;
    let identity = test.identity("shop", "orders").await;
    let mut ads = test.ads(Some(&identity)).await;
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let request = |nonce: &str| DeltaDiscoveryRequest {
        node: Some(node("shop", "orders").to_node()),
        type_url: type_url::CLUSTER.into(),
        resource_names_subscribe: if nonce.is_empty() { vec![CLUSTER.into()] } else { vec![] },
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    };
    sender.send(request("")).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut responses = ads.delta_aggregated_resources(requests).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert_eq!(response.removed_resources, [CLUSTER]);
    sender.send(request(&response.nonce)).await.unwrap();
    test.write("mesh.yaml", SERVICE);
    let response = responses.message().await.unwrap().unwrap();
    let names: Vec<_> = response.resources.iter().map(|resource| &*resource.name).collect();
    assert_eq!(names, [CLUSTER]);
    sender.send(request(&response.nonce)).await.unwrap();
    test.until("/debug/syncz", |proxies| proxies[0]["types"]["cds"]["state"] == "SYNCED").await;
    fs::remove_file(test.folder().join("mesh.yaml")).unwrap();
    let response = responses.message().await.unwrap().unwrap();
    assert_eq!(response.removed_resources, [CLUSTER]);
    test.stop().await;
}

#[tokio::test]
async fn who_is_not_known_or_claims_to_be_another_gets_no_configuration() {
    let test = Test::start().await;
    let orders = test.identity("shop", "orders").await;
    for (identity, claimed, expected) in [
        (None, node("shop", "orders"), Code::Unauthenticated),
        (Some(&orders), node("bank", "orders"), Code::PermissionDenied),
        (Some(&orders), node("shop", "admin"), Code::PermissionDenied),
    ] {
        let mut ads = test.ads(identity).await;
        let request = DeltaDiscoveryRequest {
            node: Some(claimed.to_node()),
            type_url: type_url::CLUSTER.into(),
            ..DeltaDiscoveryRequest::default()
        };
        let code = match ads.delta_aggregated_resources(tokio_stream::once(request)).await {
            Err(status) => status.code(),
            Ok(response) => response.into_inner().message().await.unwrap_err().code(),
        };
        assert_eq!(code, expected, "{claimed:?}");
    }
    test.stop().await;
}

#[tokio::test]
async fn requests_for_certificates_are_refused_for_what_they_are() {
    let test = Test::start().await;
    let other = Test::start().await;
    let key = KeyPair::generate().unwrap();
    let own = csr(&key, "spiffe://cluster.local/ns/shop/sa/orders");
    let expired = test.expired_token("shop", "orders");
    for (name, token, csr, expected) in [
        ("foreign token", other.token("shop", "orders"), own.clone(), Code::Unauthenticated),
        ("expired token", expired, own.clone(), Code::Unauthenticated),
        ("garbage token", "garbage".into(), own.clone(), Code::Unauthenticated),
        (
            "other identity",
            test.token("shop", "orders"),
            csr(&key, "spiffe://cluster.local/ns/shop/sa/admin"),
            Code::PermissionDenied,
        ),
        ("garbage request", test.token("shop", "orders"), "x".into(), Code::InvalidArgument),
        ("oversize request", test.token("shop", "orders"), "x".repeat(1 << 20), Code::OutOfRange),
    ] {
        let status = test.sign(&token, &csr).await.unwrap_err();
        assert_eq!(status.code(), expected, "{name}: {status}");
    }
    let metrics = test.text("/metrics").await;
    for line in [
        "citadel_server_csr_count 5",
        "citadel_server_authentication_failure_count 3",
        "citadel_server_id_extraction_err_count 1",
        "citadel_server_csr_parsing_err_count 1",
        "citadel_server_success_cert_issuance_count 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    test.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn certificates_of_other_meshes_or_of_nobody_end_the_handshake() {
    let test = Test::start().await;
    let other = Test::start().await;
    let foreign = other.identity("shop", "orders").await;
    // Signed by this mesh's root, but naming a server or a workload of another trust domain.
    let server = test.signed_by_root(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    });
    let two = test.signed_by_root(|params| {
        params.subject_alt_names = ["a", "b"]
            .map(|sa| {
                format!("spiffe://cluster.local/ns/shop/sa/{sa}").as_str().try_into().unwrap()
            })
            .map(rcgen::SanType::URI)
            .to_vec();
    });
    let elsewhere = test.signed_by_root(|params| {
        let uri = "spiffe://elsewhere/ns/shop/sa/orders";
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    });
    for (name, identity) in
        [("foreign", &foreign), ("server", &server), ("two", &two), ("elsewhere", &elsewhere)]
    {
        assert!(test.handshake(Some(identity)).await.is_err(), "{name}");
    }
    assert!(test.handshake(Some(&test.identity("shop", "orders").await)).await.is_ok());
    test.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn the_handshake_is_tls_1_3_with_the_hybrid_exchange_and_http2() {
    let test = Test::start().await;
    let facts = test.handshake(None).await.unwrap();
    assert_eq!(facts, ("TLSv1_3".into(), "X25519MLKEM768".into(), Some(b"h2".to_vec())));
    test.stop().await;
}

#[tokio::test]
async fn peers_that_send_garbage_half_a_handshake_or_nothing_disturb_nobody() {
    let test = Test::start().await;
    let mut silent = TcpStream::connect(test.operator().address()).await.unwrap();
    let mut half = TcpStream::connect(test.operator().address()).await.unwrap();
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], &[0xff; 4096]] {
        let mut stream = TcpStream::connect(test.operator().address()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        // Closed, after an alert at most.
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 64, "{answer:?}");
    }
    test.identity("shop", "orders").await;
    test.stop().await;
    for stream in [&mut silent, &mut half] {
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
    }
}

#[tokio::test]
async fn the_mesh_follows_its_folder_and_says_what_is_wrong_with_it() {
    let test = Test::start().await;
    assert_eq!(test.json("/debug/registryz").await, serde_json::json!([]));
    test.write("mesh.yaml", &format!("{SERVICE}---\n{ROUTE}"));
    let services =
        test.until("/debug/registryz", |services| services[0]["hostname"].is_string()).await;
    assert_eq!(services[0]["hostname"], "orders.shop.svc.cluster.local");
    assert_eq!(services[0]["addresses"], serde_json::json!(["10.0.0.7"]));
    let configs = test.until("/debug/configz", |configs| configs[0]["spec"].is_object()).await;
    assert_eq!(configs[0]["kind"], "VirtualService");
    test.write("mesh.yaml", &format!("{SERVICE}---\n{}", ROUTE.replace("hosts:", "hots:")));
    let status =
        test.until("/debug/status", |status| status["source"]["problems"][0].is_object()).await;
    let message = status["source"]["problems"][0]["message"].as_str().unwrap();
    assert!(message.contains("VirtualService shop/orders: spec.hots: unknown field"), "{message}");
    let accepted = |status: &serde_json::Value| {
        let conditions =
            status["resources"][0]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Accepted" && c["status"] == "True")
    };
    assert!(!accepted(&status), "{status}");
    test.write("mesh.yaml", &format!("{SERVICE}---\n{ROUTE}"));
    let status = test
        .until("/debug/status", |s| s["source"]["problems"] == serde_json::json!([]) && accepted(s))
        .await;
    assert_eq!(status["source"]["objects"], 2);
    fs::remove_file(test.folder().join("mesh.yaml")).unwrap();
    test.until("/debug/registryz", |services| services == &serde_json::json!([])).await;
    test.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_root_the_tokens_and_the_ages_of_resources() {
    let test = Test::start().await;
    let token = test.token("shop", "orders");
    let identity = test.identity("shop", "orders").await;
    test.write("b.yaml", &ROUTE.replace("name: orders,", "name: first,"));
    test.until("/debug/configz", |configs| configs.as_array().is_some_and(|c| c.len() == 1)).await;
    test.write("a.yaml", &ROUTE.replace("name: orders,", "name: second,"));
    let created = |configs: &serde_json::Value| {
        ["first", "second"].map(|name| {
            let mut all = configs.as_array().unwrap().iter();
            all.find(|config| config["name"] == name).map(|config| config["created"].clone())
        })
    };
    let both = |configs: &serde_json::Value| configs.as_array().is_some_and(|c| c.len() == 2);
    let before = created(&test.until("/debug/configz", both).await);
    let test = test.restart().await;
    assert_eq!(created(&test.json("/debug/configz").await), before);
    let key = KeyPair::generate().unwrap();
    test.sign(&token, &csr(&key, "spiffe://cluster.local/ns/shop/sa/orders")).await.unwrap();
    test.handshake(Some(&identity)).await.unwrap();
    test.stop().await;
}

#[tokio::test]
async fn the_administration_port_answers_health_readiness_and_help() {
    let test = Test::start().await;
    assert_eq!(test.text("/healthz").await, "ok\n");
    assert_eq!(test.text("/ready").await, "ready\n");
    assert!(test.text("/help").await.contains("/debug/syncz"));
    let metrics = test.text("/metrics").await;
    for name in ["istio_build{component=\"pilot\"", "pilot_services 0", "process_open_fds"] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    assert_eq!(test.get("/debug/config_dump").await.0, 400);
    assert_eq!(test.get("/debug/config_dump?proxyID=nobody").await.0, 404);
    assert_eq!(test.get("/nowhere").await.0, 404);
    test.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let test = Test::start_with(|settings| settings.max_connections = 1).await;
    let first = test.identity("shop", "orders").await;
    // The connection that the certificate came over ends when it likes.
    let mut held = None;
    client::until(async || {
        held = test.channel(Some(&first)).await.ok();
        held.is_some()
    })
    .await;
    assert!(test.handshake(None).await.is_err());
    drop(held);
    client::until(async || test.handshake(None).await.is_ok()).await;
    test.stop().await;
}

#[tokio::test]
async fn a_peer_is_let_go_when_its_certificate_ends() {
    let test = Test::start_with(|settings| settings.cert_ttl = Duration::from_secs(6)).await;
    let identity = test.identity("shop", "orders").await;
    let mut ads = test.ads(Some(&identity)).await;
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let request = DeltaDiscoveryRequest {
        node: Some(node("shop", "orders").to_node()),
        type_url: type_url::CLUSTER.into(),
        ..DeltaDiscoveryRequest::default()
    };
    sender.send(request).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut responses = ads.delta_aggregated_resources(requests).await.unwrap().into_inner();
    while let Ok(Some(_)) = responses.message().await {}
    // Certificates end with a second, which may not be over.
    client::until(async || test.handshake(Some(&identity)).await.is_err()).await;
    test.stop().await;
}

#[tokio::test]
async fn settings_that_make_no_sense_are_explained() {
    for (change, expected) in [
        (
            Box::new(|s: &mut weft_operator::Settings| {
                s.source = weft_operator::settings::Source::Dir("/nonexistent".into());
            }) as Box<dyn Fn(&mut weft_operator::Settings)>,
            "there is no such folder",
        ),
        (Box::new(|s| s.trust_domain = Some("a/b".into())), "is not a trust domain"),
        (Box::new(|s| s.mesh_config = Some("/nonexistent".into())), "--mesh-config /nonexistent"),
        (Box::new(|s| s.listen = "192.0.2.1:1".parse().unwrap()), "--listen 192.0.2.1:1"),
    ] {
        let error = Test::refused(change).await;
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
