//! One request on one connection.

use std::{future::poll_fn, rc::Rc, sync::Arc};

use http::Response;
use http_body::Body;

use super::{
    Lease, Pool,
    call::Call,
    connect::ConnectionInfo,
    response::{Active, InFlight, ResponseBody, Source},
    stream::Exchange,
};
use crate::net::{
    body::RequestBody,
    outbound::Outbound,
    upstreams::{ErrorKind, UpstreamError},
};

/// How often a request that came back unsent is given to another connection.
const RESENDS: usize = 4;

/// Sends a request over a connection of the pool. `repeated`: it was sent before, and should not come back for the same
/// reason.
///
/// # Errors
/// See [`UpstreamError`].
pub async fn send(
    pool: &Rc<Pool>,
    request: Outbound<'_>,
    mut body: RequestBody,
    repeated: bool,
) -> Result<Response<ResponseBody>, UpstreamError> {
    let easy = request.method.is_idempotent() && body.is_end_stream();
    let mut care = repeated || !easy;
    for _ in 0..RESENDS {
        // Counted while it waits: an endpoint with a queue is not the least busy one.
        let waiting = Active::new(pool.connector.endpoint.clone());
        let lease = match pool.lease(care).await {
            Ok(lease) => lease,
            Err(error) => return Err(error.with_body(body)),
        };
        let Some(in_flight) = InFlight::begin(pool.cluster(), waiting) else {
            return Err(UpstreamError::unsent(ErrorKind::Overflow).with_body(body));
        };
        match send_on(lease, request, body).await {
            Ok((response, info)) => {
                let (parts, source) = response.into_parts();
                in_flight.answered(&parts);
                let body = ResponseBody::new(source, info, in_flight, &parts);
                return Ok(Response::from_parts(parts, body));
            }
            Err(mut error) => match error.body.take() {
                Some(unsent) => {
                    body = *unsent;
                    care = true;
                }
                None => {
                    in_flight.failed(error.kind);
                    return Err(error);
                }
            },
        }
    }
    Err(UpstreamError::unsent(ErrorKind::Closed).with_body(body))
}

async fn send_on(
    lease: Lease,
    request: Outbound<'_>,
    body: RequestBody,
) -> Result<(Response<Source>, Arc<ConnectionInfo>), UpstreamError> {
    match lease {
        Lease::Http1(lease) => {
            let Some(busy) = lease.take() else {
                return Err(UpstreamError::unsent(ErrorKind::Closed).with_body(body));
            };
            let mut call = Box::new(Call::new(busy, request, body));
            let head = poll_fn(|cx| call.poll_head(cx)).await?;
            let info = call.info().clone();
            let mut response = Response::new(Source::Http1(call));
            *response.status_mut() = head.status;
            *response.version_mut() = head.version;
            *response.headers_mut() = head.headers;
            Ok((response, info))
        }
        Lease::Http2(lease) => {
            let mut exchange = Exchange::begin(lease, &request, body)?;
            let (head, body) = poll_fn(|cx| exchange.poll_head(cx)).await?;
            let info = exchange.info().clone();
            let source = Source::Http2(exchange.into_body(body));
            Ok((Response::from_parts(head, source), info))
        }
    }
}
