//! The application's client, lent to others: what is asked for here is called as the application would call it,
//! through whatever stands between it and the network. Tests stand behind it; it listens on a loopback address.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{client::legacy::Client, rt::TokioIo};
use serde::Deserialize;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{
    client::{Dialer, connect, http_client},
    load::{self, Burst, Outcome, Report},
    request::{self, TUNNEL_ERROR},
};

const MAX_BODY: usize = 64 * 1024 * 1024;

/// Calls a second at most.
const MAX_RATE: u32 = 5_000;

/// Requests of a burst at most.
const MAX_BURST: u64 = 100_000;

/// A load to generate.
#[derive(Debug, Deserialize)]
struct Wanted {
    uri: String,
    rate: u32,
    #[serde(default)]
    method: Option<String>,
}

/// A load that is being generated.
struct Running {
    stop: oneshot::Sender<()>,
    report: JoinHandle<Report>,
}

struct Tunnel {
    client: Client<Dialer, Full<Bytes>>,
    load: Mutex<Option<Running>>,
}

pub(super) async fn serve(listener: TcpListener) {
    let tunnel =
        Arc::new(Tunnel { client: http_client(Dialer::direct(), false), load: Mutex::default() });
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors or the like: wait instead of spinning.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let tunnel = Arc::clone(&tunnel);
        let service = service_fn(move |request| {
            let tunnel = Arc::clone(&tunnel);
            async move { Ok::<_, io::Error>(tunnel.answer(request).await) }
        });
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "tunnel's connection ended");
            }
        });
    }
}

impl Tunnel {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let target = request.uri().clone();
        let outcome = match (request.method(), target.scheme().is_some(), target.path()) {
            (&Method::CONNECT, ..) => open(request).await,
            (_, true, _) => self.forward(request).await,
            (&Method::POST, _, "/load") => self.start_load(request).await,
            (&Method::DELETE, _, "/load") => self.end_load().await,
            (&Method::POST, _, "/burst") => burst(request).await,
            _ => Ok(plain(
                StatusCode::NOT_FOUND,
                "an absolute URI, CONNECT, /load or /burst\n".into(),
            )),
        };
        outcome.unwrap_or_else(|error| {
            let text = format!("{error:#}");
            let mut response = plain(StatusCode::BAD_GATEWAY, text.clone());
            let text: String = text.chars().filter(|c| c.is_ascii() && !c.is_control()).collect();
            let value = HeaderValue::from_str(&text);
            let value = value.unwrap_or(HeaderValue::from_static("failed"));
            response.headers_mut().insert(TUNNEL_ERROR, value);
            response
        })
    }

    /// Sends the request on and the answer back.
    async fn forward(&self, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        connection_headers_off(&mut parts.headers);
        let sent = Request::from_parts(parts, Full::new(body));
        let mut response = self.client.request(sent).await?;
        connection_headers_off(response.headers_mut());
        Ok(response.map(Body::new))
    }

    async fn start_load(&self, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        let Wanted { uri, rate, method } = match serde_json::from_slice(&whole(request).await?) {
            Ok(wanted) => wanted,
            Err(error) => return Ok(plain(StatusCode::BAD_REQUEST, format!("{error}\n"))),
        };
        let method: Method = method.as_deref().unwrap_or("GET").parse()?;
        let probe = Request::builder().method(&method).uri(&uri).body(())?;
        if rate > MAX_RATE || probe.uri().host().is_none() {
            let text = format!("rate: at most {MAX_RATE}; uri: absolute\n");
            return Ok(plain(StatusCode::BAD_REQUEST, text));
        }
        let (stop, stopped) = oneshot::channel();
        let report = tokio::spawn(async move {
            let client = request::Client::direct();
            let make = |_| request::request(method.clone(), &uri, &[]);
            load::run(&client, rate, make, load::success, stopped).await.0
        });
        let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = load.replace(Running { stop, report }) {
            before.report.abort();
        }
        Ok(plain(StatusCode::ACCEPTED, String::new()))
    }

    async fn end_load(&self) -> anyhow::Result<Response<Body>> {
        let running = self.load.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { stop, report }) = running else {
            return Ok(plain(StatusCode::CONFLICT, "no load is being generated\n".into()));
        };
        // When it is gone it has ended by itself.
        let _ = stop.send(());
        let mut report = report.await?;
        report.thin_out();
        Ok(plain(StatusCode::OK, serde_json::to_string(&report)?))
    }
}

async fn whole(request: Request<Incoming>) -> anyhow::Result<Bytes> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
}

