//! Heads of requests.

use bytes::Bytes;
use http::{Method, Request, Uri, Version, request};

use super::head::{Fields, Framing, HeadError, Limits, Scanner, with_room};

/// A request's head.
#[derive(Debug)]
pub struct RequestHead {
    /// As the rest of the proxy knows it.
    pub parts: request::Parts,
    /// How its body ends.
    pub framing: Framing,
    /// The client would send another request on the connection.
    pub persists: bool,
    /// The client waits to be told to go on before it sends the body.
    pub expects_continue: bool,
    /// The client takes trailers (`TE`).
    pub takes_trailers: bool,
    /// There is an `Upgrade` field.
    pub upgrade: bool,
}

/// Finds the end of a request's head, see [`Scanner::scan`].
///
/// # Errors
/// It cannot become one.
pub fn find(
    scanner: &mut Scanner,
    bytes: &[u8],
    limits: Limits,
) -> Result<Option<usize>, HeadError> {
    scanner.scan(bytes, limits.bytes, |bytes| {
        with_room(limits.fields, |room| {
            let mut parsed = httparse::Request::new(&mut []);
            let parsed = parsed.parse_with_uninit_headers(bytes, room);
            parsed.map(drop).map_err(HeadError::of)
        })
    })
}

/// Parses a head whose end was found.
///
/// # Errors
/// It is refused.
pub fn parse(head: &Bytes, limits: Limits) -> Result<RequestHead, HeadError> {
    with_room(limits.fields, |room| {
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, room) {
            Ok(httparse::Status::Complete(size)) if size == head.len() => {}
            Ok(_) => return Err(HeadError::Syntax),
            Err(error) => return Err(HeadError::of(error)),
        }
        build(head, &parsed)
    })
}

fn build(head: &Bytes, parsed: &httparse::Request<'_, '_>) -> Result<RequestHead, HeadError> {
    let method = parsed.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let method = method.ok_or(HeadError::Syntax)?;
    let target = parsed.path.ok_or(HeadError::Syntax)?;
    let version = match parsed.version {
        Some(1) => Version::HTTP_11,
        Some(0) => Version::HTTP_10,
        _ => return Err(HeadError::Syntax),
    };
    let uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes()));
    let uri = uri.map_err(|_| HeadError::Syntax)?;
    let fields = Fields::collect(head, parsed.headers)?;
    let framing = framing(&method, version, &fields)?;
    let persists = fields.persists(version);
    let expects_continue =
        fields.expects_continue && version == Version::HTTP_11 && framing != Framing::None;
    let (takes_trailers, upgrade) = (fields.takes_trailers, fields.upgrade);
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = version;
    parts.headers = fields.map;
    Ok(RequestHead { parts, framing, persists, expects_continue, takes_trailers, upgrade })
}

/// Source: RFC 9112, 6.3; stricter where it allows a recipient to be.
fn framing(method: &Method, version: Version, fields: &Fields) -> Result<Framing, HeadError> {
    let framing = match (fields.chunked, fields.length) {
        // HTTP/1.0 has no transfer codings: whoever is behind us may not know of them.
        (true, _) if version == Version::HTTP_10 => {
            return Err(HeadError::TransferEncodingNotAllowed);
        }
        (true, _) => Framing::Chunked,
        (false, None | Some(0)) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
    };
    if *method == Method::CONNECT && framing != Framing::None {
        return Err(HeadError::BodyNotAllowed);
    }
    Ok(framing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1024, fields: 8 };

    fn read(text: &str) -> Result<RequestHead, HeadError> {
        let mut scanner = Scanner::default();
        let end = find(&mut scanner, text.as_bytes(), LIMITS)?.expect("a whole head");
        parse(&Bytes::copy_from_slice(&text.as_bytes()[..end]), LIMITS)
    }

    #[test]
    fn heads_are_read_or_refused() {
        use HeadError as No;
        let fields = "a: b\r\n".repeat(9);
        let large = "x".repeat(1025);
        for (text, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", Ok((Framing::None, true))),
            ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", Ok((Framing::None, false))),
            ("GET / HTTP/1.1\r\nConnection: x, Close ,y\r\n\r\n", Ok((Framing::None, false))),
            ("GET / HTTP/1.0\r\n\r\n", Ok((Framing::None, false))),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Ok((Framing::None, true))),
            ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Ok((Framing::None, true))),
            ("POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n", Ok((Framing::Length(12), true))),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n", Ok((Framing::Chunked, true))),
            ("CONNECT a:80 HTTP/1.1\r\n\r\n", Ok((Framing::None, true))),
            ("CONNECT a:80 HTTP/1.1\r\nContent-Length: 1\r\n\r\n", Err(No::BodyNotAllowed)),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Err(No::Length)),
            ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Err(No::Length)),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Err(No::Length)),
            ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", Err(No::Length)),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(No::LengthAndChunked),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
                Err(No::LengthAndChunked),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(No::TransferEncoding),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                Err(No::TransferEncoding),
            ),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Err(No::TransferEncoding)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: \r\n\r\n", Err(No::TransferEncoding)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Err(No::Syntax)),
            (
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(No::TransferEncodingNotAllowed),
            ),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Err(No::BareLineFeed)),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.1\r\n A: b\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.1\r\nA : b\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.1\r\nA\0: b\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.1\r\n: b\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.1\r\nnothing\r\n\r\n", Err(No::Syntax)),
            ("GET  / HTTP/1.1\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.1 \r\n\r\n", Err(No::Syntax)),
            ("GET /\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/2.0\r\n\r\n", Err(No::Syntax)),
            ("GET / HTTP/1.2\r\n\r\n", Err(No::Syntax)),
            ("G\u{e9}T / HTTP/1.1\r\n\r\n", Err(No::Syntax)),
            (&format!("GET / HTTP/1.1\r\n{fields}\r\n"), Err(No::TooManyFields)),
            (&format!("GET /{large} HTTP/1.1\r\n\r\n"), Err(No::TooLarge)),
        ] {
            let found = read(text).map(|head| (head.framing, head.persists));
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn values_are_slices_of_what_was_read() {
        let text = Bytes::from_static(b"GET /a?b HTTP/1.1\r\nHost:  shop \r\nX: 1\r\nx: 2\r\n\r\n");
        let head = parse(&text, LIMITS).unwrap();
        assert_eq!((head.parts.uri.path(), head.parts.uri.query()), ("/a", Some("b")));
        assert_eq!(head.parts.headers["host"], "shop");
        let all: Vec<_> = head.parts.headers.get_all("x").iter().collect();
        assert_eq!(all, ["1", "2"]);
        let within = text.as_ptr_range();
        assert!(within.contains(&head.parts.headers["host"].as_bytes().as_ptr()));
    }

    #[test]
    fn what_cannot_become_a_head_is_refused_before_it_ends() {
        for text in ["\0\0", "GET / HTTP/3", "GET / HTTP/1.1\r\nA : b", "PRI * HTTP/2.0\r\n"] {
            let found = find(&mut Scanner::default(), text.as_bytes(), LIMITS);
            assert_eq!(found, Err(HeadError::Syntax), "{text:?}");
        }
        let text = "GET / HTTP/1.1\r\nA: b";
        assert_eq!(find(&mut Scanner::default(), text.as_bytes(), LIMITS), Ok(None));
    }

    #[test]
    fn only_a_body_is_waited_for() {
        for (text, expected) in [
            ("POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", false),
            ("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nExpect: other\r\nContent-Length: 1\r\n\r\n", false),
        ] {
            assert_eq!(read(text).unwrap().expects_continue, expected, "{text:?}");
        }
    }
}
