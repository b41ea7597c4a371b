//! Peers that mean harm, or are broken: the proxies and the operator refuse them, log it, and go on.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use http::StatusCode;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::Code;
use weft_api::xds::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use weft_e2e::{
    authority::{self, Credentials},
    client::{Client, url},
    memory,
    mesh::{Mesh, Options},
    wait,
};

/// Longer than any timeout of the proxy that a silent peer runs into.
const SILENCE: Duration = Duration::from_secs(200);

const ORDER: &str = "spiffe://cluster.local/ns/default/sa/order-service";

async fn shop() -> Mesh {
    Mesh::shop(Options::default()).await.unwrap()
}

/// Sends bytes and reads until the peer closes; fails when it never does.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    // The peer may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    match tokio::time::timeout(SILENCE, read).await.context("the connection was never closed")? {
        Ok(_) => Ok(answer),
        // Reset: also closed.
        Err(_) => Ok(answer),
    }
}

fn status_line(answer: &[u8]) -> String {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line).into_owned()
}

fn head(lines: &[&str]) -> Vec<u8> {
    format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_get_the_right_status() {
    let mut mesh = shop().await;
    let server = mesh.workload("order-service-v1-1").unwrap();
    let inbound = SocketAddr::from((server.address(), 8080));
    let outbound = server.http_proxy();
    let long = format!("x-long: {}", "a".repeat(70 * 1024));
    let many: Vec<String> = (0..110).map(|index| format!("x-{index}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let request = |target: &str, rest: &[&str]| {
        let line = format!("GET {target} HTTP/1.1");
        head(&[&[line.as_str()], rest].concat())
    };
    for (address, target) in [(inbound, "/"), (outbound, "http://user-service/")] {
        let host = "host: user-service";
        let chunked = "transfer-encoding: chunked";
        let cases = [
            ("oversize header", request(target, &[host, &long]), "431"),
            ("too many headers", request(target, &[&[host], many.as_slice()].concat()), "431"),
            (
                "CL with TE",
                [request(target, &[host, "content-length: 5", chunked]), b"0\r\n\r\n".to_vec()]
                    .concat(),
                "400",
            ),
            (
                "TE with CL",
                [request(target, &[host, chunked, "content-length: 5"]), b"0\r\n\r\n".to_vec()]
                    .concat(),
                "400",
            ),
            (
                "two lengths",
                [
                    request(target, &[host, "content-length: 5", "content-length: 6"]),
                    b"hello!".to_vec(),
                ]
                .concat(),
                "400",
            ),
            ("a strange length", request(target, &[host, "content-length: +5"]), "400"),
            (
                "a strange coding",
                request(target, &[host, "transfer-encoding: chunked, identity"]),
                "501",
            ),
            ("space before the colon", request(target, &[host, "x-a : 1"]), "400"),
            ("a line without a colon", request(target, &[host, "nonsense"]), "400"),
            ("a strange version", head(&["GET / HTTP/7.1", host]), "400"),
        ];
        for (what, bytes, status) in cases {
            let answer = exchange(address, &bytes).await.with_context(|| what.to_owned()).unwrap();
            let line = status_line(&answer);
            assert!(
                line.starts_with(&format!("HTTP/1.1 {status}")),
                "{what} to {address}: {line:?}"
            );
        }
        // Nothing of this reached an application, except what a client may well ask.
        let reply =
            Client::direct().get(&url(server.address(), 8080, "/still-here")).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
    }
    assert_eq!(server.counters().await.unwrap().by_path.len(), 1);
    mesh.must_run().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_half_handshakes_and_silence_are_closed() {
    let mut mesh = shop().await;
    let server = mesh.workload("order-service-v1-1").unwrap();
    let proxy = server.proxy_id().unwrap();
    let before = memory::of(proxy).unwrap();
    let addresses = [
        SocketAddr::from((server.address(), 8080)),
        SocketAddr::from((server.address(), 15006)),
        server.http_proxy(),
    ];
    // A ClientHello that announces 512 bytes and stops after a few.
    let half = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7, 7, 7, 7];
    // The same in every run.
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(100_000).collect();
    let half_request = b"GET / HTTP/1.1\r\nhost: order".to_vec();
    let cases: [&[u8]; 5] = [&half, &noise, &[0; 4096], &half_request, b""];
    let mut peers = tokio::task::JoinSet::new();
    for bytes in cases {
        for address in addresses {
            for _ in 0..20 {
                let bytes = bytes.to_vec();
                peers.spawn(async move { exchange(address, &bytes).await });
            }
        }
    }
    // Headers without end: as much as a peer can send.
    for address in [addresses[0], addresses[2]] {
        let mut endless =
            b"GET http://user-service/ HTTP/1.1\r\nhost: user-service\r\nx-endless: ".to_vec();
        endless.resize(8 * 1024 * 1024, b'a');
        peers.spawn(async move { exchange(address, &endless).await });
    }
    let most = async {
        let mut most = 0;
        while !peers.is_empty() {
            most = most.max(memory::of(proxy)?.private);
            while let Some(outcome) = peers.try_join_next() {
                outcome??;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(most)
    };
    let most = most.await.unwrap();
    // 300 peers may hold a header buffer each, and no more.
    assert!(most < before.private + 300 * 128, "{before:?}, at most {most} KiB");
    let reply = Client::direct().get(&url(server.address(), 8080, "/still-here")).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert!(!server.proxy_log().contains("panicked"), "{}", server.proxy_log());
    mesh.must_run().unwrap();
}

/// Trusts every server: what is tested is whom the server trusts.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}

/// GET over TLS with these credentials, if any, as a mesh peer would ask.
async fn get_over_tls(address: SocketAddr, own: Option<&Credentials>) -> anyhow::Result<String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match own {
        Some(own) => {
            let chain = own.chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()));
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes())?;
            builder.with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols =
        vec![b"istio-http/1.1".to_vec(), b"istio".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("order-service")?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream
        .write_all(b"GET /tls HTTP/1.1\r\nhost: order-service\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(!answer.is_empty(), "closed without an answer");
    Ok(status_line(&answer))
}

/// A certificate for an identity of the mesh from an authority that nobody trusts.
fn foreign() -> Credentials {
    use rcgen::{
        BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, string::Ia5String,
    };
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names.push(SanType::URI(Ia5String::try_from(ORDER).unwrap()));
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    Credentials { key: key.serialize_pem(), chain: vec![leaf.pem(), root_certificate.pem()] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_certificates_of_the_mesh_open_a_connection() {
    let mesh = shop().await;
    let server = mesh.workload("order-service-v1-1").unwrap();
    let address = SocketAddr::from((server.address(), 8080));
    let token = mesh.token("default", "order-service", &[]).unwrap();
    let own = authority::credentials(mesh.control_plane(), &mesh.state_folder(), &token, ORDER)
        .await
        .unwrap();
    assert_eq!(get_over_tls(address, Some(&own)).await.unwrap(), "HTTP/1.1 200 OK");
    for (what, credentials) in [("no certificate", None), ("a foreign one", Some(foreign()))] {
        let refused = get_over_tls(address, credentials.as_ref()).await;
        assert!(refused.is_err(), "{what}: {refused:?}");
    }
    assert_eq!(server.counters().await.unwrap().requests, 1);
}

async fn signed(mesh: &Mesh, token: &str, uris: &[&str]) -> Result<Vec<String>, tonic::Status> {
    let (csr, _) = authority::signing_request(uris).unwrap();
    let channel =
        authority::channel(mesh.control_plane(), &mesh.state_folder(), None).await.unwrap();
    authority::sign(channel, token, csr, 3_600).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_signs_only_what_the_token_says() {
    let mut mesh = Mesh::empty(Options::default()).await.unwrap();
    let file = mesh.token("default", "order-service", &[]).unwrap();
    let token = std::fs::read_to_string(file).unwrap();
    assert_eq!(signed(&mesh, &token, &[ORDER]).await.unwrap().len(), 2);

    let other = "spiffe://cluster.local/ns/default/sa/payment-service";
    let status = signed(&mesh, &token, &[other]).await.unwrap_err();
    assert!(matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument), "{status}");
    let status = signed(&mesh, &token, &[ORDER, other]).await.unwrap_err();
    assert!(matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument), "{status}");

    // Of another mesh, changed on the way, empty, and none of the kind.
    let stranger = Mesh::empty(Options::default()).await.unwrap();
    let file = stranger.token("default", "order-service", &[]).unwrap();
    let foreign = std::fs::read_to_string(file).unwrap();
    let mut changed = token.trim().to_owned();
    let last = if changed.ends_with('A') { 'B' } else { 'A' };
    changed.pop();
    changed.insert(changed.len() / 2, last);
    for bad in [foreign.as_str(), &changed, "", "x.y.z"] {
        let status = signed(&mesh, bad, &[ORDER]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{bad}: {status}");
    }

    let file = mesh.token("default", "order-service", &["--ttl", "1s"]).unwrap();
    let short = std::fs::read_to_string(file).unwrap();
    // A token may be accepted a little after its end, for clocks that differ.
    wait::until_ok_for(Duration::from_secs(120), "the token should expire", async || match signed(
        &mesh,
        &short,
        &[ORDER],
    )
    .await
    {
        Ok(_) => anyhow::bail!("is still accepted"),
        Err(status) => {
            ensure!(status.code() == Code::Unauthenticated, "{status}");
            Ok(())
        }
    })
    .await
    .unwrap();
    let log = mesh.operator().unwrap().log();
    assert!(log.contains("payment-service"), "a refusal is logged: {log}");
    mesh.must_run().unwrap();
}

/// The answer to a first request of a configuration stream.
async fn subscribe(
    mesh: &Mesh,
    own: Option<&Credentials>,
    node: Node,
) -> Result<(), tonic::Status> {
    let state = mesh.state_folder();
    let channel = authority::channel(mesh.control_plane(), &state, own).await;
    let channel = channel.map_err(|error| tonic::Status::unauthenticated(format!("{error:#}")))?;
    let request = DeltaDiscoveryRequest {
        node: Some(node),
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(),
        resource_names_subscribe: vec!["*".into()],
        ..Default::default()
    };
    // Open for as long as the answer is awaited.
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let mut answers = client.delta_aggregated_resources(requests).await?.into_inner();
    answers.message().await.map(drop)
}

fn node(namespace: &str, account: &str) -> Node {
    weft_api::node::NodeInfo {
        kind: weft_api::node::ProxyKind::Sidecar,
        pod_address: [127, 0, 0, 9].into(),
        pod_name: "order-service-v1-1".into(),
        namespace: namespace.into(),
        service_account: account.into(),
        workload_name: "order-service-v1".into(),
        labels: std::collections::BTreeMap::new(),
        cluster_id: "Kubernetes".into(),
        interception: weft_api::node::Interception::None,
        app_address: None,
        on_demand: false,
        domain: "cluster.local".into(),
    }
    .to_node()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_no_configuration_but_its_own() {
    let mut mesh = Mesh::empty(Options::default()).await.unwrap();
    let token = mesh.token("default", "order-service", &[]).unwrap();
    let own = authority::credentials(mesh.control_plane(), &mesh.state_folder(), &token, ORDER)
        .await
        .unwrap();
    subscribe(&mesh, Some(&own), node("default", "order-service")).await.unwrap();
    for (namespace, account) in [("other", "order-service"), ("default", "payment-service")] {
        let status = subscribe(&mesh, Some(&own), node(namespace, account)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{namespace}/{account}: {status}");
    }
    let status = subscribe(&mesh, None, node("default", "order-service")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let nonsense = Node { id: "nonsense".into(), ..Default::default() };
    let status = subscribe(&mesh, Some(&own), nonsense).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let foreign = foreign();
    assert!(subscribe(&mesh, Some(&foreign), node("default", "order-service")).await.is_err());
    let log = mesh.operator().unwrap().log();
    assert!(log.contains("other"), "a refusal is logged: {log}");
    mesh.must_run().unwrap();
}
