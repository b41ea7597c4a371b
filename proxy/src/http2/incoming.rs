//! A body that comes in by a stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Error, RecvStream};

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
    pub fn new(stream: RecvStream) -> Self {
        Self { left: stream.length(), stream, data_ended: false }
    }

    /// Whether nothing follows any more.
    pub fn is_over(&self) -> bool {
        self.stream.is_read()
    }

    /// What is known of the size of what follows.
    pub fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None if self.is_over() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }

    /// The next part; `None`: it is over.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Its reader has room for it, or it would not ask.
                    self.stream.release(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error)),
        })
    }
}
