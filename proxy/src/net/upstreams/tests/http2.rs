//! HTTP/2 connections: streams, and what ends them.

use super::*;

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
