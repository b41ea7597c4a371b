//! One request on one connection.

use std::rc::Rc;

use http::{HeaderValue, Method, Request, Response, Uri, Version, header, uri::Scheme};
use http_body::Body;
use hyper::{body::Incoming, client::conn::TrySendError};

use super::{
    Lease, Pool, http1, http2,
    response::{Active, InFlight, ResponseBody},
};
use crate::net::{
    body::RequestBody,
    upstreams::{ErrorKind, UpstreamError},
};

/// How often a request that came back unsent is given to another connection.
const RESENDS: usize = 4;

/// What holds a connection while its request is under way.
#[derive(Debug)]
pub(super) enum Holder {
    Http1(http1::Busy),
    Http2(http2::Lease),
}

/// Sends a request over a connection of the pool. The URI is absolute: `Host` or `:authority` is made of it.
///
/// # Errors
/// See [`UpstreamError`].
pub async fn send(
    pool: &Rc<Pool>,
    mut request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, UpstreamError> {
    let target = request.uri().clone();
    for _ in 0..RESENDS {
        // Counted while it waits: an endpoint with a queue is not the least busy one.
        let waiting = Active::new(pool.connector.endpoint.clone());
        let lease = match pool.lease().await {
            Ok(lease) => lease,
            Err(error) => return Err(error.with_request(request)),
        };
        let Some(in_flight) = InFlight::begin(pool.cluster(), waiting) else {
            return Err(UpstreamError::unsent(ErrorKind::Overflow).with_request(request));
        };
        match send_on(lease, request).await {
            Ok((response, holder)) => {
                let (parts, body) = response.into_parts();
                in_flight.answered(&parts);
                let body = ResponseBody::new(body, holder, in_flight, &parts);
                return Ok(Response::from_parts(parts, body));
            }
            Err(mut error) => match error.request.take() {
                Some(unsent) => {
                    request = *unsent;
                    request.uri_mut().clone_from(&target);
                }
                None => {
                    in_flight.failed(error.kind);
                    return Err(error);
                }
            },
        }
    }
    Err(UpstreamError::unsent(ErrorKind::Closed).with_request(request))
}

type Sent = Result<(Response<Incoming>, Holder), UpstreamError>;

async fn send_on(lease: Lease, request: Request<RequestBody>) -> Sent {
    match lease {
        Lease::Http1(lease) => {
            let reused = lease.served() > 0;
            let Some(mut busy) = lease.take() else {
                return Err(UpstreamError::unsent(ErrorKind::Closed).with_request(request));
            };
            match busy.idle.sender.try_send_request(for_http1(request)).await {
                Ok(response) => Ok((response, Holder::Http1(busy))),
                Err(error) => {
                    let mut error = failed(error, reused);
                    error.ended = busy.idle.ear.ended_silently();
                    Err(error)
                }
            }
        }
        Lease::Http2(mut lease) => {
            let reused = lease.reused;
            match lease.sender.try_send_request(for_http2(request)).await {
                Ok(response) => Ok((response, Holder::Http2(lease))),
                Err(error) => Err(failed(error, reused)),
            }
        }
    }
}

fn failed(mut error: TrySendError<Request<RequestBody>>, reused: bool) -> UpstreamError {
    let request = error.take_message().map(Box::new);
    let mut error = UpstreamError::from_hyper(error.into_error());
    error.reused = reused;
    error.sent &= request.is_none();
    error.request = request;
    error
}

/// Origin form with `Host`; CONNECT keeps its authority.
fn for_http1(mut request: Request<RequestBody>) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_11;
    let host = request
        .uri()
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    // hyper takes GET and HEAD to have no body when its length is not known; a client may send one all the same.
    let body = request.body();
    if request.method() != Method::CONNECT
        && !body.is_end_stream()
        && body.size_hint().exact().is_none()
        && !request.headers().contains_key(header::CONTENT_LENGTH)
    {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
    }
    if request.method() != Method::CONNECT
        && let Some(path) = request.uri().path_and_query().cloned()
    {
        *request.uri_mut() = Uri::from(path);
    }
    request
}

/// Absolute form without `Host`.
fn for_http2(mut request: Request<RequestBody>) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(header::HOST);
    // Of an attempt on an HTTP/1 connection.
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    if request.uri().authority().is_none()
        && let Some(authority) = host.and_then(|host| host.to_str().ok()?.parse().ok())
    {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts.authority = Some(authority);
        // Scheme, authority and path are all there: the parts make a URI.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
    request
}
