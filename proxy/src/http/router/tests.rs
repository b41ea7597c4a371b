//! Forwarding over real sockets: what goes upstream, what comes back, retries, timeouts, and every kind of failure.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use ::http::{HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    config::{
        cluster::CircuitBreakers,
        filter::Fraction,
        route::{
            HeaderFormat, HeaderMutation, HostRewrite, Mirror, RetryOn, RetryPolicy, RouteAction,
        },
    },
    data::testing::{
        Calls, Client, Proxy, backend, cluster, config, fetch, get, host, manager, nobody,
        raw_backend, request, retries, route, routes, run, text, to_cluster, until,
    },
};

fn forwarding(forward: super::Forward) -> crate::config::http::HttpConnectionManager {
    manager(routes(host(vec![route("/", RouteAction::Forward(Box::new(forward)))])))
}

#[test]
fn requests_go_upstream_with_their_headers_and_responses_come_back() {
    run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = seen.clone();
        let server = backend(move |request| {
            let (parts, _) = request.into_parts();
            let mut lines: Vec<_> = parts
                .headers
                .iter()
                .filter(|(name, _)| *name != "x-request-id")
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            lines.sort();
            log.borrow_mut().push(format!("{} {} {}", parts.method, parts.uri, lines.join("; ")));
            async {
                let mut response = text(201, "made");
                let headers = response.headers_mut();
                headers.insert("server", HeaderValue::from_static("app"));
                headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
                headers.insert("x-envoy-peer-metadata", HeaderValue::from_static("x"));
                headers.insert("x-app", HeaderValue::from_static("1"));
                response
            }
        })
        .await;
        let literal = |text| HeaderFormat::Literal(HeaderValue::from_static(text));
        let mut forward = to_cluster("c");
        forward.prefix_rewrite = Some("/new/".into());
        forward.host_rewrite = Some(HostRewrite::Literal(HeaderValue::from_static("inner:81")));
        forward.timeout = Some(Duration::from_secs(20));
        let mut route = route("/", RouteAction::Forward(Box::new(forward)));
        let name = ::http::HeaderName::from_static;
        route.request_headers = vec![HeaderMutation::Set(name("x-added"), literal("yes"))];
        route.response_headers = vec![HeaderMutation::Remove(name("x-app"))];
        let proxy =
            Proxy::new(config(manager(routes(host(vec![route]))), vec![cluster("c", &[server])]));
        let answer = fetch(
            proxy.http().await,
            "/a/../b?c=d",
            &[("connection", "x-hop"), ("x-hop", "1"), ("x-envoy-peer-metadata", "forged")],
        )
        .await;
        assert_eq!(answer.summary(), (201, "made"));
        assert_eq!(answer.header("server"), Some("istio-envoy"));
        assert!(answer.header("x-envoy-upstream-service-time").is_some());
        for gone in ["keep-alive", "x-envoy-peer-metadata", "x-app"] {
            assert_eq!(answer.header(gone), None, "{gone}");
        }
        assert_eq!(
            *seen.borrow(),
            ["GET /new/b?c=d host: inner:81; x-added: yes; x-envoy-attempt-count: 1; \
              x-envoy-expected-rq-timeout-ms: 20000; x-envoy-original-path: /b?c=d; x-forwarded-proto: http"]
        );
    });
}

#[test]
fn bodies_stream_both_ways_also_large_ones() {
    run(async {
        let server = backend(|request| async move {
            let (_, body) = request.into_parts();
            let body = http_body_util::BodyExt::map_err(body, std::io::Error::other);
            ::http::Response::new(http_body_util::BodyExt::boxed_unsync(body))
        })
        .await;
        let proxy = Proxy::new(config(forwarding(to_cluster("c")), vec![cluster("c", &[server])]));
        let mut client = Client::new(proxy.http().await).await;
        let large = "0123456789abcdef".repeat(256 * 1024);
        for body in ["", "small", &large] {
            let answer = client.send(request("POST", "/", &[], body.to_owned())).await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, body.len()));
            assert!(answer.body == body);
        }
    });
}

