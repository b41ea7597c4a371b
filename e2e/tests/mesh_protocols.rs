//! Every protocol passes the mesh: through the explicit proxy, and through the address that stands for a named
//! service.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use anyhow::ensure;
use futures_util::{SinkExt, StreamExt};
use http::Uri;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::{client_async, tungstenite::Message};
use tonic::transport::Channel;
use weft_e2e::{
    checks,
    client::request,
    mesh::{Mesh, Options},
    programs::sample,
    wait,
};
use weft_samples::client::{Dialer, grpc_channel};

const SERVICE: &str = "payment-service";

async fn shop() -> Mesh {
    let named = [9090, 9000, 9001].map(|port| format!("{SERVICE}:{port}")).to_vec();
    Mesh::shop(Options { named, ..Options::default() }).await.unwrap()
}

/// Where the storefront's proxy listens for a port of the service.
fn named(mesh: &Mesh, port: u16) -> SocketAddr {
    SocketAddr::new(mesh.named_address("storefront-v1-1", SERVICE).unwrap(), port)
}

/// A tunnel through the storefront's explicit proxy.
async fn tunnel(mesh: &Mesh, target: &str) -> anyhow::Result<BufReader<TcpStream>> {
    let proxy = mesh.workload("storefront-v1-1")?.http_proxy();
    let mut stream = BufReader::new(TcpStream::connect(proxy).await?);
    let head = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut status = String::new();
    stream.read_line(&mut status).await?;
    ensure!(status.starts_with("HTTP/1.1 200"), "{status:?}");
    let mut line = status;
    while line != "\r\n" {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "half an answer");
    }
    Ok(stream)
}

