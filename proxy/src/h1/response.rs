//! Heads of responses.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};

use super::head::{Fields, Framing, HeadError, Limits, Scanner, with_room};

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The server's version.
    pub version: Version,
    /// The fields.
    pub headers: HeaderMap,
    /// How its body ends.
    pub framing: Framing,
    /// The server would take another request on the connection.
    pub persists: bool,
}

/// Finds the end of a response's head, see [`Scanner::scan`].
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
            let mut parsed = httparse::Response::new(&mut []);
            let config = httparse::ParserConfig::default();
            let parsed = config.parse_response_with_uninit_headers(&mut parsed, bytes, room);
            parsed.map(drop).map_err(HeadError::of)
        })
    })
}

/// Parses a head whose end was found; `method` is that of the request.
///
/// # Errors
/// It is refused.
pub fn parse(head: &Bytes, method: &Method, limits: Limits) -> Result<ResponseHead, HeadError> {
    with_room(limits.fields, |room| {
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, head, room) {
            Ok(httparse::Status::Complete(size)) if size == head.len() => {}
            Ok(_) => return Err(HeadError::Syntax),
            Err(error) => return Err(HeadError::of(error)),
        }
        build(head, method, &parsed)
    })
}

fn build(
    head: &Bytes,
    method: &Method,
    parsed: &httparse::Response<'_, '_>,
) -> Result<ResponseHead, HeadError> {
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(HeadError::Syntax)?;
    let version = match parsed.version {
        Some(1) => Version::HTTP_11,
        Some(0) => Version::HTTP_10,
        _ => return Err(HeadError::Syntax),
    };
    let fields = Fields::collect(head, parsed.headers)?;
    let framing = framing(method, status, version, &fields)?;
    let persists = fields.persists(version) && framing != Framing::Close;
    Ok(ResponseHead { status, version, headers: fields.map, framing, persists })
}

/// Source: RFC 9112, 6.3.
fn framing(
    method: &Method,
    status: StatusCode,
    version: Version,
    fields: &Fields,
) -> Result<Framing, HeadError> {
    if fields.chunked && version == Version::HTTP_10 {
        return Err(HeadError::TransferEncodingNotAllowed);
    }
    Ok(if *method == Method::HEAD || !has_body(status) {
        Framing::None
    } else if fields.chunked {
        Framing::Chunked
    } else {
        match fields.length {
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        }
    })
}

/// Whether responses with this status have a body.
pub fn has_body(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1024, fields: 8 };

    fn read(method: &Method, text: &str) -> Result<ResponseHead, HeadError> {
        let end = find(&mut Scanner::default(), text.as_bytes(), LIMITS)?.expect("a whole head");
        parse(&Bytes::copy_from_slice(&text.as_bytes()[..end]), method, LIMITS)
    }

    #[test]
    fn heads_are_read_or_refused() {
        use HeadError as No;
        let (get, head) = (Method::GET, Method::HEAD);
        for (method, text, expected) in [
            (&get, "200 OK\r\nContent-Length: 3\r\n\r\n", Ok((200, Framing::Length(3), true))),
            (&get, "200\r\nContent-Length: 3\r\n\r\n", Ok((200, Framing::Length(3), true))),
            (&get, "200 OK\r\nContent-Length: 0\r\n\r\n", Ok((200, Framing::None, true))),
            (&get, "200 OK\r\n\r\n", Ok((200, Framing::Close, false))),
            (
                &get,
                "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Ok((200, Framing::Chunked, true)),
            ),
            (&head, "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Ok((200, Framing::None, true))),
            (&head, "200 OK\r\nContent-Length: 3\r\n\r\n", Ok((200, Framing::None, true))),
            (&head, "200 OK\r\n\r\n", Ok((200, Framing::None, true))),
            (&get, "204 No Content\r\n\r\n", Ok((204, Framing::None, true))),
            (&get, "304 Not Modified\r\nContent-Length: 9\r\n\r\n", Ok((304, Framing::None, true))),
            (&get, "100 Continue\r\n\r\n", Ok((100, Framing::None, true))),
            (
                &get,
                "200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
                Ok((200, Framing::Length(3), false)),
            ),
            (&get, "200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Err(No::Length)),
            (
                &get,
                "200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(No::LengthAndChunked),
            ),
            (&get, "200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Err(No::TransferEncoding)),
            (&get, "200 OK\r\nA : b\r\n\r\n", Err(No::Syntax)),
            (&get, "200 OK\r\nA: b\r\n c\r\n\r\n", Err(No::Syntax)),
            (&get, "200 OK\r\nA: b\n\r\n", Err(No::BareLineFeed)),
            (&get, "20 OK\r\n\r\n", Err(No::Syntax)),
            (&get, "99 OK\r\n\r\n", Err(No::Syntax)),
        ] {
            let text = format!("HTTP/1.1 {text}");
            let found =
                read(method, &text).map(|head| (head.status.as_u16(), head.framing, head.persists));
            assert_eq!(found, expected, "{method} {text:?}");
        }
        let old = read(&get, "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n").unwrap();
        assert_eq!((old.framing, old.persists), (Framing::Length(3), false));
        let chunked = read(&get, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(chunked.unwrap_err(), No::TransferEncodingNotAllowed);
        assert_eq!(read(&get, "SSH-2.0-x\r\n\r\n").unwrap_err(), No::Syntax);
    }
}
