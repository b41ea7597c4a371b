//! Clients that send more than anybody wants: what the proxy holds stays small, and others are served.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use weft_e2e::{edge::Edge, wait};

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a flood may make the proxy hold, in KiB: far less than any of them sends or asks for.
const BOUND: u64 = 24 * 1024;

/// What each flood sends at most.
const FLOOD: usize = 64 * 1024 * 1024;

/// A server that has taken nothing for so long takes nothing more.
const GIVES_UP: Duration = Duration::from_secs(5);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&size[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A GET for `/`: method, scheme and path from HPACK's table, `:authority: shop`, and a header of this size.
fn get(extra: usize) -> Vec<u8> {
    let mut block = b"\x82\x86\x84\x41\x04shop".to_vec();
    if extra > 0 {
        let size = u8::try_from(extra).unwrap();
        assert!(size < 127);
        block.extend_from_slice(&[0, 3, b'x', b'-', b'a', size]);
        block.extend(std::iter::repeat_n(b'x', extra));
    }
    block
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &8_u32.to_be_bytes())
}

/// The streams that a client may begin.
fn streams() -> impl Iterator<Item = u32> {
    (1_u32..0x7fff_ffff).step_by(2)
}

/// Sends pieces until the server takes no more, or all is sent.
async fn pour(stream: &mut (impl AsyncWriteExt + Unpin), pieces: impl Iterator<Item = Vec<u8>>) {
    let mut batch = Vec::new();
    let mut sent = 0;
    for piece in pieces {
        batch.extend(piece);
        if batch.len() < 64 * 1024 {
            continue;
        }
        match tokio::time::timeout(GIVES_UP, stream.write_all(&batch)).await {
            Ok(Ok(())) if sent < FLOOD => sent += batch.len(),
            _ => return,
        }
        batch.clear();
    }
}

/// One flood over some connections; their ends are kept open until the memory was looked at.
async fn flood<P: Iterator<Item = Vec<u8>> + Send + 'static>(
    edge: &Edge,
    what: &'static str,
    listens: bool,
    pieces: impl Fn() -> P,
) {
    let before = edge.memory().unwrap().private;
    let mut attackers = JoinSet::new();
    for _ in 0..4 {
        let (address, pieces) = (edge.http2, pieces());
        attackers.spawn(async move {
            let (mut answers, mut requests) =
                TcpStream::connect(address).await.unwrap().into_split();
            requests.write_all(HELLO).await.unwrap();
            let listener = listens.then(|| {
                tokio::spawn(async move {
                    let mut sink = vec![0; 64 * 1024];
                    while let Ok(1..) = answers.read(&mut sink).await {}
                })
            });
            pour(&mut requests, pieces).await;
            (requests, listener)
        });
    }
    let mut most = before;
    let mut open = Vec::new();
    while !attackers.is_empty() {
        // Looked at all the time, as what is freed later was held too.
        let next = tokio::time::timeout(Duration::from_millis(50), attackers.join_next());
        if let Ok(Some(attacker)) = next.await {
            open.push(attacker.unwrap());
        }
        most = most.max(edge.memory().unwrap().private);
    }
    assert!(most < before + BOUND, "{what}: {before} KiB became {most} KiB");
    still_serves(edge.http2).await.context(what).unwrap();
}

