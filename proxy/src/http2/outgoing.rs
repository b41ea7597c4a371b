//! A body that goes out by a stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

/// Why a body did not go out whole.
#[derive(Debug, thiserror::Error)]
pub enum SendError<E> {
    /// The receiver wants no more of it.
    #[error("the receiver has reset the stream: {0}")]
    Reset(Reason),
    /// The stream is over.
    #[error("the stream is over")]
    Stream(#[source] h2::Error),
    /// The stream is over, and nobody says why.
    #[error("the stream has ended")]
    Ended,
    /// The body itself broke off.
    #[error("the message's body broke off")]
    Body(#[source] E),
}

/// A message's body on its way into a stream. Dropped before its end, the stream is given up.
pub struct Outgoing<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// What was asked for before there was room for it, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

impl<B> std::fmt::Debug for Outgoing<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// A body that follows a head.
    pub fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self { stream, body, waiting: None }
    }

    /// The body.
    pub fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }

    /// Whether the receiver has no room.
    pub fn is_stalled(&self) -> bool {
        self.waiting.is_some()
    }

    /// Gives the stream up.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Sends what there is, as far as the receiver has room. Ready when everything is on its way.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<B::Error>>> {
        loop {
            if let Some((data, last)) = self.waiting.take() {
                match self.poll_room(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.waiting = Some((data, last));
                        return self.poll_reset(cx);
                    }
                }
                self.send(data, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                return self.poll_reset(cx);
            };
            let Some(frame) = frame.transpose().map_err(SendError::Body)? else {
                return Poll::Ready(self.send(Bytes::new(), true));
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = self.body.is_end_stream();
                    if !data.is_empty() {
                        // No more than is there: room that one stream has asked for is not another's.
                        self.stream.reserve_capacity(data.len());
                        self.waiting = Some((data, last));
                    } else if last {
                        return Poll::Ready(self.send(data, true));
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.stream.reserve_capacity(0);
                        return Poll::Ready(
                            self.stream.send_trailers(trailers).map_err(SendError::Stream),
                        );
                    }
                }
            }
        }
    }

    fn send(&mut self, data: Bytes, last: bool) -> Result<(), SendError<B::Error>> {
        self.stream.send_data(data, last).map_err(SendError::Stream)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<B::Error>>> {
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(SendError::Stream(error))),
                Poll::Ready(None) => return Poll::Ready(Err(SendError::Ended)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// While nothing can be sent: the receiver may have had enough.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<B::Error>>> {
        self.stream.poll_reset(cx).map(|reset| {
            Err(match reset {
                Ok(reason) => SendError::Reset(reason),
                Err(error) => SendError::Stream(error),
            })
        })
    }
}
