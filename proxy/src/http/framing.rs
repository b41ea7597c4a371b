//! Watches the bytes of an HTTP/1 client for what the parser behind does not tell: a request with both `Content-Length`
//! and `Transfer-Encoding`, bare line feeds in a head, and since when a head has been incomplete.
//!
//! hyper follows RFC 9112 in dropping the length; a mesh proxy refuses instead, since whoever sent it may disagree with
//! whoever reads it. The watch follows the framing (head, body by length, chunks, trailers) and keeps a few bytes of a
//! line only. Flags are read by the request's handler by the number of its head on the connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::net::clock::now_ms;

/// How much of a line is kept: enough for the names and values that matter.
const LINE: usize = 256;

/// What the watch tells. Shared with the handler on the same thread; atomics because an upgraded connection must be `Send`.
#[derive(Debug, Default)]
pub struct Watched {
    /// The number (from 1) of the first ambiguous head; 0: none.
    ambiguous: AtomicU64,
    /// Heads that were seen whole.
    heads: AtomicU64,
    /// Since when a head has begun and not ended, on the process's clock, plus one; 0: there is none.
    head_since: AtomicU64,
    /// The connection has become something else, or is not HTTP/1.
    stopped: AtomicBool,
}

impl Watched {
    /// Whether the n-th request (from 1) must be refused.
    pub fn is_ambiguous(&self, request: u64) -> bool {
        let first = self.ambiguous.load(Relaxed);
        first != 0 && request >= first
    }

    /// For how long a head has begun and not ended.
    pub fn in_head_for(&self) -> Option<Duration> {
        let since = self.head_since.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(now_ms().saturating_sub(since)))
    }

    fn set_in_head(&self, in_head: bool) {
        match (in_head, self.head_since.load(Relaxed)) {
            (true, 0) => self.head_since.store(now_ms() + 1, Relaxed),
            (false, since) if since != 0 => self.head_since.store(0, Relaxed),
            _ => {}
        }
    }

    /// Heads that were seen whole.
    pub fn heads(&self) -> u64 {
        self.heads.load(Relaxed)
    }

    /// Nothing is looked at any more.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.set_in_head(false);
    }
}

/// Where in the message the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before or in the request line.
    RequestLine,
    /// In the header fields.
    Fields,
    /// In a body of a known length.
    Body { left: u64 },
    /// In a chunk's size line.
    ChunkSize,
    /// In a chunk, its line end included.
    Chunk { left: u64 },
    /// In the trailers.
    Trailers,
    /// What comes is not looked at.
    Off,
}

/// Follows the framing.
#[derive(Debug)]
pub struct Watch {
    watched: Arc<Watched>,
    state: State,
    line: Vec<u8>,
    /// Bytes of the line beyond what is kept.
    overflow: bool,
    /// The line's last byte so far, kept or not, is a carriage return.
    after_cr: bool,
    length: Option<u64>,
    chunked: bool,
    bare: bool,
}

impl Watch {
    /// Starts at the beginning of a connection.
    pub fn new(watched: Arc<Watched>) -> Self {
        Self {
            watched,
            state: State::RequestLine,
            line: Vec::new(),
            overflow: false,
            after_cr: false,
            length: None,
            chunked: false,
            bare: false,
        }
    }

