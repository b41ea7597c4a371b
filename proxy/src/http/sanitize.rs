//! From a codec's request to a [`Head`]: what is refused, what is removed, what is added before filters see it.
//!
//! Order matters: headers of one hop go first (all that any `Connection` field names), identity is added after, so that a
//! client cannot have it removed. Source: RFC 9110 and 9112, Envoy's `ConnectionManagerUtility`.

use std::net::{IpAddr, SocketAddr};

use ::http::{HeaderMap, HeaderValue, Method, Version, header, request, uri::PathAndQuery};

use super::{
    head::{Head, names},
    path,
    seen::{Seen, connection_tokens},
};

mod edge;

use crate::config::{
    http::{ForwardClientCert, HttpConnectionManager},
    listener::TrafficDirection,
};
use crate::net::tls::PeerInfo;

/// Why a request is refused before any filter, and the `response_code_details` of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither `Host` nor an authority.
    #[error("missing_host_header")]
    MissingHost,
    /// `Host` is not a host.
    #[error("invalid_host_header")]
    InvalidHost,
    /// More than one `Host`.
    #[error("duplicate_host_header")]
    DuplicateHost,
    /// HTTP/1.0 is not accepted here.
    #[error("low_version")]
    Version,
    /// Too many header fields.
    #[error("too_many_headers")]
    TooManyHeaders,
    /// A transfer coding other than `chunked`.
    #[error("unsupported_transfer_encoding")]
    TransferEncoding,
    /// A header's name is not one.
    #[error("invalid_header_name")]
    HeaderName,
    /// The path is not one.
    #[error("missing_path_rejected")]
    MissingPath,
    /// The path cannot be normalised.
    #[error("path_normalization_failed")]
    Path,
    /// The protocol may not be switched to.
    #[error("upgrade_failed")]
    Upgrade,
    /// The client is to ask for the normalised path instead.
    #[error("path_normalization_redirect")]
    Redirect(PathAndQuery),
}

impl Refusal {
    /// The status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Self::Version => 426,
            Self::TooManyHeaders => 431,
            Self::TransferEncoding => 501,
            Self::Upgrade => 403,
            Self::Redirect(_) => 307,
            Self::MissingHost
            | Self::InvalidHost
            | Self::DuplicateHost
            | Self::HeaderName
            | Self::MissingPath
            | Self::Path => 400,
        }
    }
}

/// What a request wants to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// An ordinary request.
    Response,
    /// `Upgrade`: another protocol, lower-cased.
    Upgrade(Box<str>),
    /// A tunnel.
    Connect,
}

/// The client and the connection that it came by.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The TCP peer.
    pub peer: SocketAddr,
    /// The connection is TLS.
    pub tls: bool,
    /// What its certificate says.
    pub info: Option<&'a PeerInfo>,
}

/// A request that may go on.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its head.
    pub head: Head,
    /// What it wants to become.
    pub wants: Wants,
    /// What its headers were.
    pub seen: Seen,
}

/// Looks a request over.
///
/// # Errors
/// What must not go on, see [`Refusal`].
pub fn accept(
    manager: &HttpConnectionManager,
    parts: request::Parts,
    client: Client<'_>,
) -> Result<Accepted, Refusal> {
    let request::Parts { method, uri, version, mut headers, .. } = parts;
    if version == Version::HTTP_10 && !manager.accept_http_10 {
        return Err(Refusal::Version);
    }
    if headers.len() > manager.max_request_headers {
        return Err(Refusal::TooManyHeaders);
    }
    // HTTP/2's library takes this for part of a name, which for HTTP/1 it is not (RFC 9110, 5.6.2).
    if version == Version::HTTP_2 && headers.keys().any(|name| name.as_str().contains('"')) {
        return Err(Refusal::HeaderName);
    }
    let seen = Seen::new(&headers);
    if seen.has(&header::TRANSFER_ENCODING) {
        check_transfer_encoding(&headers)?;
    }
    let wants = wants(manager, &method, version, (&headers, seen))?;
    let authority = authority(&uri, &headers)?;
    let target = target(&method, &uri, version)?;
    seen.remove_hop_by_hop(&mut headers);
    for name in [header::HOST, header::EXPECT, names::EXPECTED_TIMEOUT] {
        seen.take(&mut headers, &name);
    }
    if version == Version::HTTP_2 {
        join_cookies(&mut headers);
    }
    // The client's proxy counts attempts, for the application to see.
    if manager.direction != TrafficDirection::Inbound {
        seen.take(&mut headers, &names::ATTEMPT_COUNT);
    }
    let mut head = Head { method, https: false, authority, target, version, headers };
    match path::normalize(&manager.path, &head.target) {
        path::Outcome::Keep => {}
        path::Outcome::Replace(target) => head.target = target,
        path::Outcome::Redirect(target) => return Err(Refusal::Redirect(target)),
        path::Outcome::Reject => return Err(Refusal::Path),
    }
    forwarded(manager, &mut head, client, seen);
    client_certificate(manager, &mut head.headers, client.info, seen);
    // At an edge nobody is trusted to know which numbers are taken.
    let known = (!manager.use_remote_address || manager.preserve_request_id)
        && seen.has(&names::REQUEST_ID)
        && head.headers.contains_key(names::REQUEST_ID);
    if manager.generate_request_id && !known {
        head.headers.insert(names::REQUEST_ID, request_id());
    }
    Ok(Accepted { head, wants, seen })
}

