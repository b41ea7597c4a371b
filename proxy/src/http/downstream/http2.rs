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

use ::http::{HeaderValue, Method, Response, header, request, response};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http_body::Body;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Active, Activity, Closed, Driver, ServerIo, Verdict, date,
    handling::{Asked, Handling},
    io::linger,
};
use crate::{
    config::http::HttpConnectionManager,
    data::{connection::Connection, counters::HttpCounters, stream},
    http::{manager::Exchange, response::Tracked, upgrade::OnUpgrade},
    http2::{self, Limits, Outgoing, Reason, RecvStream, SendError, SendStream, Tunnel, strip},
    net::{
        clock::{self, millis, now_ms},
        spare,
    },
};

mod alarms;
mod inside;

use alarms::{Alarm, Earliest, Timer};
use inside::{Inside, Part};

/// Streams at once where the settings say nothing.
const STREAMS: u32 = 1024;
/// So many requests may be taken back before they are answered, or half of all.
pub const ABANDONED: u64 = 500;
/// Requests that are older than this when they are taken back do not count.
const ABANDONED_AT_ONCE: Duration = Duration::from_secs(1);
/// How long who has been told to go may take: to say that it knows, and then, when nothing is under way, to close.
const FAREWELL: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// How often streams and frames follow each other before others get their turn.
const ROUNDS: u32 = 16;

impl Driver {
    /// Serves an HTTP/2 connection to its end.
    pub async fn http2(mut self, io: ServerIo) {
        let (connection, activity) = (self.connection.clone(), self.activity.clone());
        let mut http = Http2::new(io, connection, activity, &self.manager);
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
        http.streams.clear();
        Box::pin(linger(http.frames.io())).await;
    }
}

/// A client's connection.
struct Http2 {
    frames: http2::Connection<ServerIo>,
    streams: FuturesUnordered<Stream>,
    connection: Rc<Connection>,
    activity: Rc<Activity>,
    counters: Rc<HttpCounters>,
    patience: Rc<Patience>,
    inside: Inside,
    timer: Timer,
    /// No further requests are wanted.
    finishing: bool,
    /// When it is seen to that a connection that ends has an end.
    farewell: Option<Instant>,
}

impl Http2 {
    /// A connection of which nothing was read.
    fn new(
        io: ServerIo,
        connection: Rc<Connection>,
        activity: Rc<Activity>,
        manager: &HttpConnectionManager,
    ) -> Self {
        let limits = Limits {
            streams: manager.max_concurrent_streams.unwrap_or(STREAMS),
            head: manager.max_request_headers_bytes,
        };
        let counters = connection.thread.http_counters(&manager.stat_prefix);
        Self {
            frames: http2::Connection::server(io, limits),
            streams: FuturesUnordered::new(),
            connection,
            activity,
            counters,
            patience: Rc::default(),
            inside: Inside::new(),
            timer: Timer::default(),
            finishing: false,
            farewell: None,
        }
    }

    /// No further requests: what is under way is finished, and the client is told.
    fn finish(&mut self) {
        self.finishing = true;
        self.frames.leave();
        self.inside.mark(Part::Frames);
    }

    /// Runs the connection to its end. Anew after [`Self::finish`].
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inside.enter(cx.waker());
        self.frames.attend(self.inside.waker(Part::Frames));
        self.timer.ring(clock::now(), self.streams.iter().map(|stream| &stream.alarm));
        if self.is_left_waiting() {
            return Poll::Ready(());
        }
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
                    self.frames.end(Reason::ENHANCE_YOUR_CALM);
                    self.send();
                    return Poll::Ready(());
                }
            }
            if let Some(waker) = self.inside.woken(Part::Frames).cloned()
                && self.poll_frames(&mut Context::from_waker(&waker)).is_ready()
            {
                return Poll::Ready(());
            }
            if self.inside.is_quiet() {
                self.send();
                if self.inside.is_quiet() {
                    break;
                }
            }
        }
        self.timer.poll(cx);
        self.inside.leave();
        Poll::Pending
    }

    /// Whether a connection that is to end has waited long enough for the client to take part in that.
    fn is_left_waiting(&mut self) -> bool {
        let failed = self.frames.has_failed();
        if !self.finishing && !failed {
            return false;
        }
        let now = clock::now();
        let at = *self.farewell.get_or_insert(now + FAREWELL);
        if now >= at {
            if self.streams.is_empty() && (failed || self.frames.has_left()) {
                tracing::debug!(peer = %self.connection.peer, "closed: told to go, and did not");
                return true;
            }
            // Whether it has said that it knows or not.
            self.frames.leave_now();
            self.farewell = Some(now + FAREWELL);
        }
        if let Some(at) = self.farewell {
            self.timer.wait(at);
        }
        false
    }

    /// Sends what the turn has written. When that fails, the frames are to tell of it.
    fn send(&mut self) {
        let mut cx = Context::from_waker(self.inside.waker(Part::Frames));
        if let Poll::Ready(Err(_)) = self.frames.poll_send(&mut cx) {
            self.inside.mark(Part::Frames);
        }
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.streams.poll_next_unpin(cx) {
            if let Err(Closed) = ended {
                self.finish();
            }
        }
    }

    /// Reads what comes. Ready when the connection is over.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.frames.poll(cx);
        while let Some((head, respond, body)) = self.frames.next_request() {
            self.accept(head, respond, body);
        }
        polled.map(|ended| {
            let Err(error) = ended else { return };
            tracing::debug!(peer = %self.connection.peer, %error, "HTTP/2 connection ended");
            if error.is_violation() {
                self.counters.protocol_error();
            }
        })
    }

    /// Begins a request.
    fn accept(
        &mut self,
        parts: request::Parts,
        mut respond: SendStream,
        mut stream: Option<RecvStream>,
    ) {
        let unanswered = Unanswered::new(&self.patience);
        self.inside.mark(Part::Streams);
        if respond.is_broken() {
            // It was taken back in the same breath.
            return;
        }
        let (mut upgrade, mut taker) = (None, None);
        if parts.method == Method::CONNECT {
            if parts.headers.contains_key(header::CONTENT_LENGTH) {
                // A tunnel has no body (RFC 9110, 9.3.6).
                return respond.reset(Reason::PROTOCOL_ERROR);
            }
            let (sender, receiver) = oneshot::channel();
            upgrade = Some(OnUpgrade::new(receiver));
            taker = Some((sender, stream.take()));
        }
        let exchange = Exchange { upgrade, active: Active::new(&self.activity) };
        let connection = self.connection.clone();
        let handling = Handling::new(Asked::Http2 { connection, parts, stream, exchange });
        let state = State::Handling { handling, taker, unanswered };
        let earliest = self.timer.earliest().clone();
        self.streams.push(Stream { respond, state, alarm: Alarm::default(), earliest });
    }
}

