//! A request's body as it comes from the client, and the connection that it comes by: one that the driver, the body and
//! whoever takes the connection over share on their thread.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::downstream::ServerIo;
use crate::{
    h1::{
        body::{BodyError, Decoder, Part},
        encode,
        head::Framing,
        wire::{Incoming, Outgoing},
    },
    http2,
    net::body::BoxError,
};

/// A client's HTTP/1 connection.
#[derive(Debug)]
pub struct Wire {
    /// The stream; `None` once somebody has taken it over.
    pub io: Option<ServerIo>,
    /// What was read.
    pub incoming: Incoming,
    /// What is to be written.
    pub outgoing: Outgoing,
    /// The body of the request that is under way.
    pub decoder: Decoder,
    /// The number of that request: a body that outlives its request reads nothing more.
    pub request: u64,
    /// The client waits to be told to go on.
    pub expects_continue: bool,
    /// Why the body of this request cannot be read.
    pub failed: Option<BodyFailure>,
    /// Who wants to know that the body has been read by somebody else.
    pub watcher: Option<Waker>,
}

/// How a request's body broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFailure {
    /// It is not framed as it says.
    #[error("the request's body is not framed as it says")]
    Framing(#[source] BodyError),
    /// The connection ended, or broke.
    #[error("the client left before the end of its request")]
    Ended,
    /// The request is over.
    #[error("the request is over")]
    Over,
}

impl Wire {
    /// A connection of which nothing was read.
    pub fn new(io: ServerIo) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            io: Some(io),
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            decoder: Decoder::request(Framing::None),
            request: 0,
            expects_continue: false,
            failed: None,
            watcher: None,
        }))
    }

    /// Whether everything of the request has been read.
    pub fn is_read(&self) -> bool {
        self.decoder.is_done()
    }

    fn fail(&mut self, failure: BodyFailure, cx: &Context<'_>) -> BodyFailure {
        self.failed = Some(failure);
        self.wake(cx);
        failure
    }

    /// Tells the driver, where it is another task than the reader's.
    fn wake(&mut self, cx: &Context<'_>) {
        if let Some(watcher) = self.watcher.take()
            && !watcher.will_wake(cx.waker())
        {
            watcher.wake();
        }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        if let Some(failure) = self.failed {
            return Poll::Ready(Some(Err(failure)));
        }
        loop {
            let part = match self.decoder.decode(&mut self.incoming.bytes) {
                Ok(part) => part,
                Err(error) => {
                    return Poll::Ready(Some(Err(self.fail(BodyFailure::Framing(error), cx))));
                }
            };
            if self.decoder.is_done() {
                self.wake(cx);
            }
            match part {
                Part::Data(data) => {
                    return Poll::Ready(Some(Ok(Frame::data(self.incoming.detach(data)))));
                }
                Part::Trailers(trailers) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Part::End => return Poll::Ready(None),
                Part::More => {}
            }
            let Some(io) = &mut self.io else {
                return Poll::Ready(Some(Err(BodyFailure::Over)));
            };
            if std::mem::take(&mut self.expects_continue) {
                self.outgoing.format().extend_from_slice(encode::CONTINUE);
                // What does not go out now goes out with whatever the driver writes next; errors show when reading.
                let _ = self.outgoing.poll_write(io, cx, &mut 0);
            }
            match ready!(self.incoming.poll_fill(io, cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(self.fail(BodyFailure::Ended, cx)))),
            }
        }
    }
}

/// The body of an HTTP/1 request.
#[derive(Debug)]
pub struct Http1Body {
    wire: Rc<RefCell<Wire>>,
    request: u64,
}

/// A request's body.
#[derive(Debug)]
pub enum ClientBody {
    /// There is none.
    Empty,
    /// By the proxy's own codec.
    Http1(Http1Body),
    /// By a stream of HTTP/2.
    Http2(http2::Incoming),
}

impl ClientBody {
    /// That of the request that is under way on a connection.
    pub fn http1(wire: &Rc<RefCell<Wire>>) -> Self {
        let (is_read, request) = {
            let wire = wire.borrow();
            (wire.is_read(), wire.request)
        };
        if is_read { Self::Empty } else { Self::Http1(Http1Body { wire: wire.clone(), request }) }
    }
}

impl ClientBody {
    /// What follows a head on a stream.
    pub fn http2(stream: Option<http2::RecvStream>) -> Self {
        match stream {
            None => Self::Empty,
            Some(stream) => Self::Http2(http2::Incoming::new(stream)),
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(body) => {
                let mut wire = body.wire.borrow_mut();
                if wire.request != body.request {
                    return Poll::Ready(Some(Err(BodyFailure::Over.into())));
                }
                let frame = ready!(wire.poll_body(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Http2(body) => {
                let frame = ready!(body.poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => {
                let wire = body.wire.borrow();
                wire.request == body.request && wire.failed.is_none() && wire.is_read()
            }
            Self::Http2(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => match body.wire.borrow().decoder.left() {
                Some(left) => SizeHint::with_exact(left),
                None => SizeHint::default(),
            },
            Self::Http2(body) => body.size_hint(),
        }
    }
}
