//! A client's HTTP/2 connection: its frames, and its requests, each handled and answered on a stream of its own.
//!
//! One future does all of it: a request's handler, and its response on its way, are polled from here, then what they left
//! with the connection is written, together. Who owns this decides about time and tells by [`Http2::finish`]. A client that
//! takes its requests back at once, over and over, is sent away.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::{HeaderValue, Method, Request, Response, header};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::{
    Reason, RecvStream,
    server::{self, Handshake, SendResponse},
};
use http_body::Body;
use tokio::sync::oneshot;

use super::{Active, Activity, Closed, Driver, ServerIo, Verdict, date, io::linger};
use crate::{
    config::http::HttpConnectionManager,
    data::{connection::Connection, counters::HttpCounters, stream},
    http::{
        incoming::ClientBody,
        manager::{self, Exchange},
        response::Tracked,
        upgrade::OnUpgrade,
    },
    http2::{
        CONNECTION_WINDOW, Gathered, Outgoing, SEND_BUFFER, STREAM_WINDOW, SendError, Tunnel,
        prepare,
    },
    net::clock::{self, millis, now_ms},
};

mod inside;

use inside::{Inside, Part};

/// Streams at once where the settings say nothing.
const STREAMS: u32 = 1024;
/// So many requests may be taken back before they are answered, or half of all.
pub const ABANDONED: u64 = 500;
/// Requests that are older than this when they are taken back do not count.
const ABANDONED_AT_ONCE: Duration = Duration::from_secs(1);
/// How often streams and frames follow each other before others get their turn.
const ROUNDS: u32 = 16;

type Handling = Pin<Box<dyn Future<Output = Result<Response<Tracked>, Closed>>>>;

impl Driver {
    /// Serves an HTTP/2 connection to its end.
    pub async fn http2(mut self, io: ServerIo) {
        let io = Gathered::new(io);
        let (connection, activity) = (self.connection.clone(), self.activity.clone());
        let mut http = Http2::new(io.clone(), connection, activity, &self.manager);
        let mut drained = false;
        loop {
            let verdict = tokio::select! {
                biased;
                () = poll_fn(|cx| clock::turn_of_woken(|| http.poll(cx))) => break,
                verdict = self.event(drained) => verdict,
            };
            // Nothing is lost by GOAWAY: what is on its way is answered.
            let verdict = match verdict {
                Verdict::Leave => self.drain(drained),
                other => other,
            };
            match verdict {
                Verdict::Continue | Verdict::Leave => {}
                Verdict::Drain => {
                    drained = true;
                    http.finish();
                }
                Verdict::Close | Verdict::HeadTimeout => return,
            }
        }
        drop(http);
        Box::pin(linger(io)).await;
    }
}

/// The connection's frames.
enum Frames {
    /// The client has not said yet that it speaks HTTP/2.
    Handshake(Handshake<Gathered<ServerIo>, Bytes>),
    Open(server::Connection<Gathered<ServerIo>, Bytes>),
}

/// A client's connection.
struct Http2 {
    frames: Frames,
    io: Gathered<ServerIo>,
    streams: FuturesUnordered<Stream>,
    connection: Rc<Connection>,
    activity: Rc<Activity>,
    counters: Rc<HttpCounters>,
    patience: Rc<Patience>,
    inside: Inside,
    /// No further requests.
    finishing: bool,
}

impl Http2 {
    /// A connection of which nothing was read.
    fn new(
        io: Gathered<ServerIo>,
        connection: Rc<Connection>,
        activity: Rc<Activity>,
        manager: &HttpConnectionManager,
    ) -> Self {
        let mut builder = server::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_streams(manager.max_concurrent_streams.unwrap_or(STREAMS))
            .max_header_list_size(
                u32::try_from(manager.max_request_headers_bytes).unwrap_or(u32::MAX),
            );
        let counters = connection.thread.http_counters(&manager.stat_prefix);
        Self {
            frames: Frames::Handshake(builder.handshake(io.clone())),
            io,
            streams: FuturesUnordered::new(),
            connection,
            activity,
            counters,
            patience: Rc::default(),
            inside: Inside::new(),
            finishing: false,
        }
    }

    /// No further requests: what is under way is finished, and the client is told.
    fn finish(&mut self) {
        self.finishing = true;
        if let Frames::Open(frames) = &mut self.frames {
            frames.graceful_shutdown();
            self.inside.mark(Part::Frames);
        }
    }

