//! A request on its way upstream, as its caller has it: each connection makes of it what its protocol wants.
//!
//! Nothing of it is copied before the connection is known, and on HTTP/1 nothing after that either: it is written from
//! where it stands. So it can be sent as often as it takes.

use http::{HeaderMap, HeaderName, HeaderValue, Method, request, uri};

/// Informational responses (1xx) that may come before the final one. They end here.
pub const INFORMATIONAL: u32 = 100;

/// A request without its body. Hop-by-hop headers are the caller's to remove.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a> {
    /// The method.
    pub method: &'a Method,
    /// Whether the scheme is `https`.
    pub https: bool,
    /// `Host` or `:authority`.
    pub authority: &'a str,
    /// Path and query; `None` stands for `/`.
    pub target: Option<&'a uri::PathAndQuery>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Fields that take the place of those of the same name.
    pub instead: &'a [(HeaderName, HeaderValue)],
}

impl<'a> Outbound<'a> {
    /// A request with an absolute URI.
    pub fn of(parts: &'a request::Parts) -> Self {
        Self {
            method: &parts.method,
            https: parts.uri.scheme() == Some(&uri::Scheme::HTTPS),
            authority: parts.uri.authority().map_or("", uri::Authority::as_str),
            target: parts.uri.path_and_query(),
            headers: &parts.headers,
            instead: &[],
        }
    }
}
