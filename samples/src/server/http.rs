//! The HTTP side: any path answers; a few have a meaning of their own.

use std::{
    collections::HashMap, convert::Infallible, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{
        Query, Request, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use socket2::SockRef;
use tower::ServiceExt;

use super::App;
use crate::{
    answer::{Answer, Upstream, readable},
    client::grpc_channel,
    control::{Counters, Failure, parse_duration},
    payment::{ChargeRequest, payments_client::PaymentsClient},
    role::Call,
};

/// Bodies, of requests and of upstreams' answers, beyond this are refused.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// What an answer can be padded with at most.
const MAX_PADDING: usize = 16 * 1024 * 1024;

/// Marks a response in whose place the connection is reset.
#[derive(Clone, Copy)]
struct ResetInstead;

/// The peer of the connection that carried a request.
#[derive(Clone, Copy)]
struct Peer(SocketAddr);

/// The service of one connection, which the socket is of.
pub(super) fn service(
    app: Arc<App>,
    peer: SocketAddr,
    socket: OwnedFd,
) -> impl hyper::service::Service<
    hyper::Request<Incoming>,
    Response = Response,
    Error = io::Error,
    Future = BoxFuture<'static, io::Result<Response>>,
> + Send {
    let router = Router::new()
        .route("/_sample/counters", get(counters))
        .route("/_sample/fail", post(plan))
        .route("/_sample/ready", get(StatusCode::OK))
        .route("/_sample/reset", post(reset))
        .route("/_sample/wiretap", get(wiretap))
        .route("/ws", any(websocket))
        .fallback(answer)
        .with_state(app);
    let socket = Arc::new(socket);
    hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let answered = router.clone().oneshot(request.map(Body::new));
        let socket = Arc::clone(&socket);
        async move {
            let response = answered.await.unwrap_or_else(|never: Infallible| match never {});
            if response.extensions().get::<ResetInstead>().is_some() {
                // Closed with this option, TCP does not say goodbye.
                SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
                return Err(io::Error::other("the request asked for a reset connection"));
            }
            Ok(response)
        }
        .boxed()
    })
}

async fn counters(State(app): State<Arc<App>>) -> Json<Counters> {
    Json(app.control.counters())
}

async fn wiretap(State(app): State<Arc<App>>) -> Response {
    match &app.wiretap {
        Some(wiretap) => Json(wiretap.seen()).into_response(),
        None => (StatusCode::NOT_FOUND, "nobody listens: --wiretap\n").into_response(),
    }
}

async fn reset(State(app): State<Arc<App>>) -> StatusCode {
    app.control.reset();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct PlanQuery {
    status: String,
    #[serde(default)]
    next: u64,
    #[serde(default)]
    rate: f64,
}

async fn plan(State(app): State<Arc<App>>, Query(query): Query<PlanQuery>) -> Response {
    match Failure::parse(&query.status) {
        Some(failure) => {
            app.control.plan(failure, query.next, query.rate);
            StatusCode::NO_CONTENT.into_response()
        }
        None => (StatusCode::BAD_REQUEST, "status: 200 to 599, or reset\n").into_response(),
    }
}

async fn websocket(State(app): State<Arc<App>>, upgrade: WebSocketUpgrade) -> Response {
    drop(app.control.begin("/ws"));
    upgrade.on_upgrade(echo)
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let sent = match message {
            Message::Text(_) | Message::Binary(_) => socket.send(message).await,
            // The answer to a close is sent while the next message is waited for; then there is none.
            Message::Close(_) | Message::Ping(_) | Message::Pong(_) => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// What a request asks for besides an answer.
struct Wishes {
    delay: Option<Duration>,
    failure: Option<Failure>,
    rate: f64,
    padding: usize,
}

impl Wishes {
    /// From the query (for this role alone) and the headers (`[role=]value`, forwarded to upstreams).
    fn read(query: &HashMap<String, String>, headers: &HeaderMap, role: &str) -> Self {
        let wish =
            |key: &str| query.get(key).map(String::as_str).or_else(|| for_role(headers, key, role));
        let number = |key: &str| query.get(key).and_then(|value| value.parse::<f64>().ok());
        Self {
            delay: wish("delay").and_then(parse_duration),
            failure: wish("fail").and_then(Failure::parse),
            rate: number("fail_rate").unwrap_or(100.0),
            padding: number("size").map_or(0, |size| (size as usize).min(MAX_PADDING)),
        }
    }
}

fn for_role<'a>(headers: &'a HeaderMap, key: &str, role: &str) -> Option<&'a str> {
    let value = headers.get(format!("x-sample-{key}"))?.to_str().ok()?;
    value.split(',').map(str::trim).find_map(|item| match item.split_once('=') {
        Some((wanted, value)) => (wanted == role).then_some(value),
        None => Some(item),
    })
}

async fn answer(
    State(app): State<Arc<App>>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let _in_flight = app.control.begin(path);
    let role = app.settings.role;
    let wishes = Wishes::read(&query, &parts.headers, role.as_str());
    let body_bytes = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes().len(),
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    if let Some(delay) = wishes.delay {
        tokio::time::sleep(delay).await;
    }
    let asked = wishes.failure.filter(|_| app.control.happens(wishes.rate));
    let failed = match asked.or_else(|| app.control.planned()) {
        Some(Failure::Reset) => {
            let mut response = StatusCode::OK.into_response();
            response.extensions_mut().insert(ResetInstead);
            return response;
        }
        Some(Failure::Status(status)) => StatusCode::from_u16(status).ok(),
        None => None,
    };
    let calls = if failed.is_some() { Vec::new() } else { role.calls(path) };
    let upstreams = calls.into_iter().map(|each| call(&app, &parts.headers, each));
    let upstreams = futures_util::future::join_all(upstreams).await;
    let status = failed.unwrap_or(if upstreams.iter().all(|upstream| upstream.ok) {
        StatusCode::OK
    } else {
        StatusCode::BAD_GATEWAY
    });
    let answer = Answer {
        role: role.to_string(),
        version: app.settings.app_version.clone(),
        pod: app.settings.pod_name(),
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: readable(&parts.headers),
        body_bytes,
        connection: parts.extensions.get::<Peer>().map_or_else(String::new, |p| p.0.to_string()),
        upstreams,
        padding: "x".repeat(wishes.padding),
    };
    (status, Json(answer)).into_response()
}

/// Headers that an application passes on: of tracing, and those that steer the sample and its routes.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    const NAMES: [&str; 10] = [
        "x-request-id",
        "traceparent",
        "tracestate",
        "baggage",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "b3",
        "user-type",
    ];
    let wanted = |name: &str| NAMES.contains(&name) || name.starts_with("x-sample-");
    let pairs = headers.iter().filter(|(name, _)| wanted(name.as_str()));
    pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

