use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer,
    KeyPair, SanType,
};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion, crypto::SupportedKxGroup};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    config::{
        matcher::StringMatcher,
        tls::{Carries, DownstreamTls, TlsSource, TlsVersions, UpstreamTls},
    },
    identity::Identity,
};

mod secrets;
mod suites;

/// Signs certificates for tests.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
}

/// What a test certificate says.
pub struct Leaf<'a> {
    pub names: Vec<SanType>,
    pub usages: Vec<Usage>,
    pub days: (i64, i64),
    pub common_name: &'a str,
}

impl Leaf<'_> {
    /// A workload's, valid for a day.
    pub fn workload(uris: &[&str]) -> Self {
        Self {
            names: uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect(),
            usages: vec![Usage::ServerAuth, Usage::ClientAuth],
            days: (-1, 1),
            common_name: "",
        }
    }
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::OrganizationName, "test");
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub fn sign(&self, leaf: Leaf<'_>) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = leaf.names;
        params.extended_key_usages = leaf.usages;
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !leaf.common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, leaf.common_name);
        }
        let now = OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::days(leaf.days.0);
        params.not_after = now + time::Duration::days(leaf.days.1);
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key)
    }

    /// An identity whose certificate says what `leaf` says, and which claims to be `id`.
    pub fn identity_of(&self, generation: u64, id: &str, leaf: Leaf<'_>) -> Identity {
        let (certificate, key) = self.sign(leaf);
        Identity {
            generation,
            id: id.parse().unwrap(),
            chain: vec![certificate],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            roots: vec![self.root.clone()],
            serial: "1".into(),
            not_before: SystemTime::now(),
            not_after: SystemTime::now() + Duration::from_secs(86_400),
        }
    }

    /// A workload's identity.
    pub fn identity(&self, generation: u64, id: &str) -> Identity {
        self.identity_of(generation, id, Leaf::workload(&[id]))
    }
}

/// The handle that holds an identity.
pub fn handle(identity: Identity) -> Arc<ArcSwapOption<Identity>> {
    Arc::new(ArcSwapOption::from_pointee(identity))
}

/// Mutual TLS on the accepting side.
pub fn downstream(alpn: &[&str]) -> Arc<DownstreamTls> {
    Arc::new(DownstreamTls {
        certificates: vec![TlsSource::Mesh],
        trust: Some(TlsSource::Mesh),
        require_client_certificate: true,
        subject_alt_names: Vec::new(),
        alpn: alpn.iter().map(|protocol| protocol.as_bytes().into()).collect(),
        versions: TlsVersions::Tls13,
        cipher_suites: Vec::new(),
        resumption: true,
    })
}

/// Mutual TLS on the connecting side, to a server with one of these identities.
pub fn upstream(sans: &[&str], alpn: &[&str]) -> Arc<UpstreamTls> {
    Arc::new(UpstreamTls {
        identity: Some(TlsSource::Mesh),
        trust: Some(TlsSource::Mesh),
        subject_alt_names: sans
            .iter()
            .map(|san| StringMatcher::Exact { value: (*san).into(), ignore_case: false })
            .collect(),
        sni: "outbound_.80_._.orders.default.svc.cluster.local".into(),
        auto_sni: false,
        alpn: alpn.iter().map(|protocol| protocol.as_bytes().into()).collect(),
        versions: TlsVersions::Tls13,
    })
}

pub const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/storefront";
pub const SERVER: &str = "spiffe://cluster.local/ns/default/sa/orders";
const FOREIGN: &str = "spiffe://other.example/ns/default/sa/orders";
const LIMIT: Duration = Duration::from_secs(10);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// What both sides say of a handshake; each side's bytes are read once, so that late alerts are seen.
async fn shake(
    (client, connect_to): (&TlsContexts, &Arc<UpstreamTls>),
    (server, accept_with): (&TlsContexts, &Arc<DownstreamTls>),
) -> (Result<PeerInfo, TlsError>, Result<PeerInfo, TlsError>) {
    let (client_io, server_io) = pair().await;
    let (client, server) =
        (client.client(connect_to).unwrap(), server.server(accept_with).unwrap());
    let (name, alpn) = (connect_to.sni.clone(), connect_to.offered(Carries::Bytes));
    let connecting = async {
        let (mut stream, peer) = connect(&client, client_io, &name, alpn).await?;
        // Tickets, or the server's refusal, come with the first read.
        match stream.read_u8().await {
            Ok(_) => Ok(peer),
            Err(error) => Err(TlsError::Handshake(error)),
        }
    };
    let accepting = async {
        let (mut stream, peer) = accept(&server, server_io, LIMIT).await?;
        stream.write_all(b"x").await.map_err(TlsError::Handshake)?;
        stream.shutdown().await.map_err(TlsError::Handshake)?;
        Ok(peer)
    };
    tokio::join!(connecting, accepting)
}

