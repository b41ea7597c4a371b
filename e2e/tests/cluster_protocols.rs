//! Every protocol passes through the proxies of real pods, called by the names and addresses that Kubernetes gives.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use http::{Method, StatusCode, Uri};
use k8s_openapi::api::core::v1::Service;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::{client_async, tungstenite::Message};
use weft_e2e::{
    checks,
    client::request,
    kube::{Cluster, Injection, Namespace, Pod, until},
};
use weft_samples::client::{Dialer, grpc_channel};

const SERVICE: &str = "payment-service";

/// A client and a server.
struct Pair {
    cluster: Cluster,
    namespace: Namespace,
    load: Pod,
    identity: String,
}

impl Pair {
    async fn new(test: &str) -> Self {
        let cluster = Cluster::with_mesh().await.unwrap();
        let namespace = cluster.namespace(test, Injection::Istio).await.unwrap();
        namespace.deploy(&[SERVICE, "load"]).await.unwrap();
        let load = namespace.pod("app=load").await.unwrap();
        let identity = format!("URI=spiffe://cluster.local/ns/{}/sa/load", namespace.name());
        Self { cluster, namespace, load, identity }
    }

    /// The first cluster address of the server's Service in a family.
    async fn service_address(&self, wanted: fn(&IpAddr) -> bool) -> Option<IpAddr> {
        let services = self.cluster.api::<Service>(self.namespace.name());
        let spec = services.get(SERVICE).await.unwrap().spec.unwrap();
        let addresses = spec.cluster_ips.unwrap_or_default();
        addresses.iter().filter_map(|ip| ip.parse().ok()).find(wanted)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_and_websockets_pass() {
    let pair = Pair::new("http2").await;
    let tunnel = pair.load.forward(9010).await.unwrap().to_string();
    let uri: Uri = format!("http://{SERVICE}:9090").parse().unwrap();
    let channel = grpc_channel(&Dialer::through(&tunnel), &uri);
    checks::grpc(channel, SERVICE, &pair.identity).await.unwrap();

    let stream = pair.load.connect(&format!("{SERVICE}:80")).await.unwrap();
    let (mut socket, response) = client_async(format!("ws://{SERVICE}/ws"), stream).await.unwrap();
    assert_eq!(response.status().as_u16(), 101);
    for message in [Message::text("hello"), Message::binary(vec![7_u8; 100_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    assert!(socket.next().await.is_some_and(|m| m.is_ok_and(|m| m.is_close())));

    let client = pair.load.client().await.unwrap();
    let big = format!("http://{SERVICE}/big?size=2000000");
    let mut post = request(Method::POST, &big, &[]);
    *post.body_mut() = vec![b'x'; 2_000_000].into();
    let answer = client.send(post).await.unwrap().answer().unwrap();
    assert_eq!((answer.body_bytes, answer.padding.len()), (2_000_000, 2_000_000));
}

async fn echoes(stream: BufReader<TcpStream>) -> anyhow::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(31) >> 3) as u8).collect();
    let copy = sent.clone();
    let write = tokio::spawn(async move {
        writer.write_all(&copy).await?;
        // Not shut down: the port that is forwarded knows no half-closed connections.
        anyhow::Ok(writer)
    });
    let mut received = vec![0; sent.len()];
    reader.read_exact(&mut received).await?;
    write.await??;
    ensure!(received == sent, "other bytes came back");
    Ok(())
}

async fn greets(mut stream: BufReader<TcpStream>) -> anyhow::Result<()> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    ensure!(line == "220 payment-service v1 ready\r\n", "{line:?}");
    stream.write_all(b"EHLO\r\n").await?;
    line.clear();
    stream.read_line(&mut line).await?;
    ensure!(line == "EHLO\r\n", "{line:?}");
    Ok(())
}

/// Connections that the server's proxy took as mutual TLS on a TCP port.
async fn mutual_tcp(server: &Pod) -> anyhow::Result<f64> {
    let samples = server.metrics(15090, "/stats/prometheus").await?;
    let labels = [("reporter", "destination"), ("connection_security_policy", "mutual_tls")];
    Ok(weft_e2e::metrics::sum(&samples, "istio_tcp_connections_opened_total", &labels))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_and_servers_that_speak_first_pass() {
    let pair = Pair::new("tcp").await;
    let server = pair.namespace.pod("app=payment-service").await.unwrap();
    for target in
        [SERVICE.to_owned(), format!("{SERVICE}.{}.svc.cluster.local", pair.namespace.name())]
    {
        until("the service should echo", async || {
            echoes(pair.load.connect(&format!("{target}:9000")).await?).await
        })
        .await
        .unwrap();
        until("the service should greet", async || {
            greets(pair.load.connect(&format!("{target}:9001")).await?).await
        })
        .await
        .unwrap();
    }
    until("the connections should be counted as mutual TLS", async || {
        let opened = mutual_tcp(&server).await?;
        ensure!(opened >= 4.0, "{opened}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Calls over IPv6, to the Service's address and to the pod's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_addresses_are_captured() {
    let pair = Pair::new("ipv6").await;
    let server = pair.namespace.pod("app=payment-service").await.unwrap();
    let Some(pod) = server.addresses().into_iter().find(IpAddr::is_ipv6) else {
        #[allow(clippy::print_stderr)] // The one way to say so.
        {
            eprintln!("SKIPPED: the pods of this cluster have no IPv6 addresses");
        }
        return;
    };
    let service = pair.service_address(IpAddr::is_ipv6).await;
    let service = service.context("the Service has no IPv6 address").unwrap();
    let client = pair.load.client().await.unwrap();
    until("the Service's address should answer, with mutual TLS", async || {
        let reply = client.get(&format!("http://[{service}]/")).await?;
        ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
        let answer = reply.answer()?;
        let identity = answer.headers.get("x-forwarded-client-cert").cloned().unwrap_or_default();
        ensure!(identity.contains(&pair.identity), "{identity:?}");
        Ok(())
    })
    .await
    .unwrap();
    let reply = client.get(&format!("http://[{pod}]:8080/")).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

/// A name that stands for another, and one that no Service stands for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn external_names_and_strangers_are_reached() {
    let pair = Pair::new("external").await;
    let outside = pair.cluster.namespace("far", Injection::Off).await.unwrap();
    outside.deploy(&["user-service"]).await.unwrap();
    let far = format!("user-service.{}.svc.cluster.local", outside.name());
    let alias = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: alias}}\nspec: {{type: ExternalName, \
         externalName: {far}, ports: [{{name: http, port: 80}}]}}\n"
    );
    pair.namespace.apply(&alias).await.unwrap();
    let client = pair.load.client().await.unwrap();
    // By its name, as a Service without a proxy, and by a pod's address that no port of a Service belongs to.
    let pod = outside.pods("app=user-service").await.unwrap().remove(0);
    let address = pod.address().unwrap();
    for uri in
        ["http://alias/".to_owned(), format!("http://{far}/"), format!("http://{address}:8080/")]
    {
        until(&format!("{uri} should answer"), async || {
            let reply = client.get(&uri).await?;
            ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
            ensure!(reply.answer()?.role == "user-service", "{}", reply.text());
            Ok(())
        })
        .await
        .unwrap();
    }
    let mut stream = pair.load.connect(&format!("{address}:9000")).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "hello\n");
}

/// A database whose server speaks first, and a client that is its own.
const DATABASE: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Service
metadata: {name: database}
spec:
  selector: {app: database}
  ports: [{name: mysql, port: 3306}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: database}
spec:
  selector: {matchLabels: {app: database}}
  template:
    metadata: {labels: {app: database}}
    spec:
      containers:
      - name: app
        image: docker.io/weft/test-mariadb:dev
        imagePullPolicy: IfNotPresent
        readinessProbe: {tcpSocket: {port: 3306}, periodSeconds: 2}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: docker.io/weft/test-mariadb:dev
        imagePullPolicy: IfNotPresent
        command: [/bin/sleep, '100000']
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_database_that_speaks_first_is_reached_under_strict() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("database", Injection::Istio).await.unwrap();
    namespace.apply(DATABASE).await.unwrap();
    namespace.rolled_out().await.unwrap();
    let client = namespace.pod("app=client").await.unwrap();
    let query = async |host: &str, sql: &str| {
        let login =
            ["mariadb", "--skip-ssl", "-h", host, "-u", "weft", "-pweft", "weft", "-N", "-e"];
        client.exec("app", &[&login[..], &[sql]].concat()).await
    };
    until("the database should answer", async || {
        let answer = query("database", "select 6 * 7").await?;
        ensure!(answer.trim() == "42", "{answer:?}");
        Ok(())
    })
    .await
    .unwrap();
    query("database", "create table t (n int); insert into t values (1), (2), (3)").await.unwrap();
    assert_eq!(query("database", "select sum(n) from t").await.unwrap().trim(), "6");
    let server = namespace.pod("app=database").await.unwrap();
    until("the connections should be counted as mutual TLS", async || {
        let opened = mutual_tcp(&server).await?;
        ensure!(opened >= 3.0, "{opened}");
        Ok(())
    })
    .await
    .unwrap();
}
