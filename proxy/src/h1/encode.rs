//! Heads and chunks as they go out.
//!
//! The framing is decided here, from what is known of the body: fields that frame a message are written from it and never
//! copied. Names are written in lower case. Source: RFC 9112, 6; Envoy where it leaves a choice.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::{head::Framing, response::has_body};

/// After the last chunk of a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// After each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Tells a client to go on with its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a request's line and host say.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query; the authority of `CONNECT`.
    pub target: &'a str,
    /// `Host`.
    pub host: &'a str,
}

/// Writes a request's head; `size`: that of its body, where it is known; `instead`: fields that take the place of those of
/// the same name. Answers how the body is framed.
pub fn request(
    out: &mut BytesMut,
    line: RequestLine<'_>,
    (headers, instead): (&HeaderMap, &[(HeaderName, HeaderValue)]),
    size: Option<u64>,
) -> Framing {
    let framing = match size {
        Some(0) => Framing::None,
        Some(size) => Framing::Length(size),
        None => Framing::Chunked,
    };
    out.reserve(line.target.len() + line.host.len() + 64 * headers.len() + 96);
    out.put_slice(line.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(line.target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\nhost: ");
    out.put_slice(line.host.as_bytes());
    out.put_slice(b"\r\n");
    fields(out, headers, |name| {
        matches!(*name, header::HOST | header::CONTENT_LENGTH | header::TRANSFER_ENCODING)
            || instead.iter().any(|(other, _)| other == name)
    });
    for (name, value) in instead {
        field(out, name, value);
    }
    match framing {
        Framing::Length(size) => length(out, size),
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        // Where a body is usual its absence is said.
        _ if matches!(*line.method, Method::POST | Method::PUT | Method::PATCH) => length(out, 0),
        _ if headers.contains_key(header::CONTENT_LENGTH) => length(out, 0),
        _ => {}
    }
    out.put_slice(b"\r\n");
    framing
}

/// The request that a response answers.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Its method.
    pub method: Method,
    /// Its version.
    pub version: Version,
    /// Whether the connection may go on after the response.
    pub persists: bool,
}

/// Writes a response's head; `size`: that of its body, where it is known. `date`: when the response has none. Answers
/// how the body is framed, and sets whether the connection goes on.
pub fn response(
    out: &mut BytesMut,
    answers: &mut Answers,
    (status, headers): (StatusCode, &HeaderMap),
    size: Option<u64>,
    date: &[u8],
) -> Framing {
    let connect = answers.method == Method::CONNECT && status.is_success();
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let old = answers.version == Version::HTTP_10;
    let framing = match size {
        _ if answers.method == Method::HEAD || connect || !has_body(status) => Framing::None,
        Some(0) => Framing::None,
        Some(size) => Framing::Length(size),
        None if old => Framing::Close,
        None => Framing::Chunked,
    };
    out.reserve(64 * headers.len() + 160);
    status_line(out, old, status);
    let (mut dated, mut connection) = (false, false);
    fields(out, headers, |name| match *name {
        header::CONNECTION => {
            connection = true;
            !switches
        }
        header::CONTENT_LENGTH | header::TRANSFER_ENCODING => true,
        header::DATE => {
            dated = true;
            false
        }
        _ => false,
    });
    answers.persists &= framing != Framing::Close && !(connection && says_close(headers));
    match framing {
        Framing::Length(size) => length(out, size),
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None
            if connect || status.is_informational() || status == StatusCode::NO_CONTENT => {}
        // What a GET would have got, as whoever made the response says.
        Framing::None if answers.method == Method::HEAD || !has_body(status) => {
            if let Some(told) = headers.get(header::CONTENT_LENGTH) {
                field(out, &header::CONTENT_LENGTH, told);
            }
        }
        Framing::None => length(out, 0),
        Framing::Close => {}
    }
    if !dated && !status.is_informational() {
        out.put_slice(b"date: ");
        out.put_slice(date);
        out.put_slice(b"\r\n");
    }
    match (answers.persists, old) {
        _ if switches || connect => {}
        (false, _) => out.put_slice(b"connection: close\r\n"),
        (true, true) => out.put_slice(b"connection: keep-alive\r\n"),
        (true, false) => {}
    }
    out.put_slice(b"\r\n");
    framing
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        let tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.map(<[u8]>::trim_ascii).any(|token| token.eq_ignore_ascii_case(b"close"))
    })
}

