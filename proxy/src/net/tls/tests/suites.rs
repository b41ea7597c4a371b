//! Which cipher suite a handshake ends with: the server's order counts, as with Envoy.

use rustls::{CipherSuite, ClientConfig, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;

use super::*;
use crate::net::tls::{
    configs::has_aes,
    verify::{Names, ServerVerifier},
};

/// A client that wants these suites, in this order.
fn client(
    versions: &[&'static rustls::SupportedProtocolVersion],
    suites: &[CipherSuite],
) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
    provider.cipher_suites.sort_by_key(|suite| suites.iter().position(|s| *s == suite.suite()));
    let provider = Arc::new(provider);
    let verifier = ServerVerifier::new(provider.clone(), None, Names::Any);
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth()
}

#[tokio::test]
async fn the_servers_order_of_suites_counts() {
    use CipherSuite as S;
    const AES_128: CipherSuite = S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    const AES_256: CipherSuite = S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
    let fast =
        if has_aes() { S::TLS13_AES_128_GCM_SHA256 } else { S::TLS13_CHACHA20_POLY1305_SHA256 };
    let newest = [
        S::TLS13_AES_256_GCM_SHA384,
        S::TLS13_CHACHA20_POLY1305_SHA256,
        S::TLS13_AES_128_GCM_SHA256,
    ];
    let authority = Authority::new();
    let server = contexts(authority.identity(1, SERVER));
    for (version, allowed, wanted, expected) in [
        (TlsVersions::Tls13, vec![], newest.to_vec(), fast),
        (TlsVersions::Tls13, vec![], newest[..1].to_vec(), newest[0]),
        (TlsVersions::Tls13, vec![AES_256], newest.to_vec(), fast),
        (TlsVersions::Tls12, vec![], vec![AES_256, AES_128], AES_128),
        (TlsVersions::Tls12, vec![AES_256, AES_128], vec![AES_128, AES_256], AES_256),
        (TlsVersions::Tls12, vec![AES_128, AES_256], vec![AES_256, AES_128], AES_128),
        (TlsVersions::Tls12, vec![AES_256], vec![AES_128, AES_256], AES_256),
    ] {
        let settings = Arc::new(DownstreamTls {
            trust: None,
            require_client_certificate: false,
            versions: version,
            cipher_suites: allowed.clone(),
            ..DownstreamTls::clone(&downstream(&[]))
        });
        let versions: &[_] = match version {
            TlsVersions::Tls12 => &[&rustls::version::TLS12],
            _ => &[&rustls::version::TLS13],
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client(versions, &wanted)));
        let (client_io, server_io) = pair().await;
        let accepting = server.server(&settings).unwrap();
        let name = ServerName::try_from("orders").unwrap();
        let (accepted, connected) =
            tokio::join!(accept(&accepting, server_io, LIMIT), connector.connect(name, client_io));
        let (stream, _) = accepted.unwrap();
        connected.unwrap();
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, expected, "{allowed:?} and {wanted:?}");
    }
}
