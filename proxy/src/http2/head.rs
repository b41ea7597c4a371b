//! Heads of messages out of blocks of headers and into them (RFC 9113, 8.2 and 8.3).

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header, request, response,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::hpack::{Block, Encoder, Field, Item, Secrecy};
use crate::net::{outbound::Outbound, spare};

/// What may not be a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a block says.
#[derive(Debug, Default)]
struct Parts {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    status: Option<StatusCode>,
    headers: HeaderMap,
    /// How long the body is, if that is said.
    length: Option<u64>,
}

impl Parts {
    fn new(block: &mut Block) -> Result<Self, Malformed> {
        let text = Bytes::copy_from_slice(&block.text);
        let headers = spare::take(block.items.len()).ok_or(Malformed)?;
        let mut parts = Self { headers, ..Self::default() };
        for item in block.items.drain(..) {
            let field = match item {
                Item::Whole(field) => field,
                Item::Text(name, range, secrecy) => {
                    Field::new(name, text.slice(range)).with(secrecy)
                }
            };
            parts.take(field)?;
        }
        Ok(parts)
    }

    fn take(&mut self, field: Field) -> Result<(), Malformed> {
        let (name, value) = match field {
            Field::Header(name, value) => (name, value),
            Field::Malformed(_) => return Err(Malformed),
            // They come before all others.
            _ if !self.headers.is_empty() => return Err(Malformed),
            Field::Method(method) => return once(&mut self.method, method),
            Field::Scheme(scheme) => return once(&mut self.scheme, scheme),
            Field::Authority(authority) => return once(&mut self.authority, authority),
            Field::Path(path) => return once(&mut self.path, path),
            Field::Status(status) => return once(&mut self.status, status),
        };
        match name.as_str() {
            "te" if value != "trailers" => return Err(Malformed),
            "content-length" => {
                let length = length(&value).ok_or(Malformed)?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return Err(Malformed);
                }
            }
            name if is_of_connection(name) => return Err(Malformed),
            _ => {}
        }
        self.headers.try_append(name, value).map(|_| ()).map_err(|_| Malformed)
    }

    fn has_pseudo(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.status.is_some()
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed),
    }
}

/// Whether it speaks of an HTTP/1 connection.
pub fn is_of_connection(name: &str) -> bool {
    matches!(
        name,
        "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection"
    )
}

/// A request's head, and how long its body is, if that is said.
pub fn request(block: &mut Block) -> Result<(request::Parts, Option<u64>), Malformed> {
    let parts = Parts::new(block)?;
    let method = parts.method.ok_or(Malformed)?;
    if parts.status.is_some() {
        return Err(Malformed);
    }
    let mut uri = http::uri::Parts::default();
    if method == Method::CONNECT {
        if parts.scheme.is_some() || parts.path.is_some() || parts.authority.is_none() {
            return Err(Malformed);
        }
    } else {
        let (scheme, path) = parts.scheme.zip(parts.path).ok_or(Malformed)?;
        // Without an authority there is no place for it.
        uri.scheme = parts.authority.is_some().then_some(scheme);
        uri.path_and_query = Some(path);
    }
    uri.authority = parts.authority;
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method;
    head.uri = Uri::from_parts(uri).map_err(|_| Malformed)?;
    head.version = Version::HTTP_2;
    head.headers = parts.headers;
    Ok((head, parts.length))
}

/// Whether a client waits with the body until it is told to go on (RFC 9110, 10.1.1).
pub fn expects_continue(headers: &HeaderMap) -> bool {
    let expected = headers.get(header::EXPECT);
    expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// A response's head, and how long its body is, if that is said.
pub fn response(block: &mut Block) -> Result<(response::Parts, Option<u64>), Malformed> {
    let parts = Parts::new(block)?;
    let status = parts.status.ok_or(Malformed)?;
    let of_request = parts.method.is_some()
        || parts.scheme.is_some()
        || parts.authority.is_some()
        || parts.path.is_some();
    if of_request {
        return Err(Malformed);
    }
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    head.version = Version::HTTP_2;
    head.headers = parts.headers;
    Ok((head, parts.length))
}

/// What follows a body.
pub fn trailers(block: &mut Block) -> Result<HeaderMap, Malformed> {
    let parts = Parts::new(block)?;
    if parts.has_pseudo() { Err(Malformed) } else { Ok(parts.headers) }
}

fn length(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?;
    // `parse` takes a sign as well.
    if digits.starts_with('+') { None } else { digits.parse().ok() }
}

/// Writes a request's head, without what is of an HTTP/1 connection. The body is so long, if that is known and to be said.
pub fn put_request(
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    head: &Outbound<'_>,
    length: Option<u64>,
) {
    encoder.begin(out);
    match *head.method {
        Method::GET => Encoder::known(out, 2),
        Method::POST => Encoder::known(out, 3),
        ref other => encoder.field(out, ":method", other.as_str().as_bytes(), Secrecy::Open),
    }
    if head.method != Method::CONNECT {
        Encoder::known(out, if head.https { 7 } else { 6 });
        match head.target.map_or("/", |target| target.as_str()) {
            "/" | "" => Encoder::known(out, 4),
            path => encoder.field(out, ":path", path.as_bytes(), Secrecy::Open),
        }
    }
    encoder.field(out, ":authority", head.authority.as_bytes(), Secrecy::Open);
    let mut length = length;
    let replaced = |name: &HeaderName| head.instead.iter().any(|(other, _)| other == name);
    let kept = head.headers.iter().filter(|(name, _)| !replaced(name));
    for (name, value) in kept.chain(head.instead.iter().map(|(name, value)| (name, value))) {
        let name = name.as_str();
        if name == "content-length" {
            length = None;
        }
        if name != "host" && !is_of_connection(name) {
            encoder.field(out, name, value.as_bytes(), secrecy(value));
        }
    }
    if let Some(length) = length {
        let digits = length.to_string();
        encoder.field(out, "content-length", digits.as_bytes(), Secrecy::Open);
    }
}

/// Whether a request can be sent to it.
pub fn is_authority(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

/// Writes a response's head.
pub fn put_response(
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
) {
    encoder.begin(out);
    match status.as_u16() {
        200 => Encoder::known(out, 8),
        204 => Encoder::known(out, 9),
        206 => Encoder::known(out, 10),
        304 => Encoder::known(out, 11),
        400 => Encoder::known(out, 12),
        404 => Encoder::known(out, 13),
        500 => Encoder::known(out, 14),
        _ => encoder.field(out, ":status", status.as_str().as_bytes(), Secrecy::Open),
    }
    put_headers(encoder, out, headers);
}

/// Writes what follows a body.
pub fn put_trailers(encoder: &mut Encoder, out: &mut Vec<u8>, trailers: &HeaderMap) {
    encoder.begin(out);
    put_headers(encoder, out, trailers);
}

fn put_headers(encoder: &mut Encoder, out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        encoder.field(out, name.as_str(), value.as_bytes(), secrecy(value));
    }
}

fn secrecy(value: &HeaderValue) -> Secrecy {
    if value.is_sensitive() { Secrecy::Secret } else { Secrecy::Open }
}
