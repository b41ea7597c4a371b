//! What heads of requests and responses have in common: where they end, their fields, and what these say of the body.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use memchr::memchr;

use crate::net::spare;

/// What a head may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, line ends included.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// How a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection. Responses only.
    Close,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is not HTTP/1.
    #[error("not a head of HTTP/1")]
    Syntax,
    /// A line ends without a carriage return.
    #[error("a line of the head ends with a bare line feed")]
    BareLineFeed,
    /// More bytes than allowed.
    #[error("the head is too large")]
    TooLarge,
    /// More fields than allowed.
    #[error("the head has too many fields")]
    TooManyFields,
    /// `Content-Length` is not one number.
    #[error("the content length is not one number")]
    Length,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("both a content length and a transfer coding")]
    LengthAndChunked,
    /// A transfer coding other than exactly `chunked`.
    #[error("a transfer coding other than chunked")]
    TransferEncoding,
    /// A transfer coding where the message can have none.
    #[error("a transfer coding where there can be none")]
    TransferEncodingNotAllowed,
    /// A body where the message can have none.
    #[error("a body where there can be none")]
    BodyNotAllowed,
}

impl HeadError {
    /// The status that tells a client so.
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyFields => 431,
            Self::TransferEncoding => 501,
            _ => 400,
        }
    }

    /// Envoy's words for `%RESPONSE_CODE_DETAILS%`.
    pub fn details(self) -> &'static str {
        match self {
            Self::Syntax | Self::BareLineFeed | Self::Length => "http1.codec_error",
            Self::TooLarge => "http1.headers_too_large",
            Self::TooManyFields => "http1.too_many_headers",
            Self::LengthAndChunked => "http1.content_length_and_chunked_not_allowed",
            Self::TransferEncoding => "http1.invalid_transfer_encoding",
            Self::TransferEncodingNotAllowed => "http1.transfer_encoding_not_allowed",
            Self::BodyNotAllowed => "http1.body_disallowed",
        }
    }

    pub(super) fn of(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            _ => Self::Syntax,
        }
    }
}

/// Fields that fit on the stack; limits beyond are rare.
const ON_STACK: usize = 100;

/// Parsing needs a place for the fields: on the stack where they fit.
pub(super) fn with_room<'b, T>(
    fields: usize,
    parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'b>>]) -> T,
) -> T {
    let mut room = [const { MaybeUninit::uninit() }; ON_STACK];
    match room.get_mut(..fields) {
        Some(room) => parse(room),
        None => {
            let mut room = Vec::new();
            room.resize_with(fields, MaybeUninit::uninit);
            parse(&mut room)
        }
    }
}

/// Finds the end of a head in bytes that come piece by piece, looking at each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    /// Where to look on.
    at: usize,
    /// Where the line begins that is not ended.
    line: usize,
    /// From how many bytes on an unfinished head is looked at for what cannot become one.
    look_at: usize,
}

impl Scanner {
    /// The length of the head at the beginning of `bytes`; `None`: there is more to come. `look` finds in an unfinished
    /// head what cannot be right any more.
    ///
    /// # Errors
    /// A line without a carriage return at its end, too many bytes, or what `look` found.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        limit: usize,
        look: impl FnOnce(&[u8]) -> Result<(), HeadError>,
    ) -> Result<Option<usize>, HeadError> {
        while let Some(found) = memchr(b'\n', bytes.get(self.at..).unwrap_or_default()) {
            let end = self.at + found;
            let after_cr = end.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&b'\r');
            if !after_cr {
                return Err(HeadError::BareLineFeed);
            }
            let empty = end == self.line + 1;
            (self.at, self.line) = (end + 1, end + 1);
            if self.at > limit {
                return Err(HeadError::TooLarge);
            }
            if empty {
                *self = Self::default();
                return Ok(Some(end + 1));
            }
        }
        self.at = bytes.len();
        if bytes.len() > limit {
            return Err(HeadError::TooLarge);
        }
        if bytes.len() >= self.look_at {
            self.look_at = bytes.len().max(64) * 2;
            look(bytes)?;
        }
        Ok(None)
    }
}

