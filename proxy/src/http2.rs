//! What both sides of HTTP/2 have in common: messages' bodies out of, and into, streams of the `h2` crate.
//!
//! Whoever owns a stream polls its bodies; the connection's frames are read and written by whoever owns the connection.
//! A window is given back as its bytes are handed out, so that a reader that is slow slows the sender down, across the
//! proxy. RFC 9113.

use http::{HeaderMap, HeaderName, header};

pub mod gathered;
pub mod incoming;
pub mod outgoing;
pub mod tunnel;

pub use gathered::Gathered;
pub use incoming::Incoming;
pub use outgoing::{Outgoing, SendError};
pub use tunnel::Tunnel;

/// What a stream's sender may send before we have read it.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// What a connection's sender may send before we have read it.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What a stream may hold of a body that its receiver does not read.
pub const SEND_BUFFER: usize = 128 * 1024;

/// What is of an HTTP/1 connection and may not be sent (RFC 9113, 8.2.2).
const OF_CONNECTIONS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Removes what may not be sent, and keeps what hardly repeats out of the compression's table, where it would take the place
/// of what does (RFC 7541, 7.1.3). Most messages have nothing to remove, which costs no look-up.
pub fn prepare(headers: &mut HeaderMap) {
    let mut of_connection = false;
    for (name, value) in headers.iter_mut() {
        match name.as_str() {
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => {
                of_connection = true;
            }
            "age"
            | "content-length"
            | "date"
            | "etag"
            | "grpc-timeout"
            | "last-modified"
            | "traceparent"
            | "tracestate"
            | "x-b3-parentspanid"
            | "x-b3-spanid"
            | "x-b3-traceid"
            | "x-envoy-upstream-service-time"
            | "x-request-id" => value.set_sensitive(true),
            _ => {}
        }
    }
    if of_connection {
        for name in OF_CONNECTIONS {
            headers.remove(name);
        }
    }
}
