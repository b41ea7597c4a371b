//! Any frames of an HTTP/2 client, to the proxy's codec and to the `h2` crate: the same requests are in them, or ours refuses.
//!
//! Ours may refuse a request that h2 takes, and nothing of the connection changes by it: what follows is decompressed alike.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, request};
use weft_proxy::http2::{Connection, Limits};

use super::{
    bodies::{self, Whole, send},
    frames::aligned,
};

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const GOAWAY: u8 = 7;
const STREAMS: u32 = 100;
const HEAD: usize = 16 * 1024;

/// A request, and its body if all of it came.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    line: String,
    headers: HeaderMap,
    body: Option<Whole>,
}

impl Seen {
    fn new(head: &request::Parts) -> Self {
        let line = format!("{} {}", head.method, head.uri);
        Self { line, headers: head.headers.clone(), body: None }
    }

    /// Whether it may be the other, of which more may have come.
    fn is(&self, other: &Self) -> bool {
        let alike = self.line == other.line && self.headers == other.headers;
        alike && (self.body.is_none() || self.body == other.body)
    }
}

/// How a connection went.
#[derive(Debug, Default)]
struct Outcome {
    requests: Vec<Seen>,
    /// It was ended because of what the client did. Of what follows nothing is known.
    failed: bool,
}

pub fn run(bytes: &[u8]) {
    let Some((_, bytes)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // After a client's `GOAWAY`, h2 looks at nothing that follows its last stream; we look as long as a stream is held.
    let mut frames = aligned(bytes);
    frames.retain(|frame| frame.get(3) != Some(&GOAWAY));
    let ours = runtime.block_on(ours(&frames));
    let theirs = runtime.block_on(theirs(&frames));
    let mut rest = theirs.requests.iter();
    for seen in &ours.requests {
        if !rest.any(|other| seen.is(other)) {
            // Its library ends the connection where a stream's end is enough.
            assert!(theirs.failed, "{seen:?} is not what h2 saw: {theirs:#?}\nours: {ours:#?}");
            return;
        }
    }
}

/// What has come of a body.
enum Body<T> {
    Coming(T, BytesMut),
    Over,
}

async fn ours(frames: &[Vec<u8>]) -> Outcome {
    let (client, server) = tokio::io::duplex(1024 * 1024);
    let mut outcome = Outcome::default();
    let serving = async {
        let mut connection = Connection::server(server, Limits { streams: STREAMS, head: HEAD });
        let (mut bodies, mut held) = (Vec::new(), Vec::new());
        poll_fn(|cx| {
            let polled = connection.poll(cx);
            while let Some((head, mut outgoing, incoming)) = connection.next_request() {
                let mut seen = Seen::new(&head);
                bodies.push(match incoming {
                    Some(incoming) => Body::Coming(incoming, BytesMut::new()),
                    None => {
                        seen.body = Some((Bytes::new(), HeaderMap::new()));
                        Body::Over
                    }
                });
                outcome.requests.push(seen);
                let _ = outgoing.poll_respond(cx, StatusCode::OK, &HeaderMap::new(), false);
                held.push(outgoing);
            }
            for (at, body) in bodies.iter_mut().enumerate() {
                let Body::Coming(incoming, read) = body else { continue };
                if let Poll::Ready(ended) = bodies::read(incoming, read, cx) {
                    outcome.requests[at].body = ended;
                    *body = Body::Over;
                }
            }
            let _ = connection.poll_send(cx);
            polled.map(drop)
        })
        .await;
    };
    tokio::join!(serving, send(client, HELLO, frames));
    outcome
}

async fn theirs(frames: &[Vec<u8>]) -> Outcome {
    let (client, server) = tokio::io::duplex(1024 * 1024);
    let mut outcome = Outcome::default();
    let serving = async {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD as u32)
            .initial_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024);
        let Ok(mut connection) = builder.handshake::<_, Bytes>(server).await else { return };
        let (mut bodies, mut held) = (Vec::new(), Vec::new());
        poll_fn(|cx: &mut Context<'_>| {
            let polled = loop {
                match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, mut respond)))) => {
                        let (head, incoming) = request.into_parts();
                        outcome.requests.push(Seen::new(&head));
                        bodies.push(Body::Coming(incoming, BytesMut::new()));
                        held.push(respond.send_response(Response::new(()), false));
                    }
                    Poll::Ready(Some(Err(error))) => {
                        outcome.failed |= !error.is_io();
                        break Poll::Ready(());
                    }
                    Poll::Ready(None) => break Poll::Ready(()),
                    Poll::Pending => break Poll::Pending,
                }
            };
            for (at, body) in bodies.iter_mut().enumerate() {
                let Body::Coming(incoming, read) = body else { continue };
                if let Poll::Ready(ended) = bodies::read(incoming, read, cx) {
                    outcome.requests[at].body = ended;
                    *body = Body::Over;
                }
            }
            polled
        })
        .await;
    };
    tokio::join!(serving, send(client, HELLO, frames));
    outcome
}
