//! One request and its response on an HTTP/2 stream: both directions are driven by whoever polls.
//!
//! The request's body goes out while the response comes in, before its head as well as after. A stream that is dropped
//! before both messages ended is reset.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream, client::ResponseFuture};
use http::{HeaderValue, Method, Request, Uri, Version, header, response, uri::Scheme};
use http_body::{Body, Frame, SizeHint};

use super::{connect::ConnectionInfo, http2::Lease};
use crate::{
    http2::{Incoming, Outgoing, SendError, prepare},
    net::{
        body::RequestBody,
        upstreams::{BodyError, Cause, ErrorKind, UpstreamError},
    },
};

/// A request on its stream.
#[derive(Debug)]
pub struct Exchange {
    upload: Upload,
    response: ResponseFuture,
    lease: Lease,
}

impl Exchange {
    /// Begins a request: its head is on its way.
    ///
    /// # Errors
    /// The connection has ended: the request comes back. Or the request is none.
    pub fn begin(lease: Lease, request: Request<RequestBody>) -> Result<Self, UpstreamError> {
        let unsent =
            UpstreamError { reused: lease.reused, ..UpstreamError::unsent(ErrorKind::Closed) };
        let Some(mut sender) = lease.sender() else {
            return Err(unsent.with_body(request.into_body()));
        };
        let (head, body) = for_http2(request);
        let ended = body.is_end_stream();
        let sent = sender.send_request(head, ended).map_err(|error| UpstreamError {
            source: Some(Arc::new(error)),
            ..UpstreamError::unsent(ErrorKind::Protocol)
        });
        let (response, stream) = sent?;
        let upload = if ended { Upload::Over } else { Upload::new(stream, body) };
        Ok(Self { upload, response, lease })
    }

    /// What is known of the connection.
    pub fn info(&self) -> &Arc<ConnectionInfo> {
        self.lease.info()
    }

    /// Sends the request and waits for the response's head.
    ///
    /// # Errors
    /// There is none.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(response::Parts, Incoming), UpstreamError>> {
        self.upload.poll(cx);
        if let Some(error) = self.upload.failure() {
            return Poll::Ready(Err(UpstreamError {
                source: Some(error),
                sent: true,
                reused: self.lease.reused,
                ..UpstreamError::unsent(ErrorKind::RequestBody)
            }));
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx));
        Poll::Ready(match response {
            Ok(response) => {
                let (parts, stream) = response.into_parts();
                // The library takes this for part of a name; a client of HTTP/1 would not get HTTP/1 (RFC 9110, 5.6.2).
                if parts.headers.keys().any(|name| name.as_str().contains('"')) {
                    return Poll::Ready(Err(self.failed(Reason::PROTOCOL_ERROR.into())));
                }
                let body = Incoming::new(stream, &parts.headers);
                Ok((parts, body))
            }
            Err(error) => Err(self.failed(error)),
        })
    }

    /// The response's body, with what is left of the request.
    pub fn into_body(self, incoming: Incoming) -> StreamBody {
        let Self { upload, lease, .. } = self;
        StreamBody { upload, incoming, _lease: lease }
    }

    fn failed(&self, error: h2::Error) -> UpstreamError {
        let (kind, sent) = classify(&error);
        let ended = !self.lease.is_lost() && ended(&error);
        UpstreamError {
            sent,
            ended,
            reused: self.lease.reused,
            source: Some(Arc::new(error)),
            ..UpstreamError::unsent(kind)
        }
    }
}

/// A response's body on its stream.
#[derive(Debug)]
pub struct StreamBody {
    upload: Upload,
    incoming: Incoming,
    _lease: Lease,
}

impl StreamBody {
    /// The next part of the response's body; `None`: it is over.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.upload.poll(cx);
        if let Some(error) = self.upload.failure() {
            return Poll::Ready(Some(Err(BodyError::new(ErrorKind::RequestBody, error))));
        }
        let frame = ready!(self.incoming.poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| BodyError::new(classify(&error).0, Arc::new(error)))
        }))
    }

    /// Goes on with the request while nobody has room for more of the response. Its end shows in [`Self::poll_frame`].
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) {
        self.upload.poll(cx);
    }

    /// Whether the response is over.
    pub fn is_over(&self) -> bool {
        self.incoming.is_over()
    }

    /// What is known of the size of what follows.
    pub fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// How far a request's body is.
#[derive(Debug)]
enum Upload {
    Body(Box<Outgoing<RequestBody>>),
    /// It broke off.
    Failed(Cause),
    /// It is sent, or the endpoint takes no more of it: why is found in the response.
    Over,
}

impl Upload {
    fn new(stream: SendStream<Bytes>, body: RequestBody) -> Self {
        Self::Body(Box::new(Outgoing::new(stream, body)))
    }

    /// Sends what there is.
    fn poll(&mut self, cx: &mut Context<'_>) {
        let Self::Body(body) = self else { return };
        match body.poll(cx) {
            Poll::Pending => {}
            Poll::Ready(Err(SendError::Body(error))) => {
                body.reset(Reason::CANCEL);
                *self = Self::Failed(Arc::from(error));
            }
            Poll::Ready(_) => *self = Self::Over,
        }
    }

    fn failure(&self) -> Option<Cause> {
        match self {
            Self::Failed(cause) => Some(cause.clone()),
            Self::Body(_) | Self::Over => None,
        }
    }
}

/// Absolute form without `Host`, and nothing that is of an HTTP/1 connection.
fn for_http2(request: Request<RequestBody>) -> (Request<()>, RequestBody) {
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_2;
    let host = parts.headers.remove(header::HOST);
    if let Some(size) = body.size_hint().exact()
        && (size > 0 || !matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE))
    {
        let size = || HeaderValue::from(size);
        parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(size);
    }
    prepare(&mut parts.headers);
    if parts.uri.authority().is_none()
        && let Some(authority) = host.and_then(|host| host.to_str().ok()?.parse().ok())
    {
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme.get_or_insert(Scheme::HTTP);
        uri.authority = Some(authority);
        // Scheme, authority and path are all there: the parts make a URI.
        parts.uri = Uri::from_parts(uri).unwrap_or_default();
    }
    (Request::from_parts(parts, ()), body)
}

/// What an error means, and whether something of the request may have reached the application.
fn classify(error: &h2::Error) -> (ErrorKind, bool) {
    if error.reason() == Some(Reason::REFUSED_STREAM) {
        return (ErrorKind::Refused, false);
    }
    if error.is_remote() && error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) {
        // The endpoint's GOAWAY names the last stream that it processed; this one came after it.
        return (ErrorKind::Refused, false);
    }
    if error.is_remote() && (error.is_reset() || error.is_go_away()) {
        return (ErrorKind::RemoteReset, true);
    }
    (if error.is_io() { ErrorKind::Closed } else { ErrorKind::Protocol }, true)
}

/// Whether the connection ended without a reset.
fn ended(error: &h2::Error) -> bool {
    let kind = error.get_io().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof))
}
