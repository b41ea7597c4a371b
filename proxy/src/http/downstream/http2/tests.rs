//! Streams of a client's connection: bodies, windows, tunnels, ends.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ::http::{Method, Request, Response};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::SendRequest};
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    task::spawn_local,
};

use crate::{
    config::{
        cluster::UpstreamProtocol, http::HttpConnectionManager, listener::Terminal,
        route::RouteAction,
    },
    data::testing::{
        Proxy, backend, chain, cluster, config, config_of,
        frames::{
            DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Said, frame, get_on, head, send_frames,
        },
        host, listener, manager, raw_backend, route, routes, run, tcp_chain, text, to_cluster,
        until,
    },
    shared::Lifecycle,
};

fn forwarding() -> HttpConnectionManager {
    manager(routes(host(vec![route("/", RouteAction::Forward(Box::new(to_cluster("c"))))])))
}

/// A client, whose connection is over when the notification comes.
async fn client(address: SocketAddr) -> (SendRequest<Bytes>, Arc<Notify>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, driver) = h2::client::Builder::new()
        .initial_connection_window_size(1024 * 1024)
        .handshake(stream)
        .await
        .unwrap();
    let over = Arc::new(Notify::new());
    let ended = over.clone();
    spawn_local(async move {
        let _ = driver.await;
        ended.notify_one();
    });
    (sender.ready().await.unwrap(), over)
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://shop{path}")).body(()).unwrap()
}

/// Begins a request whose body follows.
async fn begin(
    client: &SendRequest<Bytes>,
    request: Request<()>,
) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let mut ready = client.clone().ready().await.unwrap();
    ready.send_request(request, false).unwrap()
}

async fn bytes(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// Sends all of it, as there is room.
async fn send(body: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        body.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
        let part = data.split_to(room.min(data.len()));
        body.send_data(part, data.is_empty()).unwrap();
    }
}

#[test]
fn both_directions_of_a_stream_move_on_their_own() {
    run(async {
        // Answers at once with more than all windows hold, and only then reads the request.
        let read = Arc::new(Notify::new());
        let noted = read.clone();
        let server = backend(move |request| {
            let noted = noted.clone();
            async move {
                spawn_local(async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body.len(), 3_000_000);
                    noted.notify_one();
                });
                text(200, vec![b'x'; 3_000_000])
            }
        })
        .await;
        let mut upstream = cluster("c", &[server]);
        upstream.protocol = UpstreamProtocol::Http2;
        let proxy = Proxy::new(config(forwarding(), vec![upstream]));
        let (client, _) = client(proxy.http().await).await;
        let (response, mut body) = begin(&client, post("/")).await;
        let response = response.await.unwrap();
        // The whole request goes through while nobody reads the response.
        send(&mut body, vec![b'y'; 3_000_000].into()).await;
        read.notified().await;
        let received = bytes(&mut response.into_body()).await.unwrap();
        assert_eq!(received.len(), 3_000_000);
    });
}

#[test]
fn one_stream_that_nobody_reads_keeps_no_other_from_moving() {
    run(async {
        let server = backend(|_| async { text(200, vec![b'x'; 200_000]) }).await;
        let proxy = Proxy::new(config(forwarding(), vec![cluster("c", &[server])]));
        let (client, _) = client(proxy.http().await).await;
        let mut stalled = Vec::new();
        for _ in 0..3 {
            let mut ready = client.clone().ready().await.unwrap();
            let (response, _) = ready.send_request(get("/"), true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.headers()["content-length"], "200000");
            stalled.push(response.into_body());
        }
        let mut ready = client.clone().ready().await.unwrap();
        let (response, _) = ready.send_request(get("/"), true).unwrap();
        stalled.insert(0, response.await.unwrap().into_body());
        for mut body in stalled {
            assert_eq!(bytes(&mut body).await.unwrap().len(), 200_000);
        }
    });
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://shop{path}")).body(()).unwrap()
}

#[test]
fn a_request_that_is_taken_back_is_given_up_at_the_server() {
    run(async {
        let server = backend(|_| std::future::pending()).await;
        let upstream = cluster("c", &[server]);
        let state = upstream.state.clone();
        let proxy = Proxy::new(config(forwarding(), vec![upstream]));
        let (client, over) = client(proxy.http().await).await;
        let (response, mut body) = begin(&client, post("/")).await;
        until(|| state.requests.get() == 1).await;
        body.send_reset(Reason::CANCEL);
        drop((response, body));
        until(|| state.requests.get() == 0).await;
        // So is one whose client is gone altogether.
        let (response, body) = begin(&client, post("/")).await;
        until(|| state.requests.get() == 1).await;
        drop((client, response, body));
        over.notified().await;
        until(|| state.requests.get() == 0).await;
        proxy.thread.until_idle().await;
    });
}

#[test]
fn a_response_that_breaks_off_is_a_reset_and_the_connection_stays() {
    run(async {
        let begun = Arc::new(Notify::new());
        let came = begun.clone();
        let server = raw_backend(move |mut stream| {
            let came = came.clone();
            async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome";
                let _ = stream.write_all(answer).await;
                came.notified().await;
            }
        })
        .await;
        let proxy = Proxy::new(config(forwarding(), vec![cluster("c", &[server])]));
        let (client, _) = client(proxy.http().await).await;
        for _ in 0..2 {
            let mut ready = client.clone().ready().await.unwrap();
            let (response, _) = ready.send_request(get("/"), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            begun.notify_one();
            let error = bytes(&mut body).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        }
    });
}