#[test]
fn failures_are_retried_until_one_succeeds_and_on_other_endpoints() {
    run(async {
        let (bad, good) = (Calls::default(), Calls::default());
        let (bad_calls, good_calls) = (bad.clone(), good.clone());
        let failing = backend(move |_| {
            bad_calls.next();
            async { text(503, "bad") }
        })
        .await;
        let working = backend(move |request| {
            good_calls.next();
            let attempt = request.headers()["x-envoy-attempt-count"].to_str().unwrap().to_owned();
            async move {
                let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap();
                let body = body.to_bytes();
                text(200, format!("{attempt} {}", String::from_utf8_lossy(&body)))
            }
        })
        .await;
        let mut forward = to_cluster("c");
        forward.retry = Some(Arc::new(retries(1)));
        let clusters = vec![cluster("c", &[failing, working])];
        let proxy = Proxy::new(config(forwarding(forward), clusters));
        let mut client = Client::new(proxy.http().await).await;
        let mut attempts = Vec::new();
        for _ in 0..10 {
            let answer = client.send(request("POST", "/", &[], "again")).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert!(answer.body.ends_with(" again"), "{}", answer.body);
            attempts.push(answer.body);
        }
        assert_eq!(good.get(), 10);
        assert!(
            bad.get() > 0 && attempts.iter().any(|attempt| attempt == "2 again"),
            "{attempts:?}"
        );
    });
}

#[test]
fn when_retries_are_used_up_the_last_answer_counts() {
    run(async {
        let calls = Calls::default();
        let counted = calls.clone();
        let failing = backend(move |_| {
            let call = counted.next();
            async move { text(500, format!("call {call}")) }
        })
        .await;
        let mut forward = to_cluster("c");
        forward.retry = Some(Arc::new(retries(3)));
        let cluster = cluster("c", &[failing]);
        let totals = cluster.state.clone();
        let proxy = Proxy::new(config(forwarding(forward), vec![cluster]));
        let answer = fetch(proxy.http().await, "/", &[]).await;
        assert_eq!(answer.summary(), (500, "call 4"));
        let totals = &totals.totals;
        let count = |name: &str| totals.list().iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(count("upstream_rq_retry"), 3);
        assert_eq!(count("upstream_rq_retry_limit_exceeded"), 1);
    });
}

#[test]
fn a_cluster_whose_place_for_retries_is_taken_gets_none() {
    run(async {
        let calls = Calls::default();
        let counted = calls.clone();
        let failing = backend(move |_| {
            counted.next();
            async { text(503, "") }
        })
        .await;
        let mut forward = to_cluster("c");
        forward.retry = Some(Arc::new(retries(3)));
        let mut cluster = cluster("c", &[failing]);
        cluster.limits.max_retries = 0;
        let totals = cluster.state.clone();
        let proxy = Proxy::new(config(forwarding(forward), vec![cluster]));
        assert_eq!(fetch(proxy.http().await, "/", &[]).await.status, 503);
        assert_eq!(calls.get(), 1);
        let list = totals.totals.list();
        assert!(list.contains(&("upstream_rq_retry_overflow", 1)), "{list:?}");
    });
}

#[test]
fn a_stream_on_which_nothing_moves_is_given_up() {
    run(async {
        let silent = backend(|_| std::future::pending()).await;
        let halting = raw_backend(|mut stream| async move {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            std::future::pending::<()>().await;
        })
        .await;
        let to = |name: &str| {
            let mut forward = to_cluster(name);
            forward.idle_timeout = Some(Duration::from_secs(1));
            route(&format!("/{name}"), RouteAction::Forward(Box::new(forward)))
        };
        let all = vec![to("silent"), to("halting")];
        let clusters = vec![cluster("silent", &[silent]), cluster("halting", &[halting])];
        let proxy = Proxy::new(config(manager(routes(host(all))), clusters));
        let address = proxy.http().await;
        assert_eq!(fetch(address, "/silent", &[]).await.summary(), (504, "stream timeout"));
        assert!(Client::new(address).await.send(get("/halting", &[])).await.is_err());
    });
}

#[test]
fn what_the_policy_does_not_name_is_not_retried() {
    run(async {
        let calls = Calls::default();
        let counted = calls.clone();
        let failing = backend(move |_| {
            counted.next();
            async { text(500, "") }
        })
        .await;
        let mut forward = to_cluster("c");
        let on = RetryOn { gateway_error: true, ..RetryOn::default() };
        forward.retry = Some(Arc::new(RetryPolicy { on, ..retries(3) }));
        let proxy = Proxy::new(config(forwarding(forward), vec![cluster("c", &[failing])]));
        assert_eq!(fetch(proxy.http().await, "/", &[]).await.status, 500);
        assert_eq!(calls.get(), 1);
    });
}

