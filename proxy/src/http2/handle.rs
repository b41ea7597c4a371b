//! What is held of a connection: streams, and the right to begin some. A stream that nobody holds any more is given up.

use std::{
    cell::RefCell,
    fmt,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, response};

use super::{Error, Reason, core::Core};
use crate::net::outbound::Outbound;

/// A place in a connection.
struct Handle {
    core: Rc<RefCell<Core>>,
    key: u32,
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.core.borrow_mut().hold(self.key);
        Self { core: self.core.clone(), key: self.key }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.borrow_mut().let_go(self.key);
    }
}

/// Our side of a stream.
#[derive(Clone)]
pub struct SendStream(Handle);

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendStream").field(&self.0.key).finish()
    }
}

impl SendStream {
    /// A stream that is held for the caller already.
    pub(super) fn new(core: Rc<RefCell<Core>>, key: u32) -> Self {
        Self(Handle { core, key })
    }

    /// Sends a response's head, when there is room for it.
    pub fn poll_respond(
        &mut self,
        cx: &mut Context<'_>,
        status: StatusCode,
        headers: &HeaderMap,
        ends: bool,
    ) -> Poll<Result<(), Error>> {
        self.0.core.borrow_mut().poll_respond(self.0.key, cx, status, headers, ends)
    }

    /// Sends a part of a body as far as there is room, and takes what was sent off it. Ready when all of it was.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), Error>> {
        self.0.core.borrow_mut().poll_write(self.0.key, cx, data, last)
    }

    /// Sends an end without anything before it.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn end(&mut self) -> Result<(), Error> {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        match self.poll_write(cx, &mut Bytes::new(), true) {
            Poll::Ready(ended) => ended,
            // Nothing needs no room.
            Poll::Pending => Ok(()),
        }
    }

    /// Sends what follows a body, when there is room for it.
    pub fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &HeaderMap,
    ) -> Poll<Result<(), Error>> {
        self.0.core.borrow_mut().poll_trailers_out(self.0.key, cx, trailers)
    }

    /// Gives the stream up.
    pub fn reset(&mut self, reason: Reason) {
        self.0.core.borrow_mut().reset(self.0.key, reason);
    }

    /// Whether the stream has broken off.
    pub fn is_broken(&self) -> bool {
        self.0.core.borrow_mut().is_broken(self.0.key)
    }

    /// Waits for the stream's breaking off.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.0.core.borrow_mut().poll_reset(self.0.key, cx)
    }
}

/// The peer's side of a stream. When it is dropped, nobody wants to know what else comes.
pub struct RecvStream(Handle);

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvStream").field(&self.0.key).finish()
    }
}

impl RecvStream {
    /// The other side of the same stream.
    pub(super) fn of(stream: &SendStream) -> Self {
        Self(stream.0.clone())
    }

    /// Waits for the response's head.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Error>> {
        self.0.core.borrow_mut().poll_response(self.0.key, cx)
    }

    /// The next part of the body; none when it is over. Its room is given back by [`Self::release`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.0.core.borrow_mut().poll_data(self.0.key, cx)
    }

    /// What followed the body.
    pub fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, Error>> {
        self.0.core.borrow_mut().poll_trailers(self.0.key, cx)
    }

    /// Gives back room of a body's bytes.
    pub fn release(&mut self, size: usize) {
        self.0.core.borrow_mut().release(self.0.key, size);
    }

    /// How long the body is, if that is said.
    pub fn length(&self) -> Option<u64> {
        self.0.core.borrow_mut().length(self.0.key)
    }

    /// Whether everything has come and was taken.
    pub fn is_read(&self) -> bool {
        self.0.core.borrow_mut().is_read(self.0.key)
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.0.core.borrow_mut().ignore(self.0.key);
    }
}

/// The right to begin requests. With the last one, and the last stream, the connection ends.
pub struct Sender(Rc<RefCell<Core>>);

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn new(core: Rc<RefCell<Core>>) -> Self {
        core.borrow_mut().senders += 1;
        Self(core)
    }

    /// Whether the peer takes requests: it has neither ended the connection nor said that it will.
    pub fn is_open(&self) -> bool {
        self.0.borrow().is_open()
    }

    /// Begins a request, whose body is so long if that is to be said, and of which more is to be sent if it does not end; none when there is no room for it.
    pub fn request(
        &self,
        head: &Outbound<'_>,
        length: Option<u64>,
        ends: bool,
    ) -> Option<(Option<SendStream>, RecvStream)> {
        let key = self.0.borrow_mut().request(head, length, ends)?;
        let handle = Handle { core: self.0.clone(), key };
        let outgoing = (!ends).then(|| SendStream(handle.clone()));
        Some((outgoing, RecvStream(handle)))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.borrow_mut().sender_gone();
    }
}
