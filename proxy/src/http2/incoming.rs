//! A body that comes in by a stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

/// The body of a message. Dropped before its end, the stream is given up.
#[derive(Debug)]
pub struct Incoming {
    stream: RecvStream,
    /// What is missing of what `content-length` says.
    left: Option<u64>,
    /// There is no more data; trailers may follow.
    data_ended: bool,
}

impl Incoming {
    /// The body that follows a head.
    pub fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        Self { stream, left: content_length(headers), data_ended: false }
    }

    /// Whether nothing follows any more.
    pub fn is_over(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// What is known of the size of what follows.
    pub fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None if self.is_over() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }

    /// The stream itself.
    pub fn into_stream(self) -> RecvStream {
        self.stream
    }

    /// The next part; `None`: it is over.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Its reader has room for it, or it would not ask.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(broken_off(error)),
                None => self.data_ended = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => broken_off(error),
        })
    }
}

/// `RST_STREAM` with `NO_ERROR` ends a message of which enough was sent (RFC 9113, 8.1).
fn broken_off(error: h2::Error) -> Option<Result<Frame<Bytes>, h2::Error>> {
    (error.reason() != Some(Reason::NO_ERROR)).then_some(Err(error))
}

/// What `content-length` says; `h2` has compared several.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