#[test]
fn a_body_larger_than_the_buffer_is_not_sent_again() {
    run(async {
        let calls = Calls::default();
        let counted = calls.clone();
        let failing = backend(move |request| {
            counted.next();
            async move {
                let _ = http_body_util::BodyExt::collect(request.into_body()).await;
                text(503, "")
            }
        })
        .await;
        let mut forward = to_cluster("c");
        forward.retry = Some(Arc::new(retries(3)));
        let proxy = Proxy::new(config(forwarding(forward), vec![cluster("c", &[failing])]));
        let mut client = Client::new(proxy.http().await).await;
        let large = vec![b'x'; super::super::replay::LIMIT + 1];
        assert_eq!(client.send(request("POST", "/", &[], large)).await.unwrap().status, 503);
        assert_eq!(calls.get(), 1);
        let small = vec![b'x'; super::super::replay::LIMIT];
        assert_eq!(client.send(request("POST", "/", &[], small)).await.unwrap().status, 503);
        assert_eq!(calls.get(), 5);
    });
}

#[test]
fn an_attempt_that_takes_too_long_is_repeated_and_a_request_that_does_is_given_up() {
    run(async {
        let calls = Calls::default();
        let counted = calls.clone();
        let slow_first = backend(move |_| {
            let call = counted.next();
            async move {
                if call == 1 {
                    std::future::pending::<()>().await;
                }
                text(200, "second")
            }
        })
        .await;
        let never = backend(|_| std::future::pending()).await;
        let mut per_try = to_cluster("slow first");
        let limit = Some(Duration::from_secs(1));
        per_try.retry = Some(Arc::new(RetryPolicy { per_try_timeout: limit, ..retries(2) }));
        let mut only_per_try = to_cluster("never");
        only_per_try.retry = Some(Arc::new(RetryPolicy { per_try_timeout: limit, ..retries(1) }));
        let mut overall = to_cluster("never");
        overall.timeout = limit;
        overall.retry = Some(Arc::new(retries(2)));
        let all = vec![
            route("/per-try", RouteAction::Forward(Box::new(per_try))),
            route("/only-per-try", RouteAction::Forward(Box::new(only_per_try))),
            route("/overall", RouteAction::Forward(Box::new(overall))),
        ];
        let clusters = vec![cluster("slow first", &[slow_first]), cluster("never", &[never])];
        let proxy = Proxy::new(config(manager(routes(host(all))), clusters));
        let address = proxy.http().await;
        assert_eq!(fetch(address, "/per-try", &[]).await.summary(), (200, "second"));
        assert_eq!(calls.get(), 2);
        let gone = (504, "upstream request timeout");
        assert_eq!(fetch(address, "/only-per-try", &[]).await.summary(), gone);
        assert_eq!(fetch(address, "/overall", &[]).await.summary(), gone);
    });
}

#[test]
fn the_time_also_counts_while_the_response_comes() {
    run(async {
        let server = raw_backend(|mut stream| async move {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            std::future::pending::<()>().await;
        })
        .await;
        let mut forward = to_cluster("c");
        forward.timeout = Some(Duration::from_secs(1));
        let proxy = Proxy::new(config(forwarding(forward), vec![cluster("c", &[server])]));
        let mut client = Client::new(proxy.http().await).await;
        assert!(client.send(get("/", &[])).await.is_err());
    });
}

#[test]
fn every_kind_of_failure_has_its_own_answer() {
    run(async {
        let closing = raw_backend(|mut stream| async move {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
        })
        .await;
        let garbage = raw_backend(|mut stream| async move {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"nonsense\r\n\r\n").await;
        })
        .await;
        let mut full = cluster("full", &[nobody()]);
        full.limits = CircuitBreakers { max_requests: 0, max_pending_requests: 0, ..full.limits };
        let clusters = vec![
            cluster("refused", &[nobody()]),
            cluster("closing", &[closing]),
            cluster("garbage", &[garbage]),
            cluster("empty", &[]),
            full,
        ];
        let to = |name: &str| {
            let path = format!("/{name}");
            route(&path, RouteAction::Forward(Box::new(to_cluster(name))))
        };
        let mut gone = to_cluster("gone");
        gone.cluster_not_found = StatusCode::SERVICE_UNAVAILABLE;
        let all = vec![
            to("refused"),
            to("closing"),
            to("garbage"),
            to("empty"),
            to("full"),
            route("/gone", RouteAction::Forward(Box::new(gone))),
        ];
        let proxy = Proxy::new(config(manager(routes(host(all))), clusters));
        let address = proxy.http().await;
        let prefix = "upstream connect error or disconnect/reset before headers. reset reason: ";
        for (path, status, body, starts) in [
            (
                "/refused",
                503,
                format!("{prefix}remote connection failure, transport failure reason: "),
                true,
            ),
            ("/closing", 503, format!("{prefix}connection termination"), false),
            ("/garbage", 502, format!("{prefix}protocol error"), false),
            ("/full", 503, format!("{prefix}overflow"), false),
            ("/empty", 503, "no healthy upstream".into(), false),
            ("/gone", 503, String::new(), false),
            ("/elsewhere", 404, String::new(), false),
        ] {
            let answer = fetch(address, path, &[]).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
            let same = if starts { answer.body.starts_with(&body) } else { answer.body == body };
            assert!(same, "{path}: {}", answer.body);
            let overloaded = answer.header("x-envoy-overloaded").is_some();
            assert_eq!(overloaded, path == "/full", "{path}");
        }
    });
}

