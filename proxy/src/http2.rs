//! HTTP/2, both ends of it: frames, header compression, streams and their windows, and messages' bodies out of and into
//! streams. RFC 9113.
//!
//! A `Connection` is polled by whoever owns it, which reads frames; what it and its streams write leaves together when
//! the owner's turn ends. Whoever holds a stream polls its bodies. A window is given back as its bytes are handed out,
//! so that a reader that is slow slows the sender down, across the proxy.

use http::{HeaderMap, HeaderName, header};

mod connection;
mod core;
mod error;
mod frame;
mod handle;
mod head;
mod hpack;
pub mod incoming;
pub mod outgoing;
mod streams;
pub mod tunnel;

pub use connection::Connection;
pub use core::Limits;
pub use error::{By, Error};
pub use frame::Reason;
pub use handle::{RecvStream, SendStream, Sender};
pub use head::is_authority;
pub use incoming::Incoming;
pub use outgoing::{Outgoing, SendError};
pub use tunnel::Tunnel;

/// What a stream's sender may send before we have read it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What a connection's sender may send before we have read it.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The same for a server's connection, on which many that read slowly may stand beside those that do not.
const CLIENT_WINDOW: u32 = 16 * 1024 * 1024;

/// What is of an HTTP/1 connection and may not be sent (RFC 9113, 8.2.2).
const OF_CONNECTIONS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Removes what may not be sent. Most messages have none of it, which costs no look-up.
pub fn strip(headers: &mut HeaderMap) {
    if headers.keys().any(|name| head::is_of_connection(name.as_str())) {
        for name in OF_CONNECTIONS {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
