//! A gateway's listeners: chains by server name, certificates from secrets, client certificates, redirects to TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    destination::Destination,
    testing::{
        Answer, Proxy, backend, chain, cluster, config_of, exchange, fetch, get, host, listener,
        manager, read, route, routes, run, text, to_cluster,
    },
};
use crate::{
    config::{
        ProxyConfig,
        http::{ClientCertDetails, ForwardClientCert, HttpConnectionManager},
        listener::{FilterChain, Listener, Terminal},
        route::{RouteAction, TlsRequirement, VirtualHost},
        tls::{DownstreamTls, Secret, SecretContent, TlsSource, TlsVersions},
    },
    net::tls::{parse_certified, parse_roots},
};

const NAME: &str = "0.0.0.0_8443";

/// Signs certificates.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

type Certificate = (rcgen::Certificate, rcgen::KeyPair);

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self(rcgen::CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn sign(&self, name: &str) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &*self.0).unwrap(), key)
    }

    /// What a secret holds with a certificate for this name.
    fn holding(&self, name: &str) -> Option<Arc<SecretContent>> {
        let (certificate, key) = self.sign(name);
        let certified =
            parse_certified(certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
        Some(Arc::new(SecretContent::Certificate(certified.unwrap())))
    }

    fn bundle(&self) -> Arc<Secret> {
        let secret = Secret::new("kubernetes://clients-cacert");
        let roots = parse_roots(self.0.pem().as_bytes()).unwrap();
        secret.set(Some(Arc::new(SecretContent::Trust(roots))));
        Arc::new(secret)
    }
}

/// A manager as gateways have it.
fn edge_manager(host: VirtualHost) -> HttpConnectionManager {
    HttpConnectionManager {
        use_remote_address: true,
        forward_client_cert: ForwardClientCert::SanitizeSet,
        client_cert_details: ClientCertDetails { subject: false, uri: false, dns: true },
        ..manager(routes(host))
    }
}

fn forwarding() -> VirtualHost {
    host(vec![route("/", RouteAction::Forward(Box::new(to_cluster("c"))))])
}

/// A chain for these server names, with these certificates.
fn terminating(names: &[&str], certificates: Vec<TlsSource>) -> FilterChain {
    let mut chain = chain(Terminal::Http(Arc::new(edge_manager(forwarding()))));
    chain.matches.server_names = names.iter().map(|name| (*name).into()).collect();
    chain.tls = Some(Arc::new(DownstreamTls {
        certificates,
        trust: None,
        require_client_certificate: false,
        subject_alt_names: Vec::new(),
        alpn: ["h2", "http/1.1"].map(|name| name.as_bytes().into()).into(),
        versions: TlsVersions::Tls12And13,
        cipher_suites: Vec::new(),
        resumption: true,
    }));
    chain
}

fn config(chains: Vec<FilterChain>, application: SocketAddr) -> ProxyConfig {
    let edge = Listener { inspect_tls: true, ..listener(NAME, chains) };
    config_of(vec![edge], vec![cluster("c", &[application])])
}

fn to_edge() -> Destination {
    Destination::Listener(NAME.into())
}

/// A client of the outside world.
async fn connect(
    address: SocketAddr,
    authority: &Authority,
    name: &str,
    own: Option<&Certificate>,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.0.der().to_vec())).unwrap();
    let provider = crate::net::tls::provider();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// One GET by HTTP/1 over TLS; `None`: the connection was not had, or closed without an answer.
async fn ask(
    address: SocketAddr,
    authority: &Authority,
    name: &str,
    own: Option<&Certificate>,
    headers: &[(&str, &str)],
) -> Option<Answer> {
    let stream = connect(address, authority, name, own, "http/1.1").await.ok()?;
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::task::spawn_local(driver);
    let response = sender.send_request(get("/", headers)).await.ok()?;
    read(response).await.ok()
}

/// An application that tells the header of a request.
async fn telling(header: &'static str) -> SocketAddr {
    backend(move |request| async move {
        let value = request.headers().get(header).map(|value| value.to_str().unwrap().to_owned());
        text(200, value.unwrap_or_else(|| "none".to_owned()))
    })
    .await
}

#[test]
fn a_server_name_decides_which_certificate_and_which_chain() {
    run(async {
        let authority = Authority::new();
        let application = telling("x-forwarded-proto").await;
        let secret = |name: &str| {
            let secret = Secret::new(name);
            secret.set(authority.holding(name));
            TlsSource::Secret(Arc::new(secret))
        };
        let chains = vec![
            terminating(&["a.shop.test"], vec![secret("a.shop.test")]),
            terminating(&["*.shop.test"], vec![secret("*.shop.test")]),
            terminating(&["*.b.shop.test"], vec![secret("*.b.shop.test")]),
            terminating(&["gone.test"], vec![TlsSource::Secret(Arc::new(Secret::new("gone")))]),
        ];
        let proxy = Proxy::new(config(chains, application));
        let address = proxy.listen(to_edge()).await;
        for (name, fine) in [
            ("a.shop.test", true),
            ("other.shop.test", true),
            ("x.b.shop.test", true),
            // Its chain is that of `*.b.shop.test`, whose certificate is not for it.
            ("x.y.b.shop.test", false),
            ("unknown.test", false),
            ("gone.test", false),
        ] {
            let answer = ask(address, &authority, name, None, &[]).await;
            let expected = fine.then_some((200, "https"));
            assert_eq!(answer.as_ref().map(Answer::summary), expected, "{name}");
        }
        assert_eq!(exchange(address, b"GET / HTTP/1.1\r\nhost: a.shop.test\r\n\r\n").await, "");
        proxy.thread.until_idle().await;
        let stats = proxy
            .shared
            .stats
            .render_text(&proxy.shared.config.load(), |name| name.starts_with("listener."));
        for line in [
            "listener.0.0.0.0_8443.downstream_cx_total: 7",
            "listener.0.0.0.0_8443.downstream_cx_active: 0",
            "listener.0.0.0.0_8443.no_filter_chain_match: 2",
            "listener.0.0.0.0_8443.ssl.handshake: 3",
            "listener.0.0.0.0_8443.ssl.connection_error: 2",
        ] {
            assert!(stats.lines().any(|found| found == line), "{line} is not in\n{stats}");
        }
    });
}