fn contexts(identity: Identity) -> TlsContexts {
    TlsContexts::new(handle(identity))
}

#[tokio::test]
async fn both_sides_of_mutual_tls_know_each_other() {
    let authority = Authority::new();
    let mut leaf = Leaf::workload(&[CLIENT]);
    leaf.common_name = "storefront";
    let client = contexts(authority.identity_of(1, CLIENT, leaf));
    let server = contexts(authority.identity(1, SERVER));
    let (connected, accepted) = shake(
        (&client, &upstream(&[SERVER], &["istio-http/1.1", "istio", "http/1.1"])),
        (&server, &downstream(&["h2", "http/1.1"])),
    )
    .await;
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
    assert_eq!(connected.certificate.identity, Some(SERVER.parse().unwrap()));
    assert_eq!(connected.alpn.as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(
        accepted,
        PeerInfo {
            certificate: Arc::new(PeerCertificate {
                identity: Some(CLIENT.parse().unwrap()),
                uri_sans: vec![CLIENT.into()],
                dns_sans: Vec::new(),
                subject: "CN=storefront".into(),
                hash: accepted.certificate.hash.clone(),
            }),
            verified: true,
            local_identity: Some(SERVER.into()),
            alpn: Some(b"http/1.1"[..].into()),
            server_name: Some("outbound_.80_._.orders.default.svc.cluster.local".into()),
            resumed: false,
        }
    );
    assert_eq!(accepted.certificate.hash.len(), 64);
}

#[tokio::test]
async fn a_client_accepts_only_the_server_that_it_expects() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let other = "spiffe://cluster.local/ns/default/sa/another";
    let mut expired = Leaf::workload(&[SERVER]);
    expired.days = (-2, -1);
    let mut early = Leaf::workload(&[SERVER]);
    early.days = (1, 2);
    let mut client_only = Leaf::workload(&[SERVER]);
    client_only.usages = vec![Usage::ClientAuth];
    let mut dns = Leaf::workload(&[]);
    dns.names = vec![SanType::DnsName("orders".try_into().unwrap())];
    let certificate = |leaf| authority.identity_of(1, SERVER, leaf);
    for (case, sans, identity, fine) in [
        ("expected", vec![other, SERVER], certificate(Leaf::workload(&[SERVER])), true),
        ("no expectation", vec![], certificate(Leaf::workload(&[SERVER])), true),
        ("another identity", vec![other], certificate(Leaf::workload(&[SERVER])), false),
        ("foreign domain", vec![], certificate(Leaf::workload(&[FOREIGN])), false),
        ("foreign, but named", vec![FOREIGN], certificate(Leaf::workload(&[FOREIGN])), true),
        ("two URIs", vec![SERVER], certificate(Leaf::workload(&[SERVER, other])), false),
        ("no SPIFFE id", vec![], certificate(Leaf::workload(&["https://a/b"])), false),
        ("no URI", vec![], certificate(dns), false),
        ("expired", vec![SERVER], certificate(expired), false),
        ("not yet valid", vec![SERVER], certificate(early), false),
        ("client usage", vec![SERVER], certificate(client_only), false),
        ("another authority", vec![SERVER], stranger.identity(1, SERVER), false),
    ] {
        let client = contexts(authority.identity(1, CLIENT));
        let server = contexts(identity);
        let mut anyone = DownstreamTls::clone(&downstream(&["http/1.1"]));
        anyone.trust = None;
        let settings = upstream(&sans, &["http/1.1"]);
        let (connected, _) = shake((&client, &settings), (&server, &Arc::new(anyone))).await;
        assert_eq!(connected.is_ok(), fine, "{case}: {connected:?}");
    }
}

