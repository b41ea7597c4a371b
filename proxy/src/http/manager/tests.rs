//! Filters, routes that are fetched on first use, gRPC, access logs and metrics, over real sockets.

use std::{sync::Arc, time::Duration};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    config::matcher::StringMatcher,
    config::{
        access_log::{AccessLog, Command, Format, FormatPart, LogFormat},
        cluster::{ServiceInfo, UpstreamProtocol},
        filter::{Abort, Fault, Fraction, HttpFilter, LocalRateLimit, TokenBucket},
        http::RouteSource,
        rbac::{PathMatcher, Permission, Policy, Principal, Rbac, RbacAction, RbacRules},
        route::{HeaderFormat, HeaderMutation, Redirect, RouteAction, RouteConfig, VirtualHost},
    },
    data::testing::{
        Answer, BackendBody, Client, Local, Proxy, backend, cluster, config, fetch, get, host,
        manager, on_demand, read, request, route, routes, run, text, to_cluster,
    },
    http::access_log::writer,
    settings::Settings,
    shared::DemandKey,
};

fn deny(path: &str) -> HttpFilter {
    let policy = Policy {
        permissions: vec![Permission::Path(PathMatcher::String(StringMatcher::Prefix {
            value: path.into(),
            ignore_case: false,
        }))],
        principals: vec![Principal::Any],
    };
    HttpFilter::Rbac(Arc::new(Rbac {
        rules: Some(RbacRules {
            action: RbacAction::Deny,
            policies: vec![("ns[default]-policy[p]-rule[0]".into(), policy)],
        }),
        ..Rbac::default()
    }))
}

fn limit(tokens: u32) -> HttpFilter {
    HttpFilter::LocalRateLimit(Arc::new(LocalRateLimit {
        stat_prefix: "limit".into(),
        bucket: Arc::new(TokenBucket::new(tokens, tokens, Duration::from_secs(3_600))),
        enabled: Fraction::ALL,
        enforced: Fraction::ALL,
        status: 429,
        response_headers: vec![HeaderMutation::Set(
            HeaderName::from_static("x-local-rate-limit"),
            HeaderFormat::Literal(HeaderValue::from_static("true")),
        )],
        rate_limited_as_resource_exhausted: true,
    }))
}

async fn ok() -> std::net::SocketAddr {
    backend(|_| async { text(200, "ok") }).await
}

#[test]
fn filters_answer_in_order_and_name_their_reasons() {
    run(async {
        let mut faulty = route("/fault", RouteAction::Forward(Box::new(to_cluster("c"))));
        faulty.filters.fault = Some(Arc::new(Fault {
            delay: Some((Duration::from_millis(5), Fraction::ALL)),
            abort: Some((Abort::Http(418), Fraction::ALL)),
            headers: Vec::new(),
        }));
        let direct =
            RouteAction::Direct { status: StatusCode::ACCEPTED, body: Bytes::from_static(b"here") };
        let redirect = RouteAction::Redirect(Box::new(Redirect {
            status: StatusCode::FOUND,
            scheme: None,
            https: true,
            host: None,
            port: None,
            path: Some("/there".into()),
            prefix_rewrite: None,
            regex_rewrite: None,
            strip_query: false,
        }));
        let all = vec![
            faulty,
            route("/direct", direct),
            route("/redirect", redirect),
            route("/", RouteAction::Forward(Box::new(to_cluster("c")))),
        ];
        let mut manager = manager(routes(host(all)));
        manager.filters = vec![deny("/secret"), limit(4), HttpFilter::Fault(None)];
        let proxy = Proxy::new(config(manager, vec![cluster("c", &[ok().await])]));
        let mut client = Client::new(proxy.http().await).await;
        for (path, expected) in [
            ("/secret", (403, "RBAC: access denied")),
            ("/x/../secret/y", (403, "RBAC: access denied")),
            ("/fault", (418, "fault filter abort")),
            ("/direct", (202, "here")),
            ("/redirect?a=b", (302, "")),
            ("/", (200, "ok")),
            ("/", (429, "local_rate_limited")),
            ("/secret", (403, "RBAC: access denied")),
        ] {
            let answer = client.get(path, &[]).await;
            assert_eq!(answer.summary(), expected, "{path}");
            assert_eq!(answer.header("server"), Some("istio-envoy"), "{path}");
            let limited = answer.header("x-local-rate-limit").is_some();
            assert_eq!(limited, expected.0 == 429, "{path}");
            if expected.0 == 302 {
                assert_eq!(answer.header("location"), Some("https://shop/there?a=b"));
            }
        }
        let head = client.send(request("HEAD", "/secret", &[], "")).await.unwrap();
        assert_eq!((head.summary(), head.header("content-length")), ((403, ""), Some("19")));
    });
}