async fn call(app: &App, incoming: &HeaderMap, call: Call) -> Upstream {
    match call {
        Call::Http { method, service, path } => {
            http_call(app, incoming, method, service, &path).await
        }
        Call::Charge { service, order } => charge(app, incoming, service, order).await,
    }
}

fn failed(call: String, error: impl std::fmt::Display) -> Upstream {
    Upstream { call, error: Some(error.to_string()), ..Upstream::default() }
}

async fn http_call(
    app: &App,
    incoming: &HeaderMap,
    method: Method,
    service: &str,
    path: &str,
) -> Upstream {
    let port = match app.settings.upstream_http_port {
        80 => String::new(),
        port => format!(":{port}"),
    };
    let call = format!("{method} http://{service}{port}{path}");
    let uri: Uri = match format!("http://{service}{port}{path}").parse() {
        Ok(uri) => uri,
        Err(error) => return failed(call, error),
    };
    let mut request = http::Request::new(Full::new(Bytes::new()));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = passed_on(incoming);
    let response = match app.client.request(request).await {
        Ok(response) => response,
        Err(error) => return failed(call, error),
    };
    let status = response.status();
    let is_json =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let body = match Limited::new(response.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return failed(call, error),
    };
    let body = match is_json {
        true => serde_json::from_slice(&body).unwrap_or_default(),
        false => Value::String(String::from_utf8_lossy(&body).into_owned()),
    };
    Upstream { call, status: Some(status.as_u16()), ok: status.is_success(), error: None, body }
}

async fn charge(app: &App, incoming: &HeaderMap, service: &str, order: String) -> Upstream {
    let target = format!("http://{service}:{}", app.settings.upstream_grpc_port);
    let call = format!("gRPC {target} Charge");
    let uri: Uri = match target.parse() {
        Ok(uri) => uri,
        Err(error) => return failed(call, error),
    };
    let channel = app.payment.get_or_init(|| grpc_channel(&app.dialer, &uri)).clone();
    let mut request =
        tonic::Request::new(ChargeRequest { order, cents: 4_200, fail_code: 0, delay_ms: 0 });
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(passed_on(incoming));
    match PaymentsClient::new(channel).charge(request).await {
        Ok(reply) => {
            let reply = reply.into_inner();
            let body = json!({"role": reply.role, "version": reply.version, "pod": reply.pod,
                "metadata": reply.metadata});
            Upstream { call, status: Some(200), ok: true, error: None, body }
        }
        Err(status) => failed(call, status),
    }
}
