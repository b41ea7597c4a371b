//! HTTP/2 clients that mean harm: what no HTTP/1 server may see, and floods.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::http2::ABANDONED;
use crate::{
    config::{http::HttpConnectionManager, route::RouteAction},
    data::testing::{
        Client, Proxy, backend, cluster, config, exchange,
        frames::{
            CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, HELLO, PING, PRIORITY,
            RST_STREAM, SETTINGS, Said, WINDOW_UPDATE, block, frame, get_on, head, send_frames,
        },
        host, manager, nobody, raw_backend, route, routes, run, text, to_cluster, until,
    },
};

const PROTOCOL_ERROR: u32 = 1;

fn forwarding() -> HttpConnectionManager {
    manager(routes(host(vec![route("/", RouteAction::Forward(Box::new(to_cluster("c"))))])))
}

/// Streams may be idle for so long.
fn forwarding_within(idle: Duration) -> HttpConnectionManager {
    HttpConnectionManager { stream_idle_timeout: Some(idle), ..forwarding() }
}

/// A proxy before an HTTP/1 server, and what the server got. It answers each head, and reads bodies as heads.
async fn recorded() -> (Proxy, SocketAddr, Rc<RefCell<Vec<u8>>>) {
    let seen: Rc<RefCell<Vec<u8>>> = Rc::default();
    let noted = seen.clone();
    let server = raw_backend(move |mut stream| {
        let noted = noted.clone();
        async move {
            let mut bytes = Vec::new();
            while let Ok(1..) = stream.read_buf(&mut bytes).await {
                noted.borrow_mut().append(&mut bytes);
                if noted.borrow().ends_with(b"\r\n\r\n") {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    let _ = stream.write_all(answer).await;
                }
            }
        }
    })
    .await;
    let proxy = Proxy::new(config(forwarding(), vec![cluster("c", &[server])]));
    let address = proxy.http().await;
    (proxy, address, seen)
}

/// A proxy before a server that never answers, and how many requests it has.
async fn silent() -> (Proxy, SocketAddr, impl Fn() -> u32) {
    let server = backend(|_| std::future::pending()).await;
    let cluster = cluster("c", &[server]);
    let state = cluster.state.clone();
    let proxy = Proxy::new(config(forwarding(), vec![cluster]));
    let address = proxy.http().await;
    (proxy, address, move || state.requests.get())
}

/// A request with this head is refused, and nothing of it comes to the server.
async fn refuses_head(block: &[u8], what: &dyn std::fmt::Debug) {
    let (_proxy, address, seen) = recorded().await;
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
    let (mut answers, _open) = send_frames(address, &request).await;
    let said = answers.said_of(1).await;
    assert!(
        matches!(
            said,
            Said::Reset(PROTOCOL_ERROR) | Said::GoAway(PROTOCOL_ERROR) | Said::Status(400)
        ),
        "{what:?}: {said:?}"
    );
    assert!(seen.borrow().is_empty(), "{what:?}: {}", seen.borrow().escape_ascii());
}