    /// Runs the connection to its end. Anew after [`Self::finish`].
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inside.enter(cx.waker());
        for round in 0..=ROUNDS {
            if round == ROUNDS {
                self.send();
                break;
            }
            if let Some(waker) = self.inside.woken(Part::Streams).cloned() {
                self.poll_streams(&mut Context::from_waker(&waker));
                if self.patience.is_over() {
                    let peer = self.connection.peer;
                    tracing::warn!(%peer, "closed: too many requests were taken back at once");
                    return Poll::Ready(());
                }
            }
            if let Some(waker) = self.inside.woken(Part::Frames).cloned()
                && self.poll_frames(&mut Context::from_waker(&waker)).is_ready()
            {
                return Poll::Ready(());
            }
            if self.inside.is_quiet() && self.send() {
                break;
            }
        }
        self.inside.leave();
        Poll::Pending
    }

    /// Sends what the turn has written. Whether that is all there is to do: when it fails, the frames are to hear of it.
    fn send(&self) -> bool {
        let mut cx = Context::from_waker(self.inside.waker(Part::Frames));
        let failed = matches!(self.io.poll_send(&mut cx), Poll::Ready(Err(_)));
        if failed {
            self.inside.mark(Part::Frames);
        }
        !failed
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.streams.poll_next_unpin(cx) {
            if let Err(Closed) = ended {
                self.finish();
            }
        }
    }

    /// Writes what there is and reads what comes. Ready when the connection is over.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let frames = match &mut self.frames {
                Frames::Open(frames) => frames,
                Frames::Handshake(handshake) => {
                    match ready!(Pin::new(handshake).poll(cx)) {
                        Ok(frames) => self.frames = Frames::Open(frames),
                        Err(error) => return self.ended(&error),
                    }
                    if self.finishing {
                        self.finish();
                    }
                    continue;
                }
            };
            match ready!(frames.poll_accept(cx)) {
                Some(Ok((request, respond))) => self.accept(request, respond),
                Some(Err(error)) => return self.ended(&error),
                None => return Poll::Ready(()),
            }
        }
    }

    fn ended(&self, error: &h2::Error) -> Poll<()> {
        tracing::debug!(peer = %self.connection.peer, %error, "HTTP/2 connection ended");
        if error.is_library() {
            self.counters.protocol_error();
        }
        Poll::Ready(())
    }

    /// Begins a request.
    fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, stream) = request.into_parts();
        let (mut upgrade, mut taker) = (None, None);
        let body = if parts.method == Method::CONNECT {
            if parts.headers.contains_key(header::CONTENT_LENGTH) {
                // A tunnel has no body (RFC 9110, 9.3.6).
                return respond.send_reset(Reason::PROTOCOL_ERROR);
            }
            let (sender, receiver) = oneshot::channel();
            upgrade = Some(OnUpgrade::new(receiver));
            taker = Some((sender, stream));
            ClientBody::Empty
        } else {
            ClientBody::http2(stream, &parts.headers)
        };
        let exchange = Exchange { upgrade, active: Active::new(&self.activity) };
        let request = Request::from_parts(parts, body);
        let handling = Box::pin(manager::handle(self.connection.clone(), request, exchange));
        let unanswered = Unanswered::new(&self.patience);
        let state = State::Handling { handling, taker, unanswered };
        self.streams.push(Stream { respond, state });
        self.inside.mark(Part::Streams);
    }
}

/// Who takes over what the client sends into a tunnel.
type Taker = (oneshot::Sender<stream::Tunnel>, RecvStream);

/// A request and its response.
struct Stream {
    respond: SendResponse<Bytes>,
    state: State,
}

enum State {
    /// The request is handled.
    Handling { handling: Handling, taker: Option<Taker>, unanswered: Unanswered },
    /// The response is written.
    Responding(Outgoing<Tracked>),
}

impl Future for Stream {
    type Output = Result<(), Closed>;

    /// What is not over when this is dropped is reset.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Handling { handling, taker, unanswered } => {
                    let handled = match handling.as_mut().poll(cx) {
                        Poll::Ready(handled) => handled,
                        // The client may take it back.
                        Poll::Pending => return this.respond.poll_reset(cx).map(|_| Ok(())),
                    };
                    unanswered.answered();
                    let response = match handled {
                        Ok(response) => response,
                        Err(Closed) => {
                            this.respond.send_reset(Reason::INTERNAL_ERROR);
                            return Poll::Ready(Err(Closed));
                        }
                    };
                    match begin(&mut this.respond, response, taker.take()) {
                        Some(body) => this.state = State::Responding(body),
                        None => return Poll::Ready(Ok(())),
                    }
                }
                State::Responding(response) => {
                    let broken = match response.poll(cx) {
                        Poll::Ready(ended) => matches!(ended, Err(SendError::Body(_))),
                        // Who gives no window keeps the response from moving on.
                        Poll::Pending => {
                            if !response.is_stalled() || !response.body_mut().has_expired(cx) {
                                return Poll::Pending;
                            }
                            true
                        }
                    };
                    if broken {
                        response.reset(Reason::INTERNAL_ERROR);
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Sends a response's head; its body, if there is more than that.
fn begin(
    respond: &mut SendResponse<Bytes>,
    response: Response<Tracked>,
    taker: Option<Taker>,
) -> Option<Outgoing<Tracked>> {
    let (mut head, body) = response.into_parts();
    head.headers.entry(header::DATE).or_insert_with(date::value);
    let taker = taker.filter(|_| head.status.is_success());
    let ended = taker.is_none() && body.is_end_stream();
    if taker.is_some() {
        head.headers.remove(header::CONTENT_LENGTH);
    } else if !ended && let Some(size) = body.size_hint().exact() {
        let size = || HeaderValue::from(size);
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(size);
    }
    prepare(&mut head.headers);
    let outgoing = match respond.send_response(Response::from_parts(head, ()), ended) {
        Ok(outgoing) => outgoing,
        Err(error) => {
            tracing::debug!(%error, "a response cannot be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
            return None;
        }
    };
    if let Some((sender, incoming)) = taker {
        let tunnel = Box::new(Tunnel::new(incoming, outgoing));
        // Who would have taken it over may be gone: then it is reset.
        let _ = sender.send(stream::Tunnel::Http2(tunnel));
        return None;
    }
    (!ended).then(|| Outgoing::new(outgoing, body))
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
    fn answered(&mut self) {
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

#[cfg(test)]
mod tests;
