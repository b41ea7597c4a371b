//! The chart's gateways: requests come into the mesh by the ingress gateway and leave it by the egress gateway, as Istio's
//! own YAML for them says.
//!
//! One test: the gateways are everybody's.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Service},
};
use kube::{Api, api::ListParams};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_rustls::TlsConnector;
use weft_e2e::kube::{Cluster, Injection, Namespace, Pod, SYSTEM, helm, until};

const INGRESS: &str = "istio-ingressgateway";
const EGRESS: &str = "istio-egressgateway";
const HOST: &str = "shop.example.com";

/// What comes in, plain and by TLS. The services have several ports: without one, the gateway's own would be meant (443 is
/// none of theirs).
const EDGE: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [shop.example.com]
  - port: {number: 443, name: https, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: edge-certificate}
    hosts: [shop.example.com]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: [shop.example.com]
  gateways: [edge]
  http:
  - match: [{uri: {prefix: /users}}]
    route: [{destination: {host: user-service, port: {number: 80}}}]
  - route: [{destination: {host: payment-service, port: {number: 80}}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";

/// In the gateway's namespace, for its pods.
const NO_ADMIN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: e2e-no-admin}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules: [{to: [{operation: {paths: ['/admin*']}}]}]
";

/// Istio's task for egress gateways: what pods send to a host outside goes by the gateway, and from there to the host.
fn exit(server: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: partner}}
spec:
  hosts: [partner.example.com]
  addresses: [240.240.7.7]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]
  endpoints: [{{address: {server}}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: exit}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: [partner.example.com]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: exit}}
spec:
  host: {EGRESS}.{SYSTEM}.svc.cluster.local
  subsets: [{{name: partner}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: partner}}
spec:
  hosts: [partner.example.com]
  gateways: [exit, mesh]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route:
    - destination: {{host: {EGRESS}.{SYSTEM}.svc.cluster.local, subset: partner, port: {{number: 80}}}}
  - match: [{{gateways: [exit], port: 80}}]
    headers: {{response: {{set: {{x-left-by: egress}}}}}}
    route:
    - destination: {{host: partner.example.com, port: {{number: 80}}}}
"
    )
}

/// A certificate of its own authority for a host: the authority, the certificate, the key.
struct Certificate {
    root: rustls::pki_types::CertificateDer<'static>,
    secret: String,
}

fn certificate(host: &str) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
    let encoded = |text: String| BASE64_STANDARD.encode(text);
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: edge-certificate}}\ntype: kubernetes.io/tls\n\
         data: {{tls.crt: {}, tls.key: {}}}\n",
        encoded(certificate.pem()),
        encoded(key.serialize_pem())
    );
    Certificate { root: certificate.der().clone(), secret }
}

/// An answer, as far as it counts here.
#[derive(Debug)]
struct Answer {
    status: u16,
    text: String,
}

/// One request on a connection of its own.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> anyhow::Result<Answer> {
    let mut stream = BufReader::new(stream);
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = String::new();
    stream.read_line(&mut status).await?;
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut rest = Vec::new();
    // The certificate's owner may hang up without saying so.
    let _ = stream.read_to_end(&mut rest).await;
    let text = String::from_utf8_lossy(&rest).into_owned();
    Ok(Answer { status: code.with_context(|| format!("{status:?}"))?, text })
}

async fn plain(client: &Pod, target: &str, host: &str, path: &str) -> anyhow::Result<Answer> {
    ask(client.connect(target).await?, host, path).await
}

/// By TLS, to a server that must have a certificate of this authority for the name.
async fn by_tls(
    client: &Pod,
    target: &str,
    trusted: &Certificate,
    name: &str,
) -> anyhow::Result<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.root.clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = client.connect(target).await?;
    let name = ServerName::try_from(name.to_owned())?;
    ask(TlsConnector::from(Arc::new(config)).connect(name, stream).await?, HOST, "/").await
}