#[test]
fn a_connection_that_the_endpoint_closed_while_idle_is_noticed() {
    run(async {
        // Answers once on each connection, and closes it a moment later without saying so.
        let calls = Calls::default();
        let counted = calls.clone();
        let server = raw_backend(move |mut stream| {
            counted.next();
            async move {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        })
        .await;
        let proxy = Proxy::new(config(forwarding(to_cluster("c")), vec![cluster("c", &[server])]));
        let mut client = Client::new(proxy.http().await).await;
        for _ in 0..20 {
            assert_eq!(client.get("/", &[]).await.status, 200);
        }
        assert_eq!(calls.get(), 20);
    });
}

#[test]
fn a_request_on_which_a_reused_connection_breaks_is_sent_again_when_that_is_safe() {
    run(async {
        // Answers the first request of each connection and closes the connection when the second comes.
        let server = raw_backend(|mut stream| async move {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.read(&mut buffer).await;
        })
        .await;
        let proxy = Proxy::new(config(forwarding(to_cluster("c")), vec![cluster("c", &[server])]));
        let mut client = Client::new(proxy.http().await).await;
        for _ in 0..10 {
            assert_eq!(client.get("/", &[]).await.status, 200);
        }
        // The endpoint may have acted on a POST: only the caller can know.
        let answer = client.send(request("POST", "/", &[], "x")).await.unwrap();
        assert_eq!(answer.status, 503);
    });
}

#[test]
fn a_request_that_a_reused_connection_answers_with_a_reset_or_half_an_answer_is_not_sent_again() {
    run(async {
        for half in [None, Some("HTTP/1.1 200")] {
            let calls = Calls::default();
            let counted = calls.clone();
            let server = raw_backend(move |mut stream| {
                let calls = counted.clone();
                async move {
                    let mut buffer = [0; 1024];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        if calls.next() == 1 {
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                            let _ = stream.write_all(answer).await;
                            continue;
                        }
                        match half {
                            Some(half) => drop(stream.write_all(half.as_bytes()).await),
                            None => {
                                let socket = socket2::SockRef::from(&stream);
                                socket.set_linger(Some(Duration::ZERO)).unwrap();
                            }
                        }
                        return;
                    }
                }
            })
            .await;
            let clusters = vec![cluster("c", &[server])];
            let proxy = Proxy::new(config(forwarding(to_cluster("c")), clusters));
            let mut client = Client::new(proxy.http().await).await;
            assert_eq!(client.get("/", &[]).await.status, 200);
            assert_eq!(client.get("/", &[]).await.status, 503);
            assert_eq!(calls.get(), 2, "{half:?}");
        }
    });
}

#[test]
fn requests_are_copied_to_mirrors() {
    run(async {
        let copies = Rc::new(RefCell::new(Vec::new()));
        let log = copies.clone();
        let shadow = backend(move |request| {
            let log = log.clone();
            async move {
                let host = request.headers()["host"].to_str().unwrap().to_owned();
                let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap();
                let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                log.borrow_mut().push(format!("{host} {body}"));
                text(500, "ignored")
            }
        })
        .await;
        let server = backend(|request| async move {
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            text(200, "real")
        })
        .await;
        let mut forward = to_cluster("c");
        forward.mirrors =
            vec![Mirror { cluster: "shadow".into(), fraction: Fraction::ALL, keep_host: false }];
        let clusters = vec![cluster("c", &[server]), cluster("shadow", &[shadow])];
        let proxy = Proxy::new(config(forwarding(forward), clusters));
        let mut client = Client::new(proxy.http().await).await;
        let answer = client.send(request("POST", "/", &[], "body")).await.unwrap();
        assert_eq!(answer.summary(), (200, "real"));
        until(|| !copies.borrow().is_empty()).await;
        assert_eq!(*copies.borrow(), ["shop-shadow body"]);
    });
}
