//! What the peer's frames do.

use std::cell::Cell;

use http::StatusCode;

use super::{ALIVE, Core, Ended, LAST, LEAVING, Role, Stream};
use crate::{
    http2::{
        By, Error, Reason,
        frame::{self, Head, flag, kind, setting},
        head,
        hpack::Block,
    },
    net::outbound::INFORMATIONAL,
};

/// Streams that may have to be reset because of what the peer sent.
const VIOLATIONS: usize = 1024;
/// Frames in a row that may say nothing.
const EMPTY: usize = 1000;
/// Frames that nobody looks at, for each stream: `PRIORITY`, and those of unknown kinds.
const PRIORITIES: usize = 100;
/// Windows that may be opened, and streams reset, for each frame of `DATA` that was sent.
const PER_DATA: usize = 10;
/// Streams that may be held beside those that may be open: they were reset, and nobody has seen it yet.
pub const SLACK: usize = 600;
/// What blocks of headers may have beside as many bytes as their list may count.
const BLOCK: usize = 16 * 1024;
/// Windows do not grow beyond.
const WINDOW: i64 = 0x7fff_ffff;

thread_local! {
    static BLOCKS: Cell<Block> = Cell::default();
}

/// A block of headers of which more follows.
#[derive(Debug)]
pub struct Partial {
    headers: Headers,
    bytes: Vec<u8>,
    frames: usize,
}

/// Frames that cost us some work and the peer next to nothing, as they ask for no answer.
#[derive(Debug, Default)]
pub struct Idle {
    priorities: usize,
    updates: usize,
    resets: usize,
}

/// What a frame with headers says beside them.
#[derive(Clone, Copy, Debug)]
struct Headers {
    stream: u32,
    /// It begins a stream.
    begins: bool,
    /// It ends the peer's side.
    ends: bool,
    /// The stream depends on itself.
    circular: bool,
}

/// What the peer may not do, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Stream(u32, Reason),
    Connection(Reason),
}

const PROTOCOL: Fault = Fault::Connection(Reason::PROTOCOL_ERROR);
const SIZE: Fault = Fault::Connection(Reason::FRAME_SIZE_ERROR);
const TOO_MUCH: Fault = Fault::Connection(Reason::ENHANCE_YOUR_CALM);

fn malformed(stream: u32) -> Fault {
    Fault::Stream(stream, Reason::PROTOCOL_ERROR)
}

fn number<const N: usize>(payload: &[u8]) -> Option<[u8; N]> {
    payload.first_chunk().copied()
}

impl Core {
    /// Takes one frame.
    pub fn receive(&mut self, head: Head, payload: &[u8]) {
        match self.dispatch(head, payload) {
            Ok(()) => {}
            Err(Fault::Connection(reason)) => self.fail(Error::GoAway(reason, By::Us)),
            Err(Fault::Stream(id, reason)) => self.violated(id, reason),
        }
    }

    /// The bytes are no frames.
    pub fn broken(&mut self, reason: Reason) {
        self.fail(Error::GoAway(reason, By::Us));
    }

    fn violated(&mut self, id: u32, reason: Reason) {
        self.violations += 1;
        if self.violations > VIOLATIONS && self.violations > self.begun / 2 {
            return self.fail(Error::GoAway(Reason::ENHANCE_YOUR_CALM, By::Us));
        }
        match self.streams.find(id) {
            Some(key) => {
                self.reset(key, reason);
                self.answers += frame::HEAD + 4;
            }
            None => self.refuse(id, reason),
        }
    }

    /// Resets a stream that is none.
    fn refuse(&mut self, id: u32, reason: Reason) {
        self.answer(|out| frame::reset(out, id, reason));
        if self.streams.ended(id).is_none() {
            self.streams.remember(id, Ended::ByUs);
        }
    }

    fn dispatch(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if !self.peer.said && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(PROTOCOL);
        }
        if let Some(partial) = &self.partial
            && (head.kind != kind::CONTINUATION || head.stream != partial.headers.stream)
        {
            return Err(PROTOCOL);
        }
        let of_connection = matches!(head.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        let of_stream = head.kind < kind::WINDOW_UPDATE || head.kind == kind::CONTINUATION;
        if head.kind <= kind::CONTINUATION
            && (of_connection && head.stream != 0
                || !of_connection && of_stream && head.stream == 0)
        {
            return Err(PROTOCOL);
        }
        match head.kind {
            kind::DATA => self.data(head, payload),
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::PRIORITY => self.priority(head, payload),
            kind::RST_STREAM => self.was_reset(head, payload),
            kind::SETTINGS => self.settings(head, payload),
            kind::PING => self.ping(head, payload),
            kind::GOAWAY => self.went_away(payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            // Nobody was allowed to push.
            kind::PUSH_PROMISE => Err(PROTOCOL),
            _ => self.count_priority(),
        }
    }

    /// Nobody needs it, while it is well-formed.
    fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        self.count_priority()?;
        match number::<4>(payload) {
            Some(other) if payload.len() == 5 => {
                let other = u32::from_be_bytes(other) & LAST;
                if other != head.stream {
                    Ok(())
                } else if self.is_idle(other) {
                    Err(PROTOCOL)
                } else {
                    Err(malformed(other))
                }
            }
            _ if self.is_idle(head.stream) => Err(SIZE),
            _ => Err(Fault::Stream(head.stream, Reason::FRAME_SIZE_ERROR)),
        }
    }

