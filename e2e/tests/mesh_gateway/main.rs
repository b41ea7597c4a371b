//! Gateways of a folder: the same Gateways and VirtualServices through our proxy and through stock Envoy.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

mod edge;
mod tls;

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_e2e::{envoy, mesh::Parts, wait};

use edge::{Edge, Kind, ask, failed, text};
use tls::{Authority, Tls};

/// Everything that both proxies must do.
async fn serves(kind: Kind) {
    let authority = Authority::new("authority of the servers");
    let clients = Authority::new("authority of the clients");
    let edge = Edge::start(kind, &authority, &clients).await;
    let (plain, secure) = (edge.at(8080), edge.at(8443));

    // Requests go by host and path; what nobody routes gets 404.
    let answer = edge.until_answered(plain, "users.example.com", "/users/1", None).await;
    assert_eq!(answer.role, "user-service");
    let caller = &answer.headers["x-forwarded-client-cert"];
    assert!(caller.contains("URI=spiffe://cluster.local/ns/edge/sa/edge"), "{caller}");
    assert!(!caller.contains("spoofed"), "{caller}");
    // For a client on this machine Envoy writes an address of the machine.
    let forwarded = &answer.headers["x-forwarded-for"];
    assert!(forwarded.parse::<IpAddr>().is_ok(), "{forwarded}");
    for (host, path) in [
        ("users.example.com", "/orders"),
        ("nobody.example.com", "/users/1"),
        ("example.net", "/users/1"),
    ] {
        let reply = ask(plain, host, path, None).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 404"), "{host}{path}: {reply}");
    }
    let with_port = ask(plain, "users.example.com:8080", "/users/1", None).await.unwrap();
    assert!(with_port.starts_with("HTTP/1.1 200"), "{with_port}");
    let moved = ask(plain, "users.example.org", "/users/1", None).await.unwrap();
    assert!(moved.starts_with("HTTP/1.1 301"), "{moved}");
    assert!(
        moved.to_ascii_lowercase().contains("location: https://users.example.org/users/1"),
        "{moved}"
    );

    // TLS by server name.
    let trusting = Tls::trusting(&[&authority], None);
    edge.until_answered(secure, "users.example.com", "/users/1", Some(&trusting)).await;
    failed(ask(secure, "unknown.example.com", "/users/1", Some(&trusting)).await);
    failed(ask(secure, "users.example.com", "/users/1", None).await);

    // Clients without a certificate of the right authority are refused.
    let known = Tls::trusting(&[&authority], Some(clients.issue("client.example.com")));
    let foreign = Tls::trusting(&[&authority], Some(authority.issue("client.example.com")));
    edge.until_answered(secure, "mutual.example.com", "/users/1", Some(&known)).await;
    failed(ask(secure, "mutual.example.com", "/users/1", Some(&trusting)).await);
    failed(ask(secure, "mutual.example.com", "/users/1", Some(&foreign)).await);

    // Bytes, and TLS that is not ended here.
    let echoed = wait::until_ok("bytes should come back", async || {
        let mut stream = TcpStream::connect(edge.at(9000)).await?;
        stream.write_all(b"echo this\n").await?;
        let mut echo = [0; 10];
        stream.read_exact(&mut echo).await?;
        Ok(echo)
    });
    assert_eq!(&echoed.await.unwrap(), b"echo this\n");
    let server = TcpListener::bind((edge.outside(), 8443)).await.unwrap();
    let acceptor = authority.acceptor("passed.example.com");
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.ok()?;
                let (mut head, mut read) = ([0; 4096], 0);
                while !head[..read].ends_with(b"\r\n\r\n") {
                    match stream.read(&mut head[read..]).await.ok()? {
                        0 => return None,
                        more => read += more,
                    }
                }
                let reply =
                    "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\npassed";
                stream.write_all(reply.as_bytes()).await.ok()?;
                stream.shutdown().await.ok()
            });
        }
    });
    let passed = wait::until_ok("the server outside should answer itself", async || {
        ask(edge.at(9443), "passed.example.com", "/", Some(&trusting)).await
    });
    assert!(passed.await.unwrap().ends_with("passed"));
    failed(ask(edge.at(9443), "other.example.com", "/", Some(&trusting)).await);

    rotates(&edge, secure, &authority).await;
    edge.accepted().await;
}

