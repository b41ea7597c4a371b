use std::collections::BTreeMap;

use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    net::TcpStream,
};
use weft_api::node::{Interception, NodeInfo, ProxyKind};

use super::*;
use crate::{
    config::cluster::{CircuitBreakers, ServiceInfo},
    net::{
        testing::{Server, Test, endpoints, nobody, over_tls},
        tls::{
            TlsContexts,
            tests::{Authority, CLIENT, SERVER, downstream, handle, upstream},
        },
    },
    stats::Registry,
};

fn own(name: &str) -> OwnMetadata {
    let node = NodeInfo {
        kind: ProxyKind::Sidecar,
        pod_address: "127.20.1.1".parse().unwrap(),
        pod_name: format!("{name}-0"),
        namespace: "default".into(),
        service_account: name.into(),
        workload_name: format!("{name}-v1"),
        labels: BTreeMap::from([("app".into(), name.into())]),
        cluster_id: "Kubernetes".into(),
        interception: Interception::None,
        app_address: None,
        on_demand: true,
        domain: "cluster.local".into(),
    };
    OwnMetadata::new(&node)
}

/// A data thread that proxies, with one cluster.
struct Proxy {
    test: Test,
    filter: TcpProxy,
    registry: Registry,
    stats: ThreadStats,
    own: OwnMetadata,
    direction: TrafficDirection,
}

impl Proxy {
    fn new(name: &str, direction: TrafficDirection, test: Test) -> Self {
        let registry = Registry::default();
        let filter = TcpProxy {
            stat_prefix: "test".into(),
            clusters: vec![(test.cluster.borrow().name.clone(), 1)],
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connect_attempts: 1,
            access_logs: Vec::new(),
        };
        let (stats, own) = (registry.thread(), own(name));
        Self { test, filter, registry, stats, own, direction }
    }

    fn outbound(test: Test) -> Self {
        Self::new("storefront", TrafficDirection::Outbound, test)
    }

    async fn run<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
        client: Option<&PeerInfo>,
    ) -> TcpOutcome {
        let context = TcpContext {
            proxy: &self.filter,
            config: Arc::new(self.test.config()),
            upstreams: &self.test.upstreams,
            stats: &self.stats,
            own: &self.own,
            direction: self.direction,
            destination: None,
            client,
        };
        proxy(io, context).await
    }

    fn metric(&self, name: &str, parts: &[&str]) -> u64 {
        let text = self.registry.render_prometheus(&ProxyConfig::default());
        text.lines()
            .filter(|line| line.starts_with(name) && parts.iter().all(|part| line.contains(part)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

/// Greets first, reads to the end, then answers with the length.
async fn greeter() -> Server {
    Server::listen(|mut io: TcpStream, _| async move {
        io.write_all(b"220 hello\n").await.unwrap();
        let mut all = Vec::new();
        if io.read_to_end(&mut all).await.is_ok() {
            let _ = io.write_all(format!("{} bytes\n", all.len()).as_bytes()).await;
        }
    })
    .await
}

async fn talk(mut client: DuplexStream, bytes: usize) -> String {
    let mut hello = [0; 10];
    client.read_exact(&mut hello).await.unwrap();
    client.write_all(&vec![7; bytes]).await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    rest
}

#[tokio::test(flavor = "local")]
async fn bytes_go_both_ways_and_each_side_ends_on_its_own() {
    let server = greeter().await;
    let proxy = Proxy::outbound(Test::new(&[server.address], |_| {}));
    for bytes in [0, 5, 1_000_000] {
        let (client, io) = duplex(4096);
        let (outcome, rest) = tokio::join!(proxy.run(io, None), talk(client, bytes));
        assert_eq!(rest, format!("{bytes} bytes\n"));
        assert!(outcome.flags.is_empty(), "{outcome:?}");
        assert_eq!((outcome.received, outcome.sent), (bytes as u64, 10 + rest.len() as u64));
        assert_eq!(outcome.endpoint, Some(server.address));
    }
    assert_eq!(proxy.metric("istio_tcp_received_bytes_total", &["reporter=\"source\""]), 1_000_005);
    assert_eq!(proxy.metric("istio_tcp_connections_opened_total", &[]), 3);
    assert_eq!(proxy.metric("istio_tcp_connections_closed_total", &[]), 3);
    server.until_open(0).await;
    assert_eq!(proxy.test.cluster.borrow().state.connections.get(), 0);
}

#[tokio::test(flavor = "local")]
async fn a_silent_connection_is_closed_in_time() {
    let server = greeter().await;
    let mut proxy = Proxy::outbound(Test::new(&[server.address], |_| {}));
    proxy.filter.idle_timeout = Some(Duration::from_secs(60));
    let (mut client, io) = duplex(4096);
    let slow = async {
        let mut greeting = [0; 10];
        client.read_exact(&mut greeting).await.unwrap();
        // From here on only the clock moves: it does not wait for sockets.
        tokio::time::pause();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(40)).await;
            client.write_all(b"x").await.unwrap();
        }
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        (greeting, rest)
    };
    let (outcome, (greeting, rest)) = tokio::join!(proxy.run(io, None), slow);
    assert_eq!((&greeting, &*rest), (b"220 hello\n", ""));
    assert_eq!((outcome.flags, outcome.received), (ResponseFlags::SI, 3));
    server.until_open(0).await;
}

#[tokio::test(flavor = "local")]
async fn what_cannot_be_passed_on_is_closed_with_its_flag() {
    let server = greeter().await;
    let dead = nobody();
    let full = CircuitBreakers { max_connections: 0, ..CircuitBreakers::default() };
    for (case, addresses, limits, known, flags) in [
        ("no endpoint", vec![], CircuitBreakers::default(), true, "UH"),
        ("refused", vec![dead], CircuitBreakers::default(), true, "UF,URX"),
        ("full", vec![server.address], full, true, "UO"),
        ("no cluster", vec![], CircuitBreakers::default(), false, "NC"),
    ] {
        let mut proxy = Proxy::outbound(Test::new(&addresses, |cluster| cluster.limits = limits));
        if !known {
            proxy.filter.clusters = vec![("outbound|1||nobody".into(), 1)];
        }
        let (mut client, io) = duplex(4096);
        let outcome = proxy.run(io, None).await;
        assert_eq!(outcome.flags.to_string(), flags, "{case}");
        assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0);
        let flag = format!("response_flags=\"{flags}\"");
        let counted = proxy.metric("istio_tcp_connections_closed_total", &[&flag]);
        assert_eq!(counted, u64::from(known), "{case}");
    }
}

