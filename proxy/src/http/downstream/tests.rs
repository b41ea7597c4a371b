//! Clients that misbehave, connections that drain, and what the configuration does to connections that are open.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ::http::{Request, Version};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    config::{
        http::HttpConnectionManager,
        listener::{FilterChainMatch, Terminal, TrafficDirection, TransportMatch},
        rbac::{Rbac, RbacAction, RbacRules},
        route::RouteAction,
    },
    data::{
        destination::Destination,
        testing::{
            Client, Local, Proxy, backend, chain, cluster, config, config_of, exchange, get, host,
            listener, manager, raw_backend, read, route, routes, run, tcp_chain, text, to_cluster,
            until,
        },
    },
    shared::Lifecycle,
};

fn forwarding() -> HttpConnectionManager {
    manager(routes(host(vec![route("/", RouteAction::Forward(Box::new(to_cluster("c"))))])))
}

async fn echo_path() -> SocketAddr {
    backend(|request| {
        let path = request.uri().to_string();
        async { text(200, path) }
    })
    .await
}

async fn proxy(manager: HttpConnectionManager) -> (Proxy, SocketAddr) {
    let proxy = Proxy::new(config(manager, vec![cluster("c", &[echo_path().await])]));
    let address = proxy.http().await;
    (proxy, address)
}

/// The statuses of the responses in what a server sent.
fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.").skip(1).map(|response| response.get(2..5).unwrap_or_default()).collect()
}

#[test]
fn requests_that_two_parsers_may_read_differently_are_refused_and_the_connection_closed() {
    run(async {
        let (_proxy, address) = proxy(forwarding()).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let many: String = (0..101).map(|n| format!("A{n}: b\r\n")).collect();
        let large = "x".repeat(70_000);
        for (request, expected) in [
            (
                format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
                ),
                vec!["400"],
            ),
            (
                format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{smuggled}"
                ),
                vec!["400"],
            ),
            (
                format!(
                    "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
                ),
                vec!["200", "400"],
            ),
            (
                format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{smuggled}"
                ),
                vec!["501"],
            ),
            (
                format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n{smuggled}"
                ),
                vec!["501"],
            ),
            (
                format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"
                ),
                vec!["400"],
            ),
            (
                format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{smuggled}"
                ),
                vec!["400"],
            ),
            (
                format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n{smuggled}"),
                vec!["400"],
            ),
            (
                format!(
                    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
                ),
                vec!["400"],
            ),
            (format!("GET / HTTP/1.1\nHost: a\n\n{smuggled}"), vec!["400"]),
            (format!("GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n{smuggled}"), vec!["400"]),
            (format!("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{smuggled}"), vec!["400"]),
            ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n".into(), vec!["400"]),
            ("GET / HTTP/1.1\r\nHost: a@b\r\nConnection: close\r\n\r\n".into(), vec!["400"]),
            ("GET nonsense HTTP/1.1\r\nHost: a\r\n\r\n".into(), vec!["400"]),
            ("nonsense\r\n\r\n".into(), vec!["400"]),
            ("\0\0\0\0\r\n\r\n".into(), vec!["400"]),
            (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), vec!["431"]),
            (format!("GET / HTTP/1.1\r\nHost: a\r\nA: {large}\r\n\r\n"), vec!["431"]),
            (format!("GET /{large} HTTP/1.1\r\nHost: a\r\n\r\n"), vec!["431"]),
            ("GET / HTTP/1.0\r\nHost: a\r\n\r\n".into(), vec!["200"]),
            (
                format!(
                    "GET / HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                ),
                vec!["200", "200", "200"],
            ),
        ] {
            let shown: String = request.chars().take(120).collect();
            let answer = exchange(address, request.as_bytes()).await;
            assert_eq!(statuses(&answer), expected, "{shown:?}: {answer}");
        }
    });
}