fn is(answer: &Answer, status: u16, role: &str) -> anyhow::Result<()> {
    ensure!(answer.status == status && answer.text.contains(role), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_come_in_and_go_out_by_gateways() {
    let cluster = Cluster::with_mesh().await.unwrap();
    tokio::task::spawn_blocking(|| {
        helm::install(&[
            "--set",
            "gateways.ingress.enabled=true,gateways.egress.enabled=true,\
             gateways.ingress.service.type=NodePort,gateways.ingress.replicas=2,\
             gateways.common.terminationDrainDuration=20s,gateways.common.terminationGracePeriodSeconds=60",
        ])
    })
    .await
    .unwrap()
    .unwrap();
    helm::takes_pods(&cluster).await.unwrap();
    let namespace = cluster.namespace("edge", Injection::Istio).await.unwrap();
    let outside = cluster.namespace("outside", Injection::Off).await.unwrap();
    namespace.deploy(&["payment-service", "user-service", "load"]).await.unwrap();
    outside.deploy(&["payment-service", "load"]).await.unwrap();
    let client = outside.pod("app=load").await.unwrap();
    assert!(!client.is_meshed());

    come_in(&cluster, &namespace, &client).await;
    by_certificate(&cluster, &namespace, &client).await;
    denied_at_the_edge(&cluster, &client).await;
    restart_of_the_gateway(&cluster, &client).await;
    go_out(&namespace, &outside).await;
    for yaml in [NO_ADMIN, &certificate(HOST).secret] {
        cluster.delete(SYSTEM, yaml).await.unwrap();
    }
}

/// By the Service's name and by a port of the node, to the host that a VirtualService has; other hosts are not found.
async fn come_in(cluster: &Cluster, namespace: &Namespace, client: &Pod) {
    namespace.apply(EDGE).await.unwrap();
    let target = format!("{INGRESS}.{SYSTEM}:80");
    until("the host should be answered", async || {
        is(&plain(client, &target, HOST, "/").await?, 200, "payment-service")
    })
    .await
    .unwrap();
    let users = plain(client, &target, HOST, "/users").await.unwrap();
    is(&users, 200, "user-service").unwrap();
    // STRICT: the gateway has an identity of its own, and shows it.
    let identity = format!("URI=spiffe://cluster.local/ns/{SYSTEM}/sa/{INGRESS}");
    assert!(users.text.contains(&identity), "{users:?}");
    assert_eq!(plain(client, &target, "other.example.com", "/").await.unwrap().status, 404);

    let services: Api<Service> = cluster.api(SYSTEM);
    let ports = services.get(INGRESS).await.unwrap().spec.unwrap().ports.unwrap();
    let port = ports.iter().find(|port| port.port == 80).and_then(|port| port.node_port).unwrap();
    let nodes: Api<Node> = cluster.cluster_api();
    let node = nodes.list(&ListParams::default()).await.unwrap().items.remove(0);
    let addresses = node.status.unwrap().addresses.unwrap();
    let address = addresses.iter().find(|a| a.type_ == "InternalIP").unwrap();
    let target = format!("{}:{port}", address.address);
    until("the node's port should be answered", async || {
        is(&plain(client, &target, HOST, "/").await?, 200, "payment-service")
    })
    .await
    .unwrap();
}

/// TLS with the certificate of a Secret in the gateway's namespace, which may be another one later.
async fn by_certificate(cluster: &Cluster, namespace: &Namespace, client: &Pod) {
    let target = format!("{INGRESS}.{SYSTEM}:443");
    for certificate in [certificate(HOST), certificate(HOST)] {
        cluster.apply(SYSTEM, &certificate.secret).await.unwrap();
        until("the certificate should be shown", async || {
            is(&by_tls(client, &target, &certificate, HOST).await?, 200, "payment-service")
        })
        .await
        .unwrap();
        let unknown = by_tls(client, &target, &certificate, "other.example.com").await;
        assert!(unknown.is_err(), "{unknown:?}");
    }
    let bare = plain(client, &target, HOST, "/").await;
    assert!(bare.is_err(), "{bare:?}");
    // The gateway says that it has what it names.
    until("the Gateway should be in effect", async || {
        let conditions = namespace.conditions("networking.istio.io/v1", "Gateway", "edge").await?;
        for kind in ["Accepted", "InEffect"] {
            let condition = conditions.iter().find(|condition| condition["type"] == kind);
            ensure!(condition.is_some_and(|c| c["status"] == "True"), "{conditions:?}");
        }
        Ok(())
    })
    .await
    .unwrap();
}

async fn denied_at_the_edge(cluster: &Cluster, client: &Pod) {
    let target = format!("{INGRESS}.{SYSTEM}:80");
    assert_eq!(plain(client, &target, HOST, "/admin").await.unwrap().status, 200);
    cluster.apply(SYSTEM, NO_ADMIN).await.unwrap();
    until("the path should be denied", async || {
        is(&plain(client, &target, HOST, "/admin").await?, 403, "")
    })
    .await
    .unwrap();
    is(&plain(client, &target, HOST, "/").await.unwrap(), 200, "payment-service").unwrap();
}

/// Every pod of the gateway is replaced while requests come in, each on a connection of its own: a client without a proxy
/// that finds a connection of before closed asks again, or does not, by itself.
async fn restart_of_the_gateway(cluster: &Cluster, client: &Pod) {
    let target = format!("{INGRESS}.{SYSTEM}:80");
    let replaced = AtomicBool::new(false);
    let asking = async {
        let mut asked = 0;
        while !replaced.load(Ordering::Relaxed) {
            let answer = plain(client, &target, HOST, "/").await;
            let answer = answer.unwrap_or_else(|error| panic!("after {asked} requests: {error:#}"));
            is(&answer, 200, "payment-service").unwrap();
            asked += 1;
        }
        asked
    };
    let replacing = async {
        let deployments: Api<Deployment> = cluster.api(SYSTEM);
        deployments.restart(INGRESS).await.unwrap();
        until("the gateway should be replaced", async || {
            let deployment = deployments.get(INGRESS).await?;
            let status = deployment.status.unwrap_or_default();
            ensure!(status.observed_generation == deployment.metadata.generation, "not seen");
            let there = [status.updated_replicas, status.available_replicas, status.replicas];
            ensure!(there == [Some(2); 3], "{there:?}");
            let pods = cluster.pods(SYSTEM, "istio=ingressgateway").await?;
            ensure!(pods.len() == 2, "{} pods", pods.len());
            Ok(())
        })
        .await
        .unwrap();
        replaced.store(true, Ordering::Relaxed);
    };
    let (asked, ()) = tokio::join!(asking, replacing);
    assert!(asked > 0);
}

/// What a pod of the mesh asks a host outside goes by the egress gateway.
async fn go_out(namespace: &Namespace, outside: &Namespace) {
    let server = outside.pod("app=payment-service").await.unwrap().address().unwrap();
    namespace.apply(&exit(&server.to_string())).await.unwrap();
    let load = namespace.pod("app=load").await.unwrap();
    until("the partner should be asked by the gateway", async || {
        let answer = plain(&load, "240.240.7.7:80", "partner.example.com", "/").await?;
        is(&answer, 200, "payment-service")?;
        if !answer.text.to_ascii_lowercase().contains("x-left-by: egress") {
            bail!("not by the gateway: {answer:?}");
        }
        Ok(())
    })
    .await
    .unwrap();
}