/// A new certificate is served without a failed request; one that is no good changes nothing.
async fn rotates(edge: &Edge, secure: SocketAddr, authority: &Authority) {
    let next = Authority::new("the next authority");
    let both = Tls::trusting(&[authority, &next], None);
    let only_next = Tls::trusting(&[&next], None);
    edge.apply_pair("users", &next.issue("users.example.com"));
    let mut asked = 0;
    let taken = wait::until_ok("the new certificate should be served", async || {
        // Nothing fails meanwhile.
        let reply = ask(secure, "users.example.com", "/users/1", Some(&both)).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        asked += 1;
        ask(secure, "users.example.com", "/users/1", Some(&only_next)).await
    });
    taken.await.unwrap();
    assert!(asked > 0);
    let (chain, _) = next.issue("users.example.com");
    let (_, key) = next.issue("users.example.com");
    edge.apply_pair("users", &(chain, key));
    wait::until_ok("the Gateway's status should say what is wrong", async || {
        let status = edge.mesh.operator_text("/debug/status").await?;
        ensure!(status.contains("does not go with"), "{status}");
        Ok(())
    })
    .await
    .unwrap();
    let reply = ask(secure, "users.example.com", "/users/1", Some(&only_next)).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_serves_hosts_routes_and_certificates() {
    serves(Kind::Weft).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_envoy_as_a_gateway_does_the_same() {
    match envoy::find() {
        Ok(binary) => serves(Kind::Envoy(binary)).await,
        Err(error) if std::env::var_os("WEFT_REQUIRE_ENVOY").is_some() => panic!("{error:#}"),
        Err(error) => {
            // Whoever reads the output must see that nothing was tested.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("SKIPPED: stock Envoy: {error:#}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_leave_the_mesh_by_an_egress_gateway() {
    let mut mesh = edge::mesh(&["load.yaml"], &[include_str!("egress.yaml")]).await;
    mesh.launch(edge::pod(&mesh, "load-1"), Parts::Proxy).await.unwrap();
    mesh.launch(edge::pod(&mesh, "egress-1"), Parts::Proxy).await.unwrap();
    mesh.ready().await.unwrap();
    let server = TcpListener::bind((mesh.block().address(62, 1), 8081)).await.unwrap();
    let egress = mesh.block().address(61, 1);
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            let mut head = vec![0; 4096];
            let Ok(length) = stream.read(&mut head).await else { continue };
            let reply = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\noutside";
            if stream.write_all(reply.as_bytes()).await.is_ok() {
                heads.send(text(&head[..length])).unwrap();
            }
        }
    });
    let client = mesh.workload("load-1").unwrap().client();
    let reply = wait::until_ok("the call should leave the mesh", async || {
        let reply = client.get("http://api.example.org/by-egress").await?;
        ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
        Ok(reply)
    });
    assert_eq!(reply.await.unwrap().text(), "outside");
    let head = seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /by-egress"), "{head}");
    assert!(head.contains("host: api.example.org"), "{head}");
    // The gateway's listener is for clients of the mesh only.
    let own = Authority::new("nobody's");
    let stranger = Tls::trusting(&[&own], Some(own.issue("stranger")));
    failed(ask(SocketAddr::from((egress, 8443)), "api.example.org", "/", Some(&stranger)).await);
    let metrics = mesh.workload("egress-1").unwrap().metrics().await.unwrap();
    let requests = metrics.iter().filter(|sample| sample.name == "istio_requests_total");
    let by_egress: f64 = requests.map(|sample| sample.value).sum();
    assert!(by_egress >= 1.0, "the gateway counted {by_egress} requests");
}
