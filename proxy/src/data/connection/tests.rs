//! Two proxies of one mesh: TLS between them, who sees which identity, and what is let in without.

use std::{cell::RefCell, collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    config::{
        ProxyConfig,
        cluster::{Cluster, ServiceInfo, UpstreamProtocol},
        filter::HttpFilter,
        http::{ClientCertDetails, ForwardClientCert, HttpConnectionManager},
        listener::{FilterChain, Listener, Terminal, TrafficDirection, TransportMatch},
        matcher::StringMatcher,
        rbac::{Permission, Policy, Principal, Rbac, RbacAction, RbacRules},
        route::RouteAction,
    },
    data::{
        destination::Destination,
        testing::{
            Authority, Client, Proxy, backend, chain, cluster, config, config_of, exchange, get,
            host, listener, manager, meshed, mutual_tls, raw_backend, route, routes, run,
            tcp_chain, text, to_cluster,
        },
    },
    settings::Settings,
};

/// An application that tells which headers it got.
async fn application() -> (SocketAddr, Rc<RefCell<BTreeMap<String, String>>>) {
    let seen: Rc<RefCell<BTreeMap<String, String>>> = Rc::default();
    let log = seen.clone();
    let address = backend(move |request| {
        *log.borrow_mut() = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        async { text(200, "from the application") }
    })
    .await;
    (address, seen)
}

fn allow(service_account: &str) -> Arc<Rbac> {
    let name = StringMatcher::Exact {
        value: format!("spiffe://cluster.local/ns/default/sa/{service_account}").into(),
        ignore_case: false,
    };
    let policy = Policy {
        permissions: vec![Permission::Any],
        principals: vec![Principal::Authenticated(Some(name))],
    };
    Arc::new(Rbac {
        rules: Some(RbacRules {
            action: RbacAction::Allow,
            policies: vec![("ns[default]-policy[p]-rule[0]".into(), policy)],
        }),
        ..Rbac::default()
    })
}

fn service() -> ServiceInfo {
    ServiceInfo {
        host: "payment.default.svc.cluster.local".into(),
        name: "payment".into(),
        namespace: "default".into(),
    }
}

fn inbound_manager(filters: Vec<HttpFilter>) -> HttpConnectionManager {
    HttpConnectionManager {
        direction: TrafficDirection::Inbound,
        forward_client_cert: ForwardClientCert::AppendForward,
        client_cert_details: ClientCertDetails { subject: false, uri: true, dns: false },
        filters,
        ..manager(routes(host(vec![route(
            "/",
            RouteAction::Forward(Box::new(to_cluster("inbound|8080||"))),
        )])))
    }
}

/// `virtualInbound` with these chains: first bytes are looked at.
fn inbound(chains: Vec<FilterChain>) -> Listener {
    Listener {
        direction: TrafficDirection::Inbound,
        inspect_tls: true,
        inspect_http: true,
        ..listener("virtualInbound", chains)
    }
}

/// The server's side: mutual TLS, and plaintext where it is permissive.
fn server_config(application: SocketAddr, filters: &[HttpFilter], permissive: bool) -> ProxyConfig {
    let http = || chain(Terminal::Http(Arc::new(inbound_manager(filters.to_vec()))));
    let mut chains = vec![mutual_tls(http(), &["h2", "http/1.1"])];
    if permissive {
        let mut plain = http();
        plain.matches.transport = Some(TransportMatch::Raw);
        chains.push(plain);
    }
    let mut upstream = cluster("inbound|8080||", &[application]);
    upstream.service = Some(service());
    config_of(vec![inbound(chains)], vec![upstream])
}

fn client_config(server: SocketAddr, change: impl Fn(Cluster) -> Cluster) -> ProxyConfig {
    let forwarding =
        manager(routes(host(vec![route("/", RouteAction::Forward(Box::new(to_cluster("c"))))])));
    let mut upstream = cluster("c", &[server]);
    upstream.service = Some(service());
    config(forwarding, vec![change(upstream)])
}

fn with_identity(config: ProxyConfig, authority: &Authority, account: &str) -> Proxy {
    let settings = Settings {
        pod_name: format!("{account}-v1-0"),
        workload_name: format!("{account}-v1"),
        service_account: account.into(),
        labels: [("app".to_owned(), account.to_owned())].into(),
        ..Settings::test()
    };
    let proxy = Proxy::with_settings(config, settings);
    proxy.shared.identity.store(Some(Arc::new(authority.identity(account, 1))));
    proxy
}

