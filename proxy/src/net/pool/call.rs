//! One request and its response on an HTTP/1 connection: both directions are driven by whoever polls.
//!
//! The request's body goes out while the response comes in, before its head as well as after. A connection goes back to
//! its pool only when both messages ended as they should and nothing is left over.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderName, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::{connect::ConnectionInfo, http1::Busy, tunnel::Tunnel};
use crate::{
    h1::{
        body::{Decoder, Part},
        encode::{self, RequestLine},
        head::{Framing, HeadError, Limits, Scanner, skip_empty_lines},
        response::{self, ResponseHead},
        wire::Outgoing,
    },
    net::{
        body::{BoxError, RequestBody},
        outbound::{INFORMATIONAL, Outbound},
        upstreams::{BodyError, Cause, ErrorKind, UpstreamError},
    },
};

/// What a response's head may have.
const LIMITS: Limits = Limits { bytes: 64 * 1024, fields: 100 };

/// How far the request is.
#[derive(Debug)]
enum Upload {
    /// There is more of it to send.
    Body { body: RequestBody, chunked: bool, left: u64, trailers: Option<Box<str>> },
    /// Everything is queued.
    Queued,
    /// Everything has been sent.
    Sent,
    /// The endpoint takes no more of it.
    Broken,
}

/// What the endpoint said first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Bytes,
    /// The end, in order.
    End,
    /// A reset, or what is like one.
    Break,
}

/// A request on its connection.
#[derive(Debug)]
pub struct Call {
    busy: Busy,
    outgoing: Outgoing,
    upload: Upload,
    written: u64,
    heard: Heard,
    scanner: Scanner,
    informational: u32,
    method: Method,
    decoder: Decoder,
    persists: bool,
}

impl Call {
    /// Begins a request: its head is formatted, nothing is written yet.
    pub fn new(busy: Busy, request: Outbound<'_>, body: RequestBody) -> Self {
        let mut outgoing = Outgoing::default();
        let size = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        let fields = (request.headers, request.instead);
        let framing = encode::request(outgoing.format(), line(&request), fields, size);
        let left = match framing {
            Framing::Length(size) => Some(size),
            Framing::Chunked => Some(u64::MAX),
            Framing::None | Framing::Close => None,
        };
        let upload = match left {
            None => Upload::Queued,
            Some(left) => Upload::Body {
                body,
                chunked: framing == Framing::Chunked,
                left,
                trailers: Some(encode::announced(request.headers))
                    .filter(|names| !names.is_empty()),
            },
        };
        Self {
            busy,
            outgoing,
            upload,
            written: 0,
            heard: Heard::Nothing,
            scanner: Scanner::default(),
            informational: 0,
            method: request.method.clone(),
            decoder: Decoder::response(Framing::Close),
            persists: false,
        }
    }

    /// What is known of the connection.
    pub fn info(&self) -> &Arc<ConnectionInfo> {
        &self.busy.idle.info
    }

