//! The application's probes and lifecycle hooks, which the injector has turned to the proxy.
//!
//! `ISTIO_KUBE_APP_PROBERS`: a JSON object from the path at the proxy to what the pod said in its place, ports as numbers.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri,
    header::{CONNECTION, HOST},
};
use http_body_util::Full;
use serde::Deserialize;

use super::{
    call::{CallError, Caller},
    grpc::{self, GrpcError},
    redirect::Step,
};
use crate::control::names;

/// Redirections that are followed, as by the kubelet.
const REDIRECTIONS: usize = 10;

/// Why probes cannot be read: not the JSON that it should be.
#[derive(Debug, thiserror::Error)]
#[error("is not an object of probes")]
pub struct ProbeError(#[from] serde_json::Error);

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The host's name.
    #[error("cannot find {0}")]
    Host(String, #[source] std::io::Error),
    /// The request cannot be made.
    #[error("request")]
    Request(#[from] http::Error),
    /// The health check.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The application sends the probe from one place to the next.
    #[error("stopped after {0} redirections")]
    Redirections(usize),
    /// What the pod asks for makes no sense.
    #[error("the probe cannot be made: it {0}")]
    Senseless(String),
}

/// A probe as the pod had it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    #[serde(default)]
    host: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Debug, Deserialize)]
struct Header {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct TcpSocket {
    port: u16,
    #[serde(default)]
    host: String,
}

#[derive(Debug, Deserialize)]
struct Grpc {
    port: u16,
    service: Option<String>,
}

/// What a probe does.
#[derive(Debug)]
enum Action {
    Http {
        host: String,
        port: u16,
        tls: bool,
        path: Uri,
        headers: HeaderMap,
    },
    Tcp {
        host: String,
        port: u16,
    },
    Grpc {
        port: u16,
        service: String,
    },
    /// Fails, and says why: the mistake of one probe is not one of the others'.
    None {
        problem: String,
    },
}

/// A probe.
#[derive(Debug)]
pub struct Probe {
    action: Action,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// The probes by their paths at the proxy.
#[derive(Debug, Default)]
pub struct Probes(HashMap<String, Probe>);

impl Probes {
    /// Reads what the injector has written.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn read(json: &str) -> Result<Self, ProbeError> {
        let originals: HashMap<String, Original> = serde_json::from_str(json)?;
        let probes = originals.into_iter().map(|(path, original)| {
            let timeout = original.timeout_seconds.filter(|seconds| *seconds > 0);
            let action = action(original).unwrap_or_else(|problem| {
                tracing::warn!(path, problem, "a probe that cannot be made will fail");
                Action::None { problem }
            });
            (path, Probe { action, timeout: timeout.map(Duration::from_secs) })
        });
        Ok(Self(probes.collect()))
    }

    /// The probe at a path.
    pub fn get(&self, path: &str) -> Option<&Probe> {
        self.0.get(path)
    }
}

fn action(original: Original) -> Result<Action, String> {
    if let Some(get) = original.http_get {
        let path = if get.path.starts_with('/') { get.path } else { format!("/{}", get.path) };
        let mut headers = HeaderMap::new();
        for header in get.http_headers {
            let name: HeaderName =
                header.name.parse().map_err(|_| format!("has no header {:?}", header.name))?;
            let value = HeaderValue::from_str(&header.value)
                .map_err(|_| format!("cannot send {:?} as {name}", header.value))?;
            headers.append(name, value);
        }
        return Ok(Action::Http {
            host: get.host,
            port: get.port,
            tls: get.scheme.eq_ignore_ascii_case("https"),
            path: uri(&path).ok_or_else(|| format!("has no path {path:?}"))?,
            headers,
        });
    }
    if let Some(socket) = original.tcp_socket {
        return Ok(Action::Tcp { host: socket.host, port: socket.port });
    }
    let grpc = original.grpc.ok_or("has none of httpGet, tcpSocket and grpc")?;
    Ok(Action::Grpc { port: grpc.port, service: grpc.service.unwrap_or_default() })
}

/// A path as requests have it. Kubernetes takes any text, and the kubelet escapes what may not stand there.
fn uri(path: &str) -> Option<Uri> {
    let escaped = path.bytes().fold(String::with_capacity(path.len()), |mut text, byte| {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    });
    escaped.parse().ok()
}

impl Probe {
    /// Asks the application. The status is that of its answer.
    ///
    /// # Errors
    /// There is no answer, or not a good one.
    pub async fn run(&self, caller: &Caller, headers: &HeaderMap) -> Result<StatusCode, Failure> {
        match &self.action {
            Action::Http { host, port, tls, path, headers: own } => {
                let to = address(caller, host, *port).await?;
                let is_same = |named: &str| match named.parse::<IpAddr>() {
                    Ok(named) => named == to.ip() && (host.is_empty() || host.parse() == Ok(named)),
                    Err(_) => named.eq_ignore_ascii_case(host),
                };
                let mut step = Step { port: *port, tls: *tls, path: path.clone(), authority: None };
                for _ in 0..REDIRECTIONS {
                    let to = SocketAddr::new(to.ip(), step.port);
                    let request = request(&step, to, headers, own)?;
                    let answer = caller.http1(to, step.tls, request).await?;
                    match step.next(answer.status(), answer.headers(), is_same) {
                        Some(next) => step = next,
                        None => return Ok(answer.status()),
                    }
                }
                Err(Failure::Redirections(REDIRECTIONS))
            }
            Action::Tcp { host, port } => {
                let to = address(caller, host, *port).await?;
                caller.connect(to).await?;
                Ok(StatusCode::OK)
            }
            Action::Grpc { port, service } => {
                let to = SocketAddr::new(caller.pod(), *port);
                grpc::check(caller, to, service).await?;
                Ok(StatusCode::OK)
            }
            Action::None { problem } => Err(Failure::Senseless(problem.clone())),
        }
    }
}

/// Where the probe goes: to the pod, unless it names another host.
async fn address(caller: &Caller, host: &str, port: u16) -> Result<SocketAddr, Failure> {
    if host.is_empty() {
        return Ok(SocketAddr::new(caller.pod(), port));
    }
    let addresses =
        names::look_up(host).await.map_err(|error| Failure::Host(host.to_owned(), error))?;
    let family = |address: &&IpAddr| address.is_ipv4() == caller.pod().is_ipv4();
    let address = addresses.iter().find(family).or(addresses.first()).copied();
    Ok(SocketAddr::new(address.unwrap_or(caller.pod()), port))
}

/// The kubelet's own headers, and those of the probe.
fn request(
    step: &Step,
    to: SocketAddr,
    kubelet: &HeaderMap,
    own: &HeaderMap,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::get(step.path.clone()).body(Full::default())?;
    let headers = request.headers_mut();
    for (name, value) in kubelet {
        if *name != HOST && *name != CONNECTION && !own.contains_key(name) {
            headers.append(name, value.clone());
        }
    }
    for (name, value) in own {
        headers.append(name, value.clone());
    }
    if let Some(authority) = &step.authority {
        headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    } else if !headers.contains_key(HOST) {
        headers.insert(HOST, HeaderValue::from_str(&to.to_string())?);
    }
    Ok(request)
}