#[test]
fn nothing_in_an_http_2_head_ends_a_line_of_the_http_1_request() {
    run(async {
        let smuggled = "/ HTTP/1.1\r\nhost: a\r\n\r\nGET /smuggled";
        for field in [
            ("x-a", "b\r\nsmuggled: 1"),
            ("x-a", "b\nsmuggled: 1"),
            ("x-a", "b\rsmuggled: 1"),
            ("x-a", "b\0"),
            ("x-a: b\r\nsmuggled", "1"),
            ("x a", "b"),
            ("x-a:", "b"),
            ("x\"a", "b"),
            ("", "b"),
            ("X-A", "b"),
            ("connection", "close"),
            ("connection", "x-a"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "identity"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, chunked"),
            ("content-length", "-1"),
            ("content-length", "+4"),
            ("content-length", "4, 4"),
            ("content-length", "4"),
            ("content-length", "0x4"),
            ("content-length", "99999999999999999999"),
            (":path", smuggled),
            (":path", "/a b"),
            (":path", "/\x01"),
            (":path", ""),
            (":path", "relative"),
            (":path", "?query"),
            (":path", "#fragment"),
            (":path", "*"),
            (":method", "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET"),
            (":method", "G T"),
            (":method", ""),
            (":authority", "a\r\nsmuggled: 1"),
            (":authority", "a b"),
            (":authority", "user@host"),
            (":scheme", "http\r\nsmuggled: 1"),
            (":status", "200"),
            (":unknown", "x"),
        ] {
            refuses_head(&head(&[field]), &field).await;
        }
    });
}

#[test]
fn odd_orders_of_an_http_2_head_are_refused() {
    run(async {
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        let without = |name| pseudo.into_iter().filter(move |field| field.0 != name);
        let heads = [
            without("").chain([(":path", "/smuggled")]).collect(),
            without("").chain([(":method", "POST")]).collect(),
            without("").chain([(":authority", "b")]).collect(),
            without(":path").chain([("x-a", "b"), (":path", "/")]).collect(),
            without(":path").collect(),
            without(":method").collect(),
            without(":scheme").collect(),
            without("").chain([("content-length", "4"), ("content-length", "5")]).collect(),
            without("").chain([("host", "a"), ("host", "b")]).collect(),
        ];
        for fields in heads {
            let fields: Vec<(&str, &str)> = fields;
            refuses_head(&block(&fields), &fields).await;
        }
    });
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_never_becomes_a_request() {
    run(async {
        let smuggled = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        for length in ["0", "1", "500"] {
            let (_proxy, address, seen) = recorded().await;
            let fields = [(":method", "POST"), ("content-length", length)];
            let request = [
                frame(HEADERS, END_HEADERS, 1, &head(&fields)),
                frame(DATA, END_STREAM, 1, smuggled),
            ];
            let (mut answers, _open) = send_frames(address, &request.concat()).await;
            let said = answers.said_of(1).await;
            // What is too short is seen at its end, when some of it may be at the server: in a body.
            let refused = matches!(said, Said::Reset(PROTOCOL_ERROR) | Said::GoAway(_));
            assert!(refused || said == Said::Status(400), "{length}: {said:?}");
            let seen = seen.borrow();
            let text = String::from_utf8_lossy(&seen);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                assert!(head.contains(&format!("content-length: {length}")), "{length}: {text}");
                assert!(body.len() <= length.parse().unwrap(), "{length}: {text}");
            }
        }
    });
}

#[test]
fn an_http_1_server_gets_one_host_and_one_cookie() {
    run(async {
        let (_proxy, address, seen) = recorded().await;
        let fields = [("host", "elsewhere"), ("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2")];
        let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head(&fields));
        let (mut answers, _open) = send_frames(address, &request).await;
        assert_eq!(answers.said_of(1).await, Said::Status(200));
        let seen = String::from_utf8(seen.borrow().clone()).unwrap();
        let lines = |name: &str| -> Vec<&str> {
            seen.split("\r\n").filter_map(|line| line.strip_prefix(name)).collect()
        };
        assert_eq!(lines("host: "), ["shop"], "{seen}");
        assert_eq!(lines("cookie: "), ["a=1; c=2"], "{seen}");
    });
}

#[test]
fn a_head_without_an_end_is_not_collected() {
    run(async {
        // Large pieces, and pieces of nothing.
        for piece in [vec![b'x'; 16_000], Vec::new()] {
            let (_proxy, address, _) = recorded().await;
            let (mut answers, mut requests) =
                send_frames(address, &frame(HEADERS, END_STREAM, 1, &head(&[]))).await;
            let said = tokio::task::spawn_local(async move { answers.said_of(1).await });
            let more = frame(CONTINUATION, 0, 1, &piece).repeat(100);
            // Many times what a head may have, and what is thrown away behind it; the server ends it before.
            let mut left = 100_000;
            while left > 0 && requests.write_all(&more).await.is_ok() {
                left -= 1;
            }
            assert!(left > 0, "pieces of {} bytes were taken without an end", piece.len());
            let said = said.await.unwrap();
            assert!(matches!(said, Said::GoAway(_) | Said::Closed), "{said:?}");
        }
    });
}

