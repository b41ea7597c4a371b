//! A body that goes out by a stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

use super::{Error, Reason, SendStream};

/// Why a body did not go out whole.
#[derive(Debug, thiserror::Error)]
pub enum SendError<E> {
    /// The stream is over.
    #[error("the stream is over")]
    Stream(#[source] Error),
    /// The body itself broke off.
    #[error("the message's body broke off")]
    Body(#[source] E),
}

#[derive(Debug)]
enum Waiting {
    /// A part, and whether it is the last.
    Data(Bytes, bool),
    Trailers(Box<HeaderMap>),
}

/// A message's body on its way into a stream. Dropped before its end, the stream is given up.
#[derive(Debug)]
pub struct Outgoing<B> {
    stream: SendStream,
    body: B,
    /// What there is no room for yet.
    waiting: Option<Waiting>,
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// A body that follows a head.
    pub fn new(stream: SendStream, body: B) -> Self {
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
        self.stream.reset(reason);
    }

    /// Sends what there is, as far as the receiver has room. Ready when everything is on its way.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<B::Error>>> {
        loop {
            let sent = match &mut self.waiting {
                None => Ok(false),
                Some(Waiting::Data(data, last)) => {
                    ready!(self.stream.poll_write(cx, data, *last)).map(|()| *last)
                }
                Some(Waiting::Trailers(trailers)) => {
                    ready!(self.stream.poll_trailers(cx, trailers)).map(|()| true)
                }
            };
            if sent.map_err(SendError::Stream)? {
                return Poll::Ready(Ok(()));
            }
            self.waiting = None;
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // The receiver may have had enough.
                return self.stream.poll_reset(cx).map(|error| Err(SendError::Stream(error)));
            };
            let Some(frame) = frame.transpose().map_err(SendError::Body)? else {
                return Poll::Ready(self.stream.end().map_err(SendError::Stream));
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = self.body.is_end_stream();
                    if last || !data.is_empty() {
                        self.waiting = Some(Waiting::Data(data, last));
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        match self.stream.poll_trailers(cx, &trailers) {
                            Poll::Ready(sent) => {
                                return Poll::Ready(sent.map_err(SendError::Stream));
                            }
                            Poll::Pending => {
                                self.waiting = Some(Waiting::Trailers(Box::new(trailers)));
                            }
                        }
                    }
                }
            }
        }
    }
}