/// HTTP/2 may cut a cookie into several headers; HTTP/1 knows one only (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Of values one makes a value again.
    if let Ok(cookie) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Only `chunked`, once: anything else is read differently by somebody.
fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::TransferEncoding),
    }
}

fn wants(
    manager: &HttpConnectionManager,
    method: &Method,
    version: Version,
    (headers, seen): (&HeaderMap, Seen),
) -> Result<Wants, Refusal> {
    let allowed = |name: &str| manager.upgrades.iter().any(|upgrade| **upgrade == *name);
    if method == Method::CONNECT {
        return if allowed("connect") { Ok(Wants::Connect) } else { Err(Refusal::Upgrade) };
    }
    let upgrades = version == Version::HTTP_11
        && seen.has(&header::UPGRADE)
        && connection_tokens(headers).any(|token| token == "upgrade");
    if !upgrades {
        return Ok(Wants::Response);
    }
    let Some(protocol) = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()) else {
        return Ok(Wants::Response);
    };
    let protocol = protocol.to_ascii_lowercase();
    match &*protocol {
        // A server may ignore an offer of HTTP/2, and this one does.
        "h2c" => Ok(Wants::Response),
        // Routes may allow what the connection manager does not; the router decides once it knows the route.
        _ => Ok(Wants::Upgrade(protocol.into())),
    }
}

/// The authority of an absolute target counts, else `Host`, of which there must be one.
fn authority(uri: &::http::Uri, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::DuplicateHost);
    }
    let value = match uri.authority() {
        Some(authority) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::InvalidHost)?
        }
        None => host.cloned().ok_or(Refusal::MissingHost)?,
    };
    if value.is_empty() {
        return Err(Refusal::MissingHost);
    }
    // What goes upstream as an authority must be one; user information has no place in it.
    let valid =
        value.len() <= 1_024 && !value.as_bytes().contains(&b'@') && is_authority(value.as_bytes());
    if !valid {
        return Err(Refusal::InvalidHost);
    }
    Ok(value)
}

/// Whether it can go upstream as an authority.
pub fn is_authority(value: &[u8]) -> bool {
    is_plain_host(value) || ::http::uri::Authority::try_from(value).is_ok()
}

/// Whether it is a name or an IPv4 address, and a port or none: what nearly all are, told without parsing more.
fn is_plain_host(authority: &[u8]) -> bool {
    let colon = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
    let (host, port) = authority.split_at(colon);
    let port = port.strip_prefix(b":").unwrap_or(b"0");
    let of_names = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty()
        && host.iter().all(of_names)
        && (1..=5).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit)
}

fn target(method: &Method, uri: &::http::Uri, version: Version) -> Result<PathAndQuery, Refusal> {
    // HTTP/2 says it apart, and whole (RFC 9113, 8.3.1).
    let whole = version == Version::HTTP_2;
    match uri.path_and_query() {
        Some(target) if target.as_str().starts_with('/') => Ok(target.clone()),
        Some(target) if target.as_str() == "*" && method == Method::OPTIONS => Ok(target.clone()),
        Some(target) if target.path().starts_with('/') && !whole => Ok(target.clone()),
        // The authority form is CONNECT's alone; an absolute target may have no path.
        _ if method == Method::CONNECT || uri.scheme().is_some() && !whole => {
            Ok(PathAndQuery::from_static("/"))
        }
        _ => Err(Refusal::MissingPath),
    }
}