/// Sends many requests, with connections of its own, and tells what became of each.
async fn burst(request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let burst: Burst = match serde_json::from_slice(&whole(request).await?) {
        Ok(burst) => burst,
        Err(error) => return Ok(plain(StatusCode::BAD_REQUEST, format!("{error}\n"))),
    };
    let Burst { method, uri, headers, count, at_once } = burst;
    if count > MAX_BURST || at_once == 0 {
        let text = format!("count: at most {MAX_BURST}; at_once: at least 1\n");
        return Ok(plain(StatusCode::BAD_REQUEST, text));
    }
    let mut sent = Request::builder().method(method.as_str()).uri(&uri);
    for (name, value) in &headers {
        sent = sent.header(name, value);
    }
    let sent = sent.body(Full::default())?;
    let client = request::Client::direct();
    let outcomes = load::burst(&client, count, at_once, |_| sent.clone(), Outcome::of).await;
    Ok(plain(StatusCode::OK, serde_json::to_string(&outcomes)?))
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// Headers that belong to one connection.
fn connection_headers_off(headers: &mut HeaderMap) {
    for name in ["connection", "proxy-connection", "keep-alive", "transfer-encoding"] {
        headers.remove(name);
    }
    headers.remove(header::UPGRADE);
}

/// `CONNECT`: bytes both ways, each end closed when its peer's is.
async fn open(request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let target = request.uri().clone();
    let (Some(host), Some(port)) = (target.host(), target.port_u16()) else {
        return Ok(plain(StatusCode::BAD_REQUEST, "CONNECT HOST:PORT\n".into()));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut upstream = connect(host, port).await?;
    tokio::spawn(async move {
        let copied = async {
            let client = hyper::upgrade::on(request).await.map_err(io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut upstream).await
        };
        if let Err(error) = copied.await {
            tracing::debug!(%error, "tunnel ended");
        }
    });
    Ok(plain(StatusCode::OK, String::new()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::Notify,
    };

    use super::*;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn tunnel() -> SocketAddr {
        let (listener, address) = listener().await;
        tokio::spawn(serve(listener));
        address
    }

    /// A server, and what tells of each request.
    async fn web() -> (SocketAddr, Arc<Notify>) {
        let (listener, address) = listener().await;
        let called = Arc::new(Notify::new());
        let (good, bad) = (Arc::clone(&called), Arc::clone(&called));
        let tell = |called: Arc<Notify>, status: StatusCode| {
            move || async move {
                called.notify_one();
                (status, "heard")
            }
        };
        let router = Router::new()
            .route("/good", get(tell(good, StatusCode::OK)))
            .fallback(tell(bad, StatusCode::NOT_FOUND));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (address, called)
    }

    #[tokio::test]
    async fn absolute_uris_are_called_and_failures_are_told_from_answers() {
        let (tunnel, (web, _)) = (tunnel().await, web().await);
        let client = request::Client::through(tunnel);
        assert_eq!(client.get(&format!("http://{web}/good")).await.unwrap().text(), "heard");
        let missing = client.get(&format!("http://{web}/bad")).await.unwrap();
        assert_eq!(missing.status, StatusCode::NOT_FOUND);
        let (gone, nobody) = listener().await;
        drop(gone);
        client.get(&format!("http://{nobody}/")).await.unwrap_err();
    }

    #[tokio::test]
    async fn connect_carries_bytes_both_ways() {
        let (listener, echo) = listener().await;
        tokio::spawn(super::super::tcp::serve(listener, "220 ready\r\n".into()));
        let mut stream = TcpStream::connect(tunnel().await).await.unwrap();
        stream
            .write_all(format!("CONNECT {echo} HTTP/1.1\r\nhost: {echo}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        stream.write_all(b"more").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all:?}");
        assert!(all.ends_with("\r\n\r\n220 ready\r\nmore"), "{all:?}");
    }

    #[tokio::test]
    async fn a_burst_tells_of_each_request() {
        let (tunnel, (web, _)) = (tunnel().await, web().await);
        for (path, status) in [("good", 200), ("bad", 404)] {
            let burst = Burst::get(&format!("http://{web}/{path}")).count(50).at_once(5);
            let mut order = request::request(Method::POST, &format!("http://{tunnel}/burst"), &[]);
            *order.body_mut() = serde_json::to_string(&burst).unwrap().into();
            let reply = request::Client::direct().send(order).await.unwrap();
            let outcomes: Vec<Outcome> = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(outcomes.len(), 50);
            assert!(outcomes.iter().all(|o| o.status == status && o.text == "heard"));
        }
    }

    #[tokio::test]
    async fn a_load_runs_until_it_is_ended_and_reports() {
        let tunnel = tunnel().await;
        let client = request::Client::direct();
        let load = format!("http://{tunnel}/load");
        for (path, good) in [("good", true), ("bad", false)] {
            let (web, called) = web().await;
            let mut start = request::request(Method::POST, &load, &[]);
            let wanted = format!("{{\"uri\": \"http://{web}/{path}\", \"rate\": 500}}");
            *start.body_mut() = wanted.into();
            assert_eq!(client.send(start).await.unwrap().status, StatusCode::ACCEPTED);
            tokio::time::timeout(Duration::from_secs(60), called.notified()).await.unwrap();
            let end = request::request(Method::DELETE, &load, &[]);
            let reply = client.send(end).await.unwrap();
            let report: Report = serde_json::from_slice(&reply.body).unwrap();
            assert!(report.sent > 0);
            assert_eq!(report.succeeded, if good { report.sent } else { 0 });
        }
        let end = request::request(Method::DELETE, &load, &[]);
        assert_eq!(client.send(end).await.unwrap().status, StatusCode::CONFLICT);
    }
}