    /// Envoy's measure, as for windows.
    fn count_priority(&mut self) -> Result<(), Fault> {
        self.idle.priorities += 1;
        let most = PRIORITIES * (1 + self.begun);
        if self.idle.priorities > most { Err(TOO_MUCH) } else { Ok(()) }
    }

    fn count_update(&mut self) -> Result<(), Fault> {
        self.idle.updates += 1;
        let most = 5 + 2 * (self.begun + PER_DATA * self.data_sent);
        if self.idle.updates > most { Err(TOO_MUCH) } else { Ok(()) }
    }

    /// Some answer each frame so that comes after a stream's end.
    fn count_reset(&mut self) -> Result<(), Fault> {
        self.idle.resets += 1;
        let most = PRIORITIES + PER_DATA * (self.begun + self.data_sent);
        if self.idle.resets > most { Err(TOO_MUCH) } else { Ok(()) }
    }

    /// Whether nobody has begun the stream.
    fn is_idle(&self, id: u32) -> bool {
        match self.role {
            Role::Server => id.is_multiple_of(2) || id > self.last,
            Role::Client => id.is_multiple_of(2) || id >= self.next,
        }
    }

    /// What a frame means on a stream that is not open.
    fn after_end(&mut self, id: u32) -> Result<(), Fault> {
        match self.streams.ended(id) {
            // It was sent before the peer knew, or it is long ago.
            Some(Ended::ByUs) | None => Ok(()),
            Some(Ended::ByPeer | Ended::Whole) => Err(Fault::Stream(id, Reason::STREAM_CLOSED)),
        }
    }

    fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        let data = unpadded(head, payload)?;
        self.room -= payload.len() as i64;
        if self.room < 0 {
            return Err(Fault::Connection(Reason::FLOW_CONTROL_ERROR));
        }
        let ends = head.has(flag::END_STREAM);
        self.count_empty(data.is_empty() && !ends)?;
        let Some(key) = self.streams.find(head.stream) else {
            self.release_room(payload.len());
            return self.after_end(head.stream);
        };
        let stream = self.streams.get(key);
        let fault = |reason| Err(Fault::Stream(head.stream, reason));
        let checked = match stream.left {
            _ if !stream.receiving => fault(Reason::STREAM_CLOSED),
            _ if !stream.headed => fault(Reason::PROTOCOL_ERROR),
            _ if stream.room < payload.len() as i64 => fault(Reason::FLOW_CONTROL_ERROR),
            Some(left) if left < data.len() as u64 => fault(Reason::PROTOCOL_ERROR),
            Some(left) if ends && left > data.len() as u64 => fault(Reason::PROTOCOL_ERROR),
            left => Ok(left.map(|left| left - data.len() as u64)),
        };
        let taken = checked.is_ok() && !stream.unwanted;
        if taken {
            if !data.is_empty() {
                stream.push(data);
            }
            stream.unsaid += (payload.len() - data.len()) as u32;
        }
        self.release_room(payload.len() - if taken { data.len() } else { 0 });
        let left = checked?;
        let stream = self.streams.get(key);
        stream.room -= payload.len() as i64;
        (stream.left, stream.expects_continue) = (left, false);
        if ends {
            (stream.receiving, stream.ended) = (false, true);
        }
        stream.wake_reader();
        if ends {
            self.close_whole(key);
        } else if data.len() < payload.len() {
            // Nobody gives back the padding's room.
            self.release(key, 0);
        }
        Ok(())
    }

    fn count_empty(&mut self, says_nothing: bool) -> Result<(), Fault> {
        self.empty = if says_nothing { self.empty + 1 } else { 0 };
        if self.empty > EMPTY { Err(TOO_MUCH) } else { Ok(()) }
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let mut block = unpadded(head, payload)?;
        let mut circular = false;
        if head.has(flag::PRIORITY) {
            let (priority, rest) = block.split_at_checked(5).ok_or(SIZE)?;
            let other = number(priority).map(u32::from_be_bytes).unwrap_or_default();
            circular = other & LAST == head.stream;
            block = rest;
        }
        let begins = self.role == Role::Server && head.stream > self.last;
        if begins {
            if head.stream.is_multiple_of(2) {
                return Err(PROTOCOL);
            }
            self.skipped = self.last + 1..head.stream;
            self.last = head.stream;
            self.begun += 1;
        } else if self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        let ends = head.has(flag::END_STREAM);
        let headers = Headers { stream: head.stream, begins, ends, circular };
        if head.has(flag::END_HEADERS) {
            return self.block(headers, block);
        }
        self.partial = Some(Partial { headers, bytes: block.to_vec(), frames: 0 });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let limit = self.limits.head.saturating_add(BLOCK);
        let partial = self.partial.as_mut().ok_or(PROTOCOL)?;
        partial.bytes.extend_from_slice(payload);
        partial.frames += 1;
        // As many as the largest block has, and some more.
        if partial.bytes.len() > limit || partial.frames > limit / frame::MOST + 8 {
            return Err(TOO_MUCH);
        }
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some(Partial { headers, bytes, .. }) = self.partial.take() else { return Ok(()) };
        self.block(headers, &bytes)
    }

    /// A whole block of headers has come.
    fn block(&mut self, headers: Headers, bytes: &[u8]) -> Result<(), Fault> {
        let mut block = BLOCKS.take();
        let decoded = self.decoder.decode(bytes, self.limits.head, &mut block);
        let taken = match decoded {
            Ok(()) => self.take_block(headers, &mut block),
            Err(_) => Err(Fault::Connection(Reason::COMPRESSION_ERROR)),
        };
        if !block.is_large() {
            BLOCKS.set(block);
        }
        taken
    }

    fn take_block(&mut self, headers: Headers, block: &mut Block) -> Result<(), Fault> {
        let id = headers.stream;
        self.count_empty(false)?;
        if headers.begins {
            return self.begin(headers, block);
        }
        let Some(key) = self.streams.find(id) else {
            return match (self.streams.ended(id), self.role) {
                (Some(Ended::Whole), _) => Err(Fault::Connection(Reason::STREAM_CLOSED)),
                (None, Role::Server) if self.skipped.contains(&id) => Err(PROTOCOL),
                _ => self.after_end(id),
            };
        };
        let stream = self.streams.get(key);
        if !stream.receiving {
            return Err(Fault::Stream(id, Reason::STREAM_CLOSED));
        }
        if headers.circular || block.too_large {
            return Err(malformed(id));
        }
        if stream.headed {
            let trailers = head::trailers(block).map_err(|_| malformed(id))?;
            if !headers.ends || stream.left.is_some_and(|left| left > 0) {
                return Err(malformed(id));
            }
            stream.trailers = (!trailers.is_empty()).then_some(trailers);
        } else {
            let (response, length) = head::response(block).map_err(|_| malformed(id))?;
            let status = response.status;
            if status.is_informational() {
                // Others than 101, which there is not here, are nobody's concern, while there is an end to them.
                stream.informational += 1;
                let wrong = headers.ends || status == StatusCode::SWITCHING_PROTOCOLS;
                let wrong = wrong || stream.informational > INFORMATIONAL;
                return if wrong { Err(malformed(id)) } else { Ok(()) };
            }
            let bodiless = stream.bodiless || matches!(status.as_u16(), 204 | 304);
            stream.left = if bodiless { Some(0) } else { length };
            if headers.ends && stream.left.is_some_and(|left| left > 0) {
                return Err(malformed(id));
            }
            stream.length = length;
            (stream.headed, stream.response) = (true, Some(response));
        }
        if headers.ends {
            (stream.receiving, stream.ended) = (false, true);
        }
        stream.wake_reader();
        if headers.ends {
            self.close_whole(key);
        }
        Ok(())
    }

    /// A client begins a request.
    fn begin(&mut self, headers: Headers, block: &mut Block) -> Result<(), Fault> {
        let Headers { stream: id, ends, .. } = headers;
        if self.left.is_some() {
            // It was told that nobody will look at it.
            return Ok(());
        }
        let most = self.limits.streams as usize;
        if self.streams.open() >= most || self.streams.all() >= most.saturating_add(SLACK) {
            self.refuse(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        if headers.circular {
            return Err(malformed(id));
        }
        if block.too_large {
            self.refuse_head(id, ends);
            return Ok(());
        }
        let (request, length) = head::request(block).map_err(|_| malformed(id))?;
        if ends && length.is_some_and(|length| length > 0) {
            return Err(malformed(id));
        }
        let mut stream = Stream::new(id, self.peer.window.into());
        (stream.headed, stream.length, stream.left) = (true, length, length);
        (stream.receiving, stream.ended) = (!ends, ends);
        stream.expects_continue = !ends && head::expects_continue(&request.headers);
        let key = self.streams.insert(stream);
        self.requests.push_back((request, key));
        Ok(())
    }

    /// Answers a request whose head is too large.
    fn refuse_head(&mut self, id: u32, ends: bool) {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        self.put_headers(id, true, |encoder, out| {
            head::put_response(encoder, out, status, &http::HeaderMap::new());
        });
        if ends {
            self.streams.remember(id, Ended::Whole);
        } else {
            self.refuse(id, Reason::NO_ERROR);
        }
    }

    fn was_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let reason = number(payload).filter(|_| payload.len() == 4).ok_or(SIZE)?;
        self.count_reset()?;
        if self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        if let Some(key) = self.streams.find(head.stream) {
            let reason = Reason(u32::from_be_bytes(reason));
            self.resets += 1;
            self.streams.close(key, Ended::ByPeer);
            let stream = self.streams.get(key);
            stream.error = Some(Error::Reset(reason, By::Peer));
            stream.wake();
        }
        Ok(())
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(SIZE) };
        }
        let (settings, []) = payload.as_chunks::<6>() else { return Err(SIZE) };
        let first = !std::mem::replace(&mut self.peer.said, true);
        if first {
            self.peer.streams = usize::MAX;
        }
        let mut window = self.peer.window;
        for [a, b, c, d, e, f] in settings {
            let value = u32::from_be_bytes([*c, *d, *e, *f]);
            match u16::from_be_bytes([*a, *b]) {
                setting::HEADER_TABLE_SIZE => self.encoder.resize(value as usize),
                setting::ENABLE_PUSH if value > 1 || value == 1 && self.role == Role::Client => {
                    return Err(PROTOCOL);
                }
                setting::MAX_CONCURRENT_STREAMS => self.peer.streams = value as usize,
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > WINDOW => {
                    return Err(Fault::Connection(Reason::FLOW_CONTROL_ERROR));
                }
                setting::INITIAL_WINDOW_SIZE => window = value,
                setting::MAX_FRAME_SIZE => {
                    if !(frame::MOST as u32..1 << 24).contains(&value) {
                        return Err(PROTOCOL);
                    }
                    self.peer.frame = value as usize;
                }
                _ => {}
            }
        }
        // The last one counts, and all streams are looked at once.
        self.resize_windows(window)?;
        self.answer(frame::settings_ack);
        Ok(())
    }

    fn resize_windows(&mut self, window: u32) -> Result<(), Fault> {
        let more = i64::from(window) - i64::from(self.peer.window);
        if more == 0 {
            return Ok(());
        }
        self.peer.window = window;
        for (_, stream) in self.streams.each() {
            stream.window += more;
            if stream.window > WINDOW {
                return Err(Fault::Connection(Reason::FLOW_CONTROL_ERROR));
            }
            if more > 0 {
                stream.wake_writer();
            }
        }
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let payload: [u8; 8] = payload.try_into().map_err(|_| SIZE)?;
        if !head.has(flag::ACK) {
            self.answer(|out| frame::ping(out, payload, true));
        } else if payload == ALIVE {
            self.answered = true;
        } else if payload == LEAVING && self.leaving {
            // What the client sent before it knew has come.
            self.leave_now();
        }
        Ok(())
    }

    fn went_away(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let [a, b, c, d, e, f, g, h] = number::<8>(payload).ok_or(SIZE)?;
        let last = u32::from_be_bytes([a, b, c, d]) & LAST;
        let reason = Reason(u32::from_be_bytes([e, f, g, h]));
        self.refuses = true;
        if self.role == Role::Client {
            self.end_streams(last, &Error::GoAway(reason, By::Peer));
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let more = number(payload).filter(|_| payload.len() == 4).ok_or(SIZE)?;
        let more = i64::from(u32::from_be_bytes(more) & LAST);
        self.count_update()?;
        if head.stream == 0 {
            if more == 0 {
                return Err(PROTOCOL);
            }
            self.window += more;
            if self.window > WINDOW {
                return Err(Fault::Connection(Reason::FLOW_CONTROL_ERROR));
            }
            self.wake_waiting();
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        if more == 0 {
            return Err(malformed(head.stream));
        }
        if let Some(key) = self.streams.find(head.stream) {
            let stream = self.streams.get(key);
            stream.window += more;
            if stream.window > WINDOW {
                return Err(Fault::Stream(head.stream, Reason::FLOW_CONTROL_ERROR));
            }
            stream.wake_writer();
        }
        Ok(())
    }
}

/// What is between a frame's padding.
fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], Fault> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(SIZE)?;
    rest.len().checked_sub(padding.into()).and_then(|size| rest.get(..size)).ok_or(PROTOCOL)
}