    /// Looks at bytes that came.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if self.state == State::Off || self.watched.stopped.load(Relaxed) {
            self.state = State::Off;
            return;
        }
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Off => return,
                State::Body { left } => self.skip(bytes, left, |left| State::Body { left }),
                State::Chunk { left } => self.skip(bytes, left, |left| State::Chunk { left }),
                _ => self.line_bytes(bytes),
            };
        }
        let in_head = match self.state {
            State::Fields => true,
            State::RequestLine => !self.line.is_empty(),
            _ => false,
        };
        self.watched.set_in_head(in_head);
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64, again: fn(u64) -> State) -> &'a [u8] {
        let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - skipped as u64;
        self.state = match (left, self.state) {
            (0, State::Chunk { .. }) => State::ChunkSize,
            (0, _) => State::RequestLine,
            (left, _) => again(left),
        };
        &bytes[skipped..]
    }

    fn line_bytes<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let room = LINE - self.line.len();
        if part.len() > room {
            self.overflow = true;
        }
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        if let Some(last) = part.last() {
            self.after_cr = *last == b'\r';
        }
        let Some(end) = end else { return &[] };
        let ended_by_cr = std::mem::take(&mut self.after_cr);
        if self.line.last() == Some(&b'\r') && !self.overflow {
            self.line.pop();
        }
        let line = std::mem::take(&mut self.line);
        self.end_line(&line, ended_by_cr);
        self.line = line;
        self.line.clear();
        self.overflow = false;
        &bytes[end + 1..]
    }

    fn end_line(&mut self, line: &[u8], ended_by_cr: bool) {
        match self.state {
            // Empty lines before a request are skipped, as by the parser.
            State::RequestLine if line.is_empty() => {}
            State::RequestLine => {
                (self.length, self.chunked, self.bare) = (None, false, !ended_by_cr);
                self.state = State::Fields;
            }
            State::Fields if line.is_empty() => {
                self.bare |= !ended_by_cr;
                self.end_head();
            }
            State::Fields => {
                self.bare |= !ended_by_cr;
                self.field(line);
            }
            State::ChunkSize => {
                self.state = match chunk_size(line) {
                    Some(0) => State::Trailers,
                    // The chunk's own line end follows it.
                    Some(size) => State::Chunk { left: size.saturating_add(2) },
                    // The parser refuses it, too.
                    None => State::Off,
                };
            }
            State::Trailers if line.is_empty() => self.state = State::RequestLine,
            State::Trailers | State::Body { .. } | State::Chunk { .. } | State::Off => {}
        }
    }

    fn field(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            // One that is no number is refused by the parser; here it only counts as being there.
            self.length.get_or_insert(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        }
    }

    fn end_head(&mut self) {
        let number = self.watched.heads.fetch_add(1, Relaxed) + 1;
        self.watched.set_in_head(false);
        if self.bare || (self.chunked && self.length.is_some()) {
            if self.watched.ambiguous.load(Relaxed) == 0 {
                self.watched.ambiguous.store(number, Relaxed);
            }
            self.state = State::Off;
            return;
        }
        self.state = match (self.chunked, self.length) {
            (true, _) => State::ChunkSize,
            (false, Some(left)) if left > 0 => State::Body { left },
            _ => State::RequestLine,
        };
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(bytes: &[u8], step: usize) -> (u64, bool, bool) {
        let watched = Arc::new(Watched::default());
        let mut watch = Watch::new(watched.clone());
        for part in bytes.chunks(step) {
            watch.feed(part);
        }
        (watched.heads(), watched.is_ambiguous(watched.heads()), watched.in_head_for().is_some())
    }

    #[test]
    fn a_long_line_may_be_cut_before_its_end() {
        let head = format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "a".repeat(2 * LINE));
        for step in 1..head.len() {
            assert_eq!(watch(head.as_bytes(), step), (1, false, false), "in pieces of {step}");
        }
    }

    #[test]
    fn framing_is_followed_over_several_requests() {
        for (bytes, heads, ambiguous, in_head) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], 1, false, false),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", 0, false, true),
            (b"G", 0, false, true),
            (b"\r\n\r\n", 0, false, false),
            (b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nGET / X\r\n\nGET / HTTP/1.1\r\n\r\n", 2, false, false),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nab\r\nc\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2, false, false),
            (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1, true, false),
            (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH: 5\r\n\r\n0\r\n\r\n", 1, true, false),
            (b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n", 2, true, false),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 1, true, false),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 1, true, false),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 1, true, false),
        ] {
            for step in [1, 2, 3, 7, bytes.len()] {
                assert_eq!(
                    watch(bytes, step),
                    (heads, ambiguous, in_head),
                    "{:?} in steps of {step}",
                    String::from_utf8_lossy(bytes)
                );
            }
        }
    }

    #[test]
    fn only_requests_from_the_ambiguous_one_on_are_refused() {
        let watched = Arc::new(Watched::default());
        let mut watch = Watch::new(watched.clone());
        watch.feed(b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(!watched.is_ambiguous(1));
        assert!(watched.is_ambiguous(2));
        assert!(watched.is_ambiguous(3));
    }

    #[test]
    fn long_lines_are_not_kept() {
        let watched = Arc::new(Watched::default());
        let mut watch = Watch::new(watched.clone());
        let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
        head.resize(head.len() + 100_000, b'x');
        watch.feed(&head);
        assert!(watch.line.capacity() <= 2 * LINE && watched.in_head_for().is_some());
        watch.feed(b"\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(watched.is_ambiguous(1));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, step in 1_usize..50) {
            watch(&bytes, step);
        }

        #[test]
        fn the_same_is_seen_however_the_bytes_are_cut(
            text in "(GET / HTTP/1\\.1\r\n|Content-Length: [0-9]\r\n|Transfer-Encoding: chunked\r\n|\r\n|\n|\r|[0-9a-f]\r\n|[a-z ]{0,5}|:){0,24}",
            step in 1_usize..50,
        ) {
            proptest::prop_assert_eq!(watch(text.as_bytes(), step), watch(text.as_bytes(), usize::MAX));
        }
    }
}