fn status_line(out: &mut BytesMut, old: bool, status: StatusCode) {
    if !old && status == StatusCode::OK {
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.put_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.put_slice(b"\r\n");
}

fn fields_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Writes the fields that are not skipped.
fn fields(out: &mut BytesMut, headers: &HeaderMap, mut skip: impl FnMut(&HeaderName) -> bool) {
    let start = out.len();
    out.resize(start + fields_size(headers), 0);
    let mut rest = out.get_mut(start..).unwrap_or_default();
    for (name, value) in headers.iter().filter(|(name, _)| !skip(name)) {
        put(&mut rest, name.as_str().as_bytes());
        put(&mut rest, b": ");
        put(&mut rest, value.as_bytes());
        put(&mut rest, b"\r\n");
    }
    let unused = rest.len();
    out.truncate(out.len() - unused);
}

/// Copies to the beginning of a place, which has the room, and leaves what is behind.
fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    if let Some((place, left)) = std::mem::take(rest).split_at_mut_checked(bytes.len()) {
        place.copy_from_slice(bytes);
        *rest = left;
    }
}

fn field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

fn length(out: &mut BytesMut, size: u64) {
    out.put_slice(b"content-length: ");
    decimal(out, size);
    out.put_slice(b"\r\n");
}

fn decimal(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        // One digit: it fits.
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    out.put_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

/// Writes the line before a chunk of so many bytes, which are at least one.
pub fn chunk(out: &mut BytesMut, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let nibble = (size >> (4 * digit)) & 0xf;
        out.put_u8(b"0123456789abcdef".get(nibble).copied().unwrap_or(b'0'));
    }
    out.put_slice(b"\r\n");
}

/// The trailers that a message announces (RFC 9110, 6.6.2), in lower case.
pub fn announced(headers: &HeaderMap) -> Box<str> {
    let names = headers.get_all(header::TRAILER).iter().filter_map(|value| value.to_str().ok());
    names.collect::<Vec<_>>().join(",").to_ascii_lowercase().into()
}

/// Whether a trailer is among those that were [`announced`].
pub fn is_announced(announced: &str, name: &HeaderName) -> bool {
    announced.split(',').any(|announced| announced.trim() == name.as_str())
}