fn http1(cluster: Cluster) -> Cluster {
    meshed(cluster, "payment", &["istio-http/1.1", "istio", "http/1.1"])
}

fn http2(mut cluster: Cluster) -> Cluster {
    cluster.protocol = UpstreamProtocol::Http2;
    meshed(cluster, "payment", &["istio-h2", "istio", "h2"])
}

#[test]
fn requests_are_mutual_tls_between_proxies_and_each_side_knows_the_other() {
    run(async {
        let authority = Authority::new();
        let (application, seen) = application().await;
        let filters = vec![HttpFilter::Rbac(allow("order"))];
        let server =
            with_identity(server_config(application, &filters, false), &authority, "payment");
        let port = server.listen(Destination::Inbound).await;
        for change in [http1 as fn(Cluster) -> Cluster, http2] {
            let client = with_identity(client_config(port, change), &authority, "order");
            let address = client.http().await;
            let forged =
                [("x-forwarded-client-cert", "Hash=forged"), ("x-envoy-peer-metadata", "forged")];
            let answer = Client::new(address).await.get("/", &forged).await;
            assert_eq!(answer.summary(), (200, "from the application"));
            for header in ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id"] {
                assert_eq!(answer.header(header), None);
                assert_eq!(seen.borrow().get(header), None);
            }
            let certificate = &seen.borrow()["x-forwarded-client-cert"];
            let (by, rest) = certificate.split_once(";Hash=").unwrap();
            assert_eq!(by, "By=spiffe://cluster.local/ns/default/sa/payment");
            assert!(
                rest.ends_with(";URI=spiffe://cluster.local/ns/default/sa/order"),
                "{certificate}"
            );
            assert!(!certificate.contains("forged"));
            let metrics = client.shared.stats.render_prometheus(&client.thread.config());
            for label in [
                "reporter=\"source\"",
                "source_workload=\"order-v1\"",
                "destination_workload=\"payment-v1\"",
                "destination_principal=\"spiffe://cluster.local/ns/default/sa/payment\"",
                "connection_security_policy=\"unknown\"",
            ] {
                assert!(metrics.contains(label), "{label}: {metrics}");
            }
        }
        let metrics = server.shared.stats.render_prometheus(&server.thread.config());
        for label in [
            "reporter=\"destination\"",
            "source_workload=\"order-v1\"",
            "source_app=\"order\"",
            "source_principal=\"spiffe://cluster.local/ns/default/sa/order\"",
            "destination_workload=\"payment-v1\"",
            "destination_service=\"payment.default.svc.cluster.local\"",
            "connection_security_policy=\"mutual_tls\"",
        ] {
            assert!(metrics.contains(label), "{label}: {metrics}");
        }
    });
}

#[test]
fn policies_hold_by_the_clients_certificate() {
    run(async {
        let authority = Authority::new();
        let (application, _) = application().await;
        let filters = vec![HttpFilter::Rbac(allow("order"))];
        let server =
            with_identity(server_config(application, &filters, true), &authority, "payment");
        let port = server.listen(Destination::Inbound).await;
        let other = with_identity(client_config(port, http1), &authority, "user");
        let refused = Client::new(other.http().await).await.get("/", &[]).await;
        assert_eq!(refused.summary(), (403, "RBAC: access denied"));
        let plain = Client::new(port).await.get("/", &[]).await;
        assert_eq!(plain.summary(), (403, "RBAC: access denied"));
    });
}

#[test]
fn answers_of_the_servers_proxy_say_whose_they_are() {
    run(async {
        let authority = Authority::new();
        let gone = crate::data::testing::nobody();
        for (filters, status) in [(vec![HttpFilter::Rbac(allow("order"))], 403), (vec![], 503)] {
            let server = with_identity(server_config(gone, &filters, true), &authority, "payment");
            let port = server.listen(Destination::Inbound).await;
            let client = with_identity(client_config(port, http1), &authority, "user");
            let answer = Client::new(client.http().await).await.get("/", &[]).await;
            assert_eq!(answer.status, status);
            let metrics = client.shared.stats.render_prometheus(&client.thread.config());
            let counted = metrics
                .lines()
                .find(|line| line.starts_with("istio_requests_total"))
                .unwrap_or_else(|| panic!("{metrics}"));
            assert!(counted.contains(&format!("response_code=\"{status}\"")), "{counted}");
            assert!(counted.contains("destination_workload=\"payment-v1\""), "{counted}");
            // For peers of the mesh alone.
            let asks = [("x-envoy-peer-metadata", "forged")];
            let plain = Client::new(port).await.get("/", &asks).await;
            assert_eq!(plain.status, status);
            for answer in [answer, plain] {
                assert_eq!(answer.header("x-envoy-peer-metadata"), None);
                assert_eq!(answer.header("x-envoy-peer-metadata-id"), None);
            }
        }
    });
}

