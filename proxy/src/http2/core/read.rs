//! What the peer has said on streams, for those that read it.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, response};

use super::{Core, register};
use crate::http2::{Error, STREAM_WINDOW, frame, head};

impl Core {
    /// The response's head.
    pub fn poll_response(
        &mut self,
        key: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<response::Parts, Error>> {
        let stream = self.streams.get(key);
        match (stream.response.take(), &stream.error) {
            (Some(head), _) => Poll::Ready(Ok(head)),
            (None, Some(error)) => Poll::Ready(Err(error.clone())),
            (None, None) => {
                register(&mut stream.reader, cx);
                Poll::Pending
            }
        }
    }

    /// The next part of the body; none when it is over. Its room is the reader's to give back ([`Self::release`]).
    pub fn poll_data(
        &mut self,
        key: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        let stream = self.streams.get(key);
        if let Some(data) = stream.pop() {
            return Poll::Ready(Some(Ok(data)));
        }
        if stream.ended {
            return Poll::Ready(None);
        }
        if let Some(error) = &stream.error {
            return Poll::Ready(Some(Err(error.clone())));
        }
        register(&mut stream.reader, cx);
        if std::mem::take(&mut stream.expects_continue) {
            let id = stream.id;
            self.put_headers(id, false, |encoder, out| {
                head::put_response(encoder, out, StatusCode::CONTINUE, &HeaderMap::new());
            });
        }
        Poll::Pending
    }

    /// What followed the body, after its end.
    pub fn poll_trailers(
        &mut self,
        key: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, Error>> {
        let stream = self.streams.get(key);
        match &stream.error {
            _ if stream.ended => Poll::Ready(Ok(stream.trailers.take())),
            Some(error) => Poll::Ready(Err(error.clone())),
            None => {
                register(&mut stream.reader, cx);
                Poll::Pending
            }
        }
    }

    /// How long the body is, if that is said.
    pub fn length(&mut self, key: u32) -> Option<u64> {
        self.streams.get(key).length
    }

    /// Whether everything has come and was taken.
    pub fn is_read(&mut self, key: u32) -> bool {
        let stream = self.streams.get(key);
        stream.ended && !stream.has_data() && stream.trailers.is_none()
    }

    /// Gives back room of a body's bytes.
    pub fn release(&mut self, key: u32, size: usize) {
        let stream = self.streams.get(key);
        let size = size.min(stream.held);
        stream.held -= size;
        stream.unsaid += size as u32;
        if stream.receiving && stream.unsaid >= STREAM_WINDOW / 2 {
            let (id, more) = (stream.id, std::mem::take(&mut stream.unsaid));
            stream.room += i64::from(more);
            frame::window_update(self.out(), id, more);
        }
        self.release_room(size);
    }

    /// Gives back room of the connection.
    pub(super) fn release_room(&mut self, size: usize) {
        self.unsaid += size as u32;
        // What nobody reads may be most of it: others must not wait for that.
        if self.unsaid >= self.half || self.unsaid > 0 && i64::from(self.unsaid) >= self.room {
            let more = std::mem::take(&mut self.unsaid);
            self.room += i64::from(more);
            frame::window_update(self.out(), 0, more);
        }
    }

    /// Nobody will read the body.
    pub fn ignore(&mut self, key: u32) {
        let stream = self.streams.get(key);
        stream.unwanted = true;
        let size = stream.discard();
        self.release_room(size);
    }
}