#[test]
fn grpc_clients_get_statuses_instead_of_bodies() {
    run(async {
        let mut manager = manager(routes(host(vec![
            route("/empty", RouteAction::Forward(Box::new(to_cluster("empty")))),
            route("/c", RouteAction::Forward(Box::new(to_cluster("c")))),
        ])));
        manager.filters = vec![deny("/secret"), limit(3)];
        let clusters = vec![cluster("c", &[ok().await]), cluster("empty", &[])];
        let proxy = Proxy::new(config(manager, clusters));
        let mut client = Client::new(proxy.http().await).await;
        for (path, status, message) in [
            ("/secret", "7", Some("RBAC: access denied")),
            ("/empty", "14", Some("no healthy upstream")),
            ("/nowhere", "12", None),
            ("/c", "", None),
            ("/c", "8", Some("local_rate_limited")),
        ] {
            let answer = client.get(path, &[("content-type", "application/grpc")]).await;
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.header("grpc-status").unwrap_or_default(), status, "{path}");
            assert_eq!(answer.header("grpc-message"), message, "{path}");
        }
    });
}

/// An HTTP/2 client's connection.
async fn http2(
    address: std::net::SocketAddr,
) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, driver) =
        hyper::client::conn::http2::handshake(Local, TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(driver);
    sender
}

fn grpc(path: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://shop{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\x02hi")))
        .unwrap()
}

#[test]
fn grpc_streams_and_their_trailers_pass_over_http2() {
    run(async {
        let server = backend(|request| async move {
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.headers()["te"], "trailers");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [
                Ok::<_, std::io::Error>(http_body::Frame::data(body.clone())),
                Ok(http_body::Frame::data(body)),
                Ok(http_body::Frame::trailers(trailers)),
            ];
            let body: BackendBody =
                StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
            let mut response = ::http::Response::new(body);
            let value = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert("content-type", value);
            response
        })
        .await;
        let mut upstream = cluster("c", &[server]);
        upstream.protocol = UpstreamProtocol::Http2;
        upstream.service = Some(ServiceInfo {
            host: "order.default.svc.cluster.local".into(),
            name: "order".into(),
            namespace: "default".into(),
        });
        let manager = manager(routes(host(vec![route(
            "/",
            RouteAction::Forward(Box::new(to_cluster("c"))),
        )])));
        let proxy = Proxy::new(config(manager, vec![upstream]));
        let mut client = http2(proxy.http().await).await;
        let answers = futures_util::future::join_all((0..20).map(|_| {
            let sent = client.send_request(grpc("/order.Orders/Get"));
            async { read(sent.await.unwrap()).await.unwrap() }
        }))
        .await;
        for Answer { status, trailers, body, .. } in answers {
            assert_eq!((status, body.len()), (200, 14));
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
        let metrics = proxy.shared.stats.render_prometheus(&proxy.thread.config());
        let line = |name: &str| {
            metrics
                .lines()
                .find(|line| line.starts_with(name) && line.contains("request_protocol=\"grpc\""))
                .unwrap_or_else(|| panic!("no {name} in {metrics}"))
                .to_owned()
        };
        assert!(line("istio_requests_total").ends_with(" 20"), "{metrics}");
        assert!(line("istio_request_messages_total").ends_with(" 20"), "{metrics}");
        assert!(line("istio_response_messages_total").ends_with(" 40"), "{metrics}");
        for label in [
            "reporter=\"source\"",
            "source_workload=\"order-service-v1\"",
            "destination_service=\"order.default.svc.cluster.local\"",
            "destination_service_name=\"order\"",
            "grpc_response_status=\"0\"",
            "response_code=\"200\"",
            "response_flags=\"-\"",
        ] {
            assert!(line("istio_requests_total").contains(label), "{label}: {metrics}");
        }
    });
}

