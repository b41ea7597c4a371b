//! One question to one endpoint.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Version, header::HOST};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    config::{
        health::{HealthCheck, HttpProbe, Probe},
        tls::{Carries, UpstreamTls},
    },
    net::tls::{self, TlsContexts, TlsError},
};

/// What an endpoint may say before what it should have said.
const LONGEST: usize = 64 << 10;

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can take requests.
    Good,
    /// It says itself that it cannot.
    Bad,
    /// There was no answer.
    None,
}

/// Why an endpoint does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody answers in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// There is no connection, or it breaks.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The TLS handshake.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The exchange.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be made.
    #[error("request: {0}")]
    Request(#[from] http::Error),
    /// Another status.
    #[error("status {0}")]
    Status(StatusCode, bool),
    /// Other bytes.
    #[error("it did not send what it should")]
    Bytes,
}

impl ProbeError {
    /// What it means.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Status(_, false) => Verdict::Bad,
            _ => Verdict::None,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Asks once.
///
/// # Errors
/// The endpoint is not healthy, and why.
pub async fn ask(
    address: SocketAddr,
    tls: Option<&Arc<UpstreamTls>>,
    contexts: &TlsContexts,
    check: &HealthCheck,
) -> Result<(), ProbeError> {
    let answer = async {
        let stream = connect(address, tls, contexts, &check.probe).await?;
        match &check.probe {
            Probe::Http(probe) => http(stream, probe).await,
            Probe::Tcp { send, receive } => tcp(stream, send, receive).await,
        }
    };
    timeout(check.timeout, answer).await.map_err(|_| ProbeError::Timeout(check.timeout))?
}

async fn connect(
    address: SocketAddr,
    tls: Option<&Arc<UpstreamTls>>,
    contexts: &TlsContexts,
    probe: &Probe,
) -> Result<Box<dyn Stream>, ProbeError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(settings) = tls else { return Ok(Box::new(stream)) };
    let carries = match probe {
        Probe::Http(probe) if probe.http2 => Carries::Http2,
        Probe::Http(_) => Carries::Http1,
        Probe::Tcp { .. } => Carries::Bytes,
    };
    let context = contexts.client(settings)?;
    let (stream, _) =
        tls::connect(&context, stream, &settings.sni, settings.offered(carries)).await?;
    Ok(Box::new(stream))
}

async fn http(stream: Box<dyn Stream>, probe: &HttpProbe) -> Result<(), ProbeError> {
    let mut request = Request::builder().method(&probe.method).uri(&*probe.path);
    if probe.http2 {
        request =
            request.version(Version::HTTP_2).uri(format!("http://{}{}", probe.host, probe.path));
    } else {
        request = request.header(HOST, &*probe.host);
    }
    let mut request =
        request.header("user-agent", "weft-proxy/health-check").body(Empty::<Bytes>::new())?;
    request.headers_mut().extend(probe.headers.clone());
    let io = TokioIo::new(stream);
    // The connection ends when the sender is dropped with the answer.
    let status = if probe.http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::task::spawn_local(connection);
        sender.send_request(request).await?.status()
    } else {
        let (mut sender, connection) = http1::handshake(io).await?;
        tokio::task::spawn_local(connection);
        sender.send_request(request).await?.status()
    };
    let within = |ranges: &[std::ops::Range<u16>]| {
        ranges.iter().any(|range| range.contains(&status.as_u16()))
    };
    if within(&probe.expected) {
        return Ok(());
    }
    Err(ProbeError::Status(status, within(&probe.retriable)))
}

/// What comes back must hold what is expected, in order.
async fn tcp(
    mut stream: Box<dyn Stream>,
    send: &[u8],
    receive: &[Vec<u8>],
) -> Result<(), ProbeError> {
    if send.is_empty() {
        return Ok(());
    }
    stream.write_all(send).await?;
    let mut got = Vec::new();
    while !holds(&got, receive) {
        if got.len() >= LONGEST || stream.read_buf(&mut got).await? == 0 {
            return Err(ProbeError::Bytes);
        }
    }
    Ok(())
}

fn holds(mut got: &[u8], wanted: &[Vec<u8>]) -> bool {
    wanted.iter().all(|wanted| {
        let at = got.windows(wanted.len().max(1)).position(|window| window == &wanted[..]);
        match at {
            Some(at) => {
                got = &got[at + wanted.len()..];
                true
            }
            None => wanted.is_empty(),
        }
    })
}