#[test]
fn connect_makes_a_tunnel_of_a_stream() {
    run(async {
        let echo = raw_backend(|mut stream| async move {
            let mut buffer = [0; 4096];
            while let Ok(size @ 1..) = stream.read(&mut buffer).await {
                let _ = stream.write_all(&buffer[..size]).await;
            }
        })
        .await;
        let proxy = Proxy::new(config_of(
            vec![
                listener("http_proxy", vec![chain(Terminal::Http(Arc::new(forwarding())))]),
                tcp_listener(),
            ],
            vec![cluster("c", &[]), cluster("greeter", &[echo])],
        ));
        let (client, _) = client(proxy.http().await).await;
        let connect = |authority: &str| {
            let request = Request::builder().method(Method::CONNECT).uri(authority);
            request.body(()).unwrap()
        };
        let (response, mut tunnel) = begin(&client, connect("greeter:7000")).await;
        let response: Response<RecvStream> = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("content-length"));
        // More than the windows hold, there and back at once.
        let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
        let data = Bytes::from(sent.clone());
        spawn_local(async move { send(&mut tunnel, data).await });
        assert!(bytes(&mut response.into_body()).await.unwrap() == sent);
        let (response, _tunnel) = begin(&client, connect("greeter:70000")).await;
        assert_eq!(response.await.unwrap().status(), 400);
        let (response, _tunnel) = begin(&client, connect("nobody:7000")).await;
        assert_eq!(response.await.unwrap().status(), 503);
    });
}

fn tcp_listener() -> crate::config::listener::Listener {
    listener("greeter_7000", vec![tcp_chain("greeter")])
}

#[test]
fn a_client_that_waits_for_it_is_told_to_go_on() {
    run(async {
        let server = backend(|request| async {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            text(200, body)
        })
        .await;
        let proxy = Proxy::new(config(forwarding(), vec![cluster("c", &[server])]));
        let fields = [(":method", "POST"), ("expect", "100-continue")];
        let asked = frame(HEADERS, END_HEADERS, 1, &head(&fields));
        let (mut answers, mut wire) = send_frames(proxy.http().await, &asked).await;
        let mut heads = Vec::new();
        while heads.len() < 2 {
            let (kind, flags, _, payload) = answers.next().await.unwrap();
            if kind == HEADERS {
                heads.push((flags & END_STREAM, payload));
                if heads.len() == 1 {
                    wire.write_all(&frame(DATA, END_STREAM, 1, b"body")).await.unwrap();
                }
            }
        }
        assert!(heads[0].0 == 0 && heads[0].1[0] != 0x88, "{heads:?}");
        assert_eq!(heads[1].1[0], 0x88);
        loop {
            let (kind, _, _, payload) = answers.next().await.unwrap();
            if kind == DATA && !payload.is_empty() {
                assert_eq!(payload, b"body");
                break;
            }
        }
    });
}

#[test]
fn a_drained_connection_finishes_its_streams_and_takes_no_more() {
    run(async {
        let release = Arc::new(Notify::new());
        let held = release.clone();
        let server = backend(move |_| {
            let held = held.clone();
            async move {
                held.notified().await;
                text(200, "done")
            }
        })
        .await;
        let upstream = cluster("c", &[server]);
        let state = upstream.state.clone();
        let proxy = Proxy::new(config(forwarding(), vec![upstream]));
        let (client, over) = client(proxy.http().await).await;
        let (response, mut body) = begin(&client, post("/")).await;
        until(|| state.requests.get() == 1).await;
        proxy.control.lifecycle.send(Lifecycle::Draining).unwrap();
        // The client hears of it, and begins nothing there any more.
        while client.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        send(&mut body, "end".into()).await;
        release.notify_one();
        let answer = bytes(&mut response.await.unwrap().into_body()).await.unwrap();
        assert_eq!(answer, b"done");
        over.notified().await;
        proxy.thread.until_idle().await;
    });
}

#[test]
fn a_client_that_does_not_answer_farewells_is_closed() {
    run(async {
        let server = backend(|_| async { text(200, "done") }).await;
        let proxy = Proxy::new(config(forwarding(), vec![cluster("c", &[server])]));
        // One says nothing more, one stops amid a head.
        let head = frame(HEADERS, END_STREAM, 3, &head(&[]));
        let (mut silent, _silent) = send_frames(proxy.http().await, &get_on(1)).await;
        let (mut amid, _amid) = send_frames(proxy.http().await, &[get_on(1), head].concat()).await;
        assert_eq!(silent.said_of(1).await, Said::Status(200));
        assert_eq!(amid.said_of(1).await, Said::Status(200));
        proxy.control.lifecycle.send(Lifecycle::Draining).unwrap();
        for answers in [&mut silent, &mut amid] {
            let mut farewells = Vec::new();
            while let Some((kind, _, _, payload)) = answers.next().await {
                if kind == GOAWAY {
                    farewells.push(payload[3]);
                }
            }
            // First that it will go, then which was the last.
            assert_eq!(farewells.len(), 2, "{farewells:?}");
            assert_eq!(farewells[0], 255);
        }
        proxy.thread.until_idle().await;
    });
}
