//! A client's HTTP/2 connection: hyper's, and what hyper does not look after.
//!
//! hyper runs each stream as a task. A client that takes its requests back at once, over and over, is sent away. A response
//! whose time is over ends even when the client gives it no window, in which case hyper does not ask the body for more.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use ::http::{Method, Request, Response, header};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{Active, Activity, Closed, Driver, ServerIo, Verdict, io::SharedIo};
use crate::{
    data::connection::Connection,
    http::{
        incoming::ClientBody,
        manager::{self, Exchange},
        response::{BrokenOff, Tracked},
        upgrade::OnUpgrade,
    },
    net::clock::{millis, now_ms},
};

const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What a stream may hold of a response that the client does not read.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams at once where the settings say nothing.
const STREAMS: u32 = 1024;
/// So many requests may be taken back before they are answered, or half of all.
pub const ABANDONED: u64 = 500;
/// Requests that are older than this when they are taken back do not count.
const ABANDONED_AT_ONCE: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// The response of the stream that the task is for.
    static RESPONSE: RefCell<Weak<RefCell<Tracked>>>;
}

impl Driver {
    /// Serves an HTTP/2 connection to its end.
    pub async fn http2(mut self, io: ServerIo) {
        let head = u32::try_from(self.manager.max_request_headers_bytes).unwrap_or(u32::MAX);
        let mut builder = http2::Builder::new(Streams);
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(head)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_streams(self.manager.max_concurrent_streams.unwrap_or(STREAMS));
        let patience = Rc::<Patience>::default();
        let requests = Requests {
            connection: self.connection.clone(),
            activity: self.activity.clone(),
            patience: patience.clone(),
        };
        let io = SharedIo::new(io);
        let mut http = builder.serve_connection(TokioIo::new(io.clone()), requests);
        let mut drained = false;
        loop {
            let verdict = tokio::select! {
                biased;
                result = poll_fn(|cx| match Pin::new(&mut http).poll(cx) {
                    Poll::Pending if patience.is_over() => Poll::Ready(Ok(())),
                    polled => polled,
                }) => {
                    let peer = self.connection.peer;
                    if let Err(error) = result {
                        tracing::debug!(%peer, %error, "HTTP/2 connection ended");
                    } else if patience.is_over() {
                        tracing::warn!(%peer, "closed: too many requests were taken back at once");
                    }
                    break;
                }
                verdict = self.event(drained) => verdict,
            };
            match verdict {
                Verdict::Continue => {}
                Verdict::Drain => {
                    drained = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
                Verdict::Close | Verdict::HeadTimeout => return,
            }
        }
        drop(http);
        Box::pin(io.linger()).await;
    }
}

/// With a client that makes work which it does not want (CVE-2023-44487).
#[derive(Debug, Default)]
struct Patience {
    served: Cell<u64>,
    abandoned: Cell<u64>,
}

impl Patience {
    fn is_over(&self) -> bool {
        let abandoned = self.abandoned.get();
        abandoned >= ABANDONED && abandoned > self.served.get() / 2
    }
}

/// A request without an answer yet: when it goes away like this, the client has taken it back.
struct Unanswered {
    patience: Rc<Patience>,
    /// On the process's clock; none when there is an answer.
    since: Option<u64>,
}

impl Unanswered {
    fn new(patience: &Rc<Patience>) -> Self {
        patience.served.set(patience.served.get() + 1);
        Self { patience: patience.clone(), since: Some(now_ms()) }
    }

    /// There is an answer.
    fn answered(mut self) {
        self.since = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let limit = millis(ABANDONED_AT_ONCE);
        if self.since.is_some_and(|since| now_ms().saturating_sub(since) < limit) {
            self.patience.abandoned.set(self.patience.abandoned.get() + 1);
        }
    }
}

/// Runs hyper's tasks, one for each stream, on this thread.
#[derive(Clone, Copy, Debug)]
struct Streams;

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(RESPONSE.scope(RefCell::default(), async move {
            let mut stream = pin!(stream);
            poll_fn(|cx| match stream.as_mut().poll(cx) {
                // What ends with its task is reset.
                Poll::Pending if has_expired(cx) => Poll::Ready(()),
                polled => polled.map(drop),
            })
            .await;
        }));
    }
}

/// Whether the time of this task's response is over.
fn has_expired(cx: &mut Context<'_>) -> bool {
    let response = RESPONSE.try_with(|response| response.borrow().upgrade());
    response.ok().flatten().is_some_and(|response| response.borrow_mut().has_expired(cx))
}

/// A connection's requests.
struct Requests {
    connection: Rc<Connection>,
    activity: Rc<Activity>,
    patience: Rc<Patience>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Shared>;
    type Error = Closed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let active = Active::new(&self.activity);
        let switches =
            request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE);
        let upgrade = switches.then(|| OnUpgrade::Http2(hyper::upgrade::on(&mut request)));
        let exchange = Exchange { upgrade, active };
        let request = request.map(ClientBody::Http2);
        let unanswered = Unanswered::new(&self.patience);
        let handled = manager::handle(self.connection.clone(), request, exchange);
        Box::pin(async move {
            let response = handled.await;
            unanswered.answered();
            Ok(response?.map(Shared::new))
        })
    }
}

/// A response's body, which hyper has, and the stream's task looks at.
struct Shared(Rc<RefCell<Tracked>>);

impl Shared {
    /// Made in the stream's task.
    fn new(body: Tracked) -> Self {
        let shared = Rc::new(RefCell::new(body));
        // Outside of such a task nobody looks at it.
        let _ = RESPONSE.try_with(|response| response.replace(Rc::downgrade(&shared)));
        Self(shared)
    }
}

impl Body for Shared {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().size_hint()
    }
}