#[test]
fn plaintext_is_let_in_by_permissive_and_not_by_strict() {
    run(async {
        let authority = Authority::new();
        let (application, seen) = application().await;
        let permissive = || server_config(application, &[], true);
        let strict = || server_config(application, &[], false);
        let server = with_identity(permissive(), &authority, "payment");
        let port = server.listen(Destination::Inbound).await;
        let mut plain = Client::new(port).await;
        let forged = [("x-forwarded-client-cert", "Hash=forged")];
        assert_eq!(plain.get("/", &forged).await.status, 200);
        assert_eq!(seen.borrow().get("x-forwarded-client-cert"), None);
        server.swap(strict());
        assert!(plain.send(get("/", &[])).await.is_err());
        let ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(exchange(port, ask).await, "");
        let client = with_identity(client_config(port, http1), &authority, "order");
        assert_eq!(Client::new(client.http().await).await.get("/", &[]).await.status, 200);
        server.swap(permissive());
        assert!(exchange(port, ask).await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn a_server_that_is_somebody_else_is_not_spoken_to() {
    run(async {
        let authority = Authority::new();
        let (application, _) = application().await;
        let server = with_identity(server_config(application, &[], false), &authority, "impostor");
        let port = server.listen(Destination::Inbound).await;
        let client = with_identity(client_config(port, http1), &authority, "order");
        let answer = Client::new(client.http().await).await.get("/", &[]).await;
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains("remote connection failure"), "{}", answer.body);
        // Nor is a client of another authority let in.
        let stranger = with_identity(client_config(port, http1), &Authority::new(), "order");
        assert_eq!(Client::new(stranger.http().await).await.get("/", &[]).await.status, 503);
    });
}

#[test]
fn certificates_are_renewed_without_a_failed_request() {
    run(async {
        let authority = Authority::new();
        let (application, _) = application().await;
        let server = with_identity(server_config(application, &[], false), &authority, "payment");
        let port = server.listen(Destination::Inbound).await;
        let client = with_identity(client_config(port, http1), &authority, "order");
        let mut kept = Client::new(client.http().await).await;
        for generation in 2..12 {
            assert_eq!(kept.get("/", &[]).await.status, 200);
            let renew = |proxy: &Proxy, account| {
                let identity = authority.identity(account, generation);
                proxy.shared.identity.store(Some(Arc::new(identity)));
            };
            renew(&server, "payment");
            assert_eq!(kept.get("/", &[]).await.status, 200);
            renew(&client, "order");
            let mut fresh = Client::new(client.http().await).await;
            assert_eq!(fresh.get("/", &[]).await.status, 200);
        }
    });
}

#[test]
fn half_handshakes_and_garbage_over_tls_are_closed() {
    run(async {
        let authority = Authority::new();
        let (application, _) = application().await;
        let mut config = server_config(application, &[], false);
        // Far more than a handshake takes.
        let limit = std::time::Duration::from_secs(1);
        for listener in config.listeners.values_mut().flatten() {
            let mut changed = Listener::clone(&listener.value);
            changed.inspect_timeout = Some(limit);
            for chain in &mut changed.chains {
                let mut short = FilterChain::clone(chain);
                short.handshake_timeout = Some(limit);
                *chain = Arc::new(short);
            }
            listener.value = Arc::new(changed);
        }
        let server = with_identity(config, &authority, "payment");
        let port = server.listen(Destination::Inbound).await;
        // A record that never comes whole; a ClientHello whose handshake never goes on is sent by the client below.
        for bytes in [
            &b""[..],
            &[22, 3, 1],
            &[22, 3, 1, 2, 0, 1, 0, 1],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 255, 255],
        ] {
            let mut stream = TcpStream::connect(port).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.is_empty(), "{bytes:?}");
        }
        let client = with_identity(client_config(port, http1), &authority, "order");
        let relay = {
            // Passes the ClientHello on and nothing after it.
            let silent = raw_backend(move |mut client| async move {
                let mut hello = vec![0; 16_384];
                let size = client.read(&mut hello).await.unwrap();
                let mut server = TcpStream::connect(port).await.unwrap();
                server.write_all(&hello[..size]).await.unwrap();
                let mut rest = Vec::new();
                server.read_to_end(&mut rest).await.unwrap();
                assert!(!rest.is_empty());
            })
            .await;
            client.swap(client_config(silent, http1));
            client.http().await
        };
        assert_eq!(Client::new(relay).await.get("/", &[]).await.status, 503);
        server.thread.until_idle().await;
    });
}

#[test]
fn bytes_are_proxied_with_tls_and_peer_exchange_and_sniffed_apart_from_http() {
    run(async {
        let authority = Authority::new();
        // A server that speaks first.
        let greeting = raw_backend(|mut stream| async move {
            let _ = stream.write_all(b"hello ").await;
            let mut buffer = [0; 64];
            while let Ok(size @ 1..) = stream.read(&mut buffer).await {
                let _ = stream.write_all(&buffer[..size]).await;
            }
        })
        .await;
        let chains =
            vec![mutual_tls(tcp_chain("inbound|9000||"), &["istio-peer-exchange", "istio"])];
        let server_config =
            config_of(vec![inbound(chains)], vec![cluster("inbound|9000||", &[greeting])]);
        let server = with_identity(server_config, &authority, "payment");
        let port = server.listen(Destination::Inbound).await;
        let upstream = meshed(cluster("c", &[port]), "payment", &["istio-peer-exchange", "istio"]);
        let outbound = listener("payment_9000", vec![tcp_chain("c")]);
        let client = with_identity(config_of(vec![outbound], vec![upstream]), &authority, "order");
        let destination = Destination::Outbound { host: "payment".into(), port: 9_000 };
        let mut stream = TcpStream::connect(client.listen(destination).await).await.unwrap();
        let mut greeting = [0; 6];
        stream.read_exact(&mut greeting).await.unwrap();
        stream.write_all(b"and back").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&greeting, &*rest), (b"hello ", "and back"));
        server.thread.until_idle().await;
        let metrics = server.shared.stats.render_prometheus(&server.thread.config());
        let closed = metrics
            .lines()
            .find(|line| line.starts_with("istio_tcp_connections_closed_total"))
            .unwrap_or_else(|| panic!("{metrics}"));
        assert!(closed.contains("source_workload=\"order-v1\""), "{closed}");
        assert!(closed.contains("connection_security_policy=\"mutual_tls\""), "{closed}");
    });
}

