//! Certificates from secrets and files: what is chosen, what follows a change, what stays when a change is not good.

use rustls::CipherSuite;

use super::*;
use crate::config::tls::{Secret, SecretContent};

/// A certificate for these DNS names, with its key, in PEM.
fn certificate(authority: &Authority, names: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let mut leaf = Leaf::workload(&[]);
    leaf.names = names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
    let (certificate, key) = authority.sign(leaf);
    (pem("CERTIFICATE", &certificate), pem("PRIVATE KEY", &key.serialize_der()))
}

fn inline((certificate, key): (Vec<u8>, Vec<u8>)) -> TlsSource {
    TlsSource::Inline { certificate: certificate.into(), key: key.into(), ca: Box::default() }
}

fn holding((certificate, key): (Vec<u8>, Vec<u8>)) -> Option<Arc<SecretContent>> {
    let certified = parse_certified(&certificate, &key).unwrap();
    Some(Arc::new(SecretContent::Certificate(certified)))
}

/// A server of the outside world: no client certificates.
fn edge(certificates: Vec<TlsSource>) -> DownstreamTls {
    DownstreamTls {
        certificates,
        trust: None,
        require_client_certificate: false,
        versions: TlsVersions::Tls12And13,
        ..DownstreamTls::clone(&downstream(&[]))
    }
}

/// A client of the outside world that asks for this name and trusts the authority.
fn visitor(authority: &Authority, name: &str) -> UpstreamTls {
    UpstreamTls {
        identity: None,
        trust: Some(TlsSource::Inline {
            certificate: Box::default(),
            key: Box::default(),
            ca: pem("CERTIFICATE", &authority.root).into(),
        }),
        sni: name.into(),
        versions: TlsVersions::Tls12And13,
        ..UpstreamTls::clone(&upstream(&[], &[]))
    }
}

fn outside() -> TlsContexts {
    TlsContexts::new(Arc::default())
}

#[tokio::test]
async fn the_certificate_with_the_name_that_is_asked_for_is_shown() {
    let authority = Authority::new();
    let server = outside();
    let accepting = Arc::new(edge(vec![
        inline(certificate(&authority, &["a.example"])),
        inline(certificate(&authority, &["*.b.example"])),
    ]));
    for (name, fine) in [
        ("a.example", true),
        ("x.b.example", true),
        ("X.B.example", true),
        ("x.y.b.example", false),
        ("c.example", false),
    ] {
        let client = Arc::new(visitor(&authority, name));
        let (connected, _) = shake((&outside(), &client), (&server, &accepting)).await;
        assert_eq!(connected.is_ok(), fine, "{name}: {connected:?}");
    }
}

#[tokio::test]
async fn a_secret_is_seen_as_soon_as_it_changes() {
    let authority = Authority::new();
    let secret = Arc::new(Secret::new("kubernetes://shop"));
    let accepting = Arc::new(edge(vec![TlsSource::Secret(secret.clone())]));
    let server = outside();
    let missing = server.server(&accepting).unwrap_err();
    assert_eq!(missing.to_string(), "secret kubernetes://shop cannot be read");
    secret.set(holding(certificate(&authority, &["a.example"])));
    let names = |name: &str| Arc::new(visitor(&authority, name));
    let (client, a, b) = (outside(), names("a.example"), names("b.example"));
    assert!(shake((&client, &a), (&server, &accepting)).await.0.is_ok());
    let before = server.server(&accepting).unwrap();
    assert!(Arc::ptr_eq(&before.config, &server.server(&accepting).unwrap().config));
    secret.set(holding(certificate(&authority, &["b.example"])));
    assert!(shake((&outside(), &b), (&server, &accepting)).await.0.is_ok());
    assert!(shake((&outside(), &a), (&server, &accepting)).await.0.is_err());
    secret.set(Some(Arc::new(SecretContent::Trust(
        parse_roots(&pem("CERTIFICATE", &authority.root)).unwrap(),
    ))));
    assert!(server.server(&accepting).is_err(), "it is no certificate any more");
}

#[tokio::test]
async fn clients_are_checked_against_a_secret_where_they_show_a_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let bundle = Arc::new(Secret::new("kubernetes://shop-cacert"));
    bundle.set(Some(Arc::new(SecretContent::Trust(
        parse_roots(&pem("CERTIFICATE", &authority.root)).unwrap(),
    ))));
    let own = inline(certificate(&authority, &["a.example"]));
    let known = inline(certificate(&authority, &["client.example"]));
    let unknown = inline(certificate(&stranger, &["client.example"]));
    let named = [StringMatcher::Exact { value: "client.example".into(), ignore_case: false }];
    let other = [StringMatcher::Exact { value: "other.example".into(), ignore_case: false }];
    for (case, required, sans, shown, fine) in [
        ("required and good", true, &[][..], Some(&known), true),
        ("required and not there", true, &[], None, false),
        ("required and of a stranger", true, &[], Some(&unknown), false),
        ("required, of that name", true, &named, Some(&known), true),
        ("required, of another name", true, &other, Some(&known), false),
        ("optional and good", false, &[], Some(&known), true),
        ("optional and not there", false, &[], None, true),
        ("optional and of a stranger", false, &[], Some(&unknown), false),
    ] {
        let accepting = Arc::new(DownstreamTls {
            trust: Some(TlsSource::Secret(bundle.clone())),
            require_client_certificate: required,
            subject_alt_names: sans.to_vec(),
            ..edge(vec![own.clone()])
        });
        let client = UpstreamTls { identity: shown.cloned(), ..visitor(&authority, "a.example") };
        let server = outside();
        let (connected, accepted) =
            shake((&outside(), &Arc::new(client)), (&server, &accepting)).await;
        assert_eq!(accepted.is_ok(), fine, "{case}: {accepted:?}");
        assert_eq!(connected.is_ok(), fine, "{case}: {connected:?}");
        if let Ok(accepted) = accepted {
            assert_eq!(accepted.verified, shown.is_some(), "{case}");
        }
    }
}