/// Writes the last chunk, and trailers that `told` (a `Trailer` field) names.
pub fn trailers(out: &mut BytesMut, trailers: &HeaderMap, told: impl Fn(&HeaderName) -> bool) {
    out.put_slice(b"0\r\n");
    fields(out, trailers, |name| !told(name) || !super::body::may_trail(name));
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let fields = fields.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        fields.collect()
    }

    #[test]
    fn requests_say_how_long_they_are() {
        let told = [("content-length", "9"), ("a", "b"), ("host", "other")];
        for (method, fields, size, expected, framing) in [
            (Method::GET, &[][..], Some(0), "", Framing::None),
            (Method::POST, &[], Some(0), "content-length: 0\r\n", Framing::None),
            (Method::GET, &told[..1], Some(0), "content-length: 0\r\n", Framing::None),
            (Method::GET, &told, Some(3), "a: b\r\ncontent-length: 3\r\n", Framing::Length(3)),
            (Method::GET, &told, None, "a: b\r\ntransfer-encoding: chunked\r\n", Framing::Chunked),
        ] {
            let mut out = BytesMut::new();
            let line = RequestLine { method: &method, target: "/x?y", host: "shop:80" };
            assert_eq!(request(&mut out, line, (&map(fields), &[]), size), framing);
            let expected = format!("{method} /x?y HTTP/1.1\r\nhost: shop:80\r\n{expected}\r\n");
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table, a case a row")]
    fn responses_say_how_long_they_are_and_what_follows() {
        use Framing::{Chunked, Close, Length, None as Nothing};
        let close = "connection: close\r\n";
        for (method, old, keep, status, fields, size, expected, framing, persists) in [
            (
                "GET",
                false,
                true,
                200,
                &[("a", "b")][..],
                Some(3),
                "a: b\r\ncontent-length: 3\r\n",
                Length(3),
                true,
            ),
            ("GET", false, true, 200, &[], Some(0), "content-length: 0\r\n", Nothing, true),
            (
                "GET",
                false,
                true,
                200,
                &[("content-length", "9")],
                None,
                "transfer-encoding: chunked\r\n",
                Chunked,
                true,
            ),
            (
                "GET",
                false,
                false,
                200,
                &[],
                Some(3),
                &format!("content-length: 3\r\n{close}"),
                Length(3),
                false,
            ),
            (
                "GET",
                false,
                true,
                200,
                &[("connection", "x, Close")],
                Some(3),
                &format!("content-length: 3\r\n{close}"),
                Length(3),
                false,
            ),
            (
                "GET",
                true,
                false,
                200,
                &[],
                Some(3),
                &format!("content-length: 3\r\n{close}"),
                Length(3),
                false,
            ),
            (
                "GET",
                true,
                true,
                200,
                &[],
                Some(3),
                "content-length: 3\r\nconnection: keep-alive\r\n",
                Length(3),
                true,
            ),
            ("GET", true, true, 200, &[], None, close, Close, false),
            (
                "HEAD",
                false,
                true,
                200,
                &[("content-length", "9")],
                Some(0),
                "content-length: 9\r\n",
                Nothing,
                true,
            ),
            ("HEAD", false, true, 200, &[], None, "", Nothing, true),
            ("GET", false, true, 204, &[("content-length", "0")], Some(0), "", Nothing, true),
            (
                "GET",
                false,
                true,
                304,
                &[("content-length", "9")],
                Some(0),
                "content-length: 9\r\n",
                Nothing,
                true,
            ),
            ("CONNECT", false, true, 200, &[], Some(0), "", Nothing, true),
            ("CONNECT", false, true, 502, &[], Some(0), "content-length: 0\r\n", Nothing, true),
            (
                "GET",
                false,
                true,
                101,
                &[("connection", "upgrade"), ("upgrade", "x")],
                Some(0),
                "connection: upgrade\r\nupgrade: x\r\n",
                Nothing,
                true,
            ),
        ] {
            let mut out = BytesMut::new();
            let version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
            let mut answers = Answers { method: method.parse().unwrap(), version, persists: keep };
            let mut fields = map(fields);
            fields.insert(header::DATE, HeaderValue::from_static("now"));
            let status = StatusCode::from_u16(status).unwrap();
            let found = response(&mut out, &mut answers, (status, &fields), size, b"");
            let text = String::from_utf8(out.to_vec()).unwrap().replace("date: now\r\n", "");
            let reason = status.canonical_reason().unwrap();
            let line = format!("HTTP/1.{} {} {reason}\r\n", u8::from(!old), status.as_u16());
            assert_eq!(text, format!("{line}{expected}\r\n"));
            assert_eq!((found, answers.persists), (framing, persists), "{text}");
        }
        let mut out = BytesMut::new();
        let mut answers =
            Answers { method: Method::GET, version: Version::HTTP_11, persists: true };
        response(&mut out, &mut answers, (StatusCode::OK, &HeaderMap::new()), Some(0), b"today");
        assert!(String::from_utf8(out.to_vec()).unwrap().contains("\r\ndate: today\r\n"));
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 4_096, 65_535, 1_048_576, usize::MAX] {
            let mut out = BytesMut::new();
            decimal(&mut out, number as u64);
            assert_eq!(out, number.to_string().as_bytes());
            let mut out = BytesMut::new();
            chunk(&mut out, number);
            assert_eq!(out, format!("{number:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn only_trailers_that_were_announced_are_sent() {
        let mut out = BytesMut::new();
        let sent = map(&[("a", "b"), ("secret", "c"), ("content-length", "3")]);
        trailers(&mut out, &sent, |name| name != "secret");
        assert_eq!(&out[..], b"0\r\na: b\r\n\r\n");
    }
}
