//! The application's own metrics, where its annotations say that they are.
//!
//! `ISTIO_PROMETHEUS_ANNOTATIONS`: `{"scrape": "true", "path": "/metrics", "port": "8080"}`, all of them strings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use http::{
    Request, StatusCode, Uri,
    header::{ACCEPT, HOST},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde::Deserialize;

use super::call::{CallError, Caller};

/// The most that is taken.
const LONGEST: usize = 32 << 20;
/// The one form that can stand behind the proxy's own.
const FORM: &str = "text/plain;version=0.0.4";

/// Why annotations cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// Not the JSON that it should be.
    #[error("is not an object of strings")]
    Json(#[from] serde_json::Error),
    /// The port.
    #[error("port {0:?} is not a port")]
    Port(String),
    /// The path.
    #[error("path {0:?} is not a path")]
    Path(String),
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The request cannot be made.
    #[error("request")]
    Request(#[from] http::Error),
    /// Something else than metrics.
    #[error("the application answers {0}")]
    Status(StatusCode),
    /// The answer broke off.
    #[error("the answer broke off")]
    Body,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    scrape: String,
    path: String,
    port: String,
}

/// Where the metrics are.
#[derive(Debug)]
pub struct Scrape {
    port: u16,
    path: Uri,
}

impl Scrape {
    /// Reads the annotations; `None`: the application has no metrics.
    ///
    /// # Errors
    /// See [`ScrapeError`].
    pub fn read(json: &str) -> Result<Option<Self>, ScrapeError> {
        let annotations: Annotations = serde_json::from_str(json)?;
        if annotations.scrape != "true" {
            return Ok(None);
        }
        let port = if annotations.port.is_empty() { "80" } else { &annotations.port };
        let path = if annotations.path.is_empty() { "/metrics" } else { &annotations.path };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Some(Self {
            port: port.parse().map_err(|_| ScrapeError::Port(port.to_owned()))?,
            path: path.parse().map_err(|_| ScrapeError::Path(path))?,
        }))
    }

    /// Asks for them, ends with a line's end.
    pub async fn fetch(&self, caller: &Caller) -> Result<Bytes, FetchError> {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port);
        let answer = match caller.http1(local, false, self.request(local)?).await {
            // It may listen on the pod's address only.
            Err(CallError::Connect(..)) => {
                let own = SocketAddr::new(caller.pod(), self.port);
                caller.http1(own, false, self.request(own)?).await?
            }
            answer => answer?,
        };
        if !answer.status().is_success() {
            return Err(FetchError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => CallError::TooLong(LONGEST).into(),
            None => FetchError::Body,
        })?;
        let mut bytes = BytesMut::from(body.to_bytes());
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.extend_from_slice(b"\n");
        }
        Ok(bytes.freeze())
    }

    fn request(&self, to: SocketAddr) -> Result<Request<Full<Bytes>>, http::Error> {
        Request::get(self.path.clone())
            .header(HOST, to.to_string())
            .header(ACCEPT, FORM)
            .body(Full::default())
    }
}