#[test]
fn clients_of_http_1_0_get_answers_that_they_can_read() {
    run(async {
        let chunks =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let counted = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde";
        for upstream in [chunks, counted] {
            let backend = raw_backend(move |mut stream| async move {
                let mut head = [0; 2_048];
                while let Ok(size @ 1..) = stream.read(&mut head).await {
                    assert!(head[..size].starts_with(b"GET / HTTP/1.1\r\n"));
                    stream.write_all(upstream.as_bytes()).await.unwrap();
                }
            })
            .await;
            let proxy = Proxy::new(config(forwarding(), vec![cluster("c", &[backend])]));
            let address = proxy.http().await;
            for options in ["", "Connection: upgrade\r\nUpgrade: websocket\r\n", "TE: trailers\r\n"]
            {
                let request = format!("GET / HTTP/1.0\r\nHost: a\r\n{options}\r\n");
                let answer = exchange(address, request.as_bytes()).await;
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                assert_eq!((statuses(head), body), (vec!["200"], "abcde"), "{head}");
                assert!(!head.contains("transfer-encoding"), "{head}");
            }
            // Who asks for it may go on, when the answer's end can be seen.
            let request = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
            let twice = [request, &request.replace("Connection: keep-alive\r\n", "")].concat();
            let answers = exchange(address, twice.as_bytes()).await;
            let expected = if upstream == counted { vec!["200", "200"] } else { vec!["200"] };
            assert_eq!(statuses(&answers), expected, "{answers}");
        }
    });
}

#[test]
fn the_proxy_keeps_serving_after_any_garbage() {
    run(async {
        let (_proxy, address) = proxy(forwarding()).await;
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let size = random.usize(1..2_000);
            let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(size).collect();
            if seed % 3 == 0 {
                bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut sink = Vec::new();
            let _ = stream.read_to_end(&mut sink).await;
        }
        assert_eq!(Client::new(address).await.get("/after", &[]).await.summary(), (200, "/after"));
    });
}

#[test]
fn slow_and_silent_clients_are_closed() {
    run(async {
        // Far more than it takes to send what is sent.
        let limit = Some(Duration::from_secs(1));
        let manager = HttpConnectionManager {
            request_headers_timeout: limit,
            idle_timeout: limit,
            ..forwarding()
        };
        let (_proxy, address) = proxy(manager).await;
        let closed = |bytes: &'static str| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert_eq!(closed("").await, "");
        assert_eq!(closed("PRI * HTTP/2.0\r\n").await, "");
        assert!(closed("GET / HTTP/1.1\r\nHost: a\r\n").await.starts_with("HTTP/1.1 408 "));
        // A connection that was used and is idle is closed without a word.
        let used = closed("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(statuses(&used), ["200"]);
        let pipelined = closed("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT").await;
        assert_eq!(statuses(&pipelined), ["200", "408"]);
    });
}

#[test]
fn draining_finishes_requests_and_closes_connections() {
    run(async {
        let release = Arc::new(tokio::sync::Notify::new());
        let wait = release.clone();
        let server = backend(move |request| {
            let wait = wait.clone();
            async move {
                if request.uri() != "/fresh" {
                    wait.notified().await;
                }
                text(200, "done")
            }
        })
        .await;
        let proxy = Proxy::new(config(forwarding(), vec![cluster("c", &[server])]));
        let address = proxy.http().await;
        let mut idle = Client::new(address).await;
        let mut busy = Client::new(address).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut http2, driver) =
            hyper::client::conn::http2::handshake(Local, TokioIo::new(stream)).await.unwrap();
        let driver = tokio::task::spawn_local(driver);
        let request = Request::get("http://shop/")
            .version(Version::HTTP_2)
            .body(Full::<Bytes>::default())
            .unwrap();
        let in_flight = tokio::task::spawn_local(http2.send_request(request));
        let answering = tokio::task::spawn_local(async move {
            let answer = busy.send(get("/", &[])).await.unwrap();
            (busy, answer)
        });
        let warm = idle.send(get("/fresh", &[])).await.unwrap();
        assert_eq!(warm.header("connection"), None);
        let state = proxy.thread.upstreams.get(&proxy.thread.config(), "c").unwrap();
        let requests = || state.cluster().state.requests.get();
        until(|| requests() == 2).await;
        let mut fresh = Client::new(address).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        proxy.control.lifecycle.send(Lifecycle::Draining).unwrap();
        idle.closed().await;
        // A first request may be under way when draining begins: it is served.
        let first = fresh.send(get("/fresh", &[])).await.unwrap();
        assert_eq!((first.status, first.header("connection")), (200, Some("close")));
        fresh.closed().await;
        release.notify_one();
        release.notify_one();
        until(|| requests() < 2).await;
        release.notify_one();
        release.notify_one();
        let (busy, answer) = answering.await.unwrap();
        assert_eq!(answer.summary(), (200, "done"));
        assert_eq!(answer.header("connection"), Some("close"));
        busy.closed().await;
        assert_eq!(read(in_flight.await.unwrap().unwrap()).await.unwrap().status, 200);
        driver.await.unwrap().unwrap();
        // One that never asks for anything holds nobody up.
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
        proxy.thread.until_idle().await;
    });
}