/// An honest client is answered.
async fn still_serves(address: SocketAddr) -> anyhow::Result<()> {
    wait::until_ok("an honest client should be served", async || {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(HELLO).await?;
        stream.write_all(&frame(1, END_STREAM | END_HEADERS, 1, &get(0))).await?;
        let mut seen = Vec::new();
        while !seen.windows(13).any(|bytes| bytes == b"server's answ") {
            ensure!(stream.read_buf(&mut seen).await? > 0, "closed: {}", seen.escape_ascii());
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_are_not_collected() {
    let edge = Edge::start("").await.unwrap();
    still_serves(edge.http2).await.unwrap();
    // What the first connections make it hold is not a flood's.
    flood(&edge, "nothing", true, std::iter::empty).await;
    for listens in [true, false] {
        flood(&edge, "pings", listens, || {
            std::iter::repeat_with(|| frame(6, 0, 0, &[7; 8])).take(1_000_000)
        })
        .await;
        flood(&edge, "settings", listens, || {
            std::iter::repeat_with(|| frame(4, 0, 0, &[0, 4, 0, 1, 0, 0])).take(1_000_000)
        })
        .await;
        flood(&edge, "requests taken back", listens, || {
            streams().take(300_000).map(|stream| {
                let request = frame(1, END_STREAM | END_HEADERS, stream, &get(100));
                [request, reset(stream)].concat()
            })
        })
        .await;
        flood(&edge, "requests that break the protocol", listens, || {
            // A window of nothing more is the server's reason to reset the stream (CVE-2025-8671).
            streams().take(300_000).map(|stream| {
                let request = frame(1, END_HEADERS, stream, &get(100));
                [request, frame(8, 0, stream, &0_u32.to_be_bytes())].concat()
            })
        })
        .await;
        flood(&edge, "a head without an end", listens, || {
            let first = frame(1, END_STREAM, 1, &get(0));
            let piece = [&[0, 3, b'x', b'-', b'a', 100][..], &[b'x'; 100]].concat().repeat(100);
            std::iter::once(first)
                .chain(std::iter::repeat_with(move || frame(9, 0, 1, &piece)).take(100_000))
        })
        .await;
        flood(&edge, "a head of empty pieces", listens, || {
            let first = frame(1, END_STREAM, 1, &get(0));
            std::iter::once(first)
                .chain(std::iter::repeat_with(|| frame(9, 0, 1, b"")).take(1_000_000))
        })
        .await;
        flood(&edge, "data of no bytes", listens, || {
            let first = frame(1, END_HEADERS, 1, &get(0));
            std::iter::once(first)
                .chain(std::iter::repeat_with(|| frame(0, 0, 1, b"")).take(1_000_000))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_that_nobody_reads_stay_where_they_are() {
    // 4 connections ask for 400 responses of 1 MiB each, and open no window for them.
    let edge = Edge::start("").await.unwrap();
    still_serves(edge.http2).await.unwrap();
    flood(&edge, "no windows", true, || {
        let closed = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
        std::iter::once(closed).chain(streams().take(400).map(|stream| {
            let mut head = get(0);
            head.splice(2..3, *b"\x04\x06/large");
            frame(1, END_STREAM | END_HEADERS, stream, &head)
        }))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_cost_little_and_are_told_to_go() {
    let edge =
        Edge::start("request_headers_timeout: 10s\n                stream_idle_timeout: 10s")
            .await
            .unwrap();
    still_serves(edge.http2).await.unwrap();
    let before = edge.memory().unwrap().private;
    let mut clients = JoinSet::new();
    for (what, begin, answer) in [
        ("half a head", "GET / HTTP/1.1\r\nhost: shop\r\n", "HTTP/1.1 408 "),
        (
            "half a body",
            "POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 9\r\n\r\nx",
            "HTTP/1.1 408 ",
        ),
        (
            "half a chunk",
            "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\nff\r\nx",
            "HTTP/1.1 408 ",
        ),
        ("half a preface", "PRI * HTTP/2.0\r\n", ""),
    ] {
        for _ in 0..200 {
            let address = edge.any;
            clients.spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(begin.as_bytes()).await?;
                let mut said = Vec::new();
                // Reset is closed too.
                let _ = stream.read_to_end(&mut said).await;
                let said = String::from_utf8_lossy(&said).into_owned();
                ensure!(said.starts_with(answer), "{what}: {said:?}");
                anyhow::Ok(())
            });
        }
    }
    let mut most = before;
    while !clients.is_empty() {
        let next = tokio::time::timeout(Duration::from_millis(50), clients.join_next());
        if let Ok(Some(client)) = next.await {
            client.unwrap().with_context(|| edge.log()).unwrap();
        }
        most = most.max(edge.memory().unwrap().private);
    }
    assert!(most < before + BOUND, "800 slow clients: {before} KiB became {most} KiB");
    still_serves(edge.http2).await.unwrap();
}
