//! HTTP/2 connections: streams, and what ends them.

use http::HeaderName;

use super::*;
use crate::net::body::BoxError;

#[tokio::test(flavor = "local")]
async fn http2_requests_share_a_connection_until_it_is_full() {
    for (theirs, ours, expected) in [(100, u32::MAX, 1), (2, u32::MAX, 3), (100, 3, 2)] {
        let release = Rc::new(Notify::new());
        let held = release.clone();
        let server = Server::start(Speaks::Http2 { streams: theirs }, move |request| {
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.uri().path(), "/a");
            assert!(!request.headers().contains_key("host"));
            let held = held.clone();
            async move {
                held.notified().await;
                reply(200, "")
            }
        })
        .await;
        let test = Rc::new(Test::new(&[server.address], |cluster| {
            speak_http2(cluster);
            cluster.max_concurrent_streams = ours;
        }));
        // The first connection's SETTINGS say what the server allows.
        let warm = spawn_local({
            let test = test.clone();
            async move { test.get().await.unwrap() }
        });
        let state = test.cluster.borrow().state.clone();
        while state.requests.get() < 1 {
            tokio::task::yield_now().await;
        }
        release.notify_one();
        warm.await.unwrap();
        let all: Vec<_> = (0..6)
            .map(|_| {
                let test = test.clone();
                spawn_local(async move { test.get().await.map_err(|error| error.kind) })
            })
            .collect();
        while state.requests.get() < 6 {
            tokio::task::yield_now().await;
        }
        let releasing = spawn_local(async move {
            loop {
                release.notify_waiters();
                tokio::task::yield_now().await;
            }
        });
        for one in all {
            assert_eq!(one.await.unwrap(), Ok((200, Bytes::new())));
        }
        releasing.abort();
        assert_eq!(server.connections.get(), expected, "streams {theirs}, {ours}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_goaway_fails_no_request() {
    let server = Server::start(Speaks::Http2 { streams: 100 }, async |_| reply(200, "")).await;
    let test = Rc::new(Test::new(&[server.address], speak_http2));
    for _ in 0..20 {
        let all: Vec<_> = (0..10)
            .map(|_| {
                let test = test.clone();
                spawn_local(
                    async move { test.get().await.map_err(|error| (error.kind, error.sent)) },
                )
            })
            .collect();
        server.drain.notify_waiters();
        for one in all {
            match one.await.unwrap() {
                // What the server did not take may be sent again.
                Ok((200, _)) | Err((ErrorKind::Refused, false)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(server.connections.get() > 1);
}

#[tokio::test(flavor = "local")]
async fn a_refused_stream_was_not_sent() {
    let server = Server::listen(|io, _| async move {
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    })
    .await;
    let test = Test::new(&[server.address], speak_http2);
    let error = test.send().await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::Refused, false));
}

#[tokio::test(flavor = "local")]
async fn a_reset_stream_is_the_servers_doing() {
    let server = Server::listen(|io, _| async move {
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
    })
    .await;
    let test = Test::new(&[server.address], speak_http2);
    let error = test.send().await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::RemoteReset, true));
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())])
}

#[tokio::test(flavor = "local")]
async fn bodies_and_trailers_go_both_ways_beyond_the_windows() {
    let server = Server::listen(|io, _| async move {
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.headers().get("content-length"), None);
            spawn_local(async move {
                let mut received = request.into_body();
                let mut sent = respond.send_response(Response::new(()), false).unwrap();
                while let Some(data) = received.data().await {
                    let data = data.unwrap();
                    received.flow_control().release_capacity(data.len()).unwrap();
                    sent.send_data(data, false).unwrap();
                }
                sent.send_trailers(received.trailers().await.unwrap().unwrap()).unwrap();
            });
        }
    })
    .await;
    let test = Test::new(&[server.address], speak_http2);
    let data = (0..100_u8).map(|n| Frame::data(vec![n; 30_000].into()));
    let frames = data.chain([Frame::trailers(trailers())]).map(Ok::<_, BoxError>);
    let body = RequestBody::stream(StreamBody::new(futures_util::stream::iter(frames)));
    let response = test.pick().request(request(body)).await.unwrap();
    let echoed = response.into_body().collect().await.unwrap();
    assert_eq!(echoed.trailers(), Some(&trailers()));
    let echoed = echoed.to_bytes();
    assert_eq!(echoed.len(), 3_000_000);
    assert!(echoed.chunks(30_000).zip(0..).all(|(part, n)| part.iter().all(|byte| *byte == n)));
    let state = test.cluster.borrow().state.clone();
    assert_eq!((state.requests.get(), server.connections.get()), (0, 1));
}

