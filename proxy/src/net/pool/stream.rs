//! One request and its response on an HTTP/2 stream: both directions are driven by whoever polls.
//!
//! The request's body goes out while the response comes in, before its head as well as after. A stream that is dropped
//! before both messages ended is reset.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, response};
use http_body::{Body, Frame, SizeHint};

use super::{connect::ConnectionInfo, http2::Lease};
use crate::{
    http2::{self, By, Incoming, Outgoing, Reason, RecvStream, SendError, SendStream},
    net::{
        body::RequestBody,
        outbound::Outbound,
        upstreams::{BodyError, Cause, ErrorKind, UpstreamError},
    },
};

/// A request on its stream.
#[derive(Debug)]
pub struct Exchange {
    upload: Upload,
    /// Until the head has come.
    response: Option<RecvStream>,
    lease: Lease,
}

impl Exchange {
    /// Begins a request: its head is on its way.
    ///
    /// # Errors
    /// The connection has ended: the body comes back. Or the request is none.
    pub fn begin(
        lease: Lease,
        request: &Outbound<'_>,
        body: RequestBody,
    ) -> Result<Self, UpstreamError> {
        if !http2::is_authority(request.authority) {
            return Err(UpstreamError::unsent(ErrorKind::Protocol));
        }
        let ended = body.is_end_stream();
        let without = matches!(*request.method, Method::GET | Method::HEAD | Method::DELETE);
        let length = body.size_hint().exact().filter(|length| *length > 0 || !without);
        let Some((stream, response)) = lease.sender().request(request, length, ended) else {
            let unsent = UpstreamError::unsent(ErrorKind::Closed);
            return Err(UpstreamError { reused: lease.reused, ..unsent }.with_body(body));
        };
        let upload = stream.map_or(Upload::Over, |stream| Upload::new(stream, body));
        Ok(Self { upload, response: Some(response), lease })
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
        let Some(response) = &mut self.response else { return Poll::Pending };
        let head = ready!(response.poll_response(cx)).map_err(|error| self.failed(error));
        Poll::Ready(head.and_then(|head| {
            // `http` takes this for part of a name; a client of HTTP/1 would not get HTTP/1 (RFC 9110, 5.6.2).
            if head.headers.keys().any(|name| name.as_str().contains('"')) {
                return Err(self.failed(http2::Error::Reset(Reason::PROTOCOL_ERROR, By::Us)));
            }
            let stream = self.response.take();
            let stream = stream.ok_or_else(|| UpstreamError::unsent(ErrorKind::Protocol))?;
            let body = Incoming::new(stream);
            Ok((head, body))
        }))
    }

    /// The response's body, with what is left of the request.
    pub fn into_body(self, incoming: Incoming) -> StreamBody {
        let Self { upload, lease, .. } = self;
        StreamBody { upload, incoming, _lease: lease }
    }

    fn failed(&self, error: http2::Error) -> UpstreamError {
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
    fn new(stream: SendStream, body: RequestBody) -> Self {
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

/// What an error means, and whether something of the request may have reached the application.
fn classify(error: &http2::Error) -> (ErrorKind, bool) {
    match *error {
        http2::Error::Reset(Reason::REFUSED_STREAM, _) => (ErrorKind::Refused, false),
        // The endpoint's GOAWAY names the last stream that it processed; this one came after it.
        http2::Error::GoAway(Reason::NO_ERROR, By::Peer) => (ErrorKind::Refused, false),
        http2::Error::Reset(_, By::Peer) | http2::Error::GoAway(_, By::Peer) => {
            (ErrorKind::RemoteReset, true)
        }
        http2::Error::Reset(_, By::Us) | http2::Error::GoAway(_, By::Us) => {
            (ErrorKind::Protocol, true)
        }
        http2::Error::Io(_) => (ErrorKind::Closed, true),
    }
}

/// Whether the connection ended without a reset.
fn ended(error: &http2::Error) -> bool {
    let kind = error.io();
    matches!(kind, Some(io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof))
}
