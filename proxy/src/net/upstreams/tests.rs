use std::{future::pending, sync::atomic::Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, mpsc},
    task::spawn_local,
};

use super::*;
use crate::{
    config::cluster::{CircuitBreakers, OutlierDetection},
    net::{
        testing::{Server, Speaks, Test, endpoints, nobody, over_tls, reply, request, speak_http2},
        tls::tests::upstream,
    },
};

mod changes;
mod farewell;
mod health;
mod http2;
mod tls;

#[tokio::test(flavor = "local")]
async fn a_connection_serves_one_request_after_the_other() {
    let server = Server::start(Speaks::Http1, async |request| {
        assert_eq!(request.version(), Version::HTTP_11);
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()["host"], "orders.default.svc.cluster.local:80");
        reply(200, "hello")
    })
    .await;
    let test = Test::new(&[server.address], |_| {});
    for _ in 0..5 {
        assert_eq!(test.get().await.unwrap(), (200, Bytes::from_static(b"hello")));
    }
    assert_eq!(server.connections.get(), 1);
    let state = test.cluster.borrow().state.clone();
    assert_eq!(state.totals.upstream_rq_2xx.load(Relaxed), 5);
    assert_eq!((state.requests.get(), state.pending.get(), state.connections.get()), (0, 0, 1));
}

#[tokio::test(flavor = "local")]
async fn a_connection_is_not_used_for_more_requests_than_allowed() {
    let server = Server::start(Speaks::Http1, async |_| reply(200, "")).await;
    let test = Test::new(&[server.address], |cluster| cluster.max_requests_per_connection = 2);
    for _ in 0..6 {
        test.get().await.unwrap();
    }
    assert_eq!(server.connections.get(), 3);
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_the_server_closed_is_not_used_again() {
    let server = Server::start(Speaks::Http1, async |_| reply(200, "")).await;
    let test = Test::new(&[server.address], |_| {});
    for round in 1..20 {
        test.get().await.unwrap();
        assert_eq!(server.connections.get(), round);
        server.drain.notify_waiters();
        // The server's end is closed; nothing says that our side has noticed.
        server.until_open(0).await;
    }
}

#[tokio::test(flavor = "local")]
async fn beyond_the_limits_requests_are_refused_at_once() {
    let release = Rc::new(Notify::new());
    let held = release.clone();
    let server = Server::start(Speaks::Http1, move |_| {
        let held = held.clone();
        async move {
            held.notified().await;
            reply(200, "")
        }
    })
    .await;
    let test = Rc::new(Test::new(&[server.address], |cluster| {
        cluster.limits =
            CircuitBreakers { max_connections: 1, max_pending_requests: 1, ..Default::default() };
    }));
    let (done, mut finished) = mpsc::unbounded_channel();
    let begin = || {
        let (test, done) = (test.clone(), done.clone());
        spawn_local(async move { done.send(test.get().await.map_err(|error| error.kind)) });
    };
    let state = test.cluster.borrow().state.clone();
    let until = async |what: &dyn Fn() -> bool| {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    begin();
    until(&|| state.requests.get() == 1).await;
    begin();
    until(&|| state.pending.get() == 1).await;
    let error = test.send().await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::Overflow, false));
    assert_eq!(error.flag(), crate::net::flags::ResponseFlags::UO);
    assert!(error.body.is_some());
    for _ in 0..2 {
        until(&|| state.requests.get() == 1).await;
        release.notify_one();
        assert_eq!(finished.recv().await.unwrap(), Ok((200, Bytes::new())));
    }
    assert_eq!(server.connections.get(), 1);
    assert_eq!(state.totals.upstream_rq_pending_overflow.load(Relaxed), 1);
    assert_eq!(state.totals.upstream_cx_overflow.load(Relaxed), 1);
}

#[tokio::test(flavor = "local")]
async fn requests_that_wait_get_another_connection_when_theirs_is_gone() {
    let server = Server::start(Speaks::Http1, async |_| {
        let mut last = reply(200, "");
        last.headers_mut().insert("connection", "close".parse().unwrap());
        last
    })
    .await;
    let test = Rc::new(Test::new(&[server.address], |cluster| {
        cluster.limits = CircuitBreakers { max_connections: 1, ..Default::default() };
    }));
    let all: Vec<_> = (0..8)
        .map(|_| {
            let test = test.clone();
            spawn_local(async move { test.get().await.map_err(|error| error.kind) })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), Ok((200, Bytes::new())));
    }
    assert_eq!(server.connections.get(), 8);
}