#[tokio::test(flavor = "local")]
async fn another_endpoint_is_tried_as_often_as_allowed() {
    let server = greeter().await;
    for _ in 0..4 {
        let addresses = [nobody(), server.address];
        let mut proxy = Proxy::outbound(Test::new(&addresses, |_| {}));
        proxy.filter.max_connect_attempts = 2;
        let (client, io) = duplex(4096);
        let (outcome, rest) = tokio::join!(proxy.run(io, None), talk(client, 1));
        assert_eq!((outcome.flags, &*rest), (ResponseFlags::NONE, "1 bytes\n"));
    }
}

#[test]
fn clusters_are_chosen_by_weight() {
    let mut filter = TcpProxy {
        stat_prefix: "test".into(),
        clusters: vec![("a".into(), 90), ("b".into(), 10), ("c".into(), 0)],
        idle_timeout: None,
        max_connect_attempts: 1,
        access_logs: Vec::new(),
    };
    let mut counts = BTreeMap::new();
    for _ in 0..10_000 {
        *counts.entry(choose(&filter).unwrap().to_string()).or_insert(0_u32) += 1;
    }
    // Five standard deviations are 150.
    assert!(counts["a"].abs_diff(9_000) <= 150 && !counts.contains_key("c"), "{counts:?}");
    filter.clusters = vec![("a".into(), 0), ("b".into(), 0)];
    assert_eq!(choose(&filter), None);
}

/// An inbound proxy in front of an application, over mutual TLS, that serves one connection.
async fn inbound(
    authority: &Authority,
    application: SocketAddr,
    alpn: &'static [&'static str],
) -> (Server, Rc<Proxy>) {
    let test = Test::new(&[application], |cluster| {
        cluster.service = Some(ServiceInfo {
            host: "orders.default.svc.cluster.local".into(),
            name: "orders".into(),
            namespace: "default".into(),
        });
    });
    let proxy = Rc::new(Proxy::new("orders", TrafficDirection::Inbound, test));
    let contexts = Rc::new(TlsContexts::new(handle(authority.identity(1, SERVER))));
    let (settings, running) = (downstream(alpn), proxy.clone());
    let server = Server::listen(move |io, _| {
        let (contexts, settings, proxy) = (contexts.clone(), settings.clone(), running.clone());
        async move {
            let tls = contexts.server(&settings).unwrap();
            let limit = Duration::from_secs(5);
            let (io, peer) = crate::net::tls::accept(&tls, io, limit).await.unwrap();
            proxy.run(io, Some(&peer)).await;
        }
    })
    .await;
    (server, proxy)
}

#[tokio::test(flavor = "local")]
async fn peers_learn_of_each_other_before_the_first_byte() {
    let authority = Authority::new();
    let application = greeter().await;
    for (offered, exchanged) in [("istio-peer-exchange", true), ("istio", false)] {
        let protocols = &["istio-peer-exchange", "istio"];
        let (server, destination) = inbound(&authority, application.address, protocols).await;
        let identity = handle(authority.identity(1, CLIENT));
        let test = Test::with_identity(&[], identity, |cluster| {
            cluster.endpoints = endpoints(&[], None);
            over_tls(cluster, &[server.address], upstream(&[SERVER], &[offered]));
        });
        let source = Proxy::outbound(test);
        let (client, io) = duplex(4096);
        let (outcome, rest) = tokio::join!(source.run(io, None), talk(client, 3));
        assert_eq!((outcome.flags, &*rest), (ResponseFlags::NONE, "3 bytes\n"), "{offered}");
        server.until_open(0).await;
        let name = |workload: &'static str| if exchanged { workload } else { "unknown" };
        let at_source = [
            &format!("destination_workload=\"{}\"", name("orders-v1")),
            "source_workload=\"storefront-v1\"",
            &format!("source_principal=\"{CLIENT}\""),
            &format!("destination_principal=\"{SERVER}\""),
            "connection_security_policy=\"unknown\"",
            "request_protocol=\"tcp\"",
        ];
        assert_eq!(source.metric("istio_tcp_received_bytes_total", &at_source), 3);
        let at_destination = [
            &format!("source_workload=\"{}\"", name("storefront-v1")),
            "destination_workload=\"orders-v1\"",
            &format!("source_principal=\"{CLIENT}\""),
            &format!("destination_principal=\"{SERVER}\""),
            "destination_service=\"orders.default.svc.cluster.local\"",
            "connection_security_policy=\"mutual_tls\"",
        ];
        assert_eq!(destination.metric("istio_tcp_received_bytes_total", &at_destination), 3);
    }
}
