//! gRPC's health check (`grpc.health.v1.Health/Check`), as the kubelet would make it.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use prost::Message;

use super::call::{CallError, Caller};

/// `HealthCheckResponse.SERVING`.
const SERVING: i32 = 1;
/// A longer answer is none.
const LONGEST: usize = 4096;
/// A flag and a length stand before each message.
const PREFIX: usize = 5;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Why the application does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The request cannot be made.
    #[error("request")]
    Request(#[from] http::Error),
    /// An answer that is none.
    #[error("the answer is no health check's (grpc-status {0})")]
    Answer(String),
    /// It says so itself.
    #[error("the application says that it does not serve (status {0})")]
    NotServing(i32),
}

/// Asks for a service's health; the empty service is the whole server.
pub async fn check(caller: &Caller, to: SocketAddr, service: &str) -> Result<(), GrpcError> {
    let message = HealthCheckRequest { service: service.into() };
    let mut body = BytesMut::with_capacity(PREFIX + message.encoded_len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    body.put_slice(&message.encode_to_vec());
    let request = Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body.freeze()))?;
    let answer = caller.http2(to, request).await?;
    let status = |headers: Option<&http::HeaderMap>| {
        let status = headers.and_then(|headers| headers.get("grpc-status"));
        status.map_or_else(String::new, |status| String::from_utf8_lossy(status.as_bytes()).into())
    };
    let early = status(Some(answer.headers()));
    let Ok(body) = Limited::new(answer.into_body(), LONGEST).collect().await else {
        return Err(GrpcError::Answer(early));
    };
    let late = status(body.trailers());
    let bytes: Bytes = body.to_bytes();
    let decoded = bytes.get(PREFIX..).map(HealthCheckResponse::decode);
    match decoded {
        Some(Ok(answer)) if answer.status == SERVING => Ok(()),
        Some(Ok(answer)) => Err(GrpcError::NotServing(answer.status)),
        _ => Err(GrpcError::Answer(if late.is_empty() { early } else { late })),
    }
}
