//! A response on its way back: its body holds the connection until it ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, response::Parts};
use http_body::{Body, Frame, SizeHint};

use super::{
    Tunnel,
    call::Call,
    connect::{ConnectionInfo, report},
    stream::StreamBody,
};
use crate::{
    config::cluster::{Cluster, Endpoint},
    net::{
        cluster::{
            Permit, count,
            outlier::{Outcome, grpc_to_http},
        },
        grpc::is_grpc,
        upstreams::{BodyError, ErrorKind},
    },
};

/// An endpoint's request under way, or one that waits for a connection to it.
#[derive(Debug)]
pub(super) struct Active(Arc<Endpoint>);

impl Active {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.state.active.add();
        Self(endpoint)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.state.active.sub();
    }
}

/// A request under way, in all counts.
#[derive(Debug)]
pub(super) struct InFlight {
    cluster: Arc<Cluster>,
    active: Active,
    _permit: Permit,
}

impl InFlight {
    /// `None` when the cluster's circuit breaker for requests is open.
    pub(super) fn begin(cluster: Arc<Cluster>, active: Active) -> Option<Self> {
        let permit = cluster.state.request(&cluster.limits)?;
        count(&cluster.state.totals.upstream_rq_total);
        count(&active.0.state.rq_total);
        Some(Self { cluster, active, _permit: permit })
    }

    fn report(&self, outcome: Outcome) {
        report(&self.cluster, &self.active.0, outcome);
    }

    /// Counts a response's head.
    pub(super) fn answered(&self, parts: &Parts) {
        let status = parts.status.as_u16();
        self.cluster.state.totals.response(status);
        if status >= 500 {
            count(&self.active.0.state.rq_error);
        }
        if !is_grpc(&parts.headers) {
            self.report(Outcome::Status(status));
        } else if let Some(status) = grpc_status(&parts.headers) {
            self.report(Outcome::Status(status));
        }
    }

    /// Counts an attempt that got no response.
    pub(super) fn failed(&self, kind: ErrorKind) {
        count(&self.active.0.state.rq_error);
        match kind {
            ErrorKind::RequestBody => return,
            ErrorKind::RemoteReset | ErrorKind::Refused => {
                count(&self.cluster.state.totals.upstream_rq_rx_reset);
            }
            _ => {}
        }
        self.report(Outcome::Reset);
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let status = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(grpc_to_http(status))
}

/// Where a response's body comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// An HTTP/1 connection of its own.
    Http1(Box<Call>),
    /// A stream of an HTTP/2 connection.
    Http2(StreamBody),
    /// It is over, and has let go of its connection.
    Over,
}

impl Source {
    fn is_over(&self) -> bool {
        match self {
            Self::Http1(call) => call.is_over(),
            Self::Http2(body) => body.is_over(),
            Self::Over => true,
        }
    }
}

/// A response's body. The connection, and the request's place in the circuit breakers, are held until it ends or is
/// dropped. After a `101` keep it as long as the tunnel.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    in_flight: Option<InFlight>,
    info: Arc<ConnectionInfo>,
    grpc: bool,
}

impl ResponseBody {
    pub(super) fn new(
        source: Source,
        info: Arc<ConnectionInfo>,
        in_flight: InFlight,
        parts: &Parts,
    ) -> Self {
        let grpc = is_grpc(&parts.headers) && grpc_status(&parts.headers).is_none();
        let mut body = Self { source, in_flight: Some(in_flight), info, grpc };
        if body.source.is_over() && parts.status != http::StatusCode::SWITCHING_PROTOCOLS {
            body.finish();
        }
        body
    }

    /// The connection that it came over.
    pub fn connection(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    /// After a `101`: the connection's bytes.
    pub fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::replace(&mut self.source, Source::Over) {
            Source::Http1(call) => call.into_tunnel(),
            Source::Http2(_) | Source::Over => None,
        }
    }

    /// Goes on with the request while nobody has room for more of its response.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Source::Http2(body) = &mut self.source {
            body.poll_upload(cx);
        }
    }

    fn finish(&mut self) {
        self.in_flight = None;
        match std::mem::replace(&mut self.source, Source::Over) {
            Source::Http1(call) => call.finish(),
            Source::Http2(_) | Source::Over => {}
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Http1(call) => call.poll_frame(cx),
            Source::Http2(body) => body.poll_frame(cx),
            Source::Over => Poll::Ready(None),
        };
        let frame = ready!(polled);
        if let Some(Err(error)) = &frame {
            if let Some(in_flight) = this.in_flight.take() {
                in_flight.failed(error.kind);
            }
            this.source = Source::Over;
            return Poll::Ready(frame);
        }
        if this.grpc
            && let Some(Ok(frame)) = &frame
            && let Some(status) = frame.trailers_ref().and_then(grpc_status)
            && let Some(in_flight) = &this.in_flight
        {
            in_flight.report(Outcome::Status(status));
        }
        if frame.is_none() || this.source.is_over() {
            this.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Http1(call) => call.size_hint(),
            Source::Http2(body) => body.size_hint(),
            Source::Over => SizeHint::with_exact(0),
        }
    }
}