/// Skips empty lines before a request or response (RFC 9112, 2.2). Only whole ones: a bare line feed is left to be refused.
pub fn skip_empty_lines(bytes: &mut BytesMut) {
    while bytes.starts_with(b"\r\n") {
        bytes::Buf::advance(bytes, 2);
    }
}

/// A head's fields, and what those say that frame the message.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub map: HeaderMap,
    pub length: Option<u64>,
    pub chunked: bool,
    pub close: bool,
    pub keep_alive: bool,
    pub expects_continue: bool,
    pub takes_trailers: bool,
    pub upgrade: bool,
}

impl Fields {
    /// From what was parsed out of `head`; values are slices of it.
    pub fn collect(head: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<Self, HeadError> {
        let map = spare::take(parsed.len()).ok_or(HeadError::TooManyFields)?;
        let mut fields = Self { map, ..Self::default() };
        for field in parsed {
            let name =
                HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Syntax)?;
            if name == header::CONTENT_LENGTH {
                let length = decimal(field.value).filter(|_| fields.length.is_none());
                fields.length = Some(length.ok_or(HeadError::Length)?);
            } else if name == header::TRANSFER_ENCODING {
                if fields.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::TransferEncoding);
                }
                fields.chunked = true;
            } else if name == header::CONNECTION {
                fields.connection(field.value);
            } else if name == header::EXPECT {
                fields.expects_continue = field.value.eq_ignore_ascii_case(b"100-continue");
            } else if name == header::TE {
                let mut tokens = field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                fields.takes_trailers |=
                    tokens.any(|token| token.eq_ignore_ascii_case(b"trailers"));
            } else if name == header::UPGRADE {
                fields.upgrade = true;
            }
            let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
            fields.map.append(name, value.map_err(|_| HeadError::Syntax)?);
        }
        if fields.chunked && fields.length.is_some() {
            return Err(HeadError::LengthAndChunked);
        }
        Ok(fields)
    }

    fn connection(&mut self, value: &[u8]) {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= token.eq_ignore_ascii_case(b"close");
            self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Whether the connection may go on after the message.
    pub fn persists(&self, version: http::Version) -> bool {
        !self.close && (version != http::Version::HTTP_10 || self.keep_alive)
    }
}

/// Digits and nothing else.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8], step: usize) -> Result<Option<usize>, HeadError> {
        let mut scanner = Scanner::default();
        let mut end = 0;
        loop {
            end = (end + step).min(bytes.len());
            let found = scanner.scan(&bytes[..end], 64, |_| Ok(()))?;
            if found.is_some() || end == bytes.len() {
                return Ok(found);
            }
        }
    }

    #[test]
    fn a_head_ends_with_an_empty_line_however_it_is_cut() {
        let long = [b'x'; 65];
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n\r\nrest"[..], Ok(Some(18))),
            (b"a\r\nb\r\n\r\n\r\n", Ok(Some(8))),
            (b"a\r\nb\r\n\r", Ok(None)),
            (b"a\r\r\n\r\n", Ok(Some(6))),
            (b"a\nb\r\n\r\n", Err(HeadError::BareLineFeed)),
            (b"a\r\n\n", Err(HeadError::BareLineFeed)),
            (b"\n", Err(HeadError::BareLineFeed)),
            (b"", Ok(None)),
            (&long, Err(HeadError::TooLarge)),
        ] {
            for step in [1, 2, 3, 100] {
                assert_eq!(scan(bytes, step), expected, "{} by {step}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn an_unfinished_head_is_looked_at_now_and_then() {
        let mut looks = 0;
        let mut scanner = Scanner::default();
        let bytes = [b'x'; 4096];
        for end in 1..=bytes.len() {
            let found = scanner.scan(&bytes[..end], 5_000, |_| {
                looks += 1;
                Ok(())
            });
            assert_eq!(found, Ok(None));
        }
        assert!((2..12).contains(&looks), "{looks}");
    }

    #[test]
    fn numbers_are_digits() {
        for (text, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            ("1,1", None),
            ("0x1", None),
        ] {
            assert_eq!(decimal(text.as_bytes()), expected, "{text:?}");
        }
    }
}
