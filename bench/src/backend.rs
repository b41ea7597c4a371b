//! The upstream of every scenario: the smallest server that cannot be the bottleneck.
//!
//! `/N` is answered with N bytes. HTTP/1.1 on one port, HTTP/2 without TLS on another, where a POST is a unary gRPC call.
//! It trusts its peers: it is the bench's own, on loopback.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Where HTTP/1.1 is served.
pub const HTTP1: SocketAddr = crate::loopback(9, 8080);
/// Where HTTP/2 is served.
pub const HTTP2: SocketAddr = crate::loopback(9, 8082);

/// The sizes of bodies that can be asked for.
pub const SIZES: [usize; 3] = [0, 1024, 64 * 1024];

/// The message of a gRPC call, both ways.
pub const MESSAGE: usize = 128;

/// HTTP/2's flow control windows.
const WINDOW: u32 = 1024 * 1024;

/// Serves until it is killed.
///
/// # Errors
/// When a port is taken.
pub async fn run() -> anyhow::Result<()> {
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("{address}"))
    };
    let (http1, http2) = (bind(HTTP1).await?, bind(HTTP2).await?);
    let replies = Rc::new(Replies::new());
    let local = tokio::task::LocalSet::new();
    let serve = async {
        loop {
            tokio::select! {
                accepted = http1.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let replies = Rc::clone(&replies);
                    tokio::task::spawn_local(async move { serve_http1(stream, &replies).await });
                }
                accepted = http2.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let replies = Rc::clone(&replies);
                    tokio::task::spawn_local(async move { serve_http2(stream, replies).await });
                }
            }
        }
    };
    local.run_until(serve).await
}

/// Answers, made beforehand.
#[derive(Debug)]
struct Replies {
    /// Whole messages of HTTP/1.1 by path.
    whole: BTreeMap<String, Bytes>,
    /// Bodies by path.
    bodies: BTreeMap<String, Bytes>,
    missing: Bytes,
    message: Bytes,
}

impl Replies {
    fn new() -> Self {
        let (mut whole, mut bodies) = (BTreeMap::new(), BTreeMap::new());
        for size in SIZES {
            let body = vec![b'x'; size];
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n"
            );
            let path = format!("/{size}");
            whole.insert(path.clone(), [head.as_bytes(), &body].concat().into());
            bodies.insert(path, body.into());
        }
        let missing = Bytes::from_static(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        Self { whole, bodies, missing, message: grpc_message().into() }
    }
}

/// A gRPC message with its frame: not compressed, length, bytes.
pub fn grpc_message() -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0];
    message[3..].copy_from_slice(&(MESSAGE as u16).to_be_bytes());
    message.resize(5 + MESSAGE, b'm');
    message
}

async fn serve_http1(mut stream: TcpStream, replies: &Replies) {
    let _ = stream.set_nodelay(true);
    let mut input = BytesMut::with_capacity(4096);
    let mut output = Vec::new();
    loop {
        match stream.read_buf(&mut input).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        while let Some((used, reply)) = answer(&input, replies) {
            let _ = input.split_to(used);
            output.extend_from_slice(&reply);
        }
        if stream.write_all(&output).await.is_err() {
            return;
        }
        output.clear();
    }
}

/// How many bytes the first request takes, and what it is answered with; nothing when it is not whole.
fn answer(input: &[u8], replies: &Replies) -> Option<(usize, Bytes)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(used) = request.parse(input).ok()? else { return None };
    let length =
        request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    let used = used + length.unwrap_or(0);
    let reply = replies.whole.get(request.path?).unwrap_or(&replies.missing);
    (input.len() >= used).then(|| (used, reply.clone()))
}

async fn serve_http2(stream: TcpStream, replies: Rc<Replies>) {
    let _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(16 * WINDOW)
        .max_concurrent_streams(10_000);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.method() == Method::POST {
            let replies = Rc::clone(&replies);
            tokio::task::spawn_local(async move {
                let _ = call(request, respond, &replies).await;
            });
        } else {
            let _ = get(&request, respond, &replies);
        }
    }
}

fn get(
    request: &Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    replies: &Replies,
) -> anyhow::Result<()> {
    let mut response = Response::new(());
    let Some(body) = replies.bodies.get(request.uri().path()) else {
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        respond.send_response(response, true)?;
        return Ok(());
    };
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    headers.insert("content-length", HeaderValue::from(body.len()));
    let mut send = respond.send_response(response, body.is_empty())?;
    if !body.is_empty() {
        send.send_data(body.clone(), true)?;
    }
    Ok(())
}

async fn call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    replies: &Replies,
) -> anyhow::Result<()> {
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut send = respond.send_response(response, false)?;
    send.send_data(replies.message.clone(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered_one_by_one() {
        let replies = Replies::new();
        let two = b"GET /1024 HTTP/1.1\r\nhost: a\r\n\r\nPOST /0 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
        let (used, reply) = answer(two, &replies).unwrap();
        assert_eq!(&two[used..used + 4], b"POST");
        assert!(reply.ends_with(b"xxxx"));
        let rest = &two[used..];
        assert_eq!(answer(rest, &replies).unwrap().0, rest.len());
        assert!(answer(&rest[..rest.len() - 1], &replies).is_none());
    }

    #[test]
    fn a_path_that_is_not_there_is_not_found() {
        let (_, reply) = answer(b"GET /x HTTP/1.1\r\n\r\n", &Replies::new()).unwrap();
        assert!(reply.starts_with(b"HTTP/1.1 404"));
    }
}
