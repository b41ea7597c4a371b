//! What we say on streams.

use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Method, StatusCode};

use super::{Core, HEAD, HEADS, HELD, PART, Stream, register};
use crate::{
    http2::{By, Error, Reason, frame, head, hpack::Encoder, streams::WaitsFor},
    net::outbound::Outbound,
};

impl Core {
    /// Streams that wait for the connection may try again: as many as there may be enough for.
    pub(super) fn wake_waiting(&mut self) {
        if self.heads.is_empty() && self.bodies.is_empty() {
            return;
        }
        let room = HEADS.saturating_sub(self.unsent());
        self.call(WaitsFor::Heads, room.div_ceil(HEAD));
        let window = usize::try_from(self.window).unwrap_or_default();
        let room = HELD.saturating_sub(self.unsent()).min(window);
        self.call(WaitsFor::Bodies, room.div_ceil(PART));
    }

    /// The owner calls more in its next turn, whatever becomes of these.
    fn call(&mut self, what: WaitsFor, enough: usize) {
        let waiting = match what {
            WaitsFor::Heads => &mut self.heads,
            WaitsFor::Bodies => &mut self.bodies,
        };
        if enough == 0 || waiting.is_empty() {
            return;
        }
        for key in waiting.call(enough) {
            let stream = self.streams.get(key);
            stream.waits = None;
            stream.wake_writer();
        }
        if !waiting.is_empty() {
            self.rouse();
        }
    }

    /// Sees whether those who were called last have used what there was.
    pub(super) fn pause_waiting(&mut self) {
        let unsent = self.unsent();
        if unsent >= HEADS / 2 {
            self.heads.pause();
        }
        if unsent >= HELD / 2 || self.window <= 0 {
            self.bodies.pause();
        }
    }

    /// Begins a request, on a stream that the caller holds. Answers none when that cannot be now.
    pub fn request(&mut self, head: &Outbound<'_>, length: Option<u64>, ends: bool) -> Option<u32> {
        if !self.is_open() || self.streams.open() >= self.peer.streams {
            return None;
        }
        let id = self.next;
        self.next += 2;
        self.begun += 1;
        let mut stream = Stream::new(id, self.peer.window.into());
        stream.bodiless = *head.method == Method::HEAD;
        stream.sending = !ends;
        self.put_headers(id, ends, |encoder, out| {
            head::put_request(encoder, out, head, length);
        });
        Some(self.streams.insert(stream))
    }

    pub(super) fn put_headers(
        &mut self,
        id: u32,
        ends: bool,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) {
        self.out();
        let (out, encoder) = (&mut self.out, &mut self.encoder);
        frame::headers(out, id, ends, self.peer.frame, |out| write(encoder, out));
    }

    /// The stream, while we may send on it.
    fn sendable(&mut self, key: u32) -> Result<&mut Stream, Error> {
        let stream = self.streams.get(key);
        match &stream.error {
            Some(error) => Err(error.clone()),
            None if !stream.sending => Err(Error::Reset(Reason::STREAM_CLOSED, By::Us)),
            None => Ok(stream),
        }
    }

    /// Sends a response's head, when there is room for it.
    pub fn poll_respond(
        &mut self,
        key: u32,
        cx: &mut Context<'_>,
        status: StatusCode,
        headers: &HeaderMap,
        ends: bool,
    ) -> Poll<Result<(), Error>> {
        let id = ready!(self.poll_room(key, cx))?;
        let write = |encoder: &mut Encoder, out: &mut Vec<u8>| {
            head::put_response(encoder, out, status, headers);
        };
        self.put_headers(id, ends, write);
        self.sent(key, ends);
        Poll::Ready(Ok(()))
    }

    /// Sends what follows a body, when there is room for it.
    pub fn poll_trailers_out(
        &mut self,
        key: u32,
        cx: &mut Context<'_>,
        trailers: &HeaderMap,
    ) -> Poll<Result<(), Error>> {
        let id = ready!(self.poll_room(key, cx))?;
        let write = |encoder: &mut Encoder, out: &mut Vec<u8>| {
            head::put_trailers(encoder, out, trailers);
        };
        self.put_headers(id, true, write);
        self.sent(key, true);
        Poll::Ready(Ok(()))
    }

    /// Waits until a head may be added to what waits to be sent. Answers the stream's number.
    fn poll_room(&mut self, key: u32, cx: &mut Context<'_>) -> Poll<Result<u32, Error>> {
        let is_full = self.unsent() >= HEADS;
        let stream = self.sendable(key)?;
        if is_full {
            register(&mut stream.writer, cx);
            self.wait(key, WaitsFor::Heads);
            return Poll::Pending;
        }
        // Who has the answer needs not be told to go on.
        (stream.order, stream.expects_continue) = (None, false);
        Poll::Ready(Ok(stream.id))
    }

    /// Sends a part of a body as far as there is room, and takes what was sent off it. Ready when all of it was.
    pub fn poll_write(
        &mut self,
        key: u32,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), Error>> {
        loop {
            let (window, is_full) = (self.window, self.is_full());
            let frame = self.peer.frame.min(frame::LARGE) as i64;
            let stream = self.sendable(key)?;
            if data.is_empty() && !last {
                return Poll::Ready(Ok(()));
            }
            let most = if is_full { 0 } else { window.min(stream.window).clamp(0, frame) };
            let size = data.len().min(most as usize);
            if size == 0 && !data.is_empty() {
                register(&mut stream.writer, cx);
                if stream.window > 0 {
                    self.wait(key, WaitsFor::Bodies);
                }
                return Poll::Pending;
            }
            stream.window -= size as i64;
            stream.order = None;
            let id = stream.id;
            self.window -= size as i64;
            self.data_sent += 1 + size / frame::MOST;
            let ends = last && size == data.len();
            frame::data(self.out(), id, ends, &data[..size]);
            data.advance(size);
            if data.is_empty() {
                self.sent(key, ends);
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn wait(&mut self, key: u32, what: WaitsFor) {
        let stream = self.streams.get(key);
        let order = *stream.order.get_or_insert_with(|| {
            self.waits += 1;
            self.waits
        });
        let before = stream.waits.replace(what);
        if before == Some(what) {
            return;
        }
        if before.is_some() {
            self.forget(key);
        }
        match what {
            WaitsFor::Heads => self.heads.push(order, key),
            WaitsFor::Bodies => self.bodies.push(order, key),
        }
    }

    /// The stream waits for nothing that it shares.
    pub(super) fn forget(&mut self, key: u32) {
        self.heads.forget(key);
        self.bodies.forget(key);
    }

    /// Places of these streams among those that wait, the first that is woken first.
    #[cfg(test)]
    pub fn in_turn(&mut self, keys: &[u32]) -> Vec<usize> {
        let order = |at: &usize| self.streams.get(keys[*at]).order;
        let mut places: Vec<usize> = (0..keys.len()).collect();
        places.sort_by_key(order);
        places
    }

    /// Something was sent on a stream, perhaps the last.
    fn sent(&mut self, key: u32, last: bool) {
        if last {
            let stream = self.streams.get(key);
            stream.sending = false;
            self.close_whole(key);
        }
    }
}