#[test]
fn a_head_beyond_the_limits_is_431_or_a_reset() {
    run(async {
        let (_proxy, address, seen) = recorded().await;
        let names: Vec<String> = (0..110).map(|n| format!("x-{n}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head(&many));
        let (mut answers, _open) = send_frames(address, &request).await;
        // 431 is not in HPACK's table.
        assert_eq!(answers.said_of(1).await, Said::Status(0));
        let large = "x".repeat(15_000);
        let names: Vec<String> = (0..5).map(|n| format!("x-{n}")).collect();
        let mut request = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let field = [(name.as_str(), large.as_str())];
            let (kind, fields) =
                if at == 0 { (HEADERS, head(&field)) } else { (CONTINUATION, block(&field)) };
            let end = if at + 1 == names.len() { END_HEADERS } else { 0 };
            let flags = if kind == HEADERS { END_STREAM } else { 0 };
            request.extend(frame(kind, flags | end, 1, &fields));
        }
        let (mut answers, _open) = send_frames(address, &request).await;
        let said = answers.said_of(1).await;
        assert!(said != Said::Status(200), "{said:?}");
        assert!(seen.borrow().is_empty());
    });
}

#[test]
fn a_client_that_takes_its_requests_back_at_once_is_sent_away() {
    run(async {
        let (_proxy, address, requests) = silent().await;
        let (mut answers, mut wire) = send_frames(address, b"").await;
        let gone = tokio::task::spawn_local(async move { answers.said_of(u32::MAX).await });
        let mut sent = 0;
        for stream in (1..).step_by(2).take(20 * ABANDONED as usize) {
            let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            if wire.write_all(&[get_on(stream), reset].concat()).await.is_err() {
                break;
            }
            sent += 1;
            // Each is taken up before the next: what the proxy must not do for ever.
            tokio::task::yield_now().await;
        }
        let said = gone.await.unwrap();
        assert!(matches!(said, Said::GoAway(_) | Said::Closed), "{said:?} after {sent}");
        // Nothing is left of them at the server's side.
        until(|| requests() == 0).await;
    });
}

#[test]
fn a_client_that_gives_up_some_requests_is_served_on() {
    run(async {
        let server = backend(|request| {
            let stays = request.uri() == "/stays";
            async move {
                if !stays {
                    std::future::pending::<()>().await;
                }
                text(200, "here")
            }
        })
        .await;
        let cluster = cluster("c", &[server]);
        let state = cluster.state.clone();
        let proxy = Proxy::new(config(forwarding(), vec![cluster]));
        let address = proxy.http().await;
        let (mut answers, mut wire) = send_frames(address, b"").await;
        for stream in (1..).step_by(2).take(ABANDONED as usize / 2) {
            wire.write_all(&get_on(stream)).await.unwrap();
            until(|| state.requests.get() == 1).await;
            let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            wire.write_all(&reset).await.unwrap();
            until(|| state.requests.get() == 0).await;
        }
        let last = frame(HEADERS, END_STREAM | END_HEADERS, 9_001, &head(&[(":path", "/stays")]));
        wire.write_all(&last).await.unwrap();
        assert_eq!(answers.said_of(9_001).await, Said::Status(200));
    });
}

#[test]
fn frames_that_ask_for_nothing_keep_nobody_from_being_served() {
    run(async {
        let (_proxy, address, _) = recorded().await;
        let settings = [0, 4, 0, 1, 0, 0];
        for (what, piece) in [
            ("PING", frame(PING, 0, 0, &[7; 8])),
            ("SETTINGS", frame(SETTINGS, 0, 0, &settings)),
            ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
            ("of no known kind", frame(0xbb, 0, 0, b"what")),
            ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ] {
            let (mut answers, mut wire) = send_frames(address, b"").await;
            let said = tokio::task::spawn_local(async move { answers.said_of(1).await });
            for _ in 0..50 {
                // The server may send such a client away.
                let _ = wire.write_all(&piece.repeat(100)).await;
            }
            let _ = wire.write_all(&get_on(1)).await;
            let said = said.await.unwrap();
            assert!(matches!(said, Said::Status(200) | Said::GoAway(_)), "{what}: {said:?}");
            // And others are served whatever became of it.
            let request = b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n";
            assert!(exchange(address, request).await.starts_with("HTTP/1.1 200"), "{what}");
        }
    });
}

#[test]
fn windows_that_never_open_end_with_the_stream() {
    run(async {
        let manager = forwarding_within(Duration::from_secs(1));
        let server = backend(|_| async { text(200, vec![b'x'; 1024 * 1024]) }).await;
        let cluster = cluster("c", &[server]);
        let state = cluster.state.clone();
        let proxy = Proxy::new(config(manager, vec![cluster]));
        let address = proxy.http().await;
        // No window for any response: each is given up after the time that a stream may be idle.
        let closed = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let requests: Vec<u8> = (1..).step_by(2).take(50).flat_map(get_on).collect();
        let (mut answers, _open) = send_frames(address, &[closed, requests].concat()).await;
        let mut ended = 0;
        while ended < 50 {
            match answers.next().await.expect("the connection stays") {
                (RST_STREAM, ..) => ended += 1,
                // Where the machine is slow, the server's answer may come too late.
                (HEADERS, _, _, payload) if payload[0] != 0x88 => ended += 1,
                (DATA, _, _, payload) => assert!(payload.is_empty()),
                _ => {}
            }
        }
        until(|| state.requests.get() == 0).await;
    });
}

#[test]
fn answers_of_the_proxys_own_that_nobody_takes_are_given_up() {
    run(async {
        let manager = forwarding_within(Duration::from_secs(1));
        let cluster = cluster("c", &[nobody()]);
        let proxy = Proxy::new(config(manager, vec![cluster]));
        let closed = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let requests: Vec<u8> = (1..).step_by(2).take(50).flat_map(get_on).collect();
        let bytes = [closed, requests].concat();
        let (mut answers, _open) = send_frames(proxy.http().await, &bytes).await;
        let (mut answered, mut ended) = (0, 0);
        while ended < 50 {
            match answers.next().await.expect("the connection stays") {
                (RST_STREAM, ..) => ended += 1,
                (HEADERS, flags, ..) => {
                    assert_eq!(flags & END_STREAM, 0, "there is a body");
                    answered += 1;
                }
                (DATA, _, _, payload) => assert!(payload.is_empty()),
                _ => {}
            }
        }
        assert_eq!(answered, 50);
    });
}

#[test]
fn heads_that_nobody_takes_are_put_off_and_given_up() {
    const REQUESTS: usize = 300;
    const LARGE: usize = 60_000;
    run(async {
        let manager = forwarding_within(Duration::from_secs(2));
        let asked: Rc<Cell<bool>> = Rc::default();
        let noted = asked.clone();
        let server = raw_backend(move |mut stream| {
            let noted = noted.clone();
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
                noted.set(true);
                let large = "~".repeat(LARGE);
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nx-large: ";
                let _ = stream.write_all(format!("{head}{large}\r\n\r\n").as_bytes()).await;
                // The body never comes.
                let _ = stream.read(&mut [0; 16]).await;
            }
        })
        .await;
        let cluster = cluster("c", &[server]);
        let state = cluster.state.clone();
        let proxy = Proxy::new(config(manager, vec![cluster]));
        let requests: Vec<u8> = (1..).step_by(2).take(REQUESTS).flat_map(get_on).collect();
        let (mut answers, _open) = send_frames(proxy.http().await, &requests).await;
        until(|| asked.get()).await;
        // All of them are given up while the client has taken nothing.
        until(|| state.requests.get() == 0).await;
        let (mut ended, mut size) = (0, 0);
        while ended < REQUESTS {
            let (kind, flags, _, payload) = answers.next().await.expect("the connection stays");
            size += payload.len();
            let ends = matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
            ended += usize::from(ends || kind == RST_STREAM);
        }
        assert!(size < REQUESTS * LARGE * 3 / 4, "{size}");
    });
}