#[tokio::test(flavor = "local")]
async fn a_request_that_breaks_off_is_taken_back() {
    let reset = Rc::new(std::cell::Cell::new(None));
    let came = Rc::new(Notify::new());
    let (seen, noted) = (reset.clone(), came.clone());
    let server = Server::listen(move |io, _| {
        let (seen, noted) = (seen.clone(), noted.clone());
        async move {
            let mut connection = h2::server::handshake(io).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                let (seen, noted) = (seen.clone(), noted.clone());
                spawn_local(async move {
                    let mut body = request.into_body();
                    noted.notify_one();
                    while let Some(Ok(_)) = body.data().await {}
                    // As the other side of the stream sees it.
                    let mut respond = respond;
                    let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    seen.set(reason.ok());
                });
            }
        }
    })
    .await;
    let test = Test::new(&[server.address], speak_http2);
    let frames = futures_util::stream::unfold(0, move |at| {
        let came = came.clone();
        async move {
            if at > 0 {
                came.notified().await;
            }
            let frame = if at == 0 { Ok(Frame::data("some".into())) } else { Err("gone".into()) };
            Some((frame, at + 1))
        }
    });
    let broken = RequestBody::stream(StreamBody::new(Box::pin(frames)));
    let error = test.pick().request(request(broken)).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::RequestBody, true));
    while reset.get().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(reset.get(), Some(h2::Reason::CANCEL));
}

#[tokio::test(flavor = "local")]
async fn an_answer_before_the_end_of_the_request_is_whole() {
    let server = Server::listen(|io, _| async move {
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut sent = respond.send_response(Response::new(()), false).unwrap();
            sent.send_data("enough".into(), true).unwrap();
            // The rest of the request is not wanted: NO_ERROR.
        }
    })
    .await;
    let test = Test::new(&[server.address], speak_http2);
    for _ in 0..3 {
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, BoxError>(Frame::data(vec![b'x'; 10_000].into()))
        });
        let endless = RequestBody::stream(StreamBody::new(endless));
        let response = test.pick().request(request(endless)).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "enough");
    }
    assert_eq!(server.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_answers_no_ping_is_given_up() {
    let server = Server::listen(|mut io, _| async move {
        // Takes everything and says nothing.
        let _ = tokio::io::copy(&mut io, &mut tokio::io::sink()).await;
    })
    .await;
    let test = Rc::new(Test::new(&[server.address], |cluster| {
        speak_http2(cluster);
        cluster.http2_keepalive = Some(Duration::from_secs(30));
    }));
    let asking = spawn_local({
        let test = test.clone();
        async move { test.send().await.map(drop).unwrap_err() }
    });
    server.until_open(1).await;
    let state = test.cluster.borrow().state.clone();
    while state.requests.get() == 0 {
        tokio::task::yield_now().await;
    }
    // From here on only the clock moves.
    tokio::time::pause();
    let error = asking.await.unwrap();
    assert_eq!((error.kind, error.sent, error.ended), (ErrorKind::Closed, true, false));
    server.until_open(0).await;
}

#[tokio::test(flavor = "local")]
async fn pings_keep_an_idle_connection_that_answers() {
    let server = Server::start(Speaks::Http2 { streams: 100 }, async |_| reply(200, "")).await;
    let test = Test::new(&[server.address], |cluster| {
        speak_http2(cluster);
        cluster.http2_keepalive = Some(Duration::from_millis(5));
        cluster.idle_timeout = None;
    });
    for _ in 0..10 {
        assert_eq!(test.get().await.unwrap().0, 200);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_name_that_no_http1_client_could_take_is_an_error() {
    let server = Server::listen(|io, _| async move {
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let name = HeaderName::from_lowercase(b"a\"b").unwrap();
            let answer = Response::builder().header(name, "c").body(()).unwrap();
            respond.send_response(answer, true).unwrap();
        }
    })
    .await;
    let test = Test::new(&[server.address], speak_http2);
    let error = test.send().await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::Protocol, true));
}

#[tokio::test(flavor = "local")]
async fn requests_before_the_settings_are_as_many_as_other_connections_allowed() {
    let connections = std::cell::Cell::new(0);
    let server = Server::listen(move |io, _| {
        let first = connections.replace(connections.get() + 1) == 0;
        async move {
            if !first {
                // The requests are there before anything is said.
                io.readable().await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(1024);
            let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_response(Response::new(()), true).unwrap();
                if first {
                    connection.graceful_shutdown();
                }
            }
        }
    })
    .await;
    let test = Rc::new(Test::new(&[server.address], speak_http2));
    assert_eq!(test.get().await.unwrap().0, 200);
    let all: Vec<_> = (0..300)
        .map(|_| {
            let test = test.clone();
            spawn_local(async move { test.get().await.map_err(|error| error.kind) })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap().map(|answer| answer.0), Ok(200));
    }
}
