use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::net::testing::{Server, Test, request};

/// Reads a request's head.
async fn head(io: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A server that answers every request on a connection with the same bytes.
async fn says(answer: &'static str) -> Server {
    Server::listen(move |mut io, _| async move {
        while head(&mut io).await.is_some() {
            if io.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

fn pool_of(address: SocketAddr) -> Test {
    Test::new(&[address], |_| {})
}

#[tokio::test(flavor = "local")]
async fn responses_are_read_in_every_framing_and_the_connection_used_again_where_that_is_right() {
    for (answer, body, again) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc", true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
            "abc",
            true,
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "abc",
            true,
        ),
        ("\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", "abc", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc", "abc", true),
        // More than the response: whose it is nobody knows.
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n", "abc", false),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", "", false),
    ] {
        let server = says(answer).await;
        let test = pool_of(server.address);
        for round in 1..=3 {
            let (_, read) = test.get().await.unwrap();
            assert_eq!(read, body, "{answer:?}");
            let expected = if again { 1 } else { round };
            assert_eq!(server.connections.get(), expected, "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "local")]
async fn what_is_not_one_response_breaks_the_protocol() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nA: b\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
    ] {
        let server = says(answer).await;
        let test = pool_of(server.address);
        let error = test.send().await.unwrap_err();
        assert_eq!((error.kind, error.sent), (ErrorKind::Protocol, true), "{answer:?}");
        server.until_open(0).await;
    }
    let endless = Server::listen(|mut io, _| async move {
        let hint = "HTTP/1.1 103 Early Hints\r\n\r\n";
        while io.write_all(hint.as_bytes()).await.is_ok() {}
    })
    .await;
    let error = pool_of(endless.address).send().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
}

#[tokio::test(flavor = "local")]
async fn there_is_an_end_to_what_comes_before_the_response() {
    for (count, taken) in [(100, true), (101, false)] {
        let early = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count);
        let answer = early + "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let server = says(answer.leak()).await;
        let answered = pool_of(server.address).get().await;
        assert_eq!(answered.map_err(|error| error.kind).is_ok(), taken, "{count}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_response_to_head_has_no_body_whatever_it_says() {
    let server = says("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").await;
    let test = pool_of(server.address);
    for _ in 0..3 {
        let mut request = request(RequestBody::Empty);
        *request.method_mut() = Method::HEAD;
        let response = test.pick().request(request).await.unwrap();
        assert_eq!(response.headers()["content-length"], "3");
        assert!(response.into_body().is_end_stream());
    }
    assert_eq!(server.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_response_that_ends_with_its_connection_is_whole() {
    let server = Server::listen(|mut io, _| async move {
        head(&mut io).await;
        io.write_all(b"HTTP/1.1 200 OK\r\n\r\neverything").await.unwrap();
    })
    .await;
    assert_eq!(pool_of(server.address).get().await.unwrap().1, "everything");
}

#[tokio::test(flavor = "local")]
async fn a_response_that_breaks_off_is_told_from_a_whole_one() {
    for (answer, kind) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", ErrorKind::Closed),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", ErrorKind::Closed),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", ErrorKind::Protocol),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", ErrorKind::Protocol),
    ] {
        let server = Server::listen(move |mut io, _| async move {
            head(&mut io).await;
            io.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let test = pool_of(server.address);
        let response = test.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let error = response.into_body().collect().await.unwrap_err();
        assert_eq!(error.kind, kind, "{answer:?}");
        let state = test.cluster.borrow().state.clone();
        assert_eq!((state.requests.get(), state.connections.get()), (0, 0));
    }
}

#[tokio::test(flavor = "local")]
async fn an_answer_counts_although_the_rest_of_the_request_is_not_taken() {
    let server = Server::listen(|mut io, _| async move {
        head(&mut io).await;
        io.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
    })
    .await;
    let test = pool_of(server.address);
    let endless =
        futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; 9000]))));
    let body = RequestBody::stream(StreamBody::new(endless));
    let mut post = request(body);
    *post.method_mut() = Method::POST;
    match test.pick().request(post).await {
        Ok(response) => assert_eq!(response.status(), 413),
        // The reset may overtake the answer.
        Err(error) => assert_eq!((error.kind, error.sent), (ErrorKind::Closed, true)),
    }
    assert_eq!(test.cluster.borrow().state.connections.get(), 0);
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_that_ends_or_speaks_leaves_the_pool_without_being_asked_for() {
    for last_words in ["", "HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let server = Server::listen(move |mut io, drain| async move {
            head(&mut io).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            drain.notified().await;
            if !last_words.is_empty() {
                io.write_all(last_words.as_bytes()).await.unwrap();
                drain.notified().await;
            }
        })
        .await;
        let test = pool_of(server.address);
        test.get().await.unwrap();
        let state = test.cluster.borrow().state.clone();
        assert_eq!(state.connections.get(), 1);
        // The server's task has come so far by the time that the runtime has nothing else to do.
        while state.connections.get() > 0 {
            server.drain.notify_waiters();
            tokio::task::yield_now().await;
        }
        assert_eq!(state.totals.upstream_cx_destroy.load(Relaxed), 1);
    }
}

#[tokio::test(flavor = "local")]
async fn trailers_that_are_announced_go_upstream() {
    let server = Server::listen(|mut io, _| async move {
        let head = head(&mut io).await.unwrap();
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        let mut body = Vec::new();
        while !body.ends_with(b"\r\n\r\n") {
            body.push(io.read_u8().await.unwrap());
        }
        assert_eq!(body, b"3\r\nabc\r\n0\r\nsum: 7\r\n\r\n");
        io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    })
    .await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("sum", http::HeaderValue::from_static("7"));
    trailers.insert("other", http::HeaderValue::from_static("8"));
    let frames = [Ok(Frame::data(Bytes::from_static(b"abc"))), Ok(Frame::trailers(trailers))];
    let body = RequestBody::stream(StreamBody::new(futures_util::stream::iter(frames)));
    let mut post = request(body);
    *post.method_mut() = Method::POST;
    post.headers_mut().insert("trailer", http::HeaderValue::from_static("Sum"));
    assert_eq!(pool_of(server.address).pick().request(post).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "local")]
async fn a_call_is_small() {
    let (call, idle) = (size_of::<Call>(), size_of::<super::super::http1::Idle>());
    assert!(call <= 640 && idle <= 256, "{call} and {idle} bytes");
}