#[test]
fn a_server_may_speak_first_where_nothing_depends_on_the_clients_bytes() {
    run(async {
        let greeting = raw_backend(|mut stream| async move {
            let _ = stream.write_all(b"220 ready").await;
            let _ = stream.shutdown().await;
        })
        .await;
        let proxy = Proxy::new(config_of(Vec::new(), Vec::new()));
        let port = proxy.listen(Destination::Inbound).await;
        // Another port's chains need the first bytes, which would be waited for without end.
        let mut plain = tcp_chain("inbound|9000||");
        plain.matches.destination_port = Some(port.port());
        let mut other = mutual_tls(tcp_chain("inbound|9000||"), &["istio"]);
        other.matches.destination_port = Some(port.port() ^ 1);
        let listener = Listener { inspect_timeout: None, ..inbound(vec![plain, other]) };
        proxy.swap(config_of(vec![listener], vec![cluster("inbound|9000||", &[greeting])]));
        let mut stream = TcpStream::connect(port).await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "220 ready");
    });
}

#[test]
fn a_connections_task_is_small() {
    run(async {
        let proxy = Proxy::new(config_of(Vec::new(), Vec::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let ends = super::Ends { local: peer, peer, destination: Destination::HttpProxy };
        let task = super::accepted(&proxy.thread, stream, ends);
        // There may be tens of thousands; TLS and HTTP keep their own state beside it.
        assert!(size_of_val(&task) <= 5 * 1024, "{}", size_of_val(&task));
    });
}