#[test]
fn a_certificate_is_replaced_without_a_failed_request() {
    run(async {
        let authority = Authority::new();
        let application = backend(|_| async { text(200, "ok") }).await;
        let secret = Arc::new(Secret::new("kubernetes://shop"));
        secret.set(authority.holding("shop"));
        let chains = vec![terminating(&[], vec![TlsSource::Secret(secret.clone())])];
        let proxy = Proxy::new(config(chains, application));
        let address = proxy.listen(to_edge()).await;
        let mut shown = std::collections::HashSet::new();
        let kept = connect(address, &authority, "shop", None, "http/1.1").await.unwrap();
        let (mut kept, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(kept)).await.unwrap();
        tokio::task::spawn_local(driver);
        for _ in 0..5 {
            let stream = connect(address, &authority, "shop", None, "h2").await.unwrap();
            let (_, connection) = stream.get_ref();
            assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
            shown.insert(connection.peer_certificates().unwrap()[0].to_vec());
            secret.set(authority.holding("shop"));
            let answer = kept.send_request(get("/", &[])).await.unwrap();
            assert_eq!(read(answer).await.unwrap().summary(), (200, "ok"));
        }
        assert_eq!(shown.len(), 5);
    });
}

#[test]
fn client_certificates_are_asked_for_and_told_on() {
    run(async {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let application = telling("x-forwarded-client-cert").await;
        let secret = Secret::new("kubernetes://shop");
        secret.set(authority.holding("shop"));
        let own = TlsSource::Secret(Arc::new(secret));
        let (known, unknown) = (authority.sign("client"), stranger.sign("client"));
        let forged = [("x-forwarded-client-cert", "Hash=00;DNS=forged")];
        for (required, shown, expected) in [
            (true, Some(&known), Some(";DNS=client")),
            (true, Some(&unknown), None),
            (true, None, None),
            (false, Some(&known), Some(";DNS=client")),
            (false, Some(&unknown), None),
            (false, None, Some("none")),
        ] {
            let mut chain = terminating(&["shop"], vec![own.clone()]);
            let tls = DownstreamTls::clone(chain.tls.as_ref().unwrap());
            chain.tls = Some(Arc::new(DownstreamTls {
                trust: Some(TlsSource::Secret(authority.bundle())),
                require_client_certificate: required,
                ..tls
            }));
            let proxy = Proxy::new(config(vec![chain], application));
            let address = proxy.listen(to_edge()).await;
            let answer = ask(address, &authority, "shop", shown, &forged).await;
            match (answer, expected) {
                (None, None) => {}
                (Some(answer), Some(expected)) => {
                    assert!(answer.body.ends_with(expected), "{}", answer.body);
                    assert!(!answer.body.contains("forged"), "{}", answer.body);
                }
                (answer, expected) => panic!("{answer:?} instead of {expected:?}"),
            }
        }
    });
}

#[test]
fn a_host_that_wants_tls_sends_clients_there() {
    run(async {
        let application = backend(|_| async { text(200, "ok") }).await;
        for (requirement, plain) in [
            (TlsRequirement::All, 301),
            (TlsRequirement::External, 301),
            (TlsRequirement::None, 200),
        ] {
            let host = VirtualHost { require_tls: requirement, ..forwarding() };
            let chain = chain(Terminal::Http(Arc::new(edge_manager(host))));
            let proxy = Proxy::new(config(vec![chain], application));
            let address = proxy.listen(to_edge()).await;
            // What a client says of itself does not count at an edge.
            let said = [("x-forwarded-proto", "https")];
            let answer = fetch(address, "/x?y=1", &said).await;
            assert_eq!(answer.status, plain, "{requirement:?}");
            let expected = (plain == 301).then_some("https://shop/x?y=1");
            assert_eq!(answer.header("location"), expected);
        }
        let nothing = VirtualHost { require_tls: TlsRequirement::All, ..host(Vec::new()) };
        let chain = chain(Terminal::Http(Arc::new(edge_manager(nothing))));
        let proxy = Proxy::new(config(vec![chain], application));
        assert_eq!(fetch(proxy.listen(to_edge()).await, "/", &[]).await.status, 301);
    });
}

#[test]
fn half_a_handshake_is_given_up() {
    run(async {
        let authority = Authority::new();
        let secret = Secret::new("kubernetes://shop");
        secret.set(authority.holding("shop"));
        let mut chain = terminating(&[], vec![TlsSource::Secret(Arc::new(secret))]);
        chain.handshake_timeout = Some(Duration::from_millis(50));
        let proxy = Proxy::new(config(vec![chain], "127.0.0.1:1".parse().unwrap()));
        let mut stream = TcpStream::connect(proxy.listen(to_edge()).await).await.unwrap();
        stream.write_all(&[22, 3, 1, 0, 100, 1]).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    });
}
