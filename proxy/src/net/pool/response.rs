//! A response on its way back: its body holds the connection until it ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, header, response::Parts};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    connect::{ConnectionInfo, report},
    exchange::Holder,
};
use crate::{
    config::cluster::{Cluster, Endpoint},
    net::{
        cluster::{
            Permit, count,
            outlier::{Outcome, grpc_to_http},
        },
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

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let status = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(grpc_to_http(status))
}

/// A response's body. The connection, and the request's place in the circuit breakers, are held until it ends or is
/// dropped. After a `101` keep it as long as the tunnel (`hyper::upgrade::on` the response).
#[derive(Debug)]
pub struct ResponseBody {
    inner: Incoming,
    held: Option<(Holder, InFlight)>,
    info: Arc<ConnectionInfo>,
    grpc: bool,
}

impl ResponseBody {
    pub(super) fn new(inner: Incoming, holder: Holder, in_flight: InFlight, parts: &Parts) -> Self {
        let info = match &holder {
            Holder::Http1(busy) => busy.idle.info.clone(),
            Holder::Http2(lease) => lease.info.clone(),
        };
        let grpc = is_grpc(&parts.headers) && grpc_status(&parts.headers).is_none();
        let mut body = Self { inner, held: Some((holder, in_flight)), info, grpc };
        if body.inner.is_end_stream() && parts.status != http::StatusCode::SWITCHING_PROTOCOLS {
            body.finish();
        }
        body
    }

    /// The connection that it came over.
    pub fn connection(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    fn finish(&mut self) {
        if let Some((holder, in_flight)) = self.held.take() {
            drop(in_flight);
            match holder {
                Holder::Http1(busy) => busy.finish(),
                Holder::Http2(lease) => drop(lease),
            }
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
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                let error = BodyError::from_hyper(error);
                if let Some((_, in_flight)) = this.held.take() {
                    in_flight.failed(error.kind);
                }
                Some(Err(error))
            }
            None => None,
        };
        if this.grpc
            && let Some(Ok(frame)) = &frame
            && let Some(status) = frame.trailers_ref().and_then(grpc_status)
            && let Some((_, in_flight)) = &this.held
        {
            in_flight.report(Outcome::Status(status));
        }
        if frame.is_none() || this.inner.is_end_stream() {
            this.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