/// `x-forwarded-for` and `x-forwarded-proto`.
fn forwarded(manager: &HttpConnectionManager, head: &mut Head, client: Client<'_>, seen: Seen) {
    if manager.use_remote_address {
        let given = seen.has(&names::FORWARDED_FOR);
        let given =
            given.then(|| super::head::joined(&head.headers, names::FORWARDED_FOR.as_str()));
        let given = given.flatten().map(|value| format!("{value},"));
        let mut all = given.unwrap_or_default();
        all.push_str(&client.peer.ip().to_string());
        if let Ok(value) = HeaderValue::try_from(all) {
            head.headers.insert(names::FORWARDED_FOR, value);
        }
        let remote = trusted_address(manager, &head.headers, client.peer);
        edge::sanitize(&mut head.headers, remote.ip());
    }
    let given = seen.has(&names::FORWARDED_PROTO).then(|| head.headers.get(names::FORWARDED_PROTO));
    let given = given.flatten().and_then(|value| {
        let is = |scheme: &str| value.as_bytes().eq_ignore_ascii_case(scheme.as_bytes());
        if is("https") { Some(true) } else { is("http").then_some(false) }
    });
    let trusted = !manager.use_remote_address || manager.xff_trusted_hops > 0;
    head.https = given.filter(|_| trusted).unwrap_or(client.tls);
    if given != Some(head.https) {
        head.headers.insert(names::FORWARDED_PROTO, HeaderValue::from_static(head.scheme()));
    }
}

/// The client's address as `x-forwarded-for` tells it, so far as it is trusted.
///
/// Without `use_remote_address` the last address counts, then one more to the left for each trusted hop. With it the
/// TCP peer is the last (it was appended).
pub fn remote_address(
    manager: &HttpConnectionManager,
    (headers, seen): (&HeaderMap, Seen),
    peer: SocketAddr,
) -> SocketAddr {
    if !manager.use_remote_address && !seen.has(&names::FORWARDED_FOR) {
        return peer;
    }
    trusted_address(manager, headers, peer)
}

fn trusted_address(
    manager: &HttpConnectionManager,
    headers: &HeaderMap,
    peer: SocketAddr,
) -> SocketAddr {
    if manager.use_remote_address && manager.xff_trusted_hops == 0 {
        return peer;
    }
    let Some(all) = super::head::joined(headers, names::FORWARDED_FOR.as_str()) else {
        return peer;
    };
    let address = all
        .rsplit(',')
        .nth(manager.xff_trusted_hops as usize)
        .and_then(|address| address.trim().parse::<IpAddr>().ok());
    address.map_or(peer, |ip| SocketAddr::new(ip, 0))
}

/// `x-forwarded-client-cert`. Nothing that a client without a verified certificate says of itself goes on, unless asked for.
fn client_certificate(
    manager: &HttpConnectionManager,
    headers: &mut HeaderMap,
    info: Option<&PeerInfo>,
    seen: Seen,
) {
    let mode = manager.forward_client_cert;
    let info = info.filter(|info| info.verified);
    match (mode, info) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::Sanitize, _) | (_, None) => {
            seen.take(headers, &names::FORWARDED_CLIENT_CERT);
        }
        (ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet, Some(info)) => {
            let mut all = String::new();
            if mode == ForwardClientCert::AppendForward
                && let Some(given) =
                    super::head::joined(headers, names::FORWARDED_CLIENT_CERT.as_str())
            {
                all.push_str(&given);
                all.push(',');
            }
            all.push_str(&client_certificate_element(manager, info));
            seen.take(headers, &names::FORWARDED_CLIENT_CERT);
            if let Ok(value) = HeaderValue::try_from(all) {
                headers.insert(names::FORWARDED_CLIENT_CERT, value);
            }
        }
    }
}

fn client_certificate_element(manager: &HttpConnectionManager, info: &PeerInfo) -> String {
    let mut element = String::new();
    let certificate = &info.certificate;
    if let Some(own) = &info.local_identity {
        element.push_str(&format!("By={own};"));
    }
    element.push_str(&format!("Hash={}", certificate.hash));
    let details = &manager.client_cert_details;
    if details.subject {
        let subject = certificate.subject.replace('\\', "\\\\").replace('"', "\\\"");
        element.push_str(&format!(";Subject=\"{subject}\""));
    }
    if details.uri {
        for uri in &certificate.uri_sans {
            element.push_str(&format!(";URI={uri}"));
        }
    }
    if details.dns {
        for name in &certificate.dns_sans {
            element.push_str(&format!(";DNS={name}"));
        }
    }
    element
}

/// A random (version 4) UUID. It names a request; it is not a secret.
fn request_id() -> HeaderValue {
    let bits = fastrand::u128(..);
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut digits = [0; 32];
    for (byte, pair) in bits.to_be_bytes().into_iter().zip(digits.as_chunks_mut::<2>().0) {
        *pair = [hex(byte >> 4), hex(byte & 0xf)];
    }
    let mut text = [b'-'; 36];
    for (to, from) in
        [(0..8, 0..8), (9..13, 8..12), (14..18, 12..16), (19..23, 16..20), (24..36, 20..32)]
    {
        text[to].copy_from_slice(&digits[from]);
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// A number below 16.
fn hex(digit: u8) -> u8 {
    b"0123456789abcdef"[usize::from(digit & 0xf)]
}

#[cfg(test)]
mod tests;