async fn grpc_works(channel: Channel) {
    let identity = "URI=spiffe://cluster.local/ns/default/sa/storefront";
    checks::grpc(channel, SERVICE, identity).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_calls_streams_and_errors_pass() {
    let mesh = shop().await;
    let proxy = mesh.workload("storefront-v1-1").unwrap().http_proxy().to_string();
    let service: Uri = format!("http://{SERVICE}:9090").parse().unwrap();
    grpc_works(grpc_channel(&Dialer::through(&proxy), &service)).await;

    let address: Uri = format!("http://{}", named(&mesh, 9090)).parse().unwrap();
    grpc_works(grpc_channel(&Dialer::direct(), &address)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_pass() {
    let mesh = shop().await;
    let stream = wait::until_ok("the tunnel should open", async || {
        tunnel(&mesh, &format!("{SERVICE}:80")).await
    });
    let (mut socket, response) =
        client_async(format!("ws://{SERVICE}/ws"), stream.await.unwrap()).await.unwrap();
    assert_eq!(response.status().as_u16(), 101);
    let messages = [
        Message::text("hello"),
        Message::binary(vec![7_u8; 100_000]),
        Message::text("x".repeat(70_000)),
    ];
    for message in messages {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    assert!(socket.next().await.is_some_and(|m| m.is_ok_and(|m| m.is_close())));
}

async fn echoes(stream: TcpStream) -> anyhow::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i.wrapping_mul(31) >> 3) as u8).collect();
    let copy = sent.clone();
    let write = tokio::spawn(async move {
        writer.write_all(&copy).await?;
        // Half-closed: what is under way still comes back.
        writer.shutdown().await
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await?;
    write.await??;
    ensure!(received == sent, "{} bytes came back, or others", received.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_passes_both_ways_and_half_closes() {
    let mesh = shop().await;
    wait::until_ok("the named address should echo", async || {
        echoes(TcpStream::connect(named(&mesh, 9000)).await?).await
    })
    .await
    .unwrap();
    let stream = tunnel(&mesh, &format!("{SERVICE}:9000")).await.unwrap();
    assert!(stream.buffer().is_empty());
    echoes(stream.into_inner()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_speak_first_are_heard() {
    let mesh = shop().await;
    let greeting = "220 payment-service v1 ready\r\n";
    let talk = async |mut stream: BufReader<TcpStream>| {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        ensure!(line == greeting, "{line:?}");
        stream.write_all(b"EHLO\r\n").await?;
        line.clear();
        stream.read_line(&mut line).await?;
        ensure!(line == "EHLO\r\n", "{line:?}");
        Ok(())
    };
    wait::until_ok("the named address should greet", async || {
        talk(BufReader::new(TcpStream::connect(named(&mesh, 9001)).await?)).await
    })
    .await
    .unwrap();
    talk(tunnel(&mesh, &format!("{SERVICE}:9001")).await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_both_ways() {
    let mesh = shop().await;
    let client = mesh.workload("storefront-v1-1").unwrap().client();
    let mut post = request(http::Method::POST, "http://payment-service/big?size=5000000", &[]);
    *post.body_mut() = vec![b'x'; 5_000_000].into();
    let reply = client.send(post).await.unwrap();
    let answer = reply.answer().unwrap();
    assert_eq!((answer.body_bytes, answer.padding.len()), (5_000_000, 5_000_000));
}

/// A port that does not say what it speaks carries requests as requests: rules about them hold, and name the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_on_a_port_without_a_protocol_is_http() {
    let mesh = shop().await;
    let yaml = mesh.block().relocate(&sample("mesh/payment-service.yaml").unwrap());
    let unnamed = yaml.replace("name: http\n", "name: web\n");
    assert_ne!(yaml, unnamed);
    mesh.apply("payment-service.yaml", &unnamed).unwrap();
    mesh.apply_example("authorization.yaml").unwrap();
    let client = |name: &str| mesh.workload(name).unwrap().client();
    let (order, user) = (client("order-service-v1-1"), client("user-service-v1-1"));
    let pay = "http://payment-service/payments/7";
    wait::until_ok(
        "user-service should be refused as a request, not as a connection",
        async || {
            let reply = user.post(pay).await?;
            ensure!(reply.status == http::StatusCode::FORBIDDEN, "{}", reply.status);
            ensure!(reply.text() == "RBAC: access denied", "{}", reply.text());
            Ok(())
        },
    )
    .await
    .unwrap();
    let reply = order.post(pay).await.unwrap();
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    assert_eq!(order.get(pay).await.unwrap().status.as_u16(), 403);
}

/// A client of HTTP/1.0 that knows neither chunks nor reuse gets the whole answer, then the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_is_answered() {
    let mesh = shop().await;
    let proxy = mesh.workload("storefront-v1-1").unwrap().http_proxy();
    let pod =
        SocketAddr::new(mesh.workload("payment-service-v1-1").unwrap().address().into(), 8080);
    for (to, target) in
        [(proxy, "http://payment-service/big?size=100000"), (pod, "/big?size=100000")]
    {
        let answer = wait::until_ok("a request of HTTP/1.0 should be answered", async || {
            let mut stream = TcpStream::connect(to).await?;
            let head = format!("GET {target} HTTP/1.0\r\nHost: payment-service\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            ensure!(answer.split(' ').nth(1) == Some("200"), "{answer:.200}");
            Ok(answer)
        });
        let answer = answer.await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["padding"].as_str().map(str::len), Some(100_000));
    }
}

/// An application's calls by name, through its `http_proxy`, over HTTP and gRPC: nothing of it knows the mesh.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_shop_works_unchanged() {
    let mesh = shop().await;
    let client = mesh.workload("load-1").unwrap().client();
    let reply = client.get("http://storefront/orders/42").await.unwrap();
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    let answer = reply.answer().unwrap();
    let order = &answer.upstreams[0].body;
    let calls: Vec<_> = order["upstreams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|upstream| upstream["call"].as_str().unwrap())
        .collect();
    assert_eq!(
        calls,
        [
            "GET http://user-service/users/42",
            "POST http://payment-service/payments/42",
            "gRPC http://payment-service:9090 Charge"
        ]
    );
    for (callee, caller) in
        [(order, "storefront"), (&order["upstreams"][0]["body"], "order-service")]
    {
        let identity = callee["headers"]["x-forwarded-client-cert"].as_str().unwrap();
        assert!(
            identity.contains(&format!("URI=spiffe://cluster.local/ns/default/sa/{caller}")),
            "{identity}"
        );
    }
}
