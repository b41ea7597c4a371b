//! A request's body that can be sent more than once: what went out is kept, up to a limit.
//!
//! Each attempt reads the kept frames first, then the client. Only the newest attempt may read; a body that outgrew the
//! limit, or of which nothing is to be repeated any more, streams through without being kept.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use ::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{incoming::ClientBody, record::MessageCount};
use crate::net::{
    body::{BoxError, RequestBody},
    clock,
};

/// Most bytes that are kept for another attempt.
pub const LIMIT: usize = 64 * 1024;

/// Why an attempt's body ends before the request's does.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Another attempt reads the body now.
    #[error("another attempt has taken over")]
    Superseded,
    /// The client failed.
    #[error("the client's request broke off")]
    Client(#[source] BoxError),
}

struct Inner<B> {
    source: B,
    /// Frames that went out, for the next attempt.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    keep: bool,
    overflowed: bool,
    attempt: u64,
    received: u64,
    total: Option<u64>,
    ended: Option<Instant>,
    failed: bool,
    /// Counts gRPC's messages, where it is gRPC.
    messages: Option<MessageCount>,
    waiting: Option<Waker>,
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Inner<B> {
    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        let frame = match std::task::ready!(Pin::new(&mut self.source).poll_frame(cx)) {
            None => {
                self.end();
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.failed = true;
                self.end();
                return Poll::Ready(Some(Err(ReplayError::Client(error.into()))));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            self.received += data.len() as u64;
            if let Some(messages) = &mut self.messages {
                messages.feed(data);
            }
            self.keep_data(data.clone());
            if self.source.is_end_stream() {
                self.end();
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            if self.keep {
                self.trailers = Some(trailers.clone());
            }
            self.end();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep_data(&mut self, data: Bytes) {
        if !self.keep {
            return;
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > LIMIT {
            self.overflowed = true;
            self.keep = false;
            self.kept = Vec::new();
        } else {
            self.kept.push(data);
        }
    }

    fn end(&mut self) {
        if self.ended.is_none() {
            self.ended = Some(clock::now());
            if let Some(waker) = self.waiting.take() {
                waker.wake();
            }
        }
    }
}

/// A request's body.
pub struct Replay<B = ClientBody>(Rc<RefCell<Inner<B>>>);

impl<B> Clone for Replay<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> std::fmt::Debug for Replay<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("received", &self.0.borrow().received)
            .finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static> Replay<B> {
    /// A body of which nothing was read. `keep`: there may be a second attempt.
    pub fn new(source: B, keep: bool) -> Self {
        let ended = source.is_end_stream().then(clock::now);
        Self(Rc::new(RefCell::new(Inner {
            total: source.size_hint().exact(),
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            keep,
            overflowed: false,
            attempt: 0,
            received: 0,
            ended,
            failed: false,
            messages: None,
            waiting: None,
        })))
    }

    /// The body for a new attempt; the previous attempt's ends with an error when it is read again.
    pub fn attempt(&self) -> RequestBody {
        let mut inner = self.0.borrow_mut();
        inner.attempt += 1;
        if inner.ended.is_some() && inner.received == 0 && inner.trailers.is_none() && !inner.failed
        {
            return RequestBody::Empty;
        }
        RequestBody::stream(Attempt {
            inner: self.0.clone(),
            attempt: inner.attempt,
            at: 0,
            trailers_sent: false,
            sent: 0,
        })
    }

    /// Whether another attempt would send the same bytes.
    pub fn can_repeat(&self) -> bool {
        let inner = self.0.borrow();
        !inner.overflowed && !inner.failed && (inner.keep || inner.received == 0)
    }

    /// There may be other attempts: what goes out from now on is kept. To be called before the first attempt.
    pub fn keep(&self) {
        self.0.borrow_mut().keep = true;
    }

    /// gRPC's messages are counted. To be called before the first attempt.
    pub fn count_messages(&self) {
        self.0.borrow_mut().messages = Some(MessageCount::default());
    }

    /// gRPC's messages so far.
    pub fn messages(&self) -> u64 {
        self.0.borrow().messages.map_or(0, |count| count.messages)
    }

    /// There will be no other attempt: nothing more is kept.
    pub fn settle(&self) {
        self.0.borrow_mut().keep = false;
    }

    /// The whole body, if it has come in and was kept.
    pub fn copy(&self) -> Option<Bytes> {
        let inner = self.0.borrow();
        (inner.ended.is_some()
            && !inner.overflowed
            && !inner.failed
            && inner.received == inner.kept_bytes as u64)
            .then(|| inner.kept.concat().into())
    }

    /// Bytes that came from the client.
    pub fn received(&self) -> u64 {
        self.0.borrow().received
    }

    /// Whether the client failed before the end.
    pub fn failed(&self) -> bool {
        self.0.borrow().failed
    }

    /// When the client's request had come in whole.
    pub fn ended_at(&self) -> Option<Instant> {
        self.0.borrow().ended
    }

    /// Waits until the client's request has come in whole, or failed.
    pub async fn ended(&self) -> Instant {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// See [`Self::ended`].
    pub fn poll_ended(&self, cx: &Context<'_>) -> Poll<Instant> {
        let mut inner = self.0.borrow_mut();
        match inner.ended {
            Some(at) => Poll::Ready(at),
            None => {
                inner.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The body as one attempt sends it.
struct Attempt<B> {
    inner: Rc<RefCell<Inner<B>>>,
    attempt: u64,
    /// The next kept frame.
    at: usize,
    trailers_sent: bool,
    sent: u64,
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Attempt<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut inner = this.inner.borrow_mut();
        if inner.attempt != this.attempt {
            return Poll::Ready(Some(Err(ReplayError::Superseded.into())));
        }
        if let Some(data) = inner.kept.get(this.at) {
            this.at += 1;
            this.sent += data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if let (Some(trailers), false) = (&inner.trailers, this.trailers_sent) {
            this.trailers_sent = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        let frame = std::task::ready!(inner.poll_source(cx));
        this.at = inner.kept.len();
        if let Some(Ok(frame)) = &frame {
            this.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            this.trailers_sent |= frame.is_trailers();
        }
        Poll::Ready(frame.map(|result| result.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.inner.borrow();
        inner.attempt == self.attempt
            && inner.ended.is_some()
            && !inner.failed
            && self.at >= inner.kept.len()
            && (inner.trailers.is_none() || self.trailers_sent)
    }

    fn size_hint(&self) -> SizeHint {
        match self.inner.borrow().total {
            Some(total) => SizeHint::with_exact(total.saturating_sub(self.sent)),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;

    use super::*;

    /// A client's body: frames, then the end or an error.
    struct Source(VecDeque<Result<Frame<Bytes>, &'static str>>);

    impl Body for Source {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.pop_front().map(|frame| frame.map_err(Into::into)))
        }
    }

    fn source(parts: &[&str]) -> Source {
        Source(
            parts
                .iter()
                .map(|part| Ok(Frame::data(Bytes::copy_from_slice(part.as_bytes()))))
                .collect(),
        )
    }

    async fn text(body: RequestBody) -> Result<String, BoxError> {
        let bytes = body.collect().await?.to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn every_attempt_sends_the_same_bytes() {
        let mut frames = source(&["one ", "two ", "three"]);
        let mut trailers = HeaderMap::new();
        trailers.insert("a", ::http::HeaderValue::from_static("b"));
        frames.0.push_back(Ok(Frame::trailers(trailers.clone())));
        let replay = Replay::new(frames, true);
        let mut first = replay.attempt();
        first.frame().await.unwrap().unwrap();
        let second = replay.attempt();
        // The first attempt was broken off; it gets nothing more.
        assert!(first.frame().await.unwrap().is_err());
        let second = second.collect().await.unwrap();
        assert_eq!(second.trailers(), Some(&trailers));
        assert_eq!(second.to_bytes(), "one two three");
        assert!(replay.can_repeat() && replay.ended_at().is_some());
        let third = replay.attempt().collect().await.unwrap();
        assert_eq!(third.trailers(), Some(&trailers));
        assert_eq!(third.to_bytes(), "one two three");
        assert_eq!(replay.received(), 13);
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_streams_and_is_not_repeated() {
        let part = "x".repeat(LIMIT / 2 + 1);
        let replay = Replay::new(source(&[&part, &part, "end"]), true);
        assert_eq!(text(replay.attempt()).await.unwrap().len(), LIMIT + 2 + 3);
        assert!(!replay.can_repeat());
        assert!(replay.0.borrow().kept.is_empty());
    }

    #[tokio::test]
    async fn a_settled_body_is_not_kept_but_what_was_kept_is_still_sent() {
        let replay = Replay::new(source(&["a", "b", "c"]), true);
        let mut first = replay.attempt();
        first.frame().await.unwrap().unwrap();
        let second = replay.attempt();
        replay.settle();
        assert!(!replay.can_repeat());
        assert_eq!(text(second).await.unwrap(), "abc");
        assert_eq!(replay.0.borrow().kept.len(), 1);
    }

    #[tokio::test]
    async fn a_client_that_fails_ends_the_attempt() {
        let mut frames = source(&["a"]);
        frames.0.push_back(Err("gone"));
        let replay = Replay::new(frames, true);
        assert!(text(replay.attempt()).await.is_err());
        assert!(replay.failed() && !replay.can_repeat());
    }

    #[tokio::test]
    async fn an_empty_body_has_no_frames() {
        let replay = Replay::new(http_body_util::Empty::<Bytes>::new(), false);
        assert!(matches!(replay.attempt(), RequestBody::Empty));
        assert!(replay.can_repeat());
        replay.ended().await;
    }
}
