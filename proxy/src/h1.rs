//! HTTP/1.1 as bytes: heads are parsed and written, bodies are framed. No I/O, no time, no policy.
//!
//! Strict where two parsers may disagree: whatever may end a message elsewhere than where we think is refused, whoever
//! sent it. Values are slices of the buffer that was read into. Source: RFC 9110 and 9112.

pub mod body;
pub mod buffer;
pub mod encode;
pub mod head;
pub mod request;
pub mod response;
pub mod wire;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod differential_response;
