//! What a client of HTTP/1 sees, byte by byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use ::http::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    config::{
        access_log::{AccessLog, Command, Format, FormatPart, LogFormat},
        http::HttpConnectionManager,
        route::RouteAction,
    },
    data::testing::{
        Proxy, backend, cluster, config, exchange, host, manager, raw_backend, route, routes, run,
        text, to_cluster, until,
    },
    http::access_log::writer,
};

fn forwarding() -> HttpConnectionManager {
    manager(routes(host(vec![route("/", RouteAction::Forward(Box::new(to_cluster("c"))))])))
}

fn proxy(server: SocketAddr) -> Proxy {
    Proxy::new(config(forwarding(), vec![cluster("c", &[server])]))
}

/// Answers with what it was sent, trailers included.
async fn echo() -> SocketAddr {
    backend(|request| async {
        let body = request.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned();
        let frames =
            [Frame::data(body.to_bytes())].into_iter().chain(trailers.map(Frame::trailers));
        let frames: Vec<_> = frames.map(Ok).collect();
        let mut response =
            Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync());
        response.headers_mut().insert("trailer", "x-sum, x-other".parse().unwrap());
        response
    })
    .await
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn rest(mut stream: TcpStream) -> String {
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest).await;
    rest
}

#[test]
fn a_client_that_waits_is_told_to_go_on_once_its_body_is_wanted() {
    run(async {
        let proxy = proxy(echo().await);
        let address = proxy.http().await;
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"abc").await.unwrap();
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("abc"), "{answer}");
        // What is refused is not asked for.
        let refused = exchange(address, request.replace("Host: a", "Host: @").as_bytes()).await;
        assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    });
}

#[test]
fn trailers_that_are_announced_go_both_ways() {
    run(async {
        let proxy = proxy(echo().await);
        let address = proxy.http().await;
        let ask = |te: &str| {
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n{te}Connection: close\r\n\r\n\
                 3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-Secret: 8\r\n\r\n"
            )
        };
        let answer = exchange(address, ask("TE: trailers\r\n").as_bytes()).await;
        assert!(answer.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
        let answer = exchange(address, ask("").as_bytes()).await;
        assert!(answer.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{answer}");
    });
}

#[test]
fn many_requests_in_one_piece_are_answered_in_their_order() {
    run(async {
        let server = backend(|request| async move { text(200, request.uri().path().to_owned()) });
        let proxy = proxy(server.await);
        let address = proxy.http().await;
        let mut all: String =
            (0..200).map(|n| format!("GET /{n}. HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        all.push_str("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answers = exchange(address, all.as_bytes()).await;
        let mut from = 0;
        for n in 0..200 {
            let body = format!("\r\n\r\n/{n}.");
            let found = answers[from..].find(&body).unwrap_or_else(|| panic!("no {n}"));
            from += found + body.len();
        }
        assert!(answers.ends_with("/last"));
    });
}

#[test]
fn large_bodies_come_whole_in_every_framing() {
    run(async {
        let proxy = proxy(echo().await);
        let address = proxy.http().await;
        let body = "0123456789".repeat(60_000);
        let chunked: String = body
            .as_bytes()
            .chunks(7_777)
            .map(|part| format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part)))
            .chain(["0\r\n\r\n".into()])
            .collect();
        for (framing, sent, version) in [
            (format!("Content-Length: {}", body.len()), &body, "1.1"),
            ("Transfer-Encoding: chunked".into(), &chunked, "1.1"),
            (format!("Content-Length: {}", body.len()), &body, "1.0"),
        ] {
            let request = format!(
                "POST / HTTP/{version}\r\nHost: a\r\n{framing}\r\nConnection: close\r\n\r\n{sent}"
            );
            let answer = exchange(address, request.as_bytes()).await;
            let (head, answer) = answer.split_once("\r\n\r\n").unwrap();
            let received = if head.contains("transfer-encoding: chunked") {
                let mut received = String::new();
                let mut rest = answer;
                while let Some((size, data)) = rest.split_once("\r\n") {
                    let size = usize::from_str_radix(size, 16).unwrap();
                    received.push_str(&data[..size]);
                    rest = data.get(size + 2..).unwrap_or_default();
                }
                received
            } else {
                answer.to_owned()
            };
            assert!(received == body, "{} bytes: {head}", received.len());
        }
    });
}

#[test]
fn who_leaves_gives_the_request_up() {
    run(async {
        let server = backend(|_| std::future::pending()).await;
        let upstream = cluster("c", &[server]);
        let state = upstream.state.clone();
        let proxy = Proxy::new(config(forwarding(), vec![upstream]));
        let address = proxy.http().await;
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na",
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            until(|| state.requests.get() == 1).await;
            drop(stream);
            until(|| state.requests.get() == 0 && state.connections.get() == 0).await;
        }
        proxy.thread.until_idle().await;
    });
}

#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    run(async {
        let server = raw_backend(|mut stream| async move {
            let mut head = [0; 2_048];
            let _ = stream.read(&mut head).await;
            let answer = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.read(&mut head).await;
        })
        .await;
        let upstream = cluster("c", &[server]);
        let state = upstream.state.clone();
        let proxy = Proxy::new(config(forwarding(), vec![upstream]));
        let address = proxy.http().await;
        // The body never comes whole: neither connection can be used again.
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
        let answer = exchange(address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("\r\n\r\nno"), "{answer}");
        until(|| state.connections.get() == 0).await;
        // It has come whole, only nobody has read it: the client's connection goes on.
        let more =
            "POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        let answer = exchange(address, more.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    });
}

