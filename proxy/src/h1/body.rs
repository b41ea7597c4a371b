//! Bodies as they come in: by length, by chunks with trailers, or until the connection ends.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use memchr::memchr;

use super::head::Framing;

/// Longest line before a chunk: its size and extensions.
const LINE: usize = 256;
/// Extensions of all chunks of a body together.
const EXTENSIONS: usize = 16 * 1024;
/// Trailers, line ends included.
const TRAILERS: usize = 16 * 1024;
/// Trailer fields.
const TRAILER_FIELDS: usize = 100;

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The line before a chunk is not a size with extensions.
    #[error("a chunk's size is not one")]
    ChunkSize,
    /// More, or longer, extensions than anybody needs.
    #[error("the extensions of chunks are too long")]
    Extensions,
    /// A chunk does not end where its size says.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// The trailers are not fields.
    #[error("the trailers are not fields")]
    Trailers,
    /// The trailers are too large.
    #[error("the trailers are too large")]
    TrailersTooLarge,
    /// The connection ended first.
    #[error("the connection ended before the body did")]
    Ended,
}

/// A part of a body.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Bytes.
    Data(Bytes),
    /// Fields at the end; nothing follows.
    Trailers(HeaderMap),
    /// Nothing follows.
    End,
    /// More bytes are needed.
    More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Close,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// Takes a body out of the bytes of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
    /// Spaces after a chunk's size are taken: some servers write them.
    lenient: bool,
}

impl Decoder {
    /// Of a request.
    pub fn request(framing: Framing) -> Self {
        Self::new(framing, false)
    }

    /// Of a response.
    pub fn response(framing: Framing) -> Self {
        Self::new(framing, true)
    }

    fn new(framing: Framing, lenient: bool) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::Close => State::Close,
        };
        Self { state, extensions: 0, lenient }
    }

    /// Whether nothing follows.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether a chunk's data has been taken, and its line end is next.
    pub fn is_between(&self) -> bool {
        self.state == State::ChunkEnd
    }

    /// Bytes that are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// The body is refused; the connection cannot be used any more.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Part, BodyError> {
        loop {
            return match self.state {
                State::Done => Ok(Part::End),
                State::Length(left) => Ok(self.data(bytes, left, State::Length, State::Done)),
                State::Chunk(left) => Ok(self.data(bytes, left, State::Chunk, State::ChunkEnd)),
                State::Close if bytes.is_empty() => Ok(Part::More),
                State::Close => Ok(Part::Data(bytes.split().freeze())),
                State::ChunkSize => {
                    if !self.chunk_size(bytes)? {
                        return Ok(Part::More);
                    }
                    continue;
                }
                State::ChunkEnd => {
                    if !b"\r\n".starts_with(bytes.get(..2).unwrap_or(bytes)) {
                        return Err(BodyError::ChunkEnd);
                    }
                    if bytes.len() < 2 {
                        return Ok(Part::More);
                    }
                    bytes.advance(2);
                    self.state = State::ChunkSize;
                    continue;
                }
                State::Trailers => self.trailers(bytes),
            };
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// There was more to come.
    pub fn end(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Close | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Ended),
        }
    }

    fn data(
        &mut self,
        bytes: &mut BytesMut,
        left: u64,
        again: fn(u64) -> State,
        then: State,
    ) -> Part {
        if bytes.is_empty() {
            return Part::More;
        }
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - size as u64;
        self.state = if left == 0 { then } else { again(left) };
        Part::Data(bytes.split_to(size).freeze())
    }

    /// Takes the line before a chunk; `false`: it has not come in whole.
    fn chunk_size(&mut self, bytes: &mut BytesMut) -> Result<bool, BodyError> {
        let seen = bytes.get(..LINE).unwrap_or(bytes);
        let Some(end) = memchr(b'\n', seen) else {
            let digits = seen.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            return match seen.get(digits) {
                _ if digits > 16 => Err(BodyError::ChunkSize),
                Some(_) if digits == 0 => Err(BodyError::ChunkSize),
                _ if seen.len() == LINE => Err(BodyError::Extensions),
                Some(b'\r' | b';') | None => Ok(false),
                Some(b' ' | b'\t') if self.lenient => Ok(false),
                Some(_) => Err(BodyError::ChunkSize),
            };
        };
        let line = seen.get(..end).and_then(|line| line.strip_suffix(b"\r"));
        let line = line.ok_or(BodyError::ChunkSize)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, mut rest) = line.split_at(digits);
        if self.lenient {
            // Not what else is white: the end of a line somewhere else.
            let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            rest = rest.get(padding..).unwrap_or_default();
        }
        if !(rest.is_empty() || rest.starts_with(b";")) || rest.iter().any(|byte| is_control(*byte))
        {
            return Err(BodyError::ChunkSize);
        }
        self.extensions += rest.len();
        if self.extensions > EXTENSIONS {
            return Err(BodyError::Extensions);
        }
        let size = hexadecimal(digits).ok_or(BodyError::ChunkSize)?;
        self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
        bytes.advance(end + 1);
        Ok(true)
    }

    /// Takes the fields after the last chunk, and the empty line.
    fn trailers(&mut self, bytes: &mut BytesMut) -> Result<Part, BodyError> {
        if bytes.starts_with(b"\r\n") {
            bytes.advance(2);
            self.state = State::Done;
            return Ok(Part::End);
        }
        let seen = bytes.get(..TRAILERS).unwrap_or(bytes);
        let mut line = 0;
        let end = loop {
            let rest = seen.get(line..).unwrap_or_default();
            let Some(found) = memchr(b'\n', rest) else {
                let full = seen.len() == TRAILERS;
                return if full { Err(BodyError::TrailersTooLarge) } else { Ok(Part::More) };
            };
            if found == 0 || rest.get(found - 1) != Some(&b'\r') {
                return Err(BodyError::Trailers);
            }
            if found == 1 {
                break line + 2;
            }
            line += found + 1;
        };
        let trailers = fields(&bytes.split_to(end).freeze())?;
        self.state = State::Done;
        Ok(if trailers.is_empty() { Part::End } else { Part::Trailers(trailers) })
    }
}

/// Control characters but the tabulator.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let text =
        std::str::from_utf8(digits).ok().filter(|text| !text.is_empty() && text.len() <= 16)?;
    u64::from_str_radix(text, 16).ok()
}

fn fields(bytes: &Bytes) -> Result<HeaderMap, BodyError> {
    let mut room = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    let parsed = match httparse::parse_headers(bytes, &mut room) {
        Ok(httparse::Status::Complete((size, parsed))) if size == bytes.len() => parsed,
        Err(httparse::Error::TooManyHeaders) => return Err(BodyError::TrailersTooLarge),
        _ => return Err(BodyError::Trailers),
    };
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(BodyError::Trailers) };
        if may_trail(&name) {
            fields.append(name, value);
        }
    }
    Ok(fields)
}

/// Fields that frame or route a message, or say what its body is, count in its head only (RFC 9110, 6.5.1).
pub fn may_trail(name: &HeaderName) -> bool {
    ![
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::HOST,
        header::MAX_FORWARDS,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]
    .contains(name)
        // HTTP/2's library takes this for part of a name.
        && !name.as_str().contains('"')
}

#[cfg(test)]
mod tests;