#[tokio::test]
async fn a_server_accepts_only_clients_of_its_mesh() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut expired = Leaf::workload(&[CLIENT]);
    expired.days = (-2, -1);
    let mut server_only = Leaf::workload(&[CLIENT]);
    server_only.usages = vec![Usage::ServerAuth];
    let certificate = |leaf| authority.identity_of(1, CLIENT, leaf);
    for (case, identity, fine) in [
        ("a workload", certificate(Leaf::workload(&[CLIENT])), true),
        ("foreign domain", certificate(Leaf::workload(&[FOREIGN])), false),
        ("two URIs", certificate(Leaf::workload(&[CLIENT, SERVER])), false),
        ("no SPIFFE id", certificate(Leaf::workload(&["https://a/b"])), false),
        ("expired", certificate(expired), false),
        ("server usage", certificate(server_only), false),
        ("another authority", stranger.identity(1, CLIENT), false),
    ] {
        let client = contexts(identity);
        let server = contexts(authority.identity(1, SERVER));
        let mut trusting = UpstreamTls::clone(&upstream(&[], &["http/1.1"]));
        trusting.trust = None;
        let (_, accepted) =
            shake((&client, &Arc::new(trusting)), (&server, &downstream(&["http/1.1"]))).await;
        assert_eq!(accepted.is_ok(), fine, "{case}: {accepted:?}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    let authority = Authority::new();
    let server = contexts(authority.identity(1, SERVER));
    let client = contexts(authority.identity(1, CLIENT));
    let mut plain = UpstreamTls::clone(&upstream(&[SERVER], &["http/1.1"]));
    plain.identity = None;
    let plain = Arc::new(plain);
    let (connected, accepted) =
        shake((&client, &plain), (&server, &downstream(&["http/1.1"]))).await;
    assert!(connected.is_err() && accepted.is_err());

    let mut optional = DownstreamTls::clone(&downstream(&["http/1.1"]));
    optional.require_client_certificate = false;
    let (connected, accepted) = shake((&client, &plain), (&server, &Arc::new(optional))).await;
    assert!(connected.is_ok());
    assert!(!accepted.unwrap().verified);
}

#[tokio::test]
async fn a_refusal_says_what_was_wrong() {
    let authority = Authority::new();
    let client = contexts(authority.identity(1, CLIENT));
    let server = contexts(authority.identity(1, SERVER));
    let settings = upstream(&[CLIENT], &["http/1.1"]);
    let (connected, _) = shake((&client, &settings), (&server, &downstream(&["http/1.1"]))).await;
    let error = connected.unwrap_err();
    assert_eq!(peer_error(&error), Some(&PeerError::Names(vec![SERVER.into()])));
}

#[tokio::test]
async fn sessions_are_resumed_within_a_generation_only() {
    let authority = Authority::new();
    let server_identity = handle(authority.identity(1, SERVER));
    let client_identity = handle(authority.identity(1, CLIENT));
    let client = TlsContexts::new(client_identity.clone());
    // Two data threads of one server.
    let servers =
        [TlsContexts::new(server_identity.clone()), TlsContexts::new(server_identity.clone())];
    let (up, down) = (upstream(&[SERVER], &["http/1.1"]), downstream(&["http/1.1"]));
    let resumed = async |thread: usize| {
        let (connected, accepted) = shake((&client, &up), (&servers[thread], &down)).await;
        let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
        assert_eq!(connected.resumed, accepted.resumed);
        assert_eq!(accepted.certificate.identity, Some(CLIENT.parse().unwrap()));
        accepted.resumed
    };
    assert!(!resumed(0).await);
    assert!(resumed(0).await);
    assert!(resumed(1).await);
    server_identity.store(Some(Arc::new(authority.identity(2, SERVER))));
    assert!(!resumed(0).await);
    assert!(resumed(1).await);
    client_identity.store(Some(Arc::new(authority.identity(2, CLIENT))));
    assert!(!resumed(1).await);
}

#[tokio::test]
async fn a_resumed_session_is_checked_against_the_chain_that_resumes_it() {
    let authority = Authority::new();
    let server = contexts(authority.identity(1, SERVER));
    let client = contexts(authority.identity(1, CLIENT));
    let up = upstream(&[SERVER], &["http/1.1"]);
    let lax = downstream(&["http/1.1"]);
    let mut strict = DownstreamTls::clone(&lax);
    strict.subject_alt_names =
        vec![StringMatcher::Exact { value: FOREIGN.into(), ignore_case: false }];
    let strict = Arc::new(strict);
    let (_, first) = shake((&client, &up), (&server, &lax)).await;
    assert!(first.is_ok());
    let (_, second) = shake((&client, &up), (&server, &strict)).await;
    assert!(second.is_err(), "{second:?}");
}

#[tokio::test]
async fn configurations_are_built_once_until_something_changes() {
    let authority = Authority::new();
    let identity = handle(authority.identity(1, SERVER));
    let contexts = TlsContexts::new(identity.clone());
    let (up, down) = (upstream(&[SERVER], &[]), downstream(&[]));
    let (client, server) = (contexts.client(&up).unwrap(), contexts.server(&down).unwrap());
    assert!(Arc::ptr_eq(&client.config, &contexts.client(&up).unwrap().config));
    assert!(Arc::ptr_eq(&server.config, &contexts.server(&down).unwrap().config));
    identity.store(Some(Arc::new(authority.identity(2, SERVER))));
    assert!(!Arc::ptr_eq(&client.config, &contexts.client(&up).unwrap().config));
    assert!(!Arc::ptr_eq(&server.config, &contexts.server(&down).unwrap().config));
}

#[tokio::test]
async fn without_an_identity_there_is_no_mesh_tls() {
    let contexts = TlsContexts::new(Arc::default());
    assert!(matches!(contexts.client(&upstream(&[], &[])), Err(TlsError::NoIdentity)));
    assert!(matches!(contexts.server(&downstream(&[])), Err(TlsError::NoIdentity)));
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").into_bytes()
}

#[tokio::test]
async fn servers_outside_the_mesh_are_checked_by_name() {
    let authority = Authority::new();
    let mut leaf = Leaf::workload(&[]);
    leaf.names = vec![
        SanType::DnsName("api.example.com".try_into().unwrap()),
        SanType::DnsName("*.example.org".try_into().unwrap()),
    ];
    let (certificate, key) = authority.sign(leaf);
    let server = contexts(authority.identity(1, SERVER));
    let accepting = Arc::new(DownstreamTls {
        certificates: vec![TlsSource::Inline {
            certificate: pem("CERTIFICATE", &certificate).into(),
            key: pem("PRIVATE KEY", &key.serialize_der()).into(),
            ca: Box::default(),
        }],
        trust: None,
        versions: TlsVersions::Tls12,
        ..DownstreamTls::clone(&downstream(&[]))
    });
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, pem("CERTIFICATE", &authority.root)).unwrap();
    let files = TlsSource::Files { certificate: None, key: None, ca: Some(ca) };
    for (case, trust, sni, sans, fine) in [
        ("its name", Some(&files), "api.example.com", vec![], true),
        ("a wildcard", Some(&files), "x.example.org", vec![], true),
        ("another name", Some(&files), "www.example.com", vec![], false),
        ("a SAN", Some(&files), "www.example.com", vec!["api.example.com"], true),
        ("a SAN by wildcard", Some(&files), "", vec!["x.example.org"], true),
        ("too deep for a wildcard", Some(&files), "", vec!["x.y.example.org"], false),
        ("another SAN", Some(&files), "api.example.com", vec!["www.example.com"], false),
        ("the system's roots", Some(&TlsSource::System), "api.example.com", vec![], false),
        ("not verified", None, "www.example.com", vec![], true),
    ] {
        if trust == Some(&TlsSource::System)
            && !std::path::Path::new("/etc/ssl/certs/ca-certificates.crt").exists()
        {
            continue;
        }
        let settings = UpstreamTls {
            identity: None,
            trust: trust.cloned(),
            sni: sni.into(),
            versions: TlsVersions::Tls12And13,
            ..UpstreamTls::clone(&upstream(&sans, &[]))
        };
        let client = contexts(authority.identity(1, CLIENT));
        let (connected, _) = shake((&client, &Arc::new(settings)), (&server, &accepting)).await;
        assert_eq!(connected.is_ok(), fine, "{case}: {connected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_handshake_does_not_last() {
    let authority = Authority::new();
    let server = contexts(authority.identity(1, SERVER)).server(&downstream(&[])).unwrap();
    let (mut client, io) = tokio::io::duplex(1024);
    client.write_all(&[22, 3, 1, 0, 100, 1]).await.unwrap();
    assert!(matches!(accept(&server, io, LIMIT).await, Err(TlsError::TimedOut)));
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_without_another_round_trip() {
    let groups: Vec<_> = provider().kx_groups.iter().map(|group| group.name()).take(2).collect();
    assert_eq!(groups, [NamedGroup::X25519MLKEM768, NamedGroup::X25519]);
    let authority = Authority::new();
    let client = contexts(authority.identity(1, CLIENT)).client(&upstream(&[SERVER], &[])).unwrap();
    let server = contexts(authority.identity(1, SERVER)).server(&downstream(&[])).unwrap();
    let (client_io, server_io) = pair().await;
    let (connected, accepted) = tokio::join!(
        connect(&client, client_io, "", Vec::new()),
        accept(&server, server_io, LIMIT)
    );
    let (connected, accepted) = (connected.unwrap().0, accepted.unwrap().0);
    for (_, connection) in [connected.get_ref(), accepted.get_ref()] {
        let group = connection.negotiated_key_exchange_group().map(SupportedKxGroup::name);
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
    }
}