#[test]
fn windows_that_overflow_end_the_connection() {
    run(async {
        let (_proxy, address, _) = recorded().await;
        let overflow = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
        let (mut answers, _open) = send_frames(address, &overflow).await;
        assert_eq!(answers.said_of(1).await, Said::GoAway(3));
        assert_eq!(Client::new(address).await.get("/", &[]).await.status, 200);
    });
}

#[test]
fn a_client_that_is_sent_away_while_it_sends_is_told_so() {
    run(async {
        let (_proxy, address, _) = recorded().await;
        for mut bytes in [
            [HELLO, &frame(DATA, 0, 0, b"of no stream")].concat(),
            [HELLO, &frame(PING, 0, 0, b"odd")].concat(),
        ] {
            bytes.extend([b'x'; 100_000]);
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("an end, which is no reset");
            let goaway = frame(GOAWAY, 0, 0, b"");
            let told = answer.windows(6).any(|bytes| bytes == &goaway[3..]);
            assert!(told, "{}", answer.escape_ascii());
        }
    });
}

#[test]
fn bodies_that_never_come_are_given_up() {
    run(async {
        let manager = forwarding_within(Duration::from_millis(100));
        let server = backend(|request| async {
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            text(200, "whole")
        })
        .await;
        let cluster = cluster("c", &[server]);
        let state = cluster.state.clone();
        let proxy = Proxy::new(config(manager, vec![cluster]));
        let address = proxy.http().await;
        for framing in ["content-length: 1000", "transfer-encoding: chunked"] {
            let request = format!("POST / HTTP/1.1\r\nhost: shop\r\n{framing}\r\n\r\n5\r\nhe");
            let answer = exchange(address, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 408 "), "{framing}: {answer}");
        }
        let request = [
            frame(HEADERS, END_HEADERS, 1, &head(&[(":method", "POST")])),
            frame(DATA, 0, 1, b"some"),
        ];
        let (mut answers, _open) = send_frames(address, &request.concat()).await;
        // 408 is not in HPACK's table.
        assert_eq!(answers.said_of(1).await, Said::Status(0));
        until(|| state.requests.get() == 0).await;
    });
}