    /// Sends the request and waits for the response's head.
    ///
    /// # Errors
    /// There is none.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
                return Poll::Ready(Err(
                    self.failed(ErrorKind::RequestBody, Some(Arc::from(error)))
                ));
            }
            let incoming = &mut self.busy.idle.incoming;
            skip_empty_lines(&mut incoming.bytes);
            let found = match incoming.bytes.is_empty() {
                true => Ok(None),
                false => response::find(&mut self.scanner, &incoming.bytes, LIMITS),
            };
            match found {
                Ok(None) => {}
                Ok(Some(end)) => {
                    let head = incoming.take_head(end);
                    match response::parse(&head, &self.method, LIMITS) {
                        Ok(head) => match self.take_head(head) {
                            Ok(Some(head)) => return Poll::Ready(Ok(head)),
                            Ok(None) => continue,
                            Err(error) => return Poll::Ready(Err(self.refused(error))),
                        },
                        Err(error) => return Poll::Ready(Err(self.refused(error))),
                    }
                }
                Err(error) => return Poll::Ready(Err(self.refused(error))),
            }
            match ready!(incoming.poll_fill(&mut self.busy.idle.io, cx)) {
                Ok(0) => {
                    self.hear(Heard::End);
                    return Poll::Ready(Err(self.failed(ErrorKind::Closed, None)));
                }
                Ok(_) => self.hear(Heard::Bytes),
                Err(error) => {
                    self.hear_error(&error);
                    return Poll::Ready(Err(self.failed(ErrorKind::Closed, Some(Arc::new(error)))));
                }
            }
        }
    }

    /// Notes a head; `None`: the final one is still to come.
    fn take_head(&mut self, head: ResponseHead) -> Result<Option<ResponseHead>, HeadError> {
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.informational += 1;
            return if self.informational > INFORMATIONAL {
                Err(HeadError::Syntax)
            } else {
                Ok(None)
            };
        }
        self.decoder = Decoder::response(head.framing);
        self.persists = head.persists && head.status != StatusCode::SWITCHING_PROTOCOLS;
        Ok(Some(head))
    }

    /// Sends what there is of the request. The error is that of the request's own body.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            let mut waits = false;
            while let Upload::Body { .. } = self.upload
                && self.outgoing.has_room()
            {
                match self.poll_queue(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => {
                        self.upload = Upload::Broken;
                        return Poll::Ready(Err(error));
                    }
                    Poll::Pending => {
                        waits = true;
                        break;
                    }
                }
            }
            if matches!(self.upload, Upload::Sent | Upload::Broken) {
                return Poll::Ready(Ok(()));
            }
            let io = &mut self.busy.idle.io;
            match ready!(self.outgoing.poll_write(io, cx, &mut self.written)) {
                Err(error) => {
                    // It may have answered before.
                    self.hear_error(&error);
                    self.upload = Upload::Broken;
                }
                Ok(()) if matches!(self.upload, Upload::Queued) => self.upload = Upload::Sent,
                Ok(()) if waits => return Poll::Pending,
                Ok(()) => {}
            }
        }
    }

    /// Queues the next frame of the request's body.
    fn poll_queue(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let Upload::Body { body, chunked, left, trailers } = &mut self.upload else {
            return Poll::Ready(Ok(()));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose()?;
        let mut ended = frame.is_none();
        if let Some(frame) = frame {
            match frame.into_data() {
                Ok(data) => {
                    let size = data.len() as u64;
                    *left = left
                        .checked_sub(size)
                        .ok_or("the request's body is longer than it said")?;
                    if *chunked {
                        self.outgoing.chunk(data);
                    } else {
                        self.outgoing.data(data);
                    }
                    ended = body.is_end_stream() || *left == 0;
                }
                Err(frame) => {
                    if let (true, Some(told), Ok(fields)) =
                        (*chunked, trailers, frame.into_trailers())
                    {
                        let told = |name: &HeaderName| encode::is_announced(told, name);
                        encode::trailers(self.outgoing.format(), &fields, told);
                        self.upload = Upload::Queued;
                        return Poll::Ready(Ok(()));
                    }
                    ended = true;
                }
            }
        }
        if ended {
            if *chunked {
                self.outgoing.last_chunk();
            } else if *left > 0 {
                return Poll::Ready(Err("the request's body is shorter than it said".into()));
            }
            self.upload = Upload::Queued;
        }
        Poll::Ready(Ok(()))
    }

    fn hear(&mut self, what: Heard) {
        if self.heard == Heard::Nothing {
            self.heard = what;
        }
    }

    fn hear_error(&mut self, error: &io::Error) {
        self.hear(match error.kind() {
            // TLS without its goodbye; a write after the endpoint's end.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => Heard::End,
            _ => Heard::Break,
        });
    }

    fn refused(&self, error: HeadError) -> UpstreamError {
        self.failed(ErrorKind::Protocol, Some(Arc::new(error)))
    }

    fn failed(&self, kind: ErrorKind, source: Option<Cause>) -> UpstreamError {
        UpstreamError {
            sent: self.written > 0,
            reused: self.busy.reused,
            ended: self.heard == Heard::End,
            source,
            ..UpstreamError::unsent(kind)
        }
    }

    /// The next part of the response's body; `None`: it is over.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(BodyError::new(
                ErrorKind::RequestBody,
                Arc::from(error),
            ))));
        }
        loop {
            let idle = &mut self.busy.idle;
            match self.decoder.decode(&mut idle.incoming.bytes) {
                Ok(Part::Data(data)) => {
                    let data = idle.incoming.detach(data);
                    self.end_at_once();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Part::Trailers(trailers)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Part::End) => return Poll::Ready(None),
                Ok(Part::More) => {}
                Err(error) => {
                    let error = BodyError::new(ErrorKind::Protocol, Arc::new(error));
                    return Poll::Ready(Some(Err(error)));
                }
            }
            let ended: Cause = match ready!(idle.incoming.poll_fill(&mut idle.io, cx)) {
                Ok(1..) => continue,
                Ok(0) => match self.decoder.end() {
                    Ok(()) => return Poll::Ready(None),
                    Err(error) => Arc::new(error),
                },
                Err(error) => Arc::new(error),
            };
            return Poll::Ready(Some(Err(BodyError::new(ErrorKind::Closed, ended))));
        }
    }

    /// Takes the end of a chunked body along with its last data, where it has come.
    fn end_at_once(&mut self) {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        let bytes = &mut self.busy.idle.incoming.bytes;
        if self.decoder.left().is_none() && bytes.starts_with(END) && self.decoder.is_between() {
            bytes.advance(END.len());
            self.decoder = Decoder::response(Framing::None);
        }
    }

    /// Whether the response is over.
    pub fn is_over(&self) -> bool {
        self.decoder.is_done()
    }

    /// What is known of the size of what follows.
    pub fn size_hint(&self) -> SizeHint {
        self.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The response is over: the connection goes back to its pool, or is closed.
    pub fn finish(self) {
        let Self { mut busy, upload, persists, decoder, .. } = self;
        let whole = matches!(upload, Upload::Sent) && decoder.is_done();
        if whole && persists && busy.idle.incoming.bytes.is_empty() {
            busy.idle.incoming.release();
            busy.finish();
        }
    }

    /// The endpoint has switched protocols: the connection's bytes, from here on.
    pub fn into_tunnel(self) -> Option<Tunnel> {
        let Self { mut busy, upload, .. } = self;
        let read = busy.idle.incoming.bytes.split().freeze();
        matches!(upload, Upload::Sent).then(|| Tunnel::new(busy, read))
    }
}

/// Origin form; CONNECT keeps its authority.
fn line<'a>(request: &Outbound<'a>) -> RequestLine<'a> {
    let host = request.authority;
    let target = match request.target {
        _ if *request.method == Method::CONNECT => host,
        Some(target) => target.as_str(),
        None => "/",
    };
    RequestLine { method: request.method, target, host }
}

#[cfg(test)]
mod tests;