#[test]
fn while_the_pod_leaves_a_connection_from_outside_may_ask_once_more() {
    run(async {
        let server = echo_path().await;
        let mut listener = listener("edge", vec![chain(Terminal::Http(Arc::new(forwarding())))]);
        listener.direction = TrafficDirection::Inbound;
        let proxy = Proxy::new(config_of(vec![listener], vec![cluster("c", &[server])]));
        let address = proxy.listen(Destination::Listener("edge".into())).await;
        let (mut asks, mut idle) = (Client::new(address).await, Client::new(address).await);
        for client in [&mut asks, &mut idle] {
            assert_eq!(client.get("/", &[]).await.header("connection"), None);
        }
        proxy.control.lifecycle.send(Lifecycle::Leaving).unwrap();
        let last = asks.get("/", &[]).await;
        assert_eq!((last.status, last.header("connection")), (200, Some("close")));
        asks.closed().await;
        // A new one is told at once.
        let late = Client::new(address).await.get("/", &[]).await;
        assert_eq!((late.status, late.header("connection")), (200, Some("close")));
        proxy.control.lifecycle.send(Lifecycle::Draining).unwrap();
        idle.closed().await;
        proxy.thread.until_idle().await;
    });
}

#[test]
fn stopping_closes_what_is_left() {
    run(async {
        let server = backend(|_| std::future::pending()).await;
        let proxy = Proxy::new(config(forwarding(), vec![cluster("c", &[server])]));
        let mut client = Client::new(proxy.http().await).await;
        let answer = tokio::task::spawn_local(async move { client.send(get("/", &[])).await });
        let state = proxy.thread.upstreams.get(&proxy.thread.config(), "c").unwrap();
        until(|| state.cluster().state.requests.get() == 1).await;
        proxy.control.lifecycle.send(Lifecycle::Stopping).unwrap();
        assert!(answer.await.unwrap().is_err());
        proxy.thread.until_idle().await;
    });
}

#[test]
fn an_open_connection_is_held_to_a_new_configuration() {
    run(async {
        let server = echo_path().await;
        let with = |terminal: Terminal, rbac: Vec<Arc<Rbac>>, transport| {
            let mut chain = chain(terminal);
            chain.rbac = rbac;
            chain.matches = FilterChainMatch { transport, ..FilterChainMatch::default() };
            config_of(vec![listener("http_proxy", vec![chain])], vec![cluster("c", &[server])])
        };
        let http = || Terminal::Http(Arc::new(forwarding()));
        let nobody = Arc::new(Rbac {
            rules: Some(RbacRules { action: RbacAction::Allow, policies: Vec::new() }),
            ..Rbac::default()
        });
        for (changed, admitted) in [
            (with(http(), Vec::new(), Some(TransportMatch::Raw)), true),
            (with(http(), vec![nobody], None), false),
            // Only TLS is let in any more, as when STRICT is switched on.
            (with(http(), Vec::new(), Some(TransportMatch::Tls)), false),
        ] {
            let proxy = Proxy::new(with(http(), Vec::new(), None));
            let mut client = Client::new(proxy.http().await).await;
            assert_eq!(client.get("/before", &[]).await.status, 200);
            proxy.swap(changed);
            assert_eq!(client.send(get("/after", &[])).await.is_ok(), admitted);
        }
    });
}