#[test]
fn a_response_that_breaks_off_does_not_look_whole() {
    run(async {
        for upstream in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        ] {
            let server = raw_backend(move |mut stream| async move {
                let mut head = [0; 2_048];
                let _ = stream.read(&mut head).await;
                stream.write_all(upstream.as_bytes()).await.unwrap();
            })
            .await;
            let proxy = proxy(server);
            let answer = exchange(proxy.http().await, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(!answer.ends_with("0\r\n\r\n") && !answer.contains("abcd"), "{answer}");
        }
    });
}

#[test]
fn what_is_refused_is_counted_and_logged() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<str> = folder.path().join("log").to_str().unwrap().into();
        let commands =
            [Command::ResponseCode, Command::ResponseFlags, Command::ResponseCodeDetails];
        let parts = commands.into_iter().flat_map(|command| {
            [FormatPart::Command { command, max: None }, FormatPart::Literal(" ".into())]
        });
        let format = LogFormat::Text(Format { parts: parts.collect() });
        let log = AccessLog { path: path.clone(), format, only_flags: Vec::new() };
        let manager = HttpConnectionManager {
            access_logs: vec![log.into()],
            request_headers_timeout: Some(Duration::from_secs(2)),
            ..forwarding()
        };
        let proxy = Proxy::new(config(manager, vec![cluster("c", &[echo().await])]));
        let address = proxy.http().await;
        let many: String = (0..101).map(|n| format!("A{n}: b\r\n")).collect();
        let large = "x".repeat(70_000);
        let expected = [
            ("nonsense\r\n\r\n".to_owned(), "400 DPE http1.codec_error "),
            ("GET / HTTP/1.1\nHost: a\n\n".into(), "400 DPE http1.codec_error "),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
                "400 DPE http1.content_length_and_chunked_not_allowed ",
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".into(),
                "501 DPE http1.invalid_transfer_encoding ",
            ),
            (format!("GET / HTTP/1.1\r\n{many}\r\n"), "431 DPE http1.too_many_headers "),
            (format!("GET /{large} HTTP/1.1\r\n\r\n"), "431 DPE http1.headers_too_large "),
            ("GET / HTTP/1.1\r\nHost".into(), "408 - request_header_timeout "),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".into(),
                "400 DPE request_body_broken_off ",
            ),
        ];
        for (request, line) in &expected {
            let answer = exchange(address, request.as_bytes()).await;
            let status = format!("HTTP/1.1 {} ", &line[..3]);
            assert!(answer.starts_with(&status), "{line}: {answer}");
            assert!(answer.contains("connection: close\r\n"), "{line}: {answer}");
        }
        proxy.thread.until_idle().await;
        writer::process().flush(Duration::from_secs(20));
        let lines = std::fs::read_to_string(&*path).unwrap();
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected.map(|(_, line)| line));
        let metrics = proxy.shared.stats.render_prometheus(&proxy.thread.config());
        let counted = metrics
            .lines()
            .find(|line| line.contains("downstream_cx_protocol_error") && !line.starts_with('#'));
        assert!(counted.is_some_and(|line| line.ends_with(" 7")), "{counted:?}");
    });
}

#[test]
fn a_slow_reader_gets_everything() {
    run(async {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let server = backend(move |_| {
            let counted = counted.clone();
            async move {
                let frames = futures_util::stream::iter(0..256).map(move |n: u32| {
                    counted.fetch_add(1, Relaxed);
                    Ok(Frame::data(Bytes::from(vec![b'a' + (n % 26) as u8; 16 * 1024])))
                });
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
        })
        .await;
        let proxy = proxy(server);
        let mut stream = TcpStream::connect(proxy.http().await).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await.unwrap();
        let head = head(&mut stream).await;
        assert!(head.contains("connection: close"), "{head}");
        let mut total = 0;
        let mut buffer = vec![0; 1_000];
        loop {
            let size = stream.read(&mut buffer).await.unwrap();
            if size == 0 {
                break;
            }
            total += size;
            if total % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!((total, sent.load(Relaxed)), (256 * 16 * 1024, 256));
    });
}

#[test]
fn an_idle_connection_is_small() {
    run(async {
        let proxy = proxy(echo().await);
        let address = proxy.http().await;
        let stream = TcpStream::connect(address).await.unwrap();
        let ends = crate::data::connection::Ends {
            local: address,
            peer: address,
            destination: crate::data::destination::Destination::HttpProxy,
        };
        let serving = crate::data::connection::accepted(&proxy.thread, stream, ends);
        let parts = [
            size_of::<crate::http::downstream::Serving>(),
            size_of::<tokio::time::Sleep>(),
            size_of::<super::Wire>(),
            size_of::<crate::data::connection::Connection>(),
        ];
        let task = size_of_val(&serving);
        // With what the runtime adds, and its alignment, that is a task of 256 bytes.
        assert!(task <= 144, "{task} bytes");
        assert!(parts.iter().sum::<usize>() <= 1_000, "{parts:?}");
    });
}