fn on_demand_config(clusters: Vec<crate::config::cluster::Cluster>) -> crate::config::ProxyConfig {
    let mut manager = manager(RouteConfig::default());
    manager.routes = RouteSource::Rds("http_proxy".into());
    let mut config = config(manager, clusters);
    let routes =
        RouteConfig { name: "http_proxy".into(), on_demand: true, ..RouteConfig::default() };
    config.routes.insert("http_proxy".into(), Arc::new(routes));
    config
}

#[test]
fn virtual_hosts_are_asked_for_on_first_use() {
    run(async {
        let settings = Settings { on_demand_wait: Duration::from_secs(2), ..Settings::test() };
        let server = ok().await;
        let upstream = cluster("c", &[server]);
        let proxy = Proxy::with_settings(on_demand_config(vec![upstream.clone()]), settings);
        let address = proxy.http().await;
        let mut demands = proxy.control.demands;
        let shared = proxy.shared.clone();
        tokio::task::spawn_local(async move {
            while let Some(demand) = demands.recv().await {
                let DemandKey::VirtualHost(name) = &demand.key else { panic!("{demand:?}") };
                let mut config = crate::config::ProxyConfig::clone(&shared.config.load());
                config.generation += 1;
                let answer = match &**name {
                    "http_proxy/order:8080" => on_demand(host(vec![route(
                        "/",
                        RouteAction::Forward(Box::new(to_cluster("c"))),
                    )])),
                    "http_proxy/unknown" => None,
                    // Nobody answers.
                    _ => continue,
                };
                config.virtual_hosts.insert(name.clone(), answer);
                shared.config.store(Arc::new(config));
                let _ = demand.ready.send(());
            }
        });
        let mut client = Client::new(address).await;
        for (uri, expected) in [
            ("http://Order:8080/x", 200),
            ("http://order:8080/y", 200),
            ("http://unknown/", 404),
            ("http://unknown/", 404),
            ("http://silent/", 503),
        ] {
            let request =
                Request::get(uri).header("host", "ignored").body(Full::default()).unwrap();
            assert_eq!(client.send(request).await.unwrap().status, expected, "{uri}");
        }
    });
}

#[test]
fn access_logs_say_what_became_of_a_request() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<str> = folder.path().join("access.log").to_str().unwrap().into();
        let commands = [
            Command::RequestHeader {
                name: "x-envoy-original-path".into(),
                otherwise: Some(":path".into()),
            },
            Command::ResponseCode,
            Command::ResponseFlags,
            Command::ResponseCodeDetails,
            Command::BytesReceived,
            Command::BytesSent,
            Command::UpstreamCluster,
            Command::RouteName,
        ];
        let mut parts = Vec::new();
        for command in commands {
            parts.push(FormatPart::Command { command, max: None });
            parts.push(FormatPart::Literal(" ".into()));
        }
        let format = LogFormat::Text(Format { parts });
        let mut manager = manager(routes(host(vec![
            route("/c", RouteAction::Forward(Box::new(to_cluster("c")))),
            route("/gone", RouteAction::Forward(Box::new(to_cluster("gone")))),
        ])));
        manager.filters = vec![deny("/c/secret"), deny("/secret")];
        manager.access_logs =
            vec![Arc::new(AccessLog { path: path.clone(), format, only_flags: Vec::new() })];
        let proxy = Proxy::new(config(manager, vec![cluster("c", &[ok().await])]));
        let mut client = Client::new(proxy.http().await).await;
        client.send(request("POST", "/c?x", &[], "12345")).await.unwrap();
        client.get("/gone", &[]).await;
        client.get("/nowhere", &[]).await;
        client.get("/secret", &[]).await;
        client.get("/c/secret", &[]).await;
        writer::process().flush(Duration::from_secs(10));
        assert_eq!(
            std::fs::read_to_string(&*path).unwrap().lines().collect::<Vec<_>>(),
            [
                "/c?x 200 - via_upstream 5 2 c default ",
                "/gone 503 NC cluster_not_found 0 0 gone default ",
                "/nowhere 404 NR route_not_found 0 0 - - ",
                "/secret 403 - rbac_access_denied_matched_policy[ns[default]-policy[p]-rule[0]] 0 19 - - ",
                "/c/secret 403 - rbac_access_denied_matched_policy[ns[default]-policy[p]-rule[0]] 0 19 c default ",
            ]
        );
    });
}

