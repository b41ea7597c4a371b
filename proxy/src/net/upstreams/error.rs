//! Why an attempt on an endpoint failed.

use std::{error::Error, fmt, sync::Arc};

use crate::net::{body::RequestBody, flags::ResponseFlags};

/// What went wrong with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A circuit breaker is open.
    Overflow,
    /// The endpoint could not be connected to.
    Connect,
    /// Connecting took longer than the cluster's connect timeout.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The connection closed before the response was complete.
    Closed,
    /// The endpoint reset the stream.
    RemoteReset,
    /// The endpoint did not process the request and says so (HTTP/2 `REFUSED_STREAM`, or a GOAWAY).
    Refused,
    /// What the endpoint sent is not HTTP, or beyond the limits.
    Protocol,
    /// The request's own body failed: the client's doing.
    RequestBody,
}

impl ErrorKind {
    /// The response flag that stands for it.
    pub fn flag(self) -> ResponseFlags {
        match self {
            Self::Overflow => ResponseFlags::UO,
            Self::Connect | Self::ConnectTimeout | Self::Tls => ResponseFlags::UF,
            Self::Closed => ResponseFlags::UC,
            Self::RemoteReset | Self::Refused => ResponseFlags::UR,
            Self::Protocol => ResponseFlags::UPE,
            Self::RequestBody => ResponseFlags::DC,
        }
    }

    /// Envoy's words, as they follow `upstream connect error or disconnect/reset before headers. reset reason: `.
    pub fn reset_reason(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Connect | Self::Tls => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::Closed => "connection termination",
            Self::RemoteReset => "remote reset",
            Self::Refused => "remote refused stream reset",
            Self::Protocol => "protocol error",
            Self::RequestBody => "local reset",
        }
    }
}

/// What is behind a failure.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// A response's body that broke off.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the response broke off: {}", kind.reset_reason())]
pub struct BodyError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The cause.
    #[source]
    pub source: Cause,
}

impl BodyError {
    pub(in crate::net) fn new(kind: ErrorKind, source: Cause) -> Self {
        Self { kind, source }
    }
}

/// A failed attempt.
pub struct UpstreamError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// Something of the request may have reached the endpoint's application.
    pub sent: bool,
    /// The connection had been used before: the endpoint may have closed it just then.
    pub reused: bool,
    /// The endpoint ended the connection in order, not by a reset, before it said anything to the request.
    pub ended: bool,
    /// The request's body, untouched, when nothing of the request was sent and it could be had back.
    pub body: Option<Box<RequestBody>>,
    /// The cause.
    pub source: Option<Cause>,
}

impl UpstreamError {
    /// An attempt of which nothing was sent.
    pub fn unsent(kind: ErrorKind) -> Self {
        Self { kind, sent: false, reused: false, ended: false, body: None, source: None }
    }

    pub(in crate::net) fn with_body(mut self, body: RequestBody) -> Self {
        self.body = Some(Box::new(body));
        self
    }
}

impl UpstreamError {
    /// The response flag that stands for it.
    pub fn flag(&self) -> ResponseFlags {
        self.kind.flag()
    }

    /// Envoy's words, as they follow `upstream connect error or disconnect/reset before headers. reset reason: `.
    pub fn reset_reason(&self) -> &'static str {
        self.kind.reset_reason()
    }

    /// The causes in one line, for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`; empty when the transport was fine.
    pub fn transport_failure(&self) -> String {
        let transport =
            matches!(self.kind, ErrorKind::Connect | ErrorKind::ConnectTimeout | ErrorKind::Tls);
        let mut text = String::new();
        let mut cause: Option<&dyn Error> = None;
        if transport && let Some(source) = &self.source {
            cause = Some(source.as_ref());
        }
        while let Some(error) = cause {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reset_reason())
    }
}

impl fmt::Debug for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamError")
            .field("kind", &self.kind)
            .field("sent", &self.sent)
            .field("reused", &self.reused)
            .field("ended", &self.ended)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Error for UpstreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}
