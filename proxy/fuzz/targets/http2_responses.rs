//! Any frames of an HTTP/2 server, to the proxy's codec and to the `h2` crate: the same responses are in them, or ours refuses.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use weft_proxy::{
    http2::{Connection, Limits},
    net::outbound::Outbound,
};

use super::{
    bodies::{self, Whole, send},
    frames::aligned,
};

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const HEAD: usize = 16 * 1024;
/// What is asked, on the streams 1, 3 and 5.
const ASKED: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];

/// A response as far as it came.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    head: Option<(StatusCode, HeaderMap)>,
    /// All of it.
    body: Option<Whole>,
}

/// How a connection went.
#[derive(Debug, Default)]
struct Outcome {
    responses: [Seen; 3],
    /// It was ended because of what the server did. Of what follows nothing is known.
    failed: bool,
}

pub fn run(bytes: &[u8]) {
    let Some((_, bytes)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let frames = aligned(bytes);
    let ours = runtime.block_on(ours(&frames));
    let theirs = runtime.block_on(theirs(&frames));
    for (ours_seen, seen) in ours.responses.iter().zip(&theirs.responses) {
        let head = ours_seen.head.is_none() || ours_seen.head == seen.head;
        let body = ours_seen.body.is_none() || ours_seen.body == seen.body;
        let known = !theirs.failed || seen.head.is_some() && seen.body.is_some();
        assert!(!known || head && body, "h2 saw {theirs:#?}\nours: {ours:#?}");
    }
}

fn request(method: &Method) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = http::Uri::from_static("http://shop/");
    request
}

async fn ours(frames: &[Vec<u8>]) -> Outcome {
    let (client, server) = tokio::io::duplex(1024 * 1024);
    let mut outcome = Outcome::default();
    let asking = async {
        let limits = Limits { streams: 0, head: HEAD };
        let (mut connection, sender) = Connection::client(client, limits, ASKED.len());
        let mut streams = ASKED.map(|method| {
            let (parts, ()) = request(&method).into_parts();
            let (_, incoming) =
                sender.request(&Outbound::of(&parts), None, true).expect("there is room");
            (Some(incoming), BytesMut::new())
        });
        poll_fn(|cx| {
            let polled = connection.poll(cx);
            for (seen, (stream, read)) in outcome.responses.iter_mut().zip(&mut streams) {
                let Some(incoming) = stream else { continue };
                if seen.head.is_none() {
                    match incoming.poll_response(cx) {
                        Poll::Ready(Ok(head)) => seen.head = Some((head.status, head.headers)),
                        Poll::Ready(Err(_)) => *stream = None,
                        Poll::Pending => {}
                    }
                }
                let Some(incoming) = stream.as_mut().filter(|_| seen.head.is_some()) else {
                    continue;
                };
                if let Poll::Ready(ended) = bodies::read(incoming, read, cx) {
                    seen.body = ended;
                    *stream = None;
                }
            }
            let _ = connection.poll_send(cx);
            polled.map(drop)
        })
        .await;
    };
    tokio::join!(asking, send(server, SETTINGS, frames));
    outcome
}

async fn theirs(frames: &[Vec<u8>]) -> Outcome {
    let (client, server) = tokio::io::duplex(1024 * 1024);
    let mut outcome = Outcome::default();
    let asking = async {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(HEAD as u32)
            .initial_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024);
        let Ok((mut sender, mut connection)) = builder.handshake::<_, Bytes>(client).await else {
            return;
        };
        let mut streams = ASKED.map(|method| {
            let (response, _) = sender.send_request(request(&method), true).expect("there is room");
            (Some(response), None, BytesMut::new())
        });
        poll_fn(|cx: &mut Context<'_>| {
            let polled = Pin::new(&mut connection).poll(cx);
            if let Poll::Ready(Err(error)) = &polled {
                outcome.failed |= !error.is_io();
            }
            for (seen, (response, body, read)) in outcome.responses.iter_mut().zip(&mut streams) {
                if let Some(waiting) = response {
                    match Pin::new(waiting).poll(cx) {
                        Poll::Ready(Ok(answer)) => {
                            let (head, incoming) = answer.into_parts();
                            seen.head = Some((head.status, head.headers));
                            *body = Some(incoming);
                            *response = None;
                        }
                        Poll::Ready(Err(_)) => *response = None,
                        Poll::Pending => {}
                    }
                }
                let Some(incoming) = body else { continue };
                if let Poll::Ready(ended) = bodies::read(incoming, read, cx) {
                    seen.body = ended;
                    *body = None;
                }
            }
            polled.map(drop)
        })
        .await;
    };
    tokio::join!(asking, send(server, SETTINGS, frames));
    outcome
}
