//! A cluster whose pods and Services have IPv6 addresses and no others (`weft-cluster up --ip-family ipv6`): capture, mutual
//! TLS, probes and every protocol as elsewhere.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use anyhow::ensure;
use http::StatusCode;
use k8s_openapi::api::core::v1::Service;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use weft_e2e::kube::{Cluster, Injection, until};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";

const MARKED: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mark}
spec:
  hosts: [payment-service]
  http:
  - headers: {response: {set: {x-mark: here}}}
    route: [{destination: {host: payment-service}}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_with_ipv6_addresses_alone_are_a_mesh() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("ipv6", Injection::Istio).await.unwrap();
    namespace.apply(STRICT).await.unwrap();
    // Their probes pass, or they would not be rolled out.
    namespace.deploy(&["payment-service", "load"]).await.unwrap();
    let load = namespace.pod("app=load").await.unwrap();
    let server = namespace.pod("app=payment-service").await.unwrap();
    for pod in [&load, &server] {
        assert!(pod.is_meshed());
        let addresses = pod.addresses();
        assert!(addresses.iter().all(IpAddr::is_ipv6) && addresses.len() == 1, "{addresses:?}");
    }
    namespace.apply(MARKED).await.unwrap();

    let services = cluster.api::<Service>(namespace.name());
    let spec = services.get("payment-service").await.unwrap().spec.unwrap();
    let address: IpAddr = spec.cluster_ip.unwrap().parse().unwrap();
    let identity = format!("URI=spiffe://cluster.local/ns/{}/sa/load", namespace.name());
    let client = load.client().await.unwrap();
    // By name, and by the Service's address.
    for (uri, mark) in [
        ("http://payment-service/".to_owned(), Some("here")),
        (format!("http://[{address}]/"), None),
    ] {
        until(&format!("{uri} should be answered"), async || {
            let reply = client.get(&uri).await?;
            ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
            let marked = reply.header("x-mark");
            ensure!(
                mark.is_none_or(|mark| marked == mark),
                "the route is not in effect: {marked:?}"
            );
            let answer = reply.answer()?;
            let peer = answer.headers.get("x-forwarded-client-cert").cloned().unwrap_or_default();
            ensure!(peer.contains(&identity), "identity {peer:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    // A server that speaks first, and one that answers with what it is sent.
    let mut line = String::new();
    let mut stream = load.connect("payment-service:9001").await.unwrap();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "220 payment-service v1 ready\r\n");
    let mut stream = load.connect("payment-service:9000").await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");

    // Who has no certificate is refused here too.
    let outside = cluster.namespace("outside", Injection::Off).await.unwrap();
    outside.deploy(&["load"]).await.unwrap();
    let outsider = outside.pod("app=load").await.unwrap();
    let uri = format!("http://payment-service.{}/", namespace.name());
    let burst = weft_e2e::load::Burst::get(&uri);
    until("STRICT should refuse plaintext", async || {
        let outcome = outsider.burst(&burst).await?.remove(0);
        ensure!(outcome.status == 0, "{}", outcome.status);
        Ok(())
    })
    .await
    .unwrap();
}