/// Who takes over what the client sends into a tunnel.
type Taker = (oneshot::Sender<stream::Tunnel>, Option<RecvStream>);

/// A request and its response.
struct Stream {
    respond: SendStream,
    state: State,
    /// What it waits for.
    alarm: Alarm,
    earliest: Earliest,
}

enum State {
    /// The request is handled.
    Handling { handling: Handling, taker: Option<Taker>, unanswered: Unanswered },
    /// The client takes too little for the response's head to be written.
    Waiting(Box<Answer>),
    /// The response is written.
    Responding(Outgoing<Tracked>),
}

impl Future for Stream {
    type Output = Result<(), Closed>;

    /// What is not over when this is dropped is reset.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (polled, alarm) = clock::turn(clock::now(), || this.go_on(cx));
        if polled.is_pending() {
            this.alarm.set(alarm, cx, &this.earliest);
        }
        polled
    }
}

impl Stream {
    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        loop {
            match &mut self.state {
                State::Handling { handling, taker, unanswered } => {
                    let handled = match handling.poll(cx) {
                        Poll::Ready(handled) => handled,
                        // The client may take it back.
                        Poll::Pending => return self.respond.poll_reset(cx).map(|_| Ok(())),
                    };
                    unanswered.answered();
                    let response = match handled {
                        Ok(response) => response,
                        Err(Closed) => {
                            self.respond.reset(Reason::INTERNAL_ERROR);
                            return Poll::Ready(Err(Closed));
                        }
                    };
                    let mut answer = Answer::new(response, taker.take());
                    self.state = match answer.poll(cx, &mut self.respond) {
                        Poll::Ready(Some(body)) => State::Responding(body),
                        Poll::Ready(None) => return Poll::Ready(Ok(())),
                        Poll::Pending => State::Waiting(Box::new(answer)),
                    };
                }
                State::Waiting(answer) => match answer.poll(cx, &mut self.respond) {
                    Poll::Ready(Some(body)) => self.state = State::Responding(body),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending if answer.body.has_expired(cx) => {
                        self.respond.reset(Reason::INTERNAL_ERROR);
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Pending => return Poll::Pending,
                },
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

/// A response of which nothing was sent.
struct Answer {
    head: response::Parts,
    body: Tracked,
    taker: Option<Taker>,
}

impl Answer {
    fn new(response: Response<Tracked>, taker: Option<Taker>) -> Self {
        let (mut head, body) = response.into_parts();
        head.headers.entry(header::DATE).or_insert_with(date::value);
        let taker = taker.filter(|_| head.status.is_success());
        if taker.is_some() {
            head.headers.remove(header::CONTENT_LENGTH);
        } else if !body.is_end_stream()
            && let Some(size) = body.size_hint().exact()
        {
            let size = || HeaderValue::from(size);
            head.headers.entry(header::CONTENT_LENGTH).or_insert_with(size);
        }
        strip(&mut head.headers);
        Self { head, body, taker }
    }

    /// Sends the head, when there is room for it. Ready with the body, if one follows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        respond: &mut SendStream,
    ) -> Poll<Option<Outgoing<Tracked>>> {
        let Self { head, body, taker } = self;
        let ended = taker.is_none() && body.is_end_stream();
        let sent = ready!(respond.poll_respond(cx, head.status, &head.headers, ended));
        spare::give(std::mem::take(&mut head.headers));
        if let Err(error) = sent {
            tracing::debug!(%error, "a response cannot be sent");
            return Poll::Ready(None);
        }
        if let Some((sender, incoming)) = taker.take() {
            let tunnel = Box::new(Tunnel::new(incoming, respond.clone()));
            // Who would have taken it over may be gone: then it is reset.
            let _ = sender.send(stream::Tunnel::Http2(tunnel));
            return Poll::Ready(None);
        }
        let body = std::mem::replace(body, Tracked::empty(None));
        Poll::Ready((!ended).then(|| Outgoing::new(respond.clone(), body)))
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