#[test]
fn a_key_that_is_another_certificates_is_told_of() {
    let authority = Authority::new();
    let (certificate, _) = certificate(&authority, &["a.example"]);
    let (_, key) = self::certificate(&authority, &["a.example"]);
    let error = parse_certified(&certificate, &key).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        (error.to_string().as_str(), cause.as_str()),
        ("the key cannot be read", "it is not the key of the certificate")
    );
}

#[tokio::test(start_paused = true)]
async fn files_are_followed_and_what_is_not_good_changes_nothing() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let paths = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let mut written = std::time::UNIX_EPOCH;
    let mut write = |(certificate, key): (Vec<u8>, Vec<u8>)| {
        // A clock of its own: that of files may not have moved.
        written += Duration::from_secs(1);
        for (path, bytes) in [(&paths.0, certificate), (&paths.1, key)] {
            std::fs::write(path, bytes).unwrap();
            std::fs::File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
        }
    };
    let later = Duration::from_secs(60);
    write(certificate(&authority, &["a.example"]));
    let (cert, key) = (Some(paths.0.clone()), Some(paths.1.clone()));
    let accepting = Arc::new(edge(vec![TlsSource::Files { certificate: cert, key, ca: None }]));
    let contexts = outside();
    let server = || contexts.server(&accepting).unwrap().config;
    let first = server();
    tokio::time::advance(later).await;
    assert!(Arc::ptr_eq(&first, &server()));
    write((b"nonsense".to_vec(), b"nonsense".to_vec()));
    tokio::time::advance(later).await;
    assert!(Arc::ptr_eq(&first, &server()));
    tokio::time::advance(later).await;
    assert!(Arc::ptr_eq(&first, &server()));
    write(certificate(&authority, &["b.example"]));
    tokio::time::advance(later).await;
    assert!(!Arc::ptr_eq(&first, &server()));
}

#[tokio::test]
async fn only_the_cipher_suites_that_are_named_are_spoken() {
    let authority = Authority::new();
    let suite = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    let accepting = Arc::new(DownstreamTls {
        versions: TlsVersions::Tls12,
        cipher_suites: vec![suite],
        ..edge(vec![inline(certificate(&authority, &["a.example"]))])
    });
    let server = outside().server(&accepting).unwrap();
    let client = outside().client(&Arc::new(visitor(&authority, "a.example"))).unwrap();
    let (client_io, server_io) = pair().await;
    let (connected, accepted) = tokio::join!(
        connect(&client, client_io, "a.example", Vec::new()),
        accept(&server, server_io, LIMIT)
    );
    connected.unwrap();
    let (stream, _) = accepted.unwrap();
    let spoken = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(spoken, suite);
}

#[tokio::test]
async fn sessions_with_client_certificates_are_resumed_under_the_same_bundle_only() {
    let (authority, other) = (Authority::new(), Authority::new());
    let trust = |authority: &Authority| TlsSource::Inline {
        certificate: Box::default(),
        key: Box::default(),
        ca: pem("CERTIFICATE", &authority.root).into(),
    };
    let own = inline(certificate(&authority, &["a.example"]));
    let asking = |trust: Option<TlsSource>, required| {
        Arc::new(DownstreamTls {
            trust,
            require_client_certificate: required,
            ..edge(vec![own.clone()])
        })
    };
    let (first, same) =
        (asking(Some(trust(&authority)), true), asking(Some(trust(&authority)), false));
    let (foreign, open) = (asking(Some(trust(&other)), false), asking(None, false));
    let (server, client) = (outside(), outside());
    let connecting = Arc::new(UpstreamTls {
        identity: Some(inline(certificate(&authority, &["client.example"]))),
        ..visitor(&authority, "a.example")
    });
    let (connected, _) = shake((&client, &connecting), (&server, &first)).await;
    assert!(!connected.unwrap().resumed);
    for (case, accepting, resumed) in
        [("itself", &first, true), ("the same bundle", &same, true), ("nobody", &open, false)]
    {
        let (connected, accepted) = shake((&client, &connecting), (&server, accepting)).await;
        assert_eq!(connected.unwrap().resumed, resumed, "{case}");
        assert_eq!(accepted.unwrap().verified, accepting.trust.is_some(), "{case}");
    }
    let (_, accepted) = shake((&client, &connecting), (&server, &foreign)).await;
    assert!(accepted.is_err(), "the bundle is another: {accepted:?}");
}

#[tokio::test]
async fn sessions_of_the_outside_world_are_resumed_unless_that_is_forbidden() {
    let authority = Authority::new();
    for resumption in [true, false] {
        let own = edge(vec![inline(certificate(&authority, &["a.example"]))]);
        let accepting = Arc::new(DownstreamTls { resumption, ..own });
        let (server, client) = (outside(), outside());
        let connecting = Arc::new(visitor(&authority, "a.example"));
        let (first, _) = shake((&client, &connecting), (&server, &accepting)).await;
        assert!(!first.unwrap().resumed);
        let (second, _) = shake((&client, &connecting), (&server, &accepting)).await;
        assert_eq!(second.unwrap().resumed, resumption);
    }
}