#[test]
fn what_a_filter_answers_counts_for_the_service_that_was_asked_for() {
    run(async {
        let mut faulty = route("/fault", RouteAction::Forward(Box::new(to_cluster("c"))));
        faulty.filters.fault = Some(Arc::new(Fault {
            delay: None,
            abort: Some((Abort::Http(418), Fraction::ALL)),
            headers: Vec::new(),
        }));
        let all = vec![faulty, route("/c", RouteAction::Forward(Box::new(to_cluster("c"))))];
        let named = VirtualHost { name: "order.shop.svc.cluster.local:80".into(), ..host(all) };
        let mut manager = manager(routes(named));
        manager.filters = vec![deny("/c/secret"), limit(1), HttpFilter::Fault(None)];
        let mut upstream = cluster("c", &[ok().await]);
        upstream.service = Some(ServiceInfo {
            host: "order.shop.svc.cluster.local".into(),
            name: "order".into(),
            namespace: "shop".into(),
        });
        let proxy = Proxy::new(config(manager, vec![upstream]));
        let mut client = Client::new(proxy.http().await).await;
        let expected = [("/c/secret", 403), ("/fault", 418), ("/c", 429)];
        for (path, status) in expected {
            assert_eq!(client.get(path, &[]).await.status, status, "{path}");
        }
        // The limit comes before the routes: what no route takes is limited too.
        let free = VirtualHost {
            name: "order.shop.svc.cluster.local:80".into(),
            ..host(vec![route("/c", RouteAction::Forward(Box::new(to_cluster("c"))))])
        };
        let unlimited = Proxy::new(config(self::manager(routes(free)), Vec::new()));
        assert_eq!(fetch(unlimited.http().await, "/nowhere", &[]).await.status, 404);
        for (proxy, statuses) in [(&proxy, &[403, 418, 429][..]), (&unlimited, &[404][..])] {
            let metrics = proxy.shared.stats.render_prometheus(&proxy.thread.config());
            for status in statuses {
                let code = format!("response_code=\"{status}\"");
                let line = metrics
                    .lines()
                    .find(|line| line.starts_with("istio_requests_total") && line.contains(&code))
                    .unwrap_or_else(|| panic!("no {status} in {metrics}"));
                for label in [
                    "destination_service=\"order.shop.svc.cluster.local\"",
                    "destination_service_name=\"order\"",
                    "destination_service_namespace=\"shop\"",
                ] {
                    assert!(line.contains(label), "{label}: {line}");
                }
            }
        }
    });
}

#[test]
fn configurations_are_swapped_under_load_without_a_failure() {
    run(async {
        let (one, two) = (
            backend(|_| async { text(200, "one") }).await,
            backend(|_| async { text(200, "two") }).await,
        );
        let version = |name: &str, address| {
            let route = route("/", RouteAction::Forward(Box::new(to_cluster(name))));
            config(manager(routes(host(vec![route]))), vec![cluster(name, &[address])])
        };
        let proxy = Proxy::new(version("one", one));
        let address = proxy.http().await;
        let clients = (0..8).map(|_| async move {
            let mut client = Client::new(address).await;
            let mut bodies = Vec::new();
            for _ in 0..100 {
                let answer = client.send(get("/", &[])).await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.body);
                bodies.push(answer.body);
            }
            bodies
        });
        let swaps = async {
            for round in 0..50 {
                proxy.swap(if round % 2 == 0 { version("two", two) } else { version("one", one) });
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        let (bodies, ()) =
            futures_util::future::join(futures_util::future::join_all(clients), swaps).await;
        let bodies: Vec<_> = bodies.concat();
        assert!(bodies.iter().any(|body| body == "one") && bodies.iter().any(|body| body == "two"));
        assert_eq!(fetch(address, "/", &[]).await.body, "one");
    });
}