#[tokio::test(flavor = "local")]
async fn a_waiting_request_that_is_given_up_leaves_no_trace() {
    let server = Server::start(Speaks::Http1, async |_| pending().await).await;
    let test = Test::new(&[server.address], |cluster| {
        cluster.limits = CircuitBreakers { max_connections: 1, ..Default::default() };
    });
    let state = test.cluster.borrow().state.clone();
    let mut first = std::pin::pin!(test.send());
    let mut second = std::pin::pin!(test.send());
    let under_way = async {
        while (state.requests.get(), state.pending.get()) != (1, 1) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = &mut first => unreachable!(),
        _ = &mut second => unreachable!(),
        () = under_way => {}
    }
    second.set(test.send());
    first.set(test.send());
    server.until_open(0).await;
    let endpoint = test.pick().endpoint().clone();
    assert_eq!((state.requests.get(), state.pending.get(), endpoint.state.active.get()), (0, 0, 0));
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_is_not_there_gives_the_request_back() {
    let test = Test::new(&[nobody()], |_| {});
    let error = test.send().await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::Connect, false));
    assert!(error.body.is_some());
    assert_eq!(error.transport_failure(), "Connection refused (os error 111)");
    let state = test.cluster.borrow().state.clone();
    assert_eq!(state.totals.upstream_cx_connect_fail.load(Relaxed), 1);
    assert_eq!((state.connections.get(), state.requests.get()), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn a_server_that_hangs_up_without_an_answer_is_a_termination() {
    let server = Server::listen(|mut io, _| async move {
        let mut head = [0; 1024];
        let _ = io.read(&mut head).await;
    })
    .await;
    let test = Test::new(&[server.address], |_| {});
    let error = test.send().await.unwrap_err();
    assert_eq!((error.kind, error.sent, error.reused), (ErrorKind::Closed, true, false));
    assert!(error.body.is_none());
}

#[tokio::test(flavor = "local")]
async fn a_server_that_does_not_speak_http_breaks_the_protocol() {
    let server = Server::listen(|mut io, _| async move {
        let mut head = [0; 1024];
        let _ = io.read(&mut head).await;
        let _ = io.write_all(b"SSH-2.0-x\r\n\r\n").await;
    })
    .await;
    let test = Test::new(&[server.address], |_| {});
    assert_eq!(test.send().await.unwrap_err().kind, ErrorKind::Protocol);
}

#[tokio::test(flavor = "local")]
async fn a_response_that_is_given_up_costs_its_connection() {
    let server = Server::start(Speaks::Http1, async |_| {
        let endless =
            futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; 4096]))));
        Response::new(StreamBody::new(endless).boxed_unsync())
    })
    .await;
    let test = Test::new(&[server.address], |_| {});
    let mut body = test.send().await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    server.until_open(0).await;
    let state = test.cluster.borrow().state.clone();
    assert_eq!((state.requests.get(), test.pick().endpoint().state.active.get()), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn a_request_under_way_is_small() {
    let test = Test::new(&[nobody()], |_| {});
    let picked = test.pick();
    let size = size_of_val(&picked.request(request(RequestBody::Empty)));
    assert!(size <= 2048, "{size} bytes");
}

#[tokio::test(flavor = "local")]
async fn a_cluster_may_take_the_connections_own_destination() {
    let server = Server::start(Speaks::Http1, async |_| reply(200, "original")).await;
    let test = Test::new(&[], |cluster| {
        cluster.discovery = Discovery::OriginalDestination;
        cluster.lb = LbPolicy::ClusterProvided;
    });
    let runtime = test.runtime();
    let without = runtime.pick(&PickContext::default()).map(|_| ());
    assert_eq!(without, Err(PickError::NoDestination));
    let context = PickContext { destination: Some(server.address), ..PickContext::default() };
    for _ in 0..3 {
        let picked = runtime.pick(&context).unwrap();
        let response = picked.request(request(RequestBody::Empty)).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "original");
    }
    assert_eq!(server.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_failed_request_body_is_the_clients_doing() {
    let server =
        Server::start(Speaks::Http1, async |request| match request.into_body().collect().await {
            Ok(_) => reply(200, ""),
            Err(_) => pending().await,
        })
        .await;
    let test = Test::new(&[server.address], |_| {});
    let frames = [Ok(Frame::data(Bytes::from_static(b"a"))), Err("the client went away".into())];
    let body = RequestBody::stream(StreamBody::new(futures_util::stream::iter(frames)));
    let error = test.pick().request(request(body)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RequestBody);
}

#[tokio::test(flavor = "local")]
async fn a_body_of_unknown_length_is_sent_whatever_the_method() {
    let server = Server::start(Speaks::Http1, async |request| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if body == "abc" { reply(200, "") } else { reply(400, "") }
    })
    .await;
    let test = Test::new(&[server.address], |_| {});
    for method in ["GET", "POST", "DELETE"] {
        let frames = ["a", "bc"].map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        let body = RequestBody::stream(StreamBody::new(futures_util::stream::iter(frames)));
        let mut request = request(body);
        *request.method_mut() = method.parse().unwrap();
        assert_eq!(test.pick().request(request).await.unwrap().status(), 200, "{method}");
    }
}

#[tokio::test(flavor = "local")]
async fn an_upgraded_connection_is_a_tunnel() {
    let server = Server::listen(|mut io, _| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(io.read_u8().await.unwrap());
        }
        let reply =
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
        io.write_all(reply).await.unwrap();
        let (mut reader, mut writer) = io.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    })
    .await;
    let test = Test::new(&[server.address], |_| {});
    let mut upgrade = request(RequestBody::Empty);
    upgrade.headers_mut().insert("connection", "upgrade".parse().unwrap());
    upgrade.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let mut response = test.pick().request(upgrade).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut tunnel = response.body_mut().take_tunnel().unwrap();
    let state = test.cluster.borrow().state.clone();
    assert_eq!((state.requests.get(), state.connections.get()), (1, 1));
    tunnel.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    tunnel.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"ping");
    drop((tunnel, response));
    server.until_open(0).await;
    assert_eq!((state.requests.get(), state.connections.get()), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn idle_connections_are_closed_in_time() {
    let server = Server::start(Speaks::Http1, async |_| reply(200, "")).await;
    let test = Test::new(&[server.address], |cluster| {
        cluster.idle_timeout = Some(Duration::from_secs(60));
    });
    test.get().await.unwrap();
    // From here on only the clock moves: it does not wait for sockets.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(test.runtime().pools.connections(), 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    server.until_open(0).await;
    assert_eq!(test.runtime().pools.connections(), 0);
}