#[test]
fn connect_reaches_destinations_of_bytes_and_of_http_by_their_own_listeners() {
    run(async {
        // A server that speaks first.
        let greeting = raw_backend(|mut stream| async move {
            let _ = stream.write_all(b"hello ").await;
            let mut buffer = [0; 64];
            while let Ok(size @ 1..) = stream.read(&mut buffer).await {
                let _ = stream.write_all(&buffer[..size]).await;
            }
        })
        .await;
        let mut sniffed = listener("web_80", vec![chain(Terminal::Http(Arc::new(forwarding())))]);
        sniffed.inspect_http = true;
        let proxy = Proxy::new(config_of(
            vec![
                listener("http_proxy", vec![chain(Terminal::Http(Arc::new(forwarding())))]),
                listener("greeter_7000", vec![tcp_chain("greeter")]),
                sniffed,
            ],
            vec![cluster("c", &[echo_path().await]), cluster("greeter", &[greeting])],
        ));
        let mut config = crate::config::ProxyConfig::clone(&proxy.thread.config());
        config.listeners.insert("unknown_80".into(), None);
        proxy.swap(config);
        let address = proxy.http().await;
        let tunnel = |target: &'static str| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            stream.write_all(connect.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            (stream, String::from_utf8(head).unwrap())
        };
        let (mut stream, head) = tunnel("Greeter:7000").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
        let mut greeting = [0; 6];
        stream.read_exact(&mut greeting).await.unwrap();
        stream.write_all(b"and back").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&greeting, &*rest), (b"hello ", "and back"));
        let (mut stream, _) = tunnel("web:80").await;
        let inner = "GET /inner HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
        stream.write_all(inner.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("/inner"), "{answer}");
        let (_, head) = tunnel("unknown:80").await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        let (_, head) = tunnel("noport").await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    });
}

#[test]
fn websockets_are_switched_and_copied_both_ways() {
    run(async {
        let server = backend(|mut request| async move {
            assert_eq!(request.headers()["connection"], "Upgrade");
            assert_eq!(request.headers()["upgrade"], "websocket");
            if request.uri() == "/refused" {
                return text(400, "no");
            }
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::task::spawn_local(async move {
                let mut io = TokioIo::new(upgraded.await.unwrap());
                let mut buffer = [0; 64];
                while let Ok(size @ 1..) = io.read(&mut buffer).await {
                    io.write_all(&buffer[..size].to_ascii_uppercase()).await.unwrap();
                }
            });
            let mut response = text(101, "");
            let headers = response.headers_mut();
            headers.insert("connection", "upgrade".parse().unwrap());
            headers.insert("upgrade", "websocket".parse().unwrap());
            headers.insert("sec-websocket-accept", "x".parse().unwrap());
            response
        })
        .await;
        let cluster = cluster("c", &[server]);
        let state = cluster.state.clone();
        let proxy = Proxy::new(config(forwarding(), vec![cluster]));
        let address = proxy.http().await;
        let ask = |path: &str, protocol: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            )
        };
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(ask("/", "WebSocket").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        for line in
            ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: x\r\n"]
        {
            assert!(head.contains(line), "{head}");
        }
        for word in ["frame", "another"] {
            stream.write_all(word.as_bytes()).await.unwrap();
            let mut back = vec![0; word.len()];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(String::from_utf8(back).unwrap(), word.to_uppercase());
        }
        // The upgraded connection holds its place until it ends.
        assert_eq!(state.requests.get(), 1);
        drop(stream);
        until(|| state.requests.get() == 0).await;
        let last =
            |request: String| request.replace("Connection: Upgrade", "Connection: Upgrade, close");
        let refused = exchange(address, last(ask("/refused", "websocket")).as_bytes()).await;
        assert!(refused.starts_with("HTTP/1.1 400 ") && refused.ends_with("no"), "{refused}");
        let other = exchange(address, last(ask("/", "other")).as_bytes()).await;
        assert!(other.starts_with("HTTP/1.1 403 "), "{other}");
    });
}
