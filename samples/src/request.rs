//! HTTP requests as an application makes them, and as somebody without a proxy makes them.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};

use crate::{
    answer::Answer,
    client::{Dialer, http_client},
};

/// Marks an answer of a tunnel that has none from whom it asked.
pub(crate) const TUNNEL_ERROR: &str = "x-sample-tunnel-error";

/// Answers beyond this are refused.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// A pooled HTTP/1.1 client that never sends a request twice.
#[derive(Clone, Debug)]
pub struct Client {
    inner: hyper_util::client::legacy::Client<Dialer, Full<Bytes>>,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the sample application saw.
    ///
    /// # Errors
    /// When the body is something else.
    pub fn answer(&self) -> anyhow::Result<Answer> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} with body {:?}", self.status, self.text()))
    }

    /// A response header, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

/// A request without a body.
pub fn request(method: Method, uri: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("callers write valid requests")
}

impl Client {
    /// Sends everything through an explicit proxy, as `http_proxy=` makes applications do.
    pub fn through(proxy: SocketAddr) -> Self {
        Self { inner: http_client(Dialer::through(&proxy.to_string()), false) }
    }

    /// Connects to what the request names.
    pub fn direct() -> Self {
        Self { inner: http_client(Dialer::direct(), false) }
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// When there is no answer, or only half of it.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let what = format!("{} {}", request.method(), request.uri());
        let response = self.inner.request(request).await.with_context(|| what.clone())?;
        let (parts, body) = response.into_parts();
        if let Some(error) = parts.headers.get(TUNNEL_ERROR) {
            anyhow::bail!("{what}: {}", String::from_utf8_lossy(error.as_bytes()));
        }
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error)).context(what)?.to_bytes();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&self, uri: &str) -> anyhow::Result<Reply> {
        self.send(request(Method::GET, uri, &[])).await
    }

    /// GET with headers.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get_with(&self, uri: &str, headers: &[(&str, &str)]) -> anyhow::Result<Reply> {
        self.send(request(Method::GET, uri, headers)).await
    }

    /// POST without a body.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post(&self, uri: &str) -> anyhow::Result<Reply> {
        self.send(request(Method::POST, uri, &[])).await
    }
}

/// `http://ADDRESS:PORT/PATH`
pub fn url(address: impl Into<IpAddr>, port: u16, path: &str) -> String {
    format!("http://{}{path}", SocketAddr::new(address.into(), port))
}
